"""The fifty questions, written or not yet.

A written question is described by its answer file. The others stand in `answers/unwritten.yaml`,
and leave it when their answer is written, so that no fact about a question stands in two places.
"""

from __future__ import annotations

from dataclasses import dataclass

from companion.study.ledger import (
    Answer,
    Entry,
    LedgerError,
    Strict,
    line_of,
    parse_yaml,
    read_ledger,
    validated,
)
from companion.study.workbook import Workbook

PARTS = {1: "Foundation", 2: "System design", 3: "MLOps", 4: "Debugging"}
LEVELS = {"E": "easy", "M": "medium", "H": "hard"}


class UnknownQuestionError(LookupError):
    """There is no question of this number."""

    def __init__(self, number: object) -> None:
        super().__init__(f"there is no question {number!r}: the workbook has Q01 to Q50")
        self.number = number


class NotWrittenYetError(LookupError):
    """The question is on the map, but its notebook and answer are still to come."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(f"{entry.label} · {entry.title} is not written yet")
        self.entry = entry


class _Unwritten(Strict):
    questions: tuple[Entry, ...]


@dataclass(frozen=True)
class Catalogue:
    """Every question by number, and the answers of those that are written."""

    entries: dict[int, Entry]
    answers: dict[int, Answer]

    def entry(self, number: int) -> Entry:
        """Raises UnknownQuestionError."""
        if isinstance(number, bool) or number not in self.entries:
            raise UnknownQuestionError(number)
        return self.entries[number]

    def answer(self, number: int) -> Answer:
        """Raises UnknownQuestionError or NotWrittenYetError."""
        entry = self.entry(number)
        if number not in self.answers:
            raise NotWrittenYetError(entry)
        return self.answers[number]

    def neighbours(self, number: int) -> tuple[Answer | None, Answer | None]:
        """The written questions before and after this one."""
        before = [n for n in self.answers if n < number]
        after = [n for n in self.answers if n > number]
        return (
            self.answers[max(before)] if before else None,
            self.answers[min(after)] if after else None,
        )


def read_catalogue(workbook: Workbook) -> Catalogue:
    """Read all answer files and the list of unwritten questions.

    Raises:
        LedgerError: a file is malformed, or a question is both written and listed as unwritten.
        MissingNotebookError: an answer has no notebook.
    """
    answers = {answer.id: answer for answer in read_ledger(workbook)}
    path = workbook.unwritten
    node = parse_yaml(path.read_text(encoding="utf-8"), path)
    entries: dict[int, Entry] = dict(answers)
    for position, entry in enumerate(validated(_Unwritten, node, path).questions):
        if entry.id in entries:
            line = line_of(node, ("questions", position)) + 1
            raise LedgerError(
                path, line, "id", f"{entry.label} is written already, or listed twice"
            )
        entries[entry.id] = entry
    return Catalogue(dict(sorted(entries.items())), answers)
