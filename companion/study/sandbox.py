"""Run a candidate's code with a limit on time and memory, in a forked copy of this process.

A fork sees everything that the kernel sees (the attempt, its imports, its globals) without
pickling any of it, and can be killed whatever it does: `while True: pass`, a loop that swallows
every exception, a C extension that never returns, a list that eats the memory. The kernel waits on
a pipe and goes on. Only the result crosses the pipe.

Where there is no `fork`, the code runs in a thread: the time limit then ends the waiting but not
the code, and memory is not limited.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import pickle
import select
import signal
import struct
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

LENGTH = struct.Struct("!Q")
PRINTED_LIMIT = 2_000  # characters of the attempt's own output that are kept


@dataclass(frozen=True)
class Limits:
    """`seconds` of wall time and `megabytes` of memory on top of what the process has already."""

    seconds: float = 10.0
    megabytes: int = 2_048


@dataclass(frozen=True)
class Ran:
    """How it ended.

    `value` is the result of a normal end. `error` is the exception's class name and message,
    `trace` its traceback, `stopped` the limit that was hit or the signal that ended the process.
    `printed` is the end of what the code wrote to stdout and stderr.
    """

    value: Any = None
    error: str = ""
    error_types: tuple[str, ...] = ()
    trace: str = ""
    stopped: str = ""
    printed: str = ""


def run_limited(function: Callable[[], Any], limits: Limits) -> Ran:
    """Call `function` under `limits` and tell how it ended. Never raises what `function` raises.

    The result must be picklable; one that is not is reported as an error.
    """
    if not hasattr(os, "fork"):
        return _run_in_thread(function, limits)
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # Python 3.12 warns of forks in threaded processes. The child runs one function and never
        # returns into the kernel's own threads or loops.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(reader)
        _child(function, limits, writer)
    os.close(writer)
    try:
        data, in_time = _receive(reader, time.monotonic() + limits.seconds)
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # also what the attempt started and left behind
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)  # it may not have made its own group yet
        _, status = os.waitpid(child, 0)
    if not in_time:
        return Ran(stopped=f"stopped after its limit of {limits.seconds:g} s")
    if not data:
        return Ran(stopped=_cause_of_death(status))
    ran: Ran = pickle.loads(data)  # written by our own fork
    return ran


def _child(function: Callable[[], Any], limits: Limits, writer: int) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.disable()  # a crash is told in a sentence, not dumped into the notebook
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    try:
        if sys.platform == "linux":  # elsewhere the address space is no measure of memory
            import resource  # does not exist on every platform

            ceiling = psutil.Process().memory_info().vms + limits.megabytes * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
        if "torch" in sys.modules:  # the parent's OpenMP threads did not survive the fork
            sys.modules["torch"].set_num_threads(1)
        ran = run_here(function, limits)
        try:
            data = pickle.dumps(ran)
        except Exception as error:  # noqa: BLE001  a result may refuse in any way it likes
            data = pickle.dumps(Ran(error=f"result cannot be sent back: {error}"))
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(LENGTH.pack(len(data)) + data)
    finally:
        os._exit(0)  # never run the kernel's exit handlers a second time


def run_here(function: Callable[[], Any], limits: Limits) -> Ran:
    """Call `function` in this process and tell how it ended; nothing ends it at its limits."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            ran = Ran(value=function())
        except MemoryError:
            ran = Ran(stopped=f"stopped: it wanted more than {limits.megabytes} MB of memory")
        except BaseException as error:  # noqa: BLE001  how it ended is the result
            ran = Ran(
                error=f"{type(error).__name__}: {error}" if str(error) else type(error).__name__,
                error_types=tuple(kind.__name__ for kind in type(error).__mro__),
                trace=traceback.format_exc(),
            )
    return Ran(**{**vars(ran), "printed": printed.getvalue()[-PRINTED_LIMIT:]})


def _receive(reader: int, deadline: float) -> tuple[bytes, bool]:
    """The message behind its length, and whether it or the end of the pipe came in time.

    The length says when the message is whole. The end of the pipe would not: a process that the
    attempt left behind holds the pipe open.
    """
    received = bytearray()
    while (left := deadline - time.monotonic()) > 0:
        if select.select([reader], [], [], left)[0]:
            chunk = os.read(reader, 2**16)
            received += chunk
            head = received[: LENGTH.size]
            is_whole = (
                len(head) == LENGTH.size and len(received) - LENGTH.size == LENGTH.unpack(head)[0]
            )
            if is_whole or not chunk:  # a message that broke off is none
                return bytes(received[LENGTH.size :]) if is_whole else b"", True
    return b"", False


def _cause_of_death(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return "ended the process itself"


def _run_in_thread(function: Callable[[], Any], limits: Limits) -> Ran:
    results: list[Ran] = []
    worker = threading.Thread(
        target=lambda: results.append(run_here(function, limits)), daemon=True
    )
    worker.start()
    worker.join(limits.seconds)
    return (
        results[0] if results else Ran(stopped=f"stopped after its limit of {limits.seconds:g} s")
    )
