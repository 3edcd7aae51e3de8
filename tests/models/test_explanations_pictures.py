"""Figures of explanations: right, labelled, described, and nobody else's."""

import threading

import numpy as np
import pytest
from matplotlib import pyplot

from companion.instruments import plots
from companion.models.explanations import Explanation, bar, beeswarm, cohorts, waterfall

NAMES = ("is_online", "is_weekend", "is_new_device", "velocity")


def make(rows=30, seed=0, unit="probability", base=0.03):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, 4)) * 0.1
    output = base + values.sum(axis=1)
    data = rng.integers(0, 2, size=(rows, 4)).astype(float)
    return Explanation(values, base, unit, data, NAMES, output, output.copy())


def bars_of(drawn):
    return [patch.get_width() for patch in drawn.figure.axes[0].patches]


DRAWERS = {
    "waterfall": waterfall,
    "beeswarm": beeswarm,
    "bar": bar,
    "cohorts": lambda e: cohorts(e, np.where(np.arange(len(e)) % 3 == 0, "new", "old")),
}


@pytest.fixture(params=DRAWERS)
def draw(request):
    return DRAWERS[request.param]


@pytest.mark.parametrize(("unit", "says"), [("probability", "prob"), ("log-odds", "log-odds")])
def test_the_axis_names_the_unit(draw, unit, says):
    drawn = draw(make(unit=unit))
    assert says in drawn.figure.axes[0].get_xlabel()
    assert says in drawn.alt


def test_a_figure_can_be_shown_as_it_is(draw):
    picture = plots.render(*draw(make()))
    assert picture.png.startswith(b"\x89PNG")
    assert len(picture.alt.split()) > 10


def test_pyplot_knows_nothing_of_it(draw):
    draw(make())
    assert pyplot.get_fignums() == []


def test_equal_explanations_give_equal_pictures(draw):
    assert plots.render(*draw(make())).png == plots.render(*draw(make())).png


def test_four_threads_at_once_draw_their_own_figures(draw):
    expected = {seed: plots.render(*draw(make(seed=seed))).png for seed in range(4)}
    found = {}
    together = threading.Barrier(4)

    def work(seed):
        together.wait()
        found[seed] = plots.render(*draw(make(seed=seed))).png

    threads = [threading.Thread(target=work, args=(seed,)) for seed in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected
    assert pyplot.get_fignums() == []


# One row


def test_a_waterfall_steps_from_the_base_to_the_score():
    explanation = make()
    drawn = waterfall(explanation, 7)
    steps = drawn.figure.axes[0].patches
    assert steps[0].get_x() == pytest.approx(explanation.base)
    assert steps[-1].get_x() + steps[-1].get_width() == pytest.approx(explanation.output[7])
    assert sorted(map(abs, bars_of(drawn)), reverse=True) == pytest.approx(
        sorted(np.abs(explanation.values[7]), reverse=True)
    )


def test_a_waterfall_is_told_in_words_and_numbers():
    explanation = make()
    drawn = waterfall(explanation, 0)
    assert f"{explanation.output[0] * 100:.1f} %" in drawn.alt
    ticks = [tick.get_text() for tick in drawn.figure.axes[0].get_yticklabels()]
    assert any("velocity = " in tick for tick in ticks)
    assert any(tick in ("online", "with the card present") for tick in ticks)


def test_a_waterfall_takes_the_callers_words():
    assert "bought abroad" in waterfall(make(), context={"is_online": "bought abroad"}).alt


def test_what_is_not_shown_on_its_own_is_summed_up():
    explanation = make()
    drawn = waterfall(explanation, 0, top=2)
    assert "2 others" in drawn.alt
    assert sum(bars_of(drawn)) == pytest.approx(explanation.values[0].sum())


def test_raising_and_lowering_differ_by_more_than_colour():
    drawn = waterfall(make(), 3)
    for step in drawn.figure.axes[0].patches:
        assert bool(step.get_hatch()) == (step.get_width() > 0)


def test_log_odds_are_given_as_a_probability_too():
    assert "(50.0 %)" in waterfall(make(unit="log-odds", base=0.0)).alt


# Many rows


def test_a_swarm_shows_every_row_of_every_feature():
    drawn = beeswarm(make(50))
    clouds = drawn.figure.axes[0].collections
    assert [len(cloud.get_offsets()) for cloud in clouds] == [50] * 4


def test_a_swarm_keeps_each_feature_on_its_line():
    drawn = beeswarm(make(500))
    for place, cloud in enumerate(drawn.figure.axes[0].collections):
        heights = np.asarray(cloud.get_offsets())[:, 1]
        assert np.abs(heights - place).max() < 0.5


def test_a_swarm_of_equal_contributions_is_drawn():
    flat = Explanation(
        np.zeros((5, 4)), 0.1, "probability", np.ones((5, 4)), NAMES, np.full(5, 0.1), np.ones(5)
    )
    assert plots.render(*beeswarm(flat)).png


def test_a_large_swarm_is_thinned():
    drawn = beeswarm(make(4500))
    assert len(drawn.figure.axes[0].collections[0].get_offsets()) == 1500
    assert "1,500 transactions" in drawn.alt


def test_bars_are_means_of_absolute_contributions_strongest_first():
    explanation = make()
    assert bars_of(bar(explanation)) == pytest.approx(sorted(explanation.importance)[::-1])
    assert len(bars_of(bar(explanation, top=2))) == 2


def test_cohorts_have_bars_of_their_own():
    explanation = make()
    group = np.where(np.arange(30) < 10, "a", "b")
    drawn = cohorts(explanation, group)
    first, second = explanation[:10].importance, explanation[10:].importance
    assert sorted(bars_of(drawn)) == pytest.approx(sorted([*first, *second]))
    assert {text.get_text() for text in drawn.figure.axes[0].get_legend().get_texts()} == {
        "a (10 rows)",
        "b (20 rows)",
    }


def test_cohorts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="one name for each row"):
        cohorts(make(), ["a"])
    with pytest.raises(ValueError, match="at most 5"):
        cohorts(make(), np.arange(30))
