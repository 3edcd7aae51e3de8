"""Features of one transaction."""

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from companion.transactions import FEATURES, MissingColumnsError, feature_matrix, simulate


@pytest.fixture(scope="module")
def table():
    return simulate(2000, seed=1)


def test_the_matrix_has_the_named_features_as_finite_doubles(table):
    X, y = feature_matrix(table)
    assert tuple(X.columns) == FEATURES
    assert set(X.dtypes) == {np.dtype("float64")}
    assert np.isfinite(X).all().all()
    assert y.dtype == np.dtype("int64")
    assert y.sum() == table["is_fraud"].sum()


def test_a_feature_is_made_of_its_own_row_alone(table):
    X, _ = feature_matrix(table)
    alone, _ = feature_matrix(table.iloc[[700]])
    assert_frame_equal(alone, X.iloc[[700]])


def test_the_index_is_kept(table):
    X, y = feature_matrix(table.iloc[100:110])
    assert list(X.index) == list(y.index) == list(range(100, 110))


def test_midnight_lies_beside_the_hour_before(table):
    rows = table.iloc[:3].assign(hour=[23, 0, 12])
    X, _ = feature_matrix(rows)
    points = X[["hour_sin", "hour_cos"]].to_numpy()
    to_midnight = np.linalg.norm(points - points[1], axis=1)
    assert to_midnight[0] < 0.3 < 1.9 < to_midnight[2]


def test_an_amount_counts_against_the_customers_habit(table):
    rows = table.iloc[:2].assign(amount=[50.0, 50.0], usual_amount=[50.0, 5.0])
    X, _ = feature_matrix(rows)
    assert X["log_amount_to_usual"].tolist() == pytest.approx([0, np.log(10)])


def test_missing_columns_are_named():
    with pytest.raises(MissingColumnsError) as caught:
        feature_matrix(pd.DataFrame({"amount": [1.0], "hour": [1]}))
    assert "usual_amount" in caught.value.columns
    assert "amount" not in caught.value.columns
