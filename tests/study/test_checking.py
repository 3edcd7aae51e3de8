"""Four outcomes, hints that fit, and never the solution."""

import pytest

from companion.study.checking import Outcome, examine
from companion.study.exercise import (
    Case,
    CheckFailed,
    Exercise,
    ExerciseError,
    Stage,
    load_exercise,
)
from companion.study.sandbox import Limits


@pytest.fixture
def exercise(workbook):
    return load_exercise(workbook.exercise("q02_small"))


def test_the_solution_and_other_ways_pass(exercise):
    for attempt in (exercise.solution_attempt, *exercise.other_ways):
        told = examine(exercise, attempt)
        assert (told.outcome, told.passed) == (Outcome.PASSED, 2)


def test_wrong_attempts_fail_with_their_own_hint(exercise):
    for wrong in exercise.wrong_attempts:
        told = examine(exercise, wrong.attempt)
        assert (told.outcome, told.hint) == (Outcome.FAILED, wrong.hint)


def test_a_failure_shows_behaviour_input_and_both_results(exercise):
    told = examine(exercise, lambda a, b: a * b + 1, seed=3)
    assert told.behaviour == "it adds"
    assert told.given.startswith("add(")
    assert int(told.expected) != int(told.got)


def test_inputs_differ_between_examinations(exercise):
    given = {examine(exercise, lambda a, b: 0).given for _ in range(8)}
    assert len(given) > 1


def test_the_stub_is_not_attempted(exercise):
    def stub(a, b):
        raise NotImplementedError

    for nothing in (stub, None, ...):
        assert examine(exercise, nothing).outcome is Outcome.NOT_ATTEMPTED


def test_a_part_that_is_not_written_is_named_as_such(exercise):
    def half(a, b):
        if (a, b) != (1, 1):
            raise NotImplementedError
        return 2

    told = examine(exercise, half)
    assert (told.outcome, told.problem) == (Outcome.RAISED, "this part is not written yet")


def test_an_exception_is_raised_not_failed(exercise):
    told = examine(exercise, lambda a: a)
    assert told.outcome is Outcome.RAISED
    assert told.problem.startswith("TypeError")
    assert "Traceback" in told.trace


def test_an_endless_attempt_is_stopped_with_a_message():
    exercise = Exercise("f", hints={"start": ("?",)}, limits=Limits(seconds=0.3))

    @exercise.check(Stage.TYPE, hint="start")
    def ends(attempt, case):
        """it ends"""
        attempt()

    def loop():
        while True:
            pass

    told = examine(exercise, loop)
    assert (told.outcome, told.problem) == (Outcome.FAILED, "stopped after its limit of 0.3 s")


def test_a_check_can_name_a_hint_of_its_own():
    exercise = Exercise("f", hints={"start": ("?",), "other": ("!",)})

    @exercise.check(Stage.TYPE, hint="start")
    def fails(attempt, case):
        """it fails"""
        case.true(False, given="x", expected="y", got="z", hint="other")

    assert examine(exercise, lambda: None).hint == "other"


def test_raises_wants_the_right_exception():
    case = Case(1)

    def key_error():
        raise KeyError("k")

    assert isinstance(case.raises(KeyError, key_error, given="k"), KeyError)
    with pytest.raises(CheckFailed, match="no error, but 5"):
        case.raises(KeyError, lambda: 5, given="five")
    with pytest.raises(CheckFailed, match="expected ValueError, got KeyError"):
        case.raises(ValueError, key_error, given="k")

    def unwritten():
        raise NotImplementedError

    with pytest.raises(NotImplementedError):
        case.raises(ValueError, unwritten, given="a stub")


def test_the_solutions_source_comes_without_its_decorator(exercise):
    assert exercise.solution_source.startswith("def add(a, b):")


def test_the_solutions_parts_are_shown_above_it():
    exercise = Exercise("f", hints={"start": ("?",)})

    @exercise.part_of_solution
    def double(x):
        return 2 * x

    @exercise.solution
    def f(x):
        return double(x) + 1

    assert exercise.solution_source == (
        "def double(x):\n    return 2 * x\n\n\ndef f(x):\n    return double(x) + 1"
    )


def test_exercises_that_are_defined_wrongly_are_refused():
    exercise = Exercise("f", hints={"start": ("?",)})
    with pytest.raises(ExerciseError, match="no hint is called 'nope'"):
        exercise.check(Stage.TYPE, hint="nope")
    with pytest.raises(ExerciseError, match="no docstring"):
        exercise.check(Stage.TYPE, hint="start")(lambda attempt, case: None)
    with pytest.raises(ExerciseError, match="says in its docstring"):
        exercise.wrong("start")(lambda: None)
    with pytest.raises(ExerciseError, match="has no solution"):
        _ = exercise.solution_attempt
    exercise.solution(len)
    with pytest.raises(ExerciseError, match="one solution"):
        exercise.solution(len)

    def value(attempt, case):
        """a value"""

    exercise.check(Stage.VALUE, hint="start")(value)
    with pytest.raises(ExerciseError, match="TYPE after a later stage"):
        exercise.check(Stage.TYPE, hint="start")(value)


@pytest.mark.parametrize(
    ("code", "message"),
    [("x = 1", "defines no `exercise`"), ("", "defines no `exercise`")],
)
def test_a_file_without_an_exercise_is_refused(tmp_path, code, message):
    path = tmp_path / "q02_small.py"
    path.write_text(code)
    with pytest.raises(ExerciseError, match=message):
        load_exercise(path)


def test_a_missing_or_checkless_exercise_file_is_refused(tmp_path):
    path = tmp_path / "q02_small.py"
    with pytest.raises(FileNotFoundError, match="is missing"):
        load_exercise(path)
    path.write_text(
        "from companion.study import Exercise\nexercise = Exercise('f', hints={})\n"
        "exercise.solution(len)\n"
    )
    with pytest.raises(ExerciseError, match="needs checks"):
        load_exercise(path)
