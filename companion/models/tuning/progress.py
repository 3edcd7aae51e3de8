"""How far a study is, told to whoever waits: a bar in a terminal, one line in a notebook."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


@dataclass(frozen=True)
class Progress:
    """`finished` of the `trials` of the whole study, by all workers; `pruned` of those ended early.

    `best` is the best value so far, None before the first complete trial.
    """

    finished: int
    trials: int
    pruned: int
    best: float | None

    def __str__(self) -> str:
        best = "" if self.best is None else f", best {self.best:.3f}"
        return f"{self.finished} of {self.trials} trials, {self.pruned} pruned{best}"


OnProgress = Callable[[Progress], None]


@contextmanager
def shown_progress(stream: TextIO | None = None) -> Iterator[OnProgress]:
    """Yields what `tune` wants as `on_progress`; `stream` is standard error by default.

    A terminal gets a bar; everything else, a notebook among them, one line that is written over.
    """
    out = stream or sys.stderr
    if not out.isatty():
        yield lambda progress: _line(out, progress)
        out.write("\n")
        return
    columns = (
        TextColumn("tuning"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(file=out)) as bar:
        task = bar.add_task("", total=None)

        def update(progress: Progress) -> None:
            description = str(progress).partition("trials, ")[2]
            bar.update(
                task,
                completed=progress.finished,
                total=progress.trials,
                description=description,
            )

        yield update


def _line(out: TextIO, progress: Progress) -> None:
    out.write(f"\r{progress!s:<60}")
    out.flush()
