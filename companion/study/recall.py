"""When to ask again: spaced repetition by FSRS over the event log.

The state of a question's card is never stored. It is replayed from the log's recalls, so that
merged logs need no merging of states. Interview questions are cards of days, not of minutes: FSRS's
learning steps within one sitting are left out.

Source: the FSRS algorithm of the `fsrs` package (open-spaced-repetition).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from fsrs import Card, Rating, Scheduler

from companion.study.progress import Event, Kind

RATINGS = {"again": Rating.Again, "hard": Rating.Hard, "good": Rating.Good, "easy": Rating.Easy}


class UnknownRatingError(ValueError):
    """A recall is rated again, hard, good or easy."""

    def __init__(self, rating: object) -> None:
        super().__init__(f"unknown rating {rating!r}: say one of {', '.join(RATINGS)}")
        self.rating = rating


@dataclass(frozen=True)
class Memory:
    """Where a question stands: times in UTC, `None` before the first recall."""

    question: int
    recalls: int
    last: datetime | None
    due: datetime | None

    def is_due(self, at: datetime) -> bool:
        return self.due is not None and self.due <= at


def make_scheduler(*, fuzz: bool = True) -> Scheduler:
    """FSRS with steps of days. `fuzz` spreads due dates a little; tests turn it off."""
    return Scheduler(learning_steps=(), relearning_steps=(), enable_fuzzing=fuzz)


def checked_rating(rating: str) -> str:
    """Raises UnknownRatingError."""
    if rating not in RATINGS:
        raise UnknownRatingError(rating)
    return rating


def memory(question: int, events: Iterable[Event], scheduler: Scheduler) -> Memory:
    """Replay the recalls of one question, in the order of time.

    A recall's due date is fixed when it happens and kept in the event, since fuzzing would
    otherwise move it at every replay.
    """
    recalls = _recalls(event for event in events if event.question == question)
    if not recalls:
        return Memory(question, 0, None, None)
    last = recalls[-1]
    due = last.details.get("due")
    return Memory(
        question,
        len(recalls),
        last.at,
        datetime.fromisoformat(due) if due else _card(recalls, scheduler).due,
    )


def due_after(
    rating: str, at: datetime, earlier: Iterable[Event], scheduler: Scheduler
) -> datetime:
    """When a question rated now is due again, given its events so far.

    Raises:
        UnknownRatingError.
    """
    card = _card(_recalls(earlier), scheduler)
    card, _ = scheduler.review_card(card, RATINGS[checked_rating(rating)], at)
    return card.due


def suggested_rating(events: Sequence[Event]) -> tuple[str, str]:
    """A rating that the evidence since the last recall supports, and the evidence in words.

    Seeing the solution: again. Hints, or more than three failed checks: hard. Passed at the first
    check without a hint: easy. Otherwise good.
    """
    since: list[Event] = []
    for event in events:
        since = [] if event.kind is Kind.RECALLED else [*since, event]
    hints = sum(event.kind is Kind.HINTED for event in since)
    outcomes = [event.details.get("outcome") for event in since if event.kind is Kind.CHECKED]
    checks = [outcome for outcome in outcomes if outcome != "not attempted"]
    misses = sum(outcome != "passed" for outcome in checks)
    seen = f"{len(checks)} checks, {hints} hints"
    if any(event.kind is Kind.SOLUTION_SHOWN for event in since):
        return "again", "you looked at the solution"
    if hints or misses > 3:
        return "hard", seen
    if checks and checks[0] == "passed":
        return "easy", "passed at the first check"
    return "good", seen


def streak(events: Iterable[Event], today: date) -> int:
    """Days in a row with at least one event, up to today or yesterday."""
    days = {event.at.date() for event in events}
    day = today if today in days else today - timedelta(days=1)
    length = 0
    while day in days:
        length += 1
        day -= timedelta(days=1)
    return length


def _recalls(events: Iterable[Event]) -> list[Event]:
    """The recalls whose rating we know; a newer workbook may have written others."""
    return [e for e in events if e.kind is Kind.RECALLED and e.details.get("rating") in RATINGS]


def _card(recalls: Iterable[Event], scheduler: Scheduler) -> Card:
    card = Card(card_id=1)
    for event in recalls:
        card, _ = scheduler.review_card(card, RATINGS[event.details["rating"]], event.at)
    return card
