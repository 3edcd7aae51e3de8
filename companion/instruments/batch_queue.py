"""The queue in front of a server that takes several rows at a time, predicted without simulating.

What a worker leaves behind when it finishes a batch depends only on what was left behind the time
before and on who arrived meanwhile: Kendall's embedded Markov chain (1953), which Bailey (1954, "On
queueing processes with bulk service") solved for servers that take up to so many at once. With
service times that depend on the batch alone, arrivals during it are Poisson; the chain then is a
matrix of a few hundred states, and its long run the solution of a linear system.

Exact for one worker that never waits for company (`max_delay` 0). Otherwise close, the response
within about a fifth: the age of the oldest row that is left behind is taken at its mean, and
several workers are taken for one that is as fast as all of them together, with Erlang's chance to
find them busy, and finishing not in turn but at random.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from companion.instruments.queue_simulation import LinearService
from companion.instruments.queueing import (
    OverloadedError,
    SteadyState,
    erlang_c,
    refuse_unless_positive,
)

Floats = NDArray[np.float64]

_MOST_STATES = 2000
_TAIL = 14.0  # e^-14: one row in a million finds a longer queue than the chain has states for


@dataclass(frozen=True)
class BatchPrediction(SteadyState):
    """A steady state of rows served in batches, of `batch` rows on average.

    `wait` includes waiting for company; `service` is that of the batch that a row finds itself in.
    """

    batch: float


def predict_batched(
    rate: float,
    service: LinearService,
    workers: int = 1,
    *,
    max_batch: int = 1,
    max_delay: float = 0.0,
) -> BatchPrediction:
    """What `simulate_queue` settles to with these settings, for Poisson arrivals at `rate`/s.

    Close to the capacity (above 99.5 % of it) the wait is understated, since the chain has an end.

    Raises:
        OverloadedError: full batches on all workers cannot keep up.
        ValueError: a rate or count that is not positive, a service that takes no time, or a
            negative delay.
    """
    refuse_unless_positive(
        rate=rate, workers=workers, max_batch=max_batch, **{"service of one row": service(1)}
    )
    if not max_delay >= 0:
        raise ValueError(f"max_delay must be at least 0 s, got {max_delay}")
    longest = service(max_batch)
    if rate * longest >= workers * max_batch:
        raise OverloadedError(rate, workers * max_batch / longest)
    chain = _Chain(rate, service, workers, max_batch, max_delay)
    left = chain.long_run()
    begun = left @ chain.filling
    seconds = left @ chain.idle + left @ chain.filling_seconds + begun @ chain.seconds
    rows = begun @ chain.batch
    busy = float(begun @ chain.seconds / seconds)
    while_filling = float(left @ chain.filling_queue / seconds)
    while_serving = float(begun @ chain.serving_queue / seconds)
    # A busy worker may be all that one waits for, but with several all have to be busy.
    in_queue = while_filling + while_serving * erlang_c(workers, workers * busy) / busy
    return BatchPrediction(
        rate,
        float(begun @ (chain.batch * chain.seconds) / rows) * workers,
        in_queue / rate,
        busy,
        float(rows),
    )


class _Chain:
    """From rows left behind (n) over rows when service begins (m) to rows left behind again.

    `filling[n, m]` and `serving[m, n]` are transition probabilities. The rest are expectations:
    `idle` seconds until there is a row at all, `filling_seconds` waiting for company, `seconds` of
    service, and the two areas under the queue (row-seconds) meanwhile.
    """

    def __init__(
        self, rate: float, service: LinearService, workers: int, most: int, delay: float
    ) -> None:
        states = _states(rate, service(most) / workers, most)
        count = np.arange(states + 1)
        self.batch = np.clip(count, 1, most)
        self.seconds = (service.fixed + service.per_row * self.batch) / workers
        kept = np.maximum(count - most, 0)
        # In turn, workers would be free every seconds / workers and new rows wait half of that. At
        # random moments, the next of n is free after 1 / (n + 1) of its service, on average.
        at_random = 2 * workers / (workers + 1) if most > 1 else 1.0
        self.serving_queue = self.seconds * (kept + at_random * rate * self.seconds / 2)
        self.serving = np.zeros((states + 1, states + 1))
        for begun in range(1, states + 1):
            arrived = _poisson(rate * self.seconds[begun], states - kept[begun])
            self.serving[begun, kept[begun] :] = arrived
        self.idle = np.where(count == 0, 1 / rate, 0.0)
        self.filling = np.eye(states + 1)
        self.filling_seconds = np.zeros(states + 1)
        self.filling_queue = np.zeros(states + 1)
        self.filling[0] = np.eye(states + 1)[1]
        if delay and most > 1:
            for left in range(most):
                self._fill(left, most, rate, self._patience(left, delay))

    def _patience(self, left: int, delay: float) -> float:
        """How much longer the oldest of `left` rows may wait; the first to come may all of it."""
        if left == 0:
            return delay
        # Of n that came at random during a service, the first came, on average, 1/(n + 1) into it.
        return max(0.0, delay - float(self.seconds[-1]) * left / (left + 1))

    def _fill(self, left: int, most: int, rate: float, patience: float) -> None:
        here = max(left, 1)
        room = most - here
        arrived = _poisson(rate * patience, room)
        self.filling[left] = 0.0
        self.filling[left, here : most + 1] = arrived
        # Time with exactly j arrivals so far, before patience or room ends: P(more than j) / rate.
        spent = (1 - np.cumsum(arrived)[:room]) / rate
        self.filling_seconds[left] = spent.sum()
        self.filling_queue[left] = (spent * (here + np.arange(room))).sum()

    def long_run(self) -> Floats:
        """The share of batches that leave 0, 1, 2, … rows behind."""
        step = self.filling @ self.serving
        balance = step.T - np.eye(len(step))
        balance[-1] = 1.0  # one equation follows from the others; instead: shares sum to 1
        wanted = np.zeros(len(step))
        wanted[-1] = 1.0
        return np.asarray(np.linalg.solve(balance, wanted), dtype=np.float64)


def _states(rate: float, longest: float, most: int) -> int:
    """How many rows the chain must be able to hold: in heavy traffic queues fall exponentially."""
    arrived = rate * longest
    room = most - arrived
    tail = _TAIL * arrived / (2 * room)
    return min(_MOST_STATES, math.ceil(2 * most + arrived + 6 * math.sqrt(arrived) + tail + 10))


def _poisson(mean: float, most: int) -> Floats:
    """Probabilities of 0 … `most` arrivals; the last stands for all that are more."""
    count = np.arange(most + 1)
    logs = np.cumsum(np.log(np.maximum(count, 1)))
    # A mean of nothing would have no logarithm; any smaller one gives the same chances.
    mean = max(mean, 1e-300)
    chances = np.asarray(np.exp(count * math.log(mean) - mean - logs), dtype=np.float64)
    chances[-1] = max(0.0, 1 - chances[:-1].sum())
    return chances
