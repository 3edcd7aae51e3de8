"""One key for equal features under one model, in every process, and different keys otherwise."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.resilience.cache import UnkeyableFeaturesError, canonical_key

VALUES = st.one_of(
    st.floats(allow_nan=False),
    st.integers(),
    st.booleans(),
    st.text(),
    st.none(),
    st.sampled_from([0.0, -0.0, 0, 1, 1.0, True, 2**53, 2**53 + 1, 2.0**60, 2**60, "1", ""]),
)


def key(features, version="v1"):
    return canonical_key(version, features)


@settings(max_examples=50)
@given(st.lists(VALUES, max_size=4), st.lists(VALUES, max_size=4))
def test_rows_have_one_key_exactly_when_python_calls_them_equal(one, other):
    assert (key(one) == key(other)) == (one == other)


@settings(max_examples=50)
@given(
    st.dictionaries(st.text(max_size=3), VALUES, max_size=3),
    st.dictionaries(st.text(max_size=3), VALUES, max_size=3),
)
def test_mappings_have_one_key_exactly_when_python_calls_them_equal(one, other):
    assert (key(one) == key(other)) == (one == other)


@settings(max_examples=30)
@given(st.dictionaries(st.text(), VALUES, min_size=2))
def test_the_order_of_a_mapping_says_nothing(features):
    assert key(features) == key(dict(reversed(features.items())))


def test_the_order_of_a_row_matters():
    assert key([1.0, 2.0]) != key([2.0, 1.0])


@pytest.mark.parametrize("same", [1, True, np.float32(1), np.int64(1), np.bool_(True)])
def test_one_is_one_whatever_its_type(same):
    assert key({"a": same}) == key({"a": 1.0})


def test_negative_zero_is_zero_in_a_row_of_floats_and_among_others():
    assert key([-0.0, 2.5]) == key([0.0, 2.5])
    assert key([-0.0, "x"]) == key([0.0, "x"])


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "int8"])
def test_an_array_has_the_key_of_the_list(dtype):
    assert key(np.array([1, 0, 3], dtype=dtype)) == key([1.0, 0.0, 3.0])


def test_a_number_and_its_text_differ_and_so_do_none_and_nothing():
    assert len({key(row) for row in ([1], ["1"], [None], [], ["None"])}) == 5


def test_large_identifiers_that_one_double_would_merge_stay_apart():
    assert key([2**60]) != key([2**60 + 1])
    assert key([10**400]) != key([10**400 + 1])


def test_infinity_is_a_value_like_any_other():
    assert key([float("inf")]) != key([float("-inf")])


def test_text_cannot_run_into_its_neighbour():
    assert key(["ab", "c"]) != key(["a", "bc"])
    assert key({"ab": 1, "c": 1}) != key({"a": 1, "bc": 1})


def test_another_model_is_another_key():
    assert key([1.0], "v1") != key([1.0], "v2")


def test_a_key_shows_its_model_and_hides_its_features():
    version, digest = key({"card": "4111"}, "2026-03").split(":")
    assert version == "2026-03"
    assert len(digest) == 64
    assert "4111" not in digest


@pytest.mark.parametrize("nan", [float("nan"), np.float32("nan")])
@pytest.mark.parametrize("others", [{}, {"b": "x"}])
def test_nan_is_refused_by_name(nan, others):
    with pytest.raises(UnkeyableFeaturesError, match="'a'") as refused:
        key({"c": 1.0, "a": nan, **others})
    assert refused.value.name == "a"


def test_nan_in_an_array_is_refused_by_position():
    with pytest.raises(UnkeyableFeaturesError) as refused:
        key(np.array([0.0, np.nan]))
    assert refused.value.name == 1


@pytest.mark.parametrize("value", [object(), b"bytes", [1.0], {"nested": 1}, 1j])
def test_what_has_no_canonical_form_is_refused_by_name(value):
    with pytest.raises(UnkeyableFeaturesError, match="'a'") as refused:
        key({"a": value})
    assert refused.value.value is value


def test_a_name_that_is_no_string_is_refused():
    with pytest.raises(UnkeyableFeaturesError, match="not a string"):
        key({1: 1.0})


def test_a_table_is_not_a_row():
    with pytest.raises(UnkeyableFeaturesError, match="not a table"):
        key(np.zeros((2, 3)))


def test_a_model_without_a_version_is_refused():
    with pytest.raises(ValueError, match="model_version"):
        key([1.0], "")


def test_every_process_comes_to_the_same_key():
    script = """
from companion.resilience.cache import canonical_key
print(canonical_key("v1", {"category": "travel", "amount": 12.5, "is_online": True}))
"""
    keys = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert keys == {key({"is_online": 1, "amount": 12.5, "category": "travel"})}
