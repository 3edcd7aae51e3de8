"""What is generated from the ledger: the map, the scoreboard, and every notebook's title cell.

`write` brings the README and the notebooks up to date, `stale` says which of them are not; a test
calls the latter, so that no figure on the first screen can be out of date.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from companion.study.agenda import Place, next_question, places
from companion.study.atomic import write_atomically
from companion.study.catalogue import LEVELS, PARTS, Catalogue, read_catalogue
from companion.study.display import COLOURS, SIGNS, Shown, person_present, show_note
from companion.study.ledger import Answer, Entry
from companion.study.progress import Progress, now
from companion.study.recall import make_scheduler, streak
from companion.study.verdicts import Verdict
from companion.study.workbook import Workbook

BEGIN, END = "<!-- scoreboard -->", "<!-- /scoreboard -->"


class MissingMarkersError(ValueError):
    """The README lacks the comments between which the scoreboard stands."""


def count_claims(answers: Sequence[Answer]) -> Counter[Verdict]:
    """Claims per verdict."""
    return Counter(claim.verdict for answer in answers for claim in answer.claims)


def scoreboard_markdown(catalogue: Catalogue) -> str:
    """Claims per verdict, one line per part and one for all; each written question is linked."""
    heads = [f"{SIGNS[verdict]} {verdict.phrase}" for verdict in Verdict]
    lines = [
        "| part | written | claims | " + " | ".join(heads) + " |",
        "|---|---|" + "---:|" * (len(heads) + 1),
    ]
    for part, name in PARTS.items():
        lines.append(_score_line(name, [e for e in catalogue.entries.values() if e.part == part]))
    lines.append(_score_line("**all**", list(catalogue.entries.values()), links=False))
    return "\n".join(lines)


def _score_line(name: str, entries: Sequence[Entry], *, links: bool = True) -> str:
    answers = [entry for entry in entries if isinstance(entry, Answer)]
    counts = count_claims(answers)
    linked = " ".join(f"[{a.label}](notebooks/{a.stem}.ipynb)" for a in answers) if links else ""
    written = f"{len(answers)} of {len(entries)}{': ' + linked if linked else ''}"
    cells = [str(counts[verdict] or "·") for verdict in Verdict]
    return f"| {name} | {written} | {counts.total()} | {' | '.join(cells)} |"


def title_markdown(answer: Answer, catalogue: Catalogue) -> str:
    """The title cell of a question's notebook."""
    before, after = catalogue.neighbours(answer.id)
    links = [
        f"[← {before.label} {before.title}]({before.stem}.ipynb)" if before else "",
        "[the map](00_start_here.ipynb)",
        f"[the answer in words](../answers/{answer.stem}.md)",
        f"[{after.label} {after.title} →]({after.stem}.ipynb)" if after else "",
    ]
    facts = [
        f"part {answer.part}, {PARTS[answer.part]}",
        LEVELS[answer.level],
        f"{answer.minutes} minutes",
        ", ".join(answer.topics),
    ]
    return (
        f"# {answer.label} · {answer.title}\n\n> {answer.question}\n\n"
        f"{' · '.join(facts)}\n\n{' · '.join(link for link in links if link)}"
    )


def show_scoreboard(workbook: Workbook | None = None) -> Shown:
    """The scoreboard over all written questions, as a row of counts."""
    catalogue = read_catalogue(workbook or Workbook.find())
    counts = count_claims(list(catalogue.answers.values()))
    parts = [
        (verdict, f"{SIGNS[verdict]} {counts[verdict]} {verdict.phrase}") for verdict in Verdict
    ]
    title = f"{counts.total()} claims run in {len(catalogue.answers)} of 50 questions"
    chips = " &nbsp; ".join(
        f"<strong style='color:{COLOURS[verdict]}'>{text}</strong>" for verdict, text in parts
    )
    text = "\n".join([title, *(f"  {text}" for _, text in parts)])
    return Shown(f"<div><strong>{title}</strong><br>{chips}</div>", text)


def show_map(
    *,
    workbook: Workbook | None = None,
    progress: Progress | None = None,
    person: bool | None = None,
    **chosen: Any,
) -> Any:
    """The map of all fifty questions; filters are `part`, `level`, `topic`, `written`, `due`.

    Where a person sits, it has the learner's dates, and without filters it comes with controls.
    """
    catalogue = read_catalogue(workbook or Workbook.find())
    present = person_present() if person is None else person
    log = progress or Progress()
    everything = places(catalogue, log.events() if present else [], make_scheduler())

    def filtered(**filters: Any) -> Shown:
        due_at = now() if filters.pop("due", False) else None
        fitting = [place for place in everything if place.fits(**filters, due_at=due_at)]
        return _map_table(fitting)

    if present and not chosen:
        from companion.study.widgets import filter_controls

        return filter_controls(
            {
                "part": {name: number for number, name in PARTS.items()},
                "level": {name: letter for letter, name in LEVELS.items()},
                "topic": {t: t for t in sorted({t for p in everything for t in p.entry.topics})},
                "written": {"written": True, "not yet": False},
                "due": {"due now": True},
            },
            filtered,
        )
    return filtered(**chosen)


def show_next(
    *,
    workbook: Workbook | None = None,
    progress: Progress | None = None,
    person: bool | None = None,
) -> Shown:
    """Which question to study now, and for how many days in a row something was studied."""
    present = person_present() if person is None else person
    if not present:
        return show_note("Next", "In JupyterLab this names the question that is due.")
    catalogue = read_catalogue(workbook or Workbook.find())
    log = progress or Progress()
    events, at = log.events(), log.clock()
    advice = next_question(places(catalogue, events, make_scheduler()), at)
    days = f"Studied {streak(events, at.date())} days in a row."
    if advice.place is None:
        return show_note("Next", f"{advice.reason}. {days}")
    entry = advice.place.entry
    note = show_note(f"{entry.label} · {entry.title}", f"{advice.reason}. {days}")
    link = f"<p><a href='{entry.stem}.ipynb'>Open {entry.label}</a></p>"
    return Shown(note.html + link, note.text)


def _map_table(all_places: Sequence[Place]) -> Shown:
    heads = ("", "question", "part", "level", "minutes", "topics", "last recalled", "due")
    rows, lines = [], []
    for place in all_places:
        entry, last, due = place.entry, place.memory.last, place.memory.due
        title = escape(entry.title)
        name = f"<a href='{entry.stem}.ipynb'>{title}</a>" if place.written else title
        dates = [f"{moment:%Y-%m-%d}" if moment else "" for moment in (last, due)]
        if not place.written:
            dates = ["not written yet", ""]
        cells = [
            entry.label,
            name,
            PARTS[entry.part],
            LEVELS[entry.level],
            str(entry.minutes),
            ", ".join(entry.topics),
            *dates,
        ]
        style = "" if place.written else " style='opacity:.6'"
        tds = "".join(f"<td style='text-align:left'>{cell}</td>" for cell in cells)
        rows.append(f"<tr{style}>{tds}</tr>")
        tail = " · ".join(date for date in dates if date)
        lines.append(f"{entry.label}  {entry.title}{'  · ' + tail if tail else ''}")
    head = "".join(f"<th style='text-align:left'>{name}</th>" for name in heads)
    html = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return Shown(html, "\n".join(lines) or "no question fits")


def stale(workbook: Workbook) -> list[str]:
    """The files whose generated parts differ from the ledger; empty when all are current."""
    return [path.name for path, text in _generated(workbook).items() if _read(path) != text]


def write(workbook: Workbook) -> list[str]:
    """Bring all generated parts up to date; returns the names of the files that changed."""
    changed = []
    for path, text in _generated(workbook).items():
        if _read(path) != text:
            write_atomically(path, text)
            changed.append(path.name)
    return changed


def _generated(workbook: Workbook) -> Mapping[Path, str]:
    """Every file with generated parts, as it should read."""
    catalogue = read_catalogue(workbook)
    readme = workbook.root / "README.md"
    before, begin, rest = _read(readme).partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise MissingMarkersError(f"README.md has no {BEGIN} … {END} for the scoreboard")
    files = {readme: f"{before}{BEGIN}\n{scoreboard_markdown(catalogue)}\n{END}{after}"}
    for answer in catalogue.answers.values():
        path = workbook.notebook(answer.stem)
        files[path] = _with_title(_read(path), title_markdown(answer, catalogue))
    return files


def _with_title(notebook: str, title: str) -> str:
    """The notebook's JSON with its `title` cell replaced; everything else byte for byte."""
    document = json.loads(notebook)
    for cell in document["cells"]:
        if cell.get("id") == "title":
            if "".join(cell["source"]) == title:
                return notebook
            cell["source"] = title.splitlines(keepends=True)
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
