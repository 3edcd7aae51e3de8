"""TPE seeded trial by trial: reproducible, resumable, different in every worker."""

import optuna
import pytest
from optuna.trial import TrialState

from companion.models.tuning import SeededTPE, quietly, startup_trials


def bowl(trial):
    x, y = trial.suggest_float("x", -3, 3), trial.suggest_float("y", 1e-3, 1e3, log=True)
    return -((x - 1) ** 2) - abs(trial.number * 0) - abs(y - 1) ** 0.1


def study_of(seed=7, startup=4):
    sampler = SeededTPE(seed=seed, n_startup_trials=startup)
    return optuna.create_study(direction="maximize", sampler=sampler)


def points(study):
    return [trial.params for trial in study.trials]


def ran(trials, *, seed=7, startup=4):
    study = study_of(seed, startup)
    with quietly():
        study.optimize(bowl, n_trials=trials)
    return study


@pytest.mark.parametrize(
    ("trials", "startup"), [(1, 1), (2, 1), (4, 3), (5, 4), (10, 4), (20, 5), (40, 10), (1000, 10)]
)
def test_a_quarter_of_the_trials_are_random_four_to_ten_and_never_all(trials, startup):
    assert startup_trials(trials) == startup


def test_the_same_seed_gives_the_same_study():
    assert points(ran(12)) == points(ran(12))


def test_another_seed_gives_another_study():
    assert points(ran(3)) != points(ran(3, seed=8))


def test_a_resumed_study_is_the_uninterrupted_one():
    whole = ran(12)
    half = ran(7)
    resumed = study_of()
    resumed.add_trials(half.trials)
    with quietly():
        resumed.optimize(bowl, n_trials=5)
    assert points(resumed) == points(whole)


def test_workers_that_start_together_draw_different_points():
    study = study_of()
    asked = [study.ask() for _ in range(4)]
    for trial in asked:
        trial.suggest_float("x", -3, 3)
    assert len({trial.params["x"] for trial in asked}) == 4


def test_random_trials_do_not_depend_on_the_objective_and_later_ones_do():
    upside_down = study_of()
    with quietly():
        upside_down.optimize(lambda trial: -bowl(trial), n_trials=12)
    here, there = points(ran(12)), points(upside_down)
    assert here[:4] == there[:4]
    assert all(a != b for a, b in zip(here[4:], there[4:], strict=True))


def test_it_finds_what_random_search_with_the_same_trials_does_not():
    better = 0
    for seed in range(10):
        other = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.RandomSampler(seed=seed)
        )
        with quietly():
            other.optimize(bowl, n_trials=40)
        better += ran(40, seed=seed, startup=5).best_value > other.best_value
    assert better >= 7


def test_the_sampler_hears_of_every_end():
    study = ran(2)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
