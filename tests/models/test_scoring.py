"""Scores of a foreign file: from what they are learned, what they are worth, and who gets them."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from companion.features.defaults import FEATURES, feature_table
from companion.models.alerts import BudgetError
from companion.models.artefact_errors import ArtefactNotFoundError
from companion.models.artefact_metadata import TrainingRecord
from companion.models.artefacts import save_artefact
from companion.models.explanations import explain
from companion.models.families import make_boosting
from companion.models.metrics import score as measure
from companion.models.scoring.basis import UnfitFileError, UnknownFeaturesError
from companion.models.scoring.score import choose_alerts, score_file
from companion.models.scoring.table import encoded, score_table
from companion.models.splits import PartWithoutFraudError, split_by_time
from companion.transactions import known_fraud, simulate
from companion.transactions.loading import load

ROWS = 6000
OURS = [
    *("transaction_id", "time", "customer_id", "merchant_id", "amount", "distance_km"),
    *("device_id", "is_online", "is_fraud", "label_time"),
]
LABELS = ["is_fraud", "label_time"]


@pytest.fixture(scope="module")
def table():
    return simulate(ROWS, seed=11)[OURS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scoring")


@pytest.fixture(scope="module")
def original(table, folder):
    table.to_parquet(folder / "original.parquet", index=False)
    return load(folder / "original.parquet")


@pytest.fixture(scope="module")
def scored(original):
    return score_file(original)


@pytest.fixture(scope="module")
def unlabelled(table, folder):
    table.drop(columns=[*LABELS, "device_id"]).to_csv(folder / "unlabelled.csv", index=False)
    return load(folder / "unlabelled.csv")


@pytest.fixture(scope="module")
def guessed(unlabelled):
    return score_file(unlabelled)


@pytest.fixture(scope="module")
def artefact(table, folder):
    """A saved model, trained on other transactions of half the time that the file covers."""
    other = simulate(4000, seed=12)
    X, y = feature_table(other), other["is_fraud"]
    middle = table["time"].iloc[ROWS // 2].to_pydatetime()
    record = TrainingRecord(
        "boosting", "default", (middle - timedelta(days=30), middle), 0, {"average_precision": 0.5}
    )
    model = make_boosting(seed=0, rounds=30).fit(X, y)
    save_artefact(folder / "model", model, X.iloc[:200], record)
    return folder / "model"


# ---- the file's own past


def test_the_same_transactions_in_other_clothes_get_the_same_scores(table, scored, folder):
    foreign = table.copy()
    for name in ("time", "label_time"):
        foreign[name] = foreign[name].dt.tz_convert("America/New_York").dt.tz_localize(None)
    foreign["amount"] = (foreign["amount"] * 100).round().astype("int64")
    foreign["transaction_id"] = [f"tx-{number:07}" for number in foreign["transaction_id"]]
    foreign["customer_id"] = "Mrs " + foreign["customer_id"].astype("str")
    names = {name: f"their {name}" for name in OURS}
    foreign = foreign.rename(columns=names).sample(frac=1, random_state=0)
    foreign.to_csv(folder / "foreign.csv.gz", index=False)

    loaded = load(
        folder / "foreign.csv.gz",
        names,
        timezone="America/New_York",
        unit="cent",
    )
    again = score_file(loaded)
    np.testing.assert_array_equal(again.score, scored.score)
    np.testing.assert_array_equal(again.alerts, scored.alerts)
    assert again.reasons == scored.reasons


def test_labels_make_the_file_its_own_teacher(scored, table):
    split = split_by_time(table)
    assert scored.basis.kind == "own past"
    assert scored.basis.begins == split.test_from
    assert scored.basis.trained == len(split.train)
    for part, positions in (("trained on", split.train), ("unseen", split.test)):
        assert np.flatnonzero(scored.basis.part == part).tolist() == positions.tolist()
    assert (scored.basis.part == "left out").sum() == split.left_out > 0


def test_only_labels_known_at_the_cut_teach(scored, table):
    split = split_by_time(table)
    past = table.iloc[split.train]
    known = known_fraud(past, split.test_from)
    assert scored.basis.trained_frauds == known.sum() < past["is_fraud"].sum()


def test_without_times_of_reports_all_labels_of_the_past_teach(table, folder):
    table.drop(columns="label_time").to_parquet(folder / "when.parquet", index=False)
    scored = score_file(load(folder / "when.parquet"))
    assert scored.basis.trained_frauds == table["is_fraud"].iloc[: scored.basis.trained].sum()


def test_metrics_are_those_of_the_unseen_rows_alone(scored, table):
    unseen = scored.basis.part == "unseen"
    expected = measure(table["is_fraud"][unseen], scored.score[unseen])
    assert scored.measured.rows == unseen.sum()
    assert scored.measured.average_precision == pytest.approx(expected.average_precision)
    assert scored.measured.base_rate == table["is_fraud"][unseen].mean()
    assert scored.interval.low < scored.interval.estimate < scored.interval.high
    assert scored.interval.estimate == pytest.approx(expected.average_precision)
    assert scored.at_budget.alerts == len(scored.alerts)
    assert scored.measured.average_precision > 3 * scored.measured.base_rate


def test_a_past_without_fraud_is_refused(table, folder):
    late = table.assign(is_fraud=table["is_fraud"] & (table["time"] > table["time"].iloc[-900]))
    late.drop(columns="label_time").to_parquet(folder / "late.parquet", index=False)
    with pytest.raises(PartWithoutFraudError):
        score_file(load(folder / "late.parquet"))


# ---- alerts and reasons


def test_alerts_are_the_best_of_the_unseen_rows_within_the_budget(scored):
    unseen = np.flatnonzero(scored.basis.part == "unseen")
    assert len(scored.alerts) == round(0.01 * len(unseen))
    assert set(scored.alerts) <= set(unseen)
    chosen = scored.score[scored.alerts]
    assert (np.diff(chosen) <= 0).all()
    assert chosen.min() >= np.delete(scored.score[unseen], scored.alerts - unseen[0]).max()


@pytest.mark.parametrize(
    ("judged", "alerts"),
    [([True] * 4, [1, 3]), ([False, False, True, True], [3]), ([False] * 4, [1, 3])],
)
def test_alerts_come_from_judged_rows_or_from_all_where_there_are_none(judged, alerts):
    score = np.array([0.1, 0.9, 0.2, 0.9])
    assert choose_alerts(score, np.array(judged), 0.5).tolist() == alerts


def test_the_smallest_budget_is_one_alert():
    assert choose_alerts(np.array([0.1, 0.2]), np.array([True, True]), 1e-9).tolist() == [1]


@pytest.mark.parametrize("budget", [0, -0.1, 1.1, float("nan")])
def test_a_budget_is_a_share(original, budget):
    with pytest.raises(BudgetError, match="a share of rows"):
        score_file(original, budget=budget)


def test_reasons_are_what_raises_the_score_in_words(scored, original):
    assert len(scored.reasons) == len(scored.alerts)
    X = feature_table(original.table).iloc[scored.alerts]
    explanation = explain(scored.basis.model, X)
    for row, reasons in enumerate(scored.reasons):
        assert 1 <= len(reasons.split("; ")) <= 3
        strongest = explanation.names[int(np.argmax(explanation.values[row]))]
        if strongest == "log_amount":
            assert f"amount €{original.table['amount'][scored.alerts[row]]:,.2f}" in reasons
    assert not any("log_" in reasons for reasons in scored.reasons)


# ---- a simulated world


def test_without_labels_a_simulated_world_ranks(guessed):
    assert guessed.basis.kind == "simulated world"
    assert guessed.measured is guessed.interval is guessed.at_budget is None
    assert (guessed.basis.part == "unseen").all()
    assert len(guessed.alerts) == ROWS // 100


def test_what_the_file_lacks_is_left_out_of_the_model_and_named(guessed):
    assert guessed.left_out == {
        "is_new_device": ("device_id",),
        "merchant_risk_30d": ("is_fraud",),
    }
    assert set(guessed.basis.features) == set(FEATURES) - set(guessed.left_out)
    assert guessed.basis.model.n_features_in_ == len(FEATURES) - 2


def test_a_simulated_order_is_better_than_none(guessed, table):
    frauds = table["is_fraud"].to_numpy()[guessed.alerts]
    assert frauds.mean() > 3 * table["is_fraud"].mean()


# ---- a saved model


def test_a_saved_model_is_asked_and_judged_after_its_training(original, artefact):
    scored = score_file(original, model=artefact)
    last = original.table["time"].iloc[ROWS // 2]
    unseen = (original.table["time"] > last).to_numpy()
    assert scored.basis.kind == "saved model"
    assert scored.basis.name == "model"
    assert scored.basis.begins == last
    np.testing.assert_array_equal(scored.basis.judged, unseen)
    assert scored.measured.rows == unseen.sum()
    assert set(scored.alerts) <= set(np.flatnonzero(unseen))
    X = feature_table(original.table, scored.basis.features)
    expected = scored.basis.model.predict_proba(X)[:, 1]
    np.testing.assert_allclose(scored.score, expected, atol=1e-7)
    assert all(scored.reasons)


def test_rows_from_before_the_training_of_a_saved_model_are_not_judged_either(original, artefact):
    scored = score_file(original, model=artefact)
    first = original.table["time"].iloc[ROWS // 2] - timedelta(days=30)
    before = (original.table["time"] < first).to_numpy()
    assert before.any()
    assert (scored.basis.part[before] == "left out").all()


def test_where_a_saved_model_has_seen_every_row_nothing_is_measured(original, table, folder):
    X = feature_table(original.table)
    window = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC))
    model = make_boosting(seed=0, rounds=5).fit(X, original.table["is_fraud"])
    record = TrainingRecord("boosting", "default", window, 0, {})
    save_artefact(folder / "knows all", model, X.iloc[:50], record)
    scored = score_file(original, model=folder / "knows all")
    assert scored.measured is None
    assert len(scored.alerts) == round(0.01 * ROWS)


def test_a_saved_model_later_than_nothing_judges_all(table, folder, artefact):
    later = table.assign(time=table["time"] + pd.Timedelta(days=365)).drop(columns="label_time")
    later.to_parquet(folder / "next year.parquet", index=False)
    scored = score_file(load(folder / "next year.parquet"), model=artefact)
    assert scored.basis.judged.all()
    assert scored.basis.begins is None


def test_a_saved_model_that_needs_what_the_file_lacks_is_refused(unlabelled, artefact):
    with pytest.raises(UnfitFileError) as caught:
        score_file(unlabelled, model=artefact)
    assert caught.value.columns == ("device_id", "is_fraud")
    assert caught.value.features == ("is_new_device", "merchant_risk_30d")
    assert "is_new_device (made of device_id)" in str(caught.value)


def test_a_saved_model_of_other_features_is_refused(original, folder):
    X = pd.DataFrame({"shoe_size": np.arange(40.0)})
    model = make_boosting(seed=0, rounds=5).fit(X, np.arange(40) % 2)
    window = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 2, 1, tzinfo=UTC))
    record = TrainingRecord("boosting", "other", window, 0, {})
    save_artefact(folder / "other", model, X, record)
    with pytest.raises(UnknownFeaturesError, match="trained on shoe_size") as caught:
        score_file(original, model=folder / "other")
    assert caught.value.features == ("shoe_size",)


def test_a_saved_model_that_is_not_there_is_refused(original, folder):
    with pytest.raises(ArtefactNotFoundError):
        score_file(original, model=folder / "nowhere")


# ---- progress, and the table


def test_every_stage_tells_when_it_is_through(original):
    told = []
    score_file(original, on_step=lambda *step: told.append(step))
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == ["features", "training", "scoring", "reasons"]
    for stage in stages:
        _, done, total = [step for step in told if step[0] == stage][-1]
        assert done == total > 0


def test_the_table_stands_in_the_order_of_the_file(guessed, table):
    written = score_table(guessed)
    assert written["row"].tolist() == list(range(1, ROWS + 1))
    assert written["transaction_id"].tolist() == table["transaction_id"].tolist()


def test_the_table_ranks_alerts_and_gives_only_them_reasons(scored):
    written = score_table(scored)
    alerts = written[written["alert"] > 0].sort_values("alert")
    assert alerts["alert"].tolist() == list(range(1, len(scored.alerts) + 1))
    assert alerts["score"].tolist() == scored.score[scored.alerts].tolist()
    assert alerts["reasons"].tolist() == list(scored.reasons)
    assert (written.loc[written["alert"] == 0, "reasons"] == "").all()


@pytest.mark.parametrize(
    ("which", "words"),
    [
        ("scored", "probability, learned from this file's past"),
        ("guessed", "rank only: simulated world, not calibrated"),
    ],
)
def test_what_scores_mean_stands_in_every_row_and_in_the_metadata(request, which, words):
    made = request.getfixturevalue(which)
    assert (score_table(made)["score_means"] == words).all()
    schema = pq.read_schema(pa.BufferReader(encoded(made, "parquet")))
    assert words.encode() in schema.metadata[b"companion.scoring"]


def test_csv_and_parquet_hold_the_same(scored):
    written = score_table(scored)
    from_parquet = pq.read_table(pa.BufferReader(encoded(scored, "parquet"))).to_pandas()
    pd.testing.assert_frame_equal(from_parquet, written, check_dtype=False)
    from_csv = pyarrow.csv.read_csv(pa.BufferReader(encoded(scored, "csv"))).to_pandas()
    assert from_csv.columns.tolist() == written.columns.tolist()
    assert from_csv["score"].tolist() == written["score"].tolist()
    assert from_csv["part"].tolist() == written["part"].tolist()
    assert (pd.to_datetime(from_csv["time"], utc=True) == written["time"]).all()
