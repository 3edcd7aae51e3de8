"""The same jobs, carried out by Celery workers on any number of machines, with Redis between.

Celery brings a message to a free worker; it is no place for the job itself. A message can be lost
(with its Redis) or come twice (whenever work takes longer than the broker's patience), so all that
it says is "look at job X". Whether X is free, how far it is and who may write stays in the store,
by lease and token, exactly as for `companion worker`; a second message finds the job taken and
looks again later.

By default Celery acknowledges a message *before* it runs the task, so a worker that is killed takes
its task with it, and Redis never hears of it again. What is needed instead, all of it:

- `task_acks_late`: acknowledge when the task has ended;
- `task_reject_on_worker_lost`: a child process that was killed counts as not ended;
- `visibility_timeout`: after how long an unacknowledged message is given to somebody else (the
  default is an hour);
- `unacked_restore_interval` and `unacked_restore_throttle`: how often anybody looks for such
  messages. With kombu's defaults that is every 100 s, whatever the visibility timeout.

Sources: https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/redis.html,
https://docs.celeryq.dev/en/stable/userguide/configuration.html#task-acks-late, and the docstring of
`kombu.transport.redis`.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.signals import worker_ready
from kombu.exceptions import OperationalError
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from companion.serving.jobs.job import Job, JobState
from companion.serving.jobs.store import Jobs
from companion.serving.jobs.worker import Worker

logger = logging.getLogger(__name__)

TASK = "companion.score_batch"
_PATIENCE = 1.0
_MOST_WAITING = 1_000


class BrokerUnavailableError(Exception):
    """Redis, which brings Celery its messages, does not answer."""


def celery_app(
    broker_url: str, *, visibility_timeout: float = 60.0, sweep_every: float = 5.0
) -> Celery:
    """A Celery application whose tasks survive the death of their worker.

    A dead worker's message is given to another after `visibility_timeout` seconds, found within
    `sweep_every`. Work that takes longer is not disturbed: the message comes again and finds the
    job taken.
    """
    app = Celery("companion", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,  # what one worker holds back, nobody else can do
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=False,
        broker_transport_options={
            "visibility_timeout": visibility_timeout,
            "unacked_restore_interval": sweep_every,
            "unacked_restore_throttle": 1,
            "socket_connect_timeout": _PATIENCE,
        },
    )
    return app


def announcer(app: Celery) -> Callable[[Job], None]:
    """What tells Celery of an accepted job (`on_accepted` of the routes).

    Raises `BrokerUnavailableError` within about a second where Redis is down. The job is stored all
    the same, and announced when a Celery worker next starts.
    """
    # Celery's own connection tries again and again before it gives up; a request cannot wait.
    url = app.connection_for_write().as_uri(include_password=True)
    probe: Any = Redis.from_url(
        url,
        socket_timeout=_PATIENCE,
        socket_connect_timeout=_PATIENCE,
        retry=Retry(NoBackoff(), 0),
    )

    def announce(job: Job) -> None:
        try:
            probe.ping()
            app.send_task(TASK, [job.id], retry=False, ignore_result=True)
        except (RedisError, OperationalError) as error:
            raise BrokerUnavailableError(str(error)) from error

    return announce


def run_jobs(
    app: Celery,
    open_store: Callable[[], Jobs],
    open_worker: Callable[[Jobs], Worker],
    *,
    look_again: float,
) -> None:
    """Teach `app`'s workers to score the jobs of a store.

    Both functions are called in every worker process, after the fork, since neither connections nor
    models survive one. A job that is not free is looked at again after `look_again` seconds; about
    a lease is right.
    """

    @functools.cache
    def worker_of(process: int) -> Worker:
        return open_worker(open_store())

    @app.task(name=TASK, bind=True, max_retries=None)  # type: ignore[untyped-decorator]
    def score_batch(task: Any, job_id: str) -> str:
        worker = worker_of(os.getpid())
        outcome = worker.run_one(job_id)
        job = outcome.job if outcome else worker.jobs.get(job_id)
        if not job.state.final:
            raise task.retry(countdown=look_again)
        return job.state.value

    @worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
    def announce_what_waits(**_: Any) -> None:
        # Whoever accepted these may have found no Redis; to be told twice does no harm.
        store = open_store()
        waiting = [job for job in store.latest(_MOST_WAITING) if job.state is JobState.QUEUED]
        store.close()
        for job in reversed(waiting):
            announcer(app)(job)
        logger.info("%d jobs were waiting", len(waiting))
