"""Q01 · skorch: the exercise, its checks, and the mistakes they catch."""

import pickle

import numpy as np
import pandas as pd
import torch
import torch._dynamo  # the first optimizer imports it: once here, not again in each check's fork
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from companion.study import Exercise, Stage

exercise = Exercise(
    "make_net",
    hints={
        "start": (
            "Begin with the received version, a Pipeline of a scaler and a NeuralNetClassifier, "
            "and let the checker tell you what it lacks, one thing at a time.",
            "It needs a step between the two, four settings of NeuralNetClassifier that differ "
            "from their defaults, and a seed.",
            "Steps: scale, cast to float32, net. Settings: criterion, optimizer, train_split, "
            "verbose. The seed belongs where a fit begins.",
        ),
        "pipeline": (
            "A scaler outside the object that is stored and tuned will be forgotten somewhere.",
            'Return Pipeline([("scale", …), …, ("net", …)]); the last step has to be called "net" '
            "so that net__lr finds it.",
        ),
        "float32": (
            "What reaches the network, in fit and in predict_proba: a table or an array, and of "
            "which type?",
            "StandardScaler keeps float64, and a module's weights are float32. Cast inside the "
            "pipeline, behind the scaler, so that both ways pass through it.",
            'FunctionTransformer(np.asarray, kw_args={"dtype": np.float32})',
        ),
        "match": (
            "What does net.criterion expect of the module, and what does the module return?",
            "If you name none, NeuralNetClassifier takes NLLLoss, which expects probabilities. "
            "This module returns two logits a row.",
            "criterion=nn.CrossEntropyLoss: then skorch applies the softmax when it predicts.",
        ),
        "double-softmax": (
            "Every probability lies between 0.27 and 0.73. How often is a softmax applied?",
            "With CrossEntropyLoss, skorch applies one when it predicts, and the loss applies one "
            "when it trains. A second one squeezes [0, 1] into [0.27, 0.73].",
            "Hand over raw logits, and return what predict_proba gives.",
        ),
        "scale": (
            "The same problem with all columns in one unit is no problem for your net.",
            "One column is in metres and has thousands, another is a share: put a StandardScaler "
            "first in the pipeline.",
        ),
        "optimizer": (
            "The loss and the types are right, and still it has hardly moved. Who takes the steps?",
            "The default optimizer is plain SGD, for which these learning rates are far too small.",
            "optimizer=torch.optim.Adam",
        ),
        "all-rows": (
            "Count the rows that the module sees in training: all of them, once an epoch.",
            "By default skorch holds a fifth out inside fit, to show you a validation loss.",
            "train_split=None",
        ),
        "learning-rate": (
            "net__lr was set before fit. Which setting did the optimizer read?",
            "A rate given as optimizer__lr wins over lr for ever. Pass it as lr.",
        ),
        "seed": (
            "Weights and batches are drawn from a global generator. When did you seed it?",
            "What is drawn between building and fitting moves the generator on. Seed it where the "
            "fit begins.",
            "Subclass NeuralNetClassifier, take a seed in __init__, and override fit: "
            "torch.manual_seed(self.seed), then super().fit(…).",
        ),
        "afresh": (
            "The second fit did not begin where the first one began.",
            "Give NeuralNetClassifier the module's class, not an instance, and leave warm_start "
            "off: then every fit builds new weights.",
        ),
        "clone": (
            "Cross-validation and every search clone your pipeline first. What gets lost?",
            "clone() builds a new object from get_params(), and skorch finds a parameter by the "
            "attribute of the same name, without an underscore: self.seed = seed.",
        ),
        "pickle": (
            "A pickle stores the names of functions and classes, not their code.",
            "A lambda, and a class defined inside a function, have no name that can be imported. "
            "Define them at the top level.",
        ),
    },
)


class Tiny(nn.Module):
    """Four features in, two logits out."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, x):
        return self.layers(x)


class Counting(Tiny):
    """Counts the rows that it is trained on."""

    rows = 0

    def forward(self, x):
        if self.training:
            Counting.rows += len(x)
        return super().forward(x)


def easy_problem(rng, rows=240):
    """A float64 table in four very different units, and labels that amount and share decide."""
    z = rng.normal(size=(rows, 4))
    wanted = np.where(rng.random(2) < 0.5, -1.0, 1.0)
    y = (z[:, [0, 2]] @ wanted > 0).astype("int64")
    columns = ["log_amount", "minutes", "share", "distance_m"]
    X = pd.DataFrame(z * [1, 60, 0.01, 5_000] + [3, 600, 0.5, 20_000], columns=columns)
    return X, y


GIVEN = "a DataFrame of 240 rows and 4 float64 columns"


@exercise.check(Stage.TYPE, hint="pipeline")
def it_is_a_pipeline(attempt, case):
    """it returns a scikit-learn Pipeline whose last step is called net"""
    made = attempt(Tiny, lr=float(case.rng.uniform(0.001, 0.01)), epochs=1, seed=1)
    case.true(
        isinstance(made, Pipeline),
        given="make_net(Module)",
        expected="a Pipeline",
        got=type(made).__name__,
    )
    case.equal(given="make_net(Module): the last step", expected="net", got=made.steps[-1][0])


@exercise.check(Stage.SHAPE, hint="float32")
def float64_goes_in(attempt, case):
    """float64 DataFrames and arrays go in, in fit and in predict_proba; rows × 2 comes out"""
    X, y = easy_problem(case.rng)
    for inputs, given in ((X, GIVEN), (X.to_numpy(), "the same as an array")):
        try:
            fitted = attempt(Tiny, epochs=1).fit(inputs, y)
        except ValueError as error:
            mismatch = "Target size" in str(error)
            case.true(
                False,
                given=given,
                expected="it fits",
                got=f"ValueError: {error}",
                hint="match" if mismatch else "",
            )
        got = np.shape(fitted.predict_proba(inputs))
        case.equal(given=f"{given}: predict_proba has the shape", expected=(240, 2), got=got)


@exercise.check(Stage.RANGE, hint="match")
def probabilities_come_out(attempt, case):
    """predict_proba gives probabilities: from 0 to 1, and each row sums to 1"""
    X, y = easy_problem(case.rng)
    p = attempt(Tiny, lr=0.02, epochs=5).fit(X, y).predict_proba(X)
    sums = p.sum(axis=1)
    case.true(
        p.min() >= 0 and p.max() <= 1 and np.allclose(sums, 1, atol=1e-4),
        given=f"{GIVEN}, fitted for 5 epochs",
        expected="values from 0 to 1, rows that sum to 1",
        got=f"values from {p.min():.2f} to {p.max():.2f}, sums from {sums.min():.2f} "
        f"to {sums.max():.2f}",
    )


def confidence(fitted, X, y):
    """The mean probability given to the class that is right."""
    p = fitted.predict_proba(X)
    return float(np.mean(p[np.arange(len(y)), y]))


@exercise.check(Stage.VALUE, hint="optimizer")
def it_learns(attempt, case):
    """with lr=0.05 and 20 epochs it solves a problem that two columns decide"""
    X, y = easy_problem(case.rng)
    fitted = attempt(Tiny, lr=0.05, epochs=20).fit(X, y)
    sure = confidence(fitted, X, y)
    if sure > 0.85:
        return
    p = fitted.predict_proba(X)
    one_unit = (X - X.mean()) / X.std()
    hint = "optimizer"
    if p.min() > 0.26 and p.max() < 0.74 and sure > 0.6:
        hint = "double-softmax"
    elif confidence(attempt(Tiny, lr=0.05, epochs=20).fit(one_unit, y), one_unit, y) > 0.85:
        hint = "scale"
    case.true(
        False,
        given=f"{GIVEN}, lr=0.05, epochs=20",
        expected="above 0.85 for the right class, on average",
        got=f"{sure:.2f}, all between {p.min():.2f} and {p.max():.2f}",
        hint=hint,
    )


@exercise.check(Stage.VALUE, hint="all-rows")
def every_row_teaches(attempt, case):
    """every row that fit is given is used for training, once an epoch"""
    X, y = easy_problem(case.rng, rows=int(case.rng.integers(150, 400)))
    Counting.rows = 0
    attempt(Counting, epochs=3).fit(X, y)
    case.equal(
        given=f"{len(X)} rows, epochs=3: rows seen in training",
        expected=3 * len(X),
        got=Counting.rows,
    )


@exercise.check(Stage.VALUE, hint="learning-rate")
def the_learning_rate_can_be_set(attempt, case):
    """set_params(net__lr=…) changes how it learns"""
    X, y = easy_problem(case.rng)
    fitted = attempt(Tiny, lr=1e-9, epochs=20).set_params(net__lr=0.05).fit(X, y)
    case.true(
        confidence(fitted, X, y) > 0.85,
        given="make_net(Module, lr=1e-9, epochs=20).set_params(net__lr=0.05)",
        expected="it learns as with lr=0.05: above 0.85 for the right class, on average",
        got=f"{confidence(fitted, X, y):.2f}",
    )


@exercise.check(Stage.STRESS, hint="seed")
def the_seed_decides(attempt, case):
    """the same seed gives the same model whatever was drawn before; another seed another model"""
    X, y = easy_problem(case.rng)
    seed = int(case.rng.integers(1_000))
    first, second, other = (attempt(Tiny, epochs=3, seed=s) for s in (seed, seed, seed + 1))
    p = first.fit(X, y).predict_proba(X)
    torch.rand(int(case.rng.integers(1, 100)))
    case.true(
        np.allclose(p, second.fit(X, y).predict_proba(X), atol=1e-6),
        given=f"two pipelines with seed={seed}, random numbers drawn in between",
        expected="the same probabilities",
        got="different ones",
    )
    case.true(
        not np.allclose(p, other.fit(X, y).predict_proba(X), atol=1e-6),
        given=f"seed={seed} and seed={seed + 1}",
        expected="two different models",
        got="the same one twice",
    )


@exercise.check(Stage.STRESS, hint="afresh")
def each_fit_starts_afresh(attempt, case):
    """a second fit forgets the first"""
    X, y = easy_problem(case.rng)
    used = attempt(Tiny, lr=0.02, epochs=10, seed=3).fit(X, 1 - y).fit(X, y)
    fresh = attempt(Tiny, lr=0.02, epochs=10, seed=3).fit(X, y)
    case.true(
        np.allclose(used.predict_proba(X), fresh.predict_proba(X), atol=1e-6),
        given="fit(X, 1 - y) and then fit(X, y), beside a fresh pipeline with fit(X, y) only",
        expected="the same probabilities",
        got="different ones",
    )


@exercise.check(Stage.STRESS, hint="clone")
def clones_keep_everything(attempt, case):
    """clone keeps every setting, and cross_val_score gives a finite log loss in every fold"""
    X, y = easy_problem(case.rng)
    seed = int(case.rng.integers(1, 1_000))
    original = attempt(Tiny, lr=0.02, epochs=4, seed=seed)
    twin = clone(original)
    case.true(
        np.allclose(
            original.fit(X, y).predict_proba(X), twin.fit(X, y).predict_proba(X), atol=1e-6
        ),
        given=f"make_net(Module, lr=0.02, epochs=4, seed={seed}) and its clone, both fitted",
        expected="the same probabilities",
        got="different ones",
    )
    scores = cross_val_score(original, X, y, cv=3, scoring="neg_log_loss")
    case.true(
        np.isfinite(scores).all(),
        given='cross_val_score(…, cv=3, scoring="neg_log_loss")',
        expected="three finite numbers",
        got=scores.round(3).tolist(),
    )


@exercise.check(Stage.STRESS, hint="pickle")
def it_can_be_stored(attempt, case):
    """a fitted pipeline survives pickle"""
    X, y = easy_problem(case.rng)
    fitted = attempt(Tiny, epochs=2).fit(X, y)
    restored = pickle.loads(pickle.dumps(fitted))
    case.true(
        np.allclose(fitted.predict_proba(X), restored.predict_proba(X), atol=1e-6),
        given="pickle.loads(pickle.dumps(fitted))",
        expected="the same probabilities",
        got="different ones",
    )


@exercise.part_of_solution
class SeededNet(NeuralNetClassifier):
    """Draws the weights and the batches of every fit from its own seed."""

    def __init__(self, *args, seed=0, **kwargs):
        super().__init__(*args, **kwargs)
        self.seed = seed

    def fit(self, X, y, **fit_params):
        torch.manual_seed(self.seed)
        return super().fit(X, y, **fit_params)


@exercise.solution
def make_net(module, lr=1e-3, epochs=20, seed=0):
    net = SeededNet(
        module,
        criterion=nn.CrossEntropyLoss,  # the module returns logits
        optimizer=torch.optim.Adam,
        lr=lr,
        max_epochs=epochs,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        seed=seed,
    )
    to_float32 = FunctionTransformer(np.asarray, kw_args={"dtype": np.float32})
    return Pipeline([("scale", StandardScaler()), ("float32", to_float32), ("net", net)])


class AsProbabilities(nn.Module):
    """The other half of the match: what skorch's default loss expects is made here."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits()

    def forward(self, x):
        return self.logits(x).softmax(dim=-1)


class SeededWhereWeightsAreDrawn(NeuralNetClassifier):
    def __init__(self, *args, seed=0, **kwargs):
        super().__init__(*args, **kwargs)
        self.seed = seed

    def initialize_module(self):
        torch.manual_seed(self.seed)
        return super().initialize_module()


class ScaleToFloat32(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        values = np.asarray(X)
        self.mean_, self.scale_ = values.mean(axis=0), values.std(axis=0)
        return self

    def transform(self, X):
        return ((np.asarray(X) - self.mean_) / self.scale_).astype(np.float32)


@exercise.another_way
def matched_the_other_way(module, lr=1e-3, epochs=20, seed=0):
    """The default NLLLoss stays, and the module is wrapped so that it gives probabilities."""
    net = SeededWhereWeightsAreDrawn(
        AsProbabilities,
        module__logits=module,
        optimizer=torch.optim.RMSprop,
        lr=lr,
        max_epochs=epochs,
        train_split=None,
        verbose=0,
        seed=seed,
    )
    return Pipeline([("scale", ScaleToFloat32()), ("net", net)])


@exercise.wrong("float32")
def received(module, lr=1e-3, epochs=20, seed=0):
    """The received answer: the scaler gives float64 to a module of float32."""
    net = NeuralNetClassifier(module, lr=lr, max_epochs=epochs, verbose=0)
    return Pipeline([("scaler", StandardScaler()), ("net", net)])


@exercise.wrong("match")
def received_on_float32(module, lr=1e-3, epochs=20, seed=0):
    """The received answer with the types mended: logits meet a loss for probabilities."""
    return make_net(module, lr, epochs, seed).set_params(net__criterion=nn.NLLLoss)


@exercise.wrong("match")
def a_loss_for_one_output(module, lr=1e-3, epochs=20, seed=0):
    """Two classes, so a binary loss; but that one expects a single logit a row."""
    return make_net(module, lr, epochs, seed).set_params(net__criterion=nn.BCEWithLogitsLoss)


@exercise.wrong("pipeline")
def only_the_net(module, lr=1e-3, epochs=20, seed=0):
    """The scaler is left to whoever calls."""
    return make_net(module, lr, epochs, seed)[-1]


class CastsInFit(Pipeline):
    def fit(self, X, y=None, **params):
        return super().fit(np.asarray(X, dtype=np.float32), y, **params)


@exercise.wrong("float32")
def cast_outside(module, lr=1e-3, epochs=20, seed=0):
    """Casts on the way into fit, so that the first request in production brings float64."""
    whole = make_net(module, lr, epochs, seed)
    return CastsInFit([step for step in whole.steps if step[0] != "float32"])


@exercise.wrong("double-softmax")
def softmax_in_forward(module, lr=1e-3, epochs=20, seed=0):
    """Probabilities meet a loss that wants logits: a softmax too many, in training as well."""
    return make_net(AsProbabilities, lr, epochs, seed).set_params(net__module__logits=module)


class SoftmaxOnTop(SeededNet):
    def predict_proba(self, X):
        return torch.softmax(torch.as_tensor(super().predict_proba(X)), dim=-1).numpy()


@exercise.wrong("double-softmax")
def softmax_on_the_output(module, lr=1e-3, epochs=20, seed=0):
    """Takes predict_proba for logits and applies the softmax once more."""
    whole = make_net(module, lr, epochs, seed)
    return Pipeline([*whole.steps[:-1], ("net", SoftmaxOnTop(**whole[-1].get_params(deep=False)))])


@exercise.wrong("scale")
def no_scaler(module, lr=1e-3, epochs=20, seed=0):
    """Metres, minutes and shares reach the network as they are."""
    return Pipeline(make_net(module, lr, epochs, seed).steps[1:])


@exercise.wrong("optimizer")
def plain_sgd(module, lr=1e-3, epochs=20, seed=0):
    """Leaves the optimizer at its default."""
    return make_net(module, lr, epochs, seed).set_params(net__optimizer=torch.optim.SGD)


@exercise.wrong("all-rows")
def a_fifth_held_out(module, lr=1e-3, epochs=20, seed=0):
    """Leaves train_split at its default."""
    default = NeuralNetClassifier(module).train_split
    return make_net(module, lr, epochs, seed).set_params(net__train_split=default)


@exercise.wrong("learning-rate")
def rate_in_the_wrong_place(module, lr=1e-3, epochs=20, seed=0):
    """The optimizer's own lr hides the net's, so a search over net__lr searches nothing."""
    return make_net(module, lr, epochs, seed).set_params(net__optimizer__lr=lr)


def unseeded(module, lr, epochs):
    whole = make_net(module, lr, epochs)
    params = whole[-1].get_params(deep=False)
    del params["seed"]
    return Pipeline([*whole.steps[:-1], ("net", NeuralNetClassifier(**params))])


@exercise.wrong("seed")
def no_seed(module, lr=1e-3, epochs=20, seed=0):
    """Takes a seed and does nothing with it."""
    return unseeded(module, lr, epochs)


@exercise.wrong("seed")
def seeded_when_built(module, lr=1e-3, epochs=20, seed=0):
    """Seeds when the pipeline is built; by the time of fit others have drawn."""
    torch.manual_seed(seed)
    return unseeded(module, lr, epochs)


@exercise.wrong("afresh")
def an_instance(module, lr=1e-3, epochs=20, seed=0):
    """Hands over a module that exists already, whose trained weights greet the next fit."""
    torch.manual_seed(seed)
    return make_net(module(), lr, epochs, seed)


class HiddenSeed(NeuralNetClassifier):
    def __init__(self, *args, seed=0, **kwargs):
        super().__init__(*args, **kwargs)
        self._seed = seed

    def fit(self, X, y, **fit_params):
        torch.manual_seed(self._seed)
        return super().fit(X, y, **fit_params)


@exercise.wrong("clone")
def a_seed_that_clones_lose(module, lr=1e-3, epochs=20, seed=0):
    """Keeps the seed where get_params does not look, so that clones fall back to the default."""
    whole = make_net(module, lr, epochs)
    params = whole[-1].get_params(deep=False) | {"seed": seed}
    return Pipeline([*whole.steps[:-1], ("net", HiddenSeed(**params))])


@exercise.wrong("pickle")
def a_lambda(module, lr=1e-3, epochs=20, seed=0):
    """Casts with a lambda, which no pickle can name."""
    cast = FunctionTransformer(lambda X: np.asarray(X, dtype=np.float32))
    return make_net(module, lr, epochs, seed).set_params(float32=cast)
