"""Four figures about a finished search; each comes with the words for those who cannot see it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.importance import get_param_importances
from optuna.trial import FrozenTrial, TrialState, create_trial

from companion.instruments import plots
from companion.models.tuning.search import Tuned
from companion.models.tuning.stores import quietly

MEASURE = "average precision"
ENOUGH_COMPLETE = 10
"""Complete trials from which importances are computed; with fewer, all trials' first stage is."""


@dataclass(frozen=True)
class Importance:
    """The share of each parameter in what made values differ; `basis` says in which values."""

    shares: dict[str, float]
    basis: str


def best_so_far(tuned: Tuned) -> tuple[Figure, str]:
    """The best value after each finished trial, pruned ones marked, random ones shaded."""
    fig, ax = plots.figure(width=9, height=4)
    finished = tuned.finished
    complete = [trial.state is TrialState.COMPLETE for trial in finished]
    best = np.fmax.accumulate(
        [_value(t) if c else math.nan for t, c in zip(finished, complete, strict=True)]
    )
    number = np.arange(1, len(finished) + 1)
    random = tuned.random_trials
    ax.axvspan(0.5, random + 0.5, color="#eeeeee", zorder=0)
    ax.text(0.7, 0.02, "drawn at random", transform=ax.get_xaxis_transform(), color=plots.INK)
    for shown, marker, colour, label in (
        (True, "o", plots.OURS, "complete"),
        (False, "x", plots.MUTED, "pruned"),
    ):
        at = [i for i, c in enumerate(complete) if c is shown]
        values = [_value(finished[i]) for i in at]
        ax.plot(number[at], values, marker, color=colour, label=label, linestyle="none")
    ax.step(number, best, where="post", color=plots.OURS)
    ax.set(xlabel="finished trials", ylabel=MEASURE, xlim=(0.5, len(finished) + 0.5))
    ax.legend(loc="lower right")
    alt = (
        f"Best {MEASURE} so far over {len(finished)} trials, {len(tuned.pruned)} of them pruned; "
        f"it ends at {tuned.value:.3f}."
    )
    return fig, alt


def slices(tuned: Tuned) -> tuple[Figure, str]:
    """The value of every trial over each parameter, on the scale that was searched."""
    columns = 3
    rows = math.ceil(len(tuned.space) / columns)
    fig, axes = plots.panels(rows, columns, width=11, height=3.2 * rows, share_y=True)
    for ax, (name, span) in zip(axes, tuned.space.items(), strict=False):
        for state, marker, colour in (
            (TrialState.PRUNED, "x", plots.MUTED),
            (TrialState.COMPLETE, "o", plots.OURS),
        ):
            trials = [t for t in tuned.finished if t.state is state and name in t.params]
            ax.plot(
                [t.params[name] for t in trials],
                [_value(t) for t in trials],
                marker,
                color=colour,
                linestyle="none",
            )
        ax.axvline(tuned.parameters[name], color=plots.GOOD, linestyle="--", linewidth=1.5)
        if span.log:
            ax.set_xscale("log")
        ax.set(xlabel=name, xlim=(span.low, span.high))
    for ax in axes[len(tuned.space) :]:
        ax.set_visible(False)
    axes[0].set_ylabel(MEASURE)
    best = ", ".join(f"{name} {value:.3g}" for name, value in tuned.parameters.items())
    return fig, f"Value of every trial over each parameter; dashed lines mark the best: {best}."


def stages(tuned: Tuned) -> tuple[Figure, str]:
    """How the value of each trial grew with its training, and where pruned ones ended."""
    fig, ax = plots.figure(width=9, height=4)
    for trial in tuned.finished:
        steps = sorted(trial.intermediate_values)
        values = [trial.intermediate_values[step] for step in steps]
        pruned = trial.state is TrialState.PRUNED
        _curve(ax, steps, values, pruned=pruned)
    for stage in tuned.stages.judged_at[:-1]:
        ax.axvline(stage, color="#cccccc", linewidth=1, linestyle=":", zorder=0)
    ax.set(xlabel=f"{tuned.stages.unit} trained", ylabel=MEASURE)
    saved = 1 - tuned.spent / tuned.unpruned
    alt = (
        f"{MEASURE} over {tuned.stages.unit} for each trial; pruned trials end early, which saved "
        f"{saved:.0%} of the {tuned.stages.unit}."
    )
    return fig, alt[0].upper() + alt[1:]


def importance(tuned: Tuned) -> Importance:
    """How much each parameter decides, by PED-ANOVA (Watanabe et al., IJCAI 2023).

    Of complete trials where there are enough. Otherwise all finished trials are compared after the
    first stage, which every one of them reached, and which favours what learns fast.
    """
    complete = [trial for trial in tuned.trials if trial.state is TrialState.COMPLETE]
    if len(complete) >= ENOUGH_COMPLETE:
        judged = [(trial, trial.value) for trial in complete]
        basis = f"{len(judged)} complete trials"
    else:
        first = tuned.stages.judged_at[0]
        judged = [(t, t.intermediate_values.get(first)) for t in tuned.finished]
        judged = [(t, value) for t, value in judged if value is not None]
        basis = f"{len(judged)} trials after {first} {tuned.stages.unit}"
    with quietly():
        beside = optuna.create_study(direction="maximize")
        beside.add_trials(
            [
                create_trial(value=value, params=trial.params, distributions=trial.distributions)
                for trial, value in judged
            ]
        )
        if len({value for _, value in judged}) < 2:
            return Importance(dict.fromkeys(tuned.space, 0.0), basis)
        return Importance(get_param_importances(beside), basis)


def importances(tuned: Tuned) -> tuple[Figure, str]:
    """Bars of `importance`."""
    found = importance(tuned)
    fig, ax = plots.figure(width=9, height=1.2 + 0.45 * len(found.shares))
    first = max(found.shares, key=lambda name: found.shares[name])
    label = f"importance ({found.basis})"
    plots.bars(ax, found.shares, label=label, highlight=[first], form="{:.2f}")
    shares = ", ".join(f"{name} {share:.2f}" for name, share in found.shares.items())
    return fig, f"Importance of the parameters, from {found.basis}: {shares}."


def _curve(ax: Axes, steps: list[int], values: list[float], *, pruned: bool) -> None:
    if pruned:
        ax.plot(steps, values, color=plots.MUTED, linewidth=1, linestyle="-", alpha=0.7)
        ax.plot(steps[-1:], values[-1:], "x", color=plots.MUTED)
        return
    ax.plot(steps, values, color=plots.OURS, linewidth=1.8, linestyle="-")
    ax.plot(steps[-1:], values[-1:], "o", color=plots.OURS)


def _value(trial: FrozenTrial) -> float:
    """What a trial is worth: its value, or the last that it reported before it was pruned."""
    if trial.state is TrialState.COMPLETE and trial.value is not None:
        return trial.value
    return trial.intermediate_values[trial.last_step] if trial.last_step else math.nan
