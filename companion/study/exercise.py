"""What an answer's Python file says: the solution, other right ways, the checks, wrong attempts.

    exercise = Exercise("CircuitBreaker", hints={"expire": ("nudge", "pointer", "nearly the code")})

    @exercise.check(Stage.VALUE, hint="expire")
    def rare_errors_stay_closed(attempt, case):
        '''0.1 % errors never open it'''
        ...
        case.equal(given="100,000 calls", expected="CLOSED", got=state)

    @exercise.solution
    class CircuitBreaker: ...

    @exercise.another_way
    class BreakerOfBuckets: ...

    @exercise.wrong("expire")
    class Received: ...

Checks run in the order of their stages, so that the first message is the most useful one.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from companion.study.sandbox import Limits

Thing = TypeVar("Thing")


class Stage(IntEnum):
    """The order in which checks run."""

    TYPE = 1
    SHAPE = 2
    RANGE = 3
    VALUE = 4
    STRESS = 5


class ExerciseError(ValueError):
    """An answer file defines its exercise wrongly."""


class CheckFailed(AssertionError):  # noqa: N818  a failed check is a result, not an accident
    """An attempt behaves otherwise than a check expects. `hint` overrides the check's own."""

    def __init__(self, given: str, expected: str, got: str, hint: str = "") -> None:
        super().__init__(f"given {given}: expected {expected}, got {got}")
        self.given, self.expected, self.got, self.hint = given, expected, got, hint


class Case:
    """What a check works with: random inputs that the stub does not show, and ways to fail."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def true(
        self, condition: object, *, given: str, expected: str, got: object, hint: str = ""
    ) -> None:
        """Fail unless `condition` is true, saying what was given, expected and got."""
        if not condition:
            raise CheckFailed(given, expected, _shown(got), hint)

    def equal(self, *, given: str, expected: object, got: object, hint: str = "") -> None:
        """Fail unless `got == expected`."""
        self.true(got == expected, given=given, expected=_shown(expected), got=got, hint=hint)

    def raises(
        self, kind: type[BaseException], call: Callable[[], object], *, given: str, hint: str = ""
    ) -> BaseException:
        """Fail unless `call` raises `kind`; the exception is returned for a closer look."""
        try:
            result = call()
        except kind as error:
            return error
        except NotImplementedError:
            raise
        except Exception as error:
            raise CheckFailed(
                given, kind.__name__, f"{type(error).__name__}: {error}", hint
            ) from error
        raise CheckFailed(given, kind.__name__, f"no error, but {_shown(result)}", hint)


@dataclass(frozen=True)
class Check:
    """A named behaviour. `run(attempt, case)` returns nothing or raises `CheckFailed`."""

    name: str
    behaviour: str
    stage: Stage
    hint: str
    run: Callable[[Any, Case], None]
    limits: Limits


@dataclass(frozen=True)
class WrongAttempt:
    """A mistake that people make, and the hint it must trigger."""

    name: str
    attempt: Any
    hint: str
    why: str


@dataclass
class Exercise:
    """Everything about one exercise. `name` is what the candidate defines."""

    name: str
    hints: Mapping[str, Sequence[str]]
    limits: Limits = field(default_factory=Limits)
    checks: list[Check] = field(default_factory=list)
    wrong_attempts: list[WrongAttempt] = field(default_factory=list)
    other_ways: list[Any] = field(default_factory=list)
    _solution: Any = None
    _solution_parts: list[Any] = field(default_factory=list)

    def check(
        self, stage: Stage, *, hint: str, limits: Limits | None = None
    ) -> Callable[[Callable[[Any, Case], None]], Callable[[Any, Case], None]]:
        """Register a check; the function's docstring is the behaviour as the candidate reads it."""
        self._known(hint)

        def register(run: Callable[[Any, Case], None]) -> Callable[[Any, Case], None]:
            behaviour = inspect.getdoc(run)
            if not behaviour:
                raise ExerciseError(f"check {run.__name__} has no docstring to name its behaviour")
            if self.checks and self.checks[-1].stage > stage:
                raise ExerciseError(f"check {run.__name__}: {stage.name} after a later stage")
            self.checks.append(
                Check(run.__name__, behaviour, stage, hint, run, limits or self.limits)
            )
            return run

        return register

    def solution(self, thing: Thing) -> Thing:
        """Register the solution."""
        if self._solution is not None:
            raise ExerciseError("an exercise has one solution; register others with another_way")
        self._solution = thing
        return thing

    def part_of_solution(self, thing: Thing) -> Thing:
        """Register a class or function that the solution stands on, to be shown above it."""
        self._solution_parts.append(thing)
        return thing

    def another_way(self, thing: Thing) -> Thing:
        """Register a different right way, which must pass too."""
        self.other_ways.append(thing)
        return thing

    def wrong(self, hint: str) -> Callable[[Thing], Thing]:
        """Register a wrong attempt that must fail with `hint`; its docstring says what is wrong."""
        self._known(hint)

        def register(thing: Thing) -> Thing:
            why = inspect.getdoc(thing)
            if not why:
                raise ExerciseError("a wrong attempt says in its docstring what is wrong with it")
            name = getattr(thing, "__name__", repr(thing))
            self.wrong_attempts.append(WrongAttempt(name, thing, hint, why))
            return thing

        return register

    @property
    def solution_attempt(self) -> Any:
        """Raises ExerciseError when the file registers no solution."""
        if self._solution is None:
            raise ExerciseError(f"the exercise {self.name} has no solution")
        return self._solution

    @property
    def solution_source(self) -> str:
        """The solution's code after its parts', without the decorators that register them."""
        sources = map(inspect.getsource, [*self._solution_parts, self.solution_attempt])
        shown = (
            "\n".join(
                line
                for line in textwrap.dedent(source).splitlines()
                if not line.startswith(("@exercise.solution", "@exercise.part_of_solution"))
            )
            for source in sources
        )
        return "\n\n\n".join(shown)

    def _known(self, hint: str) -> None:
        if hint not in self.hints:
            raise ExerciseError(f"no hint is called {hint!r}; there are {', '.join(self.hints)}")


def load_exercise(path: Path) -> Exercise:
    """The `exercise` of an answer's Python file.

    Raises:
        FileNotFoundError: there is no such file.
        ExerciseError: the file defines no `exercise`, or one without a solution or checks.
    """
    if not path.is_file():
        raise FileNotFoundError(f"answers/{path.name} is missing")
    spec = importlib.util.spec_from_file_location(f"answers_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ExerciseError(f"answers/{path.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # inspect finds a class's source through its module
    spec.loader.exec_module(module)
    exercise = getattr(module, "exercise", None)
    if not isinstance(exercise, Exercise):
        raise ExerciseError(f"answers/{path.name} defines no `exercise`")
    if not exercise.checks or exercise.solution_attempt is None:
        raise ExerciseError(f"answers/{path.name}: an exercise needs checks")
    return exercise


def _shown(value: object) -> str:
    return textwrap.shorten(value if isinstance(value, str) else repr(value), 200)
