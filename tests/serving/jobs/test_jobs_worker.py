"""A worker: every row scored once, whatever the file, the model and other workers do."""

from __future__ import annotations

import threading

import numpy as np
import pandas as pd
import pytest

from companion.instruments.clocks import FakeClock
from companion.serving.jobs import JobState, JobsUnavailableError, Worker, open_jobs
from companion.serving.jobs.heartbeat import Heartbeat
from companion.serving.jobs.worker import pause_after


def by_id(frame):
    """A score that tells which transaction it belongs to."""
    return frame["transaction_id"].to_numpy() / 100_000


def worker(jobs, score=by_id, **settings):
    return Worker(jobs, score, **{"chunk_rows": 100, "name": "one", **settings})


def expected(transactions):
    return [(n + 1, n, n / 100_000) for n in transactions["transaction_id"]]


def results(jobs, job):
    return list(zip(*jobs.results(job.id).to_pydict().values(), strict=True))


def csv_with(transactions, tmp_path, **cells):
    """A CSV of the transactions with some amounts replaced, by row from 1."""
    frame = transactions.astype({"amount": "object"})
    for row, value in cells.items():
        frame.loc[int(row[1:]) - 1, "amount"] = value
    path = tmp_path / "batch.csv"
    frame.to_csv(path, index=False)
    return path


# All goes well


def test_every_row_is_scored_once_and_the_upload_is_gone(jobs, parquet_file, transactions):
    job = jobs.submit(parquet_file)
    outcome = worker(jobs).run_one()
    assert (outcome.ending, outcome.job.state) == ("done", JobState.DONE)
    assert (outcome.job.rows, outcome.job.scored, outcome.job.rejected) == (1000, 1000, 0)
    assert results(jobs, job) == expected(transactions)
    assert not jobs.uploads.path(job.id).exists()


def test_there_may_be_nothing_to_do(jobs):
    assert worker(jobs).run_one() is None


def test_the_size_of_pieces_changes_nothing(sqlite_jobs, parquet_file):
    found = []
    for chunk_rows in (1000, 999, 7):
        job = sqlite_jobs.submit(parquet_file)
        worker(sqlite_jobs, chunk_rows=chunk_rows).run_one()
        found.append(results(sqlite_jobs, job))
    assert found[0] == found[1] == found[2]


def test_features_see_the_whole_file_and_scores_see_pieces(sqlite_jobs, parquet_file):
    seen = []

    def features(transactions):
        seen.append(len(transactions))
        return pd.DataFrame({"x": np.full(len(transactions), 0.5)}, index=transactions.index)

    def score(frame):
        seen.append(len(frame))
        return frame["x"]

    sqlite_jobs.submit(parquet_file)
    worker(sqlite_jobs, score, features=features, chunk_rows=600).run_one()
    assert seen == [1000, 600, 400]


def test_bad_rows_become_rejects_and_the_others_are_scored(jobs, transactions, tmp_path):
    job = jobs.submit(csv_with(transactions, tmp_path, r5="nan", r250="-3", r1000="x"))
    done = worker(jobs).run_one().job
    assert (done.state, done.scored, done.rejected) == (JobState.DONE, 997, 3)
    assert [one.row for one in jobs.rejects(job.id)] == [5, 250, 1000]
    assert {row for row, _, _ in results(jobs, job)} == set(range(1, 1001)) - {5, 250, 1000}


def test_a_file_of_nothing_but_bad_rows_is_done_and_keeps_the_first_reasons(
    sqlite_jobs, transactions, tmp_path
):
    path = tmp_path / "bad.csv"
    transactions.assign(amount="x").to_csv(path, index=False)
    job = sqlite_jobs.submit(path)
    done = worker(sqlite_jobs, lambda frame: pytest.fail("there is nothing to score")).run_one().job
    assert (done.state, done.scored, done.rejected) == (JobState.DONE, 0, 1000)
    assert [one.row for one in sqlite_jobs.rejects(job.id)] == list(range(1, 51))


def test_rows_that_break_the_model_become_rejects_too(jobs, parquet_file, transactions, tmp_path):
    poison = {17, 500, 501}

    def score(frame):
        if poison & set(frame["transaction_id"]):
            raise ZeroDivisionError("no amount")
        return by_id(frame)

    job = jobs.submit(parquet_file)
    done = worker(jobs, score).run_one().job
    assert (done.scored, done.rejected) == (997, 3)
    assert {one.row: one.reason for one in jobs.rejects(job.id)} == {
        n + 1: "the model cannot score it (ZeroDivisionError)" for n in poison
    }


# Errors


def test_a_file_that_cannot_be_read_fails_at_once_with_type_and_traceback(jobs, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n")
    job = jobs.submit(path)
    outcome = worker(jobs).run_one()
    assert outcome.ending == "failed"
    stored = jobs.get(job.id)
    assert (stored.state, stored.attempts) == (JobState.FAILED, 1)
    assert stored.error.type == "MissingColumnsError"
    assert "reading.py" in stored.error.traceback
    assert worker(jobs).run_one() is None
    assert not jobs.uploads.path(job.id).exists()


def test_any_other_error_is_tried_again_after_a_pause_until_the_cap(
    home_and_clock, jobs, parquet_file
):
    _, clock = home_and_clock

    def broken(frame):
        raise AssertionError

    job = jobs.submit(parquet_file)
    endings = []
    for _ in range(3):
        endings.append(worker(jobs, broken).run_one().ending)
        assert worker(jobs, broken).run_one() is None  # not before the pause is over
        clock.advance(100)
    assert endings == ["to be tried again", "to be tried again", "failed"]
    failure = jobs.get(job.id).error
    assert (failure.type, failure.message) == ("AssertionError", "")
    assert "in broken" in failure.traceback


def test_an_error_costs_nothing_that_was_stored_and_can_be_overcome(
    home_and_clock, jobs, parquet_file, transactions
):
    _, clock = home_and_clock
    job = jobs.submit(parquet_file)
    assert worker(jobs, lambda frame: _fails_after(frame, 300)).run_one().job.next_row == 301
    clock.advance(10)
    outcome = worker(jobs).run_one()
    assert (outcome.ending, outcome.job.attempts, outcome.job.error) == ("done", 2, None)
    assert results(jobs, job) == expected(transactions)


def _fails_after(frame, row):
    if frame.index[-1] > row:
        raise OSError("the disk is full")
    return by_id(frame)


def test_pauses_double_up_to_a_minute():
    assert [pause_after(tries) for tries in (1, 2, 3, 7, 50)] == [1, 2, 4, 60, 60]


def test_an_answer_of_the_wrong_length_is_an_error_and_no_bad_row(sqlite_jobs, parquet_file):
    job = sqlite_jobs.submit(parquet_file)
    worker(sqlite_jobs, lambda frame: [0.5]).run_one()
    assert sqlite_jobs.get(job.id).error.type == "InvalidScoresError"


@pytest.mark.parametrize(
    "settings",
    [{"chunk_rows": 0}, {"max_tries": 0}, {"lease": 0}, {"stuck_after": -1}, {"lease": np.inf}],
)
def test_settings_that_make_no_sense_are_refused(sqlite_jobs, settings):
    with pytest.raises(ValueError, match=r"at least one|seconds above 0"):
        worker(sqlite_jobs, **settings)


# Others


def test_a_worker_that_was_overtaken_drops_its_work(
    home_and_clock, jobs, parquet_file, transactions
):
    _, clock = home_and_clock
    outcomes = []

    def stalled(frame):
        if frame.index[0] == 301:
            clock.advance(31)
            outcomes.append(worker(jobs, name="two").run_one())
        return by_id(frame)

    job = jobs.submit(parquet_file)
    outcomes.append(worker(jobs, stalled).run_one())
    assert [outcome.ending for outcome in outcomes] == ["done", "lost"]
    assert results(jobs, job) == expected(transactions)
    assert jobs.get(job.id).attempts == 2


def test_an_error_of_a_worker_that_was_overtaken_is_nobodys(home_and_clock, jobs, parquet_file):
    _, clock = home_and_clock

    def stalled(frame):
        clock.advance(31)
        worker(jobs, name="two").run_one()
        raise OSError("too late")

    job = jobs.submit(parquet_file)
    assert worker(jobs, stalled).run_one().ending == "lost"
    assert jobs.get(job.id).state is JobState.DONE


def test_cancelling_stops_the_work_and_keeps_what_was_scored(jobs, parquet_file, transactions):
    def score(frame):
        if frame.index[0] == 301:
            jobs.cancel(job.id)
        return by_id(frame)

    job = jobs.submit(parquet_file)
    outcome = worker(jobs, score).run_one()
    assert (outcome.ending, outcome.job.next_row) == ("cancelled", 301)
    assert results(jobs, job) == expected(transactions)[:300]
    assert not jobs.uploads.path(job.id).exists()


def test_a_job_that_is_cancelled_before_its_file_is_read_is_just_cancelled(
    sqlite_jobs, parquet_file, monkeypatch
):
    job = sqlite_jobs.submit(parquet_file)
    claim = sqlite_jobs.home.claim

    def claim_and_cancel(*args, **named):
        taken = claim(*args, **named)
        sqlite_jobs.cancel(job.id)
        return taken

    monkeypatch.setattr(sqlite_jobs.home, "claim", claim_and_cancel)
    assert worker(sqlite_jobs).run_one().ending == "cancelled"


def test_a_file_that_is_gone_fails_the_job(sqlite_jobs, parquet_file):
    job = sqlite_jobs.submit(parquet_file)
    sqlite_jobs.uploads.remove(job.id)
    assert worker(sqlite_jobs).run_one().ending == "failed"
    assert sqlite_jobs.get(job.id).error.type == "UnreadableFileError"


def test_a_worker_that_is_told_to_stop_gives_the_job_back_at_a_checkpoint(
    jobs, parquet_file, transactions
):
    job = jobs.submit(parquet_file)
    first = worker(jobs, on_checkpoint=lambda job: first.stop() if job.next_row > 300 else None)
    outcome = first.run_one()
    assert (outcome.ending, outcome.job.next_row) == ("released", 301)
    assert worker(jobs, name="two").run_one().ending == "done"
    assert results(jobs, job) == expected(transactions)


def test_a_worker_works_until_there_is_nothing_left(sqlite_jobs, parquet_file):
    for _ in range(3):
        sqlite_jobs.submit(parquet_file)
    worker(sqlite_jobs).run(until_empty=True)
    assert {job.state for job in sqlite_jobs.latest()} == {JobState.DONE}


def test_a_worker_waits_for_work_and_for_a_store_that_does_not_answer(sqlite_jobs, monkeypatch):
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            waiting.stop()

    waiting = worker(sqlite_jobs, sleep=sleep)
    answers = [None, JobsUnavailableError("store", "down"), None]

    def run_one():
        answer = answers.pop(0)
        if answer:
            raise answer
        return answer

    monkeypatch.setattr(waiting, "run_one", run_one)
    waiting.run(poll=0.25)
    assert slept == [0.25] * 3


def test_a_store_that_stops_answering_in_the_middle_leaves_the_job_to_its_lease(
    sqlite_jobs, sqlite_clock, parquet_file, monkeypatch
):
    job = sqlite_jobs.submit(parquet_file)

    def down(*args, **named):
        raise JobsUnavailableError("store", "down")

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_jobs.home, "commit", down)
        with pytest.raises(JobsUnavailableError):
            worker(sqlite_jobs).run_one()
    assert sqlite_jobs.get(job.id).state is JobState.RUNNING
    sqlite_clock.advance(31)
    assert worker(sqlite_jobs).run_one().ending == "done"


# Heartbeats


@pytest.fixture
def claim(sqlite_jobs, parquet_file):
    sqlite_jobs.submit(parquet_file)
    return sqlite_jobs.home.claim("one", lease=30.0, max_tries=3)


def test_a_beat_renews_the_lease(sqlite_jobs, sqlite_clock, claim):
    heartbeat = Heartbeat(sqlite_jobs.home, claim, stuck_after=300, clock=FakeClock())
    sqlite_clock.advance(20)
    assert heartbeat.beat()
    assert sqlite_jobs.get(claim.id).lease_until == sqlite_clock() + 30


def test_work_that_hangs_loses_its_lease_although_the_process_lives(
    sqlite_jobs, sqlite_clock, claim
):
    own = FakeClock()
    heartbeat = Heartbeat(sqlite_jobs.home, claim, stuck_after=300, clock=own)
    own.advance(299)
    assert heartbeat.beat()
    own.advance(2)
    assert not heartbeat.beat()
    sqlite_clock.advance(31)
    assert sqlite_jobs.home.claim("two", lease=30.0, max_tries=3) is not None


def test_progress_counts_from_the_last_time(sqlite_jobs, claim):
    own = FakeClock()
    heartbeat = Heartbeat(sqlite_jobs.home, claim, stuck_after=300, clock=own)
    own.advance(299)
    heartbeat.progressed()
    own.advance(299)
    assert heartbeat.beat()


def test_a_beat_without_a_lease_is_the_last_and_one_without_a_store_is_not(
    sqlite_jobs, claim, monkeypatch
):
    heartbeat = Heartbeat(sqlite_jobs.home, claim, stuck_after=300, clock=FakeClock())

    def down(claim):
        raise JobsUnavailableError("store", "down")

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_jobs.home, "renew", down)
        assert heartbeat.beat()
    sqlite_jobs.cancel(claim.id)
    assert not heartbeat.beat()


def test_a_heart_beats_by_itself_while_work_is_under_way(sqlite_jobs, parquet_file, monkeypatch):
    beaten = threading.Event()
    renew = sqlite_jobs.home.renew
    monkeypatch.setattr(sqlite_jobs.home, "renew", lambda claim: (renew(claim), beaten.set()))
    sqlite_jobs.submit(parquet_file)

    def slow(frame):
        assert beaten.wait(20)
        return by_id(frame)

    assert worker(sqlite_jobs, slow, lease=0.03).run_one().ending == "done"
    assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat"]


def test_open_jobs_needs_to_know_where_uploads_are(tmp_path, postgresql_url):
    with pytest.raises(ValueError, match="folder for uploads"):
        open_jobs(postgresql_url)
    opened = open_jobs(postgresql_url, uploads=tmp_path / "uploads")
    assert opened.uploads.folder.is_dir()
    opened.close()
    assert open_jobs(f"sqlite:///{tmp_path}/j.db").uploads.folder == tmp_path / "j.db.uploads"
