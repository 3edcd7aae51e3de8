"""A notebook, or an answer, as the HTML of a page's middle.

nbconvert turns cells into HTML through a small template of our own; this module then makes that
HTML something to read: headings that can be linked to, tables with scopes, code that a keyboard can
scroll, and no figure without words (WCAG 2.2, criteria 1.1.1, 1.3.1 and 2.1.1).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import nbformat
from bs4 import BeautifulSoup
from nbconvert.exporters import HTMLExporter

from companion.study.book.contents import BookError
from companion.study.catalogue import LEVELS, PARTS
from companion.study.ledger import Answer

TEMPLATES = Path(__file__).resolve().parents[3] / "jupyter_config" / "nbconvert"
# What a page can show without a kernel, best first.
SHOWABLE = (
    "text/html",
    "text/markdown",
    "image/svg+xml",
    "image/png",
    "image/jpeg",
    "text/latex",
    "text/plain",
)
HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")


class UndescribedFigureError(BookError):
    """A figure has no alternative text."""


def templates() -> jinja2.Environment:
    """The environment that holds the templates of whole pages."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES / "book"),
        autoescape=jinja2.select_autoescape(["html.j2"], default_for_string=True),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


class Renderer:
    """Renders notebooks and answers. One serves a whole book, since nbconvert starts slowly."""

    def __init__(self) -> None:
        self._pages = templates()
        self._exporter = HTMLExporter(
            template_name="cells",
            extra_template_basedirs=[str(TEMPLATES)],
            exclude_anchor_links=True,
            config={"NbConvertBase": {"display_data_priority": list(SHOWABLE)}},
        )

    def notebook(self, path: Path) -> BeautifulSoup:
        """The cells of a notebook with their stored outputs.

        Raises:
            UndescribedFigureError: a figure has no alternative text.
        """
        return self._soup(nbformat.read(path, as_version=4), path.name)

    def answer(self, answer: Answer) -> BeautifulSoup:
        """An answer file: its body, and what its front matter says, as one page."""
        cells = [
            nbformat.v4.new_markdown_cell(f"## {heading}\n\n{text}", id=f"section-{number}")
            for number, (heading, text) in enumerate(answer.sections.items())
        ]
        body = self._soup(nbformat.v4.new_notebook(cells=cells), answer.path.name)
        html = self._pages.get_template("answer.html.j2").render(
            answer=answer, part=PARTS[answer.part], level=LEVELS[answer.level], body=str(body)
        )
        return BeautifulSoup(html, "html.parser")

    def _soup(self, notebook: nbformat.NotebookNode, name: str) -> BeautifulSoup:
        html, _ = self._exporter.from_notebook_node(notebook)
        soup = BeautifulSoup(html, "html.parser")
        _refuse_undescribed_figures(soup, name)
        _give_headings_unique_ids(soup)
        _describe_tables(soup)
        for block in soup.find_all("pre"):
            block["tabindex"] = "0"
        return soup


def _refuse_undescribed_figures(soup: BeautifulSoup, name: str) -> None:
    for image in soup.find_all("img"):
        if not str(image.get("alt") or "").strip():
            cell = image.find_parent(class_="cell")
            where = str(cell["id"]).removeprefix("cell-") if cell else "unknown"
            raise UndescribedFigureError(
                f"{name}, cell {where!r}: a figure has no alternative text, so the book would hide "
                "it from whoever cannot see it"
            )


def _give_headings_unique_ids(soup: BeautifulSoup) -> None:
    seen: dict[str, int] = {}
    for heading in soup.find_all(HEADINGS):
        wanted = str(heading.get("id") or heading.get_text().strip().replace(" ", "-"))
        seen[wanted] = seen.get(wanted, 0) + 1
        heading["id"] = wanted if seen[wanted] == 1 else f"{wanted}-{seen[wanted]}"


def _describe_tables(soup: BeautifulSoup) -> None:
    for head in soup.select("thead th"):
        head["scope"] = "col"
    for head in soup.select("tbody th"):
        head["scope"] = "row"
    for table in soup.find_all("table"):
        # A wide table scrolls by itself instead of stretching the page, by keyboard too.
        holder: dict[str, Any] = {"class": "table", "tabindex": "0", "role": "region"}
        table.wrap(soup.new_tag("div", attrs={**holder, "aria-label": "Table"}))
