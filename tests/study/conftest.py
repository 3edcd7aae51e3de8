"""A workbook of two questions in a temporary folder."""

import json
import tempfile
from pathlib import Path

import pytest

from companion.study.workbook import Workbook

ANSWER = """---
id: {id}
slug: {slug}
title: Small question
question: What is one and one?
part: 1
level: E
minutes: 5
topics: [numbers]
claims:
  - id: sum-is-three
    text: One and one are three.
    verdict: wrong
    why: They are two.
  - id: sum-exists
    text: One and one have a sum.
    verdict: holds
    why: All numbers have.
rubric:
  - point: Two.
    signals: [two, "2"]
  - point: Addition.
    signals: [add]
  - point: Integers.
    signals: [integer]
follow_ups:
  - question: And two and two?
    answer: Four.
  - question: And three and three?
    answer: Six.
  - question: And four and four?
    answer: Eight.
red_flags:
  - Three.
---

## In one breath

Two.

## In two minutes

Two, slowly.

## What the received answer gets wrong

Three.

## Sources

Counting.
"""

EXERCISE = '''
from companion.study import Exercise, Stage

exercise = Exercise(
    "add",
    hints={
        "start": ("begin", "go on"),
        "sum": ("look again", "use +", "a + b"),
        "type": ("a number",),
    },
)


@exercise.check(Stage.TYPE, hint="type")
def gives_a_number(attempt, case):
    """it returns a number"""
    got = attempt(1, 1)
    case.true(isinstance(got, int), given="add(1, 1)", expected="an int", got=got)


@exercise.check(Stage.VALUE, hint="sum")
def gives_the_sum(attempt, case):
    """it adds"""
    a, b = (int(n) for n in case.rng.integers(1, 100, 2))
    case.equal(given=f"add({a}, {b})", expected=a + b, got=attempt(a, b))


@exercise.solution
def add(a, b):
    return a + b


@exercise.another_way
def sum_them(a, b):
    return sum((a, b))


@exercise.wrong("sum")
def always_two(a, b):
    """Right for one and one only."""
    return 2


@exercise.wrong("type")
def as_text(a, b):
    """Text."""
    return f"{a}{b}"
'''


def notebook(title="# old title"):
    cell = {"cell_type": "markdown", "id": "title", "metadata": {}, "source": [title]}
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def write_question(root: Path, number: int, slug: str) -> None:
    stem = f"q{number:02d}_{slug}"
    (root / "answers" / f"{stem}.md").write_text(ANSWER.format(id=number, slug=slug))
    (root / "answers" / f"{stem}.py").write_text(EXERCISE)
    (root / "notebooks" / f"{stem}.ipynb").write_text(notebook())


@pytest.fixture
def workbook(tmp_path):
    root = tmp_path / "workbook"
    for folder in ("answers", "notebooks"):
        (root / folder).mkdir(parents=True)
    write_question(root, 2, "small")
    write_question(root, 7, "other")
    (root / "answers" / "unwritten.yaml").write_text(
        "questions:\n"
        "  - {id: 9, slug: later, title: Later, part: 1, level: H, minutes: 9, topics: [time]}\n"
    )
    (root / "README.md").write_text("# Book\n<!-- scoreboard -->\nold\n<!-- /scoreboard -->\nend\n")
    return Workbook(root)


@pytest.fixture
def short_folder():
    """A private folder with a short path: the address of a Unix socket has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="run-") as name:
        yield Path(name)
