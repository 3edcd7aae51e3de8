"""The two pictures of a report: how the scores are distributed, and how many alerts a day gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from numpy.typing import NDArray

from companion.instruments import plots
from companion.transactions import LABEL

if TYPE_CHECKING:
    from companion.models.scoring.score import Scored

_BINS = 50
_MOST_DAYS = 120
_WIDTH, _HEIGHT = 9.6, 3.4


def distribution(scored: Scored) -> plots.Picture:
    """Rows by score, on a logarithmic axis, frauds apart where they are known."""
    shown = judged_or_all(scored)
    score = scored.score[shown]
    edges = np.linspace(0, max(float(score.max()), 1e-6), _BINS + 1)
    threshold = float(scored.score[scored.alerts].min())
    fig, ax = plots.figure(width=_WIDTH, height=_HEIGHT)
    groups = {"all transactions": np.ones(len(score), dtype=bool)}
    if LABEL in scored.loaded.table:
        fraud = scored.loaded.table[LABEL].to_numpy(dtype=bool)[shown]
        groups = {"legitimate": ~fraud, "known fraud": fraud}
    colours = (plots.OURS, plots.BAD)
    for (name, rows), colour, dash in zip(groups.items(), colours, ("-", "--"), strict=False):
        counts, _ = np.histogram(score[rows], edges)
        ax.stairs(counts, edges, color=colour, linewidth=2.2, linestyle=dash, label=name)
    ax.axvline(threshold, color=plots.INK, linewidth=1.2, linestyle=":")
    ax.annotate(
        f"alerts: {threshold:.3f} and more",
        (threshold, 1),
        xycoords=("data", "axes fraction"),
        xytext=(6, -4),
        textcoords="offset points",
        va="top",
    )
    ax.set_yscale("symlog", linthresh=1)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("score")
    ax.set_ylabel("transactions")
    ax.legend(loc="upper right")
    middle, most = np.quantile(score, [0.5, 0.99])
    return plots.render(
        fig,
        f"Histogram of {len(score):,} scores: half of them lie below {middle:.3f}, 99 of 100 below "
        f"{most:.3f}; alerts begin at {threshold:.3f}.",
    )


def alerts_by_day(scored: Scored) -> plots.Picture:
    """Alerts a day (a week, where there are very many days), frauds apart where they are known."""
    time = scored.loaded.table["time"].dt.tz_localize(None)
    days = time[judged_or_all(scored)].dt.floor("D")
    step, per = (1, "day") if (days.max() - days.min()).days < _MOST_DAYS else (7, "week")
    first = days.min()
    place = (time.iloc[scored.alerts] - first).dt.days.to_numpy() // step
    bins = int((days.max() - first).days // step + 1)
    counts = np.bincount(place, minlength=bins)
    dates = (first + pd.to_timedelta(np.arange(bins) * step, "D")).to_numpy()
    fig, ax = plots.figure(width=_WIDTH, height=_HEIGHT)
    width = np.timedelta64(round(step * 24 * 0.8), "h")
    if LABEL in scored.loaded.table:
        fraud = scored.loaded.table[LABEL].to_numpy(dtype=bool)[scored.alerts]
        caught = np.bincount(place[fraud], minlength=bins)
        ax.bar(dates, caught, width, color=plots.BAD, label="known fraud", hatch="///")
        ax.bar(dates, counts - caught, width, caught, color=plots.MUTED, label="not known as fraud")
        ax.legend(loc="upper right", ncols=2, bbox_to_anchor=(1, 1.16))
    else:
        ax.bar(dates, counts, width, color=plots.OURS)
    ax.set_ylabel(f"alerts a {per}")
    ax.set_xlabel("date (UTC)")
    ticks = AutoDateLocator(maxticks=8)  # type: ignore[no-untyped-call]
    ax.xaxis.set_major_locator(ticks)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(ticks))  # type: ignore[no-untyped-call]
    return plots.render(
        fig,
        f"Bars of alerts a {per}: {counts.mean():.1f} on average, at least {counts.min()}, at most "
        f"{counts.max()}.",
    )


def judged_or_all(scored: Scored) -> NDArray[np.bool_]:
    """The rows that alerts are taken from."""
    judged = scored.basis.judged
    return judged if judged.any() else np.ones(len(judged), dtype=bool)
