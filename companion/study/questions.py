"""One question as a notebook uses it: `q = question(23)`, then `q.verdict(...)`, `q.check(...)`.

The methods return what is to be shown, as the last expression of a cell. Where a person sits
before the kernel they use widgets and the learner's log; where a machine runs the notebook they
show plain, repeatable text and write nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from html import escape
from typing import Any

from companion.study import display
from companion.study.catalogue import Catalogue, read_catalogue
from companion.study.checking import Examination, Outcome, examine
from companion.study.exercise import Exercise, load_exercise
from companion.study.ledger import Answer
from companion.study.progress import Kind, Progress
from companion.study.recall import (
    RATINGS,
    due_after,
    make_scheduler,
    memory,
    suggested_rating,
)
from companion.study.verdicts import Finding, compare
from companion.study.workbook import Workbook

WORDS_PER_MINUTE = 150
SPOKEN_WORDS = (80, 220)  # about half a minute to a minute and a half


class SpokenAnswerError(ValueError):
    """The answer to say aloud is too short to be one, or too long to be listened to."""


class Question:
    """One written question. Build it with `question(number)`."""

    def __init__(
        self, answer: Answer, exercise: Exercise, progress: Progress, *, person: bool, fuzz: bool
    ) -> None:
        self.answer = answer
        self.exercise = exercise
        self._progress = progress
        self._person = person
        self._scheduler = make_scheduler(fuzz=fuzz)
        self._failed_with = "start"
        self._hints_shown = 0
        self._said = ""

    def __repr__(self) -> str:
        return f"<{self.answer.label} {self.answer.title}>"

    def heading(self) -> display.Shown:
        """Part, level and minutes, and when the question was last recalled and is due."""
        return display.show_heading(self.answer, self._standing())

    def attempt(self) -> Any:
        """Ask for the learner's own answer before anything is shown."""
        prompt = f"Before you read on: answer aloud or in writing. “{self.answer.question}”"
        if not self._person:
            return display.show_note("Your turn first", prompt)
        from companion.study.widgets import answer_box

        return answer_box(escape(prompt), self._answered)

    def received(self) -> display.Shown:
        """The claims of the received answer, numbered, in our words."""
        return display.show_received(self.answer.claims)

    def verdict(self, findings: Mapping[str, Finding]) -> display.Shown:
        """The table of claims and verdicts of this run.

        Raises:
            VerdictMismatchError: this run and the ledger differ.
        """
        return display.show_verdicts(compare(self.answer.claims, findings))

    def say(self, text: str) -> display.Spoken:
        """The answer to say aloud, with this run's numbers in it.

        Raises:
            SpokenAnswerError: it would take much less or much more than a minute.
        """
        words = len(text.split())
        if not SPOKEN_WORDS[0] <= words <= SPOKEN_WORDS[1]:
            raise SpokenAnswerError(
                f"{words} words: an answer to say aloud has {SPOKEN_WORDS[0]} to "
                f"{SPOKEN_WORDS[1]}, about a minute at {WORDS_PER_MINUTE} words a minute"
            )
        return display.Spoken(text)

    def check(self, attempt: Any = None) -> display.Shown:
        """Hold the learner's attempt against the checks. Never shows the solution."""
        told = examine(self.exercise, attempt)
        self._record(Kind.CHECKED, outcome=told.outcome.value, check=told.check)
        if told.outcome in (Outcome.FAILED, Outcome.RAISED):
            self._failed_with, self._hints_shown = told.hint, 1
        return self._show(told)

    def hint(self) -> display.Shown:
        """The next hint for the last mistake; each says more than the one before."""
        levels = self.exercise.hints[self._failed_with]
        if self._hints_shown >= len(levels):
            return display.show_note(
                "No more hints for this one", "q.solution() shows ours, if you have tried enough."
            )
        self._hints_shown += 1
        self._record(Kind.HINTED, hint=self._failed_with, level=self._hints_shown)
        title = f"Hint {self._hints_shown} of {len(levels)}"
        return display.show_note(title, levels[self._hints_shown - 1])

    def solution(self) -> display.Shown:
        """Our solution. It counts as having looked when the recall is rated."""
        self._record(Kind.SOLUTION_SHOWN)
        return display.show_code("One solution", self.exercise.solution_source)

    def follow_ups(self) -> display.Shown:
        """What comes next in an interview, and what not to say."""
        return display.show_follow_ups(self.answer)

    def recall(self, rating: str | None = None) -> Any:
        """Rate how well it went and get the date of the next time.

        Raises:
            UnknownRatingError: `rating` is not again, hard, good or easy.
        """
        if rating is not None:
            return self._rated(rating)
        if not self._person:
            return display.show_note(
                "How well did it go?",
                "In JupyterLab, rate it here: again, hard, good or easy. The date of your next "
                "time follows from it.",
            )
        from companion.study.widgets import rating_buttons

        suggested, evidence = suggested_rating(self._events())
        prompt = f"How well did it go? Suggested: {suggested} ({evidence})"
        return rating_buttons(prompt, tuple(RATINGS), suggested, self._rated)

    def _answered(self, text: str, seconds: float) -> display.Shown:
        heard = self._heard(text)
        made = sum(was for _, was in heard)
        self._said = text
        self._record(Kind.ANSWERED, seconds=round(seconds), points=made, of=len(heard))
        return display.show_note(
            f"{made} of {len(heard)} points heard in {seconds:.0f} s",
            "Which ones, the end of this notebook shows. Now see what the received answer claims.",
        )

    def _rated(self, rating: str) -> display.Shown:
        at = self._progress.clock()
        due = due_after(rating, at, self._events(), self._scheduler)
        self._record(Kind.RECALLED, rating=rating, due=due.isoformat())
        note = display.show_note(
            f"Recalled: {rating}", f"Next time on {_day(due)}. `companion next` tells what is due."
        )
        if not self._said:
            return note
        rubric = display.show_rubric(self._heard(self._said))
        return display.Shown(note.html + rubric.html, f"{note.text}\n{rubric.text}")

    def _heard(self, text: str) -> list[tuple[str, bool]]:
        said = text.lower()
        return [
            (point.point, any(signal.lower() in said for signal in point.signals))
            for point in self.answer.rubric
        ]

    def _show(self, told: Examination) -> display.Shown:
        levels = self.exercise.hints[told.hint] if told.hint else ()
        return display.show_examination(told, levels[0] if levels else "", len(levels) - 1)

    def _standing(self) -> str:
        if not self._person:
            return "Your own dates stand here when you open this notebook in JupyterLab."
        standing = memory(self.answer.id, self._events(), self._scheduler)
        if standing.last is None or standing.due is None:
            return "Not recalled yet."
        when = "due now" if standing.is_due(self._progress.clock()) else f"due {_day(standing.due)}"
        return f"Last recalled {_day(standing.last)}, {when}, {standing.recalls} recalls so far."

    def _events(self) -> list[Any]:
        return [e for e in self._progress.events() if e.question == self.answer.id]

    def _record(self, kind: Kind, **details: Any) -> None:
        if self._person:
            self._progress.record(self.answer.id, kind, **details)


def open_question(
    number: int,
    workbook: Workbook,
    *,
    catalogue: Catalogue | None = None,
    progress: Progress | None = None,
    person: bool | None = None,
    fuzz: bool = True,
) -> Question:
    """The question of this number, with its answer and its exercise.

    Raises:
        UnknownQuestionError: not 1 to 50.
        NotWrittenYetError: on the map only.
        LedgerError, MissingNotebookError, ExerciseError, FileNotFoundError: the files are wrong.
    """
    answer = (catalogue or read_catalogue(workbook)).answer(number)
    exercise = load_exercise(workbook.exercise(answer.stem))
    present = display.person_present() if person is None else person
    opened = Question(answer, exercise, progress or Progress(), person=present, fuzz=fuzz)
    opened._record(Kind.OPENED)
    return opened


def question(number: int) -> Question:
    """Open a question of this workbook and show its heading; see `open_question` for errors."""
    opened = open_question(number, Workbook.find())
    from IPython.display import display as show

    show(opened.heading())  # type: ignore[no-untyped-call]
    return opened


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"
