"""The learner's log: append-only, mergeable, forgiving."""

import os
import warnings
from datetime import UTC, date, datetime, timedelta

import pytest

from companion.study.agenda import next_question, places
from companion.study.catalogue import read_catalogue
from companion.study.progress import Kind, Progress, ProgressWarning, data_folder
from companion.study.recall import (
    UnknownRatingError,
    due_after,
    make_scheduler,
    memory,
    streak,
    suggested_rating,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
STEADY = make_scheduler(fuzz=False)


class Calendar:
    def __init__(self):
        self.at = NOON

    def __call__(self):
        return self.at

    def pass_days(self, days):
        self.at += timedelta(days=days)


@pytest.fixture
def calendar():
    return Calendar()


@pytest.fixture
def progress(tmp_path, calendar):
    return Progress(tmp_path / "log", clock=calendar)


def recall(progress, question, rating):
    due = due_after(rating, progress.clock(), progress.events(), STEADY)
    return progress.record(question, Kind.RECALLED, rating=rating, due=due.isoformat())


def test_events_come_back_as_recorded(progress):
    progress.record(23, Kind.CHECKED, outcome="failed", check="rare")
    (event,) = progress.events()
    assert (event.question, event.kind, event.at) == (23, Kind.CHECKED, NOON)
    assert event.details == {"outcome": "failed", "check": "rare"}


def test_logs_of_two_machines_merge_by_concatenation(tmp_path, calendar):
    one, two = Progress(tmp_path / "1", clock=calendar), Progress(tmp_path / "2", clock=calendar)
    one.record(1, Kind.OPENED)
    calendar.pass_days(-1)
    two.record(8, Kind.OPENED)
    merged = Progress(tmp_path / "3")
    merged.path.parent.mkdir()
    merged.path.write_bytes(one.path.read_bytes() + two.path.read_bytes() + one.path.read_bytes())
    assert [event.question for event in merged.events()] == [8, 1]


@pytest.mark.parametrize(
    "torn",
    [
        '{"id": "x", "at": "2026-',
        "[]",
        '{"id": "x"}',
        '{"at": 5}',
        "\udcff".encode("utf-8", "replace").decode(),
    ],
)
def test_a_torn_last_line_is_kept_and_reported_and_the_rest_is_used(progress, torn):
    progress.record(1, Kind.OPENED)
    with progress.path.open("a") as log:
        log.write(torn)
    with pytest.warns(ProgressWarning, match="line 2 is torn"):
        assert len(progress.events()) == 1
    progress.record(2, Kind.OPENED)
    with pytest.warns(ProgressWarning, match="line 2 is torn"):
        assert [event.question for event in progress.events()] == [1, 2]
    assert torn in progress.path.read_text()


def test_a_time_without_a_zone_is_no_event(progress):
    progress.record(1, Kind.OPENED)
    naive = progress.path.read_text().replace("+00:00", "")
    progress.path.write_text(naive)
    with pytest.warns(ProgressWarning, match="line 1"):
        assert progress.events() == []


@pytest.fixture
def unwritable(monkeypatch, progress):
    """A log whose file cannot be opened for writing, for root too."""
    progress.record(1, Kind.OPENED)
    opens = type(progress.path).open

    def read_only(path, mode="r", *args, **kwargs):
        if "a" in mode:
            raise PermissionError(13, "Permission denied")
        return opens(path, mode, *args, **kwargs)

    monkeypatch.setattr(type(progress.path), "open", read_only)
    return progress


def test_a_read_only_folder_warns_once_and_study_goes_on(unwritable):
    with pytest.warns(ProgressWarning, match="study goes on"):
        unwritable.record(2, Kind.OPENED)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unwritable.record(3, Kind.OPENED)
    assert [event.question for event in unwritable.events()] == [1, 2, 3]


def test_an_unreadable_log_is_reported(tmp_path):
    progress = Progress(tmp_path)
    progress.path.mkdir()
    with pytest.warns(ProgressWarning, match="cannot be read"):
        assert progress.events() == []


def test_no_log_is_an_empty_log(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Progress(tmp_path / "nothing").events() == []


def test_the_data_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    monkeypatch.delenv("COMPANION_DATA")
    assert "companion-workbook" in os.fspath(data_folder())


def test_a_better_rating_comes_back_later(progress):
    dues = [due_after(rating, NOON, [], STEADY) for rating in ("again", "hard", "good", "easy")]
    assert dues == sorted(dues)
    assert dues[0] >= NOON + timedelta(days=1)


def test_repeated_good_recalls_stretch_the_interval(progress, calendar):
    gaps = []
    for _ in range(3):
        due = datetime.fromisoformat(recall(progress, 1, "good").details["due"])
        gaps.append((due - calendar()).days)
        calendar.at = due
    assert gaps == sorted(set(gaps))


def test_an_unknown_rating_is_refused():
    with pytest.raises(UnknownRatingError, match="again, hard, good, easy"):
        due_after("perfect", NOON, [], STEADY)


def test_the_due_date_is_the_one_that_was_announced(progress):
    progress.record(1, Kind.RECALLED, rating="good", due="2026-04-01T00:00:00+00:00")
    assert memory(1, progress.events(), STEADY).due == datetime(2026, 4, 1, tzinfo=UTC)


def test_a_recall_without_a_due_date_is_replayed(progress):
    progress.record(1, Kind.RECALLED, rating="good")
    progress.record(1, Kind.RECALLED, rating="superb")  # written by some newer workbook
    standing = memory(1, progress.events(), STEADY)
    assert (standing.recalls, standing.due) == (1, due_after("good", NOON, [], STEADY))


def test_the_rating_is_suggested_by_the_evidence(progress):
    def suggestion(*steps):
        for kind, details in steps:
            progress.record(1, kind, **details)
        return suggested_rating(progress.events())[0]

    passed, failed = {"outcome": "passed"}, {"outcome": "failed"}
    assert suggestion((Kind.CHECKED, {"outcome": "not attempted"})) == "good"
    assert suggestion((Kind.CHECKED, passed)) == "easy"
    assert suggestion((Kind.HINTED, {})) == "hard"
    assert suggestion((Kind.SOLUTION_SHOWN, {})) == "again"
    assert suggestion((Kind.RECALLED, {"rating": "again"}), (Kind.CHECKED, failed)) == "good"
    assert suggestion(*[(Kind.CHECKED, failed)] * 3) == "hard"


def test_a_streak_counts_days_up_to_today_or_yesterday(progress, calendar):
    assert streak([], date(2026, 3, 1)) == 0
    for _ in range(3):
        progress.record(1, Kind.OPENED)
        calendar.pass_days(1)
    assert streak(progress.events(), date(2026, 3, 3)) == 3
    assert streak(progress.events(), date(2026, 3, 4)) == 3
    assert streak(progress.events(), date(2026, 3, 5)) == 0


def test_next_is_the_longest_due_then_the_first_new_then_nothing(workbook, progress, calendar):
    catalogue = read_catalogue(workbook)

    def advice():
        return next_question(places(catalogue, progress.events(), STEADY), calendar())

    assert (advice().place.entry.id, advice().reason) == (2, "not recalled yet")
    recall(progress, 2, "good")
    assert advice().place.entry.id == 7
    recall(progress, 7, "easy")
    assert advice().place is None
    assert advice().reason.startswith("nothing is due; Q02 comes up on")
    calendar.pass_days(400)
    assert advice().place.entry.id == 2
    assert advice().reason.startswith("due since")


def test_with_nothing_written_there_is_nothing_to_study():
    assert next_question([], NOON).reason == "no question is written yet"
