"""A question as a notebook uses it, with and without a person before the kernel."""

import asyncio
import subprocess
import sys
import warnings
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from companion.study import display, widgets
from companion.study.progress import Kind, Progress
from companion.study.questions import SpokenAnswerError, open_question, question
from companion.study.recall import UnknownRatingError
from companion.study.verdicts import VerdictMismatchError, found

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def progress(tmp_path):
    return Progress(tmp_path / "log", clock=lambda: NOON)


@pytest.fixture
def alone(workbook, progress):
    """The question as papermill sees it."""
    return open_question(2, workbook, progress=progress, person=False)


@pytest.fixture
def studied(workbook, progress):
    """The question as a learner sees it."""
    return open_question(2, workbook, progress=progress, person=True, fuzz=False)


def kinds(progress):
    return [event.kind for event in progress.events()]


def test_a_machine_leaves_no_trace_in_the_log(alone, progress):
    alone.attempt()
    alone.check(lambda a, b: a + b)
    alone.hint()
    alone.solution()
    alone.recall()
    assert progress.events() == []


def test_a_machine_sees_the_same_text_every_time(alone):
    shown = [alone.heading(), alone.attempt(), alone.received(), alone.follow_ups(), alone.recall()]
    again = [alone.heading(), alone.attempt(), alone.received(), alone.follow_ups(), alone.recall()]
    assert [s.text for s in shown] == [s.text for s in again]
    assert all(isinstance(s, display.Shown) for s in shown)


def test_a_learners_steps_are_logged(studied, progress):
    studied.check(lambda a, b: 2)
    studied.hint()
    studied.solution()
    studied.recall("hard")
    assert kinds(progress) == [
        Kind.OPENED,
        Kind.CHECKED,
        Kind.HINTED,
        Kind.SOLUTION_SHOWN,
        Kind.RECALLED,
    ]


def test_the_heading_tells_last_recall_and_due_date(studied):
    assert "Not recalled yet." in studied.heading().text
    studied.recall("good")
    assert "Last recalled 2026-03-01, due 2026-03-03" in studied.heading().text


def test_claims_are_numbered_and_their_verdicts_kept_back(alone):
    text = alone.received().text
    assert "1. One and one are three." in text
    assert "wrong" not in text


def test_the_verdict_table_has_claim_verdict_and_measurement(alone):
    shown = alone.verdict(
        {"sum-is-three": found("it is 2 < 3", wrong=True), "sum-exists": found("2", holds=True)}
    )
    assert "✗ wrong" in shown.text
    assert "it is 2 &lt; 3" in shown.html


def test_a_verdict_that_differs_from_the_ledger_stops_the_run(alone):
    with pytest.raises(VerdictMismatchError):
        alone.verdict({"sum-is-three": found("3", holds=True)})


def test_hints_grow_and_end(alone):
    alone.check(lambda a, b: 2)
    assert "use +" in alone.hint().text
    assert "a + b" in alone.hint().text
    assert "No more hints" in alone.hint().text


def test_before_a_check_hints_help_to_begin(alone):
    assert "begin" in alone.hint().text


def test_a_failed_check_shows_the_message_before_the_traceback(alone):
    shown = alone.check(lambda a: a)
    assert shown.html.index("TypeError") < shown.html.index("<details>")
    assert "Traceback" not in shown.text
    assert "def add" not in shown.html


def test_passing_and_not_attempting_are_told_apart(alone):
    assert "Passed" in alone.check(lambda a, b: a + b).text
    assert "Not attempted" in alone.check().text


def test_the_solution_is_shown_on_demand_only(alone):
    assert "return a + b" in alone.solution().text


def test_an_answer_to_say_has_about_a_minute_of_words(alone):
    spoken = alone.say("word " * 150)
    assert spoken._repr_mimebundle_()["text/markdown"].startswith("word")
    assert repr(spoken).startswith("word")
    for words in (10, 400):
        with pytest.raises(SpokenAnswerError, match=f"{words} words"):
            alone.say("word " * words)


def test_an_unknown_rating_is_refused(studied):
    with pytest.raises(UnknownRatingError):
        studied.recall("superb")


class FakeLoop:
    """Stands in for the kernel's event loop: the clock's task is not run."""

    def __init__(self, monkeypatch):
        monkeypatch.setattr(widgets.asyncio, "ensure_future", lambda task: task.close())


def test_the_answer_box_reports_the_points_heard(studied, progress, monkeypatch):
    FakeLoop(monkeypatch)
    box = studied.attempt()
    _, text, controls, result = box.children
    text.value = "You ADD them and get two."
    controls.children[0].click()
    assert "2 of 3 points heard" in result.value
    assert progress.events()[-1].details["points"] == 2
    assert text.disabled
    rated = studied.recall("good")
    assert "✓ Addition." in rated.text
    assert "○ Integers." in rated.text


def test_the_rating_buttons_mark_the_suggestion_and_record_the_choice(studied, progress):
    box = studied.recall()
    _, buttons, result = box.children
    marked = [b.description for b in buttons.children if b.button_style == "primary"]
    assert marked == ["Good"]
    buttons.children[3].click()
    assert progress.events()[-1].details["rating"] == "easy"
    assert "Next time on" in result.value
    assert all(button.disabled for button in buttons.children)


def test_the_clock_shows_the_time_since_the_question():
    async def scenario():
        box = widgets.answer_box("?", lambda text, seconds: display.Shown("done", "done"))
        box.children[2].children[1].value = ""
        await asyncio.sleep(0)  # the timer's task takes its first step
        box.timer.cancel()
        return box.children[2].children[1].value

    assert asyncio.run(scenario()) == "0:00"


@pytest.mark.parametrize(("chosen", "expected"), [("1", True), ("0", False)])
def test_the_environment_decides_whether_a_person_is_present(monkeypatch, chosen, expected):
    monkeypatch.setenv("COMPANION_STUDY", chosen)
    assert display.person_present() is expected


@pytest.mark.parametrize("allowed", [True, False])
def test_a_frontend_that_allows_input_has_a_person(monkeypatch, allowed):
    monkeypatch.delenv("COMPANION_STUDY", raising=False)
    kernel = SimpleNamespace(get_parent=lambda: {"content": {"allow_stdin": allowed}})
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=kernel))
    assert display.person_present() is allowed


def test_outside_a_kernel_nobody_is_present(monkeypatch):
    monkeypatch.delenv("COMPANION_STUDY", raising=False)
    assert display.person_present() is False


def test_question_opens_from_this_workbook_and_shows_its_heading(monkeypatch, capsys):
    monkeypatch.setenv("COMPANION_STUDY", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = question(23)
    assert opened.answer.slug == "circuit_breaker"
    assert repr(opened) == "<Q23 Circuit breaker>"
    assert "Q23 · Circuit breaker" in capsys.readouterr().out


def test_starting_a_kernel_does_not_import_the_classroom():
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, companion.study.kernels.provisioner\n"
            "print([name for name in ('numpy', 'pydantic', 'fsrs') if name in sys.modules])",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "[]\n"


def test_a_name_that_the_classroom_lacks_is_an_attribute_error():
    import companion.study

    with pytest.raises(AttributeError, match="no attribute 'answer'"):
        _ = companion.study.answer
