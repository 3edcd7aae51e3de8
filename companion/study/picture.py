"""The README's picture: a real notebook, as it reads, seen by a real browser.

The page is the book's own, made from the stored outputs, so that the picture cannot show what the
notebook does not. It ends with what is said of the first figure, and goes up as far as it holds:
the figure, and the code that made it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup

from companion.study.book.contents import BookError
from companion.study.book.rendering import TEMPLATES, Renderer
from companion.study.book.slides import find_notebook
from companion.study.doctor import CHROMIUMS, find_program
from companion.study.workbook import Workbook

PLACE = Path("fixtures", "picture.png")
WIDTH, HEIGHT, SHARPNESS = 1000, 706, 1.5
# As root and without a screen; and quiet, since nothing here is to be fetched from anywhere.
CHROMIUM_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class NoBrowserError(RuntimeError):
    """There is no Chromium on the path."""

    def __init__(self) -> None:
        super().__init__(
            "a picture needs a browser, and none was found: install Chromium "
            f"(looked for {', '.join(CHROMIUMS)})"
        )


class NoFigureError(BookError):
    """The notebook has no figure to show."""


@contextmanager
def chromium(executable: str | None = None) -> Iterator[Any]:
    """A headless Chromium, as a Playwright `Browser`; closed at the end.

    Raises:
        NoBrowserError: none was found on the path.
    """
    program = executable or find_program(CHROMIUMS)
    if program is None:
        raise NoBrowserError
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, headless=True, args=list(CHROMIUM_OPTIONS)
        )
        try:
            yield browser
        finally:
            browser.close()


def take_picture(workbook: Workbook, name: str) -> Path:
    """Photograph the notebook `name` into `fixtures/picture.png`; returns its path.

    Raises:
        UnknownNotebookError: there is no such notebook.
        NoFigureError: it shows nothing that is worth a picture.
        NoBrowserError: there is no Chromium.
    """
    notebook = find_notebook(workbook, name)
    soup = Renderer().notebook(notebook)
    last = _cell_after_the_first_figure(soup, notebook.name)
    target = workbook.root / PLACE
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        page_file = _write_page(Path(folder), notebook, soup)
        page = browser.new_page(
            viewport={"width": WIDTH, "height": HEIGHT},
            device_scale_factor=SHARPNESS,
            color_scheme="light",
        )
        page.goto(page_file.as_uri())
        page.evaluate("id => document.getElementById(id).scrollIntoView({block: 'end'})", last)
        part = target.with_suffix(".part.png")
        page.screenshot(path=str(part))
        part.replace(target)
    return target


def _cell_after_the_first_figure(soup: BeautifulSoup, name: str) -> str:
    figure = soup.find("figure")
    cell = figure.find_parent(class_="cell") if figure else None
    if cell is None:
        raise NoFigureError(f"{name} has no figure, so a picture of it would show little")
    following = cell.find_next_sibling(class_="cell")
    return str((following or cell)["id"])


def _write_page(folder: Path, notebook: Path, soup: BeautifulSoup) -> Path:
    page = folder / f"{notebook.stem}.html"
    style = (TEMPLATES / "book" / "book.css").read_text(encoding="utf-8")
    page.write_text(
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{notebook.stem}</title>"
        f"<style>{style}</style><body><main>{soup}</main></body></html>",
        encoding="utf-8",
    )
    return page
