"""Q03 · Optuna against grid search: the exercise, its checks, and the mistakes they catch."""

import math
import statistics

import numpy as np
import optuna

from companion.models.tuning import quietly
from companion.study import Exercise, Stage

exercise = Exercise(
    "search",
    hints={
        "start": (
            "Write the objective first: a function of `trial` that draws the three parameters and "
            "hands them to evaluate.",
            "Then a study with a sampler, study.optimize with the budget, and two things to "
            "return.",
            "trial.suggest_float(…, log=True), trial.suggest_int(…), "
            "optuna.samplers.TPESampler(seed=…, n_startup_trials=…).",
        ),
        "result": (
            "The caller wants to train a model with what you found: which ones, and how good?",
            "Return two things: a dict with lr, hidden and weight_decay, and the value as a float.",
            "return study.best_params, study.best_value",
        ),
        "budget": (
            "Every call of evaluate trains a network. How many were paid for?",
            "Call evaluate exactly `budget` times: n_trials=budget. A grid costs the product of "
            "its levels, whatever the budget.",
        ),
        "best": (
            "Which of the values that you saw is the one to return?",
            "The highest, and the parameters that belong to it: not the last, and not the lowest.",
            'optuna.create_study(direction="maximize"): without it a study minimizes.',
        ),
        "ranges": (
            "A network has a whole number of hidden units, and every parameter has two bounds.",
            "trial.suggest_int for hidden; the bounds stand in the stub.",
        ),
        "log-scale": (
            "Four decades of learning rates, evenly on a linear scale: how many of your draws fall "
            "into the first three?",
            "One in ten. A learning rate and a weight decay act as factors: every decade deserves "
            "its share.",
            "trial.suggest_float(name, low, high, log=True)",
        ),
        "seed": (
            "Two calls with one seed, two different searches: which of them is in the report?",
            "All chance comes from the seed, and another seed gives another search.",
            "TPESampler(seed=seed, …)",
        ),
        "start-up": (
            "Turn the objective upside down and compare the parameters drawn. When do they begin "
            "to differ?",
            "TPE draws its first n_startup_trials at random, ten by default: a study of ten "
            "trials has learned nothing.",
            "Leave most of the budget to the model: n_startup_trials=budget // 4.",
        ),
        "not-a-number": (
            "A learning rate of 1 may end in nan. Which is greater, nan or 0.6?",
            "Neither: every comparison with nan is false. Leave such trials out before you choose.",
        ),
        "better-than-chance": (
            "You react to what you see, and do no better than random draws. What do you follow?",
            "Follow the best point so far, or all the good ones. Is the sign right?",
        ),
    },
)

SPACE = {"lr": (1e-4, 1.0), "hidden": (4, 128), "weight_decay": (1e-6, 1e-1)}


def position(name, value):
    """From 0 to 1 on the log scale of a parameter."""
    low, high = SPACE[name]
    return math.log(value / low) / math.log(high / low)


class Bowl:
    """Networks that nobody has to train: the best lies at one point, on log scales."""

    def __init__(self, rng=None, *, sign=1.0, diverges_above=math.inf, flat=False):
        self.best = {n: 0.5 if rng is None else rng.uniform(0.3, 0.7) for n in SPACE}
        self.sign, self.diverges_above, self.flat = sign, diverges_above, flat
        self.calls = []

    def __call__(self, lr, hidden, weight_decay):
        point = {"lr": lr, "hidden": hidden, "weight_decay": weight_decay}
        value = 0.25
        if lr > self.diverges_above:
            value = math.nan
        elif not self.flat:
            distance = sum((position(n, p) - self.best[n]) ** 2 for n, p in point.items())
            value = self.sign * (0.6 - distance)
        self.calls.append((point, value))
        return value

    @property
    def points(self):
        return [point for point, _ in self.calls]


def searched(attempt, bowl, budget, seed):
    """Run the attempt with Optuna's log kept out of the way."""
    with quietly():
        return attempt(bowl, budget, seed)


@exercise.check(Stage.TYPE, hint="result")
def it_returns_parameters_and_value(attempt, case):
    """search(evaluate, budget, seed) returns the parameters and their value"""
    found = searched(attempt, Bowl(), 6, 1)
    given = "search(evaluate, 6, 1)"
    is_pair = isinstance(found, tuple) and len(found) == 2
    case.true(is_pair, given=given, expected="(parameters, value)", got=found)
    parameters, value = found
    case.true(
        isinstance(parameters, dict) and set(parameters) == set(SPACE),
        given=given,
        expected=f"a dict with {', '.join(SPACE)}",
        got=parameters,
    )
    case.true(isinstance(value, float), given=given, expected="a float", got=value)


@exercise.check(Stage.SHAPE, hint="budget")
def it_keeps_to_the_budget(attempt, case):
    """evaluate is called exactly `budget` times"""
    for budget in (1, int(case.rng.integers(7, 20))):
        bowl = Bowl()
        searched(attempt, bowl, budget, 3)
        case.equal(
            given=f"budget={budget}: calls of evaluate", expected=budget, got=len(bowl.calls)
        )


@exercise.check(Stage.SHAPE, hint="best")
def it_returns_the_best_it_saw(attempt, case):
    """what it returns is the highest value that it saw, with its parameters"""
    for seed in range(3):
        bowl = Bowl(case.rng)
        parameters, value = searched(attempt, bowl, 9, seed)
        best_point, best = max(bowl.calls, key=lambda call: call[1])
        case.equal(given=f"nine values, the highest {best:.4f}", expected=best, got=value)
        case.equal(given="the parameters of the highest", expected=best_point, got=parameters)


@exercise.check(Stage.RANGE, hint="ranges")
def it_stays_in_the_ranges(attempt, case):
    """every value lies within its bounds, and hidden is a whole number"""
    bowl = Bowl(case.rng)
    searched(attempt, bowl, 25, int(case.rng.integers(1000)))
    for point in bowl.points:
        for name, (low, high) in SPACE.items():
            case.true(
                low <= point[name] <= high,
                given=name,
                expected=f"{low:g} to {high:g}",
                got=point[name],
            )
        case.true(
            isinstance(point["hidden"], (int, np.integer)),
            given="hidden",
            expected="a whole number",
            got=point["hidden"],
        )


@exercise.check(Stage.VALUE, hint="log-scale")
def every_decade_has_its_share(attempt, case):
    """where nothing is to be learned, each half of the decades gets a fair share of the draws"""
    bowls = [Bowl(flat=True) for _ in range(4)]
    for bowl in bowls:
        searched(attempt, bowl, 16, int(case.rng.integers(1000)))
    for name in ("lr", "weight_decay"):
        low, high = SPACE[name]
        below = statistics.mean(position(name, p[name]) < 0.5 for b in bowls for p in b.points)
        case.true(
            below > 0.15,
            given=f"64 draws of {name} from {low:g} to {high:g}, all values equal",
            expected=f"about half below {math.sqrt(low * high):.2g}",
            got=f"{below:.0%}",
        )


@exercise.check(Stage.VALUE, hint="seed")
def the_seed_decides(attempt, case):
    """one seed gives one search, another seed another"""
    seed = int(case.rng.integers(1000))
    bowls = [Bowl() for _ in range(3)]
    for bowl, s in zip(bowls, (seed, seed, seed + 1), strict=True):
        searched(attempt, bowl, 8, s)
    case.equal(given=f"seed={seed}, twice", expected=bowls[0].points, got=bowls[1].points)
    case.true(
        bowls[0].points != bowls[2].points,
        given=f"seeds {seed} and {seed + 1}",
        expected="two different searches",
        got="the same parameters",
    )


@exercise.check(Stage.VALUE, hint="start-up")
def it_learns_within_ten(attempt, case):
    """with ten trials, what it draws depends on what it saw"""
    for seed in range(3):
        up, down = Bowl(), Bowl(sign=-1.0)
        searched(attempt, up, 10, seed)
        searched(attempt, down, 10, seed)
        equal = sum(a == b for a, b in zip(up.points, down.points, strict=True))
        case.true(
            equal < 8,
            given="an objective and the same one upside down, budget=10",
            expected="parameters that differ after the start",
            got=f"{equal} of 10 equal",
        )


@exercise.check(Stage.STRESS, hint="not-a-number")
def nan_is_no_value(attempt, case):
    """a training that ends in nan costs a trial and never wins"""
    for seed in range(4):
        bowl = Bowl(case.rng, diverges_above=3e-3)
        parameters, value = searched(attempt, bowl, 12, seed)
        best = max((v for _, v in bowl.calls if not math.isnan(v)), default=math.nan)
        if math.isnan(best):
            continue
        case.equal(given="values among which some are nan", expected=best, got=value)
        case.true(
            parameters["lr"] <= 3e-3,
            given="nan for every lr above 0.003",
            expected="an lr with a value",
            got=parameters["lr"],
        )


@exercise.check(Stage.STRESS, hint="better-than-chance")
def it_beats_chance(attempt, case):
    """with thirty trials it comes much closer to the best point than random draws do"""
    ours, by_chance = [], []
    for seed in range(5):
        bowl = Bowl(case.rng)
        ours.append(0.6 - searched(attempt, bowl, 30, seed)[1])
        chance = Bowl()
        chance.best = bowl.best
        searched(at_random, chance, 30, seed)
        by_chance.append(0.6 - max(value for _, value in chance.calls))
    ratio = statistics.median(ours) / statistics.median(by_chance)
    case.true(
        ratio < 0.6,
        given="five bowls, budget=30: median distance from the best, to that of random draws",
        expected="below 0.6",
        got=f"{ratio:.2f}",
    )


def at_random(evaluate, budget, seed):
    """What the last check compares with."""
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.RandomSampler(seed=seed)
    )
    study.optimize(lambda trial: evaluate(**drawn(trial)), n_trials=budget)
    return study.best_params, study.best_value


def drawn(trial):
    return {
        "lr": trial.suggest_float("lr", 1e-4, 1.0, log=True),
        "hidden": trial.suggest_int("hidden", 4, 128, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True),
    }


@exercise.solution
def search(evaluate, budget, seed):
    def objective(trial):
        return evaluate(
            lr=trial.suggest_float("lr", 1e-4, 1.0, log=True),
            hidden=trial.suggest_int("hidden", 4, 128, log=True),
            weight_decay=trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True),
        )

    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(1, budget // 4))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=budget)
    return study.best_params, study.best_value


@exercise.another_way
def search_by_steps(evaluate, budget, seed):
    """No model and no library: random points, then smaller and smaller steps from the best."""
    return _steps(evaluate, budget, seed, around=lambda known: max(known, key=lambda k: k[0]))


def _steps(evaluate, budget, seed, around, is_value=math.isfinite):
    rng = np.random.default_rng(seed)
    known = []
    for trial in range(budget):
        start = max(1, budget // 4)
        if trial < start or not known:
            at = rng.random(3)
        else:
            step = 0.25 * 0.9 ** (trial - start)
            at = np.clip(around(known)[1] + rng.normal(0, step, 3), 0, 1)
        point = {n: low * (high / low) ** float(u) for (n, (low, high)), u in zip(
            SPACE.items(), at, strict=True)}  # fmt: skip
        point = {n: min(max(p, SPACE[n][0]), SPACE[n][1]) for n, p in point.items()}
        point["hidden"] = round(point["hidden"])
        value = evaluate(**point)
        if is_value(value):
            known.append((value, at, point))
    value, _, point = max(known, key=lambda k: k[0])
    return point, float(value)


def _study(evaluate, budget, sampler, direction="maximize"):
    study = optuna.create_study(direction=direction, sampler=sampler)
    study.optimize(lambda trial: evaluate(**drawn(trial)), n_trials=budget)
    return study


@exercise.wrong("result")
def only_the_parameters(evaluate, budget, seed):
    """Returns the parameters and keeps to itself how good they are."""
    return _study(evaluate, budget, optuna.samplers.TPESampler(seed=seed)).best_params


@exercise.wrong("budget")
def a_grid(evaluate, budget, seed):
    """Grid search: its price is the product of its levels, whatever was agreed."""
    levels = {n: list(np.geomspace(low, high, 3)) for n, (low, high) in SPACE.items()}
    levels["hidden"] = [4, 22, 128]
    study = _study(evaluate, 27, optuna.samplers.GridSampler(levels, seed=seed))
    return study.best_params, study.best_value


@exercise.wrong("best")
def minimized(evaluate, budget, seed):
    """Forgets the direction: a study minimizes unless told otherwise."""
    study = _study(evaluate, budget, optuna.samplers.TPESampler(seed=seed), "minimize")
    return study.best_params, study.best_value


@exercise.wrong("ranges")
def a_real_number_of_units(evaluate, budget, seed):
    """Draws the number of hidden units as a real number."""

    def objective(trial):
        point = drawn(trial)
        del trial
        return evaluate(**point | {"hidden": point["hidden"] + 0.0})

    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(1, budget // 4))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=budget)
    return study.best_params, study.best_value


@exercise.wrong("log-scale")
def on_a_linear_scale(evaluate, budget, seed):
    """Forgets log=True: nearly all draws lie in the last decade."""

    def objective(trial):
        return evaluate(
            lr=trial.suggest_float("lr", 1e-4, 1.0),
            hidden=trial.suggest_int("hidden", 4, 128),
            weight_decay=trial.suggest_float("weight_decay", 1e-6, 1e-1),
        )

    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(1, budget // 4))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=budget)
    return study.best_params, study.best_value


@exercise.wrong("seed")
def unseeded(evaluate, budget, seed):
    """Draws from a generator of its own: two calls, two answers."""
    startup = max(1, budget // 4)
    study = _study(evaluate, budget, optuna.samplers.TPESampler(n_startup_trials=startup))
    return study.best_params, study.best_value


@exercise.wrong("start-up")
def as_received(evaluate, budget, seed):
    """The received answer, seeded: the defaults, and ten trials. All ten are random."""
    study = _study(evaluate, budget, optuna.samplers.TPESampler(seed=seed))
    return study.best_params, study.best_value


@exercise.wrong("not-a-number")
def nan_wins(evaluate, budget, seed):
    """Takes the greatest value by hand: once nan is the first of them, nothing is greater."""
    return _steps(
        evaluate,
        budget,
        seed,
        around=lambda known: max(known, key=lambda k: k[0]),
        is_value=lambda value: True,
    )


@exercise.wrong("better-than-chance")
def follows_the_worst(evaluate, budget, seed):
    """Steps around the lowest value, as one does who took minimizing for granted."""
    return _steps(evaluate, budget, seed, around=lambda known: min(known, key=lambda k: k[0]))
