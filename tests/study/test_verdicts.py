"""Verdicts come from measured conditions and are held against the ledger."""

import pytest

from companion.study.ledger import read_answer
from companion.study.verdicts import (
    Verdict,
    VerdictMismatchError,
    compare,
    found,
    not_here,
    unmeasured,
)


@pytest.fixture
def claims(workbook):
    return read_answer(workbook.answers / "q02_small.md").claims


def test_the_true_condition_names_the_verdict():
    assert found("2", wrong=True, holds=False).verdict is Verdict.WRONG
    assert found("2", depends=True).verdict is Verdict.DEPENDS


def test_no_true_condition_supports_no_verdict():
    assert found("2", wrong=False).verdict is None


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({}, "at least one condition"),
        ({"false": True}, "verdicts are holds"),
        ({"wrong": True, "holds": True}, "exclude each other"),
    ],
)
def test_unusable_conditions_are_refused(conditions, message):
    with pytest.raises(ValueError, match=message):
        found("2", **conditions)


def test_a_finding_must_say_what_was_measured():
    with pytest.raises(ValueError, match="what was measured"):
        found(" ", wrong=True)


def test_agreeing_findings_give_rows_in_the_ledgers_order(claims):
    rows = compare(
        claims, {"sum-exists": found("2", holds=True), "sum-is-three": found("2", wrong=True)}
    )
    assert [row.claim.id for row in rows] == ["sum-is-three", "sum-exists"]


def test_every_difference_is_named_at_once(claims):
    with pytest.raises(VerdictMismatchError) as stopped:
        compare(
            claims, {"sum-is-three": found("it was 3", holds=True), "invented": unmeasured("?")}
        )
    problems = " ".join(stopped.value.problems)
    assert "'invented' is not in the ledger" in problems
    assert "'sum-exists' got no finding" in problems
    assert "the ledger says wrong, this run says holds (it was 3)" in problems


def test_a_finding_without_a_verdict_stops_the_run(claims):
    findings = {"sum-exists": found("2", holds=True), "sum-is-three": found("2", wrong=False)}
    with pytest.raises(VerdictMismatchError, match="none of its conditions"):
        compare(claims, findings)


def test_what_this_machine_lacks_is_shown_and_does_not_stop_the_run(claims):
    findings = {"sum-exists": found("2", holds=True), "sum-is-three": not_here("no abacus")}
    rows = compare(claims, findings)
    assert rows[0].finding.measured == "not measured on this machine: no abacus"


def test_what_cannot_be_measured_is_a_verdict_of_its_own():
    assert unmeasured("needs a GPU").verdict is Verdict.UNMEASURED
    assert Verdict.UNMEASURED.phrase == "cannot be measured here"
