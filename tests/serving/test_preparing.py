"""What is prepared is prepared once, whole, and can be served."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from companion.features.defaults import FEATURES, feature_table
from companion.features.single import SingleRow
from companion.models.artefacts import load_artefact
from companion.serving import preparing
from companion.serving.preparing import FRAUD_RATE, HISTORY, MODEL, History, prepare
from companion.transactions import simulate

ROWS = 1_000


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    said = []
    folder = prepare(tmp_path_factory.mktemp("data") / "made", rows=ROWS, say=said.append)
    assert len(said) == 1
    return folder


def test_what_was_trained_can_be_loaded_and_knows_its_base_rate(prepared):
    artefact = load_artefact(prepared / MODEL)

    assert artefact.model.features == FEATURES
    assert 0 < artefact.metadata.training.metrics[FRAUD_RATE] < 0.1
    assert len(pd.read_parquet(prepared / HISTORY)) == ROWS


def test_the_second_time_nothing_is_done(prepared):
    before = (prepared / HISTORY).stat().st_mtime_ns
    said = []

    prepare(prepared, rows=ROWS, say=said.append)

    assert said == []
    assert (prepared / HISTORY).stat().st_mtime_ns == before


def test_of_two_who_prepare_at_once_the_second_is_content(prepared, tmp_path, monkeypatch):
    said = []

    def overtaken(*args, **named):
        raise preparing.ArtefactExistsError(tmp_path)

    monkeypatch.setattr(preparing, "save_artefact", overtaken)

    prepare(tmp_path / "other", rows=ROWS, say=said.append)

    assert said[-1] == "Another process was faster."


def test_a_history_says_what_its_table_says():
    table = simulate(400, seed=3)
    history = History.of(table)
    expected = feature_table(table).to_numpy()
    single = SingleRow(history.state)

    rows = table.to_dict("records")
    made = np.vstack([single(row) for row in rows])

    assert len(history.state) == len(table)
    np.testing.assert_array_equal(made[:, :-1], expected[:, :-1])


def test_a_history_can_be_moved_so_that_it_ends_now():
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)

    history = History.of(simulate(400, seed=3), ends=now)

    assert history.latest["time"] == now
    assert history.state.latest_us == int(now.timestamp()) * 1_000_000


def test_frauds_that_were_reported_move_along():
    table = simulate(4_000, seed=3, fraud_rate=0.1, merchants=20)
    now = table["time"].iloc[-1].to_pydatetime() + timedelta(days=100)

    risks = [
        history.background[:, -1] for history in (History.of(table), History.of(table, ends=now))
    ]

    assert np.array_equal(*risks)
    assert risks[0].max() > 0


def test_the_background_is_honest_and_has_a_past():
    table = simulate(400, seed=3)

    assert 1 <= len(History.of(table).background) <= 6


def test_a_history_without_labels_is_one_too():
    table = simulate(100, seed=3, fraud_rate=0.05).drop(columns=["is_fraud", "label_time"])

    assert len(History.of(table).state) == 100
