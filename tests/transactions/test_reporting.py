"""When a fraud becomes known."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from companion.transactions import MissingColumnsError, NaiveTimeError, known_fraud, simulate
from companion.transactions.reporting import LONGEST_DELAY_DAYS, NEVER_REPORTED

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def table():
    return simulate(50_000, seed=1, fraud_rate=0.1)


@pytest.fixture(scope="module")
def delay(table):
    """Days from each fraud to its report."""
    frauds = table[table["is_fraud"]]
    return (frauds["label_time"] - frauds["time"]) / pd.Timedelta(days=1)


def test_only_frauds_are_reported(table):
    assert table.loc[~table["is_fraud"], "label_time"].isna().all()


def test_the_stated_share_is_never_reported(delay):
    assert delay.isna().mean() == pytest.approx(NEVER_REPORTED, abs=0.015)


def test_reports_take_days_to_weeks_and_never_more_than_the_longest(delay):
    assert delay.min() > 0
    assert delay.max() <= LONGEST_DELAY_DAYS
    assert delay.median() == pytest.approx(10, rel=0.1)


def test_a_week_of_waiting_catches_some_and_not_all(delay):
    assert 0.25 < (delay <= 7).mean() < 0.45


def test_known_is_what_was_reported_by_then(table):
    known = known_fraud(table, NOW)
    assert known.dtype == np.dtype(bool)
    assert np.array_equal(known, (table["label_time"] <= NOW).to_numpy())
    assert 0 < known.sum() < table["is_fraud"].sum()


def test_a_report_counts_from_its_own_instant_on(table):
    reported = table["label_time"].dropna().iloc[0]
    row = table["label_time"] == reported
    assert known_fraud(table, reported)[row].all()
    assert not known_fraud(table, reported - pd.Timedelta("1us"))[row].any()


def test_the_zone_of_now_does_not_matter(table):
    tokyo = pd.Timestamp(NOW).tz_convert("Asia/Tokyo")
    assert np.array_equal(known_fraud(table, tokyo), known_fraud(table, NOW))


def test_some_frauds_are_never_known(table):
    late = known_fraud(table, datetime(2030, 1, 1, tzinfo=UTC))
    assert late.sum() == table["label_time"].notna().sum() < table["is_fraud"].sum()


def test_now_without_a_zone_is_refused(table):
    with pytest.raises(NaiveTimeError) as caught:
        known_fraud(table, datetime(2026, 3, 1))
    assert caught.value.parameter == "now"
    assert caught.value.value == datetime(2026, 3, 1)


@pytest.mark.parametrize("column", ["is_fraud", "label_time"])
def test_a_missing_column_is_named(table, column):
    with pytest.raises(MissingColumnsError) as caught:
        known_fraud(table.drop(columns=column), NOW)
    assert caught.value.columns == (column,)
