"""Labels are 0 and 1, or the error says what they are."""

import numpy as np
import pandas as pd
import pytest
import torch

from companion.models import LabelError, as_labels

ACCEPTED = {
    "whole numbers": np.array([0, 1, 1, 0]),
    "small whole numbers": np.array([0, 1, 1, 0], dtype="uint8"),
    "truth values": np.array([False, True, True, False]),
    "whole floats": np.array([0.0, 1.0, 1.0, 0.0]),
    "a list": [0, 1, 1, 0],
    "a Series": pd.Series([False, True, True, False], index=[7, 7, 8, 9]),
    "nullable integers": pd.Series([0, 1, 1, 0], dtype="Int64"),
    "nullable truth values": pd.Series([False, True, True, False], dtype="boolean"),
    "objects": np.array([0, True, 1.0, False], dtype=object),
    "a tensor": torch.tensor([0, 1, 1, 0]),
}

REFUSED = {
    "text": (["no", "yes"], "'no', 'yes'; map them"),
    "text digits": (pd.Series(["0", "1"]), "'0', '1'; map them"),
    "minus one and one": ([-1, 1, -1], r"\(y \+ 1\) // 2"),
    "three classes": ([0, 1, 2], "0, 1, 2"),
    "fractions": ([0.0, 0.5, 1.0], "0.5"),
    "infinity": ([0.0, np.inf], "inf"),
    "only legitimate": ([0, 0, 0], "0 only"),
    "only fraud": ([True, True], "True only"),
    "nothing": ([], "nothing only"),
    "a missing float": ([0.0, np.nan, 1.0], "1 of 3 are missing"),
    "a missing nullable": (pd.Series([0, None, 1], dtype="Int64"), "1 of 3 are missing"),
    "a missing object": ([False, None, True], "1 of 3 are missing"),
    "two columns": ([[0, 1], [1, 0]], r"shape \(2, 2\)"),
    "a column": ([[0], [1]], r"shape \(2, 1\)"),
    "one value": (1, r"shape \(\)"),
}


@pytest.mark.parametrize("y", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_labels_that_mean_zero_and_one_are_accepted(y):
    labels = as_labels(y)
    assert labels.dtype == np.dtype("int64")
    assert labels.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(("y", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_other_labels_are_refused_by_name(y, message):
    with pytest.raises(LabelError, match=message):
        as_labels(y)


def test_the_error_carries_what_was_found():
    with pytest.raises(LabelError) as caught:
        as_labels([-1, 1, 1])
    assert caught.value.found == (-1, 1)
