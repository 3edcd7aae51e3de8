"""The report: one HTML page that needs nothing else, readable in print and without colours.

Everything that comes from a notebook is escaped; the page runs no script.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from companion.study.validation.outcome import Difference, Outcome

STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8882; --bad: #b3261e; --good: #1a7f37; }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8a80; --good: #7ee787; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
.sum { margin: 0 0 1.5rem; opacity: .8; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .4rem .75rem .4rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-weight: 600; }
td.n, th.n { text-align: right; padding-right: 2rem; font-variant-numeric: tabular-nums; }
.failed { color: var(--bad); font-weight: 600; } .passed { color: var(--good); }
.skipped-unchanged { opacity: .65; } .note { opacity: .75; font-size: .9rem; }
code, pre { font: 13px/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--soft); border-radius: 6px; padding: .75rem 1rem; overflow-x: auto;
  white-space: pre-wrap; overflow-wrap: anywhere; margin: .25rem 0 1rem; }
pre.diff { padding: .75rem 0; } pre.diff span { display: block; padding: 0 1rem; }
.del { background: #b3261e26; } .add { background: #1a7f3726; } .at { opacity: .6; }
a { color: inherit; }
@media print { body { margin: 0; max-width: none; } pre { white-space: pre-wrap; } }
"""
DIFF_LINES = 400


def page(outcomes: Sequence[Outcome], *, root: Path) -> str:
    """The whole page for these outcomes; paths are shown relative to ``root``."""
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    title = (
        f"{len(failed)} of {len(outcomes)} notebooks failed" if failed else "Every notebook holds"
    )
    rows = "".join(_row(outcome, root) for outcome in outcomes)
    details = "".join("".join(_detail(outcome, root)) for outcome in failed)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Validation: {escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p class="sum">{escape(_summary(outcomes))}</p>
<table>
<thead><tr><th>Notebook</th><th>State</th><th class="n">Seconds</th><th>Slowest cell</th>
<th class="n">Seconds</th></tr></thead>
<tbody>
{rows}</tbody>
</table>
{details}</body>
</html>
"""


def _summary(outcomes: Sequence[Outcome]) -> str:
    counts = dict.fromkeys(("passed", "failed", "skipped-unchanged"), 0)
    for outcome in outcomes:
        counts[outcome.state] += 1
    seconds = sum(outcome.seconds for outcome in outcomes)
    return (
        f"{counts['passed']} passed, {counts['failed']} failed, "
        f"{counts['skipped-unchanged']} unchanged since they passed; {seconds:.1f} s of kernel time"
    )


def _row(outcome: Outcome, root: Path) -> str:
    name = escape(_relative(outcome.notebook, root))
    link = f'<a href="#{_anchor(outcome)}">{name}</a>' if outcome.state == "failed" else name
    notes = "".join(f'<div class="note">{escape(note)}</div>' for note in outcome.notes)
    slowest = outcome.slowest_cell
    return (
        f"<tr><td>{link}{notes}</td>"
        f'<td class="{outcome.state}">{escape(outcome.state.replace("-", ", "))}</td>'
        f'<td class="n">{f"{outcome.seconds:.1f}" if outcome.seconds else ""}</td>'
        f"<td>{f'<code>{escape(slowest)}</code>' if slowest else ''}</td>"
        f'<td class="n">{f"{outcome.slowest_seconds:.1f}" if slowest else ""}</td></tr>\n'
    )


def _detail(outcome: Outcome, root: Path) -> Iterator[str]:
    yield f'<h2 id="{_anchor(outcome)}">{escape(_relative(outcome.notebook, root))}</h2>\n'
    yield f'<p class="failed">{escape(outcome.error)}</p>\n'
    if outcome.failing_cell is not None:
        yield f"<h3>Cell <code>{escape(outcome.failing_cell)}</code></h3>\n"
        yield f"<pre>{escape(outcome.failing_source)}</pre>\n"
    if outcome.traceback:
        yield f"<h3>Traceback</h3>\n<pre>{escape(outcome.traceback)}</pre>\n"
    for difference in outcome.differences:
        kind, cell = escape(difference.kind), escape(difference.cell)
        yield f"<h3>Output of <code>{cell}</code> ({kind}): − stored, + found now</h3>\n"
        yield f'<pre class="diff">{"".join(_diff(difference))}</pre>\n'


def _diff(difference: Difference) -> Iterator[str]:
    lines = difflib.unified_diff(
        difference.stored.splitlines(), difference.found.splitlines(), lineterm="", n=3
    )
    for number, line in enumerate(lines):
        if number < 2:
            continue  # the names of the two files, which there are not
        if number > DIFF_LINES:
            yield '<span class="at">… and more</span>'
            return
        kind = {"-": "del", "+": "add", "@": "at"}.get(line[:1], "")
        yield f'<span class="{kind}">{escape(line) or " "}</span>'


def _anchor(outcome: Outcome) -> str:
    return escape(outcome.notebook.stem, quote=True)


def _relative(path: Path, root: Path) -> str:
    return os.path.relpath(path, root)
