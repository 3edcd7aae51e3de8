"""A fork becomes a kernel: what an own start would have given it, given after the fact."""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import importlib.util
import io
import os
import random
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from typing import Any, NoReturn

from . import wire
from .libraries import CurrentStream

INLINE_BACKEND = "module://matplotlib_inline.backend_inline"


@dataclass(frozen=True)
class Kernel:
    """What a fresh fork has to become; ``streams`` are its stdin, stdout and stderr."""

    executable: str
    arguments: list[str]
    environment: dict[str, str]
    folder: str
    independent: bool
    connection: socket.socket
    streams: list[int]


def become(kernel: Kernel, stdout: CurrentStream, stderr: CurrentStream) -> None:
    """Turn this fork into the kernel that was asked for, and run it to its end."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number, stream in enumerate(kernel.streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(kernel.folder)
    os.environ.clear()
    os.environ.update(kernel.environment)
    sys.executable = kernel.executable
    _renew()
    wire.send(kernel.connection, {"pid": os.getpid()})
    if not kernel.independent:
        threading.Thread(
            target=_follow_requester, args=(kernel.connection,), name="lifeline", daemon=True
        ).start()
    from ipykernel.kernelapp import IPKernelApp

    launcher = importlib.util.find_spec("ipykernel_launcher")
    sys.argv = [launcher.origin if launcher and launcher.origin else "", *kernel.arguments]
    # 1 is "has a parent, do not poll it": the parent is the template, the lifeline polls instead.
    application: Any = IPKernelApp.instance(parent_handle=0 if kernel.independent else 1)
    application.initialize(kernel.arguments)
    if "ipywidgets" in sys.modules:  # registers with a kernel when imported, and there was none
        sys.modules["ipywidgets"].register_comm_target()
    stdout.target, stderr.target = sys.stdout, sys.stderr
    application.start()


def end() -> NoReturn:
    """End a fork as the interpreter would, but for taking the imported libraries down one by one.

    That would copy hundreds of megabytes that are shared with the template, to no effect; forks
    made by ``multiprocessing`` end the same way. Threads are waited for, ``atexit`` runs, files
    are flushed.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for thing in gc.get_objects():  # the kernel's own; what came from the template is frozen
        if issubclass(type(thing), io.IOBase) and not thing.closed:
            with contextlib.suppress(OSError, ValueError):
                thing.flush()
    os._exit(0)


def _renew() -> None:
    """Give this fork what an own start would have given it: random state, caches, collector."""
    gc.enable()
    importlib.invalidate_caches()
    random.seed()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    if "matplotlib" in sys.modules and not os.environ.get("MPLBACKEND"):
        sys.modules["matplotlib"].rcParams["backend"] = INLINE_BACKEND


def _follow_requester(connection: socket.socket) -> None:
    """End this kernel once whoever asked for it is gone; what ipykernel's parent poller does."""
    with contextlib.suppress(OSError):
        while connection.recv(1):
            pass
    os._exit(1)
