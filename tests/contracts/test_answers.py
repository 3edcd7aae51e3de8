"""What every exercise keeps: right ways pass, mistakes meet their own hint, nothing is spoilt."""

import dataclasses
import functools
import itertools
import json

import pytest

from companion.study.checking import Outcome, examine, run_check
from companion.study.exercise import Stage, load_exercise
from companion.study.sandbox import Limits, run_here, run_limited

SEEDS = (1, 20, 300)


def in_one_sandbox(function):
    """What `function()` returns, or `None` if it does not end by itself."""
    return run_limited(function, Limits(seconds=10)).value


def told_to(exercise, attempt, *, seed, hint=""):
    """What the checker tells an attempt; `hint` is what should be, empty for one that passes.

    A sandbox is a fork of this process, which has every exercise and its libraries in memory, and
    there are thousands of checks. So all checks of an attempt share one. Whatever is told otherwise
    than expected is asked again as a candidate asks, with a sandbox for each check.
    """
    told = in_one_sandbox(lambda: examine(exercise, attempt, seed=seed, run=run_here))
    if told is not None and told.hint == hint:
        return told
    return examine(exercise, attempt, seed=seed)


def can_be_failed(check, attempts):
    """Whether one of them fails it; if none does in one sandbox, each in its own has the word."""

    def some_fails(run):
        return any(run_check(check, it.attempt, seed=SEEDS[0], run=run) for it in attempts)

    return in_one_sandbox(lambda: some_fails(run_here)) or some_fails(run_limited)


def stub_of(workbook, answer, exercise):
    """What the untouched notebook hands to the checker."""
    cells = json.loads(workbook.notebook(answer.stem).read_text(encoding="utf-8"))["cells"]
    source = next("".join(cell["source"]) for cell in cells if cell["id"] == "exercise")
    defined = {"__name__": "__main__"}
    exec(compile(source, "exercise", "exec"), defined)
    return defined[exercise.name]


def test_the_stub_is_not_attempted(workbook, answer, exercise):
    told = examine(exercise, stub_of(workbook, answer, exercise))
    assert told.outcome is Outcome.NOT_ATTEMPTED, told


def test_the_solution_passes(exercise):
    told = examine(exercise, exercise.solution_attempt, seed=SEEDS[0])
    assert told.outcome is Outcome.PASSED, told


@pytest.mark.parametrize("seed", SEEDS[1:])
def test_the_solution_passes_with_other_inputs(exercise, seed):
    told = told_to(exercise, exercise.solution_attempt, seed=seed)
    assert told.outcome is Outcome.PASSED, told


def test_there_is_another_way_and_it_passes_too(exercise):
    assert exercise.other_ways
    for attempt in exercise.other_ways:
        told = told_to(exercise, attempt, seed=SEEDS[0])
        assert told.outcome is Outcome.PASSED, told


@functools.cache
def told_to_wrong_attempts(path):
    """What the checker tells each of them; two tests look at it."""
    exercise = load_exercise(path)
    return [
        (wrong, told_to(exercise, wrong.attempt, seed=seed, hint=wrong.hint))
        for wrong, seed in zip(exercise.wrong_attempts, itertools.cycle(SEEDS), strict=False)
    ]


def test_every_wrong_attempt_fails_with_its_own_hint(workbook, answer, exercise):
    assert len(exercise.wrong_attempts) >= 3
    for wrong, told in told_to_wrong_attempts(workbook.exercise(answer.stem)):
        assert told.outcome in (Outcome.FAILED, Outcome.RAISED), wrong.name
        assert told.hint == wrong.hint, (wrong.name, told)


def test_every_check_can_be_failed_by_some_wrong_attempt(workbook, answer, exercise):
    failed = {told.check for _, told in told_to_wrong_attempts(workbook.exercise(answer.stem))}
    for check in (check for check in exercise.checks if check.name not in failed):
        # It never was the first to fail. Those that were written for its hint come first.
        likely_first = sorted(exercise.wrong_attempts, key=lambda it: it.hint != check.hint)
        assert can_be_failed(check, likely_first), f"no wrong attempt fails {check.name}"


def test_hints_grow_and_each_is_used(exercise):
    used = {check.hint for check in exercise.checks}
    used |= {wrong.hint for wrong in exercise.wrong_attempts} | {"start"}
    assert set(exercise.hints) == used
    assert all(len(levels) >= 2 for levels in exercise.hints.values())


def test_checks_begin_with_the_type(exercise):
    assert exercise.checks[0].stage is Stage.TYPE


def test_an_endless_attempt_ends_within_its_limit(exercise):
    def loops_for_ever(*args, **kwargs):
        while True:
            pass

    first = dataclasses.replace(exercise.checks[0], limits=Limits(seconds=0.5))
    shortfall = run_check(first, loops_for_ever, seed=1)
    assert shortfall is not None
    assert shortfall.ran.stopped == "stopped after its limit of 0.5 s"


def test_the_solution_is_not_in_the_notebook(workbook, answer, exercise):
    notebook = workbook.notebook(answer.stem).read_text(encoding="utf-8")
    lines = [line.strip() for line in exercise.solution_source.splitlines()]
    telling = [line for line in lines if len(line) > 30 and not line.startswith(("def ", "class "))]
    shown = [line for line in telling if json.dumps(line)[1:-1] in notebook]
    assert len(shown) <= len(telling) / 2, shown
