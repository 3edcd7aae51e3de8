"""`tune`: one call from transactions to a model, in memory or on a stored study."""

import optuna
import pytest
from optuna.pruners import NopPruner
from optuna.trial import TrialState

from companion.instruments import FakeClock
from companion.models.families import UnknownFamilyError
from companion.models.tuning import (
    NothingFinishedError,
    StudyMismatchError,
    TuningData,
    build_model,
    tune,
)
from companion.models.tuning import objective as objective_module
from companion.models.tuning import search as search_module
from companion.models.tuning.objective import Stages
from companion.transactions import simulate

STAGES = {"forest": Stages("trees", (2, 4, 8)), "net": Stages("epochs", (1, 2, 4))}


@pytest.fixture(autouse=True)
def short_stages(monkeypatch):
    monkeypatch.setattr(objective_module, "STAGES", STAGES)
    monkeypatch.setattr(search_module, "STAGES", STAGES)


@pytest.fixture(scope="module")
def transactions():
    return simulate(2500, seed=5, fraud_rate=0.1)


@pytest.fixture(scope="module")
def data(transactions):
    return TuningData.from_transactions(transactions)


def params_of(tuned):
    return [trial.params for trial in tuned.trials]


def test_it_takes_transactions_and_gives_a_model_that_fits(transactions, data):
    tuned = tune("forest", transactions, trials=4, seed=1)
    scores = tuned.model().fit(data.X_train, data.y_train).predict_proba(data.X_validation)
    assert scores.shape == (len(data.X_validation), 2)
    assert set(tuned.parameters) == set(tuned.space)
    assert 0 < tuned.value <= 1
    assert tuned.value == max(t.value for t in tuned.trials if t.value is not None)


@pytest.mark.parametrize("family", ["forest", "net"])
def test_the_same_seed_gives_the_same_study(data, family):
    one, two = (tune(family, data, trials=6, seed=1) for _ in range(2))
    assert params_of(one) == params_of(two)
    assert [t.intermediate_values for t in one.trials] == [
        t.intermediate_values for t in two.trials
    ]


def test_another_seed_gives_another_study(data):
    assert params_of(tune("forest", data, trials=2, seed=1)) != params_of(
        tune("forest", data, trials=2, seed=2)
    )


def test_pruning_spends_less_and_says_how_much(data):
    tuned = tune("forest", data, trials=10, seed=1)
    assert len(tuned.finished) == 10
    assert tuned.pruned
    assert tuned.spent == sum(t.last_step for t in tuned.trials) < tuned.unpruned == 80
    assert all(t.state is TrialState.PRUNED for t in tuned.pruned)


def test_without_pruning_everything_is_spent(data):
    tuned = tune("forest", data, trials=3, seed=1, pruner=NopPruner())
    assert tuned.spent == tuned.unpruned == 24
    assert not tuned.pruned


def test_a_stored_study_goes_on_and_ends_as_if_it_had_never_stopped(data, tmp_path):
    home = tmp_path / "study.db"
    calls = []

    def interrupt(progress):
        calls.append(progress)
        if progress.finished == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune("forest", data, trials=8, seed=1, storage=home, on_progress=interrupt)
    resumed = tune("forest", data, trials=8, seed=1, storage=home)
    assert params_of(resumed) == params_of(tune("forest", data, trials=8, seed=1))


def test_a_stored_study_of_other_data_is_refused_and_says_what_differs(
    data, transactions, tmp_path
):
    home = tmp_path / "study.db"
    tune("forest", data, trials=1, seed=1, storage=home)
    other = TuningData.from_transactions(transactions.iloc[:-50])
    with pytest.raises(StudyMismatchError, match="'forest' cannot go on") as refused:
        tune("forest", other, trials=2, seed=1, storage=home)
    assert set(refused.value.differences) == {"data"}
    assert refused.value.differences["data"] == (data.fingerprint, other.fingerprint)


def test_a_study_name_keeps_studies_apart(data, tmp_path):
    home = tmp_path / "study.db"
    tune("forest", data, trials=1, seed=1, storage=home, study_name="one")
    two = tune("forest", data, trials=1, seed=2, storage=home, study_name="two")
    assert len(two.trials) == 1


def test_a_timeout_before_the_first_trial_leaves_nothing_to_return(data):
    with pytest.raises(NothingFinishedError, match="no complete trial yet: no trial") as stopped:
        tune("forest", data, trials=3, seed=1, timeout=0, clock=FakeClock())
    assert stopped.value.states == {}


def test_the_sampler_starts_with_fewer_random_trials_than_there_are(data):
    tuned = tune("forest", data, trials=8, seed=1)
    assert tuned.random_trials == 4
    assert tuned.study.sampler.n_startup_trials == 4


def test_a_best_value_on_the_boundary_is_told(data):
    tuned = tune("forest", data, trials=1, seed=1)
    moved = search_module.Tuned(
        **{**vars(tuned), "parameters": {**tuned.parameters, "max_samples": 0.02}}
    )
    assert [edge.parameter for edge in moved.edges] == ["max_samples"]


def test_an_unknown_family_is_refused(data):
    with pytest.raises(UnknownFamilyError):
        tune("svm", data, trials=1, seed=1)


def test_a_negative_seed_is_refused(data):
    with pytest.raises(ValueError, match="0 or more, got -1"):
        tune("forest", data, trials=1, seed=-1)


def test_no_trials_are_refused(data):
    with pytest.raises(ValueError, match="at least one trial"):
        tune("forest", data, trials=0, seed=1)


def test_the_best_parameters_build_the_model_of_the_best_trial(data):
    tuned = tune("net", data, trials=3, seed=1)
    built = build_model("net", tuned.study.best_params, seed=1)
    assert tuned.model()["net"].get_params()["lr"] == built["net"].get_params()["lr"]


def test_the_study_maximizes(data):
    direction = tune("forest", data, trials=1, seed=1).study.direction
    assert direction is optuna.study.StudyDirection.MAXIMIZE
