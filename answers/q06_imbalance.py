"""Q06 · Rare fraud: the exercise, its checks, and the mistakes they catch."""

import numpy as np

from companion.study import Exercise, Stage

exercise = Exercise(
    "fit_fraud",
    hints={
        "start": (
            "Four lines: cut the rows at 70 %, resample and fit the first part, score the second "
            "part, try thresholds.",
            "n = int(0.7 * len(X)); make_model().fit(*resample(X[:n], y[:n])); then "
            "predict_proba(X[n:])[:, 1].",
            "For each threshold among the probabilities: missed * sum(y & ~alert) + "
            "false_alarm * sum(~y & alert). Keep the cheapest.",
        ),
        "pair": (
            "Two things come back: the model after fit, and a number.",
            "`return model, float(threshold)`; make_model is called by you, once.",
        ),
        "resample": (
            "Which rows did resample see, and which rows did the model see?",
            "Cut first. The earlier 70 % go through resample and into fit, and the later 30 % "
            "through neither.",
            "n = int(0.7 * len(X)); X_more, y_more = resample(X[:n], y[:n])",
        ),
        "in-time": (
            "The rows are in order of time. Did your cut keep the order?",
            "No shuffling: X[:n] is the past, X[n:] the future. train_test_split shuffles unless "
            "told otherwise.",
        ),
        "price-list": (
            "Where did your threshold come from? Nothing in it depends on what mistakes cost.",
            "0.5, 0.3 and the best F1 are the same for every price list. Compute the cost of each "
            "candidate and take the cheapest.",
            "missed * ((y == 1) & (p < t)).sum() + false_alarm * ((y == 0) & (p >= t)).sum()",
        ),
        "the-rule": (
            "Your threshold follows the prices and is not the cheapest. Which rows does it alert?",
            "Fraud is column 1 of predict_proba, and a row at the threshold itself is alerted: "
            ">=, not >.",
            "p = model.predict_proba(X[n:])[:, 1]; alert = p >= threshold",
        ),
        "distorted": (
            "false_alarm / (false_alarm + missed) is right for honest probabilities. What does "
            "the model say after resampling?",
            "Its probabilities are too high, so that threshold lets everything through to the "
            "alerts. Look the cheapest one up on the later rows instead.",
        ),
        "validation": (
            "On which rows does your threshold look best? A model flatters itself on the rows "
            "that it has learned.",
            "Score the later 30 % and choose the threshold there, as they are, not resampled.",
        ),
        "ties": (
            "Many rows share one probability here. Can a threshold fall between two of them?",
            "`probability >= threshold` takes all rows of a tie or none. Price distinct values, "
            "np.unique(p), rather than positions in a sorted list.",
        ),
        "no-alerts": (
            "What if every alert costs more than it saves?",
            "Add one candidate above all probabilities, such as np.inf: nobody is alerted.",
        ),
    },
)


class Scripted:
    """A model whose probability of fraud is the first column; it remembers what it was shown."""

    def __init__(self):
        self.fitted = None
        self.scored = []

    def fit(self, X, y):
        self.fitted = np.asarray(X).copy()
        return self

    def predict_proba(self, X):
        X = np.asarray(X)
        self.scored.append(X.copy())
        return np.column_stack([1 - X[:, 0], X[:, 0]])

    def predict(self, X):
        return (self.predict_proba(X)[:, 1] > 0.5).astype(int)


class Scene:
    """Rows (probability, number of the row), labels, and spies for what an attempt does."""

    def __init__(self, p, y):
        self.X = np.column_stack([p, np.arange(len(p))])
        self.y = np.asarray(y, dtype=int)
        self.cut = int(0.7 * len(p))
        self.models, self.resampled = [], []

    def make_model(self):
        self.models.append(Scripted())
        return self.models[-1]

    def resample(self, X, y):
        self.resampled.append(np.asarray(X).copy())
        frauds, times = np.flatnonzero(y == 1), max(1, round((y == 0).sum() / max(1, y.sum())))
        rows = np.concatenate([np.arange(len(y)), np.tile(frauds, times - 1)])
        return X[rows], y[rows]

    def run(self, attempt, missed=100, false_alarm=5):
        return attempt(
            self.X.copy(),
            self.y.copy(),
            make_model=self.make_model,
            resample=self.resample,
            missed=missed,
            false_alarm=false_alarm,
        )

    def cost(self, threshold, missed=100, false_alarm=5):
        p, y = self.X[self.cut :, 0], self.y[self.cut :]
        alert = p >= threshold
        return missed * int((y * ~alert).sum()) + false_alarm * int(((1 - y) * alert).sum())

    def cheapest(self, missed=100, false_alarm=5):
        candidates = [np.inf, *self.X[self.cut :, 0]]
        return min(self.cost(threshold, missed, false_alarm) for threshold in candidates)


# From the highest probability down. Catching the last fraud pays only where misses are dear, and
# the best F1 lies in the middle.
RANKING = [1, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]


def alike(rng):
    """Earlier and later rows alike: the same 21 rows ten times, all probabilities above 0.3."""
    p = np.sort(rng.choice(np.arange(320, 980), len(RANKING), replace=False))[::-1] / 1000
    order = rng.permutation(len(RANKING))
    return Scene(np.tile(p[order], 10), np.tile(np.array(RANKING)[order], 10))


@exercise.check(Stage.TYPE, hint="pair")
def a_model_and_a_number(attempt, case):
    """fit_fraud returns the model that it made and fitted, and a threshold"""
    scene = alike(case.rng)
    got = scene.run(attempt)
    case.true(
        isinstance(got, tuple) and len(got) == 2, given="210 rows", expected="a pair", got=got
    )
    model, threshold = got
    case.true(
        any(model is made for made in scene.models) and model.fitted is not None,
        given="make_model=…",
        expected="a model from make_model(), fitted",
        got=model,
    )
    is_number = np.ndim(threshold) == 0 and isinstance(threshold, float | int | np.number)
    case.true(is_number, given="210 rows", expected="a number as threshold", got=threshold)


@exercise.check(Stage.SHAPE, hint="resample")
def only_earlier_rows_are_resampled(attempt, case):
    """resample() and fit() see the earlier 70 % of the rows and no other"""
    scene = alike(case.rng)
    model, _ = scene.run(attempt)
    earlier = set(range(scene.cut))
    given = f"{len(scene.y)} rows in order of time; the first {scene.cut} are for training"
    case.true(scene.resampled, given=given, expected="resample() is called", got="it is not called")
    seen = {int(row) for X in [*scene.resampled, model.fitted] for row in X[:, 1]}
    late = sorted(seen - earlier)
    mixed = late and len(seen) <= len(earlier)  # as many rows as wanted, but others
    case.true(
        not late,
        given=given,
        expected=f"rows 0 to {scene.cut - 1} in training",
        got=f"{len(late)} later rows too, such as row {late[0] if late else ''}",
        hint="in-time" if mixed else "",
    )
    case.true(
        len(model.fitted) > len(earlier) and seen == earlier,
        given=given,
        expected="a fit on all of them, after resampling",
        got=f"a fit on {len(model.fitted)} rows, of {len(seen)} different ones",
    )


@exercise.check(Stage.VALUE, hint="price-list")
def the_prices_decide(attempt, case):
    """the threshold is the cheapest one for the prices that were given"""
    scene = alike(case.rng)
    chosen = {prices: scene.run(attempt, *prices)[1] for prices in ((100, 5), (5, 5), (7, 2))}
    follows = len({float(threshold) for threshold in chosen.values()}) > 1
    for (missed, false_alarm), threshold in chosen.items():
        got, best = scene.cost(threshold, missed, false_alarm), scene.cheapest(missed, false_alarm)
        from_theory = np.isclose(float(threshold), false_alarm / (false_alarm + missed))
        case.true(
            got <= best,
            given=f"missed={missed}, false_alarm={false_alarm}",
            expected=f"a threshold that costs {best} on the later rows",
            got=f"{float(threshold):.3f}, which costs {got}",
            hint="distorted" if from_theory else "the-rule" if follows else "",
        )


@exercise.check(Stage.VALUE, hint="validation")
def later_rows_decide(attempt, case):
    """the threshold is chosen on the later rows, where the model is less sure of itself"""
    y = case.rng.permuted(np.tile(np.arange(40) < 8, (10, 1)), axis=1).ravel().astype(int)
    by_heart = np.where(y == 1, 0.95, 0.05)
    honest = np.round(case.rng.uniform(0.05, 0.35, len(y)) + 0.2 * y, 3)
    scene = Scene(np.where(np.arange(len(y)) < 280, by_heart, honest), y)
    _, threshold = scene.run(attempt)
    got, best = scene.cost(threshold), scene.cheapest()
    case.true(
        got <= best,
        given="a model that knows its training rows by heart",
        expected=f"a threshold that costs {best} on the later rows",
        got=f"{float(threshold):.3f}, which costs {got}",
    )


@exercise.check(Stage.STRESS, hint="ties")
def ties_are_taken_together(attempt, case):
    """rows with the same probability are alerted together or not at all"""
    high, middle, low = np.sort(case.rng.choice(np.arange(5, 96), 3, replace=False))[::-1] / 100
    levels = {(high, 1): 12, (high, 0): 4, (middle, 1): 6, (middle, 0): 14, (low, 1): 2}
    rows = np.array(
        [pair for pair, times in {**levels, (low, 0): 22}.items() for _ in range(times)]
    )
    rows = np.concatenate([case.rng.permutation(rows) for _ in range(10)])
    scene = Scene(rows[:, 0], rows[:, 1])
    _, threshold = scene.run(attempt, 6, 5)
    got, best = scene.cost(threshold, 6, 5), scene.cheapest(6, 5)
    case.true(
        got <= best,
        given=f"probabilities of {low}, {middle} and {high} only",
        expected=f"a threshold that costs {best} on the later rows",
        got=f"{float(threshold):.3f}, which costs {got}",
    )


@exercise.check(Stage.STRESS, hint="no-alerts")
def silence_may_be_cheapest(attempt, case):
    """where alerts cost more than they save, nobody is alerted"""
    y = (np.arange(300) % 30 == 0).astype(int)
    scene = Scene(np.where(y == 1, 0.2, np.round(case.rng.uniform(0.3, 0.7, 300), 3)), y)
    _, threshold = scene.run(attempt, 1, 50)
    case.equal(
        given="missed=1, false_alarm=50, frauds at the bottom",
        expected=scene.cheapest(1, 50),
        got=scene.cost(threshold, 1, 50),
    )


@exercise.solution
def fit_fraud(X, y, *, make_model, resample, missed, false_alarm):
    n = int(0.7 * len(X))
    model = make_model().fit(*resample(X[:n], y[:n]))
    p, later = model.predict_proba(X[n:])[:, 1], y[n:]

    def cost(threshold):
        alert = p >= threshold
        return missed * (later[~alert] == 1).sum() + false_alarm * (later[alert] == 0).sum()

    return model, float(min([np.inf, *np.unique(p)], key=cost))


@exercise.another_way
def in_one_sort(X, y, *, make_model, resample, missed, false_alarm):
    """Down the ranking with running sums; a candidate is where a run of ties ends."""
    n = int(0.7 * len(X))
    model = make_model()
    model.fit(*resample(X[:n], y[:n]))
    p = model.predict_proba(X[n:])[:, 1]
    order = np.argsort(-p)
    ranked, labels = p[order], y[n:][order]
    ends = np.flatnonzero(np.append(np.diff(ranked) != 0, True))
    frauds = labels.sum()
    caught, alerts = np.cumsum(labels)[ends], ends + 1
    cost = missed * (frauds - caught) + false_alarm * (alerts - caught)
    if cost.min() >= missed * frauds:
        return model, float("inf")
    return model, ranked[ends][cost.argmin()]


@exercise.another_way
def between_the_values(X, y, *, make_model, resample, missed, false_alarm):
    """All candidates at once, each halfway between two neighbouring probabilities."""
    n = int(0.7 * len(X))
    model = make_model()
    model.fit(*resample(X[:n], y[:n]))
    p, later = model.predict_proba(X[n:])[:, 1], y[n:].astype(bool)
    edges = np.concatenate([[-1.0], np.unique(p), [2.0]])
    candidates = (edges[1:] + edges[:-1]) / 2
    alert = p >= candidates[:, None]  # candidates × rows
    cost = missed * (~alert & later).sum(axis=1) + false_alarm * (alert & ~later).sum(axis=1)
    return model, candidates[np.argmin(cost)]


def cheapest(p, y, missed, false_alarm, candidates=None):
    """What several of the wrong attempts get right."""
    if candidates is None:
        candidates = [np.inf, *np.unique(p)]

    def cost(threshold):
        alert = p >= threshold
        return missed * (y[~alert] == 1).sum() + false_alarm * (y[alert] == 0).sum()

    return float(min(candidates, key=cost))


@exercise.wrong("pair")
def only_the_threshold(X, y, *, make_model, resample, missed, false_alarm):
    """Returns the number and keeps the model."""
    return fit_fraud(
        X, y, make_model=make_model, resample=resample, missed=missed, false_alarm=false_alarm
    )[1]


@exercise.wrong("resample")
def resample_then_split(X, y, *, make_model, resample, missed, false_alarm):
    """SMOTE before the split: the later rows have children in the training."""
    X, y = resample(X, y)
    n = int(0.7 * len(X))
    model = make_model().fit(X[:n], y[:n])
    p = model.predict_proba(X[n:])[:, 1]
    return model, cheapest(p, y[n:], missed, false_alarm)


@exercise.wrong("resample")
def balanced_validation(X, y, *, make_model, resample, missed, false_alarm):
    """Balances the rows that choose the threshold as well."""
    n = int(0.7 * len(X))
    model = make_model().fit(*resample(X[:n], y[:n]))
    X_later, y_later = resample(X[n:], y[n:])
    return model, cheapest(model.predict_proba(X_later)[:, 1], y_later, missed, false_alarm)


@exercise.wrong("resample")
def never_resampled(X, y, *, make_model, resample, missed, false_alarm):
    """Forgets what was asked for."""
    n = int(0.7 * len(X))
    model = make_model().fit(X[:n], y[:n])
    return model, cheapest(model.predict_proba(X[n:])[:, 1], y[n:], missed, false_alarm)


@exercise.wrong("in-time")
def shuffled(X, y, *, make_model, resample, missed, false_alarm):
    """train_test_split with its defaults."""
    rows = np.random.default_rng(0).permutation(len(X))
    n = int(0.7 * len(X))
    train, later = rows[:n], rows[n:]
    model = make_model().fit(*resample(X[train], y[train]))
    return model, cheapest(model.predict_proba(X[later])[:, 1], y[later], missed, false_alarm)


@exercise.wrong("price-list")
def received(X, y, *, make_model, resample, missed, false_alarm):
    """The received answer: SMOTE on the training rows, and 0.3 instead of 0.5."""
    n = int(0.7 * len(X))
    X_balanced, y_balanced = resample(X[:n], y[:n])
    return make_model().fit(X_balanced, y_balanced), 0.3


@exercise.wrong("price-list")
def best_f1(X, y, *, make_model, resample, missed, false_alarm):
    """The best F1 on the later rows, whatever mistakes cost."""
    n = int(0.7 * len(X))
    model = make_model().fit(*resample(X[:n], y[:n]))
    p, later = model.predict_proba(X[n:])[:, 1], y[n:]

    def f1(threshold):
        alert = p >= threshold
        return 2 * (later[alert] == 1).sum() / (alert.sum() + later.sum())

    return model, max(np.unique(p), key=f1)


@exercise.wrong("the-rule")
def strictly_above(X, y, *, make_model, resample, missed, false_alarm):
    """Prices `p > threshold`, so the threshold lies one value too low."""
    n = int(0.7 * len(X))
    model = make_model().fit(*resample(X[:n], y[:n]))
    p, later = model.predict_proba(X[n:])[:, 1], y[n:]

    def cost(threshold):
        alert = p > threshold
        return missed * (later[~alert] == 1).sum() + false_alarm * (later[alert] == 0).sum()

    return model, min([-1.0, *np.unique(p)], key=cost)


@exercise.wrong("distorted")
def from_theory(X, y, *, make_model, resample, missed, false_alarm):
    """The right threshold for honest probabilities, on resampled ones."""
    n = int(0.7 * len(X))
    model = make_model().fit(*resample(X[:n], y[:n]))
    return model, false_alarm / (false_alarm + missed)


@exercise.wrong("validation")
def chosen_on_training_rows(X, y, *, make_model, resample, missed, false_alarm):
    """Cheapest on the rows that the model has learned."""
    n = int(0.7 * len(X))
    model = make_model().fit(*resample(X[:n], y[:n]))
    return model, cheapest(model.predict_proba(X[:n])[:, 1], y[:n], missed, false_alarm)


@exercise.wrong("ties")
def by_position(X, y, *, make_model, resample, missed, false_alarm):
    """Cuts the sorted list anywhere, also between rows with the same probability."""
    n = int(0.7 * len(X))
    model = make_model().fit(*resample(X[:n], y[:n]))
    p, later = model.predict_proba(X[n:])[:, 1], y[n:]
    order = np.lexsort([-later, -p])
    caught = np.concatenate([[0], np.cumsum(later[order])])
    cost = missed * (later.sum() - caught) + false_alarm * (np.arange(len(p) + 1) - caught)
    first = int(cost.argmin())
    return model, np.inf if first == 0 else p[order][first - 1]


@exercise.wrong("no-alerts")
def always_somebody(X, y, *, make_model, resample, missed, false_alarm):
    """Tries the probabilities themselves, so at least one row is alerted."""
    n = int(0.7 * len(X))
    model = make_model().fit(*resample(X[:n], y[:n]))
    p = model.predict_proba(X[n:])[:, 1]
    return model, cheapest(p, y[n:], missed, false_alarm, np.unique(p))
