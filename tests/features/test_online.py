"""State that is updated event by event: repeats, late reports, forgetting, and what is refused."""

import pandas as pd
import pytest

from companion.features.definitions import WindowFeature
from companion.features.history import ConflictingEventError, InvalidValuesError
from companion.features.online import ForgottenError, OnlineWindows
from companion.transactions import MissingColumnsError

NOON = pd.Timestamp("2026-03-01 12:00", tz="UTC")
COUNT = WindowFeature("n", ("customer_id",), 1, "count")
SUM = WindowFeature("sum", ("customer_id",), 1, "sum", "amount", neutral=-1.0)
RISK = WindowFeature("risk", ("customer_id",), 30, "risk", label_delay_days=7)


def event(number, hours, **changed):
    return {
        "transaction_id": number,
        "time": NOON + pd.Timedelta(hours=hours),
        "customer_id": "c",
        "amount": 1.5,
    } | changed


@pytest.fixture
def state():
    return OnlineWindows([COUNT, SUM, RISK])


def test_a_new_customer_has_the_neutral_values(state):
    assert state.values(event(0, 0)) == {"n": 0.0, "sum": -1.0, "risk": 0.0}


def test_asking_changes_nothing(state):
    state.values(event(0, 0))
    assert len(state) == 0
    assert state.values(event(1, 1))["n"] == 0


def test_a_repeated_event_is_known_and_changes_nothing(state):
    assert state.observe(event(0, 0))
    assert not state.observe(event(0, 0))
    assert state.values(event(1, 1)) == {"n": 1.0, "sum": 1.5, "risk": 0.0}


def test_a_late_event_takes_its_place(state):
    state.observe(event(0, 0))
    state.observe(event(2, 10, amount=4.0))
    state.observe(event(1, 5, amount=2.0))
    assert state.values(event(3, 11))["sum"] == 7.5
    assert state.values(event(3, 9))["sum"] == 3.5


def test_an_id_with_other_content_is_refused(state):
    state.observe(event(0, 0))
    for other in (event(0, 1), event(0, 0, amount=2.0), event(0, 0, customer_id="d")):
        with pytest.raises(ConflictingEventError):
            state.observe(other)
    assert len(state) == 1


def test_of_several_reports_the_earliest_counts(state):
    state.observe(event(0, 0))
    for days in (20, 3, 9, 3):
        state.report(0, NOON + pd.Timedelta(days=days))
    assert state.values(event(1, 7 * 24))["risk"] == 1.0


def test_a_report_that_comes_after_the_delay_counts_in_no_risk(state):
    state.observe(event(0, 0))
    state.report(0, NOON + pd.Timedelta(days=7, microseconds=1))
    assert state.values(event(1, 20 * 24))["risk"] == 0.0


def test_a_label_inside_an_event_is_not_looked_at(state):
    state.observe(event(0, 0, is_fraud=True, label_time=NOON))
    assert state.values(event(1, 8 * 24))["risk"] == 0.0


def test_what_no_window_reaches_is_forgotten(state):
    for number in range(10):
        state.observe(event(number, 24 * number))
        state.report(number, NOON + pd.Timedelta(days=number + 1))
    state.forget(NOON + pd.Timedelta(days=40))
    assert len(state) == 6
    assert not state.observe(event(3, 24 * 3))
    state.forget(NOON + pd.Timedelta(days=39))
    assert state.values(event(99, 24 * 40))["risk"] == 1.0
    state.forget(NOON + pd.Timedelta(days=90))
    assert len(state) == 0


def test_the_last_microsecond_that_a_window_reaches_is_kept(state):
    since = NOON + pd.Timedelta(days=37)  # 30 days of window and 7 of delay after NOON
    state.observe(event(0, 0))
    state.observe(event(1, 0, time=NOON + pd.Timedelta(microseconds=1)))
    state.report(1, NOON + pd.Timedelta(days=1))
    state.forget(since)
    assert len(state) == 1
    assert state.values(event(2, 0, time=since))["risk"] == 1.0


def test_a_question_about_the_forgotten_past_is_refused(state):
    state.observe(event(0, 0))
    state.forget(NOON + pd.Timedelta(hours=5))
    with pytest.raises(ForgottenError, match="2026-03-01T17") as caught:
        state.values(event(1, 4))
    assert caught.value.since_us - caught.value.asked_us == 3_600_000_000


def test_missing_columns_are_named(state):
    with pytest.raises(MissingColumnsError) as caught:
        state.observe({"time": NOON, "customer_id": 1})
    assert caught.value.columns == ("transaction_id", "amount")


@pytest.mark.parametrize(
    ("column", "bad"),
    [("time", None), ("customer_id", None), ("amount", float("nan")), ("amount", None)],
)
def test_a_value_that_is_missing_is_refused_and_leaves_no_trace(state, column, bad):
    with pytest.raises(InvalidValuesError) as caught:
        state.observe(event(0, 0, **{column: bad}))
    assert caught.value.column == column
    assert len(state) == 0
    assert state.values(event(1, 1))["n"] == 0


def test_a_time_may_be_text_or_of_another_zone(state):
    state.observe(event(0, 0, time="2026-03-01T12:00:00"))
    state.observe(event(1, 0, time=pd.Timestamp("2026-03-01 13:00", tz="Europe/Vienna")))
    assert state.values(event(2, 0))["n"] == 2
