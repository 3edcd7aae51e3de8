"""When do rows that wait for a free model leave together?

Holding a row back pays only if others join it. The classical rule (Triton's
`max_queue_delay_microseconds`) holds the first row for a fixed time whenever the batch is not full,
so a lone request pays the whole delay for nothing; and under load, where a call takes longer than
the delay, it holds nobody: callers settle into two groups, each waiting while the other is served.

The adaptive rule asks how much *company* there was when the model became free: the rows that it had
just answered and those that waited already. As many are waited for, no more, and no longer than the
delay. Whoever is alone goes at once; sixty-four callers who ask again when they are answered leave
as sixty-four. The rule is wrong once when the load changes, by `max_delay` at most.

Either way rows also gather, at no cost, while the model is busy with those before them.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Gathering:
    """Rows leave when `max_batch` wait, or when they have been held back for `max_delay` seconds.

    `adaptive` lets them leave as soon as the expected company is there, and counts the delay only
    while the model is free: who waits for a busy model is not held back by anybody. Otherwise the
    delay runs from when the first row came, whatever the model does. Later rows restart it in
    neither case.

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

    def leave_at(self, waiting: int, first_came: float, company: int, freed_at: float) -> float:
        """When the `waiting` rows of a free model leave if no more come; a time past means *now*.

        `first_came` and `freed_at` (when the model became free; minus infinity: it always was) are
        seconds of one clock. `company` rows had just been answered or waited at `freed_at`; if that
        is longer ago than the delay, they would have been back by now, and nobody is expected.
        """
        if not self.adaptive:
            return first_came if waiting >= self.max_batch else first_came + self.max_delay
        is_recent = first_came - freed_at <= self.max_delay
        expected = min(company, self.max_batch) if is_recent else 1
        held_since = max(first_came, freed_at)
        return held_since if waiting >= expected else held_since + self.max_delay
