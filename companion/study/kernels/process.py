"""A forked kernel as Jupyter expects a process to be: the part of ``subprocess.Popen`` it uses.

Whoever asked for a kernel is not its parent and cannot wait for it. The template is, and writes the
exit status to the connection that both keep open. If the template is killed, its kernels live on:
each holds the other end of its connection too, so the end of the stream means that the kernel has
ended, with a status that nobody can know any more.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from typing import Any

from companion.study.kernels.warm_template import wire

UNKNOWN_EXIT = 1
"""Reported for a kernel that ended after its template did."""

_living: set[ForkedKernel] = set()
"""Keeps connections open when their owners are forgotten: like a ``Popen`` that is dropped, a
kernel lives until it is told to end or until this process does."""


class ForkedKernel:
    """A kernel forked by the template, with the methods of ``Popen`` that provisioners call."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._connection = connection
        _living.add(self)

    def poll(self) -> int | None:
        """The exit status (negative: the signal that ended it), or ``None`` while it runs."""
        return self._await_end(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, ``timeout`` seconds at most; raises ``subprocess.TimeoutExpired``."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            left = 60.0 if deadline is None else max(0.0, deadline - time.monotonic())
            if self._await_end(left) is None and deadline is not None and not left:
                raise subprocess.TimeoutExpired("warm kernel", timeout or 0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the kernel process, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _await_end(self, seconds: float) -> int | None:
        if self.returncode is None:
            self._connection.settimeout(seconds)
            try:
                message, _ = wire.receive(self._connection)
                self.returncode = int(message["exit"])
            except (BlockingIOError, TimeoutError):
                return None
            except (EOFError, ConnectionError):
                self.returncode = UNKNOWN_EXIT
            self._connection.close()
            _living.discard(self)
        return self.returncode

    def __repr__(self) -> str:
        state: Any = "running" if self.returncode is None else self.returncode
        return f"<ForkedKernel pid={self.pid} {state}>"
