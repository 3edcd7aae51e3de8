"""The map of all fifty questions with the learner's dates, and what to study next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from fsrs import Scheduler

from companion.study.catalogue import Catalogue
from companion.study.ledger import Entry
from companion.study.progress import Event
from companion.study.recall import Memory, memory


@dataclass(frozen=True)
class Place:
    """A question on the map: what it is, whether it is written, where the learner stands."""

    entry: Entry
    written: bool
    memory: Memory

    def fits(
        self,
        *,
        part: int | None = None,
        level: str | None = None,
        topic: str | None = None,
        written: bool | None = None,
        due_at: datetime | None = None,
    ) -> bool:
        """Whether the question passes a filter; `None` lets everything through."""
        return (
            part in (None, self.entry.part)
            and level in (None, self.entry.level)
            and (topic is None or topic in self.entry.topics)
            and written in (None, self.written)
            and (due_at is None or self.memory.is_due(due_at))
        )


def places(catalogue: Catalogue, events: Sequence[Event], scheduler: Scheduler) -> list[Place]:
    """All fifty questions by number."""
    return [
        Place(entry, number in catalogue.answers, memory(number, events, scheduler))
        for number, entry in catalogue.entries.items()
    ]


@dataclass(frozen=True)
class Advice:
    """What to study now, and why. `place` is `None` when nothing is due and nothing is new."""

    place: Place | None
    reason: str


def next_question(all_places: Iterable[Place], at: datetime) -> Advice:
    """The question that has been due longest; else the first one never recalled.

    When nothing is due and nothing is new, the reason names what comes up first.
    """
    written = [place for place in all_places if place.written]
    if not written:
        return Advice(None, "no question is written yet")
    recalled = sorted(
        ((place.memory.due, place) for place in written if place.memory.due),
        key=lambda pair: pair[0],
    )
    if recalled and recalled[0][0] <= at:
        due, place = recalled[0]
        return Advice(place, f"due since {due:%Y-%m-%d}")
    for place in written:
        if place.memory.due is None:
            return Advice(place, "not recalled yet")
    due, place = recalled[0]
    return Advice(None, f"nothing is due; {place.entry.label} comes up on {due:%Y-%m-%d}")
