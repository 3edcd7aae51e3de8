"""A served model takes tables and matrices, and says by name what it cannot take."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper
from sklearn.ensemble import RandomForestClassifier

from companion.models.onnx.errors import FeatureMismatchError, InvalidModelError, InvalidRowsError
from companion.models.onnx.export import export_onnx
from companion.models.onnx.model import OnnxModel

NAMES = ["amount", "distance", "online"]


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(3)
    return pd.DataFrame(rng.normal(size=(400, 3)), columns=NAMES)


@pytest.fixture(scope="module")
def data(table):
    y = (table["amount"] + table["distance"] ** 2 > 1).astype(int)
    return export_onnx(RandomForestClassifier(10, random_state=0).fit(table, y), table)


@pytest.fixture(scope="module")
def model(data):
    return OnnxModel(data)


def test_rows_become_pairs_of_probabilities(model, table):
    found = model.predict_proba(table)
    assert found.shape == (400, 2)
    assert found.dtype == np.float32
    assert found.sum(axis=1) == pytest.approx(1)
    assert found[:, 1].max() > 0.8 > 0.2 > found[:, 1].min()


def test_it_knows_the_names_and_the_order_of_its_features(model):
    assert model.features == tuple(NAMES)


@pytest.mark.parametrize(
    "given",
    [
        lambda table: table[NAMES[::-1]],
        lambda table: table.to_numpy(),
        lambda table: table.to_numpy(np.float32),
        lambda table: np.asfortranarray(table.to_numpy(np.float32)),
        lambda table: table.to_numpy().tolist(),
        lambda table: table.astype("Float64"),
        lambda table: table.set_index(np.arange(400) + 7),
    ],
    ids=["reordered", "float64", "float32", "by column", "lists", "nullable", "another index"],
)
def test_the_same_rows_get_the_same_answer_in_whatever_form(given, model, table):
    assert np.array_equal(model.predict_proba(given(table)), model.predict_proba(table))


@pytest.mark.parametrize(
    "given",
    [
        lambda row: row,
        lambda row: row.to_numpy(),
        lambda row: row.to_numpy(np.float32),
        lambda row: np.repeat(row.to_numpy(np.float32), 2, axis=1)[:, ::2],
        lambda row: row.to_numpy().tolist(),
        lambda row: row[["online", "amount", "distance"]],
    ],
    ids=["table", "float64", "float32", "strided", "list", "reordered"],
)
def test_a_single_row_gets_the_answer_that_it_gets_among_many(given, model, table):
    for at in range(20):
        assert np.array_equal(
            model.predict_proba(given(table[at : at + 1])), model.predict_proba(table)[at : at + 1]
        )


def test_columns_of_whole_numbers_and_truth_values_are_numbers(model):
    mixed = pd.DataFrame({"amount": [1, 2], "distance": [0.5, 1.5], "online": [True, False]})
    plain = np.array([[1, 0.5, 1], [2, 1.5, 0]])
    assert np.array_equal(model.predict_proba(mixed), model.predict_proba(plain))
    assert np.array_equal(
        model.predict_proba(np.ones((1, 3), dtype=np.int64)), model.predict_proba(np.ones((1, 3)))
    )


def test_no_rows_get_no_answers(model, table):
    assert model.predict_proba(table[:0]).shape == (0, 2)


def test_other_columns_are_named(model, table):
    other = table.rename(columns={"distance": "distance_km"}).assign(id=1)
    with pytest.raises(FeatureMismatchError, match="missing: distance; not known to") as caught:
        model.predict_proba(other)
    assert caught.value.missing == ("distance",)
    assert caught.value.unexpected == ("distance_km", "id")


def test_a_column_that_is_there_twice_is_named(model, table):
    with pytest.raises(FeatureMismatchError, match="more than once: amount") as caught:
        model.predict_proba(pd.concat([table, table[["amount"]]], axis=1))
    assert caught.value.repeated == ("amount",)


@pytest.mark.parametrize("shape", [(2, 4), (3,), (2, 3, 1), ()])
def test_another_shape_is_refused(shape, model):
    with pytest.raises(InvalidRowsError, match=r"instead of \(rows, 3\)"):
        model.predict_proba(np.zeros(shape))


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (np.nan, "is missing"),
        (np.inf, "is inf, which float32 cannot hold"),
        (-np.inf, "is -inf"),
        (1e39, "is 1e\\+39, which float32 cannot hold"),
    ],
)
@pytest.mark.parametrize("as_table", [True, False])
@pytest.mark.parametrize("rows", [1, 5])
def test_what_is_no_finite_number_is_refused_with_its_place(value, problem, as_table, rows, model):
    matrix = np.zeros((rows, 3))
    matrix[rows - 1, 1] = value
    with pytest.raises(InvalidRowsError, match=f"row {rows - 1}: distance {problem}") as caught:
        model.predict_proba(pd.DataFrame(matrix, columns=NAMES) if as_table else matrix)
    assert caught.value.columns == ("distance",)
    assert caught.value.row == rows - 1


def test_numbers_whose_squares_overflow_are_still_numbers(model):
    large = np.array([[1e30, 1e30, 1e30]], dtype=np.float32)
    assert model.predict_proba(large).sum() == pytest.approx(1)


@pytest.mark.parametrize(
    "column", [["a", "b"], pd.to_datetime(["2026-01-01", "2026-01-02"]), pd.Categorical([1, 2])]
)
def test_columns_of_text_times_and_categories_are_named(column, model):
    rows = pd.DataFrame({"amount": [1.0, 2.0], "distance": [1.0, 2.0], "online": column})
    with pytest.raises(InvalidRowsError, match="online") as caught:
        model.predict_proba(rows)
    assert caught.value.columns == ("online",)


def test_a_matrix_of_text_is_refused(model):
    with pytest.raises(InvalidRowsError, match="not numbers"):
        model.predict_proba([["1", "2", "3"]])


def test_many_threads_may_ask_at_once(model, table):
    rows = table.to_numpy(np.float32)
    expected = model.predict_proba(rows)

    def ask(at):
        return model.predict_proba(rows[at : at + 1])[0]

    with ThreadPoolExecutor(8) as pool:
        assert np.array_equal(list(pool.map(ask, range(len(rows)))), expected)


def test_several_threads_give_what_one_gives(data, model, table):
    assert np.array_equal(
        OnnxModel(data, threads=2).predict_proba(table), model.predict_proba(table)
    )


def test_a_prediction_needs_a_thread(data):
    with pytest.raises(ValueError, match="at least one thread"):
        OnnxModel(data, threads=0)


def foreign_model(*, width=3, output="probabilities", metadata=None):
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", width])
        for name in ("features", output)
    ]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["features"], [output])], "foreign", values[:1], values[1:]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, metadata or {})
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "0 bytes are no ONNX model"),
        (b"not a model", "are no ONNX model"),
        (foreign_model(output="logits"), "none of ours"),
        (foreign_model(), "does not name its features"),
        (foreign_model(metadata={"companion.features": "{"}), "does not name its features"),
        (foreign_model(metadata={"companion.features": '["a"]'}), "3 features and other names"),
    ],
)
def test_other_bytes_are_no_model(data, problem):
    with pytest.raises(InvalidModelError, match=problem):
        OnnxModel(data)


def test_a_truncated_file_is_no_model(data):
    with pytest.raises(InvalidModelError):
        OnnxModel(data[: len(data) // 2])


def test_what_is_loaded_was_a_valid_onnx_file(data):
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
