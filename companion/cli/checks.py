"""The checks of the code itself: format, lint, types, floors.

Each is a tool run as anyone would run it; the tests run the same ones, so that `companion check`
and `make test` cannot disagree.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PYTHON_TOOLS = Path(sys.executable).parent
CHECKS = {
    "ruff format": ("ruff", "format", "--check", "."),
    "ruff check": ("ruff", "check", "."),
    "mypy": ("mypy", "companion"),
    "import-linter": ("lint-imports",),
}


@dataclass(frozen=True)
class Result:
    """One check: whether it passed, in how many seconds, and what the tool said."""

    name: str
    passed: bool
    seconds: float
    said: str


def run_check(name: str, root: Path) -> Result:
    """Run the check called `name` (a key of `CHECKS`) on the checkout at `root`."""
    tool, *arguments = CHECKS[name]
    began = time.perf_counter()
    done = subprocess.run(
        [str(PYTHON_TOOLS / tool), *arguments], cwd=root, capture_output=True, text=True
    )
    seconds = time.perf_counter() - began
    return Result(name, done.returncode == 0, seconds, (done.stdout + done.stderr).strip())


def run_checks(root: Path) -> Iterator[Result]:
    """Every check in turn, each as soon as it is done."""
    return (run_check(name, root) for name in CHECKS)
