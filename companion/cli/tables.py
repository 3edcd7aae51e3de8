"""How results look in a terminal: one console, and tables that read without colour too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from companion.cli.benches import Bench
    from companion.cli.checks import Result
    from companion.study.doctor import Finding

FINE, WRONG, MISSING = "[green]✓ fine[/]", "[red]✗ wrong[/]", "[dim]– not there[/]"


def show(table: Table) -> None:
    """Print a table, as wide as the terminal allows (100 columns where there is none)."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=100)
    console.print(table)


def findings_table(findings: Sequence[Finding]) -> Table:
    """What the doctor found. What is optional and absent is neither fine nor wrong."""
    table = Table("", "looked at", "found", title="companion doctor", title_justify="left")
    words = {True: FINE, False: WRONG, None: MISSING}
    for finding in findings:
        table.add_row(words[finding.ok], finding.name, finding.said)
    return table


def checks_table(results: Sequence[Result]) -> Table:
    """One line per check of the code."""
    table = Table("", "check", "seconds", title="companion check", title_justify="left")
    for result in results:
        table.add_row(FINE if result.passed else WRONG, result.name, f"{result.seconds:.1f}")
    return table


def bench_table(bench: Bench) -> Table:
    """The rows of one benchmark."""
    table = Table(title=f"{bench.name}: {bench.title}", title_justify="left")
    table.add_column("what")
    table.add_column("contender")
    table.add_column("value", justify="right")
    table.add_column("ratio", justify="right")
    table.add_column("to reach")
    for row in bench.rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f} ×"
        table.add_row(row.what, row.contender, f"{row.value:.4g} {row.unit}", ratio, row.target)
    return table
