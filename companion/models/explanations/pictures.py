"""Explanations as figures: one row as a waterfall, many as a swarm, as bars, or by cohort.

The forms are those that Lundberg and others made common; the drawing is ours, for two reasons.
shap's own functions draw into pyplot's *current* figure, which belongs to the whole process: two
requests at a time draw into each other's pictures. And a bar without a unit says little: a step of
0.1 is 10 points of probability or a tenth of a log-odds, so every axis here names it.

Each function gives a `Drawn`: a figure that belongs to nobody else, and words for those who cannot
see it, in the order that `plots.show` and `plots.render` take: `show(*waterfall(explanation))`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from companion.instruments import plots
from companion.models.explanations.explanation import Explanation, Floats, Unit
from companion.models.explanations.words import by_subject, effect_in_words, observed

_RAISES, _LOWERS = plots.BAD, plots.OURS
_SWARM_ROWS = 2000
_SWARM_BINS = 120
_SWARM_HEIGHT = 0.38  # of the distance between two features, each way


class Drawn(NamedTuple):
    """A figure and its words."""

    figure: Figure
    alt: str


def axis_label(unit: Unit) -> str:
    """What an axis of scores measures."""
    return "probability of fraud" if unit == "probability" else "log-odds of fraud"


def waterfall(
    explanation: Explanation,
    row: int = 0,
    *,
    top: int = 8,
    context: Mapping[str, str] | None = None,
    width: float = 9.0,
) -> Drawn:
    """From the base to the score of one row: a bar for each of the `top` strongest, then the rest.

    Bars to the right raise the score and are hatched too; `context` is that of `reasons`.
    """
    one = explanation[row]
    own = context or {}
    subjects, effects = by_subject(one)
    order = np.argsort(-np.abs(effects[0]), kind="stable")
    shown = [
        (
            own.get(subjects[s]) or observed(one.names, one.data[0], subjects[s]),
            float(effects[0, s]),
        )
        for s in order[:top]
    ]
    rest = order[top:]
    if rest.size:
        shown.append((f"{rest.size} others", float(effects[0, rest].sum())))

    fig, ax = plots.figure(width=width, height=1.6 + 0.42 * len(shown))
    start = one.base
    for place, (_, effect) in enumerate(shown):
        _step(ax, place, start, effect, one.unit)
        start += effect
    ax.axvline(one.base, color=plots.MUTED, linestyle=":", linewidth=1.2)
    ax.axvline(start, color=plots.INK, linewidth=1.2)
    ax.set_yticks(range(len(shown)), [words for words, _ in shown])
    ax.set_ylim(len(shown) - 0.4, -1.1)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.set_xlim(*_room(ax.dataLim.x0, ax.dataLim.x1))
    ax.locator_params(axis="x", nbins=6)
    ax.set_xlabel(axis_label(one.unit))
    rises = start >= one.base
    ends = ((one.base, "average", rises), (start, "this one", not rises))
    for score, name, left in ends:
        text = f" {name} {_score(score, one.unit)} "
        ax.text(score, -0.72, text, ha="right" if left else "left", va="center")
    steps = "; ".join(f"{words} {_signed(effect, one.unit)}" for words, effect in shown)
    alt = (
        f"Waterfall in {axis_label(one.unit)} from {_score(one.base, one.unit)} on average to "
        f"{_score(start, one.unit)} for this transaction: {steps}."
    )
    return Drawn(fig, alt)


def beeswarm(explanation: Explanation, *, top: int = 10, width: float = 9.0) -> Drawn:
    """A dot for each row and feature: how much it moved the score, its colour how large it was.

    Features are ordered by mean |contribution|. Of more than 2,000 rows, evenly spaced ones are
    drawn.
    """
    drawn = explanation[:: max(1, -(-len(explanation) // _SWARM_ROWS))]
    order = np.argsort(-explanation.importance, kind="stable")[:top]
    fig, ax = plots.figure(width=width, height=1.5 + 0.45 * len(order))
    colours = colormaps["cividis"]
    for place, feature in enumerate(order):
        effects, size = drawn.values[:, feature], _relative(drawn.data[:, feature])
        ax.scatter(
            effects,
            place + _spread(effects),
            c=size,
            cmap=colours,
            vmin=0,
            vmax=1,
            s=9,
            linewidths=0,
            rasterized=True,
        )
    ax.axvline(0, color=plots.MUTED, linewidth=1.0)
    ax.set_yticks(range(len(order)), [explanation.names[feature] for feature in order])
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel(f"contribution ({axis_label(explanation.unit)})")
    bar = fig.colorbar(ScalarMappable(Normalize(0, 1), colours), ax=ax, aspect=40, pad=0.02)
    bar.set_ticks([0, 1], labels=["low", "high"])
    bar.set_label("value of the feature, by rank")
    bar.outline.set_visible(False)
    alt = (
        f"Swarm of {len(drawn):,} transactions for {len(order)} features, the strongest on top: "
        f"{', '.join(explanation.names[feature] for feature in order[:3])}. The first moves the "
        f"score by {explanation.importance[order[0]]:.3g} on average "
        f"({axis_label(explanation.unit)})."
    )
    return Drawn(fig, alt)


def bar(explanation: Explanation, *, top: int = 10, width: float = 8.0) -> Drawn:
    """The mean |contribution| of each feature over all rows, strongest first."""
    order = np.argsort(-explanation.importance, kind="stable")[:top]
    means = {explanation.names[f]: float(explanation.importance[f]) for f in order}
    fig, ax = plots.figure(width=width, height=1.2 + 0.42 * len(means))
    plots.bars(ax, means, label=_mean_label(explanation.unit), highlight=means)
    told = ", ".join(f"{name} {mean:.3g}" for name, mean in list(means.items())[:3])
    alt = f"Bars of the {_mean_label(explanation.unit)} for {len(means)} features: {told} …"
    return Drawn(fig, alt)


def cohorts(
    explanation: Explanation, cohort: ArrayLike, *, top: int = 6, width: float = 9.0
) -> Drawn:
    """The mean |contribution| of each feature within each cohort; `cohort` (rows) names them.

    Raises `ValueError` where `cohort` has another length, or names more than five.
    """
    names = np.asarray(cohort).astype(str)
    if names.shape != (len(explanation),):
        raise ValueError(f"cohort has the shape {names.shape}, not one name for each row")
    groups = sorted(set(names.tolist()))
    if len(groups) > len(plots.PALETTE) - 2:
        raise ValueError(f"{len(groups)} cohorts cannot be told apart; at most 5 are drawn")
    means = {group: explanation[names == group].importance for group in groups}
    order = np.argsort(-np.max(list(means.values()), axis=0), kind="stable")[:top]

    fig, ax = plots.figure(width=width, height=1.4 + 0.3 * len(order) * (1 + 0.55 * len(groups)))
    height = 0.8 / len(groups)
    styles = zip(groups, plots.PALETTE.values(), plots.HATCHES, strict=False)
    for number, (group, colour, hatch) in enumerate(styles):
        ax.barh(
            np.arange(len(order)) + (number - (len(groups) - 1) / 2) * height,
            means[group][order],
            height=height * 0.9,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            label=f"{group} ({int((names == group).sum()):,} rows)",
        )
    ax.set_yticks(range(len(order)), [explanation.names[feature] for feature in order])
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel(_mean_label(explanation.unit))
    ax.legend(loc="lower right")
    told = "; ".join(
        f"{group}: {explanation.names[int(mean.argmax())]} {mean.max():.3g}"
        for group, mean in means.items()
    )
    alt = (
        f"Bars of the {_mean_label(explanation.unit)} for {len(order)} features in "
        f"{len(groups)} cohorts. Strongest in each: {told}."
    )
    return Drawn(fig, alt)


def _step(ax: Axes, place: int, start: float, effect: float, unit: Unit) -> None:
    raises = effect > 0
    ax.barh(
        place,
        effect,
        left=start,
        height=0.62,
        color=_RAISES if raises else _LOWERS,
        hatch="///" if raises else "",
        edgecolor="white",
    )
    ax.annotate(
        _signed(effect, unit),
        (start + effect, place),
        xytext=(6 if raises else -6, 0),
        textcoords="offset points",
        ha="left" if raises else "right",
        va="center",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
    )


def _signed(effect: float, unit: Unit) -> str:
    return (
        effect_in_words(effect, unit)
        if unit == "probability"
        else f"{effect:+.2f}".replace("-", "−")
    )


def _score(score: float, unit: Unit) -> str:
    if unit == "probability":
        return f"{score * 100:.1f} %"
    return f"{score:.2f} ({100 / (1 + np.exp(-score)):.1f} %)".replace("-", "−")


def _room(low: float, high: float) -> tuple[float, float]:
    """Limits that leave room for what is written beside the outermost bars."""
    beside = 0.22 * max(high - low, 1e-9)
    return low - beside, high + beside


def _mean_label(unit: Unit) -> str:
    return f"mean |contribution| ({axis_label(unit)})"


def _relative(values: Floats) -> Floats:
    """Place among the distinct values, 0 to 1, so that one outlier does not take all the colour."""
    distinct, place = np.unique(values, return_inverse=True)
    relative: Floats = place / max(1, len(distinct) - 1)
    return relative


def _spread(effects: Floats) -> Floats:
    """How far up or down each dot stands so that dots of about equal effect lie side by side."""
    low, high = float(effects.min()), float(effects.max())
    if low == high:
        bins = np.zeros(len(effects), dtype=int)
    else:
        bins = np.minimum((effects - low) / (high - low) * _SWARM_BINS, _SWARM_BINS - 1).astype(int)
    _, place, counts = np.unique(bins, return_inverse=True, return_counts=True)
    order = np.argsort(place, kind="stable")
    within = np.empty(len(effects))
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    within[order] = np.arange(len(effects)) - first[place[order]]
    side = np.where(within % 2 == 0, 1.0, -1.0) * np.ceil(within / 2)
    spread: Floats = side / max(1.0, float(counts.max()) / 2) * _SWARM_HEIGHT
    return spread
