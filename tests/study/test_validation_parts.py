"""The parts of validation that need no kernel: selection, fingerprints, table, report."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from rich.console import Console

from companion.study.atomic import write_atomically
from companion.study.validation import (
    Difference,
    Outcome,
    Progress,
    ValidationError,
    live_table,
    notebooks_named,
    parse_parameters,
    parse_shard,
    validate,
)
from companion.study.validation.fingerprint import (
    PassedRuns,
    fingerprint,
    shared_fingerprint,
)
from companion.study.validation.report import DIFF_LINES, page
from companion.study.validation.selection import (
    NotebookMalformedError,
    NotebookMissingError,
    ParameterSyntaxError,
    ParameterUnknownError,
    ShardError,
    select,
)
from companion.study.validation.table import render


def notebook(path: Path, parameters: str = "") -> Path:
    cell = new_code_cell(parameters, metadata={"tags": ["parameters"]} if parameters else {})
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[cell]), path)
    return path


# ------------------------------------------------------------------------------------ selection


def test_names_are_stems_beginnings_or_paths(tmp_path: Path) -> None:
    breaker = notebook(tmp_path / "notebooks" / "q23_circuit_breaker.ipynb")
    demo = notebook(tmp_path / "notebooks" / "demos" / "circuit_breaker.ipynb")
    notebook(tmp_path / "notebooks" / ".ipynb_checkpoints" / "q23_circuit_breaker.ipynb")
    assert notebooks_named([], tmp_path) == sorted([breaker, demo])
    assert notebooks_named(["q23"], tmp_path) == [breaker]
    assert notebooks_named(["circuit_breaker.ipynb", str(breaker)], tmp_path) == [demo, breaker]
    assert notebooks_named(["q23", "q23_circuit_breaker"], tmp_path) == [breaker]


def test_a_name_without_a_notebook_is_an_error(tmp_path: Path) -> None:
    notebook(tmp_path / "notebooks" / "q23_circuit_breaker.ipynb")
    with pytest.raises(NotebookMissingError, match="There is no notebook 'q2' in"):
        notebooks_named(["q2"], tmp_path)


@pytest.mark.parametrize("text", ["3/2", "0/2", "1", "a/b", "1/0", "-1/2", "", "1/2/3"])
def test_what_is_no_shard_is_an_error(text: str) -> None:
    with pytest.raises(ShardError):
        parse_shard(text)


def test_a_shard_is_part_and_parts() -> None:
    assert parse_shard("2/3") == (2, 3)


def test_parameters_are_python_literals_or_text() -> None:
    parsed = parse_parameters(["seed=7", "rate=0.01", "name=forest", "on=True", "empty="])
    assert parsed == {"seed": 7, "rate": 0.01, "name": "forest", "on": True, "empty": ""}


@pytest.mark.parametrize("text", ["seed", "=7", "a b=1", "7=seed", ""])
def test_what_is_no_parameter_is_an_error(text: str) -> None:
    with pytest.raises(ParameterSyntaxError, match="name=value"):
        parse_parameters([text])


def test_a_parameter_is_found_as_written_before_it_is_found_in_capitals(tmp_path: Path) -> None:
    path = notebook(tmp_path / "a.ipynb", "seed = 1\nSEED = 2\nRATE = 0.1")
    (selected,) = select([path], {"seed": 7, "rate": 0.5})
    assert selected.parameters == {"seed": 7, "RATE": 0.5}


def test_a_parameter_that_no_notebook_has_is_an_error(tmp_path: Path) -> None:
    path = notebook(tmp_path / "a.ipynb", "SEED = 1")
    with pytest.raises(ParameterUnknownError, match="parameter speed"):
        select([path], {"seed": 7, "speed": 1})


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"nbformat": 3}', b'{"nbformat": 4, "cells": 1}', b"\xff\xfe"],
)
def test_a_file_that_is_no_notebook_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.ipynb"
    path.write_bytes(content)
    with pytest.raises(NotebookMalformedError, match=r"broken\.ipynb"):
        select([path], {})


def test_a_notebook_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotebookMissingError, match=r"gone\.ipynb"):
        validate([tmp_path / "gone.ipynb"], root=tmp_path)


def test_a_checkout_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "build").write_text("a file where a folder should be")
    with pytest.raises(ValidationError, match="cannot be recorded"):
        validate([], root=tmp_path)


# ---------------------------------------------------------------------------------- fingerprints


@pytest.fixture
def root(tmp_path: Path) -> Path:
    notebook(tmp_path / "notebooks" / "q01_skorch.ipynb")
    for name in ("companion/room.py", "fixtures/a.csv", "answers/q01_skorch.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("content")
    return tmp_path


def now(root: Path, **parameters: object) -> str:
    path = root / "notebooks" / "q01_skorch.ipynb"
    shared = shared_fingerprint(root)
    return fingerprint(path, root=root, shared=shared, parameters=parameters)


@pytest.mark.parametrize(
    "name",
    [
        "notebooks/q01_skorch.ipynb",
        "answers/q01_skorch.md",
        "answers/q01_skorch.py",
        "companion/room.py",
        "companion/other/room.py",
        "fixtures/a.csv",
        "fixtures/deep/model.onnx",
        "requirements.lock",
        "jupyter_config/nbval_sanitize.cfg",
    ],
)
def test_a_change_to_what_it_depends_on_changes_the_fingerprint(root: Path, name: str) -> None:
    before = now(root)
    (root / name).parent.mkdir(exist_ok=True)
    with (root / name).open("a") as file:
        file.write("more")
    assert now(root) != before


def test_other_parameters_or_a_renamed_file_change_the_fingerprint(root: Path) -> None:
    before = now(root)
    assert len({before, now(root, SEED=1), now(root, SEED="1")}) == 3
    (root / "companion" / "room.py").rename(root / "companion" / "chamber.py")
    assert now(root) != before


@pytest.mark.parametrize(
    "name", ["answers/q02_other.md", "companion/__pycache__/room.py", "companion/notes.md"]
)
def test_a_change_to_anything_else_does_not(root: Path, name: str) -> None:
    before = now(root)
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text("other")
    os.utime(root / "companion" / "room.py", (1, 1))
    assert now(root) == before


def test_a_passed_run_is_known_for_its_notebook_parameters_and_content(tmp_path: Path) -> None:
    passed = PassedRuns(tmp_path)
    path = Path("q01.ipynb")
    passed.note(path, {}, "abc")
    assert passed.has(path, {}, "abc")
    assert not passed.has(path, {}, "abd")
    assert not passed.has(path, {"SEED": 1}, "abc")
    assert not passed.has(Path("q02.ipynb"), {}, "abc")
    passed.forget(path, {})
    assert not passed.has(path, {}, "abc")


def test_a_spoilt_record_only_means_that_the_notebook_runs(tmp_path: Path) -> None:
    passed = PassedRuns(tmp_path)
    passed.note(Path("q01.ipynb"), {}, "abc")
    (record,) = tmp_path.iterdir()
    record.write_bytes(b"\xff\x00")
    assert not passed.has(Path("q01.ipynb"), {}, "abc")


def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")

    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("page.html", "old")]


# --------------------------------------------------------------------------------------- the table

FAILED = Outcome(
    Path("/r/notebooks/q02_b.ipynb"),
    "failed",
    seconds=2.04,
    slowest_cell="run-1",
    slowest_seconds=1.5,
    failing_cell="verdict",
    failing_source="assert a < b  # <script>",
    error="AssertionError: <&> no",
    traceback="Traceback <module>",
    differences=(Difference("run-1", "stdout", "a\nold\n", "a\n<new>\n"),),
)
PASSED = Outcome(Path("/r/notebooks/q01_a.ipynb"), "passed", 1.0, "open", 0.5, notes=("has no x",))
SKIPPED = Outcome(Path("/r/notebooks/q03_c.ipynb"), "skipped-unchanged")


def shown(renderable: Any) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_table_has_notebook_state_seconds_and_slowest_cell() -> None:
    rows = {
        "q02_b": Progress(FAILED.notebook, outcome=FAILED),
        "q01_a": Progress(PASSED.notebook, "run-1", done=2, cells=9),
    }
    lines = shown(render(rows)).splitlines()
    assert lines[0].split() == ["notebook", "state", "seconds", "slowest", "cell"]
    assert lines[1].split() == ["q01_a", "running", "3/9", "run-1"]
    assert lines[2].split()[0] == "q02_b"
    assert "failed in verdict: AssertionError: <&> no" in lines[2]
    assert lines[2].rstrip().endswith("run-1 1.5 s")


def test_a_terminal_gets_a_live_table() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with live_table(console) as on_progress:
        on_progress(Progress(PASSED.notebook, "open", 0, 3))
        on_progress(Progress(PASSED.notebook, outcome=PASSED))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "passed; has no x" in text


def test_a_log_gets_one_line_for_each_finished_notebook() -> None:
    console = Console(file=io.StringIO(), width=60)
    with live_table(console) as on_progress:
        on_progress(Progress(PASSED.notebook, "open", 0, 3))
        for outcome in (PASSED, FAILED, SKIPPED):
            on_progress(Progress(outcome.notebook, outcome=outcome))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.splitlines() == [
        "q01_a  passed; has no x  1.0 s",
        "q02_b  failed in verdict: AssertionError: <&> no  2.0 s",
        "q03_c  skipped, unchanged",
    ]


# -------------------------------------------------------------------------------------- the report


def test_the_report_shows_the_failing_cell_its_traceback_and_the_difference() -> None:
    html = page([PASSED, FAILED, SKIPPED], root=Path("/r"))
    assert "<title>Validation: 1 of 3 notebooks failed</title>" in html
    assert '<a href="#q02_b">notebooks/q02_b.ipynb</a>' in html
    assert "assert a &lt; b  # &lt;script&gt;" in html
    assert "Traceback &lt;module&gt;" in html
    assert '<span class="del">-old</span><span class="add">+&lt;new&gt;</span>' in html
    assert "1 passed, 1 failed, 1 unchanged since they passed; 3.0 s" in html


def test_nothing_in_a_report_comes_from_a_notebook_unescaped() -> None:
    evil = "<script>alert(1)</script>"
    outcome = Outcome(
        Path(f"/r/{evil[:8]}.ipynb"),
        "failed",
        1.0,
        *(evil, 1.0, evil, evil, evil, evil),
        (Difference(evil, evil, evil, evil + "\nmore"),),
        (evil,),
    )
    assert "<script" not in page([outcome], root=Path("/r"))


def test_a_report_without_failures_says_so() -> None:
    assert "<h1>Every notebook holds</h1>" in page([PASSED, SKIPPED], root=Path("/r"))


def test_an_endless_difference_is_cut() -> None:
    many = "\n".join(str(number) for number in range(2 * DIFF_LINES))
    outcome = Outcome(
        Path("/r/a.ipynb"), "failed", differences=(Difference("a", "stdout", "", many),)
    )
    html = page([outcome], root=Path("/r"))
    assert "… and more" in html
    assert html.count('<span class="add">') <= DIFF_LINES
