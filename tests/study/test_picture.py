"""The README's picture: a real notebook, taken by a real browser."""

import struct

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from companion.study import picture
from companion.study.picture import NoBrowserError, NoFigureError, take_picture

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)


def write_notebook(workbook, *, figure=True):
    metadata = {"image/png": {"alt": "one dot of colour here"}}
    outputs = [new_output("display_data", {"image/png": PIXEL}, metadata=metadata)]
    cells = [
        new_markdown_cell("# Q02"),
        new_code_cell("draw()", outputs=outputs if figure else []),
        new_markdown_cell("What it means."),
    ]
    nbformat.write(new_notebook(cells=cells), workbook.notebook("q02_small"))


@pytest.mark.browser
@pytest.mark.usefixtures("chromium_program")
def test_the_picture_is_a_png_of_the_promised_size(workbook):
    write_notebook(workbook)
    made = take_picture(workbook, "q02")
    assert made == workbook.root / "fixtures" / "picture.png"
    head = made.read_bytes()[:24]
    assert head.startswith(b"\x89PNG")
    assert struct.unpack(">II", head[16:]) == (1500, 1059)


def test_a_notebook_without_a_figure_is_no_picture(workbook):
    write_notebook(workbook, figure=False)
    with pytest.raises(NoFigureError, match=r"q02_small\.ipynb has no figure"):
        take_picture(workbook, "q02")


def test_without_a_browser_it_says_which_were_looked_for(workbook, monkeypatch):
    write_notebook(workbook)
    monkeypatch.setattr(picture, "find_program", lambda names: None)
    with pytest.raises(NoBrowserError, match="chromium, chromium-browser, google-chrome"):
        take_picture(workbook, "q02")
    assert not (workbook.root / "fixtures" / "picture.png").exists()
