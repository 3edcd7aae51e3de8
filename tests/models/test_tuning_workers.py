"""Workers share one budget; those that are killed leave a study that others finish."""

import multiprocessing
import os
import random
import signal
import time

import optuna
import pytest
import sqlalchemy
from optuna.pruners import NopPruner
from optuna.trial import TrialState

from companion.instruments import FakeClock
from companion.instruments.postgresql_server import PostgresqlMissingError, postgresql_server
from companion.models.tuning.errors import NoFiniteValueError
from companion.models.tuning.sampling import SeededTPE
from companion.models.tuning.search import open_study
from companion.models.tuning.stores import numbers_with_heartbeat, open_storage, quietly
from companion.models.tuning.workers import work

# A forkserver's children come from a process without threads, with the libraries already loaded.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["companion.models.tuning"])

ABOUT = {"what": "a bowl"}


@pytest.fixture(scope="module")
def postgresql():
    """The URL of a PostgreSQL server of our own."""
    try:
        with postgresql_server() as server:
            yield server.url
    except PostgresqlMissingError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["sqlite", "postgresql"])
def home(request, tmp_path):
    """A fresh database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    url = request.getfixturevalue("postgresql")
    name = f"study_{random.randrange(10**9)}"
    engine = sqlalchemy.create_engine(
        url.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return url.replace("/postgres?", f"/{name}?")


def study_at(home, *, heartbeat=1):
    return open_study(
        "bowl",
        storage=home,
        about=ABOUT,
        sampler=SeededTPE(seed=3, n_startup_trials=2),
        pruner=NopPruner(),
        heartbeat=heartbeat,
    )


def bowl(trial):
    x, y = trial.suggest_float("x", -3, 3), trial.suggest_float("y", -3, 3)
    return -(x**2) - y**2


def work_until_trial_hangs(home, hanging, told):
    """A worker that stands still in the middle of the trial `hanging`, and says so."""

    def objective(trial):
        value = bowl(trial)
        if trial.number == hanging:
            told.set()
            signal.pause()
        return value

    work(study_at(home), objective, trials=5)


def work_to_the_end(home, trials):
    work(study_at(home, heartbeat=10), bowl, trials=trials)


def work_for_ever(home, told):
    told.set()
    work(study_at(home), bowl, trials=10**6)


def an_hour_passes(home):
    """Instead of waiting: all heartbeats are an hour older."""
    engine = open_storage(home, heartbeat=1).engine
    older = {
        "sqlite": "datetime(heartbeat, '-1 hour')",
        "postgresql": "heartbeat - interval '1 hour'",
    }[engine.dialect.name]
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE trial_heartbeats SET heartbeat = {older}")


def states(study):
    return [trial.state.name for trial in study.trials]


def killed_in_trial(home, number):
    told = FORKS.Event()
    worker = FORKS.Process(target=work_until_trial_hangs, args=(home, number, told))
    worker.start()
    assert told.wait(60)
    study = study_at(home)
    give_up = time.monotonic() + 60
    while number not in numbers_with_heartbeat(study):  # it is another thread's to give
        assert time.monotonic() < give_up, "a hanging trial has no heartbeat"
        time.sleep(0.01)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()


def test_a_killed_workers_trial_is_taken_up_again(home):
    killed_in_trial(home, 2)
    study = study_at(home)
    assert states(study) == ["COMPLETE", "COMPLETE", "RUNNING"]

    work(study, bowl, trials=5, sleep=lambda seconds: an_hour_passes(home))

    killed = study.trials[2]
    assert states(study).count("COMPLETE") == 5
    assert killed.state is TrialState.FAIL
    (again,) = [t for t in study.trials if t.system_attrs.get("failed_trial") == killed.number]
    assert again.state is TrialState.COMPLETE
    assert again.params == killed.params


def test_a_trial_that_was_lost_long_ago_is_taken_up_at_once(home):
    killed_in_trial(home, 2)
    an_hour_passes(home)
    study = study_at(home)
    work(study, bowl, trials=5, sleep=lambda seconds: pytest.fail("there is nothing to wait for"))
    assert states(study).count("COMPLETE") == 5
    assert study.trials[3].params == study.trials[2].params


def test_workers_in_parallel_share_one_budget(home):
    workers = [FORKS.Process(target=work_to_the_end, args=(home, 12)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    finished = [t for t in study_at(home).trials if t.state is TrialState.COMPLETE]
    assert len(finished) == 12
    assert len({trial.params["x"] for trial in finished}) == 12


def test_killed_at_any_point_a_worker_leaves_a_readable_study(tmp_path):
    home = str(tmp_path / "study.db")
    delays = random.Random(5)
    for _ in range(4):
        told = FORKS.Event()
        worker = FORKS.Process(target=work_for_ever, args=(home, told))
        worker.start()
        assert told.wait(60)
        worker.join(delays.uniform(0.05, 0.6))
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        seen = study_at(home).trials
        assert all(trial.value is not None for trial in seen if trial.state.name == "COMPLETE")
    before = states(study_at(home)).count("COMPLETE")
    clock = FakeClock()

    def sleep(seconds):
        clock.advance(60)
        an_hour_passes(home)

    study = study_at(home)
    work(study, bowl, trials=before + 5, clock=clock, sleep=sleep)
    assert states(study).count("COMPLETE") == before + 5
    assert "RUNNING" not in states(study)


def in_memory():
    return open_study(
        "bowl",
        storage=None,
        about=ABOUT,
        sampler=SeededTPE(seed=3, n_startup_trials=2),
        pruner=NopPruner(),
    )


def test_calling_again_goes_on_with_what_is_missing():
    study = in_memory()
    work(study, bowl, trials=3)
    work(study, bowl, trials=5)
    work(study, bowl, trials=5)
    assert states(study) == ["COMPLETE"] * 5


def test_pruned_trials_count_towards_the_budget():
    def objective(trial):
        if trial.number % 2:
            raise optuna.TrialPruned
        return bowl(trial)

    study = in_memory()
    work(study, objective, trials=4)
    assert states(study) == ["COMPLETE", "PRUNED", "COMPLETE", "PRUNED"]


def test_the_last_trial_taken_twice_is_given_up_once():
    study, others = in_memory(), []

    def another_worker_takes_one(progress):
        if progress.finished == 2 and not others:
            others.append(study.ask())

    def finish_the_others(seconds):
        study.tell(others[0], -1.0)

    work(study, bowl, trials=3, on_progress=another_worker_takes_one, sleep=finish_the_others)
    assert states(study) == ["COMPLETE", "COMPLETE", "COMPLETE", "FAIL"]
    assert study.trials[3].user_attrs == {"surplus": True}
    assert study.trials[3].params == {}


def test_a_trial_that_never_began_is_replaced_when_patience_ends():
    study, clock = in_memory(), FakeClock()
    with quietly():
        study.ask()  # its worker died before it drew a parameter, and before the first heartbeat
    work(study, bowl, trials=2, patience=30, clock=clock, sleep=lambda seconds: clock.advance(10))
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert clock() == 40  # seen first after ten seconds, given up thirty seconds later


def test_a_trial_that_another_worker_is_running_is_waited_for():
    study, clock = in_memory(), FakeClock()
    theirs = study.ask()
    theirs.suggest_float("x", -3, 3)

    def sleep(seconds):
        clock.advance(1000)
        if clock() > 5000:
            study.tell(theirs, -1.0)

    work(study, bowl, trials=2, clock=clock, sleep=sleep)
    assert states(study) == ["COMPLETE", "COMPLETE"]
    assert clock() > 5000


def test_a_trial_that_got_parameters_and_no_heartbeat_is_replaced_too(home):
    study = study_at(home)
    with quietly():
        study.ask().suggest_float("x", -1, 1)  # and its worker was killed before the first beat
    clock = FakeClock()
    work(study, bowl, trials=2, patience=30, clock=clock, sleep=lambda seconds: clock.advance(10))
    assert sorted(states(study)) == ["COMPLETE", "COMPLETE", "FAIL"]


def test_two_workers_may_give_up_the_same_lost_trial():
    study, clock = in_memory(), FakeClock()
    lost = study.ask()

    def another_worker_is_faster(*arguments, tell=study.tell, **options):
        tell(lost.number, state=TrialState.FAIL)
        study.tell = tell
        return tell(*arguments, **options)

    study.tell = another_worker_is_faster
    work(study, bowl, trials=1, clock=clock, sleep=lambda seconds: clock.advance(20))
    assert states(study) == ["FAIL", "COMPLETE"]


def test_no_trial_begins_after_the_timeout():
    study, clock = in_memory(), FakeClock()

    def ten_seconds(trial):
        clock.advance(10)
        return bowl(trial)

    work(study, ten_seconds, trials=100, timeout=25, clock=clock)
    assert states(study) == ["COMPLETE"] * 3


def test_progress_is_told_before_the_first_and_after_every_trial():
    told = []
    work(in_memory(), lambda trial: float(trial.number), trials=3, on_progress=told.append)
    assert [(p.finished, p.best) for p in told] == [(0, None), (1, 0.0), (2, 1.0), (3, 2.0)]


def test_a_study_needs_a_trial():
    with pytest.raises(ValueError, match="at least one trial, got 0"):
        work(in_memory(), bowl, trials=0)


def test_a_value_that_is_no_number_stops_the_worker_and_names_the_parameters():
    study = in_memory()

    def objective(trial):
        bowl(trial)
        return float("nan")

    with pytest.raises(NoFiniteValueError, match=r"trial 0 ended with nan for \{'x'") as stopped:
        work(study, objective, trials=3)
    assert stopped.value.parameters == study.trials[0].params
    assert states(study) == ["FAIL"]


def test_an_error_of_the_objective_reaches_the_caller_and_the_study_goes_on_later():
    study = in_memory()

    def broken(trial):
        raise KeyError("column")

    with pytest.raises(KeyError, match="column"):
        work(study, broken, trials=3)
    work(study, bowl, trials=3)
    assert states(study) == ["FAIL"] + ["COMPLETE"] * 3


def test_optunas_verbosity_is_as_before():
    before = optuna.logging.get_verbosity()
    work(in_memory(), bowl, trials=1)
    assert optuna.logging.get_verbosity() == before


@pytest.mark.parametrize("heartbeat", [0, -1])
def test_a_heartbeat_below_a_second_is_refused(tmp_path, heartbeat):
    with pytest.raises(ValueError, match="heartbeat_interval"):
        open_storage(tmp_path / "study.db", heartbeat=heartbeat)


def test_a_database_that_cannot_be_opened_is_an_error(tmp_path):
    with pytest.raises(sqlalchemy.exc.OperationalError):
        open_storage(tmp_path / "no folder" / "study.db")


def test_workers_that_start_together_make_the_tables_once(tmp_path, monkeypatch):
    from companion.models.tuning import stores

    real, calls = stores.RDBStorage, []

    def beaten_twice(*arguments, **options):
        calls.append(1)
        if len(calls) < 3:
            raise sqlalchemy.exc.OperationalError("CREATE", {}, Exception("table exists"))
        return real(*arguments, **options)

    monkeypatch.setattr(stores, "RDBStorage", beaten_twice)
    assert open_storage(tmp_path / "study.db").get_all_studies() == []


def test_a_path_and_its_url_are_one_database(tmp_path):
    path = tmp_path / "study.db"
    work(study_at(path), bowl, trials=1)
    assert states(study_at(f"sqlite:///{path}")) == ["COMPLETE"]
