"""Splits follow the clock, leave the label delay out, and refuse chance without a reason."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.models.splits import (
    EmptyPartError,
    NaiveTimesError,
    PartWithoutFraudError,
    RandomSplitRefusedError,
    SplitError,
    UnsortedTimesError,
    random_split,
    split,
    split_by_time,
)
from companion.transactions import MissingColumnsError

DAY = pd.Timedelta(days=1)


def table(days, fraud=None):
    """One row for each number in `days` (days since a start), all fraud unless said otherwise."""
    start = pd.Timestamp("2026-01-05", tz="UTC")
    times = pd.DatetimeIndex([start + day * DAY for day in days]).as_unit("us")
    return pd.DataFrame(
        {"time": times, "is_fraud": [True] * len(times) if fraud is None else fraud}
    )


def test_the_test_part_is_the_last_share_of_the_rows():
    parts = split_by_time(table(range(100)), test_share=0.2, label_delay_days=0)
    assert parts.test.tolist() == list(range(80, 100))
    assert parts.train.tolist() == list(range(80))
    assert len(parts.validation) == 0
    assert parts.validation_from is None


def test_rows_within_the_label_delay_before_the_cut_are_in_no_part():
    parts = split_by_time(table(range(100)), test_share=0.2, label_delay_days=7)
    assert parts.train.tolist() == list(range(74))  # day 73 is exactly 7 days before day 80
    assert parts.left_out == 6
    assert "6 of 100" in parts.why_left_out
    assert "7 days" in parts.why_left_out


def test_there_is_a_gap_before_validation_and_another_before_the_test():
    parts = split_by_time(
        table(range(100)), test_share=0.2, validation_share=0.3, label_delay_days=10
    )
    assert parts.train.tolist() == list(range(41))
    assert parts.validation.tolist() == list(range(50, 71))
    assert parts.test.tolist() == list(range(80, 100))
    assert parts.left_out == 18


def test_the_cuts_are_the_times_of_the_first_rows():
    transactions = table(range(100))
    parts = split_by_time(transactions, validation_share=0.3)
    assert parts.test_from == transactions["time"].iloc[parts.test[0]]
    assert parts.validation_from == transactions["time"].iloc[parts.validation[0]]


def test_rows_of_one_instant_are_not_separated():
    parts = split_by_time(table([0, 1, 2, 3, 3, 3, 3, 4]), test_share=0.3, label_delay_days=0)
    assert parts.test.tolist() == [3, 4, 5, 6, 7]
    assert parts.train.tolist() == [0, 1, 2]


def test_positions_count_rows_whatever_the_index():
    transactions = table(range(50)).set_index(pd.Index(range(1000, 1050)))
    parts = split_by_time(transactions, label_delay_days=1)
    assert transactions.iloc[parts.test]["time"].min() == parts.test_from


@settings(deadline=None, max_examples=200)
@given(
    days=st.lists(st.integers(0, 60), min_size=20, max_size=120),
    test_share=st.floats(0.05, 0.9),
    validation_share=st.floats(0.0, 0.5),
    delay=st.floats(0.0, 10.0),
)
def test_every_label_of_an_earlier_part_was_known_at_the_cut(
    days, test_share, validation_share, delay
):
    transactions = table(sorted(days))
    try:
        parts = split_by_time(
            transactions,
            test_share=test_share,
            validation_share=validation_share,
            label_delay_days=delay,
        )
    except SplitError:
        return
    time = transactions["time"]
    wait = pd.Timedelta(days=delay)
    first_cut = parts.test_from if parts.validation_from is None else parts.validation_from
    assert (time.iloc[parts.train] < first_cut).all()
    assert (time.iloc[parts.train] + wait <= first_cut).all()
    assert (time.iloc[parts.validation] + wait <= parts.test_from).all()
    assert (time.iloc[parts.validation] >= first_cut).all()
    assert (time.iloc[parts.test] >= parts.test_from).all()
    together = np.concatenate([parts.train, parts.validation, parts.test])
    assert len(set(together.tolist())) == len(together) == len(transactions) - parts.left_out


# What is refused


@pytest.mark.parametrize(
    "convert",
    [lambda time: time.dt.tz_localize(None), lambda time: time.astype(str), lambda time: 1.0],
    ids=["naive", "text", "numbers"],
)
def test_times_without_a_zone_are_refused(convert):
    transactions = table(range(50))
    transactions["time"] = convert(transactions["time"])
    with pytest.raises(NaiveTimesError, match="tz_localize"):
        split_by_time(transactions)


def test_unsorted_times_are_refused_with_the_first_row_out_of_order():
    with pytest.raises(UnsortedTimesError, match="sort_values") as caught:
        split_by_time(table([0, 1, 5, 3, 2, 9]))
    assert caught.value.position == 3


@pytest.mark.parametrize("position", [0, 4])
def test_a_missing_time_is_refused(position):
    transactions = table(range(20))
    transactions.loc[position, "time"] = pd.NaT
    with pytest.raises(UnsortedTimesError) as caught:
        split_by_time(transactions)
    assert caught.value.position == position


@pytest.mark.parametrize("column", ["time", "is_fraud"])
def test_a_missing_column_is_named(column):
    with pytest.raises(MissingColumnsError, match=column):
        split_by_time(table(range(50)).drop(columns=column))


def test_a_delay_that_swallows_the_training_is_refused_with_the_number_of_rows_lost():
    with pytest.raises(EmptyPartError, match="train") as caught:
        split_by_time(table(range(20)), label_delay_days=30)
    assert caught.value.part == "train"
    assert caught.value.left_out == 14


def test_a_delay_that_swallows_the_validation_is_refused():
    with pytest.raises(EmptyPartError, match="validation"):
        split_by_time(table(range(100)), validation_share=0.05, label_delay_days=7)


def test_too_few_rows_for_a_test_are_refused():
    for transactions in (table([0]), table([0]).iloc[:0]):
        with pytest.raises(EmptyPartError, match="test"):
            split_by_time(transactions)


@pytest.mark.parametrize(
    ("part", "frauds"),
    [("train", [60, 90]), ("validation", [5, 90]), ("test", [5, 60])],
)
def test_a_part_without_fraud_is_refused(part, frauds):
    transactions = table(range(100), fraud=np.isin(np.arange(100), frauds))
    with pytest.raises(PartWithoutFraudError) as caught:
        split_by_time(transactions, test_share=0.2, validation_share=0.3)
    assert caught.value.part == part


@pytest.mark.parametrize(
    "settings",
    [
        {"test_share": 0.0},
        {"test_share": 1.0},
        {"test_share": float("nan")},
        {"validation_share": -0.1},
        {"test_share": 0.6, "validation_share": 0.4},
        {"label_delay_days": -1},
        {"label_delay_days": float("inf")},
    ],
)
def test_shares_and_delays_out_of_range_are_refused(settings):
    with pytest.raises(SplitError, match=r"share|delay"):
        split_by_time(table(range(100)), **settings)


# By chance


def test_a_random_split_is_refused_when_it_is_only_a_setting():
    with pytest.raises(RandomSplitRefusedError, match="because"):
        split(table(range(50)), how="random")


def test_split_by_name_of_time_is_the_split_by_time():
    transactions = table(range(50))
    by_name = split(transactions, how="time", validation_share=0.3, label_delay_days=2)
    direct = split_by_time(transactions, validation_share=0.3, label_delay_days=2)
    assert np.array_equal(by_name.train, direct.train)
    assert np.array_equal(by_name.validation, direct.validation)


def test_another_way_of_splitting_is_refused():
    with pytest.raises(SplitError, match="by customer"):
        split(table(range(50)), how="by customer")


def test_a_random_split_with_a_reason_covers_every_row_once():
    parts = random_split(
        table(range(100)),
        because="the rows are simulated without time",
        seed=1,
        test_share=0.2,
        validation_share=0.1,
    )
    together = np.concatenate([parts.train, parts.validation, parts.test])
    assert sorted(together.tolist()) == list(range(100))
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (70, 10, 20)
    assert parts.because == "the rows are simulated without time"
    assert (np.diff(parts.test) > 0).all()


def test_a_random_split_is_the_same_for_the_same_seed():
    transactions = table(range(100))
    first, again, other = (
        random_split(transactions, because="a test", seed=seed).test.tolist() for seed in (1, 1, 2)
    )
    assert first == again != other


def test_a_random_split_without_a_reason_is_refused():
    with pytest.raises(SplitError, match="because"):
        random_split(table(range(50)), because="  ", seed=1)


def test_a_random_split_needs_labels():
    with pytest.raises(MissingColumnsError, match="is_fraud"):
        random_split(table(range(50)).drop(columns="is_fraud"), because="a test", seed=1)
