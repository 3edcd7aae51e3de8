"""What validating a notebook can come to, and the error that says why it could not begin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

State = Literal["passed", "failed", "skipped-unchanged"]


class ValidationError(ValueError):
    """The request cannot be carried out; the message is one sentence for whoever made it."""


@dataclass(frozen=True)
class Difference:
    """One cell whose output is not the stored one: ``kind`` is its stream or MIME type."""

    cell: str
    kind: str
    stored: str
    found: str


@dataclass(frozen=True)
class Outcome:
    """The result for one notebook. Times in seconds of wall clock, the kernel's start included.

    ``disturbed`` is what failed when the notebook ran beside others, if it did; all the rest is
    then the result of a second run, alone.
    """

    notebook: Path
    state: State
    seconds: float = 0.0
    slowest_cell: str | None = None
    slowest_seconds: float = 0.0
    failing_cell: str | None = None
    failing_source: str = ""
    error: str = ""
    traceback: str = ""
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()
    disturbed: str = ""


@dataclass(frozen=True)
class Progress:
    """Told while validating: ``cell`` is the one that runs, ``outcome`` is set at the end."""

    notebook: Path
    cell: str | None = None
    done: int = 0
    cells: int = 0
    seconds: float = 0.0
    outcome: Outcome | None = None
