"""The command that works through batch jobs: `companion worker`.

It may be killed at any time and started any number of times, on any machine that sees the store and
the uploads: what was stored stays, and the next one goes on from there.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from companion.cli.errors import CommandError

if TYPE_CHECKING:
    from companion.serving.jobs import Jobs, Worker
    from companion.serving.jobs.model_scorer import ModelScorer


def worker(
    jobs: Annotated[str, typer.Option(help="The store: sqlite:///FILE or postgresql://…")],
    model: Annotated[Path, typer.Option(help="Folder of a saved model.")],
    uploads: Annotated[
        Path | None, typer.Option(help="Folder of uploaded files (beside an SQLite store).")
    ] = None,
    celery: Annotated[
        str | None, typer.Option(help="redis://… : take work from Celery instead of asking.")
    ] = None,
    lease: Annotated[
        float, typer.Option(help="Seconds after which others take over from a silent worker.")
    ] = 30.0,
    chunk_rows: Annotated[int, typer.Option(help="Rows between two checkpoints.")] = 10_000,
    poll: Annotated[float, typer.Option(help="Seconds between two looks for work.")] = 1.0,
    until_empty: Annotated[bool, typer.Option(help="End when there is nothing to do.")] = False,
) -> None:
    """Score batch jobs until it is stopped (Ctrl-C gives the job in hand back).

    Start as many as there are cores; any of them may die.
    """
    from companion.serving.jobs import Worker

    def open_worker(store: Jobs) -> Worker:
        scorer = _scorer(model)
        return Worker(
            store, scorer.score, features=scorer.features, lease=lease, chunk_rows=chunk_rows
        )

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    store = _store(jobs, uploads)
    try:
        one = open_worker(store)
    except ValueError as error:
        raise CommandError(str(error)) from error
    if celery is not None:
        store.close()
        _run_celery(celery, lambda: _store(jobs, uploads), open_worker, lease)
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: one.stop())
    print(f"Worker {one.name} scores the jobs of {store.home.name}.", flush=True)
    one.run(poll=poll, until_empty=until_empty)
    print(f"Worker {one.name} has stopped.")


def _run_celery(
    broker: str, open_store: Callable[[], Jobs], open_worker: Callable[[Jobs], Worker], lease: float
) -> None:
    from companion.serving.jobs.celery import celery_app, run_jobs

    app = celery_app(broker, visibility_timeout=2 * lease)
    run_jobs(app, open_store, open_worker, look_again=lease)
    app.worker_main(["worker", "--loglevel=INFO", "--concurrency=1"])


def _store(url: str, uploads: Path | None) -> Jobs:
    from companion.serving.jobs import JobsUnavailableError, open_jobs
    from companion.storage import DatabaseError

    try:
        return open_jobs(url, uploads=uploads)
    except (ValueError, JobsUnavailableError, DatabaseError, OSError) as error:
        raise CommandError(f"--jobs: {error}") from error


def _scorer(folder: Path) -> ModelScorer:
    from companion.features.defaults import UnknownFeatureError
    from companion.models.artefact_errors import ArtefactError
    from companion.serving.jobs.model_scorer import ModelScorer

    try:
        return ModelScorer.of(folder)
    except (ArtefactError, UnknownFeatureError) as error:
        raise CommandError(f"--model: {error}") from error
