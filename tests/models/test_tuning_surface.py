"""The landscape: what it interpolates, what it refuses, and that it can be made again."""

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from companion.models.tuning import Surface, quietly
from companion.models.tuning.landscape import landscape


@pytest.fixture(scope="module")
def shipped():
    return Surface.load()


@pytest.fixture
def plane():
    """A surface that is linear in the logarithms, so that interpolation is exact."""
    lr, hidden, decay = np.geomspace(1e-3, 1e-1, 3), np.array([4.0, 16.0]), np.array([1e-4, 1e-2])
    final = np.log10(lr)[:, None, None] + np.log2(hidden)[:, None] + 0 * np.log10(decay)
    curves = final[..., None] * np.array([0.25, 0.5, 0.75, 1.0])
    return Surface(lr, hidden, decay, curves, base_rate=0.03)


def test_it_gives_the_nodes_back(shipped):
    final = shipped.curves[..., -1]
    at = np.meshgrid(*shipped.axes, indexing="ij")
    np.testing.assert_allclose(shipped.value(*at), final, atol=1e-6)


def test_between_nodes_it_is_linear_in_the_logarithms(plane):
    assert plane.value(10**-1.5, 8, 1e-3) == pytest.approx(-1.5 + 3)


def test_a_curve_has_a_value_for_every_epoch(plane):
    np.testing.assert_allclose(plane.curve(1e-2, 4, 1e-4), [0, 0, 0, 0], atol=1e-9)
    assert plane.curve(np.full(5, 1e-2), 16, 1e-4).shape == (5, 4)


@pytest.mark.parametrize("point", [(9e-4, 8, 1e-3), (1e-2, 3, 1e-3), (1e-2, 8, 0.02)])
def test_outside_it_has_nothing_to_say(plane, point):
    with pytest.raises(ValueError, match="outside the landscape"):
        plane.value(*point)


def test_the_best_lies_on_a_node_and_nothing_is_above(shipped):
    rng = np.random.default_rng(1)
    points = [[span.value_at(p) for p in rng.random(500)] for span in shipped.space.values()]
    assert np.max(shipped.value(*points)) <= shipped.best
    assert shipped.value(**shipped.best_parameters) == pytest.approx(shipped.best)


def test_the_best_of_the_shipped_landscape_lies_inside_and_far_above_guessing(shipped):
    for name in ("lr", "weight_decay"):  # a wider network costs more and is hardly ever worse
        assert shipped.space[name].edge(shipped.best_parameters[name]) is None
    assert shipped.best > 5 * shipped.base_rate
    assert shipped.curves.shape[:3] == (17, 6, 6)


def test_an_objective_is_the_value_at_what_was_suggested(shipped):
    study = optuna.create_study(direction="maximize")
    with quietly():
        study.optimize(shipped.objective, n_trials=5)
    for trial in study.trials:
        assert trial.value == pytest.approx(shipped.value(**trial.params))


def test_a_pruned_objective_reports_epochs_and_asks_at_the_stages(shipped):
    study = optuna.create_study(direction="maximize", pruner=shipped.stages.pruner())
    with quietly():
        study.optimize(shipped.pruned_objective, n_trials=12)
    lasts = {trial.last_step for trial in study.trials if trial.state is TrialState.PRUNED}
    assert lasts <= set(shipped.stages.judged_at[:-1])
    assert study.best_trial.last_step == shipped.epochs


def test_an_offset_grid_has_its_levels_one_step_apart(shipped):
    grid = shipped.offset_grid({"lr": 4, "hidden": 2, "weight_decay": 3}, np.random.default_rng(2))
    assert len(grid) == 24
    positions = sorted({shipped.space["lr"].position(point["lr"]) for point in grid})
    np.testing.assert_allclose(np.diff(positions), 0.25)


def test_offset_grids_lie_anywhere(shipped):
    rng = np.random.default_rng(2)
    levels = {"lr": 3, "hidden": 2, "weight_decay": 2}
    first = [shipped.offset_grid(levels, rng)[0]["lr"] for _ in range(50)]
    positions = [shipped.space["lr"].position(lr) for lr in first]
    assert 0 <= min(positions) < 0.05
    assert 0.28 < max(positions) < 1 / 3


def test_it_survives_being_saved_in_single_precision(shipped, tmp_path):
    shipped.save(tmp_path / "surface.npz")
    again = Surface.load(tmp_path / "surface.npz")
    np.testing.assert_array_equal(again.curves, shipped.curves)
    assert again.base_rate == shipped.base_rate


def test_curves_that_do_not_fit_the_nodes_are_refused(plane):
    with pytest.raises(ValueError, match="the nodes"):
        Surface(plane.lr, plane.hidden, plane.weight_decay, plane.curves[:2], 0.03)


def test_missing_values_are_refused(plane):
    curves = plane.curves.copy()
    curves[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="missing or infinite"):
        Surface(plane.lr, plane.hidden, plane.weight_decay, curves, 0.03)


def test_the_shipped_landscape_can_be_made_again(shipped):
    """It fails when transactions or features changed: then make the fixture again, as
    `companion.models.tuning.landscape` says."""
    lr, decays = shipped.lr[[5, 8, 11]], shipped.weight_decay[[1, 4]]
    made = landscape(learning_rates=lr, widths=[8], decays=decays, epochs=4)
    np.testing.assert_allclose(
        made.curves[:, 0], shipped.curves[np.ix_([5, 8, 11], [1], [1, 4])][:, 0, :, :4], atol=0.02
    )
    assert made.base_rate == pytest.approx(shipped.base_rate, abs=1e-6)


def test_networks_that_diverge_are_worth_what_guessing_is():
    made = landscape(learning_rates=[1e-2, 1e38], widths=[4], decays=[1e-4], epochs=1)
    assert made.curves[1, 0, 0, 0] == pytest.approx(made.base_rate)
