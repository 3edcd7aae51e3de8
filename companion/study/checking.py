"""Hold an attempt against an exercise's checks, and say what came of it.

Each check runs in its own sandbox, so that an endless loop is blamed on the behaviour in which it
was found and one check leaves nothing behind for the next. The first check that does not pass ends
the examination: its message is the most useful one.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from companion.study.exercise import Case, Check, CheckFailed, Exercise
from companion.study.sandbox import Limits, Ran, run_limited

Runner = Callable[[Callable[[], Any], Limits], Ran]


class Outcome(StrEnum):
    """How an examination ends."""

    PASSED = "passed"
    FAILED = "failed"
    RAISED = "raised"
    NOT_ATTEMPTED = "not attempted"


@dataclass(frozen=True)
class Examination:
    """What a candidate is told. Texts are empty where they do not apply.

    `passed` counts the checks that passed before the first that did not; `hint` is the key of the
    hint that fits.
    """

    outcome: Outcome
    passed: int
    total: int
    behaviour: str = ""
    given: str = ""
    expected: str = ""
    got: str = ""
    problem: str = ""
    hint: str = ""
    trace: str = ""
    printed: str = ""
    check: str = ""


def examine(
    exercise: Exercise, attempt: Any, *, seed: int | None = None, run: Runner = run_limited
) -> Examination:
    """Run the checks on `attempt` in order, up to the first that does not pass.

    `seed` fixes the random inputs; by default each examination draws new ones. `run` runs one
    check under its limits; by default in a sandbox of its own.
    An attempt is *not attempted* when it is `None` or `...`, or when the first check meets the
    stub's `NotImplementedError`.
    """
    total = len(exercise.checks)
    if attempt is None or attempt is ...:
        return Examination(Outcome.NOT_ATTEMPTED, 0, total)
    seed = secrets.randbits(32) if seed is None else seed
    for position, check in enumerate(exercise.checks):
        result = run_check(check, attempt, seed=seed + position, run=run)
        if result is not None:
            if "NotImplementedError" in result.error_types and position == 0:
                return Examination(Outcome.NOT_ATTEMPTED, 0, total)
            return _told(result, check, position, total)
    return Examination(Outcome.PASSED, total, total)


@dataclass(frozen=True)
class Shortfall:
    """Why one check did not pass: a failed expectation, or how the attempt ended otherwise."""

    failed: dict[str, str] | None
    ran: Ran

    @property
    def error_types(self) -> tuple[str, ...]:
        return self.ran.error_types


def run_check(
    check: Check, attempt: Any, *, seed: int, run: Runner = run_limited
) -> Shortfall | None:
    """Run one check by `run`; `None` means it passed."""

    def observed() -> dict[str, str] | None:
        try:
            check.run(attempt, Case(seed))
        except CheckFailed as failure:
            return {key: str(value) for key, value in vars(failure).items()}
        return None

    ran = run(observed, check.limits)
    if ran.value is None and not ran.error and not ran.stopped:
        return None
    return Shortfall(ran.value, ran)


def _told(shortfall: Shortfall, check: Check, passed: int, total: int) -> Examination:
    ran, failed = shortfall.ran, shortfall.failed or {}
    problem = ran.stopped or ran.error
    if "NotImplementedError" in ran.error_types:
        problem = "this part is not written yet"
    return Examination(
        outcome=Outcome.RAISED if ran.error else Outcome.FAILED,
        passed=passed,
        total=total,
        behaviour=check.behaviour,
        given=failed.get("given", ""),
        expected=failed.get("expected", ""),
        got=failed.get("got", ""),
        problem=problem,
        hint=failed.get("hint") or check.hint,
        trace=ran.trace,
        printed=ran.printed,
        check=check.name,
    )
