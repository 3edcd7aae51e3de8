"""One page about the scores of a file, for whoever has to decide what they are worth.

It stands alone: no script, no link, pictures inside, so it can be mailed and opened in ten years.
It begins with what the scores may be read as, since that is what a reader of a table of numbers
gets wrong first; metrics stand beside the base rate, without which average precision says nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from companion.cli.scoring_pictures import alerts_by_day, distribution
from companion.instruments.pictures import Picture
from companion.transactions import LABEL

if TYPE_CHECKING:
    from companion.models.scoring.score import Scored

TOP_ALERTS = 20

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
       max-width: 62rem; margin: 2rem auto; padding: 0 1.2rem }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem }
p { margin: .4rem 0 .8rem; max-width: 46rem }
.where { color: #555; margin-top: 0 }
.meaning { border-left: 5px solid #0072b2; background: #eef5fa; padding: .7rem 1rem;
           max-width: none }
.meaning.rank { border-color: #d55e00; background: #fdf1ea }
table { border-collapse: collapse; margin: .5rem 0 }
th, td { text-align: left; vertical-align: top; padding: .32rem .9rem .32rem 0;
         border-bottom: 1px solid #e3e3e3 }
th { font-weight: 600; white-space: nowrap }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
thead th { border-bottom: 2px solid #666 }
.yes { color: #a33f00; font-weight: 600 }
img { max-width: 100%; height: auto }
.wide { overflow-x: auto }
@media print { body { margin: 0; max-width: none } h2 { break-after: avoid }
               tr { break-inside: avoid } }
"""


def report_html(scored: Scored, scores: Path) -> str:
    """The page about `scored`, whose table of scores is the file `scores`."""
    name = scored.loaded.path.name
    sections = (
        _meaning(scored),
        _read(scored),
        _measured(scored),
        _pictures(scored),
        _alerts(scored),
        _left_out(scored),
    )
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>Scores of {escape(name)}</title>\n<style>{_STYLE}</style>\n"
        f"<h1>Scores of {escape(name)}</h1>\n"
        f'<p class="where">{len(scored.score):,} transactions · '
        f"{len(scored.alerts):,} alerts ({scored.budget:.2%} of those judged) · "
        f"table: {escape(scores.name)}</p>\n" + "\n".join(filter(None, sections)) + "\n</html>\n"
    )


def in_one_line(scored: Scored) -> str:
    """What the scores are, and how good where that is known."""
    basis = scored.basis
    if basis.kind == "simulated world":
        return (
            "No labels: the scores rank by a model of simulated transactions; they are no "
            "probabilities of this file, and nothing here measures how good they are."
        )
    if scored.measured is None:
        return f"Scored by the saved model {basis.name}; no labelled rows tell how good it is here."
    return (
        f"On the {scored.measured.rows:,} unseen rows: average precision {_precision(scored)} at a "
        f"base rate of {scored.measured.base_rate:.3f}."
    )


def _meaning(scored: Scored) -> str:
    basis = scored.basis
    if basis.kind == "simulated world":
        text = (
            "<b>These scores are an order, not probabilities.</b> The file has no labels, so the "
            f"model was trained on {basis.trained:,} simulated transactions, of which "
            f"{basis.trained_frauds:,} were frauds. It ranks yours by what is suspicious in that "
            "simulated world. The numbers are not calibrated for this file: 0.8 does not mean "
            "that eight in ten are frauds. With a column of known frauds the model would learn "
            "from your own past."
        )
        return f'<p class="meaning rank">{text}</p>'
    if basis.kind == "own past":
        text = (
            "<b>These scores are probabilities learned from this file's own past.</b> The model "
            f"was trained on the first {basis.trained:,} transactions ({basis.trained_frauds:,} "
            f"known frauds). From {_moment(basis.begins)} on it saw nothing, so only "
            f"those {int(basis.judged.sum()):,} rows are judged and give alerts; "
            f"{int((basis.part == 'left out').sum()):,} rows before that day are in neither part, "
            "since their labels were not known yet when the model would have been trained. "
            "Scores of rows that it was trained on flatter it."
        )
        return f'<p class="meaning">{text}</p>'
    seen = int((~basis.judged).sum())
    text = f"<b>These scores are the probabilities of the saved model {escape(basis.name)}.</b> "
    if seen == len(basis.part):
        text += (
            f"All rows are from the days up to {_moment(basis.begins)} that it was trained on, so "
            "nothing here shows how good it is, and alerts are taken from all of them. "
        )
    elif seen:
        text += (
            f"{seen:,} rows are from the days up to {_moment(basis.begins)} that it was trained "
            "on; they are scored, but neither judged nor taken for alerts. "
        )
    text += "Whether its probabilities fit this file, only labels can tell."
    return f'<p class="meaning">{text}</p>'


def _read(scored: Scored) -> str:
    loaded = scored.loaded
    table, amount = loaded.table, loaded.table["amount"]
    facts = {
        "From, to (UTC)": f"{_moment(table['time'].iloc[0])} – {_moment(table['time'].iloc[-1])}",
        "Customers": f"{table['customer_id'].nunique():,}",
        "Merchants": f"{table['merchant_id'].nunique():,}",
        "Amounts": f"€ {amount.sum():,.2f} in all; median € {amount.median():,.2f}",
    }
    if LABEL in table:
        frauds = int(table[LABEL].sum())
        facts["Labelled frauds"] = f"{frauds:,} ({frauds / len(table):.3%})"
    facts["Columns read"] = ", ".join(
        f"{ours} ← {theirs}" if ours != theirs else ours for ours, theirs in loaded.columns.items()
    )
    if loaded.missing:
        facts["Columns missing"] = ", ".join(loaded.missing)
    if loaded.unused:
        facts["Columns not used"] = ", ".join(loaded.unused)
    return f"<h2>What was read</h2>\n{_facts(facts)}"


def _measured(scored: Scored) -> str:
    if scored.measured is None or scored.at_budget is None:
        return ""
    measured, at_budget = scored.measured, scored.at_budget
    constant = measured.base_rate * (1 - measured.base_rate)
    rows = (
        ("Average precision", _precision(scored), f"{measured.base_rate:.3f}: the base rate"),
        ("ROC-AUC", f"{measured.roc_auc:.3f}", "0.500: a coin"),
        ("Brier score (less is better)", f"{measured.brier:.4f}", f"{constant:.4f}: base rate"),
        (
            f"Frauds among the {at_budget.alerts:,} alerts",
            f"{at_budget.precision:.1%}",
            f"{measured.base_rate:.1%}: drawn blindly",
        ),
        (
            f"Share of {at_budget.frauds:,} frauds that the alerts catch",
            f"{at_budget.recall:.1%}",
            f"{at_budget.alerts / measured.rows:.1%}: drawn blindly",
        ),
    )
    return (
        "<h2>How good they are</h2>\n"
        f"<p>Measured on the {measured.rows:,} rows only that the model has not seen. "
        "In brackets: where 95 in 100 such samples of customers would fall.</p>\n"
        + _table(("", "this model", "knowing nothing"), rows, numeric=(1,))
    )


def _precision(scored: Scored) -> str:
    if scored.interval is not None:
        return str(scored.interval)
    return f"{scored.measured.average_precision:.3f}" if scored.measured else ""


def _pictures(scored: Scored) -> str:
    which = "" if scored.basis.judged.all() else " of the rows that are judged"
    return (
        f"<h2>The scores{which}</h2>\n{_picture(distribution(scored))}\n"
        f"<h2>Alerts by day</h2>\n{_picture(alerts_by_day(scored))}"
    )


def _alerts(scored: Scored) -> str:
    loaded, top = scored.loaded, scored.alerts[:TOP_ALERTS]
    labelled = LABEL in loaded.table
    has_ids = "transaction_id" in loaded.ids
    names = loaded.ids["transaction_id"] if has_ids else pd.Series(loaded.rows + 1)
    rows = []
    for place, position in enumerate(top):
        row = loaded.table.iloc[position]
        cells = [
            f"{scored.score[position]:.3f}",
            f"{row['amount']:,.2f}",
            _moment(row["time"]),
            escape(str(names.iloc[position])),
            escape(str(loaded.ids["customer_id"].iloc[position])),
            escape(scored.reasons[place]),
        ]
        if labelled:
            cells.append('<span class="yes">fraud</span>' if row[LABEL] else "")
        rows.append(cells)
    head = ["score", "€", "time (UTC)", "transaction" if has_ids else "row", "customer", "because"]
    return (
        f"<h2>The {len(top)} most suspicious</h2>\n<div class='wide'>"
        + _table([*head, "label"] if labelled else head, rows, numeric=(0, 1, 2))
        + "</div>\n<p>All alerts, with their reasons, stand in the table of scores "
        "(column <code>alert</code>: 1 is the most suspicious).</p>"
    )


def _left_out(scored: Scored) -> str:
    notes = [
        f"<b>{feature}</b> was not made: it needs {' and '.join(columns)}, which was not read."
        for feature, columns in scored.left_out.items()
    ]
    notes.append(
        "Hours and weekends are those of UTC: where customers live far from Greenwich, a model "
        "that learned elsewhere takes their evening for night."
    )
    notes.append(
        "A customer's first days in the file have no history: habits are known from the second "
        "transaction on, and after 30 days in full."
    )
    return (
        "<h2>What was left out, and what to know</h2>\n<ul>"
        + "".join(f"<li>{note}</li>\n" for note in notes)
        + "</ul>"
    )


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(
        f"<tr><th scope='row'>{escape(name)}</th><td>{escape(value)}</td></tr>\n"
        for name, value in facts.items()
    )
    return f"<table>{rows}</table>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[int]) -> str:
    """A table of cells that are HTML already."""
    kind = [" class='n'" if place in numeric else "" for place in range(len(head))]
    top = "".join(f"<th scope='col'{k}>{name}</th>" for name, k in zip(head, kind, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{k}>{cell}</td>" for cell, k in zip(row, kind, strict=True))
        + "</tr>\n"
        for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead>\n<tbody>{body}</tbody></table>"


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode()
    return (
        f'<img width="{picture.width}" height="{picture.height}" alt="{escape(picture.alt)}" '
        f'src="data:image/png;base64,{data}">'
    )


def _moment(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment is not None else "–"
