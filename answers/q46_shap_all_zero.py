"""Q46 · SHAP values are all zero: the exercise, its checks, and the mistakes they catch."""

import numpy as np

from companion.study import Exercise, Stage

exercise = Exercise(
    "why_zero",
    hints={
        "start": (
            "Write down the causes in the order of the task, one `if` each, and return early.",
            "What you need once: the fraud probabilities of X and of the background together.",
            'Begin with the end: return "not zero", then put the causes above it one by one.',
        ),
        "a-text": (
            "The caller compares your result with one of six texts.",
            'Return a str, such as "rounding", exactly as the task spells it.',
        ),
        "background": (
            "A row is explained by how it differs from the background. What if it does not?",
            "Compare every row of X with every row of the background, not with their mean: "
            "(X[:, None] == background[None]).all().",
        ),
        "constant": (
            "A model that says the same about everything leaves nothing to divide.",
            "Look at the spread of predict_proba(...)[:, 1] over X and background, not at the "
            "values. A spread of rounding error is none.",
            "One row without a background has no spread; that says nothing about the model.",
        ),
        "averaged": (
            "Mirror images cancel up to rounding. Are values of 1e-17 zero for you?",
            "np.abs(values) < 1e-9 for all of them; == 0 finds only some.",
        ),
        "labels": (
            "What can base + values be if labels were explained? What can it not be?",
            "values.sum(axis=1) is score minus base: with labels two sums, 1 apart, or one. Then "
            "make sure that the probabilities take more than two values.",
            "Round the sums before np.unique, and test their distance with a tolerance.",
        ),
        "rounding": (
            "How large may a value be and still be printed as 0.00?",
            "np.round(values, decimals) == 0, and more than half of them. Use the decimals that "
            "you were given.",
        ),
        "order": (
            "Several causes may fit at once. Which one comes first in the task?",
            "Small values are also what a constant model gives: ask for rounding last.",
        ),
    },
)


class Sigmoid:
    """A model of fraud: the probability rises with the weighted sum of the features."""

    def __init__(self, weights, shift=-2.0):
        self.weights, self.shift = np.asarray(weights, dtype=float), shift

    def predict_proba(self, X):
        p = 1 / (1 + np.exp(-(np.asarray(X) @ self.weights + self.shift)))
        return np.column_stack([1 - p, p])


class Always:
    """A model that has learned nothing but the base rate, up to rounding."""

    def __init__(self, rate, noise=0.0):
        self.rate, self.noise = rate, noise

    def predict_proba(self, X):
        p = self.rate + self.noise * np.arange(len(X))
        return np.column_stack([1 - p, p])


def data(rng, rows=20, features=4):
    return rng.normal(size=(rows, features))


def alive(rng):
    """A model, rows, a background, and contributions that look as they should."""
    model = Sigmoid(rng.uniform(0.5, 1.5, size=4))
    values = rng.choice([-1, 1], size=(20, 4)) * rng.uniform(0.05, 0.2, size=(20, 4))
    return model, data(rng), data(rng), values


def of_labels(rng, labels, base):
    """Contributions of an explained label: each row's sum is its label less the base."""
    parts = rng.dirichlet(np.ones(4), size=len(labels))
    return parts * (labels - base)[:, None]


@exercise.check(Stage.TYPE, hint="a-text")
def it_gives_a_text(attempt, case):
    """it returns a text"""
    got = attempt(*_three(alive(case.rng)))
    case.true(isinstance(got, str), given="a healthy explanation", expected="a str", got=got)


@exercise.check(Stage.VALUE, hint="order")
def a_healthy_explanation_is_not_zero(attempt, case):
    """contributions of ordinary size are "not zero", with a background and without"""
    model, X, background, values = alive(case.rng)
    given = "contributions between 0.05 and 0.2"
    case.equal(given=given, expected="not zero", got=attempt(model, X, values))
    got = attempt(model, X, values, background=background)
    case.equal(given=f"{given}, with a background", expected="not zero", got=got)


@exercise.check(Stage.VALUE, hint="background")
def a_row_compared_with_itself_is_found(attempt, case):
    """rows that equal the whole background are “background”"""
    model, X, _, _ = alive(case.rng)
    for row, background in ((X[:1], X[:1]), (X[[3, 3]], X[[3, 3, 3]])):
        got = attempt(model, row, np.zeros_like(row), background=background)
        case.equal(
            given=f"{len(row)} row(s), a background of {len(background)} equal to them",
            expected="background",
            got=got,
        )


@exercise.check(Stage.VALUE, hint="background")
def a_row_at_the_mean_is_not_compared_with_itself(attempt, case):
    """a row that equals only the mean, or one row, of the background is not “background”"""
    model, _, background, _ = alive(case.rng)
    values = np.full((1, 4), 0.3)
    for name, row in (
        ("the mean of the background", background.mean(axis=0, keepdims=True)),
        ("one row of the background", background[4:5]),
    ):
        got = attempt(model, row, values, background=background)
        case.equal(given=f"{name}, contributions of 0.3", expected="not zero", got=got)


@exercise.check(Stage.VALUE, hint="constant")
def a_constant_model_is_found(attempt, case):
    """a model that says the same about all rows is “constant”"""
    X, rate = data(case.rng), float(case.rng.uniform(0.01, 0.1))
    for noise in (0.0, 1e-17):
        got = attempt(Always(rate, noise), X, np.zeros_like(X))
        case.equal(given=f"a model that says {rate:.3f} of all", expected="constant", got=got)
    got = attempt(Always(rate), X[:1], np.zeros((1, 4)), background=X[5:])
    case.equal(given="the same, one row and a background", expected="constant", got=got)


@exercise.check(Stage.VALUE, hint="averaged")
def classes_that_cancel_are_found(attempt, case):
    """values that are nothing but rounding error are "averaged" when the model is alive"""
    model, X, background, values = alive(case.rng)
    for name, cancelled in (("zeros", values * 0), ("values of 1e-17", values * 1e-16)):
        got = attempt(model, X, cancelled, background=background)
        case.equal(given=f"{name}, a model that is alive", expected="averaged", got=got)


@exercise.check(Stage.VALUE, hint="labels")
def explained_labels_are_found(attempt, case):
    """sums that are a label less a base are "labels", whichever labels occur"""
    model, X, background, _ = alive(case.rng)
    base = float(case.rng.uniform(0.2, 0.4))
    some = (case.rng.permutation(20) < 7).astype(float)
    for name, labels in (("both labels", some), ("one label only", np.ones(20))):
        got = attempt(model, X, of_labels(case.rng, labels, base), background=background)
        case.equal(given=f"contributions to labels, {name}", expected="labels", got=got)


@exercise.check(Stage.VALUE, hint="labels")
def two_probabilities_are_not_labels(attempt, case):
    """two sums that are not 1 apart, or a model of two probabilities, are not “labels”"""
    model, X, _, _ = alive(case.rng)
    halves = of_labels(case.rng, (np.arange(20) < 9) * 0.6, -0.3)
    got = attempt(model, X, halves)
    case.equal(given="two sums, 0.6 apart", expected="not zero", got=got)

    stump = Sigmoid([50.0, 0, 0, 0], 0.0)
    sides = np.where(np.arange(20) < 9, 5.0, -5.0)[:, None] * np.ones((1, 4))
    told = (np.arange(20) < 9).astype(float)
    got = attempt(stump, sides, of_labels(case.rng, told, -0.4))
    case.equal(
        given="sums 1 apart, of a model that gives 0 and 1 as probabilities",
        expected="not zero",
        got=got,
    )


@exercise.check(Stage.VALUE, hint="rounding")
def small_values_are_told_from_none(attempt, case):
    """values that the format hides are "rounding", for the decimals that were asked about"""
    model, X, background, values = alive(case.rng)
    small = values / 100  # 0.0005 to 0.002
    for decimals, expected in ((2, "rounding"), (4, "not zero")):
        got = attempt(model, X, small, background=background, decimals=decimals)
        case.equal(
            given=f"values of 0.0005 to 0.002, {decimals} decimals", expected=expected, got=got
        )
    few = values.copy()
    few[:8] /= 100  # 8 of 20 rows
    got = attempt(model, X, few, background=background)
    case.equal(given="8 of 20 rows shown as 0.00", expected="not zero", got=got)


@exercise.check(Stage.STRESS, hint="order")
def the_first_cause_that_applies_is_told(attempt, case):
    """where several causes apply, the first of the list is told"""
    X = data(case.rng)
    row = X[:1]
    got = attempt(Always(0.02), row, np.zeros((1, 4)), background=row[[0, 0]])
    case.equal(
        given="a constant model, and the row is its own background", expected="background", got=got
    )
    got = attempt(Always(0.02), X, np.full_like(X, 1e-4))
    case.equal(given="a constant model and values of 1e-4", expected="constant", got=got)


@exercise.check(Stage.STRESS, hint="constant")
def one_row_says_nothing_about_the_model(attempt, case):
    """a single row without a background does not make a model constant"""
    model, X, _, _ = alive(case.rng)
    got = attempt(model, X[:1], np.zeros((1, 4)))
    case.equal(given="one row, no background, zeros", expected="averaged", got=got)


def _three(example):
    model, X, _, values = example
    return model, X, values


@exercise.solution
def why_zero(model, X, values, background=None, decimals=2):
    rows = X if background is None else np.concatenate([X, background])
    if background is not None and (X[:, None] == background[None]).all():
        return "background"
    said = model.predict_proba(rows)[:, 1]
    if len(rows) > 1 and np.ptp(said) < 1e-9:
        return "constant"
    if (np.abs(values) < 1e-9).all():
        return "averaged"
    sums = np.unique(np.round(values.sum(axis=1), 6))
    apart = len(sums) == 1 or (len(sums) == 2 and abs(sums[1] - sums[0] - 1) < 1e-5)
    if apart and len(np.unique(np.round(said[: len(X)], 6))) > 2:
        return "labels"
    if (np.round(values, decimals) == 0).mean() > 0.5:
        return "rounding"
    return "not zero"


@exercise.another_way
def as_a_table(model, X, values, background=None, decimals=2):
    """The causes as a table of name and test, and the first test that is true."""
    p = model.predict_proba(X)[:, 1]
    everything = p
    if background is not None:
        everything = np.append(p, model.predict_proba(background)[:, 1])
    scores = values.sum(axis=1)
    low = scores.min()
    near_label = np.minimum(np.abs(scores - low), np.abs(scores - low - 1)) < 1e-5
    table = {
        "background": lambda: (
            background is not None and not np.ptp(np.concatenate([X, background]), axis=0).any()
        ),
        "constant": lambda: everything.size > 1 and everything.max() - everything.min() < 1e-9,
        "averaged": lambda: np.abs(values).max() < 1e-9,
        "labels": lambda: near_label.all() and len({round(float(x), 6) for x in p}) > 2,
        "rounding": lambda: np.median(np.abs(values) < 0.5 * 10.0**-decimals) == 1,
    }
    return next((name for name, applies in table.items() if applies()), "not zero")


@exercise.wrong("a-text")
def true_or_false(model, X, values, background=None, decimals=2):
    """Says whether the values are zero instead of why."""
    return bool((values == 0).all())


@exercise.wrong("order")
def received(model, X, values, background=None, decimals=2):
    """The received answer: it is always the class index."""
    return "averaged"


@exercise.wrong("background")
def forgets_the_background(model, X, values, background=None, decimals=2):
    """Never looks at what the rows were compared with."""
    return why_zero(model, X, values, None, decimals)


@exercise.wrong("background")
def compares_with_the_mean(model, X, values, background=None, decimals=2):
    """Takes a row at the mean of the background for a row compared with itself."""
    if background is not None and np.allclose(X, background.mean(axis=0)):
        return "background"
    return why_zero(model, X, values, background, decimals)


@exercise.wrong("constant")
def constant_by_its_values(model, X, values, background=None, decimals=2):
    """Concludes from the values what only the model can tell."""
    told = why_zero(model, X, values, background, decimals)
    return "averaged" if told == "constant" else told


@exercise.wrong("constant")
def exactly_constant(model, X, values, background=None, decimals=2):
    """Asks for equal probabilities to the last bit, which averaging trees does not give."""
    told = why_zero(model, X, values, background, decimals)
    rows = X if background is None else np.concatenate([X, background])
    differ = len(np.unique(model.predict_proba(rows)[:, 1])) > 1
    return "averaged" if told == "constant" and differ else told


@exercise.wrong("averaged")
def exactly_zero(model, X, values, background=None, decimals=2):
    """Asks for zero to the last bit, and takes rounding error for a contribution."""
    told = why_zero(model, X, values, background, decimals)
    return "rounding" if told == "averaged" and values.any() else told


@exercise.wrong("labels")
def counts_zeros_for_labels(model, X, values, background=None, decimals=2):
    """Takes many exact zeros for the mark of labels; they have none here."""
    told = why_zero(model, X, values, background, decimals)
    return "not zero" if told == "labels" else told


@exercise.wrong("labels")
def any_two_sums(model, X, values, background=None, decimals=2):
    """Takes any two sums for labels, a tree with two leaves included."""
    told = why_zero(model, X, values, background, decimals)
    two = len(np.unique(np.round(values.sum(axis=1), 6))) <= 2
    return "labels" if told == "not zero" and two and len(X) > 1 else told


@exercise.wrong("rounding")
def always_two_decimals(model, X, values, background=None, decimals=2):
    """Ignores how many digits were on the screen."""
    return why_zero(model, X, values, background, 2)


@exercise.wrong("order")
def rounding_first(model, X, values, background=None, decimals=2):
    """Asks for small values before it asks why they are small."""
    small = (np.abs(values) > 1e-9).any() and (np.round(values, decimals) == 0).mean() > 0.5
    return "rounding" if small else why_zero(model, X, values, background, decimals)


@exercise.wrong("constant")
def one_row_is_constant(model, X, values, background=None, decimals=2):
    """Takes the spread over one row for the spread of the model."""
    if background is None and np.ptp(model.predict_proba(X)[:, 1]) < 1e-9:
        return "constant"
    return why_zero(model, X, values, background, decimals)
