"""`companion worker`: it works through a store until it is stopped, and refuses in a sentence."""

from __future__ import annotations

import os
import signal

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from companion.cli import worker as module
from companion.cli.errors import CommandError
from companion.features.defaults import feature_table
from companion.models.artefact_metadata import TrainingRecord
from companion.models.artefacts import save_artefact
from companion.models.families import make_boosting
from companion.serving.jobs import JobState, Worker, open_jobs
from companion.transactions import simulate

app = typer.Typer()
app.command()(module.worker)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "small"
    table = simulate(3000, seed=22)
    X = feature_table(table, ("log_amount", "customer_count_1d", "merchant_risk_30d"))
    first = table["time"].iloc[0].to_pydatetime()
    record = TrainingRecord("boosting", "small", (first, first + pd.Timedelta(days=9)), 0, {})
    save_artefact(
        folder, make_boosting(seed=0, rounds=10).fit(X, table["is_fraud"]), X[:99], record
    )
    return folder


@pytest.fixture
def store(tmp_path):
    return f"sqlite:///{tmp_path}/jobs.db"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "batch.parquet"
    simulate(1000, seed=3).to_parquet(path, index=False)
    return path


@pytest.fixture(autouse=True)
def handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_it_scores_what_there_is_and_ends_when_told_to(store, model, file):
    jobs = open_jobs(store)
    job = jobs.submit(file)
    done = run("--jobs", store, "--model", model, "--until-empty", "--chunk-rows", 300)
    assert done.exit_code == 0, done.exception
    assert f"scores the jobs of {store}" in done.output
    assert "has stopped" in done.output
    assert jobs.get(job.id).state is JobState.DONE
    assert jobs.results(job.id).num_rows == 1000


def test_a_signal_stops_it_at_the_next_checkpoint_and_gives_the_job_back(
    store, model, file, monkeypatch
):
    class Interrupted(Worker):
        def __init__(self, *args, **settings):
            def stop(job):
                os.kill(os.getpid(), signal.SIGTERM)

            super().__init__(*args, **settings, on_checkpoint=stop)

    monkeypatch.setattr("companion.serving.jobs.Worker", Interrupted)
    jobs = open_jobs(store)
    job = jobs.submit(file)
    done = run("--jobs", store, "--model", model, "--chunk-rows", 300)
    assert done.exit_code == 0, done.exception
    assert (jobs.get(job.id).state, jobs.get(job.id).next_row) == (JobState.QUEUED, 301)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--jobs": "mysql://x"}, "--jobs: no home of jobs"),
        ({"--jobs": "postgresql://127.0.0.1:1/x"}, "--jobs: postgresql://127.0.0.1:1/x does not"),
        ({"--jobs": "sqlite:////nowhere/at/all.db"}, "--jobs: the folder /nowhere/at"),
        ({"--model": "nowhere"}, "--model: nowhere: there is no such artefact"),
        ({"--lease": "0"}, "seconds above 0"),
        ({"--chunk-rows": "0"}, "at least one"),
    ],
)
def test_what_cannot_work_is_refused_in_a_sentence(store, model, changed, said):
    given = {"--jobs": store, "--model": str(model), **changed}
    done = run(*(word for pair in given.items() for word in pair))
    assert isinstance(done.exception, CommandError)
    assert said in str(done.exception)


def test_with_celery_it_becomes_a_celery_worker_of_the_same_jobs(store, model, file, monkeypatch):
    started = []

    class App:
        def worker_main(self, argv):
            started.append(argv)

    def run_jobs(app, open_store, open_worker, *, look_again):
        worker = open_worker(open_store())
        worker.run(until_empty=True)
        started.append(look_again)

    monkeypatch.setattr("companion.serving.jobs.celery.celery_app", lambda *_, **__: App())
    monkeypatch.setattr("companion.serving.jobs.celery.run_jobs", run_jobs)
    jobs = open_jobs(store)
    job = jobs.submit(file)
    done = run("--jobs", store, "--model", model, "--celery", "redis://localhost", "--lease", 9)
    assert done.exit_code == 0, done.exception
    assert started == [9.0, ["worker", "--loglevel=INFO", "--concurrency=1"]]
    assert jobs.get(job.id).state is JobState.DONE
