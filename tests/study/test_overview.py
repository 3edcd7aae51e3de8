"""The map, the scoreboard and the title cells come from the ledger and are kept current."""

import json
from datetime import UTC, datetime

import pytest

from companion.study import overview
from companion.study.catalogue import read_catalogue
from companion.study.progress import Kind, Progress

THEN = datetime(2026, 1, 5, tzinfo=UTC)


def title_of(workbook, stem):
    cells = json.loads(workbook.notebook(stem).read_text())["cells"]
    return "".join(cells[0]["source"])


def test_writing_brings_everything_up_to_date_once(workbook):
    assert sorted(overview.stale(workbook)) == ["README.md", "q02_small.ipynb", "q07_other.ipynb"]
    assert sorted(overview.write(workbook)) == ["README.md", "q02_small.ipynb", "q07_other.ipynb"]
    assert overview.stale(workbook) == []
    assert overview.write(workbook) == []


def test_the_scoreboard_counts_claims_by_verdict(workbook):
    overview.write(workbook)
    readme = (workbook.root / "README.md").read_text()
    links = "[Q02](notebooks/q02_small.ipynb) [Q07](notebooks/q07_other.ipynb)"
    assert f"| Foundation | 2 of 3: {links} | 4 | 2 | 2 | · | · | · |" in readme
    assert "| **all** | 2 of 3 | 4 | 2 | 2 | · | · | · |" in readme
    assert readme.startswith("# Book")
    assert readme.endswith("end\n")


def test_the_title_has_the_question_and_the_way_on(workbook):
    overview.write(workbook)
    title = title_of(workbook, "q02_small")
    assert title.startswith("# Q02 · Small question\n\n> What is one and one?")
    assert "[Q07 Small question →](q07_other.ipynb)" in title
    assert "[the answer in words](../answers/q02_small.md)" in title
    assert "←" not in title


def test_a_readme_without_its_markers_is_an_error(workbook):
    (workbook.root / "README.md").write_text("# Book\n")
    with pytest.raises(overview.MissingMarkersError, match="for the scoreboard"):
        overview.stale(workbook)


def test_the_map_shows_written_and_unwritten_questions(workbook):
    shown = overview.show_map(workbook=workbook, person=False)
    assert shown.text.splitlines() == [
        "Q02  Small question",
        "Q07  Small question",
        "Q09  Later  · not written yet",
    ]
    assert "<a href='q02_small.ipynb'>" in shown.html


@pytest.mark.parametrize(
    ("chosen", "labels"),
    [
        ({"level": "H"}, ["Q09"]),
        ({"written": True}, ["Q02", "Q07"]),
        ({"topic": "time"}, ["Q09"]),
        ({"part": 4}, []),
    ],
)
def test_the_map_can_be_filtered(workbook, chosen, labels):
    text = overview.show_map(workbook=workbook, person=False, **chosen).text
    assert [line[:3] for line in text.splitlines() if line.startswith("Q")] == labels


def test_a_learner_sees_dates_and_controls(workbook, tmp_path):
    log = Progress(tmp_path, clock=lambda: THEN)
    log.record(2, Kind.RECALLED, rating="good", due="2026-01-07T00:00:00+00:00")
    box = overview.show_map(workbook=workbook, progress=log, person=True)
    controls, table = box.children
    assert "2026-01-05" in table.value
    due = next(c for c in controls.children if c.description == "due")
    due.value = True
    assert "q02_small.ipynb" in table.value
    assert "q07_other.ipynb" not in table.value


def test_what_comes_next_is_named_with_its_reason(workbook, tmp_path):
    log = Progress(tmp_path, clock=lambda: THEN)

    def said():
        return overview.show_next(workbook=workbook, progress=log, person=True).text

    assert said().startswith("Q02 · Small question\n  not recalled yet. Studied 0 days")
    log.record(2, Kind.RECALLED, rating="good", due="2026-01-07T00:00:00+00:00")
    log.record(7, Kind.RECALLED, rating="good", due="2026-01-08T00:00:00+00:00")
    assert "nothing is due; Q02 comes up on 2026-01-07. Studied 1 days" in said()
    assert "In JupyterLab" in overview.show_next(workbook=workbook, person=False).text


def test_the_scoreboard_can_be_shown(workbook):
    assert "4 claims run in 2 of 50 questions" in overview.show_scoreboard(workbook).text


def test_the_workbooks_own_generated_parts_are_current():
    from companion.study.workbook import Workbook

    assert overview.stale(Workbook.find()) == [], "run `companion map` and commit the result"


def test_all_fifty_questions_are_on_the_map():
    from companion.study.workbook import Workbook

    assert list(read_catalogue(Workbook.find()).entries) == list(range(1, 51))
