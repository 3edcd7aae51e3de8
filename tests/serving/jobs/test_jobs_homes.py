"""Where jobs live: one suite over SQLite and a real PostgreSQL server."""

from __future__ import annotations

import threading
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from companion.instruments.faulty_link import HUNG, WELL, FaultyLink
from companion.serving.jobs import (
    Failure,
    IdempotencyConflictError,
    JobState,
    JobsUnavailableError,
    LeaseLostError,
    NewJob,
    Part,
    Reject,
    UnknownJobError,
)
from companion.serving.jobs.homes import open_home
from companion.serving.jobs.homes.postgresql import PostgresqlHome
from companion.serving.jobs.homes.sqlite import SqliteHome

LEASE = 30.0
FAILURE = Failure("KeyError", "'amount'", "Traceback …")


def new(number=1, key=None, sha256="a", owner=""):
    return NewJob(f"{number:032x}", "csv", 10, sha256, owner, key)


def claimed(home, worker="one", max_tries=3, **named):
    return home.claim(worker, lease=LEASE, max_tries=max_tries, **named)


def part(first, end, rejects=()):
    scored = end - first - len(rejects)
    return Part(first, end, scored, f"{first}-{end}".encode(), len(rejects), rejects)


def commit(home, claim, first, end, rejects=(), rows=100, most=50):
    return home.commit(claim, part(first, end, rejects), rows=rows, most_rejects=most)


# Storing and finding


def test_an_inserted_job_is_queued_and_can_be_got(home):
    job, created = home.insert(new())
    assert created
    assert job == home.get(job.id)
    assert (job.state, job.next_row, job.attempts, job.rows) == (JobState.QUEUED, 1, 0, None)
    assert job.created_at == home.now()


def test_an_unknown_job_is_an_error_with_its_id(home):
    with pytest.raises(UnknownJobError) as missing:
        home.get("nothing")
    assert missing.value.job_id == "nothing"
    with pytest.raises(UnknownJobError):
        home.cancel("nothing")


def test_the_latest_come_newest_first(home, clock):
    for number in range(3):
        home.insert(new(number))
        clock.advance(1)
    assert [job.id for job in home.latest(2)] == [new(2).id, new(1).id]


def test_the_same_key_and_file_give_the_job_that_is_there(home):
    first, _ = home.insert(new(1, key="k"))
    again, created = home.insert(new(2, key="k"))
    assert (again, created) == (first, False)
    assert len(home.latest(9)) == 1


def test_the_same_key_with_another_file_is_refused(home):
    home.insert(new(1, key="k"))
    with pytest.raises(IdempotencyConflictError) as conflict:
        home.insert(new(2, key="k", sha256="b"))
    assert (conflict.value.key, conflict.value.job_id) == ("k", new(1).id)


def test_keys_of_two_owners_do_not_meet_and_no_key_never_meets(home):
    home.insert(new(1, key="k", owner="a"))
    assert home.insert(new(2, key="k", owner="b", sha256="other"))[1]
    assert home.insert(new(3))[1]
    assert home.insert(new(4))[1]


# Claiming


def test_claims_come_in_the_order_of_submission(home, clock):
    for number in (5, 3, 4):
        home.insert(new(number))
        clock.advance(1)
    assert [claimed(home).id for _ in range(3)] == [new(5).id, new(3).id, new(4).id]
    assert claimed(home) is None


def test_a_claim_says_who_has_it_until_when(home):
    home.insert(new())
    claim = claimed(home)
    job = home.get(claim.id)
    assert (job.state, job.worker, job.attempts, job.tries) == (JobState.RUNNING, "one", 1, 1)
    assert job.lease_until == home.now() + LEASE
    assert job.started_at == home.now()


def test_nobody_else_gets_a_job_before_its_lease_ran_out_and_then_one_does(home, clock):
    home.insert(new())
    first = claimed(home)
    clock.advance(LEASE)
    assert claimed(home, "two") is None
    clock.advance(1)
    second = claimed(home, "two")
    assert second.token > first.token
    assert (home.get(first.id).worker, home.get(first.id).attempts) == ("two", 2)


def test_a_job_can_be_claimed_by_name_if_it_is_free(home):
    home.insert(new(1))
    home.insert(new(2))
    assert claimed(home, job_id=new(2).id).id == new(2).id
    assert claimed(home, job_id=new(2).id) is None
    assert claimed(home, job_id="nothing") is None


def test_of_many_claimers_exactly_one_gets_each_job(home):
    for number in range(5):
        home.insert(new(number))
    together, won = threading.Barrier(8), []

    def claim_all(worker):
        together.wait()
        while (claim := claimed(home, worker)) is not None:
            won.append(claim.id)
        home.close()

    threads = [threading.Thread(target=claim_all, args=(f"w{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # A claimer that meets another may go home early; nothing may be claimed twice.
    while (claim := claimed(home)) is not None:
        won.append(claim.id)
    assert sorted(won) == [new(number).id for number in range(5)]


# Working


def test_a_commit_moves_the_checkpoint_and_renews_the_lease(home, clock):
    home.insert(new())
    claim = claimed(home)
    clock.advance(20)
    job = commit(home, claim, 1, 41, [Reject(7, "bad")])
    assert (job.next_row, job.scored, job.rejected, job.rows) == (41, 39, 1, 100)
    assert job.tries == 0
    assert job.lease_until == home.now() + LEASE
    assert job.progress == 0.4
    assert list(home.payloads(claim.id)) == [b"1-41"]
    assert list(home.rejects(claim.id)) == [Reject(7, "bad")]


def test_parts_and_rejects_come_back_in_the_order_of_rows(home):
    home.insert(new())
    claim = claimed(home)
    commit(home, claim, 1, 10, [Reject(9, "x"), Reject(2, "y")])
    commit(home, claim, 10, 101, [Reject(10, "z")])
    assert list(home.payloads(claim.id)) == [b"1-10", b"10-101"]
    assert [one.row for one in home.rejects(claim.id)] == [2, 9, 10]


def test_a_part_without_scores_stores_no_results(home):
    home.insert(new())
    claim = claimed(home)
    commit(home, claim, 1, 2, [Reject(1, "x")])
    assert list(home.payloads(claim.id)) == []


def test_only_so_many_rejects_are_kept_and_all_are_counted(home):
    home.insert(new())
    claim = claimed(home)
    commit(home, claim, 1, 5, [Reject(1, "x"), Reject(2, "x")], most=3)
    commit(home, claim, 5, 9, [Reject(5, "x"), Reject(6, "x")], most=3)
    job = commit(home, claim, 9, 11, [Reject(9, "x"), Reject(10, "x")], most=3)
    assert job.rejected == 6
    assert [one.row for one in home.rejects(claim.id)] == [1, 2, 5]


def test_a_commit_that_fails_leaves_nothing_behind(home):
    home.insert(new())
    claim = claimed(home)
    twice = [Reject(3, "x"), Reject(3, "again")]
    with pytest.raises(JobsUnavailableError):
        commit(home, claim, 1, 41, twice)
    assert home.get(claim.id).next_row == 1
    assert list(home.payloads(claim.id)) == []
    assert commit(home, claim, 1, 41).next_row == 41


def test_a_commit_from_another_place_than_the_checkpoint_is_refused(home):
    home.insert(new())
    claim = claimed(home)
    commit(home, claim, 1, 41)
    with pytest.raises(LeaseLostError):
        commit(home, claim, 1, 41)
    assert home.get(claim.id).scored == 40


def test_a_renewed_lease_is_not_taken(home, clock):
    home.insert(new())
    claim = claimed(home)
    clock.advance(20)
    home.renew(claim)
    clock.advance(20)
    assert claimed(home, "two") is None


def test_a_lease_that_ran_out_still_counts_until_somebody_takes_the_job(home, clock):
    home.insert(new())
    claim = claimed(home)
    clock.advance(LEASE + 1)
    assert commit(home, claim, 1, 41).next_row == 41


WRITES = {
    "renew": lambda home, claim: home.renew(claim),
    "commit": lambda home, claim: commit(home, claim, 1, 41),
    "finish": lambda home, claim: home.finish(claim, rows=0),
    "fail": lambda home, claim: home.fail(claim, FAILURE, pause=None),
    "fail, to be tried again": lambda home, claim: home.fail(claim, FAILURE, pause=1.0),
    "release": lambda home, claim: home.release(claim),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_worker_that_was_overtaken_changes_nothing(home, clock, write):
    home.insert(new())
    zombie = claimed(home)
    clock.advance(LEASE + 1)
    claimed(home, "two")
    before = home.get(zombie.id)
    with pytest.raises(LeaseLostError) as lost:
        write(home, zombie)
    assert (lost.value.job_id, lost.value.token) == (zombie.id, zombie.token)
    assert home.get(zombie.id) == before
    assert list(home.payloads(zombie.id)) == []


def test_a_forged_token_changes_nothing(home):
    home.insert(new())
    claim = claimed(home)
    with pytest.raises(LeaseLostError):
        home.renew(replace(claim, token=claim.token + 1))


# Ending


def test_a_job_is_done_when_all_rows_are_behind_the_checkpoint_and_not_before(home):
    home.insert(new())
    claim = claimed(home)
    commit(home, claim, 1, 100)
    with pytest.raises(LeaseLostError):
        home.finish(claim, rows=100)
    commit(home, claim, 100, 101)
    job = home.finish(claim, rows=100)
    assert (job.state, job.progress, job.worker) == (JobState.DONE, 1.0, None)
    assert job.finished_at == home.now()
    assert claimed(home) is None


def test_a_failure_for_good_is_stored_with_type_message_and_traceback(home):
    home.insert(new())
    job = home.fail(claimed(home), FAILURE, pause=None)
    assert (job.state, job.error) == (JobState.FAILED, FAILURE)
    assert claimed(home) is None


def test_a_failure_to_be_tried_again_waits_for_its_pause(home, clock):
    home.insert(new())
    job = home.fail(claimed(home), FAILURE, pause=5.0)
    assert (job.state, job.error) == (JobState.QUEUED, FAILURE)
    clock.advance(4)
    assert claimed(home) is None
    clock.advance(1)
    again = claimed(home)
    assert (again.job.attempts, again.job.tries) == (2, 2)


def test_an_error_that_was_overcome_is_gone_from_a_job_that_is_done(home):
    home.insert(new())
    home.fail(claimed(home), FAILURE, pause=0.0)
    claim = claimed(home)
    commit(home, claim, 1, 101)
    assert home.finish(claim, rows=100).error is None


def test_a_job_whose_workers_keep_dying_fails_with_a_reason(home, clock):
    home.insert(new())
    for _ in range(3):
        assert claimed(home) is not None
        clock.advance(LEASE + 1)
    assert claimed(home) is None
    job = home.get(new().id)
    assert (job.state, job.error.type) == (JobState.FAILED, "WorkerDiedError")
    assert "after row 0" in job.error.message
    assert "one" in job.error.message


def test_only_tries_without_progress_count(home, clock):
    home.insert(new())
    for first in range(1, 8):
        commit(home, claimed(home), first, first + 1)
        clock.advance(LEASE + 1)
    assert claimed(home).job.attempts == 8


def test_a_released_job_is_free_at_once_and_the_try_does_not_count(home):
    home.insert(new())
    job = home.release(claimed(home))
    assert (job.state, job.tries, job.attempts) == (JobState.QUEUED, 0, 1)
    assert claimed(home, "two") is not None


def test_a_queued_job_that_is_cancelled_is_never_claimed(home):
    home.insert(new())
    assert home.cancel(new().id).state is JobState.CANCELLED
    assert claimed(home) is None


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_cancelling_fences_off_whoever_works_on_it(home, write):
    home.insert(new())
    claim = claimed(home)
    home.cancel(claim.id)
    with pytest.raises(LeaseLostError):
        write(home, claim)
    assert home.get(claim.id).state is JobState.CANCELLED


def test_cancelling_what_is_over_changes_nothing(home):
    home.insert(new())
    home.fail(claimed(home), FAILURE, pause=None)
    before = home.get(new().id)
    assert home.cancel(new().id) == before


def test_what_has_been_over_long_enough_is_forgotten_with_all_it_left(home, clock):
    for number in (1, 2, 3):
        home.insert(new(number))
        if number < 3:
            commit(home, claimed(home, job_id=new(number).id), 1, 2, [Reject(1, "x")])
            home.cancel(new(number).id)
            clock.advance(100)
    assert [job.id for job in home.forget(150)] == [new(1).id]
    assert {job.id for job in home.latest(9)} == {new(2).id, new(3).id}
    assert list(home.payloads(new(1).id)) == list(home.rejects(new(1).id)) == []


# Opening


@pytest.mark.parametrize("url", ["mysql://x", "sqlite:", "sqlite:///", "file.db"])
def test_an_unknown_url_is_refused(url):
    with pytest.raises(ValueError, match="no home of jobs"):
        open_home(url)


def test_a_home_opens_by_url(tmp_path, postgresql_url):
    for url in (f"sqlite:///{tmp_path}/jobs.db", postgresql_url):
        home = open_home(url)
        assert home.now() > 1e9
        home.close()


def test_a_server_that_is_not_there_is_named_without_its_password():
    with pytest.raises(JobsUnavailableError) as down:
        PostgresqlHome("postgresql://user:secret@127.0.0.1:1/x", timeout=1)
    assert "secret" not in str(down.value)
    assert "127.0.0.1:1" in down.value.home


def test_a_server_that_hangs_is_waited_for_so_long_and_no_longer(postgresql_url):
    [folder] = parse_qs(urlsplit(postgresql_url).query)["host"]
    with FaultyLink(f"{folder}/.s.PGSQL.5432") as link:
        home = PostgresqlHome(f"postgresql://postgres@127.0.0.1:{link.port}/postgres", timeout=0.1)
        link.become(HUNG)
        with pytest.raises(JobsUnavailableError, match="no answer within"):
            home.now()
        link.become(WELL)
        assert home.now() > 1e9
        home.close()


def test_a_broken_connection_is_an_error_once_and_replaced(postgresql_url):
    home = PostgresqlHome(postgresql_url)
    with psycopg.connect(postgresql_url, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        )
    with pytest.raises(JobsUnavailableError):
        home.now()
    assert home.now() > 1e9
    home.close()


def test_a_database_that_cannot_be_written_is_an_error_with_a_name(tmp_path):
    home = SqliteHome(tmp_path / "jobs.db")
    home._connection().execute("DROP TABLE rejects")
    home._connection().execute("DROP TABLE parts")
    home._connection().execute("DROP TABLE jobs")
    with pytest.raises(JobsUnavailableError, match="no such table"):
        home.latest(1)
    home.close()
