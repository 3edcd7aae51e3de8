"""The template as a server: it accepts requests, forks kernels and reports their ends.

One connection on the Unix socket is one kernel. The requester sends what ``Popen`` would need and
its three standard streams; the kernel answers with its process id; the template adds the exit
status when the kernel has ended. The connection stays open meanwhile as a *lifeline*: a kernel that
reads its end knows that whoever asked for it is gone, as ipykernel's parent poller does, and a
requester that reads its end knows that kernel and template are gone.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from . import wire
from .kernel import Kernel, become, end
from .libraries import PRELOADED, UnfitError, check_fit, preload, standing_in

IDLE_S = 600.0
REQUEST_LIMIT_S = 5.0
VANISHED_CHECK_S = 5.0


@dataclass
class Template:
    """Accepts requests, forks kernels and reports their ends. One instance a process."""

    listener: socket.socket
    path: Path
    idle_s: float
    unfit: str = ""
    living: dict[int, socket.socket] = field(default_factory=dict)
    last_use: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.home = self._identity()

    def serve(self) -> Kernel | None:
        """Serve until nobody needs this process. Returns a ``Kernel`` in a fork, else ``None``."""
        wake, signalled = socket.socketpair()
        signalled.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(signalled.fileno(), warn_on_full_buffer=False)
        self.listener.setblocking(False)
        with wake, signalled, selectors.DefaultSelector() as selector:
            selector.register(self.listener, selectors.EVENT_READ)
            selector.register(wake, selectors.EVENT_READ)
            while not self._unused():
                ready = selector.select(min(self.idle_s, VANISHED_CHECK_S))
                for key, _ in ready:
                    if key.fileobj is wake:
                        wake.recv(4096)
                self.reap()
                kernel = self._accept()
                if kernel is not None:
                    signal.set_wakeup_fd(-1)
                    return kernel
        return None

    def reap(self) -> None:
        """Collect every kernel that has ended and tell its requester how."""
        while self.living:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self.last_use = time.monotonic()
            connection = self.living.pop(pid, None)
            if connection is None:
                continue
            with connection, contextlib.suppress(OSError):
                wire.send(connection, {"exit": os.waitstatus_to_exitcode(status)})

    def _unused(self) -> bool:
        idle = time.monotonic() - self.last_use > self.idle_s
        return not self.living and (idle or self.outdated)

    @property
    def outdated(self) -> bool:
        """The environment, this file or the socket is gone, or is another one by now."""
        return self.home != self._identity()

    def _identity(self) -> tuple[object, ...]:
        found: list[object] = []
        for path in (Path(sys.prefix), Path(__file__), self.path):
            try:
                status = path.stat()
            except OSError:
                return ()
            found.append((status.st_dev, status.st_ino))
        return tuple(found)

    def _accept(self) -> Kernel | None:
        try:
            connection, _ = self.listener.accept()
        except OSError:
            return None
        self.last_use = time.monotonic()
        connection.settimeout(REQUEST_LIMIT_S)
        kernel = None
        with contextlib.suppress(OSError, EOFError, ValueError, TypeError):  # what no request is
            request, streams = wire.receive(connection, streams=3)
            kernel = Kernel(connection=connection, streams=streams, **request)
            connection.settimeout(None)
            if self.unfit:
                wire.send(connection, {"refused": self.unfit})
        if kernel is not None:
            if not self.unfit and not self.outdated and self._fork(kernel):
                return kernel
            for stream in kernel.streams:
                os.close(stream)
        # Closed without an answer, an outdated template is replaced by whoever asked it.
        if connection not in self.living.values():
            connection.close()
        return None

    def _fork(self, kernel: Kernel) -> bool:
        """Fork; true in the child, which has closed all that belongs to the template."""
        sys.stdout.flush()
        sys.stderr.flush()
        # No signal may be handled between the fork and the reset of the handlers in the child.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
        except OSError:  # too many processes, too little memory: the requester can try by itself
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            return False
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            self.living[pid] = kernel.connection
            return False
        self.listener.close()
        for connection in self.living.values():
            connection.close()
        return True


def main(arguments: list[str]) -> None:
    """Run the template to its end; in a fork, the kernel, which does not return."""
    parser = argparse.ArgumentParser(description="Process that warm kernels are forked from")
    parser.add_argument("--listener", type=int, required=True)
    parser.add_argument("--socket", type=Path, required=True)
    options = parser.parse_args(arguments)
    if os.fork():
        os._exit(0)  # whoever started us need not wait for us, nor reap us
    os.chdir("/")
    gc.disable()
    began = time.monotonic()
    idle_s = float(os.environ.get("COMPANION_WARM_IDLE") or IDLE_S)
    libraries = os.environ.get("COMPANION_WARM_LIBRARIES")
    template = Template(socket.socket(fileno=options.listener), options.socket, idle_s)
    with standing_in() as (stdout, stderr):
        for name, reason in preload(libraries.split(",") if libraries else PRELOADED).items():
            print(f"not preloaded: {name}: {reason}", file=stderr, flush=True)
    try:
        check_fit()
    except UnfitError as unfit:
        template.unfit = str(unfit)
    gc.collect()
    gc.freeze()
    template.last_use = time.monotonic()
    print(
        f"{os.getpid()} ready after {template.last_use - began:.1f} s {template.unfit}", flush=True
    )
    kernel = template.serve()
    if kernel is None:
        if not template.outdated:
            template.path.unlink(missing_ok=True)
        return
    become(kernel, stdout, stderr)
    end()


def run(arguments: list[str]) -> None:
    """Run ``main`` and end the process, whatever happened in it; a fork must not go on either."""
    try:
        main(arguments)
    except Exception:  # noqa: BLE001 - whatever it was, this process ends here
        traceback.print_exc()
        sys.exit(1)
