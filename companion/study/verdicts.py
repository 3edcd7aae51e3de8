"""What a run found out about a received claim, and how it is held against the ledger.

A notebook never types a verdict. It states the conditions that would make the claim hold, fail or
depend, gives them the values that *this run* measured, and `found` picks the one that is true.
`compare` then puts the findings beside the ledger in the answer file: a claim that changed its
verdict, was forgotten, or was invented stops the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from companion.study.ledger import Claim


class Verdict(StrEnum):
    """What can be said of a claim after running it."""

    HOLDS = "holds"
    WRONG = "wrong"
    OUTDATED = "outdated"
    DEPENDS = "depends"
    UNMEASURED = "unmeasured"

    @property
    def phrase(self) -> str:
        """The verdict as a reader sees it."""
        return "cannot be measured here" if self is Verdict.UNMEASURED else self.value


@dataclass(frozen=True)
class Finding:
    """One claim's result: the verdict that this run supports (`None`: none) and what it measured.

    `here` is false when this machine lacks what the measurement needs; the ledger's verdict then
    stands, and the table says so.
    """

    measured: str
    verdict: Verdict | None
    here: bool = True


@dataclass(frozen=True)
class Row:
    """A line of the verdict table."""

    claim: Claim
    finding: Finding

    @property
    def agrees(self) -> bool:
        return not self.finding.here or self.finding.verdict is self.claim.verdict


class VerdictMismatchError(AssertionError):
    """This run and the ledger say different things about some claims."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def found(measured: str, **conditions: bool) -> Finding:
    """A finding from measured conditions, one keyword per verdict: `found("3 of 50", wrong=n > 1)`.

    Exactly one condition must be true. When none is, the finding supports no verdict, and the
    comparison with the ledger fails with the measurement in its message.

    Raises:
        ValueError: a keyword is no verdict, `measured` is empty, no condition is given, or several
            are true at once, which would let the author choose.
    """
    if not measured.strip():
        raise ValueError("a finding says what was measured; the text is empty")
    if not conditions:
        raise ValueError("give at least one condition, such as wrong=errors > 0")
    try:
        true = [Verdict(name) for name, value in conditions.items() if value]
    except ValueError as error:
        raise ValueError(f"{error}; verdicts are {', '.join(Verdict)}") from None
    if len(true) > 1:
        raise ValueError(f"the conditions of one claim exclude each other, but {true} are all true")
    return Finding(measured, true[0] if true else None)


def unmeasured(why: str) -> Finding:
    """The claim cannot be measured in this workbook at all (hardware, people, other systems)."""
    return Finding(why, Verdict.UNMEASURED)


def not_here(why: str) -> Finding:
    """This machine lacks what the measurement needs; the ledger's verdict stands, visibly."""
    return Finding(f"not measured on this machine: {why}", None, here=False)


def compare(claims: Sequence[Claim], findings: Mapping[str, Finding]) -> list[Row]:
    """Every claim of the ledger beside this run's finding, in the ledger's order.

    Raises:
        VerdictMismatchError: a claim has no finding, a finding has no claim, or the verdicts
            differ. All problems are named at once.
    """
    known = {claim.id for claim in claims}
    problems = [f"claim {key!r} is not in the ledger" for key in findings if key not in known]
    problems += [f"claim {c.id!r} got no finding" for c in claims if c.id not in findings]
    rows = [Row(claim, findings[claim.id]) for claim in claims if claim.id in findings]
    problems += [
        f"claim {row.claim.id!r}: the ledger says {row.claim.verdict.value}, this run says "
        f"{row.finding.verdict.value if row.finding.verdict else 'none of its conditions'} "
        f"({row.finding.measured})"
        for row in rows
        if not row.agrees
    ]
    if problems:
        raise VerdictMismatchError(problems)
    return rows
