"""One row by the quick way is one row by the slow way, bit by bit."""

import numpy as np
import pytest

from companion.features.defaults import (
    FEATURES,
    MissingWindowsError,
    UnknownFeatureError,
    feature_table,
    online_features,
    windows_of,
)
from companion.features.history import InvalidValuesError
from companion.features.online import OnlineWindows
from companion.features.single import SingleRow
from companion.transactions import MissingColumnsError, simulate


@pytest.fixture(scope="module")
def table():
    return simulate(3_000, seed=5)


@pytest.fixture(scope="module")
def rows(table):
    return table.to_dict("records")


@pytest.fixture(scope="module")
def state(table, rows):
    state = OnlineWindows(windows_of())
    for row in rows:
        state.observe(row)
    reported = table["label_time"].notna()
    for row in table[reported].to_dict("records"):
        state.report(row["transaction_id"], row["label_time"])
    return state


def test_every_value_of_a_table_is_the_same_bit_by_bit(table, rows, state):
    single = SingleRow(state)

    made = np.vstack([single(row) for row in rows])

    np.testing.assert_array_equal(made, feature_table(table).to_numpy())


def test_a_stranger_with_odd_numbers_gets_what_the_slow_way_gives(rows, state):
    stranger = {**rows[-1], "customer_id": -5, "amount": 0.001, "distance_km": -3.0}

    assert SingleRow(state)(stranger)[0].tolist() == list(online_features(state, stranger).values())


def test_some_of_the_features_come_in_the_order_asked_for(rows, state):
    names = ("merchant_risk_30d", "log_amount")

    assert SingleRow(state, names)(rows[9])[0].tolist() == list(
        online_features(state, rows[9], names).values()
    )


def test_the_stdlibs_times_are_read_as_those_of_pandas(rows, state):
    single = SingleRow(state)
    row = rows[100]

    plain = single({**row, "time": row["time"].to_pydatetime()})

    np.testing.assert_array_equal(plain, single(row))


def test_a_feature_that_nobody_knows_is_refused(state):
    with pytest.raises(UnknownFeatureError):
        SingleRow(state, ("log_amount", "shoe_size"))


def test_a_state_that_keeps_too_little_is_refused():
    with pytest.raises(MissingWindowsError):
        SingleRow(OnlineWindows(windows_of(("merchant_risk_30d",))))


def test_a_row_without_an_amount_is_refused(rows, state):
    without = {name: value for name, value in rows[0].items() if name != "distance_km"}

    with pytest.raises(MissingColumnsError):
        SingleRow(state)(without)
    with pytest.raises(InvalidValuesError):
        SingleRow(state)({**rows[0], "distance_km": float("nan")})


def test_one_row_is_1_by_12(rows, state):
    assert SingleRow(state)(rows[0]).shape == (1, len(FEATURES))
