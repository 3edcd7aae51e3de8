"""Q05 · SHAP values and their shapes: the exercise, its checks, and the mistakes they catch."""

from functools import cache
from types import SimpleNamespace

import numpy as np
import shap
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier

from companion.study import Exercise, Stage

exercise = Exercise(
    "fraud_shap",
    hints={
        "start": (
            "Call explainer.shap_values(X) and look at what you got: a list? how many dimensions?",
            "Three shapes, three ways to the fraud class; then the base, which may be a number or "
            "several.",
            "Write the case of three dimensions first: values[..., column].",
        ),
        "two-things": (
            "The caller unpacks two things: an array and a number.",
            "Return (values, base), values as a NumPy array, base as float(…).",
        ),
        "row-one": (
            "Print the shape of what you return. How many rows did the caller ask about?",
            "values[1] of an array is its second row. Classes stand on the *last* axis.",
            "Where values.ndim is 3: values[:, :, column].",
        ),
        "two-dimensions": (
            "Boosting gives two dimensions: rows and features. Where are the classes?",
            "values[..., 1] of rows × features is the second feature. Ask for ndim first.",
        ),
        "old-list": (
            "Older versions give a list of arrays, one per class.",
            "isinstance(values, list) comes before any question about ndim: values[column].",
            "np.asarray on that list would put the classes first, not last.",
        ),
        "classes-cancel": (
            "Add up the two classes of one row. What do you get?",
            "What speaks for fraud speaks against its opposite: the mean over both is zero. Take "
            "one class.",
        ),
        "base": (
            "The values add up to the score only from the right base.",
            "np.ravel(expected_value) has one entry per class, or a single one; take the class's "
            "own where there are two.",
        ),
        "column": (
            'Fraud stands where `column` says, and labels such as "fraud" and "ok" put it first.',
            "Use column wherever you wrote a 1: for the values and for the base.",
        ),
        "mirror": (
            "Fraud is the first class here. Whose contributions does boosting give?",
            "Two dimensions speak of the second class, in log-odds: for the first, all signs turn, "
            "those of the values and that of the base.",
        ),
    },
)


def table(rng, rows=80, features=5):
    X = rng.normal(size=(rows, features))
    y = (X[:, 0] - X[:, 1] * X[:, 2] + 0.5 * rng.normal(size=rows) > 0.5).astype(int)
    return X, y


@cache
def trained(kind):
    X, y = table(np.random.default_rng(5), rows=200)
    if kind == "forest":
        return RandomForestClassifier(8, max_depth=4, random_state=0, n_jobs=1).fit(X, y)
    return GradientBoostingClassifier(n_estimators=12, random_state=0).fit(X, y)


def tree(kind):
    return shap.TreeExplainer(trained(kind))


def pretended(values, expected):
    """An explainer of another version or model: it gives these values and this base."""
    return SimpleNamespace(shap_values=lambda X: values, expected_value=expected)


def is_close(a, b):
    return np.shape(a) == np.shape(b) and np.allclose(a, b, atol=1e-6)


@exercise.check(Stage.TYPE, hint="two-things")
def it_gives_an_array_and_a_number(attempt, case):
    """it returns an array and one float"""
    X, _ = table(case.rng, rows=6)
    got = attempt(tree("forest"), X, 1)
    kinds = [type(part).__name__ for part in got] if isinstance(got, tuple) else type(got).__name__
    right = (
        isinstance(got, tuple)
        and len(got) == 2
        and isinstance(got[0], np.ndarray)
        and isinstance(got[1], float)
    )
    case.true(right, given="a forest, 6 rows", expected="(ndarray, float)", got=kinds)


@exercise.check(Stage.SHAPE, hint="row-one")
def a_forest_gives_a_row_for_each_row(attempt, case):
    """for a forest the values are rows × features"""
    rows = int(case.rng.integers(7, 30))
    X, _ = table(case.rng, rows=rows)
    values, _ = attempt(tree("forest"), X, 1)
    case.equal(given=f"a forest, {rows} rows × 5 features", expected=(rows, 5), got=values.shape)


@exercise.check(Stage.SHAPE, hint="two-dimensions")
def boosting_gives_a_row_for_each_row(attempt, case):
    """for boosting the values are rows × features"""
    rows = int(case.rng.integers(7, 30))
    X, _ = table(case.rng, rows=rows)
    values, _ = attempt(tree("boosting"), X, 1)
    case.equal(given=f"boosting, {rows} rows × 5 features", expected=(rows, 5), got=values.shape)


@exercise.check(Stage.SHAPE, hint="row-one")
def one_transaction_is_enough(attempt, case):
    """a single transaction is explained"""
    X, _ = table(case.rng, rows=1)
    for kind in ("forest", "boosting"):
        values, _ = attempt(tree(kind), X, 1)
        case.equal(given=f"{kind}, one row", expected=(1, 5), got=values.shape)


@exercise.check(Stage.SHAPE, hint="old-list")
def a_list_of_classes_is_read(attempt, case):
    """a list with one array per class is read as such, also with two rows"""
    for rows in (2, int(case.rng.integers(3, 9))):
        classes = [case.rng.normal(size=(rows, 4)) for _ in range(2)]
        got, _ = attempt(pretended(classes, [0.9, 0.1]), np.zeros((rows, 4)), 1)
        case.true(
            is_close(got, classes[1]),
            given=f"a list of two arrays {rows} × 4, column 1",
            expected="the second array",
            got=f"an array of shape {np.shape(got)}",
        )


@exercise.check(Stage.VALUE, hint="classes-cancel")
def contributions_do_not_vanish(attempt, case):
    """the values are those of one class, not an average over classes"""
    X, _ = table(case.rng, rows=12)
    values, _ = attempt(tree("forest"), X, 1)
    largest = float(np.abs(values).max())
    case.true(
        largest > 1e-6,
        given="a forest, 12 rows",
        expected="contributions above 1e-6",
        got=f"none above {largest:.0e}",
    )


def off_by(attempt, rows, column):
    """How far base + values miss the forest's probability, at most."""
    values, base = attempt(tree("forest"), rows, column)
    said = trained("forest").predict_proba(rows)[:, column]
    return float(np.abs(base + values.sum(axis=1) - said).max())


@exercise.check(Stage.VALUE, hint="base")
def a_forest_adds_up(attempt, case):
    """base + values is the forest's probability of fraud"""
    off = off_by(attempt, table(case.rng, rows=12)[0], 1)
    case.true(
        off < 1e-6,
        given="a forest, fraud in column 1",
        expected="base + values = predict_proba",
        got=f"off by {off:.3f}",
    )


@exercise.check(Stage.VALUE, hint="column")
def the_column_is_the_callers(attempt, case):
    """the class explained is the one in `column`, the first one too"""
    off = off_by(attempt, table(case.rng, rows=12)[0], 0)
    case.true(
        off < 1e-6,
        given="a forest, fraud in column 0",
        expected="base + values = predict_proba[:, 0]",
        got=f"off by {off:.3f}",
    )


@exercise.check(Stage.VALUE, hint="base")
def boosting_adds_up(attempt, case):
    """base + values is boosting's log-odds of fraud, when fraud is the second class"""
    X, _ = table(case.rng, rows=12)
    values, base = attempt(tree("boosting"), X, 1)
    off = float(np.abs(base + values.sum(axis=1) - trained("boosting").decision_function(X)).max())
    case.true(
        off < 1e-6,
        given="boosting, fraud in column 1",
        expected="base + values = decision_function",
        got=f"off by {off:.3f}",
    )


@exercise.check(Stage.VALUE, hint="base")
def any_form_of_base_will_do(attempt, case):
    """expected_value may be a number, one number in a list, or an array per class"""
    values = case.rng.normal(size=(3, 4))
    number = float(case.rng.normal())
    for expected in (number, [number], np.array([number])):
        _, base = attempt(pretended(values, expected), np.zeros((3, 4)), 1)
        case.true(
            np.ndim(base) == 0 and abs(base - number) < 1e-12,
            given=f"rows × features and expected_value = {expected!r}",
            expected=number,
            got=base,
        )


@exercise.check(Stage.STRESS, hint="mirror")
def the_first_class_of_boosting_is_turned_round(attempt, case):
    """two dimensions speak of the second class: fraud in column 0 has the opposite signs"""
    X, _ = table(case.rng, rows=12)
    values, base = attempt(tree("boosting"), X, 0)
    off = float(np.abs(base + values.sum(axis=1) + trained("boosting").decision_function(X)).max())
    case.true(
        off < 1e-6,
        given="boosting, fraud in column 0",
        expected="base + values = −decision_function",
        got=f"off by {off:.3f}",
    )


@exercise.check(Stage.STRESS, hint="row-one")
def small_tables_are_no_trap(attempt, case):
    """two rows, two features and two classes are not mixed up"""
    cube = case.rng.normal(size=(2, 2, 2))
    got, base = attempt(pretended(cube, np.array([0.8, 0.2])), np.zeros((2, 2)), 1)
    case.true(
        is_close(got, cube[:, :, 1]) and abs(base - 0.2) < 1e-12,
        given="an array of 2 rows × 2 features × 2 classes, column 1",
        expected="the second entry of the last axis, base 0.2",
        got=(np.round(got, 2).tolist(), base),
    )


@exercise.solution
def fraud_shap(explainer, X, column=1):
    values = explainer.shap_values(X)
    bases = np.ravel(explainer.expected_value)
    if isinstance(values, list):  # shap before 0.45: one array per class
        values = np.stack(values, axis=-1)
    if values.ndim == 3:
        return values[:, :, column], float(bases[column])
    sign = 1.0 if column == 1 else -1.0  # log-odds of the second class
    return sign * values, float(sign * bases[-1])


@exercise.another_way
def by_classes_first(explainer, X, column=1):
    """Bring everything into one form, classes × rows × features, and pick the class there."""
    raw = explainer.shap_values(X)
    base = np.atleast_1d(explainer.expected_value).astype(float)
    if isinstance(raw, list):
        classes = raw
    elif np.ndim(raw) == 3:
        classes = np.moveaxis(raw, -1, 0)
    else:
        classes, base = (-raw, raw), np.array([-base[-1], base[-1]])
    return np.array(classes[column]), base[column].item()


def checked_base(explainer, column):
    bases = np.ravel(explainer.expected_value)
    return float(bases[column] if bases.size > 1 else bases[0])


@exercise.wrong("row-one")
def received(explainer, X, column=1):
    """The received answer: [1] is taken for the fraud class."""
    return np.asarray(explainer.shap_values(X)[1]), checked_base(explainer, column)


@exercise.wrong("two-things")
def values_only(explainer, X, column=1):
    """Forgets the base, without which the values add up to nothing that anybody knows."""
    return fraud_shap(explainer, X, column)[0]


@exercise.wrong("two-dimensions")
def always_the_last_axis(explainer, X, column=1):
    """Takes [..., column] of everything: of boosting's values that is one feature."""
    values = explainer.shap_values(X)
    if isinstance(values, list):
        return values[column], checked_base(explainer, column)
    return values[..., column], checked_base(explainer, column)


@exercise.wrong("row-one")
def flattens_one_row(explainer, X, column=1):
    """Squeezes dimensions of length one away, and a single transaction with them."""
    values, base = fraud_shap(explainer, X, column)
    return np.squeeze(values), base


@exercise.wrong("old-list")
def knows_arrays_only(explainer, X, column=1):
    """Turns the old list into an array, in which classes stand first."""
    values = np.asarray(explainer.shap_values(X))
    bases = np.ravel(explainer.expected_value)
    if values.ndim == 3:
        return values[:, :, column], float(bases[column])
    sign = 1.0 if column == 1 else -1.0
    return sign * values, float(sign * bases[-1])


@exercise.wrong("classes-cancel")
def mean_over_classes(explainer, X, column=1):
    """Averages both classes, which are mirror images."""
    values = explainer.shap_values(X)
    if isinstance(values, list):
        return values[column], checked_base(explainer, column)
    if values.ndim == 3:
        return values.mean(axis=-1), checked_base(explainer, column)
    return fraud_shap(explainer, X, column)


@exercise.wrong("base")
def base_of_the_first_class(explainer, X, column=1):
    """Takes the first base, which is that of the legitimate class."""
    values, _ = fraud_shap(explainer, X, column)
    return values, float(np.ravel(explainer.expected_value)[0])


@exercise.wrong("base")
def base_of_zero(explainer, X, column=1):
    """Knows a forest's two bases and takes 0 where there is one."""
    values, _ = fraud_shap(explainer, X, column)
    bases = np.ravel(explainer.expected_value)
    return values, float(bases[column]) if bases.size == 2 else 0.0


@exercise.wrong("column")
def always_the_second_class(explainer, X, column=1):
    """Knows the shapes and writes 1 where the caller says which."""
    return fraud_shap(explainer, X, 1)


@exercise.wrong("mirror")
def one_sign_for_all(explainer, X, column=1):
    """Gives boosting's values as they are, also where fraud is the first class."""
    values, base = fraud_shap(explainer, X, column)
    plain = np.ndim(explainer.shap_values(X)) == 2
    return (-values, -base) if plain and column == 0 else (values, base)


@exercise.wrong("row-one")
def guesses_by_length(explainer, X, column=1):
    """Takes an array for a list of classes where its length is two."""
    values = explainer.shap_values(X)
    if len(values) == 2 and np.ndim(values) == 3:
        return np.asarray(values[column]), checked_base(explainer, column)
    return fraud_shap(explainer, X, column)
