"""How long requests wait, from three numbers: how often they come, how long one takes, who serves.

A queue does not need an overload. Arrivals that know nothing of each other come in clumps (they
are Poisson), so a server that is busy half of the time already makes some wait, and the wait grows
with 1 / (1 - utilisation): from 80 % to 90 % it doubles.

* Little (1961): on average `in system = rate × time in system`, whatever the distributions.
* Erlang (1917): the chance that all of several workers are busy, exact for exponential service.
* Pollaczek (1930) and Khinchine (1932): with one worker only the *variation* of the service time
  matters beside its mean. Cosmetatos (1975): the same, closely, for several workers.
* Kingman (1961, "The single server queue in heavy traffic"): in heavy traffic waits are exponential
  whatever the service times are, which is where the percentiles here come from.

Times are in seconds, rates per second. Arrivals are Poisson and served in order of arrival.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


class OverloadedError(Exception):
    """More arrives than can be served, so that the queue grows without end.

    `rate` and `capacity` are per second; `utilisation` is their ratio, 1 or above.
    """

    def __init__(self, rate: float, capacity: float) -> None:
        super().__init__(rate, capacity)
        self.rate = rate
        self.capacity = capacity
        self.utilisation = rate / capacity

    def __str__(self) -> str:
        return (
            f"{self.rate:.4g} a second arrive and {self.capacity:.4g} can be served: "
            f"the queue grows without end"
        )


class UnreachableObjectiveError(Exception):
    """The service alone takes longer than the answer may: more workers cannot help.

    Both in seconds: `service` is what one request takes, `objective` what was asked for.
    """

    def __init__(self, service: float, objective: float) -> None:
        super().__init__(service, objective)
        self.service = service
        self.objective = objective

    def __str__(self) -> str:
        return (
            f"a request that takes {self.service:.4g} s is not answered within "
            f"{self.objective:.4g} s, however many workers there are"
        )


@dataclass(frozen=True)
class SteadyState:
    """What a queue settles to, on average.

    `rate` per second; `service`, and `wait` before it begins, in seconds; `utilisation` the share
    of the time that a worker is busy.
    """

    rate: float
    service: float
    wait: float
    utilisation: float

    @property
    def response(self) -> float:
        """Seconds from arrival to answer."""
        return self.wait + self.service

    @property
    def in_queue(self) -> float:
        """How many wait (Little)."""
        return self.rate * self.wait

    @property
    def in_system(self) -> float:
        """How many wait or are served (Little): the concurrency."""
        return self.rate * self.response


@dataclass(frozen=True)
class QueuePrediction(SteadyState):
    """A steady state of requests served one at a time; `waiting` is the chance to wait at all."""

    waiting: float

    def wait_percentile(self, q: float) -> float:
        """The wait in seconds that `q` percent (0 to below 100) do not exceed.

        Exact for exponential service, Kingman's approximation otherwise: nobody waits in
        1 - `waiting` of all cases, and whoever does waits an exponential time.

        Raises:
            ValueError: `q` is not from 0 to below 100.
        """
        if not 0 <= q < 100:
            raise ValueError(f"q is a percentage from 0 to below 100, got {q}")
        longer = 1 - q / 100
        if longer >= self.waiting:
            return 0.0
        return self.wait / self.waiting * math.log(self.waiting / longer)


def erlang_c(workers: int, load: float) -> float:
    """The chance that a request finds all workers busy; exact for exponential service.

    `load` is rate × service time, in workers (Erlang's unit, which bears his name).

    Raises:
        OverloadedError: the load is as much as the workers can do, or more.
        ValueError: no workers, or a negative load.
    """
    if workers < 1 or not load >= 0:
        raise ValueError(f"needs a worker and a load of at least 0, got {workers=} {load=}")
    if load >= workers:
        raise OverloadedError(load, workers)
    # By the recursion of Erlang's other formula (B): factorials of hundreds do not fit a float.
    lost = 1.0
    for number in range(1, workers + 1):
        lost = load * lost / (number + load * lost)
    return lost / (1 - load / workers * (1 - lost))


def predict(
    rate: float, service: float, workers: int = 1, *, variation: float = 1.0
) -> QueuePrediction:
    """The queue of `workers` that take `service` seconds a request each, at `rate` a second.

    `variation` is the variance of the service time over its squared mean: 1 exponential (M/M/c,
    exact), 0 always the same (M/D/c), measured ones are often between; above 1 for a few slow
    requests among many fast. The mean is exact for one worker whatever the variation.

    Raises:
        OverloadedError: the workers cannot keep up.
        ValueError: a rate, time or count that is not positive, or a negative variation.
    """
    refuse_unless_positive(rate=rate, service=service, workers=workers)
    if not variation >= 0:
        raise ValueError(f"variation must be at least 0, got {variation}")
    busy = rate * service / workers
    if busy >= 1:
        raise OverloadedError(rate, workers / service)
    waiting = erlang_c(workers, rate * service)
    exponential = waiting * service / (workers * (1 - busy))
    # Cosmetatos: with several workers, constant service saves a little less than half the wait.
    less = (1 - busy) * (workers - 1) * (math.sqrt(4 + 5 * workers) - 2) / (16 * workers * busy)
    # At light load the correction outgrows what it corrects; constant service never waits longer.
    constant = exponential * min(1.0, (1 + less) / 2)
    wait = variation * exponential + (1 - variation) * constant
    return QueuePrediction(rate, service, max(wait, 0.0), busy, waiting)


def workers_needed(
    rate: float,
    service: float,
    *,
    within: float,
    percent: float = 99.0,
    variation: float = 1.0,
) -> int:
    """The fewest workers with which `percent` of the requests wait so little that they end in time.

    A request of mean length is meant: `within` is its deadline in seconds from arrival to answer.

    Raises:
        UnreachableObjectiveError: the service alone takes as long as `within`, or longer.
        ValueError: what `predict` refuses, or `percent` is not from 0 to below 100.
    """
    refuse_unless_positive(rate=rate, service=service, within=within)
    if service >= within:
        raise UnreachableObjectiveError(service, within)
    workers = math.floor(rate * service) + 1
    while (
        predict(rate, service, workers, variation=variation).wait_percentile(percent)
        > within - service
    ):
        workers += 1
    return workers


def replicas_needed(
    peak_rate: float,
    service: float,
    *,
    workers_per_replica: int = 1,
    utilisation: float = 0.6,
    failures: int = 1,
) -> int:
    """Replicas that carry `peak_rate` at no more than `utilisation`, with `failures` of them gone.

    `service` is the processor time of one request in seconds, measured under load; `utilisation`
    is the headroom, for clumps of arrivals, garbage collection, and growth.

    Raises:
        ValueError: a rate, time or count that is not positive, a utilisation outside 0 to 1 (1
            itself leaves nothing for the clumps), or fewer than 0 failures.
    """
    refuse_unless_positive(
        peak_rate=peak_rate, service=service, workers_per_replica=workers_per_replica
    )
    if not 0 < utilisation < 1:
        raise ValueError(f"utilisation is a share between 0 and 1, got {utilisation}")
    if failures < 0:
        raise ValueError(f"failures must be at least 0, got {failures}")
    busy = peak_rate * service / (workers_per_replica * utilisation)
    # 0.6 / 0.6 is 1.0000000000000002 in floats now and then: that is no second replica.
    return math.ceil(round(busy, 9)) + failures


def refuse_unless_positive(**settings: float) -> None:
    """Raise ValueError for the first of the named settings that is not a positive number."""
    for name, value in settings.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be a positive number, got {value}")
