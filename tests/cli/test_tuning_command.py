"""`companion tune`: what it says, what it writes, what it refuses in one sentence."""

import pytest
from typer.testing import CliRunner

import companion.cli
from companion.cli.errors import CommandError
from companion.models.tuning import objective, search
from companion.models.tuning.objective import Stages
from companion.transactions import simulate

STAGES = {"forest": Stages("trees", (2, 4, 8))}
SMALL = ("tune", "forest", "--rows", "3000", "--trials", "3")


@pytest.fixture(autouse=True)
def short_stages(monkeypatch):
    monkeypatch.setattr(objective, "STAGES", STAGES)
    monkeypatch.setattr(search, "STAGES", STAGES)


def run(*arguments):
    return CliRunner().invoke(companion.cli.app, list(arguments))


def test_it_says_the_best_and_writes_the_page(tmp_path):
    page = tmp_path / "study.html"
    said = run(*SMALL, "--page", str(page))
    assert said.exit_code == 0
    assert "best average precision on later rows: 0." in said.output
    assert "max_features = " in said.output
    assert "of 24 without pruning" in said.output
    assert page.read_text("utf-8").startswith("<!doctype html>")


def test_it_says_when_the_best_lies_on_a_boundary(monkeypatch):
    monkeypatch.setattr("companion.models.tuning.spaces.ON_THE_EDGE", 0.6)
    assert "lies on the boundary of" in run(*SMALL).output


def test_it_goes_on_with_a_stored_study(tmp_path):
    storage = ("--storage", str(tmp_path / "study.db"))
    run(*SMALL, *storage)
    said = run("tune", "forest", "--rows", "3000", "--trials", "4", *storage)
    assert "4 of 4 trials" in said.output


def test_it_takes_a_file(tmp_path):
    path = tmp_path / "transactions.parquet"
    simulate(3000, seed=4).to_parquet(path)
    said = run("tune", "forest", "--data", str(path), "--trials", "2")
    assert "best average precision" in said.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("tune", "svm", "--rows", "3000"), "no family is called 'svm'"),
        (("tune", "forest", "--rows", "40"), "rows are left for|rows of .* is a fraud"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(arguments, sentence):
    error = run(*arguments).exception
    assert isinstance(error, CommandError)
    with pytest.raises(CommandError, match=sentence):
        raise error
