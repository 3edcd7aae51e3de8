"""One worker of a study: take a trial, run it, until the study has what it was asked for.

The budget belongs to the study. Any number of workers, in any number of processes, may work on it,
leave, be killed, and come back; together they bring it to `trials` finished ones (complete or
pruned), no more and no fewer:

- A worker takes a trial while fewer than `trials` are finished, running or waiting. Two that do so
  at the same moment get different numbers, and the one whose number is too high gives its trial up.
- A trial whose worker was killed has no heartbeat any more. The next worker fails it and puts its
  parameters back into the queue (`stores.open_storage`).
- A worker that finds nothing to take waits while others are at work, since one of them may die.

A worker that dies after it got a trial and before the first heartbeat leaves one that nobody would
ever fail, with its first parameters or without any. So a worker that has waited for such a trial as
long as for a heartbeat fails it, and another trial takes its place.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import optuna
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from companion.models.tuning.errors import NoFiniteValueError
from companion.models.tuning.progress import OnProgress, Progress
from companion.models.tuning.stores import numbers_with_heartbeat, quietly

ALIVE = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.WAITING)
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
_POLL_SECONDS = 0.5


class _SurplusTrialError(Exception):
    """Another worker took the last trial of the budget at the same moment."""


@dataclass(frozen=True)
class Standing:
    """How many trials of a study are in which state, and its best value so far."""

    counts: Counter[TrialState]
    best: float | None

    @classmethod
    def of(cls, study: optuna.Study) -> Self:
        """Look at `study` now."""
        trials = study.get_trials(deepcopy=False)
        complete = [
            t.value for t in trials if t.state is TrialState.COMPLETE and t.value is not None
        ]
        choose = max if study.direction is optuna.study.StudyDirection.MAXIMIZE else min
        return cls(Counter(t.state for t in trials), choose(complete) if complete else None)

    @property
    def finished(self) -> int:
        """Complete or pruned: what counts towards the budget."""
        return sum(self.counts[state] for state in FINISHED)

    @property
    def alive(self) -> int:
        """Finished, or going to be."""
        return sum(self.counts[state] for state in ALIVE)

    def progress(self, trials: int) -> Progress:
        """What a person waiting for `trials` wants to know."""
        return Progress(self.finished, trials, self.counts[TrialState.PRUNED], self.best)


def work(
    study: optuna.Study,
    objective: Callable[[optuna.Trial], float],
    *,
    trials: int,
    timeout: float | None = None,
    on_progress: OnProgress | None = None,
    patience: float = 30.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Work on `study` until it has `trials` finished trials, or `timeout` seconds have passed.

    A trial that has begun is finished in any case. `patience` is for how many seconds a trial
    without parameters, or without a heartbeat, may stand still before it counts as lost.

    Raises `ValueError` for less than one trial, `NoFiniteValueError` for an objective that returns
    no finite number, and whatever else the objective raises; the study stays readable, and calling
    this again goes on with it.
    """
    if trials < 1:
        raise ValueError(f"a study needs at least one trial, got {trials}")
    deadline = math.inf if timeout is None else clock() + timeout
    tell = on_progress or (lambda progress: None)
    lost = _Lost(study, patience, clock)
    guarded = _guarded(study, objective, trials)
    with quietly():
        while True:
            standing = Standing.of(study)
            tell(standing.progress(trials))
            if standing.finished >= trials or clock() >= deadline:
                return
            if standing.alive < trials or standing.counts[TrialState.WAITING]:
                study.optimize(guarded, n_trials=1, catch=(_SurplusTrialError,))
            else:
                sleep(_POLL_SECONDS)
                fail_stale_trials(study)
                lost.fail()


def _guarded(
    study: optuna.Study, objective: Callable[[optuna.Trial], float], trials: int
) -> Callable[[optuna.Trial], float]:
    def run(trial: optuna.Trial) -> float:
        before = [
            t for t in study.get_trials(deepcopy=False, states=ALIVE) if t.number < trial.number
        ]
        if len(before) >= trials:
            trial.set_user_attr("surplus", True)
            raise _SurplusTrialError
        value = objective(trial)
        if not math.isfinite(value):
            raise NoFiniteValueError(trial.number, value, trial.params)
        return value

    return run


class _Lost:
    """Running trials without a sign of life, and since when this worker has seen them so."""

    def __init__(self, study: optuna.Study, patience: float, clock: Callable[[], float]) -> None:
        self._study, self._patience, self._clock = study, patience, clock
        self._seen: dict[int, float] = {}

    def fail(self) -> None:
        """Fail those that have stood still for too long."""
        now = self._clock()
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        beating = numbers_with_heartbeat(self._study)
        lifeless = {
            trial.number
            for trial in running
            if _is_blank(trial) or (beating is not None and trial.number not in beating)
        }
        self._seen = {number: self._seen.get(number, now) for number in lifeless}
        for number, since in self._seen.items():
            if now - since >= self._patience:
                with contextlib.suppress(ValueError):  # another worker was faster
                    self._study.tell(number, state=TrialState.FAIL)


def _is_blank(trial: FrozenTrial) -> bool:
    return not trial.params and not trial.intermediate_values
