"""A frame comes back as it was saved, or is refused."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from companion.features import InvalidFrameError, SchemaMismatchError, schema_of
from companion.features.frames import check_frame, check_schema, decode, encode

DAYS = pd.date_range("2026-10-25", periods=3, freq="h", tz="Europe/Vienna")

SURVIVES = {
    "floats with gaps and infinities": [1.5, np.nan, -np.inf],
    "single precision": np.array([1, 2, 3], dtype="float32"),
    "small integers": np.array([1, 2, 3], dtype="int8"),
    "large unsigned integers": np.array([0, 1, 2**64 - 1], dtype="uint64"),
    "truth values": [True, False, True],
    "nullable integers": pd.array([1, None, 3], dtype="Int64"),
    "nullable truth values": pd.array([True, None, False], dtype="boolean"),
    "text with gaps": ["a", None, "ü"],
    "times of a zone through the repeated hour": DAYS,
    "times in UTC": DAYS.tz_convert("UTC"),
    "times without a zone in nanoseconds": DAYS.tz_localize(None).astype("datetime64[ns]"),
    "categories, some unused": pd.Categorical(["b", None, "a"], categories=["z", "b", "a"]),
    "ordered categories": pd.Categorical(["lo", "hi", "lo"], ["lo", "hi"], ordered=True),
    "durations": pd.to_timedelta([1, 2, 3], unit="ms"),
}

REFUSED = {
    "objects that are text": pd.Series(["a", None, "b"], dtype=object),
    "objects of several kinds": pd.Series([1, "a", None], dtype=object),
    "lists": pd.Series([[1], [2], [3]], dtype=object),
    "times in whole seconds": DAYS.tz_localize(None).astype("datetime64[s]"),
    "categories that are no text": pd.Categorical([3, 1, 3]),
    "complex numbers": np.array([1j, 2j, 3j]),
}


def frame_of(values):
    return pd.DataFrame({"amount": [1.0, 2.0, 3.0], "column": values})


@pytest.mark.parametrize("values", SURVIVES.values(), ids=SURVIVES.keys())
def test_values_types_and_categories_come_back(values):
    frame = frame_of(values)
    returned = decode(encode(frame))
    assert_frame_equal(returned, frame, check_exact=True)
    assert schema_of(returned) == schema_of(frame)


@pytest.mark.parametrize("values", REFUSED.values(), ids=REFUSED.keys())
def test_what_would_come_back_different_is_refused(values):
    with pytest.raises(InvalidFrameError, match="column"):
        encode(frame_of(values))


def test_the_refusal_names_the_column_and_both_types():
    with pytest.raises(InvalidFrameError, match=r"object → str.*'column'") as caught:
        encode(frame_of(REFUSED["objects that are text"]))
    assert caught.value.columns == ("column",)


def test_the_name_of_the_columns_axis_comes_back():
    frame = frame_of([1, 2, 3]).rename_axis(columns="kind")
    assert decode(encode(frame)).columns.name == "kind"


@given(
    st.lists(
        st.tuples(st.floats(width=64), st.integers(-(2**63), 2**63 - 1), st.text() | st.none()),
        min_size=1,
        max_size=20,
    )
)
def test_any_number_and_any_text_comes_back(rows):
    frame = pd.DataFrame(rows, columns=["real", "whole", "text"])
    frame["text"] = frame["text"].astype("str")
    assert_frame_equal(decode(encode(frame)), frame, check_exact=True)


def test_categories_that_would_come_back_in_another_order_are_refused(monkeypatch):
    def reorder(data):
        frame = decode(data)
        frame["column"] = frame["column"].cat.reorder_categories(["a", "b", "z"])
        return frame

    monkeypatch.setattr("companion.features.frames.decode", reorder)
    with pytest.raises(InvalidFrameError, match="column"):
        encode(frame_of(SURVIVES["categories, some unused"]))


GOOD = pd.DataFrame({"id": [1, 2], "amount": [1.0, 2.0], "is_fraud": [False, True]})


@pytest.mark.parametrize(
    ("frame", "message", "columns"),
    [
        (GOOD.iloc[:0], "no rows", ()),
        (GOOD.iloc[1:], "index", ()),
        (GOOD.set_index("id"), "index", ()),
        (GOOD.rename_axis("row"), "index", ()),
        (GOOD.rename(columns={"amount": 7}), "must be text", (7,)),
        (GOOD.rename(columns={"amount": "id"}), "must differ", ("id",)),
    ],
    ids=["empty", "filtered", "own index", "named index", "number as name", "repeated name"],
)
def test_a_frame_that_parquet_would_alter_is_refused(frame, message, columns):
    with pytest.raises(InvalidFrameError, match=message) as caught:
        check_frame(frame, [], [])
    assert caught.value.columns == columns


@pytest.mark.parametrize(
    ("labels", "ids", "message", "columns"),
    [
        (["is_froud"], [], "unknown", ("is_froud",)),
        (["is_fraud"], ["is_fraud"], "twice", ("is_fraud",)),
        (["is_fraud"], ["id", "amount"], "no feature columns", ()),
    ],
)
def test_labels_and_ids_that_make_no_sense_are_refused(labels, ids, message, columns):
    with pytest.raises(InvalidFrameError, match=message) as caught:
        check_frame(GOOD, labels, ids)
    assert caught.value.columns == columns


def test_one_text_in_place_of_a_list_of_labels_is_refused():
    with pytest.raises(TypeError, match="lists"):
        check_frame(GOOD, "is_fraud", [])


def test_what_is_no_frame_is_refused():
    with pytest.raises(TypeError, match="ndarray"):
        check_frame(GOOD.to_numpy(), [], [])


def test_an_equal_schema_passes():
    check_schema("v1", schema_of(GOOD), schema_of(GOOD.copy()))


def test_every_difference_of_a_schema_is_named():
    expected = {"id": "int64", "amount": "float64", "hour": "int64"}
    found = {"amount": "float32", "id": "int64", "is_fraud": "bool"}
    with pytest.raises(SchemaMismatchError) as caught:
        check_schema("v1", expected, found)
    error = caught.value
    assert error.missing == ("hour",)
    assert error.extra == ("is_fraud",)
    assert error.changed == {"amount": ("float64", "float32")}
    assert not error.reordered
    assert "amount is float32 instead of float64" in str(error)


def test_columns_in_another_order_are_another_schema():
    swapped = GOOD[["amount", "id", "is_fraud"]]
    with pytest.raises(SchemaMismatchError, match="order") as caught:
        check_schema("v1", schema_of(GOOD), schema_of(swapped))
    assert caught.value.reordered


def test_ordered_and_unordered_categories_are_different_types():
    plain, ordered = SURVIVES["categories, some unused"], SURVIVES["ordered categories"]
    assert schema_of(frame_of(plain))["column"] == "category[str]"
    assert schema_of(frame_of(ordered))["column"] == "category[str, ordered]"
