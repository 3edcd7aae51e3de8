"""Figures that read well on a screen, on a projector, in grey print and aloud.

The ideas: few colours, chosen so that colour-blind readers tell them apart (Okabe and Ito, *Color
Universal Design*, 2008) and doubled by line style or hatching for grey print; names written
next to what they name rather than in a legend (Tufte, *The Visual Display of Quantitative
Information*, ch. 9).  :func:`show` refuses a figure whose axes do not say what they measure, or
that comes without words for those who cannot see it.

Figures are made without ``pyplot``, so nothing is kept open and nothing is shown twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text

from companion.instruments.pictures import (
    PIXELS_PER_INCH,
    AltTextError,
    AxisLabelError,
    Picture,
    render,
    show,
)

__all__ = [
    "BAD",
    "GOOD",
    "INK",
    "MUTED",
    "OURS",
    "PALETTE",
    "RECEIVED",
    "AltTextError",
    "AxisLabelError",
    "Picture",
    "bars",
    "figure",
    "label_line",
    "label_lines",
    "panels",
    "render",
    "show",
    "style",
    "timeline",
]

PALETTE: Mapping[str, str] = {
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "black": "#000000",
}
"""Okabe and Ito's colours by name, in the order in which they are used.

Their yellow is left out: a yellow line cannot be seen on white."""

OURS = PALETTE["blue"]
"""The version that the workbook ends with."""
RECEIVED = PALETTE["orange"]
"""The version that the received answer gives."""
GOOD = PALETTE["green"]
BAD = PALETTE["vermillion"]
MUTED = "#8C8C8C"
"""What is shown for comparison only."""
INK = "#1A1A1A"

LINE_STYLES: Sequence[Any] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)), "-")
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "ooo", "+++")

TEXT_SIZE = 13
"""Points; the least that is read from the back of a room at the widths used here."""
_MINIMUM_CONTRAST = 4.5
"""Between text and a white page, by WCAG 2.2, criterion 1.4.3."""


@cache
def style() -> None:
    """Put the house style in force for this process, once; :func:`figure` does so by itself.

    It goes into ``matplotlib.rcParams`` for good, rather than around each figure, so that
    whatever a caller adds with matplotlib's own methods matches too.  Settings that a caller
    changes later stay changed.
    """
    cycle = cycler(color=list(PALETTE.values())) + cycler(linestyle=list(LINE_STYLES))
    matplotlib.rcParams.update(
        {
            "font.size": TEXT_SIZE,
            "font.family": "DejaVu Sans",
            "axes.titlesize": TEXT_SIZE + 2,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.titlepad": 12,
            "axes.labelsize": TEXT_SIZE,
            "axes.labelcolor": INK,
            "axes.edgecolor": "#666666",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.prop_cycle": cycle,
            "grid.color": "#E3E3E3",
            "grid.linewidth": 0.8,
            "xtick.color": "#444444",
            "ytick.color": "#444444",
            "xtick.labelsize": TEXT_SIZE - 1,
            "ytick.labelsize": TEXT_SIZE - 1,
            "legend.frameon": False,
            "legend.fontsize": TEXT_SIZE - 1,
            "lines.linewidth": 2.4,
            "lines.solid_capstyle": "round",
            "text.color": INK,
            "hatch.linewidth": 0.7,
            "figure.facecolor": "white",
            "axes.facecolor": "white",
            "savefig.facecolor": "white",
        }
    )


def figure(*, width: float = 8.0, height: float = 4.5) -> tuple[Figure, Axes]:
    """One empty plot, ``width`` × ``height`` inches (100 CSS pixels each)."""
    made, (only,) = panels(width=width, height=height)
    return made, only


def panels(
    rows: int = 1,
    columns: int = 1,
    *,
    width: float = 8.0,
    height: float = 4.5,
    share_x: bool = False,
    share_y: bool = False,
    height_ratios: Sequence[float] | None = None,
) -> tuple[Figure, list[Axes]]:
    """A grid of plots, returned in reading order; shared axes are labelled at the rim only."""
    style()
    made = Figure(figsize=(width, height), dpi=PIXELS_PER_INCH, layout="constrained")
    FigureCanvasAgg(made)
    made.get_layout_engine().set(w_pad=0.1, h_pad=0.1)  # type: ignore[union-attr,call-arg]
    grid = made.subplots(
        rows, columns, sharex=share_x, sharey=share_y, squeeze=False, height_ratios=height_ratios
    )
    return made, list(grid.flat)


def label_line(ax: Axes, line: Line2D, text: str, *, dy: float = 0.0) -> Text:
    """Write ``text`` at the right end of ``line``, in its colour, ``dy`` points higher."""
    return ax.annotate(
        text,
        _end(line),
        xytext=(7, dy),
        textcoords="offset points",
        va="center",
        color=_readable(line.get_color()),
        annotation_clip=False,
    )


def label_lines(ax: Axes) -> None:
    """Label every named line of ``ax`` at its end, far enough apart to be read.

    A line is named by ``ax.plot(…, label="name")``.  Call it when all data and limits are set.
    """
    lines = [line for line in ax.get_lines() if not str(line.get_label()).startswith("_")]
    ax.figure.draw_without_rendering()  # type: ignore[union-attr]
    points = 72 / ax.figure.dpi

    heights = {line: float(ax.transData.transform(_end(line))[1]) * points for line in lines}
    lowest_free = float("-inf")
    for line in sorted(lines, key=heights.__getitem__):
        height = max(heights[line], lowest_free)
        label_line(ax, line, str(line.get_label()), dy=height - heights[line])
        lowest_free = height + 1.25 * TEXT_SIZE


def bars(
    ax: Axes,
    values: Mapping[str, float],
    *,
    label: str,
    highlight: Iterable[str] = (),
    form: str = "{:.3g}",
) -> None:
    """One horizontal bar per name, first on top, its value written at its end.

    ``label`` names the value axis, with its unit.  Bars named in ``highlight`` are drawn in
    :data:`OURS`, the others muted.  ``form`` formats the written values.
    """
    strong = set(highlight)
    drawn = ax.barh(
        list(values),
        list(values.values()),
        color=[OURS if name in strong else MUTED for name in values],
        height=0.66,
    )
    ax.bar_label(drawn, [form.format(value) for value in values.values()], padding=6)
    ax.invert_yaxis()
    ax.set_xlabel(label)
    ax.grid(visible=False)
    ax.tick_params(axis="y", length=0)
    ax.margins(x=0.16)


def timeline(
    ax: Axes,
    rows: Mapping[str, Sequence[tuple[float, str]]],
    *,
    until: float,
    colours: Mapping[str, str] | None = None,
    label: str = "time (s)",
) -> None:
    """States over time: one coloured band per row, named inside where there is room.

    Args:
        rows: per row its ``(since, state)`` pairs in order of time; a state lasts until the next
            pair begins, the last one until ``until``.
        colours: by state; by default the palette, in order of appearance.  States also differ
            in hatching, and those with no room for their name go to a legend.
    """
    states = list(dict.fromkeys(state for spans in rows.values() for _, state in spans))
    if colours is None:
        colours = dict(zip(states, PALETTE.values(), strict=False))
    hatches = dict(zip(states, HATCHES, strict=False))
    begin = min((since for spans in rows.values() for since, _ in spans), default=0.0)
    ax.set_xlim(begin, until)
    ax.set_xlabel(label)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.spines["left"].set_visible(False)

    named: set[str] = set()
    inches_per_unit = ax.figure.get_figwidth() * 0.8 / max(until - begin, 1e-12)  # type: ignore[union-attr]
    for row, spans in enumerate(rows.values()):
        ends = [since for since, _ in spans[1:]] + [until]
        for (since, state), end in zip(spans, ends, strict=True):
            ax.broken_barh(
                [(since, end - since)],
                (row - 0.36, 0.72),
                facecolor=_tint(colours[state]),
                edgecolor=colours[state],
                hatch=hatches[state],
                linewidth=1.0,
            )
            if len(state) * 0.72 * TEXT_SIZE / 72 < (end - since) * inches_per_unit:
                ax.text(
                    (since + end) / 2,
                    row,
                    state,
                    ha="center",
                    va="center",
                    bbox={"facecolor": _tint(colours[state]), "edgecolor": "none", "pad": 1.5},
                )
                named.add(state)
    unnamed = [state for state in states if state not in named]
    keys = [
        Patch(facecolor=_tint(colours[s]), edgecolor=colours[s], hatch=hatches[s], label=s)
        for s in unnamed
    ]
    if keys:
        ax.legend(handles=keys, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(keys))


def _end(line: Line2D) -> tuple[float, float]:
    x, y = (np.asarray(values)[-1] for values in line.get_data(orig=False))
    return float(x), float(y)


def _tint(colour: str) -> str:
    """``colour`` light enough to write on."""
    red, green, blue = (1 - (1 - channel) * 0.4 for channel in to_rgb(colour))
    return to_hex((red, green, blue))


def _readable(colour: Any) -> str:
    """``colour`` darkened until text in it stands out from a white page."""
    rgb = to_rgb(colour)
    while 1.05 / (_luminance(rgb) + 0.05) < _MINIMUM_CONTRAST:
        rgb = (rgb[0] * 0.95, rgb[1] * 0.95, rgb[2] * 0.95)
    return to_hex(rgb)


def _luminance(rgb: tuple[float, float, float]) -> float:
    """Relative luminance, 0 for black to 1 for white (WCAG 2.2, glossary)."""
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
