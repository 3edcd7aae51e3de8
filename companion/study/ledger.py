"""The answer files: front matter as typed records, and the claims ledger they add up to.

An answer file is Markdown with YAML front matter, so that it reads well on a code host and is the
one place where a question's facts are written. Reading is strict: a malformed file is refused with
the file, the line and the field, since these files are edited by hand. pydantic says which field
is wrong; the YAML node tree says on which line that field stands.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from companion.study.verdicts import Verdict
from companion.study.workbook import STEM, Workbook

SECTIONS = ("In one breath", "In two minutes", "What the received answer gets wrong", "Sources")

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Record = TypeVar("Record", bound=BaseModel)


class LedgerError(ValueError):
    """A file of the ledger is malformed. Carries `path`, `line` (1-based) and `field`."""

    def __init__(self, path: Path, line: int, field: str, problem: str) -> None:
        super().__init__(f"{path.name}, line {line}, field {field!r}: {problem}")
        self.path, self.line, self.field, self.problem = path, line, field, problem


class MissingNotebookError(FileNotFoundError):
    """An answer file has no notebook of the same stem."""


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Claim(Strict):
    """One claim of the received answer, in our words, with the verdict of our runs and why."""

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    text: Text
    verdict: Verdict
    why: Text


class RubricPoint(Strict):
    """A point that a good answer makes, and the words that show it was made."""

    point: Text
    signals: Annotated[tuple[Text, ...], Field(min_length=1)]


class FollowUp(Strict):
    """A question that comes next, with its one-line answer."""

    question: Text
    answer: Text


class Entry(Strict):
    """A question as the map shows it. `minutes` is the time to study it."""

    id: Annotated[int, Field(ge=1, le=50)]
    slug: Text
    title: Text
    part: Annotated[int, Field(ge=1, le=4)]
    level: Literal["E", "M", "H"]
    minutes: Annotated[int, Field(ge=1, le=120)]
    topics: Annotated[tuple[Text, ...], Field(min_length=1)]

    @property
    def stem(self) -> str:
        return f"q{self.id:02d}_{self.slug}"

    @property
    def label(self) -> str:
        """The name that people use: `Q08`."""
        return f"Q{self.id:02d}"


class FrontMatter(Entry):
    """Everything above the body of an answer file."""

    question: Text
    claims: Annotated[tuple[Claim, ...], Field(min_length=1)]
    rubric: Annotated[tuple[RubricPoint, ...], Field(min_length=3)]
    follow_ups: Annotated[tuple[FollowUp, ...], Field(min_length=3)]
    red_flags: Annotated[tuple[Text, ...], Field(min_length=1)]


class Answer(FrontMatter):
    """A whole answer file: front matter and the sections of its body by heading."""

    sections: dict[str, str]
    path: Path


def read_answer(path: Path) -> Answer:
    """Read and check one answer file.

    Raises:
        LedgerError: with file, line and field.
    """
    stem = STEM.fullmatch(path.stem)
    if not stem:
        raise LedgerError(path, 1, "file name", "expected qNN_slug.md")
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines or lines[0] != "---" or "---" not in lines[1:]:
        raise LedgerError(
            path, 1, "front matter", "the file must begin with YAML between --- lines"
        )
    end = lines.index("---", 1)
    node = parse_yaml("\n".join(lines[1:end]), path, first_line=2)
    front = validated(FrontMatter, node, path, first_line=2)
    if (front.id, front.slug) != (int(stem["number"]), stem["slug"]):
        line = line_of(node, ("slug",)) + 2
        raise LedgerError(path, line, "slug", f"id and slug must match the file name {path.name}")
    ids = [claim.id for claim in front.claims]
    for position, claim_id in enumerate(ids):
        if claim_id in ids[:position]:
            line = line_of(node, ("claims", position, "id")) + 2
            raise LedgerError(path, line, "claims.id", f"two claims are called {claim_id!r}")
    sections = _sections(lines[end + 1 :], path, first_line=end + 2)
    return Answer(**dict(front), sections=sections, path=path)


def read_ledger(workbook: Workbook) -> list[Answer]:
    """All answer files by number.

    Raises:
        LedgerError: one of them is malformed.
        MissingNotebookError: one of them has no notebook.
    """
    answers = [read_answer(path) for path in workbook.answer_files()]
    for answer in answers:
        if not workbook.notebook(answer.stem).is_file():
            raise MissingNotebookError(
                f"answers/{answer.path.name} has no notebook notebooks/{answer.stem}.ipynb"
            )
    return answers


def parse_yaml(text: str, path: Path, *, first_line: int = 1) -> yaml.Node:
    """The YAML node tree of `text`, whose first line is line `first_line` of `path`."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = first_line + (error.problem_mark.line if error.problem_mark else 0)
        raise LedgerError(path, line, "front matter", f"not YAML: {error.problem}") from None
    if node is None:
        raise LedgerError(path, first_line, "front matter", "empty")
    return node


def validated(model: type[Record], node: yaml.Node, path: Path, *, first_line: int = 1) -> Record:
    """`node` as a `model`.

    Raises:
        LedgerError: naming the line of the first field that does not fit.
    """
    try:
        return model.model_validate(_plain(node))
    except ValidationError as error:
        first = error.errors()[0]
        location = first["loc"]
        field = ".".join(str(part) for part in location) or "front matter"
        line = line_of(node, location) + first_line
        raise LedgerError(path, line, field, first["msg"]) from None


def line_of(node: yaml.Node, location: Sequence[int | str]) -> int:
    """The 0-based line of the deepest part of `location` that exists in `node`."""
    for part in location:
        if isinstance(node, yaml.MappingNode):
            inside = [value for key, value in node.value if key.value == part]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            inside = node.value[part : part + 1]
        else:
            inside = []
        if not inside:
            break
        node = inside[0]
    return int(node.start_mark.line)


def _plain(node: yaml.Node) -> object:
    return yaml.SafeLoader("").construct_document(node)


def _sections(lines: list[str], path: Path, *, first_line: int) -> dict[str, str]:
    """The body by its `## ` headings; all four must be there and filled, in their order."""
    heads = [(i, m[1]) for i, line in enumerate(lines) if (m := re.fullmatch(r"## (.+)", line))]
    titles = tuple(title for _, title in heads)
    if titles != SECTIONS:
        raise LedgerError(path, first_line, "sections", f"expected {SECTIONS}, got {titles}")
    ends = [i for i, _ in heads[1:]] + [len(lines)]
    sections = {}
    for (start, title), end in zip(heads, ends, strict=True):
        sections[title] = "\n".join(lines[start + 1 : end]).strip()
        if not sections[title]:
            raise LedgerError(path, first_line + start, title, "the section is empty")
    return sections
