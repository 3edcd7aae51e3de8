"""Figures: refused without words or labels, told apart without colour, the same every time."""

from __future__ import annotations

import itertools
import struct
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from companion.instruments import plots

ALT = "Two lines, ours stays flat while the received one climbs."


def drawn() -> tuple[Figure, Axes]:
    fig, ax = plots.figure()
    ax.plot([0, 1, 2], [1, 1, 1], label="ours")
    ax.plot([0, 1, 2], [1, 2, 4], label="received")
    ax.set_xlabel("time (s)")
    ax.set_ylabel("latency (ms)")
    return fig, ax


def annotations(ax: Axes) -> list[Annotation]:
    return [text for text in ax.texts if isinstance(text, Annotation)]


# ----- words ------------------------------------------------------------------------------------


@pytest.mark.parametrize("alt", ["", "   ", "a plot", "one two three four"])
def test_a_figure_without_words_or_with_too_few_is_refused(alt: str) -> None:
    fig, _ = drawn()
    with pytest.raises(plots.AltTextError, match="5 words"):
        plots.show(fig, alt)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_figure_with_bare_numbers_along_an_axis_is_refused(axis: str) -> None:
    fig, ax = drawn()
    ax.set(**{f"{axis}label": ""})
    with pytest.raises(plots.AxisLabelError, match=f"plot 1 shows numbers along {axis}"):
        plots.render(fig, ALT)


def test_an_unlabelled_axis_is_found_in_any_panel() -> None:
    fig, (first, second) = plots.panels(1, 2)
    for ax in (first, second):
        ax.plot([1, 2])
        ax.set_xlabel("time (s)")
    first.set_ylabel("calls")
    with pytest.raises(plots.AxisLabelError, match="plot 2 shows numbers along y"):
        plots.render(fig, ALT)


def test_a_shared_axis_is_labelled_once() -> None:
    fig, (upper, lower) = plots.panels(2, share_x=True, share_y=True)
    upper.plot([1, 2])
    lower.plot([1, 2])
    lower.set_xlabel("time (s)")
    upper.set_ylabel("calls")
    assert plots.render(fig, ALT).png


def test_names_and_units_on_the_ticks_need_no_label() -> None:
    fig, ax = plots.figure()
    ax.bar(["ours", "received"], [1, 2])
    ax.set_yticks([0, 1, 2], ["0 ms", "1 ms", "2 ms"])
    assert plots.render(fig, ALT).png


def test_logarithmic_ticks_are_numbers_too() -> None:
    fig, ax = drawn()
    ax.set_yscale("log")
    ax.set_ylabel("")
    with pytest.raises(plots.AxisLabelError):
        plots.render(fig, ALT)


def test_empty_and_hidden_axes_need_no_label() -> None:
    fig, (empty, hidden, off) = plots.panels(1, 3)
    assert not empty.has_data()
    hidden.plot([1, 2])
    hidden.set_visible(False)
    off.plot([1, 2])
    off.set_axis_off()
    assert plots.render(fig, ALT).png


# ----- pictures ---------------------------------------------------------------------------------


def test_a_picture_is_a_png_at_twice_its_css_size() -> None:
    picture = plots.render(drawn()[0], ALT)
    assert picture.png.startswith(b"\x89PNG")
    assert (picture.width, picture.height) == (800, 450)
    assert struct.unpack(">II", picture.png[16:24]) == (1600, 900)


def test_the_same_figure_gives_the_same_bytes_in_any_process() -> None:
    code = (
        "import hashlib; from companion.instruments import plots; f, a = plots.figure();"
        "a.plot([1, 2], label='ours'); a.set(xlabel='x (s)', ylabel='y (s)'); plots.label_lines(a);"
        f"print(hashlib.sha256(plots.render(f, {ALT!r}).png).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
        ).stdout
        for _ in range(2)
    }
    assert len(digests) == 1


def test_a_picture_says_nothing_of_when_and_with_what_it_was_made() -> None:
    png = plots.render(drawn()[0], ALT).png
    for chunk in (b"tEXt", b"iTXt", b"zTXt", b"tIME"):
        assert chunk not in png


def test_the_page_is_white_under_a_dark_theme_too() -> None:
    import io

    from PIL import Image

    corner = Image.open(io.BytesIO(plots.render(drawn()[0], ALT).png)).convert("RGBA")
    assert corner.getpixel((0, 0)) == (255, 255, 255, 255)


def test_show_displays_once_and_returns_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert plots.show(drawn()[0], ALT) is None  # type: ignore[func-returns-value]
    assert capsys.readouterr().out == f"{ALT}\n"


def test_a_notebook_gets_the_png_with_its_alternative_text_and_size() -> None:
    picture = plots.render(drawn()[0], "Two  lines,\n ours stays flat.")
    data, metadata = picture._repr_mimebundle_()
    alt = "Two lines, ours stays flat."
    assert data == {"image/png": picture.png, "text/plain": alt}
    assert metadata == {"image/png": {"alt": alt, "width": 800, "height": 450}}


def test_a_page_template_finds_the_alternative_text_where_nbconvert_looks_for_it() -> None:
    import base64

    import nbformat.v4 as v4
    from nbconvert import HTMLExporter

    data, metadata = plots.render(drawn()[0], ALT)._repr_mimebundle_()
    png = data["image/png"]
    assert isinstance(png, bytes)
    output = v4.new_output(
        "display_data",
        data={**data, "image/png": base64.b64encode(png).decode()},
        metadata=metadata,
    )
    notebook = v4.new_notebook(cells=[v4.new_code_cell("plots.show(…)", outputs=[output])])
    page, _ = HTMLExporter(template_name="classic").from_notebook_node(notebook)
    assert f'alt="{ALT}"' in page


def test_nothing_is_kept_by_pyplot() -> None:
    code = (
        "import sys; from companion.instruments import plots; f, a = plots.figure(); a.axis('off');"
        f"plots.render(f, {ALT!r}); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# ----- telling things apart ---------------------------------------------------------------------


def test_lines_differ_in_colour_and_for_six_of_them_in_style_too() -> None:
    _, ax = plots.figure()
    lines = [ax.plot([0, 1], [n, n])[0] for n in range(7)]
    assert len({line.get_color() for line in lines}) == 7
    styles = [(line.get_linestyle(), line._unscaled_dash_pattern) for line in lines[:6]]  # type: ignore[attr-defined]
    assert all(one != other for one, other in itertools.combinations(styles, 2))


def simulated(rgb: tuple[float, float, float], matrix: np.ndarray) -> np.ndarray:
    linear = np.array([c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb])
    return np.clip(matrix @ linear, 0, 1) ** (1 / 2.2)


@pytest.mark.parametrize(
    "matrix",
    [  # Machado, Oliveira and Fernandes 2009, severity 1.0
        [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
        [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
    ],
    ids=["protanopia", "deuteranopia", "tritanopia"],
)  # fmt: skip
def test_colours_stay_apart_for_colour_blind_readers(matrix: list[list[float]]) -> None:
    seen = [simulated(to_rgb(colour), np.array(matrix)) for colour in plots.PALETTE.values()]
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(one - other) > 0.1


def test_style_leaves_later_changes_of_the_reader_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    plots.figure()
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 20)
    plots.figure()
    assert matplotlib.rcParams["font.size"] == 20


# ----- drawing ----------------------------------------------------------------------------------


def test_a_line_is_labelled_at_its_end_in_a_colour_that_can_be_read() -> None:
    _, ax = drawn()
    line = ax.plot([0, 1, 5], [0, 1, 3], color=plots.RECEIVED)[0]
    label = plots.label_line(ax, line, "received")
    assert label.get_text() == "received"
    assert tuple(label.xy) == (5, 3)  # type: ignore[attr-defined]
    assert sum(to_rgb(label.get_color())) < sum(to_rgb(plots.RECEIVED))


def test_labels_of_lines_that_end_together_do_not_overlap() -> None:
    fig, ax = plots.figure()
    for number in range(5):
        ax.plot([0, 1], [0, number / 1000], label=f"line {number}")
    ax.plot([0, 1], [1, 1])
    ax.set(xlabel="time (s)", ylabel="latency (ms)")
    plots.label_lines(ax)
    fig.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in annotations(ax)), key=lambda box: box.y0)
    assert len(boxes) == 5, "a line without a name gets no label"
    for below, above in itertools.pairwise(boxes):
        assert above.y0 >= below.y1


def test_bars_carry_their_names_and_values() -> None:
    fig, ax = plots.figure()
    plots.bars(
        ax,
        {"pybreaker": 1.26, "ours": 0.6},
        label="time (µs)",
        highlight=["ours"],
        form="{:.1f} µs",
    )
    plots.render(fig, ALT)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["pybreaker", "ours"]
    assert [text.get_text() for text in ax.texts] == ["1.3 µs", "0.6 µs"]
    assert [to_rgb(bar.get_facecolor()) for bar in ax.patches] == [  # type: ignore[attr-defined]
        to_rgb(plots.MUTED),
        to_rgb(plots.OURS),
    ]
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "the first on top"


def test_a_timeline_names_wide_bands_inside_and_the_others_in_a_legend() -> None:
    fig, ax = plots.figure(height=2.5)
    plots.timeline(
        ax, {"ours": [(0, "closed"), (10, "half-open"), (10.5, "open"), (60, "closed")]}, until=90
    )
    plots.render(fig, ALT)
    assert [text.get_text() for text in ax.texts] == ["open", "closed"]
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["half-open"]


def test_bands_last_from_one_state_to_the_next_and_the_last_until_the_end() -> None:
    _, ax = plots.figure()
    plots.timeline(ax, {"a": [(1, "closed"), (4, "open")]}, until=9)
    spans = [
        (path.vertices[:, 0].min(), path.vertices[:, 0].max())
        for band in ax.collections
        for path in band.get_paths()
    ]
    assert spans == [(1, 4), (4, 9)]
    assert ax.get_xlim() == (1, 9)


def test_one_state_has_one_look_in_all_rows_and_another_hatch_than_the_others() -> None:
    _, ax = plots.figure()
    colours = {"closed": plots.GOOD, "open": plots.BAD}
    rows = {"a": [(0.0, "closed"), (1.0, "open")], "b": [(0.0, "open")]}
    plots.timeline(ax, rows, until=2, colours=colours)
    looks = [(band.get_edgecolor().tolist(), band.get_hatch()) for band in ax.collections]
    assert looks[1] == looks[2] != looks[0]
    assert looks[0][1] != looks[1][1]


def test_a_timeline_of_wide_bands_needs_no_legend() -> None:
    _, ax = plots.figure()
    plots.timeline(ax, {"a": [(0, "closed")]}, until=9)
    assert ax.get_legend() is None
