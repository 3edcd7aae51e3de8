"""The study page: whole, self-contained, honest about boundaries."""

import dataclasses
import re

import pytest

from companion.models.tuning import TuningData, tune, write_page
from companion.models.tuning import figures as figures_module
from companion.models.tuning import objective as objective_module
from companion.models.tuning import search as search_module
from companion.models.tuning.figures import (
    best_so_far,
    importance,
    importances,
    slices,
    stages,
)
from companion.models.tuning.objective import Stages
from companion.models.tuning.page import page
from companion.storage import MissingFolderError
from companion.transactions import simulate

STAGES = {"forest": Stages("trees", (2, 4, 8))}


@pytest.fixture(scope="module")
def tuned():
    data = TuningData.from_transactions(simulate(2500, seed=5, fraud_rate=0.1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objective_module, "STAGES", STAGES)
        patch.setattr(search_module, "STAGES", STAGES)
        yield tune("forest", data, trials=12, seed=1)


@pytest.fixture(scope="module")
def text(tuned):
    return page(tuned)


def test_it_needs_nothing_from_the_network(text):
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', text)
    assert len(sources) == 4
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "<script" not in text


def test_every_picture_has_words(text):
    assert len(re.findall(r'<img alt="[^"]{30,}"', text)) == 4


def test_it_says_what_was_found_and_how(tuned, text):
    assert f"{tuned.value:.4f} average precision on later rows" in text
    assert f"{len(tuned.pruned)} pruned" in text
    assert f"{tuned.spent} of the 96 that no pruning would have taken" in text
    assert "TPE after 4 random trials, seed 1" in text
    assert "successive halving at 2, 4 trees" in text


def test_every_trial_is_listed(tuned, text):
    table = text.rpartition("<h2>Trials</h2>")[2]
    assert table.count("<tr>") == 1 + len(tuned.trials)


def test_a_best_value_on_the_boundary_is_a_warning(tuned):
    on_edge = dataclasses.replace(tuned, parameters={**tuned.parameters, "max_samples": 0.02})
    assert '<p class="warning">best value lies on the boundary of max_samples' in page(on_edge)


def test_no_boundary_is_said_too(tuned):
    inside = {"min_samples_leaf": 10, "max_features": 0.5, "max_samples": 0.5}
    assert "No best value lies on the boundary" in page(
        dataclasses.replace(tuned, parameters=inside)
    )


def test_it_is_written_whole(tuned, tmp_path, text):
    path = write_page(tuned, tmp_path / "page.html")
    assert path.read_text("utf-8") == text
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.html"]


def test_a_missing_folder_is_refused(tuned, tmp_path):
    with pytest.raises(MissingFolderError):
        write_page(tuned, tmp_path / "nowhere" / "page.html")


def test_the_best_so_far_never_falls(tuned):
    fig, alt = best_so_far(tuned)
    (steps,) = [line for line in fig.axes[0].get_lines() if line.get_drawstyle() == "steps-post"]
    best = [value for value in steps.get_ydata() if value == value]
    assert best == sorted(best)
    assert best[-1] == tuned.value
    assert f"ends at {tuned.value:.3f}" in alt


def test_slices_show_every_trial_on_the_scale_that_was_searched(tuned):
    fig, _ = slices(tuned)
    scales = {ax.get_xlabel(): ax.get_xscale() for ax in fig.axes if ax.get_visible()}
    assert scales == {"min_samples_leaf": "log", "max_features": "linear", "max_samples": "log"}
    drawn = sum(len(line.get_xdata()) for line in fig.axes[0].get_lines()[:2])
    assert drawn == len(tuned.finished)


def test_stages_tell_what_pruning_saved(tuned):
    _, alt = stages(tuned)
    assert f"saved {1 - tuned.spent / tuned.unpruned:.0%} of the trees" in alt


def test_few_complete_trials_are_not_enough_for_importances(tuned):
    found = importance(tuned)
    assert found.basis == "12 trials after 2 trees"
    assert sum(found.shares.values()) == pytest.approx(1)


def test_enough_complete_trials_are(tuned, monkeypatch):
    monkeypatch.setattr(figures_module, "ENOUGH_COMPLETE", 2)
    complete = len(tuned.finished) - len(tuned.pruned)
    assert importance(tuned).basis == f"{complete} complete trials"


def test_trials_that_are_all_alike_give_no_importance(tuned):
    one = dataclasses.replace(tuned, trials=tuned.trials[:1])
    assert set(importance(one).shares.values()) == {0.0}
    assert "0.00" in importances(one)[1]
