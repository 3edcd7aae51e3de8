"""Search spaces: scales, draws, and the warning about boundaries."""

import numpy as np
import optuna
import pytest

from companion.models.families import FAMILIES, UnknownFamilyError
from companion.models.tuning.objective import STAGES
from companion.models.tuning.spaces import SPACES, Edge, Range, edges, space_of, suggest


def drawn(span, count=400):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    return np.array([span.suggest(study.ask(), "x") for _ in range(count)])


def test_every_family_has_a_space_and_stages():
    assert tuple(SPACES) == tuple(STAGES) == FAMILIES


def test_an_unknown_family_is_named_with_those_there_are():
    with pytest.raises(UnknownFamilyError, match="'svm'; there are forest, boosting, net"):
        space_of("svm")


def test_a_log_range_gives_each_decade_its_share():
    below = (drawn(Range(1e-4, 1e-2, log=True)) < 1e-3).mean()
    assert 0.4 < below < 0.6


def test_a_linear_range_gives_the_last_decade_nearly_all():
    below = (drawn(Range(1e-4, 1e-2)) < 1e-3).mean()
    assert below < 0.16


def test_whole_ranges_draw_integers_within_their_bounds():
    values = drawn(Range(3, 127, log=True, whole=True))
    assert values.dtype.kind == "i"
    assert values.min() >= 3
    assert values.max() <= 127


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0)])
def test_an_empty_range_is_refused(low, high):
    with pytest.raises(ValueError, match="low < high"):
        Range(low, high)


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_a_log_scale_from_zero_is_refused(low):
    with pytest.raises(ValueError, match="begins above 0"):
        Range(low, 1.0, log=True)


@pytest.mark.parametrize("span", [Range(1e-4, 1e-2, log=True), Range(-2.0, 6.0)])
@pytest.mark.parametrize("position", [0.0, 0.25, 0.5, 1.0])
def test_a_position_and_its_value_belong_together(span, position):
    assert span.position(span.value_at(position)) == pytest.approx(position)


def test_the_value_at_a_position_of_a_whole_range_is_whole():
    assert Range(4, 256, log=True, whole=True).value_at(0.4) == 21


@pytest.mark.parametrize(("value", "bound"), [(1.05e-4, "low"), (1e-3, None), (0.0099, "high")])
def test_the_boundary_is_judged_on_the_scale_of_the_range(value, bound):
    assert Range(1e-4, 1e-2, log=True).edge(value) == bound


def test_a_bound_with_nothing_beyond_is_no_boundary():
    span = Range(0.1, 1.0, ends=frozenset({"high"}))
    assert span.edge(1.0) is None
    assert span.edge(0.1) == "low"


def test_an_edge_says_what_to_do():
    space = {"lr": Range(1e-4, 1e-2, log=True), "depth": Range(1, 9, whole=True)}
    found = edges(space, {"lr": 0.01, "depth": 5})
    assert found == (Edge("lr", 0.01, "high", 0.01),)
    assert "best value lies on the boundary of lr: 0.01, at the upper end 0.01" in str(found[0])
    assert "lower" in str(Edge("lr", 1e-4, "low", 1e-4))


def test_suggest_draws_every_parameter_in_order():
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3)).ask()
    assert list(suggest(trial, SPACES["boosting"])) == list(SPACES["boosting"])
