"""Run a real server as a subprocess, kill it when asked, and never leave it behind.

Experiments with crashes need processes that really die.  The rule that makes this safe is that a
server never outlives whoever started it:

* leaving the ``with`` block stops it, an exception or an interrupt included;
* a normal end of the interpreter stops it (``atexit``);
* if the interpreter itself is killed (``kill -9``, a kernel that is restarted), a watchdog does it:
  a tiny process that holds one end of a pipe.  The other end closes with its owner, however that
  dies, and the watchdog then kills the server's process group.  Unlike Linux's
  ``PR_SET_PDEATHSIG`` this needs no code between fork and exec, which is unsafe in a process with
  threads, and works on every POSIX system.

The server runs in a session of its own, so that an interrupt meant for the notebook does not reach
it and one signal reaches all its workers.
"""

from __future__ import annotations

import atexit
import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

_WATCHDOG = """
import os, signal, sys
if not sys.stdin.buffer.read(1):
    os.killpg(int(sys.argv[1]), signal.SIGKILL)
"""
_POLL = 0.02
_TAIL_LINES = 20


class ServerNotReadyError(Exception):
    """The server ended or stayed unready; ``log_tail`` holds the last lines that it wrote.

    ``exit_code`` is ``None`` if it was still running when time was up.
    """

    def __init__(
        self, argv: Sequence[str], exit_code: int | None, waited: float, log_tail: str
    ) -> None:
        super().__init__(argv, exit_code, waited, log_tail)
        self.argv = argv
        self.exit_code = exit_code
        self.waited = waited
        self.log_tail = log_tail

    def __str__(self) -> str:
        what = "was not ready" if self.exit_code is None else f"ended with code {self.exit_code}"
        log = self.log_tail or "(it wrote nothing)"
        return f"{' '.join(self.argv)} {what} after {self.waited:.1f} s; its last words:\n{log}"


class SubprocessServer:
    """A server process that is ready inside ``with SubprocessServer(…) as server:`` and gone after.

    Args:
        argv: the command.
        ready: a URL that answers with a status below 400, or a function that returns true, once
            the server is ready.  An ``OSError`` from the function means *not yet*.
        env: variables to add to this process's own.
        cwd: its working directory.
        timeout: seconds to wait until it is ready.
        clock, sleep: how to measure and pass the time of waiting, in seconds.
    """

    def __init__(
        self,
        argv: Sequence[str],
        ready: str | Callable[[], object],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | str | None = None,
        timeout: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._argv = list(argv)
        self._ready = ready if callable(ready) else lambda: _answers(ready)
        self._env = {**os.environ, **(env or {})}
        self._cwd = cwd
        self._timeout = timeout
        self._clock = clock
        self._sleep = sleep
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this object
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs, else ``None``."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def log(self) -> str:
        """All that it wrote to standard output and standard error, over all restarts."""
        # pread leaves the file's position alone, which the server shares and writes at.
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            ServerNotReadyError: it ended, or ``timeout`` passed; it has been killed then.
            RuntimeError: it runs already.
            OSError: the command cannot be run.
        """
        if self.pid:
            raise RuntimeError(f"the server runs already, as process {self.pid}")
        self._process = subprocess.Popen(
            self._argv,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=self._env,
            cwd=self._cwd,
            start_new_session=True,
        )
        try:
            atexit.register(self.kill)
            self._watchdog = subprocess.Popen(
                [sys.executable, "-S", "-E", "-c", _WATCHDOG, str(self._process.pid)],
                stdin=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._wait_until_ready(self._process)
        except BaseException:
            self.kill()
            raise

    def terminate(self, grace: float = 10.0) -> int | None:
        """Ask it to end (SIGTERM) and kill it after ``grace`` seconds; as :meth:`kill` then."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace)
        return self.kill()

    def kill(self) -> int | None:
        """Kill it and all its children (SIGKILL); its exit code, ``None`` if it does not run."""
        if self._process is None:
            return None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        code = self._process.wait()
        self._process = None  # Its number may be given to another process from now on.
        self._dismiss_watchdog()
        atexit.unregister(self.kill)
        return code

    def restart(self) -> None:
        """Terminate it if it runs, and start it again; raises what :meth:`start` does."""
        self.terminate()
        self.start()

    def __enter__(self) -> SubprocessServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.terminate()

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        begun = self._clock()
        while not self._is_ready():
            waited = self._clock() - begun
            if process.poll() is not None or waited >= self._timeout:
                tail = "\n".join(self.log().splitlines()[-_TAIL_LINES:])
                raise ServerNotReadyError(self._argv, process.returncode, waited, tail)
            self._sleep(_POLL)

    def _is_ready(self) -> bool:
        try:
            return bool(self._ready())
        except OSError:
            return False

    def _dismiss_watchdog(self) -> None:
        if self._watchdog is None or self._watchdog.stdin is None:
            return
        with contextlib.suppress(BrokenPipeError):
            self._watchdog.stdin.write(b".")
            self._watchdog.stdin.close()
        self._watchdog.wait()
        self._watchdog = None


def free_port() -> int:
    """A TCP port on the loopback interface that nobody listens on now.

    Somebody else could still take it before you do: the kernel chooses from tens of thousands, so
    that is rare, and a server that loses the race fails to start and says so.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(url: str) -> bool:
    """Whether ``url`` answers well; a proxy from the environment is never asked."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=2.0):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except http.client.HTTPException:  # What answered there does not speak HTTP, or not yet.
        return False
