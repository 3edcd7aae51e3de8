"""The commands that prove: test, validate, check, bench."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from companion.cli.errors import CommandError

MOST_WORKERS = 4  # each holds the libraries, so memory is what more of them would cost


def run_tests(
    context: typer.Context,
    coverage: Annotated[bool, typer.Option(help="Report which lines no test reached.")] = False,
) -> None:
    """Run every test; what follows the options goes to pytest."""
    from companion.study.workbook import Workbook

    # Whole files go to a worker: the notebooks are run once for all tests that look at them.
    # One more of them than cores, since tests wait for servers as often as they compute.
    workers = min(MOST_WORKERS, (os.cpu_count() or 1) + 1)
    command = [sys.executable, "-m", "pytest", f"--numprocesses={workers}", "--dist=loadfile"]
    if coverage:
        command += ["--cov", "--cov-report=term-missing:skip-covered", "--cov-fail-under=90"]
    os.chdir(Workbook.find().root)
    # Nothing is left to do here: pytest takes this process over, its summary and exit status too.
    sys.stdout.flush()
    os.execv(command[0], [*command, *context.args])


def check() -> None:
    """Check the code: ruff format and lint, mypy, the floors of the house."""
    from companion.cli.checks import run_checks
    from companion.cli.tables import checks_table, show
    from companion.study.workbook import Workbook

    results = list(run_checks(Workbook.find().root))
    for result in results:
        if not result.passed:
            print(f"── {result.name}\n{result.said}\n")
    show(checks_table(results))
    if not all(result.passed for result in results):
        raise typer.Exit(1)


def bench(
    names: Annotated[list[str] | None, typer.Argument(help="Benchmarks; none: all.")] = None,
) -> None:
    """Measure ours beside the incumbents, in one run, and write BENCHMARKS.md."""
    from rich.console import Console

    from companion.cli.bench_report import FILE, record
    from companion.cli.benches import choose_benches, run_bench
    from companion.cli.tables import bench_table, show
    from companion.study.workbook import Workbook

    root = Workbook.find().root
    failed = []
    for name in choose_benches(names or [], root):
        try:
            with Console(stderr=True).status(f"{name} …"):
                done = run_bench(name, root)
        except Exception:  # noqa: BLE001 - one that fails must not cost the figures of the rest
            traceback.print_exc()
            failed.append(name)
            continue
        show(bench_table(done))
        record(done, root)
    if failed:
        raise CommandError(f"Failed, so {FILE} has nothing new of: {', '.join(failed)}.")


def validate(
    names: Annotated[
        list[str] | None, typer.Argument(help="Notebooks, as in q23 or q23_circuit_breaker.")
    ] = None,
    fresh: Annotated[bool, typer.Option(help="Also what has not changed since it passed.")] = False,
    jobs: Annotated[
        int, typer.Option(help="Kernels at a time; small notebooks gain from more.")
    ] = 2,
    shard: Annotated[str | None, typer.Option(help="One of N equal parts: I/N.")] = None,
    parameters: Annotated[
        list[str] | None, typer.Option(help="Run with another value: seed=7. May be repeated.")
    ] = None,
    store: Annotated[bool, typer.Option(help="Write the new outputs into the notebooks.")] = False,
    report: Annotated[
        Path | None, typer.Option(help="Where the HTML report goes (build/validation.html).")
    ] = None,
) -> None:
    """Run the notebooks and compare what they print with what is stored in them."""
    from companion.study import validation
    from companion.study.workbook import Workbook

    root = Workbook.find().root
    page = report or root / "build" / "validation.html"
    with validation.live_table() as on_progress:
        outcomes = validation.validate(
            validation.notebooks_named(names or [], root),
            root=root,
            fresh=fresh,
            jobs=jobs,
            shard=validation.parse_shard(shard) if shard else None,
            parameters=validation.parse_parameters(parameters or []),
            on_progress=on_progress,
            report=page,
            store=store,
        )
    states = [outcome.state for outcome in outcomes]
    counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    print(f"{counts or 'no notebook chosen'}; report: {page}")
    if "failed" in states:
        raise typer.Exit(1)
