"""Turn a figure into a picture with words, or refuse it.

The idea: accessibility is a property of the output, checked where the output is made.  A
figure without alternative text (WCAG 2.2, criterion 1.1.1) or with bare numbers along an axis
does not leave the process, so no notebook can forget either.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from PIL import Image

SHORTEST_ALT_WORDS = 5
PIXELS_PER_INCH = 100
"""CSS pixels, so that a figure of 8 inches is 800 wide on a page."""
_RETINA = 2


class AltTextError(ValueError):
    """A figure came without words for those who cannot see it, or with too few."""


class AxisLabelError(ValueError):
    """An axis shows numbers and does not say what they measure, or in which unit."""


@dataclass(frozen=True)
class Picture:
    """A finished PNG with its words; notebooks display it with ``alt`` as alternative text.

    ``width`` and ``height`` are CSS pixels; the image holds twice as many each way, so that it
    stays sharp on dense screens and in print.
    """

    png: bytes
    alt: str
    width: int
    height: int

    def __repr__(self) -> str:
        return self.alt

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> tuple[dict[str, bytes | str], dict[str, dict[str, str | int]]]:
        described: dict[str, str | int] = {
            "alt": self.alt,
            "width": self.width,
            "height": self.height,
        }
        return {"image/png": self.png, "text/plain": self.alt}, {"image/png": described}


def render(fig: Figure, alt: str) -> Picture:
    """Draw ``fig``; equal figures give equal bytes (no dates, no versions inside).

    Raises:
        AltTextError: ``alt`` has fewer than five words.
        AxisLabelError: an axis with data and numbers on it has no label.
    """
    words = len(alt.split())
    if words < SHORTEST_ALT_WORDS:
        raise AltTextError(
            f"alt text says in words what the figure shows, in {SHORTEST_ALT_WORDS} words or "
            f"more; got {words}: {alt!r}"
        )
    fig.draw_without_rendering()  # Tick labels have no text before.
    for number, ax in enumerate(fig.axes, start=1):
        for name in _unlabelled(ax):
            raise AxisLabelError(
                f"plot {number} shows numbers along {name} without saying what they are: "
                f"ax.set_{name}label('what (unit)')"
            )
    drawn, png = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, format="png", dpi=PIXELS_PER_INCH * _RETINA, metadata={"Software": None})
    # 256 colours cannot be told from all of them in a plot, and take a third of the bytes, which
    # are stored in every notebook.
    few_colours = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few_colours.save(png, format="png", optimize=True)
    width, height = (round(inches * PIXELS_PER_INCH) for inches in fig.get_size_inches())
    return Picture(png.getvalue(), " ".join(alt.split()), width, height)


def show(fig: Figure, alt: str) -> None:
    """Display ``fig`` in a notebook with ``alt`` as its alternative text; see :func:`render`.

    Outside a notebook the words are printed.  It returns nothing, so a cell that ends with it
    has one output.
    """
    from IPython.display import display

    display(render(fig, alt))  # type: ignore[no-untyped-call]


def _unlabelled(ax: Axes) -> list[str]:
    """The names of the axes of ``ax`` whose numbers nothing explains."""
    if not (ax.axison and ax.get_visible() and ax.has_data()):
        return []
    kin_x = ax.get_shared_x_axes().get_siblings(ax)
    kin_y = ax.get_shared_y_axes().get_siblings(ax)
    unlabelled = []
    if _shows_numbers(ax.xaxis) and not any(kin.get_xlabel().strip() for kin in kin_x):
        unlabelled.append("x")
    if _shows_numbers(ax.yaxis) and not any(kin.get_ylabel().strip() for kin in kin_y):
        unlabelled.append("y")
    return unlabelled


def _shows_numbers(axis: Axis) -> bool:
    """Whether its ticks are bare numbers; names and units explain themselves."""
    texts = [tick.get_text().replace(r"\mathdefault", "") for tick in axis.get_majorticklabels()]
    return axis.get_visible() and any(
        text and not any(character.isalpha() for character in text) for text in texts
    )
