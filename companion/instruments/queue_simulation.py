"""A queue in virtual time: arrivals, workers, batches; minutes of traffic in milliseconds.

The formulas of `queueing` need assumptions, a simulation needs none but its own: that rows are
served in order of arrival, and that service times are what it was told. It is a discrete-event
simulation: the clock jumps from one event to the next, so that nothing waits.

A worker that becomes free takes up to `max_batch` rows that wait. If there are fewer, it waits for
more, until the oldest of them has waited `max_delay`. This is how the micro-batcher of the scoring
service decides, and Triton's dynamic batcher.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from companion.instruments.percentiles import percentile
from companion.instruments.queueing import refuse_unless_positive

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LinearService:
    """Seconds for a batch: `fixed`, and `per_row` for each row. What makes batching worth it."""

    fixed: float
    per_row: float = 0.0

    def __call__(self, rows: int) -> float:
        """Seconds that a batch of so many `rows` takes."""
        return self.fixed + self.per_row * rows


@dataclass(frozen=True)
class QueueRun:
    """What happened to each row, in order of arrival; times in seconds from the start.

    `batches` has one entry a batch: how many rows it had. `busy` is the time that all workers
    together spent serving.
    """

    arrivals: Floats
    starts: Floats
    ends: Floats
    batches: NDArray[np.int64]
    busy: float
    workers: int

    @property
    def waits(self) -> Floats:
        """Seconds from arrival to service, a row each."""
        return self.starts - self.arrivals

    @property
    def responses(self) -> Floats:
        """Seconds from arrival to answer, a row each."""
        return self.ends - self.arrivals

    @property
    def seconds(self) -> float:
        """From the first arrival to the last answer."""
        return float(self.ends.max() - self.arrivals[0])

    @property
    def utilisation(self) -> float:
        """The share of the time that a worker was busy."""
        return self.busy / (self.workers * self.seconds)

    @property
    def mean_batch(self) -> float:
        """Rows served together, on average over the batches."""
        return float(self.batches.mean())

    def percentile(self, q: float) -> float:
        """The response in seconds that `q` percent (0 to 100) of the rows did not exceed."""
        return percentile(self.responses, q)

    def in_system(self, times: Sequence[float] | Floats) -> NDArray[np.int64]:
        """How many rows wait or are served at each of `times`."""
        come = np.searchsorted(self.arrivals, times, side="right")
        gone = np.searchsorted(np.sort(self.ends), times, side="right")
        return (come - gone).astype(np.int64)


def simulate_queue(
    arrivals: Sequence[float] | Floats,
    service: Callable[[int], float],
    *,
    workers: int = 1,
    max_batch: int = 1,
    max_delay: float = 0.0,
) -> QueueRun:
    """Serve `arrivals` (seconds, ascending) and say when each began and ended.

    `service(rows)` gives the seconds that a batch takes; it may draw them. `max_delay` in seconds.

    Raises:
        ValueError: no arrivals or unsorted ones, fewer than one worker or row, a negative delay, or
            a service time that is negative.
    """
    refuse_unless_positive(workers=workers, max_batch=max_batch)
    if not max_delay >= 0:
        raise ValueError(f"max_delay must be at least 0 s, got {max_delay}")
    due = np.asarray(arrivals, dtype=np.float64)
    if due.ndim != 1 or not len(due) or not np.isfinite(due).all() or (np.diff(due) < 0).any():
        raise ValueError("arrivals are at least one time in seconds, in ascending order")
    times = due.tolist()
    starts, ends = np.empty(len(due)), np.empty(len(due))
    batches = []
    busy = 0.0
    free = [times[0]] * workers  # when each worker is free, the earliest first
    first = 0
    while first < len(times):
        full = times[first + max_batch - 1] if first + max_batch <= len(times) else np.inf
        start = max(free[0], min(full, times[first] + max_delay))
        last = first + 1
        while last < len(times) and last - first < max_batch and times[last] <= start:
            last += 1
        took = service(last - first)
        if not took >= 0:
            raise ValueError(f"a batch of {last - first} cannot take {took} s")
        heapq.heapreplace(free, start + took)
        starts[first:last], ends[first:last] = start, start + took
        batches.append(last - first)
        busy += took
        first = last
    return QueueRun(due, starts, ends, np.array(batches, dtype=np.int64), busy, workers)
