"""How a search compares with others at equal budget, and what pruning saves, over many seeds.

On the landscape of real networks that comes with the workbook. Values are the best average
precision found, as the share of the landscape's best: the median over seeds, and the worst.
Ratios: to random search with as many trials.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
import optuna
from optuna.pruners import NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from companion.instruments.benchmark import Row
from companion.models.tuning import SeededTPE, Surface, quietly, startup_trials

TITLE = "Tuning"

_SEEDS = range(20)
_BUDGETS = (10, 20, 40)
_GRIDS = {8: (2, 2, 2), 27: (3, 3, 3), 64: (4, 4, 4), 125: (5, 5, 5)}
_TARGETS = {
    (10, "TPE, Optuna's defaults"): "exactly random: ten start-up trials",
    (40, "TPE, a quarter random"): "above 1 × random",
}


def run() -> list[Row]:
    surface = Surface.load()
    with quietly():
        return [*_samplers(surface), *_grids(surface), *_pruning(surface)]


def _samplers(surface: Surface) -> list[Row]:
    rows = []
    for budget in _BUDGETS:
        makers: dict[str, Callable[[int], BaseSampler]] = {
            "random": lambda seed: RandomSampler(seed=seed),
            "TPE, Optuna's defaults": lambda seed: TPESampler(seed=seed),
            "TPE, a quarter random": _quarter_random(budget),
        }
        found = {
            name: [_best(surface, make(seed), budget) for seed in _SEEDS]
            for name, make in makers.items()
        }
        base = statistics.median(found["random"])
        for name, values in found.items():
            middle = statistics.median(values)
            target = _TARGETS.get((budget, name), "")
            rows.append(
                Row(f"{budget} trials, median", name, middle, "of best", middle / base, target)
            )
            rows.append(Row(f"{budget} trials, worst", name, min(values), "of best"))
    return rows


def _grids(surface: Surface) -> list[Row]:
    rows = []
    for trials, levels in _GRIDS.items():
        counts = dict(zip(surface.space, levels, strict=True))
        grids, randoms = [], []
        for seed in _SEEDS:
            points = surface.offset_grid(counts, np.random.default_rng(seed))
            grids.append(max(surface.value(**point) for point in points) / surface.best)
            randoms.append(_best(surface, RandomSampler(seed=seed), trials))
        middle, base = statistics.median(grids), statistics.median(randoms)
        what = f"{trials} trials, median"
        rows.append(Row(what, "grid, randomly offset", middle, "of best", middle / base))
    return rows


def _pruning(surface: Surface, trials: int = 40) -> list[Row]:
    rows = []
    for name, make in {
        "no pruning": NopPruner,
        "successive halving": surface.stages.pruner,
    }.items():
        values, epochs = [], []
        for seed in _SEEDS:
            sampler = SeededTPE(seed=seed, n_startup_trials=startup_trials(trials))
            study = optuna.create_study(direction="maximize", sampler=sampler, pruner=make())
            study.optimize(surface.pruned_objective, n_trials=trials)
            values.append(study.best_value / surface.best)
            epochs.append(sum(trial.last_step or 0 for trial in study.trials))
        share = statistics.mean(epochs) / (trials * surface.epochs)
        target = "below 0.7 × no pruning" if share < 1 else ""
        rows.append(
            Row(f"{trials} trials, epochs", name, statistics.mean(epochs), "epochs", share, target)
        )
        rows.append(Row(f"{trials} trials, best", name, statistics.median(values), "of best"))
    return rows


def _quarter_random(trials: int) -> Callable[[int], BaseSampler]:
    return lambda seed: SeededTPE(seed=seed, n_startup_trials=startup_trials(trials))


def _best(surface: Surface, sampler: BaseSampler, trials: int) -> float:
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(surface.objective, n_trials=trials)
    return study.best_value / surface.best
