"""What Kubernetes does with health checks, in virtual time: probe, take out of traffic, restart.

A small model of the kubelet and of a Service, true to what their documentation says about probes
(*Configure Liveness, Readiness and Startup Probes*; *Pod Lifecycle*, on restarts):

* the **startup** probe comes first; until it has succeeded, the other two do not run;
* **liveness** that fails `failure_threshold` times in a row restarts the container;
* **readiness** decides whether the Service sends requests there, in both directions;
* a first restart comes at once, the next ones after 10, 20, 40 … at most 300 s;
* a probe succeeds with a status from 200 to 399 that arrives within its timeout.

Left out: jitter, the time that the news of a failed probe takes to reach every node, graceful
termination. Each of them makes what is seen here a little worse.

What is probed is real code: any ASGI application (:func:`asgi`) or a function from path to answer.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import httpx
import numpy as np

from companion.instruments.virtual_time import run_in_virtual_time, virtual_now

__all__ = ["Answer", "Deployment", "Probe", "Request", "Story", "asgi", "slow_start", "watch"]

FIRST_BACKOFF, LONGEST_BACKOFF = 10.0, 300.0
"""Seconds before the second restart of a container, and before any."""


@dataclass(frozen=True)
class Answer:
    """What came back over HTTP."""

    status: int
    body: str = ""


Container: TypeAlias = Callable[[str], Awaitable[Answer]]
"""From a path to its answer; raises `ConnectionError` while nobody listens."""


@dataclass(frozen=True)
class Probe:
    """One probe, with the fields and defaults of the Kubernetes API; times in seconds.

    Raises:
        ValueError: a field is out of the range that the API allows, by name.
    """

    path: str
    period: float = 10.0
    timeout: float = 1.0
    failure_threshold: int = 3
    success_threshold: int = 1
    initial_delay: float = 0.0

    def __post_init__(self) -> None:
        for name in ("period", "timeout", "failure_threshold", "success_threshold"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is positive, got {getattr(self, name)}")
        if not 0 <= self.initial_delay < math.inf:
            raise ValueError(f"initial_delay is at least 0, got {self.initial_delay}")


@dataclass(frozen=True)
class Deployment:
    """`replicas` pods with one container each; `make()` makes a container whenever one starts.

    Raises:
        ValueError: `replicas` is below 1, or liveness or startup ask for several successes in a
            row, which the Kubernetes API refuses.
    """

    make: Callable[[], Container]
    replicas: int = 3
    liveness: Probe | None = None
    readiness: Probe | None = None
    startup: Probe | None = None

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise ValueError(f"replicas is at least 1, got {self.replicas}")
        for name, probe in {"liveness": self.liveness, "startup": self.startup}.items():
            if probe is not None and probe.success_threshold != 1:
                raise ValueError(
                    f"{name} needs a success_threshold of 1, got {probe.success_threshold}"
                )


@dataclass(frozen=True)
class Request:
    """A request of a client, sent `at` seconds: to which pod, and what came back.

    `pod` is None where no pod was ready; `answer` is None where none came within the client's
    time.
    """

    at: float
    pod: int | None
    answer: Answer | None

    @property
    def is_lost(self) -> bool:
        """Nobody was there, nobody answered, or the answer was an error of the server."""
        return self.answer is None or self.answer.status >= 500


@dataclass(frozen=True)
class Story:
    """What happened in `seconds`.

    `ready`: the times at which the number of ready pods changed, with that number, from 0 on.
    `restarts`: when containers were killed for a failed probe, with the pod's number.
    """

    seconds: float
    ready: tuple[tuple[float, int], ...]
    restarts: tuple[tuple[float, int], ...]
    requests: tuple[Request, ...]

    @property
    def lost(self) -> int:
        return sum(request.is_lost for request in self.requests)

    def ready_at(self, at: float) -> int:
        """How many pods were ready at that time."""
        return [count for since, count in self.ready if since <= at][-1]

    def first_ready(self) -> float | None:
        """When a pod was ready for the first time; None if none ever was."""
        return next((since for since, count in self.ready if count), None)


def watch(
    deployment: Deployment,
    *,
    seconds: float,
    requests_per_second: float = 1.0,
    path: str = "/predict",
    client_timeout: float = 1.0,
    events: Sequence[tuple[float, Callable[[], object]]] = (),
) -> Story:
    """Run `deployment` for `seconds` of virtual time under a steady stream of requests.

    Requests for `path` go to the ready pods in turn, the first after half an interval. `events` are
    (time, function): what else happens, such as a database that goes away.

    Raises:
        ValueError: `seconds` or `requests_per_second` is not positive.
    """
    if seconds <= 0 or requests_per_second <= 0:
        raise ValueError(
            f"seconds and requests_per_second are positive, got {seconds} and {requests_per_second}"
        )
    cluster = _Cluster(deployment)

    async def run() -> tuple[Request, ...]:
        background = [asyncio.create_task(pod.live()) for pod in cluster.pods]
        background += [asyncio.create_task(_at(at, event)) for at, event in events]
        requests = [
            asyncio.create_task(
                cluster.request(float(at) / requests_per_second, path, client_timeout)
            )
            for at in np.arange(0.5, seconds * requests_per_second)
        ]
        try:
            # Pods go on for ever and an event gives nothing back, so the first error is waited for.
            _, pending = await asyncio.wait(
                background, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION
            )
            for task in set(background) - pending:
                task.result()
            return tuple(await asyncio.gather(*requests))
        finally:
            await _end(*background, *requests)

    requests = run_in_virtual_time(run())
    # While the last requests are answered, the pods go on.
    ready = tuple(change for change in cluster.ready if change[0] <= seconds)
    restarts = tuple(restart for restart in cluster.restarts if restart[0] <= seconds)
    return Story(seconds, ready, restarts, requests)


def asgi(app: Any) -> Container:
    """The ASGI application `app` as a container. Its lifespan is not run."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    async def ask(path: str) -> Answer:
        async with httpx.AsyncClient(transport=transport, base_url="http://pod") as client:
            response = await client.get(path)
        return Answer(response.status_code, response.text)

    return ask


def slow_start(container: Container, seconds: float) -> Container:
    """`container`, listening only `seconds` after this call, as one that loads a model first."""
    listens_at = virtual_now() + seconds

    async def ask(path: str) -> Answer:
        if virtual_now() < listens_at:
            raise ConnectionRefusedError(f"nobody listens before {listens_at:.0f} s")
        return await container(path)

    return ask


class _Cluster:
    """The pods, and the Service in front of them."""

    def __init__(self, deployment: Deployment) -> None:
        self.ready: list[tuple[float, int]] = [(0.0, 0)]
        self.restarts: list[tuple[float, int]] = []
        self.pods = [_Pod(number, deployment, self) for number in range(deployment.replicas)]
        self._turn = 0

    def count_ready(self) -> None:
        now, count = virtual_now(), sum(pod.is_ready for pod in self.pods)
        if count != self.ready[-1][1]:
            self.ready.append((now, count))

    async def request(self, at: float, path: str, timeout: float) -> Request:
        await asyncio.sleep(at)
        pods = [pod for pod in self.pods if pod.is_ready]
        if not pods:
            return Request(at, None, None)
        self._turn += 1
        pod = pods[self._turn % len(pods)]
        return Request(at, pod.number, await _answer(pod.container, path, timeout))


class _Pod:
    """One pod: a container, its probes, and its restarts."""

    def __init__(self, number: int, deployment: Deployment, cluster: _Cluster) -> None:
        self.number = number
        self.is_ready = False
        self.container: Container = _nobody
        self._deployment = deployment
        self._cluster = cluster

    async def live(self) -> None:
        backoff = 0.0
        while True:
            self.container = self._deployment.make()
            await self._until_killed(virtual_now())
            self.container = _nobody
            self._set_ready(False)
            self._cluster.restarts.append((virtual_now(), self.number))
            await asyncio.sleep(backoff)
            backoff = min(max(2 * backoff, FIRST_BACKOFF), LONGEST_BACKOFF)

    async def _until_killed(self, since: float) -> None:
        startup, liveness, readiness = (
            self._deployment.startup,
            self._deployment.liveness,
            self._deployment.readiness,
        )
        if startup is not None and not await anext(self._verdicts(startup, since)):
            return
        following = asyncio.create_task(self._follow(readiness, since))
        living = asyncio.create_task(self._until_dead(liveness, since))
        try:
            done, _ = await asyncio.wait({following, living}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # following never ends but by an error of the container's
        finally:
            await _end(following, living)

    async def _until_dead(self, liveness: Probe | None, since: float) -> None:
        if liveness is None:
            await _for_ever()
        async for alive in self._verdicts(liveness, since):
            if not alive:
                return

    async def _follow(self, readiness: Probe | None, since: float) -> None:
        if readiness is None:
            self._set_ready(True)
            await _for_ever()
        async for ready in self._verdicts(readiness, since):
            self._set_ready(ready)

    async def _verdicts(self, probe: Probe, since: float) -> AsyncIterator[bool]:
        """What the probe says, whenever enough outcomes in a row agree; for ever."""
        at, last, in_a_row = max(since + probe.initial_delay, virtual_now()), None, 0
        while True:
            await asyncio.sleep(at - virtual_now())
            answer = await _answer(self.container, probe.path, probe.timeout)
            passed = answer is not None and 200 <= answer.status < 400
            in_a_row = in_a_row + 1 if passed is last else 1
            last = passed
            if in_a_row >= (probe.success_threshold if passed else probe.failure_threshold):
                yield passed
            at = max(at + probe.period, virtual_now())

    def _set_ready(self, ready: bool) -> None:
        self.is_ready = ready
        self._cluster.count_ready()


async def _end(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    # Errors that are looked at here are not complained about when the tasks are thrown away.
    await asyncio.gather(*tasks, return_exceptions=True)


async def _for_ever() -> NoReturn:
    while True:
        await asyncio.Event().wait()


async def _at(at: float, event: Callable[[], object]) -> None:
    await asyncio.sleep(at)
    event()


async def _answer(container: Container, path: str, timeout: float) -> Answer | None:
    try:
        async with asyncio.timeout(timeout):
            return await container(path)
    except (TimeoutError, ConnectionError):
        return None


async def _nobody(path: str) -> Answer:
    raise ConnectionRefusedError("the container does not run")
