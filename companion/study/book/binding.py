"""Bind the pages into one folder: `index.html`, a page a notebook and answer, search, styles.

The book is written beside its place and moved there when it is whole, so that a failed build leaves
the last good one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bs4 import BeautifulSoup

from companion.study.book.contents import Chapter, Leaf, read_contents, reading_order
from companion.study.book.links import Links, ids_in
from companion.study.book.rendering import TEMPLATES, Renderer, templates
from companion.study.book.search import Section, index_script, sections_of
from companion.study.ledger import read_answer
from companion.study.workbook import Workbook

TITLE = "Machine learning in production: fifty answers, run"
STATIC = ("book.css", "book.js")


@dataclass(frozen=True)
class Book:
    """What was built: the first page, and how many pages there are beside it."""

    index: Path
    pages: int


def build_book(
    workbook: Workbook,
    target: Path,
    on_page: Callable[[int, int], None] = lambda done, total: None,
) -> Book:
    """Make the book of `workbook` in the folder `target`, replacing what is there.

    `on_page` is called with the number of pages done and the number of all pages.

    Raises:
        BrokenLinkError: links lead nowhere; all are named.
        MissingTitleError, UndescribedFigureError, LedgerError: a source is not fit for print.
    """
    chapters = read_contents(workbook)
    leaves = list(reading_order(chapters))
    renderer = Renderer()
    bodies: dict[Leaf, BeautifulSoup] = {}
    for done, leaf in enumerate(leaves):
        on_page(done, len(leaves))
        bodies[leaf] = _body(renderer, workbook, leaf)
    on_page(len(leaves), len(leaves))
    links = Links(
        workbook.root, {leaf.source: (leaf, ids_in(soup)) for leaf, soup in bodies.items()}
    )
    for leaf, soup in bodies.items():
        links.rewrite(leaf, soup)
    links.refuse_broken()
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    _write(part, chapters, bodies)
    for source, taken in links.taken.items():
        _copy(workbook.root / source, part / taken)
    shutil.rmtree(target, ignore_errors=True)
    part.replace(target)
    return Book(target / "index.html", len(leaves))


def _body(renderer: Renderer, workbook: Workbook, leaf: Leaf) -> BeautifulSoup:
    path = workbook.root / leaf.source
    return (
        renderer.notebook(path) if path.suffix == ".ipynb" else renderer.answer(read_answer(path))
    )


def _write(folder: Path, chapters: list[Chapter], bodies: dict[Leaf, BeautifulSoup]) -> None:
    pages = templates()
    leaves = list(bodies)
    sections: list[Section] = []
    for before, leaf, after in zip([None, *leaves], leaves, [*leaves[1:], None], strict=False):
        html = pages.get_template("page.html.j2").render(
            book=TITLE,
            leaf=leaf,
            root=leaf.root,
            body=str(bodies[leaf]),
            before=before,
            after=after,
        )
        _save(folder / leaf.target, html)
        sections += sections_of(leaf, bodies[leaf])
    contents = pages.get_template("contents.html.j2").render(
        book=TITLE, chapters=chapters, root="", sections=len(sections)
    )
    _save(folder / "index.html", contents)
    _save(folder / "static" / "search-index.js", index_script(sections))
    for name in STATIC:
        _copy(TEMPLATES / "book" / name, folder / "static" / name)


def _save(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
