"""The live table: one row a notebook, redrawn while kernels run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from companion.study.validation.outcome import Outcome, Progress

STYLES = {"passed": "green", "failed": "bold red", "skipped-unchanged": "dim"}


@contextmanager
def live_table(console: Console | None = None) -> Iterator[Callable[[Progress], None]]:
    """Yields what ``validate`` wants as ``on_progress``.

    On a terminal the table is redrawn in place; elsewhere each finished notebook is one line, so
    that the log of a CI run shows how far it got.
    """
    console = console or Console()
    rows: dict[str, Progress] = {}
    if not console.is_terminal:
        yield lambda progress: _line(console, progress)
        return
    with Live(render(rows), console=console, refresh_per_second=8) as live:

        def redraw(progress: Progress) -> None:
            rows[progress.notebook.stem] = progress
            live.update(render(rows))

        yield redraw


def render(rows: dict[str, Progress]) -> Table:
    """The table for what is known by now."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("notebook")
    table.add_column("state")
    table.add_column("seconds", justify="right")
    table.add_column("slowest cell")
    for name in sorted(rows):
        table.add_row(name, *_cells(rows[name]))
    return table


def _cells(progress: Progress) -> tuple[Text, Text, Text]:
    outcome = progress.outcome
    if outcome is None:
        place = f"running {progress.done + 1}/{progress.cells} {progress.cell or ''}"
        return Text(place, style="yellow"), Text(""), Text("")
    return (
        Text(_verdict(outcome), style=STYLES[outcome.state]),
        Text(f"{outcome.seconds:.1f}" if outcome.seconds else ""),
        Text(
            f"{outcome.slowest_cell} {outcome.slowest_seconds:.1f} s"
            if outcome.slowest_cell
            else ""
        ),
    )


def _verdict(outcome: Outcome) -> str:
    if outcome.state != "failed":
        return "; ".join([outcome.state.replace("-", ", "), *outcome.notes])
    where = f" in {outcome.failing_cell}" if outcome.failing_cell else ""
    return f"failed{where}: {outcome.error.partition(chr(10))[0][:100]}"


def _line(console: Console, progress: Progress) -> None:
    outcome = progress.outcome
    if outcome is None:
        return
    line = Text(f"{progress.notebook.stem}  ")
    line.append(_verdict(outcome), style=STYLES[outcome.state])
    if outcome.seconds:
        line.append(f"  {outcome.seconds:.1f} s")
    console.print(line, soft_wrap=True)
