"""Q10 · The CAP theorem of machine learning: the exercise, its checks, and what they catch."""

import numpy as np

from companion.instruments.percentiles import percentile
from companion.study import Exercise, Stage

exercise = Exercise(
    "worth_considering",
    hints={
        "start": (
            "Two steps: first throw out the models that are too slow, then compare the rest in "
            "pairs.",
            "Write `p99(model)` first, then `beats(a, b)`; the answer is who is beaten by nobody.",
        ),
        "names": (
            "The caller wants names, in alphabetical order.",
            "`sorted(model['name'] for model in …)`; of no models the list is empty.",
        ),
        "axes": (
            "There is more than one respect in which a model can be worth having.",
            "A model goes only if another is at least as good in score, p99 and readability. The "
            "best score alone does not beat a faster one.",
        ),
        "dominated": (
            "You keep a model that no one would choose: another is better and nowhere worse.",
            "`a` beats `b` when it is at least as good in all three respects and better in one.",
        ),
        "all-three": (
            "Nothing forbids a model to be fast, accurate and readable at once.",
            "Do not count how many of the three a model has; compare models with each other.",
        ),
        "p99": (
            "Which requests is a latency limit about?",
            "A mean or a median hides the slow ones, and the maximum is one accident: take the "
            "99th percentile.",
        ),
        "nearest-rank": (
            "Your percentile is a latency that no request had.",
            "Sort the samples and take the one at rank ceil(0.99 × n), counted from 1.",
        ),
        "limit": (
            "Exactly at the limit is still within it.",
            "Keep p99 <= limit; the limit is an argument.",
        ),
        "readable": (
            "A slower, weaker model can be the only one that somebody can read.",
            "Readable is the third respect: true is better than false.",
        ),
        "ties": (
            "Two models that are equal in everything do not beat each other.",
            "Ask for better in at least one respect, not only for nowhere worse.",
        ),
    },
)


def candidate(name, score, ms, readable=False, *, calls=200):
    """A model whose requests all take `ms` milliseconds."""
    return {"name": name, "score": score, "latencies": [ms] * calls, "readable": readable}


def shown(models):
    """The models in one line, for a message."""
    return "; ".join(
        f"{m['name']}: score {m['score']:.3g}, p99 {percentile(m['latencies'], 99):.3g} ms"
        f"{', readable' if m['readable'] else ''}"
        for m in models
    )


@exercise.check(Stage.TYPE, hint="names")
def it_returns_sorted_names(attempt, case):
    """it returns a list of names in order"""
    models = [candidate("network", 0.9, 1.0), candidate("curves", 0.8, 0.5, True)]
    got = attempt(models)
    case.true(
        isinstance(got, list) and all(isinstance(name, str) for name in got) and got == sorted(got),
        given=shown(models),
        expected="a sorted list of names",
        got=got,
    )
    case.equal(given="no models", expected=[], got=attempt([]))


@exercise.check(Stage.SHAPE, hint="axes")
def several_may_stay(attempt, case):
    """a faster model stays beside a better one"""
    low, high = np.sort(case.rng.uniform(0.6, 0.95, 2))
    models = [candidate("better", high, 20.0), candidate("faster", low, 2.0)]
    case.equal(given=shown(models), expected=["better", "faster"], got=attempt(models))


@exercise.check(Stage.VALUE, hint="dominated")
def the_dominated_go(attempt, case):
    """a model goes when another is nowhere worse and better in something"""
    score = float(case.rng.uniform(0.6, 0.9))
    for worse in (
        candidate("worse", score - 0.1, 10.0),
        candidate("worse", score, 12.0),
        candidate("worse", score - 0.1, 20.0),
    ):
        models = [worse, candidate("good", score, 10.0)]
        case.equal(given=shown(models), expected=["good"], got=attempt(models))


@exercise.check(Stage.VALUE, hint="all-three")
def one_may_have_all_three(attempt, case):
    """a model that is best in all three respects stands alone"""
    score = float(case.rng.uniform(0.96, 0.99))
    models = [
        candidate("everything", score, 0.5, True),
        candidate("opaque", score - 0.005, 1.0),
        candidate("slow", score - 0.01, 40.0, True),
    ]
    case.equal(given=shown(models), expected=["everything"], got=attempt(models))


@exercise.check(Stage.VALUE, hint="p99")
def the_slow_requests_count(attempt, case):
    """the limit is held against the 99th percentile, not the mean, the median or the maximum"""
    often = candidate("often slow", 0.9, 1.0, calls=1000)
    often["latencies"][::50] = [300.0] * 20  # two in a hundred
    once = candidate("slow once", 0.8, 1.0, calls=1000)
    once["latencies"][int(case.rng.integers(1000))] = 9000.0
    given = "“often slow”: 300 ms for 2 % of the requests; “slow once”: 9 s for one of 1,000"
    case.equal(given=given, expected=["slow once"], got=attempt([often, once]))


@exercise.check(Stage.VALUE, hint="nearest-rank")
def a_percentile_is_a_sample(attempt, case):
    """the 99th percentile is one of the samples"""
    model = candidate("one in a hundred", 0.9, 10.0, calls=100)
    model["latencies"][int(case.rng.integers(100))] = 9000.0
    given = "99 requests of 10 ms and one of 9 s, limit 15 ms"
    case.equal(given=given, expected=["one in a hundred"], got=attempt([model], limit=15.0))


@exercise.check(Stage.VALUE, hint="limit")
def the_limit_is_inclusive(attempt, case):
    """a p99 equal to the limit keeps it, and the limit can be changed"""
    limit = float(case.rng.uniform(5, 100))
    models = [candidate("at", 0.8, limit), candidate("above", 0.9, limit * 1.01)]
    case.equal(
        given=f"limit {limit:.1f} ms; {shown(models)}",
        expected=["at"],
        got=attempt(models, limit=limit),
    )
    case.equal(
        given="the same, with the default limit",
        expected=["at"] if limit <= 50 < limit * 1.01 else ["above", "at"] if limit <= 50 else [],
        got=attempt(models),
    )


@exercise.check(Stage.VALUE, hint="readable")
def readable_is_a_respect(attempt, case):
    """a readable model stays although another is faster and better"""
    models = [candidate("strong", 0.94, 1.0), candidate("readable", 0.85, 3.0, True)]
    case.equal(given=shown(models), expected=["readable", "strong"], got=attempt(models))


@exercise.check(Stage.STRESS, hint="ties")
def equals_stay(attempt, case):
    """models that are equal in everything all stay, whatever the order they come in"""
    models = [candidate(name, 0.9, 5.0) for name in "cab"] + [candidate("worse", 0.8, 6.0)]
    for _ in range(5):
        case.rng.shuffle(models)
        case.equal(given=shown(models), expected=["a", "b", "c"], got=attempt(models))


@exercise.check(Stage.STRESS, hint="dominated")
def many_models_at_once(attempt, case):
    """of two hundred random models exactly the undominated stay"""
    models = [
        candidate(
            f"m{i:03}",
            float(case.rng.integers(0, 20)) / 20,
            float(case.rng.integers(1, 60)),
            bool(case.rng.random() < 0.3),
            calls=3,
        )
        for i in range(200)
    ]
    case.equal(given="200 random models", expected=_by_definition(models), got=attempt(models))


def _by_definition(models):
    kept = [
        (m["score"], -max(m["latencies"]), m["readable"], m["name"])
        for m in models
        if max(m["latencies"]) <= 50
    ]
    return sorted(
        mine[3]
        for mine in kept
        if not any(
            all(theirs[k] >= mine[k] for k in range(3)) and theirs[:3] != mine[:3]
            for theirs in kept
        )
    )


@exercise.solution
def worth_considering(models, limit=50.0):
    merits = {}
    for model in models:
        ordered = sorted(model["latencies"])
        p99 = ordered[-(-99 * len(ordered) // 100) - 1]  # rank ceil(0.99 × n), counted from 1
        if p99 <= limit:
            merits[model["name"]] = (model["score"], -p99, model["readable"])

    def beaten(mine):
        return any(
            theirs != mine and all(a >= b for a, b in zip(theirs, mine, strict=True))
            for theirs in merits.values()
        )

    return sorted(name for name, mine in merits.items() if not beaten(mine))


@exercise.another_way
def by_matrix(models, limit=50.0):
    """A different shape: all pairs at once, as one array of comparisons."""
    slow = [np.percentile(m["latencies"], 99, method="inverted_cdf") for m in models]
    kept = [(m, p99) for m, p99 in zip(models, slow, strict=True) if p99 <= limit]
    if not kept:
        return []
    merits = np.array([[m["score"], -p99, float(m["readable"])] for m, p99 in kept])
    nowhere_worse = (merits[:, None] >= merits[None]).all(axis=2)
    somewhere_better = (merits[:, None] > merits[None]).any(axis=2)
    beaten = (nowhere_worse & somewhere_better).any(axis=0)
    return sorted(m["name"] for (m, _), lost in zip(kept, beaten, strict=True) if not lost)


def with_latency(measure):
    """The solution, with another idea of what a model's latency is."""

    def attempt(models, limit=50.0):
        return worth_considering(
            [dict(model, latencies=[measure(model["latencies"])]) for model in models], limit
        )

    return attempt


@exercise.wrong("names")
def gives_the_models_back(models, limit=50.0):
    """Returns the dictionaries themselves."""
    names = worth_considering(models, limit)
    return [model for model in models if model["name"] in names]


@exercise.wrong("axes")
def the_best_score(models, limit=50.0):
    """Sorts by score and takes the first that is fast enough."""
    return [
        model["name"]
        for model in sorted(models, key=lambda model: -model["score"])
        if percentile(model["latencies"], 99) <= limit
    ][:1]


@exercise.wrong("dominated")
def keeps_whoever_is_fast_enough(models, limit=50.0):
    """Applies the limit and compares nothing."""
    return sorted(m["name"] for m in models if percentile(m["latencies"], 99) <= limit)


@exercise.wrong("all-three")
def two_of_three(models, limit=50.0):
    """The received answer: nobody can have all three, so whoever has is taken for a mistake."""
    return worth_considering(
        [model for model in models if not (model["readable"] and model["score"] > 0.95)], limit
    )


@exercise.wrong("p99")
def by_the_mean(models, limit=50.0):
    """Holds the mean against the limit: the slow requests disappear in it."""
    return with_latency(np.mean)(models, limit)


@exercise.wrong("p99")
def by_the_worst(models, limit=50.0):
    """Holds the maximum against the limit: one accident decides."""
    return with_latency(max)(models, limit)


@exercise.wrong("nearest-rank")
def interpolates(models, limit=50.0):
    """Interpolates between the two slowest requests, as NumPy does unless told otherwise."""
    return with_latency(lambda latencies: np.percentile(latencies, 99))(models, limit)


@exercise.wrong("limit")
def strictly_below(models, limit=50.0):
    """Refuses a model that is exactly at the limit."""
    return worth_considering(models, np.nextafter(limit, 0))


@exercise.wrong("readable")
def two_respects(models, limit=50.0):
    """Compares score and speed and forgets who can be read."""
    return worth_considering([dict(model, readable=False) for model in models], limit)


@exercise.wrong("ties")
def equals_beat_each_other(models, limit=50.0):
    """Takes nowhere worse for better, so that twins remove each other."""
    names = worth_considering(models, limit)
    by_name = {model["name"]: model for model in models}

    def merits(name):
        model = by_name[name]
        return model["score"], percentile(model["latencies"], 99), model["readable"]

    return [name for name in names if sum(merits(other) == merits(name) for other in names) == 1]
