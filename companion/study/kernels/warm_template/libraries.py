"""Which libraries are imported once, and whether the process may be forked after that.

A fork copies one thread and every byte of memory. So the template keeps to one thread, opens no
connection and starts no pool: a lock held by a thread that was not copied would never be released
(POSIX.1-2017, *fork*, rationale). OpenBLAS and jemalloc start threads when they are loaded, and
both stop and restart them around a fork by ``pthread_atfork``; a fork made for trial shows whether
anything else is left.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

PRELOADED = (
    "ipykernel.debugger",
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.display",
    "IPython.extensions.storemagic",
    "tornado.platform.asyncio",
    "ipywidgets",
    "numpy",
    "numpy.random",
    "pandas",
    "pyarrow.parquet",
    "scipy.stats",
    "matplotlib.pyplot",
    "matplotlib.backends.backend_agg",
    "sklearn.calibration",
    "sklearn.compose",
    "sklearn.datasets",
    "sklearn.ensemble",
    "sklearn.inspection",
    "sklearn.linear_model",
    "sklearn.metrics",
    "sklearn.model_selection",
    "sklearn.pipeline",
    "sklearn.preprocessing",
    "torch",
    "torch.nn.functional",
    "torch.utils.data",
    "torch._dynamo",  # the first optimizer of a process imports it
    "skorch",
    "optuna",
    "shap",
    "mlflow",
    "mlflow.sklearn",
    "fastapi",
    "fastapi.testclient",
    "uvicorn",
    "httpx",
    "sqlalchemy.dialects.postgresql.psycopg",
    "psycopg",
    "redis.asyncio",
    "msgspec",
    "onnx",
    "opentelemetry.sdk.trace.export",
    "prometheus_client",
    "kubernetes_validate",  # mostly a grammar that one of its own libraries builds
    "joblib",
    "psutil",
    "rich.console",
    "rich.table",
    "yaml",
    "filelock",
    "platformdirs",
)
"""Imported once, in this order, where installed. ipykernel is first: tqdm decides at import whether
it draws widgets, by whether ipykernel is there."""

THREADS_END_S = 2.0


class UnfitError(RuntimeError):
    """The template may not be forked: the message says what it found."""


class CurrentStream:
    """Stands for ``sys.stdout`` or ``sys.stderr`` while libraries are imported.

    A logging handler made at import keeps the stream it saw. In an ordinary kernel that is the
    notebook's stream; here it is this stand-in, which passes everything to ``target``, and the
    kernel points ``target`` at the notebook's stream.
    """

    def __init__(self, target: Any) -> None:
        self.target = target

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)


@contextlib.contextmanager
def standing_in() -> Iterator[tuple[CurrentStream, CurrentStream]]:
    """Put stand-ins in place of the standard streams while libraries are imported."""
    stdout, stderr = CurrentStream(sys.stdout), CurrentStream(sys.stderr)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = stdout, stderr
    try:
        yield stdout, stderr
    finally:
        sys.stdout, sys.stderr = before


def preload(names: Iterable[str]) -> dict[str, str]:
    """Import the named modules that are installed; returns what failed otherwise, by name.

    A library that is broken is left to fail in the user's own cell, where it can be read.
    """
    failed = {}
    for name in ("ipykernel.kernelapp", *names):
        try:
            if importlib.util.find_spec(name.partition(".")[0]):
                importlib.import_module(name)
        except Exception as broken:  # noqa: BLE001 - whatever a foreign import raises
            failed[name] = f"{type(broken).__name__}: {broken}"
    return failed


def check_fit() -> None:
    """Raise ``UnfitError`` if a fork of this process would lose a thread that somebody needs."""
    if threading.active_count() > 1:
        names = ", ".join(thread.name for thread in threading.enumerate())
        raise UnfitError(f"an imported library started threads: {names}")
    trial = os.fork()
    if trial == 0:
        os._exit(0)
    os.waitpid(trial, 0)
    deadline = time.monotonic() + THREADS_END_S  # a joined thread is listed a moment longer
    while len(threads := lasting_threads()) > 1:
        if time.monotonic() > deadline:
            raise UnfitError(f"threads outside Python outlive a fork: {', '.join(threads)}")
        time.sleep(0.01)


def lasting_threads() -> list[str]:
    """Names of this process's threads, Python's or not, without jemalloc's; empty without /proc."""
    names = []
    for task in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):
            names.append(task.read_text().strip())
    return [name for name in names if not name.startswith("jemalloc")]
