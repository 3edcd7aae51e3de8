"""Q47 · The model always says 0.5: the exercise, its checks, and the mistakes they catch."""

import numpy as np
import pandas as pd

from companion.study import Exercise, Stage

exercise = Exercise(
    "serve_guard",
    hints={
        "start": (
            "Begin with the columns alone: compare the two sets of names and return what differs.",
            "Then look at one column at a time: gaps first, then its range, then whether it moves.",
            "Ask the model last, and only when all its columns are there.",
        ),
        "a-set": (
            "What should come back when nothing is wrong?",
            "Collect pairs (problem, column) in a set and return it; healthy traffic gives set().",
        ),
        "quiet": (
            "You raised an alarm for traffic that is like the training data.",
            "A few values beyond the reference's range are normal. More than half of them are not.",
        ),
        "names": (
            "A column that is gone, and one that nobody knows: both have a name. Say it.",
            "Compare set(reference.columns) with set(X.columns), both ways, and return before the "
            "model is asked: it would raise, or take the wrong column.",
        ),
        "order": (
            "The same columns in another order are no problem, as long as the model never sees it.",
            "Go on with X[list(reference.columns)], for the model as well.",
        ),
        "gaps": (
            "There is more than one way of not being a number.",
            "`~np.isfinite(column)` is true for missing values and for both infinities; one is "
            "enough.",
        ),
        "units": (
            "Unscaled input does not give 0.5. Where does the input itself lie?",
            "Compare with the range of the reference, not with the model's answers and not with "
            "this traffic's own mean: a scaler fitted here hides what it should show.",
            "`((x < low) | (x > high)).mean() > 0.5` with low and high from the reference.",
        ),
        "spread": (
            "Euros and cents of a column around zero have the same mean.",
            "Count single values outside of the reference's range; do not compare averages.",
        ),
        "constant": (
            "Every request the same value in this column. Was that ever so in training?",
            "One distinct value in X, several in the reference: ask how likely that is.",
        ),
        "rare-flag": (
            "A flag that is set once in fifty rows is zero in most batches. That is healthy.",
            "If a share s of the reference has this value, n rows in a row have it with "
            "probability s ** n. Raise the alarm when that is tiny, say below one in a million.",
        ),
        "output": (
            "The same answer for everybody is a fault whatever the number is.",
            "Compare the answers with each other, not with 0.5; the reference must get different "
            "ones, and 20 rows are needed to tell.",
        ),
        "few-rows": (
            "One request is always equal to itself.",
            "Of very few rows nothing can be said about constancy: s ** n is not small, and "
            "there are fewer than 20.",
        ),
        "hands-off": (
            "The rows are still needed after you: for the model.",
            "Do not assign to X or fill its gaps in place.",
        ),
    },
)


COLUMNS = ["amount", "distance", "gap", "online", "abroad"]


def training_rows(rng, rows=2000):
    """Scaled columns as a model takes them; `abroad` is a flag of one row in fifty."""
    return pd.DataFrame(
        {
            "amount": rng.normal(size=rows),
            "distance": rng.exponential(size=rows) - 1,
            "gap": rng.uniform(-1.7, 1.7, size=rows),
            "online": rng.choice([-0.8, 1.2], size=rows),
            "abroad": rng.choice([-0.14, 7.0], size=rows, p=[0.98, 0.02]),
        }
    )


def model(rows):
    """Probabilities that depend on two columns, by position, as a matrix's model would."""
    values = np.asarray(rows, dtype=float)
    return 1 / (1 + np.exp(3 - values[:, 0] - values[:, 1]))


def traffic(rng, rows=200):
    """Healthy traffic; its rare flag is set somewhere."""
    X = training_rows(rng, rows)
    X.loc[0, "abroad"], X.loc[1, "abroad"] = 7.0, -0.14
    return X


def never_asked(rows):
    raise AssertionError("the model was asked although its columns are not there")


@exercise.check(Stage.TYPE, hint="a-set")
def it_returns_a_set(attempt, case):
    """it returns a set of pairs"""
    got = attempt(model, training_rows(case.rng), traffic(case.rng).drop(columns="gap"))
    case.true(
        isinstance(got, set) and all(isinstance(each, tuple) and len(each) == 2 for each in got),
        given="rows without the column gap",
        expected="a set of pairs",
        got=got,
    )


@exercise.check(Stage.SHAPE, hint="quiet")
def healthy_traffic_is_left_alone(attempt, case):
    """healthy traffic gives the empty set, outliers and all"""
    reference, X = training_rows(case.rng), traffic(case.rng)
    X.loc[:9, "distance"] = 30.0  # ten journeys that nobody made in training
    got = attempt(model, reference, X)
    case.equal(given="200 healthy rows, ten of them far away", expected=set(), got=got)


@exercise.check(Stage.VALUE, hint="names")
def columns_are_named(attempt, case):
    """missing and unexpected columns are named, and the model is not asked"""
    X = traffic(case.rng).rename(columns={"distance": "distance_km"})
    got = attempt(never_asked, training_rows(case.rng), X)
    expected = {("missing", "distance"), ("unexpected", "distance_km")}
    case.equal(given="distance renamed to distance_km", expected=expected, got=got)


@exercise.check(Stage.VALUE, hint="order")
def order_is_put_right(attempt, case):
    """columns in another order are no problem, and the model sees the right order"""
    reference, seen = training_rows(case.rng), []

    def watched(rows):
        seen.append(list(rows.columns))
        return model(rows)

    X = traffic(case.rng)[list(case.rng.permutation(COLUMNS))]
    got = attempt(watched, reference, X)
    case.equal(given=f"the order {list(X.columns)}", expected=set(), got=got)
    case.true(
        all(order == COLUMNS for order in seen),
        given=f"the order {list(X.columns)}",
        expected=f"predict is given {COLUMNS}",
        got=seen,
    )


@exercise.check(Stage.VALUE, hint="gaps")
def gaps_are_named(attempt, case):
    """a single missing or infinite value is found, in its column"""
    for value in (np.nan, np.inf, -np.inf):
        X = traffic(case.rng)
        name = str(case.rng.choice(["amount", "gap"]))
        X.loc[int(case.rng.integers(200)), name] = value
        got = attempt(lambda rows: model(rows.fillna(0.0)), training_rows(case.rng), X)
        case.true(
            ("gap", name) in got and got <= {("gap", name)},
            given=f"one value of {name} is {value}",
            expected=f"{{('gap', '{name}')}}",
            got=got,
        )


@exercise.check(Stage.VALUE, hint="units")
def raw_input_is_found(attempt, case):
    """columns that arrive unscaled are named, though no answer is near 0.5"""
    X = traffic(case.rng)
    X["amount"] = 55.0 + 130.0 * np.abs(X["amount"])
    X["gap"] = 4400.0 + 900.0 * X["gap"]
    got = attempt(model, training_rows(case.rng), X)
    expected = {("units", "amount"), ("units", "gap")}
    case.equal(given="amount and gap in euros and minutes", expected=expected, got=got - OUTPUT)


OUTPUT = {("output", "")}  # raw input may saturate the model as well


@exercise.check(Stage.VALUE, hint="spread")
def a_factor_around_zero_is_found(attempt, case):
    """a column times 100 is found although its mean stays where it was"""
    X = traffic(case.rng)
    X["gap"] = 100.0 * (X["gap"] - X["gap"].mean())
    got = attempt(model, training_rows(case.rng), X)
    case.equal(given="gap times 100, mean 0", expected={("units", "gap")}, got=got)


@exercise.check(Stage.VALUE, hint="constant")
def a_dead_column_is_found(attempt, case):
    """a column with one value throughout is named, also when a scaler was fitted per request"""
    reference, X = training_rows(case.rng), traffic(case.rng)
    dead = X.assign(gap=0.0)
    case.equal(
        given="gap is 0 in 200 rows",
        expected={("constant", "gap")},
        got=attempt(model, reference, dead),
    )
    zeros = pd.DataFrame(0.0, index=range(200), columns=COLUMNS)
    got = attempt(model, reference, zeros)
    expected = {("constant", name) for name in COLUMNS}
    case.true(
        expected <= got,
        given="200 requests, each scaled by itself: all zeros",
        expected=str(sorted(expected)),
        got=got,
    )


@exercise.check(Stage.VALUE, hint="rare-flag")
def a_rare_flag_may_rest(attempt, case):
    """a flag that is rare in the reference may be unset in a whole batch"""
    X = traffic(case.rng, rows=60).assign(abroad=-0.14)
    got = attempt(model, training_rows(case.rng), X)
    case.equal(
        given="abroad unset in 60 rows, set in 2 % of the reference", expected=set(), got=got
    )


@exercise.check(Stage.VALUE, hint="output")
def one_answer_for_all_is_found(attempt, case):
    """one answer for everybody is found, whatever the answer is"""
    reference, X = training_rows(case.rng), traffic(case.rng)
    for answer in (0.5, float(case.rng.uniform(0.001, 0.02)), 1.0):
        stuck = _StuckOn(answer, reference)
        got = attempt(stuck, reference, X)
        case.equal(given=f"{answer:.3g} for all 200 rows", expected=OUTPUT, got=got)
    always = attempt(lambda rows: np.full(len(rows), 0.03), reference, X)
    case.equal(given="a model that gives the reference one answer too", expected=set(), got=always)


class _StuckOn:
    """Answers the reference as it should, and everything else with one number."""

    def __init__(self, answer, reference):
        self.answer, self.reference = answer, reference

    def __call__(self, rows):
        if len(rows) == len(self.reference):
            return model(rows)
        return np.full(len(rows), self.answer)


@exercise.check(Stage.STRESS, hint="few-rows")
def a_single_request_is_no_constant(attempt, case):
    """a single healthy request raises no alarm"""
    reference = training_rows(case.rng)
    for _ in range(5):
        middle = reference.iloc[[int(case.rng.integers(len(reference)))]]
        got = attempt(model, reference, middle)
        case.equal(given="one row, taken from the reference", expected=set(), got=got)


@exercise.check(Stage.STRESS, hint="hands-off")
def the_rows_stay_as_they_were(attempt, case):
    """neither table is changed"""
    reference, X = training_rows(case.rng), traffic(case.rng)
    X.loc[3, "gap"] = np.nan
    before = reference.copy(), X.copy()
    attempt(lambda rows: model(rows.fillna(0.0)), reference, X)
    same = reference.equals(before[0]) and X.equals(before[1])
    case.true(same, given="a row with a gap", expected="both tables unchanged", got="changed")


@exercise.solution
def serve_guard(predict, reference, X):
    known, found = set(reference.columns), set(X.columns)
    problems = {("missing", name) for name in known - found}
    problems |= {("unexpected", name) for name in found - known}
    if problems:
        return problems
    rows = X[list(reference.columns)]
    for name in rows:
        values, trained = rows[name].to_numpy(dtype=float), reference[name].to_numpy(dtype=float)
        if not np.isfinite(values).all():
            problems.add(("gap", name))
            continue
        outside = (values < trained.min()) | (values > trained.max())
        share_of_first = np.mean(trained == values[0])
        if outside.mean() > 0.5:
            problems.add(("units", name))
        elif len(values) > 1 and np.ptp(values) == 0 and share_of_first ** len(values) < 1e-6:
            problems.add(("constant", name))
    if len(rows) < 20 or any(kind == "gap" for kind, _ in problems):
        return problems
    if np.ptp(predict(rows)) == 0 and np.ptp(predict(reference)) > 0:
        problems.add(("output", ""))
    return problems


@exercise.another_way
def guard_by_table(predict, reference, X):
    """A different shape: whole-table statistics once, each rule one line over all columns."""
    different = reference.columns.symmetric_difference(X.columns)
    if len(different):
        return {("missing" if name in reference else "unexpected", name) for name in different}
    rows = X.reindex(columns=reference.columns)
    gaps = ~np.isfinite(rows).all()
    outside = (rows.lt(reference.min()) | rows.gt(reference.max())).mean() > 0.5
    frequent = reference.eq(rows.iloc[0]).mean()
    unlikely = (rows.nunique() == 1) & (frequent ** len(rows) < 1e-6) & (len(rows) >= 2)
    problems = set()
    for kind, flags in (
        ("gap", gaps),
        ("units", outside & ~gaps),
        ("constant", unlikely & ~outside & ~gaps),
    ):
        problems |= {(kind, name) for name in flags.index[flags]}
    answers = np.asarray(predict(rows)) if len(rows) >= 20 and not gaps.any() else np.arange(2)
    if len(set(answers)) == 1 and len(set(np.asarray(predict(reference)))) > 1:
        problems.add(("output", ""))
    return problems


@exercise.wrong("a-set")
def only_true_or_false(predict, reference, X):
    """Says that something is wrong, not what."""
    return bool(serve_guard(predict, reference, X))


@exercise.wrong("quiet")
def one_outlier_is_enough(predict, reference, X):
    """Alarms as soon as any value lies beyond the reference."""
    problems = serve_guard(predict, reference, X)
    for name in set(reference.columns) & set(X.columns):
        if (X[name] > reference[name].max()).any():
            problems.add(("units", name))
    return problems


@exercise.wrong("names")
def asks_the_model_anyway(predict, reference, X):
    """Names the columns, and then goes on with those that are left."""
    problems = serve_guard(predict, reference, X)
    predict(X)
    return problems


@exercise.wrong("order")
def refuses_another_order(predict, reference, X):
    """Takes another order for other columns."""
    problems = serve_guard(predict, reference, X)
    if list(X.columns) != list(reference.columns) and not problems:
        return {("unexpected", name) for name in X.columns}
    return problems


@exercise.wrong("gaps")
def missing_but_not_infinite(predict, reference, X):
    """Looks for missing values only; an infinity goes through to the model."""
    return serve_guard(predict, reference, X.replace([np.inf, -np.inf], 0.0))


@exercise.wrong("units")
def near_one_half(predict, reference, X):
    """The received answer's symptom: bad scaling is where the answers are near 0.5."""
    problems = serve_guard(predict, reference, X)
    if problems and {kind for kind, _ in problems} <= {"units", "output"}:
        answers = np.asarray(predict(X[list(reference.columns)]))
        near = np.mean(np.abs(answers - 0.5) < 0.01) > 0.5
        return {("units", name) for name in X} if near else set()
    return problems


@exercise.wrong("units")
def fits_a_scaler_here(predict, reference, X):
    """Scales the traffic by its own mean and spread, after which everything looks healthy."""
    if set(X.columns) != set(reference.columns) or len(X) < 2 or not np.isfinite(X).all(axis=None):
        return serve_guard(predict, reference, X)
    spread = X.std().replace(0.0, 1.0)
    scaled = (X - X.mean()) / spread * reference.std() + reference.mean()
    found = serve_guard(predict, reference, X)
    return {p for p in found if p[0] != "units"} | {
        p for p in serve_guard(predict, reference, scaled) if p[0] == "units"
    }


@exercise.wrong("spread")
def compares_means(predict, reference, X):
    """Compares averages: a factor on a column around zero stays unseen."""
    problems = serve_guard(predict, reference, X)
    return {
        (kind, name)
        for kind, name in problems
        if kind != "units"
        or abs(X[name].mean() - reference[name].mean()) > 3 * reference[name].std()
    }


@exercise.wrong("constant")
def never_looks_for_constants(predict, reference, X):
    """Looks at ranges only; zero lies in every range."""
    return {p for p in serve_guard(predict, reference, X) if p[0] != "constant"}


@exercise.wrong("rare-flag")
def any_constant_is_an_alarm(predict, reference, X):
    """Alarms for each column that does not move, however rarely it does."""
    problems = serve_guard(predict, reference, X)
    if len(X) > 1 and not any(kind in ("missing", "unexpected") for kind, _ in problems):
        problems |= {("constant", name) for name in X if X[name].nunique() == 1}
    return problems


@exercise.wrong("output")
def only_exactly_half(predict, reference, X):
    """Looks for 0.5; a model stuck at the base rate goes through."""
    problems = serve_guard(predict, reference, X)
    if ("output", "") in problems and predict(X[list(reference.columns)])[0] != 0.5:
        problems.discard(("output", ""))
    return problems


@exercise.wrong("few-rows")
def one_row_is_constant_too(predict, reference, X):
    """Counts distinct values without counting rows."""
    problems = serve_guard(predict, reference, X)
    return problems | ({("output", "")} if len(X) == 1 else set())


@exercise.wrong("hands-off")
def fills_the_gaps(predict, reference, X):
    """Repairs the caller's table while looking at it."""
    problems = serve_guard(predict, reference, X)
    X.fillna(0.0, inplace=True)
    return problems
