"""What a trial is worth: later rows, stage by stage, and the same model again afterwards."""

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.pruners import NopPruner, ThresholdPruner
from optuna.trial import TrialState
from sklearn.metrics import average_precision_score

from companion.features import FEATURES
from companion.models.families import UnknownFamilyError
from companion.models.labels import LabelError
from companion.models.tuning import objective as module
from companion.models.tuning import quietly
from companion.models.tuning.objective import STAGES, Objective, Stages, TuningData, build_model
from companion.transactions import simulate

PARAMETERS = {
    "forest": {"min_samples_leaf": 5, "max_features": 0.5, "max_samples": 0.8},
    "boosting": {
        "learning_rate": 0.05,
        "max_leaf_nodes": 8,
        "min_samples_leaf": 20,
        "l2_regularization": 1.0,
        "max_features": 0.5,
    },
    "net": {"lr": 0.01, "hidden": 8, "weight_decay": 1e-4},
}


@pytest.fixture(scope="module")
def transactions():
    return simulate(3000, seed=5, fraud_rate=0.1)


@pytest.fixture(scope="module")
def data(transactions):
    return TuningData.from_transactions(transactions)


@pytest.fixture
def short_stages(monkeypatch):
    stages = {family: Stages(stages.unit, (2, 4, 8)) for family, stages in STAGES.items()}
    monkeypatch.setattr(module, "STAGES", stages)
    return stages


def run(family, data, parameters, pruner):
    study = optuna.create_study(direction="maximize", pruner=pruner)
    study.enqueue_trial(parameters)
    with quietly():
        study.optimize(Objective(family, data, seed=3), n_trials=1)
    return study.trials[0]


@pytest.mark.usefixtures("short_stages")
@pytest.mark.parametrize("family", list(STAGES))
def test_the_model_built_from_a_trial_is_worth_what_the_trial_was(family, data):
    trial = run(family, data, PARAMETERS[family], NopPruner())
    model = build_model(family, trial.params, seed=3).fit(data.X_train, data.y_train)
    scores = model.predict_proba(data.X_validation)[:, 1]
    again = average_precision_score(data.y_validation, scores)
    assert trial.value == pytest.approx(again, abs=1e-9)


@pytest.mark.usefixtures("short_stages")
@pytest.mark.parametrize(
    ("family", "steps"), [("forest", [2, 4, 8]), ("boosting", [2, 4, 8]), ("net", range(1, 9))]
)
def test_every_stage_is_reported(family, steps, data):
    trial = run(family, data, PARAMETERS[family], NopPruner())
    assert sorted(trial.intermediate_values) == list(steps)
    assert trial.value == trial.intermediate_values[8]


@pytest.mark.usefixtures("short_stages")
@pytest.mark.parametrize("family", list(STAGES))
def test_a_pruned_trial_trains_no_further(family, data):
    trial = run(family, data, PARAMETERS[family], ThresholdPruner(lower=2.0, n_warmup_steps=4))
    assert trial.state is TrialState.PRUNED
    assert trial.last_step == 4


@pytest.mark.usefixtures("short_stages")
def test_a_trial_is_not_pruned_when_all_is_paid_for(data):
    trial = run("forest", data, PARAMETERS["forest"], ThresholdPruner(lower=2.0, n_warmup_steps=8))
    assert trial.state is TrialState.COMPLETE


@pytest.mark.usefixtures("short_stages")
def test_training_that_diverges_ends_the_trial_and_not_the_study(data):
    exploding = PARAMETERS["net"] | {"lr": 0.3}
    study = optuna.create_study(direction="maximize", pruner=NopPruner())
    study.enqueue_trial(exploding)
    objective = Objective("net", data, seed=3)
    nothing = np.full(len(data.X_validation), np.nan)
    with quietly():
        study.optimize(lambda trial: objective._judge(trial, 2, nothing), n_trials=1)
    assert study.trials[0].state is TrialState.PRUNED


def test_the_stages_make_a_pruner_that_prunes_the_worse_half():
    stages = Stages("epochs", (4, 8, 16))
    study = optuna.create_study(direction="maximize", pruner=stages.pruner())

    def constant(trial):
        for epoch in range(1, 17):
            trial.report(-trial.number, epoch)
            if epoch < 16 and trial.should_prune():
                raise optuna.TrialPruned
        return -trial.number

    with quietly():
        study.optimize(constant, n_trials=8)
    assert [trial.last_step for trial in study.trials] == [16] + [4] * 7


def test_validation_follows_training_and_the_test_rows_stay_untouched(transactions):
    data = TuningData.from_transactions(transactions, test_share=0.3, validation_share=0.2)
    assert data.X_train.index.max() < data.X_validation.index.min()
    assert data.X_validation.index.max() < len(transactions) * 0.7
    assert list(data.X_train.columns) == list(FEATURES)


def test_the_fingerprint_is_that_of_the_values(transactions, data):
    assert TuningData.from_transactions(transactions).fingerprint == data.fingerprint
    changed = data.X_train.copy()
    changed.iloc[0, 0] += 1e-9
    other = TuningData(changed, data.y_train, data.X_validation, data.y_validation)
    assert other.fingerprint != data.fingerprint
    flipped = np.array(data.y_validation)
    flipped[0] = 1 - flipped[0]
    assert (
        TuningData(data.X_train, data.y_train, data.X_validation, flipped).fingerprint
        != data.fingerprint
    )


def test_rows_without_labels_are_refused(data):
    with pytest.raises(ValueError, match=r"validation: \d+ rows of features, 3 labels"):
        TuningData(data.X_train, data.y_train, data.X_validation, [0, 1, 0])


def test_a_part_without_fraud_is_refused_by_name(data):
    legitimate = np.zeros(len(data.X_validation))
    with pytest.raises(LabelError) as refused:
        TuningData(data.X_train, data.y_train, data.X_validation, legitimate)
    assert refused.value.__notes__ == ["in the validation part"]


def test_parts_with_different_columns_are_refused(data):
    with pytest.raises(ValueError, match="different columns"):
        TuningData(data.X_train, data.y_train, data.X_validation.iloc[:, ::-1], data.y_validation)


def test_building_an_unknown_family_is_refused():
    with pytest.raises(UnknownFamilyError):
        build_model("svm", {}, seed=1)


def test_a_model_can_be_built_for_less_training():
    assert build_model("forest", PARAMETERS["forest"], seed=1, training=7)[-1].n_estimators == 7
    assert build_model("net", PARAMETERS["net"], seed=1, training=7)[-1].max_epochs == 7


def test_arrays_are_taken_where_they_come_as_frames(data):
    frame = pd.DataFrame(data.X_train.to_numpy(), columns=list(data.X_train.columns))
    taken = TuningData(frame, data.y_train, data.X_validation, data.y_validation)
    assert taken.fingerprint == data.fingerprint
