"""A view: what may be defined, what a frame must look like, and what it comes out as."""

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from companion.features.store import (
    FeatureView,
    FrameRefusedError,
    InvalidViewError,
    MissingColumnsError,
    MissingKeysError,
    MissingTimesError,
    NaiveTimeError,
    WrongDtypeError,
)

DAY = pd.Timestamp("2026-03-01", tz="UTC")


def make_view(**changed):
    settings = {
        "name": "spending",
        "entities": {"customer_id": "int64"},
        "features": {"mean": "float64", "count": "Int64", "abroad": "boolean", "city": "str"},
        "ttl": timedelta(days=7),
    }
    return FeatureView(**(settings | changed))


def make_frame(**changed):
    columns = {
        "customer_id": [1, 2],
        "event_time": [DAY, DAY],
        "created_time": [DAY, DAY],
        "mean": [1.5, np.nan],
        "count": [3, 4],
        "abroad": [True, False],
        "city": ["Wien", None],
    }
    return pd.DataFrame(columns | changed)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "Spending"}, "no name for a view"),
        ({"name": "a/b"}, "no name for a view"),
        ({"version": 0}, "versions count from 1"),
        ({"ttl": timedelta(0)}, "ttl must be positive"),
        ({"entities": {}}, "entities is empty"),
        ({"features": {}}, "features is empty"),
        ({"entities": {"customer_id": "float64"}}, "entities are int64, str"),
        ({"features": {"count": "int64"}}, "features are float64, Int64, boolean, str"),
        ({"features": {"customer_id": "float64"}}, "named twice: customer_id"),
        ({"features": {"spending_age": "float64"}}, "named twice: spending_age"),
    ],
)
def test_a_view_that_cannot_work_is_refused(changed, said):
    with pytest.raises(InvalidViewError, match=said):
        make_view(**changed)


def test_the_id_carries_name_and_version():
    assert make_view(version=3).id == "spending:3"


def test_the_fingerprint_changes_with_the_order_of_features():
    one = make_view(features={"a": "float64", "b": "float64"})
    other = make_view(features={"b": "float64", "a": "float64"})
    assert one.fingerprint != other.fingerprint


def test_rows_come_out_with_the_views_columns_and_dtypes():
    frame = make_frame(note=["x", "y"])[::-1]
    rows = make_view().checked_rows(frame)
    assert list(rows.columns) == list(make_view().columns)
    assert {name: str(dtype) for name, dtype in rows.dtypes.items()} == make_view().dtypes
    assert list(rows.index) == [0, 1]
    assert list(rows["customer_id"]) == [2, 1]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("customer_id", np.array([1, 2], dtype="int32")),
        ("mean", np.array([1.5, 2.5], dtype="float32")),
        ("count", pd.array([1, None], dtype="Int64")),
        ("abroad", pd.array([True, None], dtype="boolean")),
        ("city", pd.array(["Wien", None], dtype="string")),
        ("event_time", pd.to_datetime(["2026-03-01"] * 2).tz_localize("Europe/Vienna")),
    ],
)
def test_what_converts_without_loss_is_taken(column, values):
    rows = make_view().checked_rows(make_frame(**{column: values}))
    assert str(rows[column].dtype) == make_view().dtypes[column]


@pytest.mark.parametrize(
    ("column", "values", "kind", "said"),
    [
        ("customer_id", ["1", "2"], WrongDtypeError, "is str, and the view declares int64"),
        ("customer_id", [1.0, 2.0], WrongDtypeError, "is float64"),
        ("customer_id", [1.0, None], MissingKeysError, r"customer_id \(first at row 1\)"),
        ("mean", ["a", "b"], WrongDtypeError, "declares float64, for: mean"),
        ("mean", [1, 2], WrongDtypeError, "is int64"),
        ("count", [1.0, 2.5], WrongDtypeError, "declares Int64"),
        ("abroad", [0, 1], WrongDtypeError, "declares boolean"),
        ("city", pd.Series([1, "a"], dtype=object), WrongDtypeError, "is object"),
        ("event_time", ["2026-03-01"] * 2, WrongDtypeError, "not a time with a zone"),
        ("event_time", [pd.Timestamp("2026-03-01")] * 2, NaiveTimeError, "tz_localize"),
        ("created_time", [DAY, pd.NaT], MissingTimesError, r"created_time \(first at row 1\)"),
        (
            "event_time",
            pd.Series([DAY, DAY + pd.Timedelta(1, "ns")]).dt.as_unit("ns"),
            FrameRefusedError,
            "finer than a microsecond",
        ),
    ],
)
def test_a_frame_that_does_not_fit_is_refused_by_name(column, values, kind, said):
    if column == "event_time" and kind is FrameRefusedError:
        values = pd.Series(pd.to_datetime([0, 1], unit="ns", utc=True))
    with pytest.raises(kind, match=said) as refused:
        make_view().checked_rows(make_frame(**{column: values}))
    assert refused.value.columns == (column,)


def test_all_missing_columns_are_named_at_once():
    with pytest.raises(MissingColumnsError, match="created_time, mean") as refused:
        make_view().checked_rows(make_frame().drop(columns=["mean", "created_time"]))
    assert refused.value.columns == ("created_time", "mean")


def test_a_column_that_appears_twice_is_refused():
    frame = pd.concat([make_frame(), make_frame()[["mean"]]], axis=1)
    with pytest.raises(FrameRefusedError, match="twice: mean"):
        make_view().checked_rows(frame)


def test_what_is_no_frame_is_a_type_error():
    with pytest.raises(TypeError, match="expected a DataFrame, got list"):
        make_view().checked_rows([])


def test_only_the_first_rows_at_fault_are_shown():
    frame = pd.concat([make_frame()] * 10)
    with pytest.raises(MissingKeysError) as refused:
        make_view().checked_rows(frame.assign(customer_id=np.nan))
    assert refused.value.rows == (0, 1, 2, 3, 4)


def test_keys_of_several_columns_become_text_that_tells_types_apart():
    view = make_view(entities={"customer_id": "int64", "country": "str"})
    assert view.key_text((17, "DE")) == '17,"DE"'
    assert view.key_text((np.int64(17), '"')) == '17,"\\""'


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("17", WrongDtypeError),
        (17.0, WrongDtypeError),
        (True, WrongDtypeError),
        ((1, 2), WrongDtypeError),
        (None, MissingKeysError),
        (float("nan"), MissingKeysError),
        (pd.NA, MissingKeysError),
    ],
)
def test_a_key_of_another_kind_is_refused(key, kind):
    with pytest.raises(kind):
        make_view().key_text(key)
