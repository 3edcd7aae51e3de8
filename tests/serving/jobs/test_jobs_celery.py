"""The same jobs on Celery: a real Redis, a real worker, and kill -9."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
import time
from functools import partial

import psutil
import pytest
from redis import Redis

from companion.instruments.redis_server import find_redis_server, redis_server
from companion.instruments.server import SubprocessServer, free_port
from companion.serving.jobs import JobState, open_jobs
from companion.serving.jobs.celery import TASK, BrokerUnavailableError, announcer, celery_app

ROWS, CHUNK = 1000, 50

WORKER = f"""
import sys, time
from companion.serving.jobs import Worker, open_jobs
from companion.serving.jobs.celery import celery_app, run_jobs

broker, store = sys.argv[1:]

def slow(frame):
    time.sleep(0.05)
    return frame["transaction_id"] / 1e6

app = celery_app(broker, visibility_timeout=1, sweep_every=0.5)
run_jobs(
    app,
    lambda: open_jobs(store),
    lambda jobs: Worker(jobs, slow, lease=1.0, chunk_rows={CHUNK}, max_tries=50),
    look_again=0.5,
)
app.worker_main(["worker", "--loglevel=INFO", "--concurrency=1"])
"""


@pytest.fixture(scope="module")
def broker():
    if find_redis_server() is None:
        pytest.skip("there is no Redis server on this machine")
    with redis_server() as server:
        yield server.url


@pytest.fixture
def store(tmp_path):
    return f"sqlite:///{tmp_path}/jobs.db"


def celery_worker(broker, store):
    """A worker process with one child, ready when it says so."""
    said = []
    server = SubprocessServer(
        [sys.executable, "-c", WORKER, broker, store],
        lambda: server.log().count(" ready.") > len(said),
        timeout=60,
    )
    server.said = said
    return server


def wait_for(ready, seconds=60):
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def started_again(worker):
    worker.said.append("ready")
    worker.start()


def test_a_job_survives_the_death_of_its_child_process_and_of_the_whole_worker(
    broker, store, parquet_file
):
    jobs = open_jobs(store)
    job = jobs.submit(parquet_file)  # before there is any worker, and nobody is told
    worker = celery_worker(broker, store)
    with worker:

        def behind(row):
            return jobs.get(job.id).next_row > row

        wait_for(partial(behind, 0.2 * ROWS))
        (child,) = psutil.Process(worker.pid).children()
        os.kill(child.pid, signal.SIGKILL)
        wait_for(partial(behind, 0.5 * ROWS))
        worker.kill()
        started_again(worker)
        wait_for(lambda: jobs.get(job.id).state is JobState.DONE)
    done = jobs.get(job.id)
    assert jobs.results(job.id).column("row").to_pylist() == list(range(1, ROWS + 1))
    assert (done.scored, done.attempts) == (ROWS, 3)


def test_telling_leaves_a_message_that_names_the_job(broker, store, parquet_file):
    job = open_jobs(store).submit(parquet_file)
    announcer(celery_app(broker))(job)
    with Redis.from_url(broker) as client:
        (message,) = client.lrange("celery", 0, -1)
        client.flushall()
    assert job.id.encode() in base64.b64decode(json.loads(message)["body"])


def test_without_a_broker_telling_fails_soon_and_with_a_name(store, parquet_file):
    jobs = open_jobs(store)
    announce = announcer(celery_app(f"redis://127.0.0.1:{free_port()}/0"))
    job = jobs.submit(parquet_file)
    with pytest.raises(BrokerUnavailableError):
        announce(job)
    assert jobs.get(job.id).state is JobState.QUEUED


def test_the_options_without_which_killed_tasks_are_lost_are_set():
    conf = celery_app("redis://127.0.0.1/0", visibility_timeout=60, sweep_every=5).conf
    assert conf.task_acks_late
    assert conf.task_reject_on_worker_lost
    assert conf.worker_prefetch_multiplier == 1
    options = conf.broker_transport_options
    assert options["visibility_timeout"] == 60
    assert options["unacked_restore_interval"] * options["unacked_restore_throttle"] == 5
    assert TASK == "companion.score_batch"
