"""What the classroom shows: the same content as HTML for a notebook and as plain text elsewhere.

Colours come from JupyterLab's own variables with fallbacks, so that the output is readable in light
and dark themes, in a printed book and on a code host; a verdict is never told by colour alone.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from companion.study.catalogue import LEVELS, PARTS
from companion.study.checking import Examination, Outcome
from companion.study.ledger import Answer, Claim
from companion.study.verdicts import Row, Verdict

SIGNS = {
    Verdict.HOLDS: "✓",
    Verdict.WRONG: "✗",
    Verdict.OUTDATED: "↺",
    Verdict.DEPENDS: "±",
    Verdict.UNMEASURED: "–",
}
# Okabe and Ito's palette, darkened where it must be read as text on white.
COLOURS = {
    Verdict.HOLDS: "#00745a",
    Verdict.WRONG: "#b84300",
    Verdict.OUTDATED: "#8c5a80",
    Verdict.DEPENDS: "#0072b2",
    Verdict.UNMEASURED: "#666666",
}
OUTCOME_COLOURS = {
    Outcome.PASSED: COLOURS[Verdict.HOLDS],
    Outcome.FAILED: COLOURS[Verdict.WRONG],
    Outcome.RAISED: COLOURS[Verdict.WRONG],
    Outcome.NOT_ATTEMPTED: COLOURS[Verdict.UNMEASURED],
}
WIDTH = 96


@dataclass(frozen=True)
class Shown:
    """Something to look at: a notebook takes the HTML, anything else the text."""

    html: str
    text: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Spoken:
    """Markdown to be read aloud."""

    markdown: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/markdown": self.markdown, "text/plain": self.markdown}

    def __repr__(self) -> str:
        return self.markdown


def person_present() -> bool:
    """Whether somebody sits before this kernel, so that widgets and the learner's log make sense.

    A frontend with a person allows `input()`; papermill, nbval, nbconvert and Voila do not.
    `COMPANION_STUDY=1` or `0` decides otherwise.
    """
    chosen = os.environ.get("COMPANION_STUDY")
    if chosen:
        return chosen != "0"
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is None:
        return False
    return bool(kernel.get_parent().get("content", {}).get("allow_stdin", False))


def box(colour: str, title: str, *paragraphs: str) -> str:
    """A titled block with a coloured edge; the paragraphs are HTML."""
    inside = "".join(f"<div style='margin-top:.4em'>{text}</div>" for text in paragraphs if text)
    return (
        f"<div style='border-left:4px solid {colour};padding:.3em .9em;margin:.2em 0;"
        f"max-width:60em'><strong style='color:{colour}'>{escape(title)}</strong>{inside}</div>"
    )


def folded(summary: str, html: str) -> str:
    """HTML behind a summary that opens it."""
    return f"<details><summary style='cursor:pointer'>{escape(summary)}</summary>{html}</details>"


def wrapped(text: str, indent: str = "  ") -> str:
    """Plain text in lines of a terminal's width."""
    return textwrap.fill(
        " ".join(text.split()), WIDTH, initial_indent=indent, subsequent_indent=indent
    )


def show_heading(answer: Answer, standing: str) -> Shown:
    """The line under a question's title: part, level, time, and when it is due."""
    where = (
        f"{answer.label} · {answer.title} · part {answer.part} {PARTS[answer.part]} · "
        f"{LEVELS[answer.level]} · {answer.minutes} minutes"
    )
    return Shown(box(COLOURS[Verdict.DEPENDS], where, escape(standing)), f"{where}\n  {standing}")


def show_received(claims: Sequence[Claim]) -> Shown:
    """The received answer's claims, numbered, without their verdicts."""
    items = "".join(f"<li>{escape(claim.text)}</li>" for claim in claims)
    html = (
        "<div style='max-width:60em'><strong>The received answer claims</strong>"
        f"<ol style='margin:.3em 0'>{items}</ol></div>"
    )
    lines = (f"  {n}. {claim.text}" for n, claim in enumerate(claims, start=1))
    return Shown(html, "\n".join(["The received answer claims", *lines]))


def show_verdicts(rows: Sequence[Row]) -> Shown:
    """One line per claim: the claim, the verdict, what this run measured."""
    head = "".join(
        f"<th style='text-align:left;padding:.3em .8em'>{name}</th>"
        for name in ("", "The received answer claims", "Verdict", "Measured in this run")
    )
    body, lines = [], []
    for number, row in enumerate(rows, start=1):
        verdict = row.claim.verdict
        mark = f"{SIGNS[verdict]} {verdict.phrase}"
        cells = (
            str(number),
            escape(row.claim.text),
            f"<strong style='color:{COLOURS[verdict]};white-space:nowrap'>{mark}</strong>",
            escape(row.finding.measured),
        )
        body.append(
            "<tr>"
            + "".join(
                "<td style='text-align:left;vertical-align:top;padding:.3em .8em;"
                f"white-space:normal'>{cell}</td>"
                for cell in cells
            )
            + "</tr>"
        )
        lines += [
            f"{number}. {mark}",
            wrapped(f"claim: {row.claim.text}", "     "),
            wrapped(f"measured: {row.finding.measured}", "     "),
        ]
    html = (
        f"<table style='max-width:70em'><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table>"
    )
    return Shown(html, "\n".join(lines))


def show_examination(told: Examination, hint: str, more: int) -> Shown:
    """The message first, the traceback folded away. `more` hints can still be asked for."""
    colour = OUTCOME_COLOURS[told.outcome]
    if told.outcome is Outcome.NOT_ATTEMPTED:
        title = f"Not attempted yet · {told.total} checks are waiting"
        said = "Write your own version above and run the cell again. q.hint() helps to begin."
        return Shown(box(colour, title, escape(said)), f"{title}\n{wrapped(said)}")
    if told.outcome is Outcome.PASSED:
        title = f"✓ Passed · all {told.total} checks"
        said = "q.solution() shows ours: compare what yours does that it does not."
        return Shown(box(colour, title, escape(said)), f"{title}\n{wrapped(said)}")
    title = f"✗ {told.outcome.value.capitalize()} · {told.behaviour}"
    facts = {
        "given": told.given,
        "expected": told.expected,
        "got": told.got,
        "what happened": told.problem,
        "hint": hint,
        "it printed": told.printed.strip(),
    }
    facts = {name: value for name, value in facts.items() if value}
    rest = f"{told.passed} of {told.total} checks passed before this one."
    if more:
        rest += f" q.hint() says more ({more} left)."
    cell = "<td style='text-align:left;vertical-align:top;white-space:normal'>"
    table = "".join(
        f"<tr>{cell}<em>{name}</em></td>{cell}{escape(value)}</td></tr>"
        for name, value in facts.items()
    )
    trace = folded("traceback", f"<pre>{escape(told.trace)}</pre>") if told.trace else ""
    html = box(colour, title, f"<table>{table}</table>", escape(rest), trace)
    lines = [wrapped(f"{name}: {value}") for name, value in facts.items()]
    return Shown(html, "\n".join([title, *lines, wrapped(rest)]))


def show_note(title: str, text: str) -> Shown:
    """A short remark of the classroom."""
    return Shown(box(COLOURS[Verdict.DEPENDS], title, escape(text)), f"{title}\n{wrapped(text)}")


def show_code(title: str, source: str) -> Shown:
    """Source code under a title."""
    html = box(
        COLOURS[Verdict.HOLDS], title, f"<pre style='line-height:1.4'>{escape(source)}</pre>"
    )
    return Shown(html, f"{title}\n\n{source}")


def show_follow_ups(answer: Answer) -> Shown:
    """What comes next, each answer folded away, and what not to say."""
    questions = "".join(
        f"<div style='margin:.4em 0'>{folded(f.question, f'<p>{escape(f.answer)}</p>')}</div>"
        for f in answer.follow_ups
    )
    flags = "".join(f"<li>{escape(flag)}</li>" for flag in answer.red_flags)
    html = (
        "<div style='max-width:60em'><strong>What comes next</strong>"
        f"{questions}<strong>Red flags: do not say</strong><ul>{flags}</ul></div>"
    )
    lines = ["What comes next"]
    for follow_up in answer.follow_ups:
        lines += [wrapped(f"– {follow_up.question}"), wrapped(follow_up.answer, "      ")]
    lines += ["Red flags: do not say", *(wrapped(f"– {flag}") for flag in answer.red_flags)]
    return Shown(html, "\n".join(lines))


def show_rubric(heard: Iterable[tuple[str, bool]]) -> Shown:
    """The points of a good answer, and which of them the learner made."""
    pairs = list(heard)
    made = sum(was for _, was in pairs)
    title = f"Your answer made {made} of {len(pairs)} points"
    marks = [f"{'✓' if was else '○'} {point}" for point, was in pairs]
    listing = "".join(f"<div>{escape(mark)}</div>" for mark in marks)
    html = box(COLOURS[Verdict.DEPENDS], title, listing)
    return Shown(html, "\n".join([title, *(wrapped(mark) for mark in marks)]))
