"""What metrics cost on many rows: in one sort, against the usual way of getting the same number.

Ratios: pricing every threshold to pricing two hundred of them one by one, DeLong by ranks to
DeLong by pairs, a bootstrap of weights to one that copies rows.
"""

import numpy as np
from sklearn.metrics import average_precision_score, confusion_matrix

from companion.instruments.benchmark import Row, side_by_side
from companion.models.costs import Costs, cost_curve
from companion.models.intervals import delong_test, paired_bootstrap
from companion.models.metrics import Floats, Labels, average_precision

TITLE = "Metrics"

_COSTS = Costs(missed=100, false_alarm=5)


def run() -> list[Row]:
    return [*_thresholds(), *_delong(), *_bootstrap()]


def _sample(rows: int) -> tuple[Labels, Floats, Floats]:
    rng = np.random.default_rng(0)
    y = (rng.random(rows) < 0.03).astype(np.int64)
    shared = rng.normal(size=rows)
    first, second = (
        1 / (1 + np.exp(4 - 2 * y - shared - 0.5 * rng.normal(size=rows))) for _ in range(2)
    )
    return y, first, second


def _thresholds() -> list[Row]:
    y, p, _ = _sample(100_000)

    def one_by_one() -> float:
        costs = []
        for threshold in np.linspace(0.005, 0.995, 200):
            _, false_alarms, missed, _ = confusion_matrix(y, p >= threshold).ravel()
            costs.append(_COSTS.missed * missed + _COSTS.false_alarm * false_alarms)
        return min(costs)

    seconds = side_by_side(
        {"ours, all 100,000": lambda: cost_curve(y, p, _COSTS).best, "one by one, 200": one_by_one}
    )
    return _rows("thresholds priced on 100,000 rows", seconds, "one by one, 200", 50)


def _delong() -> list[Row]:
    y, first, second = _sample(20_000)

    def by_pairs() -> list[Floats]:
        placements = []
        for p in (first, second):
            frauds, others = p[y == 1][:, None], p[y == 0]
            wins = (frauds > others) + (frauds == others) / 2
            placements.append(wins.mean(axis=1))
            placements.append(wins.mean(axis=0))
        return placements

    seconds = side_by_side(
        {"ours, by ranks": lambda: delong_test(y, first, second), "by pairs": by_pairs}
    )
    return _rows("DeLong's test on 20,000 rows", seconds, "by pairs", 5)


def _bootstrap() -> list[Row]:
    y, first, second = _sample(10_000)

    def copying() -> Floats:
        rng = np.random.default_rng(0)
        drawn = []
        for _ in range(100):
            rows = rng.integers(len(y), size=len(y))
            scores = [average_precision_score(y[rows], p[rows]) for p in (first, second)]
            drawn.append(scores[0] - scores[1])
        return np.quantile(drawn, [0.025, 0.975])

    def weighting() -> object:
        return paired_bootstrap(y, first, second, metric=average_precision, seed=0, resamples=100)

    seconds = side_by_side({"ours, weights": weighting, "copies, scikit-learn": copying}, rounds=3)
    return _rows("100 draws of 10,000 rows, twice", seconds, "copies, scikit-learn", 1)


def _rows(what: str, seconds: dict[str, float], usual: str, least: int) -> list[Row]:
    return [
        Row(
            what,
            name,
            took * 1e3,
            "ms",
            seconds[usual] / took,
            "" if name == usual else f"above {least} × the usual way",
        )
        for name, took in seconds.items()
    ]
