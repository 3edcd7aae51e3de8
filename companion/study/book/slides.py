"""One notebook as slides: a single file that needs neither a network nor a library.

A slide is what is looked at together: prose, the code that follows it with its outputs, and the
remark on them. What is there for one person at a keyboard (the attempt, the parameters, the recall)
is left out, and so is code that only displays; the code of a figure is folded under it.
"""

from __future__ import annotations

from pathlib import Path

from bs4 import BeautifulSoup, Tag

from companion.study.atomic import write_atomically
from companion.study.book.contents import BookError, title_of
from companion.study.book.rendering import HEADINGS, TEMPLATES, Renderer, templates
from companion.study.workbook import Workbook

FOR_ONE_PERSON = {"parameters", "open", "attempt", "exercise", "check", "recall"}
ONLY_DISPLAYING = {"received", "verdict", "say-it", "follow-ups"}


class UnknownNotebookError(BookError):
    """There is no notebook of this name; the message names those there are."""


def find_notebook(workbook: Workbook, name: str) -> Path:
    """The notebook called `name`: its stem, its file name, or its question's `q23`.

    Raises:
        UnknownNotebookError
    """
    stem = name.removesuffix(".ipynb")
    folder = workbook.notebooks
    known = sorted([*folder.glob("*.ipynb"), *folder.glob("demos/*.ipynb")])
    fits = [path for path in known if path.stem == stem or path.stem.partition("_")[0] == stem]
    if not fits:
        raise UnknownNotebookError(
            f"there is no notebook {name!r}; there are: "
            f"{', '.join(path.stem for path in known) or 'none'}"
        )
    return fits[0]


def build_slides(workbook: Workbook, name: str, target: Path) -> Path:
    """Write the slides of the notebook `name` into the folder `target`; returns their file.

    Raises:
        UnknownNotebookError: there is no such notebook.
        MissingTitleError, UndescribedFigureError: it is not fit to be shown.
    """
    path = find_notebook(workbook, name)
    soup = Renderer().notebook(path)
    _drop_links_to_other_files(soup)
    style = "\n".join(_read(name) for name in ("book.css", "slides.css"))
    html = (
        templates()
        .get_template("slides.html.j2")
        .render(
            title=title_of(path), style=style, script=_read("slides.js"), slides=slides_in(soup)
        )
    )
    file = target / f"{path.stem}.html"
    write_atomically(file, html)
    return file


def slides_in(soup: BeautifulSoup) -> list[str]:
    """The HTML of each slide: prose, one piece of code, and a remark that leads to no other."""
    cells = [cell for cell in soup.select(".cell") if _name(cell) not in FOR_ONE_PERSON]
    slides: list[list[Tag]] = []
    has_code = False
    for cell, following in zip(cells, [*cells[1:], None], strict=True):
        _make_room(cell)
        is_code = _is_code(cell)
        leads_on = following is not None and _is_code(following)
        is_remark = not is_code and not leads_on and cell.find(HEADINGS) is None
        if not slides or (has_code and not is_remark) or not (has_code or is_code):
            slides.append([])
            has_code = False
        slides[-1].append(cell)
        has_code = has_code or is_code
    return ["\n".join(str(cell) for cell in slide) for slide in slides]


def _drop_links_to_other_files(soup: BeautifulSoup) -> None:
    """From one file they lead nowhere: what only navigates goes, other links become their text."""
    for link in soup.select("a[href]:not([href*='://'])"):
        paragraph = link.find_parent("p")
        if paragraph and all(
            isinstance(part, Tag) or str(part).strip(" ·") == "" for part in paragraph
        ):
            paragraph.decompose()
        elif not link.decomposed:
            link.unwrap()


def _make_room(cell: Tag) -> None:
    source = cell.select_one(".source")
    if source is None:
        return
    if _name(cell) in ONLY_DISPLAYING:
        source.decompose()
    elif cell.find("figure"):
        for part in source.select("details > summary"):
            part.decompose()
        for part in source.select("details"):
            part.unwrap()
        folded = Tag(name="details")
        summary = Tag(name="summary")
        summary.string = "the code of this figure"
        folded.extend([summary, source.extract()])
        cell.append(folded)


def _name(cell: Tag) -> str:
    return str(cell["id"]).removeprefix("cell-")


def _is_code(cell: Tag) -> bool:
    return "code" in cell["class"]


def _read(name: str) -> str:
    return (TEMPLATES / "book" / name).read_text(encoding="utf-8")
