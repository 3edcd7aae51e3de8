"""The command that uses all of it: `companion score FILE`.

What can be refused before the work is refused before it: an option that cannot be meant, a folder
that does not exist. Both results are made in memory and then appear whole, each under its name, so
a run that is stopped at any point leaves what was there before.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from companion.cli.errors import CommandError

if TYPE_CHECKING:
    from companion.models.scoring.score import Scored
    from companion.transactions.loading import Loaded

INTERRUPTED = 130
FORMATS: Mapping[str, Literal["parquet", "csv"]] = {".parquet": "parquet", ".csv": "csv"}
STAGES = {
    "reading": "Reading the file",
    "features": "Making features",
    "training": "Training the model",
    "scoring": "Scoring",
    "reasons": "Finding reasons",
    "writing": "Writing",
}
_ARGUMENT = re.compile(r"\b(timezone|time_format|ambiguous|decimal|encoding)='([^']*)'")

OnStep = Callable[[str, int, int], None]


def score(
    file: Annotated[Path, typer.Argument(help="CSV (also .gz) or Parquet of transactions.")],
    columns: Annotated[
        list[str] | None,
        typer.Option(
            help="Which column of the file is which of ours: time=ts,amount=amt_cents. "
            "Nothing after = leaves a column out. May be repeated."
        ),
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(help="Of times without an offset: Europe/Berlin.")
    ] = None,
    time_format: Annotated[
        str | None, typer.Option(help="s, ms, us or ns since 1970, or a pattern; ISO needs none.")
    ] = None,
    ambiguous: Annotated[
        Literal["refuse", "earlier", "later"],
        typer.Option(help="Which one is meant in the hour that clocks repeat."),
    ] = "refuse",
    unit: Annotated[
        str, typer.Option(help="Of amounts: euro, cent, or how many euros one unit is.")
    ] = "euro",
    decimal: Annotated[Literal[".", ","], typer.Option(help="What separates the cents.")] = ".",
    encoding: Annotated[str, typer.Option(help="Of a CSV.")] = "utf-8",
    delimiter: Annotated[str | None, typer.Option(help="Of a CSV; without, it is found.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="Folder of a saved model; without, one is trained.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Scores: .parquet or .csv (FILE's name.scores.parquet).")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="The page about them (FILE's name.report.html).")
    ] = None,
    budget: Annotated[
        float, typer.Option(help="The share of transactions that somebody can look at.")
    ] = 0.01,
) -> None:
    """Score your own transactions: a table of scores with reasons, and a page about them.

    The file needs time, customer_id, merchant_id and amount, under these
    names or others (--columns). It may have transaction_id, category,
    distance_km, device_id, is_online, is_fraud (known frauds), label_time
    (when they became known); what it lacks is left out, and named.
    """
    name = file.name.partition(".")[0]
    scores, page = output or Path(f"{name}.scores.parquet"), report or Path(f"{name}.report.html")
    _refuse_at_once(file, scores, page, model, budget)
    try:
        with _progress() as on_step:
            loaded = _load(
                file,
                on_step,
                columns=parse_columns(columns or []),
                unit=parse_unit(unit),
                timezone=timezone,
                time_format=time_format,
                ambiguous=ambiguous,
                decimal=decimal,
                encoding=encoding,
                delimiter=delimiter,
            )
            scored = _scored(loaded, on_step, model=model, budget=budget)
            _write(scored, scores, page, on_step)
    except KeyboardInterrupt:
        sys.stderr.write("Stopped; files that were there before are as they were.\n")
        raise typer.Exit(INTERRUPTED) from None
    _summarise(scored, scores, page)


def parse_columns(parts: Sequence[str]) -> dict[str, str | None]:
    """`["time=ts,amount=amt", "device_id="]` as our name → the file's; None leaves it out.

    Raises `CommandError` for a part without `=` and for a name of ours that is given twice.
    """
    columns: dict[str, str | None] = {}
    for part in (piece for text in parts for piece in text.split(",")):
        ours, equals, theirs = part.partition("=")
        if not equals:
            raise CommandError(f"--columns: {part!r} is no pair: write ours=theirs, as in time=ts")
        if ours.strip() in columns:
            raise CommandError(f"--columns: {ours.strip()} is given twice")
        columns[ours.strip()] = theirs or None
    return columns


def parse_unit(text: str) -> Any:
    """`euro` and `cent` as they are, a number as a number; `CommandError` for anything else."""
    if text in ("euro", "cent"):
        return text
    try:
        return float(text)
    except ValueError:
        raise CommandError(
            f"--unit: {text!r} is neither euro, nor cent, nor a number of euros"
        ) from None


def _refuse_at_once(
    file: Path, scores: Path, page: Path, model: Path | None, budget: float
) -> None:
    if scores.suffix not in FORMATS:
        raise CommandError(f"{scores}: scores are written to .parquet or .csv; name one of them.")
    if scores.resolve() == page.resolve():
        raise CommandError(f"{scores}: scores and report cannot be one file.")
    for target in (scores, page):
        if target.is_dir():
            raise CommandError(f"{target} is a folder: name a file in it.")
        if not target.resolve().parent.is_dir():
            raise CommandError(f"The folder {target.parent} does not exist; create it first.")
        if target.exists() and file.exists() and target.samefile(file):
            raise CommandError(f"{target} is the file to be scored; it is not overwritten.")
    if model is not None and not model.is_dir():
        raise CommandError(f"There is no model in {model}: it is a folder that save_artefact made.")
    if not 0 < budget <= 1:
        raise CommandError(f"--budget is a share of the rows, above 0 and up to 1; got {budget:g}.")


def _load(file: Path, on_step: OnStep, **reading: Any) -> Loaded:
    from companion.transactions.loading import load
    from companion.transactions.loading.errors import LoadError, OptionError

    def on_read(rows: int, share: float) -> None:
        on_step("reading", rows, max(rows, round(rows / share) if share else 0))

    on_step("reading", 0, 0)
    try:
        loaded = load(file, on_read=on_read, **reading)
    except (LoadError, OptionError) as error:
        raise CommandError(in_options(str(error))) from error
    on_step("reading", len(loaded.table), len(loaded.table))
    return loaded


def _scored(loaded: Loaded, on_step: OnStep, *, model: Path | None, budget: float) -> Scored:
    on_step("features", 0, len(loaded.table))  # the libraries take seconds to arrive
    from companion.models.artefact_errors import ArtefactError
    from companion.models.labels import LabelError
    from companion.models.scoring.basis import UnfitFileError, UnknownFeaturesError
    from companion.models.scoring.score import score_file
    from companion.models.splits import SplitError

    try:
        return score_file(loaded, model=model, budget=budget, on_step=on_step)
    except (SplitError, LabelError) as error:
        raise CommandError(
            f"{loaded.path} has labels, but no model can learn from its past and be judged on the "
            f"rest: {error}.\nScore with a saved model (--model FOLDER), or without the labels "
            "(--columns is_fraud=), which ranks by a simulated world."
        ) from error
    except (ArtefactError, UnfitFileError, UnknownFeaturesError) as error:
        raise CommandError(str(error)) from error


def _write(scored: Scored, scores: Path, page: Path, on_step: OnStep) -> None:
    from companion.cli.scoring_report import report_html
    from companion.models.scoring.table import encoded
    from companion.storage import write_bytes, write_text

    rows = len(scored.score)
    on_step("writing", 0, rows)
    table, html = encoded(scored, FORMATS[scores.suffix]), report_html(scored, scores)
    try:
        write_bytes(scores, table)
        write_text(page, html)
    except OSError as error:
        raise CommandError(f"Not written: {error}") from error
    on_step("writing", rows, rows)


def _summarise(scored: Scored, scores: Path, page: Path) -> None:
    from companion.cli.scoring_report import in_one_line

    print(in_one_line(scored))
    if scored.left_out:
        print(f"Not made, since columns are missing: {', '.join(scored.left_out)}.")
    print(f"{len(scored.score):,} scores, {len(scored.alerts):,} alerts with reasons: {scores}")
    print(f"The report: {page}")


@contextmanager
def _progress() -> Iterator[OnStep]:
    """A bar for every stage, on stderr: stdout is for what comes out."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description:20}"),
        BarColumn(),
        TextColumn("{task.fields[rows]:>15} rows"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: dict[str, Any] = {}

        def on_step(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(STAGES[stage], total=None, rows="")
            # Until something is done nobody knows how long it takes: the bar runs to and fro.
            progress.update(
                tasks[stage], completed=done, total=total if done else None, rows=f"{done:,}"
            )

        yield on_step


def in_options(message: str) -> str:
    """A message about arguments of `load` as one about options of the command."""
    said = _ARGUMENT.sub(
        lambda found: f"--{found[1].replace('_', '-')} {_quoted(found[2])}", message
    )
    return said.replace("columns={'time': 'their name', …}", "--columns time=THEIRS,…")


def _quoted(value: str) -> str:
    return value if re.fullmatch(r"[\w/.+-]+", value) else f"'{value}'"
