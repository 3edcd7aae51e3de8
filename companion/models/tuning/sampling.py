"""Which parameters to try next: TPE, reproducible trial by trial.

The Tree-structured Parzen Estimator (Bergstra et al., "Algorithms for Hyper-Parameter
Optimization", NeurIPS 2011) models where good and where bad trials lie, and draws where their
ratio is best. Before it has seen `n_startup_trials` results it draws at random: with Optuna's
default of ten, a study of ten trials is a random search. `startup_trials` therefore leaves most of
the budget to the model.

One generator that runs through a whole study makes a resumed study differ from an uninterrupted
one, and lets parallel workers with one seed draw the same points. `SeededTPE` begins each trial
with randomness of its own, decided by the seed and the number of the trial.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

FEWEST_STARTUP_TRIALS = 4
MOST_STARTUP_TRIALS = 10


def startup_trials(trials: int) -> int:
    """How many of `trials` are drawn at random before TPE has a say: a quarter, four to ten.

    Always fewer than `trials`, one trial excepted. Fewer than four make unlucky searches worse.
    """
    quarter = min(max(trials // 4, FEWEST_STARTUP_TRIALS), MOST_STARTUP_TRIALS)
    return max(1, min(quarter, trials - 1))


class SeededTPE(BaseSampler):
    """TPE over all parameters at once, seeded anew for each trial by `seed` and its number.

    A trial that is running elsewhere counts as a poor one meanwhile (the constant liar), so that
    parallel workers spread out.
    """

    def __init__(self, *, seed: int, n_startup_trials: int) -> None:
        self.seed, self.n_startup_trials = seed, n_startup_trials
        self._tpe = self._seeded(0)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Forget all randomness but that of this trial."""
        self._tpe = self._seeded(trial.number)
        self._tpe.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that are drawn together: those that all trials so far share."""
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values for all of `search_space`, from the model or, at the start, none."""
        return self._tpe.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A value for one parameter by itself: how the random trials at the start are drawn."""
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Pass on that a trial ended."""
        self._tpe.after_trial(study, trial, state, values)

    def _seeded(self, number: int) -> TPESampler:
        (state,) = np.random.SeedSequence([self.seed, number]).generate_state(1)
        return TPESampler(
            seed=int(state),
            n_startup_trials=self.n_startup_trials,
            multivariate=True,
            constant_liar=True,
        )
