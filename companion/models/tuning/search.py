"""`tune`: search the hyperparameters of a family of models, here or with others on one study.

    tuned = tune("net", transactions, trials=30, seed=7)
    tuned.parameters, tuned.value, tuned.edges
    model = tuned.model().fit(X, y)

With `storage=` the study lives in a database. Start the same call in as many processes as you like:
they share one budget. A study that was interrupted, however hard, goes on when it is called again,
and with one worker it ends as if it had never been interrupted.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState
from sklearn.base import BaseEstimator

from companion.models.tuning.errors import NothingFinishedError, StudyMismatchError
from companion.models.tuning.objective import STAGES, Objective, Stages, TuningData, build_model
from companion.models.tuning.progress import OnProgress
from companion.models.tuning.sampling import SeededTPE, startup_trials
from companion.models.tuning.spaces import Edge, Space, edges, space_of
from companion.models.tuning.stores import HEARTBEAT_SECONDS, open_storage, quietly
from companion.models.tuning.workers import FINISHED, work

ABOUT = "about"
"""The study's attribute that says what it tunes."""


@dataclass(frozen=True, eq=False)
class Tuned:
    """What a search found: the best `parameters`, their `value`, and all that was tried.

    `value` is average precision on the validation rows. It was *chosen* to be high there, so it
    promises too much: measure the model on the test rows. The first `random_trials` were drawn at
    random, the others by TPE. `edges` names parameters whose best value
    lies on the boundary of their range. `spent` is the training done by all finished trials and
    `unpruned` what they would have taken without pruning, both in `stages.unit`.
    """

    family: str
    seed: int
    parameters: Mapping[str, Any]
    value: float
    trials: tuple[FrozenTrial, ...]
    random_trials: int
    study: optuna.Study

    @property
    def space(self) -> Space:
        """Where it was searched."""
        return space_of(self.family)

    @property
    def stages(self) -> Stages:
        """When trials were judged."""
        return STAGES[self.family]

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Best values on the boundary of their range."""
        return edges(self.space, self.parameters)

    @property
    def finished(self) -> tuple[FrozenTrial, ...]:
        """The trials that count: complete or pruned, in order of their numbers."""
        return tuple(trial for trial in self.trials if trial.state in FINISHED)

    @property
    def pruned(self) -> tuple[FrozenTrial, ...]:
        """The trials that were ended early."""
        return tuple(trial for trial in self.trials if trial.state is TrialState.PRUNED)

    @property
    def spent(self) -> int:
        """Trees or epochs trained by the finished trials."""
        return sum(trial.last_step or 0 for trial in self.finished)

    @property
    def unpruned(self) -> int:
        """Trees or epochs that as many trials take when none is pruned."""
        return len(self.finished) * self.stages.full

    def model(self) -> BaseEstimator:
        """The untrained model with the best parameters."""
        return build_model(self.family, self.parameters, seed=self.seed)


def tune(
    family: str,
    data: pd.DataFrame | TuningData,
    *,
    trials: int,
    seed: int,
    storage: str | Path | None = None,
    study_name: str | None = None,
    timeout: float | None = None,
    on_progress: OnProgress | None = None,
    pruner: BasePruner | None = None,
    heartbeat: int = HEARTBEAT_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Tuned:
    """Bring a study of `family` to `trials` finished trials and return what it found.

    Args:
        family: one of `SPACES`: forest, boosting, net.
        data: transactions, which are split by time, or a `TuningData`.
        trials: of the whole study, all workers and earlier calls included; a quarter of them, four
            to ten, are drawn at random, the others by TPE.
        seed: decides draws, weights and trees. The same seed gives the same study in one worker.
        storage: a path or URL of a database that workers share; None keeps the study in memory.
        study_name: of the study in `storage`; by default the family's name.
        timeout: seconds after which no new trial begins.
        on_progress: called before the first and after every trial; see `shown_progress`.
        pruner: by default successive halving at the family's stages.
        heartbeat: whole seconds between signs of life of a running trial, with `storage`.

    Raises:
        UnknownFamilyError: there is no search space for `family`.
        StudyMismatchError: `storage` holds a study of that name with other data or settings.
        NothingFinishedError: `timeout` passed before any trial was complete.
        ValueError: no trials, a negative seed, data that cannot be used (see `TuningData`).
    """
    space, stages = space_of(family), STAGES[family]
    if seed < 0:
        raise ValueError(f"a seed is 0 or more, got {seed}")
    if isinstance(data, pd.DataFrame):
        data = TuningData.from_transactions(data)
    random_trials = startup_trials(trials)
    study = open_study(
        study_name or family,
        storage=storage,
        about={
            "family": family,
            "seed": seed,
            "measure": "average precision",
            "data": data.fingerprint,
            "space": {name: repr(span) for name, span in space.items()},
        },
        sampler=SeededTPE(seed=seed, n_startup_trials=random_trials),
        pruner=pruner or stages.pruner(),
        heartbeat=heartbeat,
    )
    work(
        study,
        Objective(family, data, seed=seed),
        trials=trials,
        timeout=timeout,
        on_progress=on_progress,
        patience=3 * heartbeat,
        clock=clock,
        sleep=sleep,
    )
    return _found(family, seed, random_trials, study)


def open_study(
    name: str,
    *,
    storage: str | Path | None,
    about: Mapping[str, Any],
    sampler: optuna.samplers.BaseSampler,
    pruner: BasePruner,
    heartbeat: int = HEARTBEAT_SECONDS,
) -> optuna.Study:
    """The study `name`, made where there is none; `about` says what it tunes.

    Its value is maximized. Raises `StudyMismatchError` where the stored study is about something
    else, and what `open_storage` raises.
    """
    with quietly():
        study = optuna.create_study(
            study_name=name,
            storage=None if storage is None else open_storage(storage, heartbeat=heartbeat),
            sampler=sampler,
            pruner=pruner,
            direction="maximize",
            load_if_exists=True,
        )
    stored = study.user_attrs.get(ABOUT)
    if stored is None:
        study.set_user_attr(ABOUT, dict(about))
    elif stored != about:
        keys = [key for key in {**stored, **about} if stored.get(key) != about.get(key)]
        differences = {key: (stored.get(key), about.get(key)) for key in keys}
        raise StudyMismatchError(name, differences)
    return study


def _found(family: str, seed: int, random_trials: int, study: optuna.Study) -> Tuned:
    trials = tuple(study.get_trials(deepcopy=False))
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    if not complete:
        counts = Counter(trial.state.name.lower() for trial in trials)
        raise NothingFinishedError(study.study_name, counts)
    best = study.best_trial
    return Tuned(
        family=family,
        seed=seed,
        parameters=dict(best.params),
        value=study.best_value,
        trials=trials,
        random_trials=random_trials,
        study=study,
    )
