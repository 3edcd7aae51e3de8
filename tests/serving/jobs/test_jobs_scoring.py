"""A piece is scored at once, and the rows that break the model are found by halving it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from companion.features import FEATURES
from companion.features.defaults import UnknownFeatureError, feature_table
from companion.serving.jobs import InvalidScoresError
from companion.serving.jobs import model_scorer as module
from companion.serving.jobs.model_scorer import ModelScorer
from companion.serving.jobs.scoring import MOST_POISON_ROWS, score_piece


class Scores:
    """Scores rows by their number and counts its calls; some rows it cannot take."""

    def __init__(self, poison=(), error=ValueError):
        self.poison = set(poison)
        self.error = error
        self.calls = 0

    def __call__(self, frame):
        self.calls += 1
        if self.poison & set(frame["n"]):
            raise self.error("cannot")
        return frame["n"] / 10_000


def piece(rows):
    return pd.DataFrame({"n": range(rows)})


def test_a_piece_without_trouble_takes_one_call():
    score = Scores()
    scored = score_piece(score, piece(1000))
    assert score.calls == 1
    assert not scored.poison
    assert scored.probability[-1] == 0.0999


def test_an_empty_piece_takes_none():
    score = Scores()
    assert len(score_piece(score, piece(0)).probability) == 0
    assert score.calls == 0


@pytest.mark.parametrize("poison", [[0], [999], [437], [3, 4, 700]])
def test_only_the_rows_that_cannot_be_scored_are_left_out(poison):
    scored = score_piece(Scores(poison), piece(1000))
    assert scored.poison == dict.fromkeys(poison, "ValueError")
    assert np.flatnonzero(np.isnan(scored.probability)).tolist() == poison


def test_finding_one_row_takes_about_two_calls_for_each_halving():
    score = Scores([437])
    score_piece(score, piece(1000))
    assert score.calls <= 2 * math.ceil(math.log2(1000)) + 1


def test_a_piece_of_which_no_row_can_be_scored_is_the_models_fault():
    with pytest.raises(ValueError, match="cannot"):
        score_piece(Scores(range(8)), piece(8))


def test_a_single_row_may_be_to_blame_alone():
    assert score_piece(Scores([0]), piece(1)).poison == {0: "ValueError"}


def test_more_than_a_few_bad_rows_are_the_models_fault_and_found_out_soon():
    score = Scores(range(0, 10_000, 2))
    with pytest.raises(ValueError, match="cannot"):
        score_piece(score, piece(10_000))
    assert score.calls < 10 * MOST_POISON_ROWS


@pytest.mark.parametrize("error", [MemoryError, AssertionError, KeyError])
def test_whatever_a_row_raises_its_type_is_told(error):
    assert score_piece(Scores([1], error), piece(4)).poison == {1: error.__name__}


def test_an_interrupt_is_nobodys_row():
    with pytest.raises(KeyboardInterrupt):
        score_piece(Scores([1], KeyboardInterrupt), piece(4))


@pytest.mark.parametrize("answer", [np.nan, np.inf, -0.1, 1.1])
def test_what_is_no_probability_is_no_score(answer):
    scored = score_piece(lambda frame: np.where(frame["n"] == 2, answer, 0.5), piece(4))
    assert scored.poison == {2: "no probability"}
    assert np.isnan(scored.probability[2])


@pytest.mark.parametrize("answer", [[0.5], [[0.5, 0.5]] * 4, 0.5])
def test_another_number_of_scores_than_rows_is_an_error(answer):
    with pytest.raises(InvalidScoresError, match="4 rows"):
        score_piece(lambda frame: answer, piece(4))


class Model:
    """Half of the share of amounts: enough to see that features arrive in order."""

    def __init__(self, features):
        self.features = features

    def predict_proba(self, X):
        assert X.shape[1] == len(self.features)
        p = np.full(len(X), 0.25)
        return np.column_stack([1 - p, p])


def test_features_are_made_of_the_whole_file_in_the_models_order(transactions):
    names = tuple(reversed(FEATURES))
    made = ModelScorer(Model(names), "v1").features(transactions)
    assert tuple(made.columns) == names
    labelled = transactions.assign(
        label_time=pd.Series(pd.NaT, transactions.index, "datetime64[us, UTC]")
    )
    pd.testing.assert_frame_equal(made, feature_table(labelled, names))


def test_a_model_scores_features(transactions):
    scorer = ModelScorer(Model(FEATURES), "v1")
    assert scorer.score(scorer.features(transactions)).tolist() == [0.25] * len(transactions)


def test_a_saved_model_is_taken_with_its_version_and_only_if_its_features_exist(monkeypatch):
    class Artefact:
        model = Model(FEATURES)
        sha256 = "0123456789abcdef"

    monkeypatch.setattr(module, "load_artefact", lambda folder: Artefact)
    assert ModelScorer.of("folder").version == "0123456789ab"
    Artefact.model = Model(("shoe_size",))
    with pytest.raises(UnknownFeatureError):
        ModelScorer.of("folder")
