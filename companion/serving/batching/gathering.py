"""When do rows that wait for a free model leave together?

Holding a row back pays only if others join it. The classical rule (Triton's
`max_queue_delay_microseconds`) holds the first row for a fixed time whenever the batch is not full,
so a lone request pays the whole delay for nothing. The adaptive rule asks how many rows came
together last: as many as that are waited for, no more. Whoever comes alone goes at once; sixty-four
callers who ask again when they are answered are waited for as sixty-four. It is wrong once when the
load changes, by `max_delay` at most, and right afterwards.

Either way rows also gather, at no cost, while the model is busy with those before them.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Gathering:
    """Rows leave when `max_batch` wait, or `max_delay` seconds after the first of them came.

    `adaptive` lets them leave earlier, when as many wait as the last batch held. A last batch that
    ended more than `max_delay` ago says nothing: its callers would have been back by now.

    Raises:
        ValueError: `max_batch` below 1, or `max_delay` negative or not finite.
    """

    max_batch: int = 64
    max_delay: float = 0.005
    adaptive: bool = True

    def __post_init__(self) -> None:
        if self.max_batch < 1:
            raise ValueError(f"a batch holds at least 1 row, got max_batch={self.max_batch}")
        if not 0 <= self.max_delay < math.inf:
            raise ValueError(f"a delay is finite and not negative, got max_delay={self.max_delay}")

    def leave_at(self, waiting: int, first_came: float, last_size: int, last_ended: float) -> float:
        """When the `waiting` rows leave a free model's queue if no more come; the past is *now*.

        `first_came` and `last_ended` are seconds of one clock, `last_size` the rows of the last
        batch (0 and minus infinity before there was one).
        """
        if waiting >= self._worth_waiting_for(first_came, last_size, last_ended):
            return first_came
        return first_came + self.max_delay

    def _worth_waiting_for(self, first_came: float, last_size: int, last_ended: float) -> int:
        if not self.adaptive:
            return self.max_batch
        is_recent = first_came - last_ended <= self.max_delay
        return min(last_size, self.max_batch) if is_recent else 1
