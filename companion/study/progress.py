"""The learner's log: what was opened, answered, checked, hinted at and recalled, and when.

Append-only, one JSON object a line, in the user's data folder. Nothing is ever rewritten, so logs
of two machines are merged by concatenating them (`cat a b > c`); events carry ids, and one that
stands in both counts once. Everything that is shown (last recall, streak, what is due) is computed
from the events.
"""

from __future__ import annotations

import json
import os
import uuid
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import platformdirs

FILE_NAME = "progress.jsonl"


class Kind(StrEnum):
    """What can happen to a question."""

    OPENED = "opened"
    ANSWERED = "answered"
    CHECKED = "checked"
    HINTED = "hinted"
    SOLUTION_SHOWN = "solution-shown"
    RECALLED = "recalled"


class ProgressWarning(UserWarning):
    """Something about the log that the learner should know; study goes on."""


@dataclass(frozen=True)
class Event:
    """One thing that happened. `at` is in UTC; `details` depend on the kind."""

    id: str
    at: datetime
    question: int
    kind: Kind
    details: dict[str, Any] = field(default_factory=dict)

    def to_line(self) -> str:
        record = {"id": self.id, "at": self.at.isoformat(), "question": self.question}
        return json.dumps({**record, "kind": self.kind.value, **self.details}, sort_keys=True)

    @classmethod
    def from_line(cls, line: str) -> Event:
        """Raises ValueError, KeyError or TypeError on a line that is no event."""
        record = json.loads(line)
        at = datetime.fromisoformat(record.pop("at"))
        if at.tzinfo is None:
            raise ValueError("the time of an event has a time zone")
        return cls(
            id=str(record.pop("id")),
            at=at.astimezone(UTC),
            question=int(record.pop("question")),
            kind=Kind(record.pop("kind")),
            details=record,
        )


def now() -> datetime:
    """The wall clock in UTC: dates of study, never durations."""
    return datetime.now(UTC)


def data_folder() -> Path:
    """Where the learner's log lives; `COMPANION_DATA` overrides the platform's place."""
    chosen = os.environ.get("COMPANION_DATA")
    return Path(chosen) if chosen else platformdirs.user_data_path("companion-workbook")


class Progress:
    """The log in one folder. `clock` gives the time of new events."""

    def __init__(self, folder: Path | None = None, *, clock: Callable[[], datetime] = now) -> None:
        self.path = (folder or data_folder()) / FILE_NAME
        self.clock = clock
        self._warned_read_only = False
        self._unwritten: list[Event] = []

    def record(self, question: int, kind: Kind, **details: Any) -> Event:
        """Append an event.

        Where the log cannot be written, the event is kept for this process and one warning says so.
        """
        event = Event(uuid.uuid4().hex, self.clock(), question, kind, details)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # One write of a whole line in append mode: two notebooks may do this at once. A line
            # that an earlier crash left torn is closed first, so that it spoils nothing but itself.
            with self.path.open("ab") as log:
                log.write(
                    (b"" if self._ends_a_line() else b"\n") + event.to_line().encode() + b"\n"
                )
        except OSError as error:
            self._unwritten.append(event)
            if not self._warned_read_only:
                self._warned_read_only = True
                warnings.warn(
                    f"your progress cannot be saved ({error.strerror}: {self.path}); study goes "
                    "on, and is forgotten when this kernel stops",
                    ProgressWarning,
                    stacklevel=2,
                )
        return event

    def events(self) -> list[Event]:
        """All events by time (equal times as logged), each once.

        Lines that are no events are reported and left alone.
        """
        found: dict[str, Event] = {}
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            lines = []
        except OSError as error:
            lines = []
            warnings.warn(
                f"your progress cannot be read ({error.strerror}: {self.path})",
                ProgressWarning,
                stacklevel=2,
            )
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                event = Event.from_line(line)
            except (ValueError, KeyError, TypeError, AttributeError):
                warnings.warn(
                    f"{self.path}, line {number} is torn and was left out; the rest is used",
                    ProgressWarning,
                    stacklevel=2,
                )
            else:
                found[event.id] = event
        found.update((event.id, event) for event in self._unwritten)
        return sorted(found.values(), key=lambda event: event.at)

    def _ends_a_line(self) -> bool:
        if not self.path.exists() or self.path.stat().st_size == 0:
            return True
        with self.path.open("rb") as log:
            log.seek(-1, os.SEEK_END)
            return log.read(1) == b"\n"
