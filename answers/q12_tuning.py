"""Q12 · Tuning that works: the exercise, its checks, and the mistakes they catch."""

import warnings

import numpy as np
import optuna
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import average_precision_score
from sklearn.model_selection import KFold, TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from companion.models.tuning import quietly
from companion.study import Exercise, Stage

exercise = Exercise(
    "make_objective",
    hints={
        "start": (
            "Write the objective for one fold: draw lr and hidden, build, fit on early rows, score "
            "later ones.",
            "Then loop over TimeSeriesSplit(3).split(X), collect the values, return their mean.",
            "make_pipeline(StandardScaler(), build(lr=…, hidden=…)), predict_proba(…)[:, 1], "
            "average_precision_score(y, scores).",
        ),
        "callable": (
            "study.optimize wants a function of a trial that gives one number.",
            "Define objective(trial) inside make_objective, return it, and let it return a float.",
        ),
        "measure": (
            "A model that gives every row the same score: what is it worth under your measure?",
            "Under accuracy, one minus the base rate, and nearly every setting ties there. Average "
            "precision gives it the base rate, and 1 to a perfect ranking.",
            "average_precision_score(y[later], model.predict_proba(X[later])[:, 1])",
        ),
        "ranges": (
            "Both are factors: doubling means the same at either end.",
            "suggest_float('lr', 1e-4, 1e-1, log=True), suggest_int('hidden', 8, 128, log=True).",
        ),
        "order": (
            "The rows are in order of time. Which of them does your model see before it is judged?",
            "Shuffled folds train on tomorrow and judge yesterday. Every training row must lie "
            "before every row it is judged on: TimeSeriesSplit.",
        ),
        "leak": (
            "Where was the scaler fitted, and which rows did it see?",
            "Scaled before the split, it has seen the rows that you judge on. Put it into the "
            "pipeline, so that each fold fits its own.",
        ),
        "scaled": (
            "Amounts in the hundreds beside shares below one: what does one learning rate do?",
            "A StandardScaler in front of the model, fitted on the training rows.",
        ),
        "float32": (
            "A PyTorch module computes in float32, NumPy and pandas count in float64.",
            "np.asarray(X, dtype=np.float32) before anything else.",
        ),
        "diverged": (
            "Some learning rates end in nan. What does your objective do then?",
            "raise optuna.TrialPruned: the trial is over, the study is not.",
        ),
        "prune": (
            "The first fold was hopeless. Who is told, before the others are paid for?",
            "trial.report(mean so far, fold), and raise optuna.TrialPruned if "
            "trial.should_prune().",
        ),
    },
)


SEEN = []


class Spy(ClassifierMixin, BaseEstimator):
    """A classifier that notes what it is given; `rank` makes its scores from the first column."""

    def __init__(self, lr=0.0, hidden=0, rank="constant"):
        self.lr, self.hidden, self.rank = lr, hidden, rank

    def fit(self, X, y):
        self.classes_ = np.array([0, 1])
        self.fitted_ = np.array(X)
        self.dtype_ = getattr(X, "dtype", None)
        return self

    def predict_proba(self, X):
        X = np.array(X)
        scores = {
            "constant": np.full(len(X), 0.2),
            "column": 1 / (1 + np.exp(-(X[:, 1] - X[:, 1].mean()) / (X[:, 1].std() + 1e-9))),
            "nan": np.full(len(X), np.nan),
        }[self.rank]
        SEEN.append((self, self.fitted_, X))
        return np.column_stack([1 - scores, scores])

    def predict(self, X):
        return (self.predict_proba(X)[:, 1] > 0.5).astype(int)


def rows(rng, count=240, rate=0.2):
    """Rows in order of time: column 0 counts them, column 1 tells frauds exactly, large numbers."""
    y = (rng.random(count) < rate).astype(int)
    y[::17] = 1
    noise = rng.normal(500, 40, (count, 2))
    return np.column_stack([np.arange(count) * 3.0, 100 + 50.0 * y, noise]), y


def optimized(attempt, X, y, *, rank="constant", trials=1, pruner=None, built=None):
    """A study over the objective that `attempt` makes, and what the spies saw."""
    SEEN.clear()

    def build(lr, hidden):
        if built is not None:
            built.append((lr, hidden))
        return Spy(lr, hidden, rank)

    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=7),
        pruner=pruner or optuna.pruners.NopPruner(),
    )
    with quietly(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optuna.logging.set_verbosity(optuna.logging.CRITICAL)
        study.optimize(attempt(build, X, y), n_trials=trials)
    return study, list(SEEN)


@exercise.check(Stage.TYPE, hint="callable")
def it_makes_an_objective(attempt, case):
    """make_objective(build, X, y) returns a function of a trial that returns a float"""
    X, y = rows(case.rng)
    objective = attempt(lambda lr, hidden: Spy(lr, hidden), X, y)
    case.true(callable(objective), given="make_objective(…)", expected="a function", got=objective)
    with quietly():
        value = objective(optuna.create_study().ask())
    case.true(
        isinstance(value, float), given="objective(trial)", expected="a float", got=type(value)
    )


@exercise.check(Stage.RANGE, hint="ranges")
def it_draws_on_log_scales(attempt, case):
    """lr comes from 1e-4 to 1e-1 and hidden from 8 to 128, both on log scales"""
    X, y = rows(case.rng, 60)
    built = []
    study, _ = optimized(attempt, X, y, trials=30, built=built)
    case.equal(given="names drawn", expected={"lr", "hidden"}, got=set(study.trials[0].params))
    lr, hidden = study.trials[0].distributions["lr"], study.trials[0].distributions["hidden"]
    case.equal(given="lr", expected=(1e-4, 1e-1, True), got=(lr.low, lr.high, lr.log))
    case.equal(given="hidden", expected=(8, 128, True), got=(hidden.low, hidden.high, hidden.log))
    case.equal(
        given="what build was called with",
        expected={(t.params["lr"], t.params["hidden"]) for t in study.trials},
        got=set(built),
    )


@exercise.check(Stage.VALUE, hint="measure")
def it_measures_average_precision(attempt, case):
    """a perfect ranking is worth 1, equal scores for all rows the base rate"""
    X, y = rows(case.rng, rate=float(case.rng.uniform(0.05, 0.12)))
    perfect, _ = optimized(attempt, X, y, rank="column")
    case.true(
        abs(perfect.best_value - 1) < 1e-9,
        given="scores that put every fraud on top, all of them above one half or not",
        expected=1.0,
        got=perfect.best_value,
    )
    equal, seen = optimized(attempt, X, y)
    judged = [y[_ids(X, fitted, later)] for _, fitted, later in seen]
    base = float(np.mean([part.mean() for part in judged])) if judged else float("nan")
    case.true(
        abs(equal.best_value - y.mean()) < 0.1,
        given=f"equal scores for all rows, {y.mean():.0%} of them frauds",
        expected=f"about {base:.2f}",
        got=equal.best_value,
    )


def _ids(X, fitted, later):
    """Which rows of X were judged: later rows keep their order, so counting them is enough."""
    return slice(len(X) - len(later), len(X))


@exercise.check(Stage.VALUE, hint="order")
def it_never_looks_ahead(attempt, case):
    """every row it trains on is earlier than every row that it is judged on"""
    X, y = rows(case.rng)
    _, seen = optimized(attempt, X, y)
    case.true(
        len(seen) >= 2, given="one trial", expected="two folds or more", got=f"{len(seen)} fits"
    )
    for _, fitted, later in seen:
        case.true(
            fitted[:, 0].max() < later[:, 0].min(),
            given="rows in order of time",
            expected="training rows before the judged ones",
            got="later rows among the training rows",
        )


@exercise.check(Stage.VALUE, hint="scaled")
def it_scales(attempt, case):
    """the model sees scaled columns"""
    X, y = rows(case.rng)
    _, seen = optimized(attempt, X, y)
    for _, fitted, _ in seen:
        case.true(
            np.abs(fitted.mean(axis=0)).max() < 5 and fitted.std(axis=0).max() < 5,
            given="columns in the hundreds",
            expected="columns around 0 with a spread of about 1",
            got=f"means {np.round(fitted.mean(axis=0), 1)}",
        )


@exercise.check(Stage.VALUE, hint="leak")
def the_scaler_sees_training_rows_only(attempt, case):
    """the scaler of a fold is fitted on the training rows of that fold"""
    X, y = rows(case.rng)
    _, seen = optimized(attempt, X, y)
    for _, fitted, _ in seen:
        case.true(
            np.abs(fitted.mean(axis=0)).max() < 1e-2,
            given="the training rows of a fold, as the model sees them",
            expected="a mean of 0 in every column",
            got=np.round(fitted.mean(axis=0), 2).tolist(),
        )


@exercise.check(Stage.VALUE, hint="float32")
def it_hands_over_float32(attempt, case):
    """float64 goes in, and the model gets float32"""
    X, y = rows(case.rng)
    _, seen = optimized(attempt, X, y)
    kinds = {str(spy.dtype_) for spy, _, _ in seen}
    case.equal(given="X of float64", expected={"float32"}, got=kinds)


@exercise.check(Stage.STRESS, hint="diverged")
def nan_ends_the_trial_only(attempt, case):
    """a model whose scores are nan ends its trial as pruned, and the study goes on"""
    X, y = rows(case.rng)
    try:
        study, _ = optimized(attempt, X, y, rank="nan", trials=2)
    except ValueError as error:
        case.true(False, given="scores of nan", expected="a pruned trial", got=str(error))
    states = [trial.state.name for trial in study.trials]
    case.equal(given="scores of nan", expected=["PRUNED", "PRUNED"], got=states)


@exercise.check(Stage.STRESS, hint="prune")
def it_asks_whether_to_go_on(attempt, case):
    """it reports after every fold, and stops when the pruner says so"""
    X, y = rows(case.rng)
    hopeless = optuna.pruners.ThresholdPruner(lower=2.0)
    study, seen = optimized(attempt, X, y, pruner=hopeless)
    case.equal(
        given="a pruner that stops everything: the trial",
        expected="PRUNED",
        got=study.trials[0].state.name,
    )
    case.equal(given="a pruner that stops everything: folds fitted", expected=1, got=len(seen))


@exercise.solution
def make_objective(build, X, y):
    X, y = np.asarray(X, dtype=np.float32), np.asarray(y)

    def objective(trial):
        lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        hidden = trial.suggest_int("hidden", 8, 128, log=True)
        values = []
        for fold, (early, later) in enumerate(TimeSeriesSplit(3).split(X)):
            model = make_pipeline(StandardScaler(), build(lr=lr, hidden=hidden))
            model.fit(X[early], y[early])
            scores = model.predict_proba(X[later])[:, 1]
            if not np.isfinite(scores).all():
                raise optuna.TrialPruned
            values.append(average_precision_score(y[later], scores))
            trial.report(float(np.mean(values)), fold)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(np.mean(values))

    return objective


@exercise.another_way
def by_hand(build, X, y):
    """No pipeline, no splitter: cuts at half and three quarters, means and spreads by hand."""
    X, y = np.asarray(X, dtype=np.float32), np.asarray(y)
    cuts = [0, len(X) // 2, 3 * len(X) // 4, len(X)]

    def objective(trial):
        settings = {
            "lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True),
            "hidden": trial.suggest_int("hidden", 8, 128, log=True),
        }
        total = 0.0
        for step in (1, 2):
            early, later = slice(0, cuts[step]), slice(cuts[step], cuts[step + 1])
            middle, spread = X[early].mean(axis=0), X[early].std(axis=0)
            model = build(**settings).fit((X[early] - middle) / spread, y[early])
            scores = model.predict_proba((X[later] - middle) / spread)[:, 1]
            if np.isnan(scores).any():
                raise optuna.TrialPruned("diverged")
            total += average_precision_score(y[later], scores)
            trial.report(total / step, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(total / 2)

    return objective


def _objective(build, X, y, **how):
    """The solution with one thing wrong."""
    how = {
        "dtype": np.float32,
        "log": True,
        "folds": TimeSeriesSplit(3),
        "scaler": "inside",
        "value": lambda y, model, X: average_precision_score(y, model.predict_proba(X)[:, 1]),
        "check": True,
        "prune": True,
    } | how
    X, y = np.asarray(X, dtype=how["dtype"]), np.asarray(y)
    if how["scaler"] == "before":
        X = StandardScaler().fit_transform(X)

    def objective(trial):
        lr = trial.suggest_float("lr", 1e-4, 1e-1, log=how["log"])
        hidden = trial.suggest_int("hidden", 8, 128, log=how["log"])
        values = []
        for fold, (early, later) in enumerate(how["folds"].split(X)):
            steps = [StandardScaler()] if how["scaler"] == "inside" else []
            model = make_pipeline(*steps, build(lr=lr, hidden=hidden)).fit(X[early], y[early])
            if how["check"] and not np.isfinite(model[-1].predict_proba(X[later][:1])).all():
                raise optuna.TrialPruned
            values.append(how["value"](y[later], model, X[later]))
            trial.report(float(np.mean(values)), fold)
            if how["prune"] and trial.should_prune():
                raise optuna.TrialPruned
        return float(np.mean(values))

    return objective


@exercise.wrong("callable")
def gives_the_value(build, X, y):
    """Runs a search itself, and returns what it found instead of an objective."""
    return 0.5


@exercise.wrong("ranges")
def on_linear_scales(build, X, y):
    """Forgets the log scale of both."""
    return _objective(build, X, y, log=False)


@exercise.wrong("measure")
def as_received(build, X, y):
    """The received answer's measure: accuracy, the default score of a classifier."""
    return _objective(build, X, y, value=lambda y, model, X: float(model.score(X, y)))


@exercise.wrong("order")
def shuffled(build, X, y):
    """Shuffled folds: trained on tomorrow, judged on yesterday."""
    return _objective(build, X, y, folds=KFold(3, shuffle=True, random_state=0))


@exercise.wrong("scaled")
def unscaled(build, X, y):
    """Leaves the columns as they are."""
    return _objective(build, X, y, scaler="none")


@exercise.wrong("leak")
def scaled_before(build, X, y):
    """Scales all rows before the split."""
    return _objective(build, X, y, scaler="before")


@exercise.wrong("float32")
def in_double_precision(build, X, y):
    """Hands on what NumPy and pandas count in."""
    return _objective(build, X, y, dtype=np.float64)


@exercise.wrong("diverged")
def trusts_every_score(build, X, y):
    """Gives nan to the measure, which raises: the study of the night ends at trial four."""
    return _objective(build, X, y, check=False)


@exercise.wrong("prune")
def reports_and_goes_on(build, X, y):
    """Reports and never asks: every fold is paid for."""
    return _objective(build, X, y, prune=False)
