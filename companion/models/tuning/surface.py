"""A landscape of real networks, on which a way of searching is judged in seconds.

To compare samplers fairly takes many seeds, and every seed takes many trained models. So a grid of
small networks was trained once (`landscape`), over learning rate × hidden units × weight decay, and
the average precision of each after every epoch was kept. Between the grid's nodes the surface is
interpolated, linearly in the logarithms.

Such a tabular benchmark (Klein and Hutter, "Tabular Benchmarks for Joint Architecture and
Hyperparameter Optimization", 2019) has a trap: linear interpolation has its peaks *on* the nodes.
A grid search whose levels coincide with them looks better than it is; `offset_grid` draws grids
that lie anywhere.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import optuna
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import RegularGridInterpolator

from companion.models.tuning.objective import Stages
from companion.models.tuning.spaces import Range, Space, suggest
from companion.storage import write_bytes

Floats = NDArray[np.float64]
AXES = ("lr", "hidden", "weight_decay")
FIXTURE = Path(__file__).parents[3] / "fixtures" / "tuning_surface.npz"


@dataclass(frozen=True, eq=False)
class Surface:
    """Average precision of networks at the nodes `lr` × `hidden` × `weight_decay` × epochs.

    `curves` has the shape (learning rates, widths, decays, epochs); `base_rate` is what a model
    that knows nothing reaches. Raises `ValueError` where shapes do not fit or a value is missing.
    """

    lr: Floats
    hidden: Floats
    weight_decay: Floats
    curves: Floats
    base_rate: float

    def __post_init__(self) -> None:
        nodes = tuple(len(axis) for axis in self.axes)
        if self.curves.ndim != 4 or self.curves.shape[:3] != nodes:
            raise ValueError(f"curves have the shape {self.curves.shape}, the nodes {nodes}")
        if not np.isfinite(self.curves).all():
            raise ValueError("curves hold missing or infinite values")

    @classmethod
    def load(cls, path: str | Path = FIXTURE) -> Self:
        """Read what `save` wrote; by default the landscape that comes with the workbook."""
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name].astype(np.float64) for name in stored.files}
        return cls(**{**arrays, "base_rate": float(arrays["base_rate"])})

    def save(self, path: str | Path) -> None:
        """Write it as `.npz`, whole or not at all, in single precision."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            lr=self.lr.astype(np.float32),
            hidden=self.hidden.astype(np.float32),
            weight_decay=self.weight_decay.astype(np.float32),
            curves=self.curves.astype(np.float32),
            base_rate=np.float32(self.base_rate),
        )
        write_bytes(path, buffer.getvalue())

    @property
    def axes(self) -> tuple[Floats, Floats, Floats]:
        """The nodes of each parameter."""
        return self.lr, self.hidden, self.weight_decay

    @cached_property
    def space(self) -> Space:
        """The search space: from the first node of each axis to the last, on log scales."""
        return {
            name: Range(float(axis[0]), float(axis[-1]), log=True, whole=name == "hidden")
            for name, axis in zip(AXES, self.axes, strict=True)
        }

    @property
    def epochs(self) -> int:
        """How long each network was trained."""
        return int(self.curves.shape[-1])

    @property
    def stages(self) -> Stages:
        """When a pruner judges: after a quarter, half and all of the epochs."""
        return Stages("epochs", tuple(max(1, self.epochs // part) for part in (4, 2, 1)))

    @cached_property
    def best(self) -> float:
        """The highest value after the last epoch; an interpolation is nowhere above its nodes."""
        return float(self.curves[..., -1].max())

    @cached_property
    def best_parameters(self) -> dict[str, float]:
        """Where the highest value lies."""
        final = self.curves[..., -1]
        at = np.unravel_index(int(final.argmax()), final.shape)
        return {n: float(axis[i]) for n, axis, i in zip(AXES, self.axes, at, strict=True)}

    def curve(self, lr: ArrayLike, hidden: ArrayLike, weight_decay: ArrayLike) -> Floats:
        """The values after every epoch, shape (…, epochs), for parameters that broadcast.

        Raises `ValueError` outside the landscape.
        """
        points = np.stack(np.broadcast_arrays(*map(np.log, (lr, hidden, weight_decay))), axis=-1)
        low, high = (np.log([axis[i] for axis in self.axes]) for i in (0, -1))
        inside = (points >= low - 1e-6) & (points <= high + 1e-6)
        if not inside.all():
            raise ValueError("these parameters lie outside the landscape")
        values: Floats = self._interpolator(np.clip(points, low, high))
        return values.reshape(*points.shape[:-1], self.epochs)

    def value(self, lr: ArrayLike, hidden: ArrayLike, weight_decay: ArrayLike) -> Any:
        """The value after the last epoch: a float, or an array for arrays."""
        final = self.curve(lr, hidden, weight_decay)[..., -1]
        return float(final) if final.ndim == 0 else final

    def objective(self, trial: optuna.Trial) -> float:
        """What `study.optimize` takes: every trial runs to its end."""
        return float(self.value(**suggest(trial, self.space)))

    def pruned_objective(self, trial: optuna.Trial) -> float:
        """As `objective`, but each epoch is reported, and the study's pruner is asked.

        Raises `optuna.TrialPruned`.
        """
        curve = self.curve(**suggest(trial, self.space))
        for epoch, value in enumerate(curve, start=1):
            trial.report(float(value), epoch)
            if epoch < self.epochs and trial.should_prune():
                raise optuna.TrialPruned
        return float(curve[-1])

    def offset_grid(
        self, levels: Mapping[str, int], rng: np.random.Generator
    ) -> list[dict[str, float]]:
        """A full grid with so many `levels` a parameter, shifted by a random part of a step.

        Levels lie one step apart on the log scale, the first within a step of the lower end.
        """
        axes: list[Sequence[float]] = []
        for name in AXES:
            count = levels[name]
            positions = (np.arange(count) + rng.random()) / count
            axes.append([self.space[name].value_at(float(at)) for at in positions])
        return [dict(zip(AXES, point, strict=True)) for point in itertools.product(*axes)]

    @cached_property
    def _interpolator(self) -> RegularGridInterpolator:
        return RegularGridInterpolator(tuple(map(np.log, self.axes)), self.curves)
