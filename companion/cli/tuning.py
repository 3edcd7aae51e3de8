"""The command that searches hyperparameters: tune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from companion.cli.errors import CommandError

if TYPE_CHECKING:
    import pandas as pd


def tune(
    family: Annotated[str, typer.Argument(help="forest, boosting or net.")],
    data: Annotated[
        Path | None, typer.Option(help="Transactions (CSV or Parquet); none: simulated ones.")
    ] = None,
    trials: Annotated[int, typer.Option(help="Of the whole study, all workers together.")] = 30,
    seed: Annotated[int, typer.Option(help="Decides draws, weights and trees.")] = 7,
    rows: Annotated[int, typer.Option(help="How many transactions to simulate.")] = 20_000,
    storage: Annotated[
        str | None,
        typer.Option(help="A file or URL that workers share; start this again to add one."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the study in the storage.")] = None,
    page: Annotated[Path | None, typer.Option(help="Where the page about the study goes.")] = None,
) -> None:
    """Search the hyperparameters of a model, and say whether the best lies on a boundary."""
    from companion.models.families import UnknownFamilyError
    from companion.models.splits import SplitError
    from companion.models.tuning import TuningError, shown_progress, write_page
    from companion.models.tuning import tune as search
    from companion.transactions import MissingColumnsError
    from companion.transactions.loading.errors import LoadError

    try:
        with shown_progress() as on_progress:
            tuned = search(
                family,
                _transactions(data, rows, seed),
                trials=trials,
                seed=seed,
                storage=storage,
                study_name=name,
                on_progress=on_progress,
            )
    except (TuningError, UnknownFamilyError, SplitError, MissingColumnsError, LoadError) as error:
        raise CommandError(str(error)) from error
    print(f"best average precision on later rows: {tuned.value:.4f}")
    for parameter, value in tuned.parameters.items():
        print(f"  {parameter} = {value:.4g}")
    for edge in tuned.edges:
        print(f"  {edge}")
    print(f"{tuned.stages.unit} trained: {tuned.spent:,} of {tuned.unpruned:,} without pruning")
    if page:
        print(f"The page about the study: {write_page(tuned, page)}")


def _transactions(data: Path | None, rows: int, seed: int) -> pd.DataFrame:
    if data is None:
        from companion.transactions import simulate

        return simulate(rows, seed=seed)
    from companion.transactions.loading import load

    return load(data).table
