"""A held model: loaded once, warm, exchanged without a gap."""

import hashlib
import threading
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from companion.serving import (
    ChecksumMismatchError,
    HolderStatus,
    ModelHolder,
    ModelLoadError,
    ModelReloadError,
    WarmUpError,
)

ROWS = np.zeros((2, 3))
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Constant:
    """A model that answers one probability to everything and counts how often it was asked."""

    def __init__(self, probability):
        self.probability = probability
        self.calls = 0

    def predict_proba(self, X):
        self.calls += 1
        return np.tile([1 - self.probability, self.probability], (len(X), 1))


class Loader:
    """Makes the models of a list one after the other; an exception in the list is raised."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.calls = 0

    def __call__(self):
        outcome = self.outcomes[min(self.calls, len(self.outcomes) - 1)]
        self.calls += 1
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


@pytest.fixture
def waiters(monkeypatch):
    """Wait with `waiters(n)` until `n` threads wait for somebody else's load."""
    arrived = threading.Semaphore(0)

    class Announced(Future):
        def exception(self, timeout=None):
            arrived.release()
            return super().exception(timeout)

    monkeypatch.setattr("companion.serving.holder.Future", Announced)

    def wait(count):
        for _ in range(count):
            assert arrived.acquire(timeout=30)

    return wait


def fraud_probability(holder):
    return holder.predict_proba(ROWS)[0, 1]


def run_together(count, action):
    """Call `action` in `count` threads that start at once; what each returned or raised."""
    start = threading.Barrier(count)
    outcomes = [None] * count

    def run(place):
        start.wait()
        try:
            outcomes[place] = action()
        except BaseException as error:  # noqa: BLE001 - every outcome is looked at by the test
            outcomes[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return outcomes


# The first load


def test_nothing_is_loaded_before_it_is_needed():
    loader = Loader(Constant(0.1))
    holder = ModelHolder(loader)
    assert loader.calls == 0
    assert holder.status() == HolderStatus("model")
    assert not holder.status().ready


def test_a_hundred_predictions_load_once():
    loader = Loader(Constant(0.1))
    holder = ModelHolder(loader)
    assert {fraud_probability(holder) for _ in range(100)} == {0.1}
    assert loader.calls == 1


def test_the_rows_reach_the_model_and_its_answer_comes_back_unchanged():
    class Echo:
        def predict_proba(self, X):
            return X

    assert ModelHolder(Echo).predict_proba(ROWS) is ROWS


def test_loading_ahead_is_the_one_load():
    loader = Loader(Constant(0.1))
    holder = ModelHolder(loader)
    assert holder.load().ready
    holder.load()
    fraud_probability(holder)
    assert loader.calls == 1


def test_sixteen_threads_that_ask_first_cause_one_load(waiters):
    loader = Loader(Constant(0.1))

    def slow_loader():
        waiters(15)
        return loader()

    holder = ModelHolder(slow_loader)
    assert run_together(16, lambda: fraud_probability(holder)) == [0.1] * 16
    assert loader.calls == 1


def test_a_failed_first_load_is_named_and_its_reason_chained():
    reason = OSError("no such file")
    holder = ModelHolder(Loader(reason), name="fraud")
    with pytest.raises(
        ModelLoadError, match="fraud could not be loaded: OSError: no such"
    ) as caught:
        fraud_probability(holder)
    assert caught.value.__cause__ is reason
    assert caught.value.name == "fraud"


def test_a_failed_first_load_is_not_remembered():
    loader = Loader(OSError("not there yet"), Constant(0.1))
    holder = ModelHolder(loader)
    with pytest.raises(ModelLoadError):
        fraud_probability(holder)
    assert holder.status().last_error == "OSError: not there yet"
    assert fraud_probability(holder) == 0.1
    assert holder.status().last_error is None


def test_threads_that_wait_for_a_failing_load_share_its_error_and_do_not_try_each(waiters):
    reason = OSError("disk is gone")
    calls = []

    def failing_loader():
        calls.append(1)
        waiters(7)
        raise reason

    holder = ModelHolder(failing_loader)
    errors = run_together(8, lambda: fraud_probability(holder))
    assert len(calls) == 1
    assert all(isinstance(error, ModelLoadError) for error in errors)
    assert all(error.__cause__ is reason for error in errors)
    assert len(set(map(id, errors))) == 8


def test_an_interrupt_while_loading_reaches_its_own_thread_and_leaves_nobody_waiting(waiters):
    def interrupted_loader():
        waiters(1)
        raise KeyboardInterrupt

    holder = ModelHolder(interrupted_loader)
    outcomes = run_together(2, lambda: fraud_probability(holder))
    assert {type(outcome) for outcome in outcomes} == {KeyboardInterrupt, ModelLoadError}


# Warming up


def test_a_model_predicts_before_it_is_seen():
    model = Constant(0.1)
    ModelHolder(Loader(model), warm_up=ROWS).load()
    assert model.calls == 1


def test_a_model_is_warm_before_another_thread_can_reach_it():
    seen = []

    class Watching(Constant):
        def predict_proba(self, X):
            seen.append(holder.status().ready)
            return super().predict_proba(X)

    holder = ModelHolder(Loader(Watching(0.1)), warm_up=ROWS)
    fraud_probability(holder)
    assert seen == [False, True]


@pytest.mark.parametrize(
    "answer",
    [
        np.array([[0.5, np.nan], [0.5, 0.5]]),
        np.array([[-2.0, 3.0], [0.5, 0.5]]),
        np.array([0.5, 0.5]),
        np.array([[0.5, 0.5]]),
    ],
    ids=["not a number", "logits", "one column", "one row for two"],
)
def test_a_model_whose_first_answer_is_no_probability_is_never_served(answer):
    class Broken:
        def predict_proba(self, X):
            return answer

    holder = ModelHolder(Broken, warm_up=ROWS)
    with pytest.raises(ModelLoadError) as caught:
        holder.load()
    assert isinstance(caught.value.__cause__, WarmUpError)
    assert not holder.status().ready


# Reloading


def test_a_reload_serves_the_new_model():
    holder = ModelHolder(Loader(Constant(0.1), Constant(0.2)))
    assert fraud_probability(holder) == 0.1
    assert holder.reload().generation == 2
    assert fraud_probability(holder) == 0.2


def test_a_reload_before_the_first_prediction_is_the_first_load():
    loader = Loader(Constant(0.1))
    holder = ModelHolder(loader)
    holder.reload()
    assert fraud_probability(holder) == 0.1
    assert loader.calls == 1


def test_a_failed_reload_keeps_the_old_model_and_says_so():
    reason = OSError("half a file")
    holder = ModelHolder(Loader(Constant(0.1), reason, Constant(0.2)), name="fraud")
    before = holder.load()
    with pytest.raises(ModelReloadError, match="generation 1 goes on") as caught:
        holder.reload()
    assert caught.value.__cause__ is reason
    assert (caught.value.name, caught.value.kept) == ("fraud", 1)
    assert fraud_probability(holder) == 0.1
    status = holder.status()
    assert (status.version, status.generation) == (before.version, 1)
    assert status.last_error == "OSError: half a file"
    assert holder.reload().last_error is None


def test_a_new_model_that_fails_its_warm_up_does_not_replace_the_old_one():
    holder = ModelHolder(Loader(Constant(0.1), Constant(np.nan)), warm_up=ROWS)
    holder.load()
    with pytest.raises(ModelReloadError) as caught:
        holder.reload()
    assert isinstance(caught.value.__cause__, WarmUpError)
    assert fraud_probability(holder) == 0.1


def test_a_failed_reload_with_nothing_to_keep_is_a_load_error():
    with pytest.raises(ModelLoadError):
        ModelHolder(Loader(OSError("gone"))).reload()


def test_a_prediction_finishes_on_the_model_it_began_with():
    entered, go_on = threading.Event(), threading.Event()

    class Slow(Constant):
        def predict_proba(self, X):
            entered.set()
            go_on.wait(30)
            return super().predict_proba(X)

    holder = ModelHolder(Loader(Slow(0.1), Constant(0.2)))
    answers = []
    thread = threading.Thread(target=lambda: answers.append(fraud_probability(holder)))
    thread.start()
    entered.wait(30)
    holder.reload()  # returns although a prediction is under way: no lock is held by one
    assert fraud_probability(holder) == 0.2
    go_on.set()
    thread.join(30)
    assert answers == [0.1]


def test_requests_are_answered_by_the_old_model_while_the_new_one_loads():
    answers = []

    def loader():
        if holder.status().ready:
            answers.append(fraud_probability(holder))
        return Constant(0.1 + holder.status().generation / 10)

    holder = ModelHolder(loader)
    holder.load()
    holder.reload()
    assert answers == [0.1]


def test_reloads_at_once_are_done_one_after_the_other():
    busy, overlaps = threading.Lock(), []

    def loader():
        overlaps.append(not busy.acquire(blocking=False))
        model = Constant(0.1)
        busy.release()
        return model

    holder = ModelHolder(loader)
    run_together(8, holder.reload)
    assert overlaps == [False] * 8
    assert holder.status().generation == holder.status().loads == 8


def test_under_reloads_every_answer_is_whole():
    """Both columns of an answer come from one model, whatever happens meanwhile."""

    class Tagged:
        def __init__(self, tag):
            self.tag = tag

        def predict_proba(self, X):
            return np.full((len(X), 2), self.tag)

    holder = ModelHolder(Loader(*[Tagged(tag) for tag in range(200)]))
    holder.load()
    done = threading.Event()
    torn = []

    def ask():
        last = -1
        while not done.is_set():
            answer = holder.predict_proba(ROWS)
            if len(set(answer.ravel())) != 1 or answer[0, 0] < last:
                torn.append(answer)
            last = answer[0, 0]

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(150):
        holder.reload()
    done.set()
    for thread in threads:
        thread.join(30)
    assert torn == []


# Status


def test_status_tells_when_and_what_was_loaded():
    holder = ModelHolder(
        Loader(Constant(0.1)),
        name="fraud",
        version_of=lambda model: f"p={model.probability}",
        clock=lambda: NOON,
    )
    assert holder.load() == HolderStatus(
        name="fraud", version="p=0.1", loaded_at=NOON, generation=1, loads=1, last_error=None
    )


def test_without_a_version_of_its_own_a_model_is_named_by_its_generation():
    holder = ModelHolder(Loader(Constant(0.1)))
    assert holder.load().version == "1"
    assert holder.reload().version == "2"


def test_failures_count_as_loads_and_not_as_generations():
    holder = ModelHolder(Loader(OSError(), Constant(0.1)))
    with pytest.raises(ModelLoadError):
        holder.load()
    assert (holder.status().loads, holder.status().generation) == (1, 0)


# From a file


def parse(data: bytes):
    return Constant(float(data))


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "fraud.model"
    path.write_bytes(b"0.25")
    return path


def test_a_file_with_the_right_checksum_is_served(file):
    holder = ModelHolder.from_file(file, sha256=digest(b"0.25").upper(), parse=parse)
    assert fraud_probability(holder) == 0.25
    assert holder.status().version == digest(b"0.25")[:12]
    assert holder.status().name == "fraud.model"


def test_a_file_with_another_checksum_is_not_even_parsed(file):
    holder = ModelHolder.from_file(
        file, sha256=digest(b"0.75"), parse=lambda data: pytest.fail("parsed unchecked bytes")
    )
    with pytest.raises(ModelLoadError) as caught:
        holder.load()
    mismatch = caught.value.__cause__
    assert isinstance(mismatch, ChecksumMismatchError)
    assert (mismatch.path, mismatch.expected, mismatch.found) == (
        file,
        digest(b"0.75"),
        digest(b"0.25"),
    )


def test_a_file_exchanged_without_its_checksum_keeps_the_old_model(file):
    holder = ModelHolder.from_file(file, sha256=digest(b"0.25"), parse=parse)
    holder.load()
    file.write_bytes(b"0.99")
    with pytest.raises(ModelReloadError) as caught:
        holder.reload()
    assert isinstance(caught.value.__cause__, ChecksumMismatchError)
    assert fraud_probability(holder) == 0.25


def test_a_checksum_given_as_a_function_follows_a_release(file):
    released = {"sha256": digest(b"0.25")}
    holder = ModelHolder.from_file(file, sha256=lambda: released["sha256"], parse=parse)
    assert fraud_probability(holder) == 0.25
    file.write_bytes(b"0.5")
    released["sha256"] = digest(b"0.5")
    assert holder.reload().version == digest(b"0.5")[:12]
    assert fraud_probability(holder) == 0.5


def test_a_missing_file_is_a_load_error_until_it_is_there(tmp_path):
    path = tmp_path / "late.model"
    holder = ModelHolder.from_file(path, sha256=digest(b"0.5"), parse=parse, warm_up=ROWS)
    with pytest.raises(ModelLoadError) as caught:
        holder.load()
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    path.write_bytes(b"0.5")
    assert fraud_probability(holder) == 0.5
