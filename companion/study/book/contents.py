"""Which pages the book has, in the order in which they are read.

A page is a *leaf*: the file it comes from and the file it becomes. Notebooks name themselves (their
first heading); the answer files say which part a question belongs to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import nbformat

from companion.study.catalogue import LEVELS, PARTS
from companion.study.ledger import Answer, read_ledger
from companion.study.workbook import Workbook


class BookError(ValueError):
    """The notebooks cannot be made into a book as they are."""


class MissingTitleError(BookError):
    """A notebook has no first-level heading to be listed under."""


@dataclass(frozen=True)
class Leaf:
    """A page: `source` relative to the checkout, `target` relative to the book."""

    source: PurePosixPath
    target: PurePosixPath
    title: str
    about: str = ""
    answer: Leaf | None = None

    @property
    def root(self) -> str:
        """The way from this page back to the book's own folder."""
        return "../" * (len(self.target.parts) - 1)


@dataclass(frozen=True)
class Chapter:
    """Leaves under one heading of the contents."""

    title: str
    leaves: tuple[Leaf, ...]


def read_contents(workbook: Workbook) -> list[Chapter]:
    """The chapters of `workbook` that have pages: the start, the four parts, the demos.

    Raises:
        MissingTitleError: a notebook has no title.
        LedgerError: an answer file is malformed.
    """
    answers = {answer.stem: answer for answer in read_ledger(workbook)}
    start = [_notebook(workbook, path) for path in (workbook.start_here,) if path.is_file()]
    parts: dict[str, list[Leaf]] = {f"Part {n} · {name}": [] for n, name in PARTS.items()}
    for path in workbook.question_notebooks():
        answer = answers.get(path.stem)
        chapter = f"Part {answer.part} · {PARTS[answer.part]}" if answer else "Not placed yet"
        parts.setdefault(chapter, []).append(_notebook(workbook, path, answer))
    demos = [
        _notebook(workbook, path) for path in sorted((workbook.notebooks / "demos").glob("*.ipynb"))
    ]
    chapters = {"Begin here": start, **parts, "Demos": demos}
    return [Chapter(title, tuple(leaves)) for title, leaves in chapters.items() if leaves]


def reading_order(chapters: list[Chapter]) -> Iterator[Leaf]:
    """Every page once: each notebook, then its answer."""
    for chapter in chapters:
        for leaf in chapter.leaves:
            yield leaf
            if leaf.answer:
                yield leaf.answer


def title_of(path: Path) -> str:
    """The first first-level heading of a notebook.

    Raises:
        MissingTitleError: there is none.
    """
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                if line.startswith("# "):
                    return str(line[2:].strip())
    raise MissingTitleError(f"{path.name} has no first-level heading, so the book cannot list it")


def _notebook(workbook: Workbook, path: Path, answer: Answer | None = None) -> Leaf:
    source = PurePosixPath(path.relative_to(workbook.root).as_posix())
    target = PurePosixPath(*source.parts[1:]).with_suffix(".html")
    if answer is None:
        return Leaf(source, target, title_of(path))
    about = f"{LEVELS[answer.level]}, {answer.minutes} minutes, {', '.join(answer.topics)}"
    return Leaf(source, target, title_of(path), about, _answer(answer))


def _answer(answer: Answer) -> Leaf:
    source = PurePosixPath("answers", answer.path.name)
    title = f"{answer.label} · {answer.title}: what to say"
    return Leaf(source, source.with_suffix(".html"), title)
