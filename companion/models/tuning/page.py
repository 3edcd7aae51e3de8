"""The study page: what was searched, what was found, and whether to believe it. One HTML file.

It holds its pictures within it and asks for nothing from the network, so it can be attached to a
ticket and opened in ten years. It is written whole or not at all.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from optuna.trial import FrozenTrial

from companion.instruments.plots import render
from companion.models.tuning.figures import best_so_far, importances, slices, stages
from companion.models.tuning.search import Tuned
from companion.storage import write_text

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; margin: 2rem auto; max-width: 70rem;
       padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem .2rem 0; text-align: left; border-bottom: 1px solid #ddd; }
img { max-width: 100%; height: auto; }
.warning { border-left: .4rem solid #d55e00; background: #fdf1e8; padding: .6rem 1rem; }
.fine { border-left: .4rem solid #009e73; background: #eaf7f2; padding: .6rem 1rem; }
"""


def write_page(tuned: Tuned, path: str | Path) -> Path:
    """Write the page about `tuned` to `path` and return it.

    Raises `MissingFolderError` where the folder does not exist; an old page then stays.
    """
    target = Path(path)
    write_text(target, page(tuned))
    return target


def page(tuned: Tuned) -> str:
    """The page about `tuned` as HTML."""
    title = f"Tuning: {tuned.family}"
    parts = [
        f"<h1>{_text(title)}</h1>",
        _edges(tuned),
        _table(("", ""), _summary(tuned)),
        _table(("parameter", "best", "searched"), _best(tuned)),
        "<h2>Best so far</h2>",
        _picture(*best_so_far(tuned)),
        "<h2>Over each parameter</h2>",
        _picture(*slices(tuned)),
        f"<h2>Over {_text(tuned.stages.unit)}</h2>",
        _picture(*stages(tuned)),
        "<h2>Importance</h2>",
        _picture(*importances(tuned)),
        "<h2>Trials</h2>",
        _table(("trial", "state", tuned.stages.unit, "value", *tuned.space), _trials(tuned)),
    ]
    head = f'<meta charset="utf-8"><title>{_text(title)}</title><style>{_STYLE}</style>'
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _edges(tuned: Tuned) -> str:
    if not tuned.edges:
        return '<p class="fine">No best value lies on the boundary of its range.</p>'
    return "\n".join(f'<p class="warning">{_text(str(edge))}</p>' for edge in tuned.edges)


def _summary(tuned: Tuned) -> Iterable[Sequence[str]]:
    finished, pruned, unit = len(tuned.finished), len(tuned.pruned), tuned.stages.unit
    yield (
        "best value",
        f"{tuned.value:.4f} average precision on later rows (chosen to be high there)",
    )
    yield "trials", f"{finished} finished: {finished - pruned} complete, {pruned} pruned"
    yield "given up", f"{len(tuned.trials) - finished} (failed, killed or still running)"
    yield unit, f"{tuned.spent:,} of the {tuned.unpruned:,} that no pruning would have taken"
    yield "sampler", f"TPE after {tuned.random_trials} random trials, seed {tuned.seed}"
    yield (
        "pruner",
        f"successive halving at {', '.join(map(str, tuned.stages.judged_at[:-1]))} {unit}",
    )


def _best(tuned: Tuned) -> Iterable[Sequence[str]]:
    for name, span in tuned.space.items():
        scale = "log scale" if span.log else "linear scale"
        yield name, f"{tuned.parameters[name]:.4g}", f"{span.low:g} to {span.high:g}, {scale}"


def _trials(tuned: Tuned) -> Iterable[Sequence[str]]:
    for trial in tuned.trials:
        parameters = (f"{trial.params[n]:.4g}" if n in trial.params else "" for n in tuned.space)
        state = trial.state.name.lower()
        yield str(trial.number), state, str(trial.last_step or ""), _shown(trial), *parameters


def _shown(trial: FrozenTrial) -> str:
    reported = trial.intermediate_values
    return f"{reported[max(reported)]:.4f}" if reported else ""


def _picture(fig: Figure, alt: str) -> str:
    picture = render(fig, alt)
    data = base64.b64encode(picture.png).decode("ascii")
    return (
        f'<img alt="{html.escape(picture.alt)}" width="{picture.width}" height="{picture.height}" '
        f'src="data:image/png;base64,{data}">'
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    names = "".join(f"<th>{_text(name)}</th>" for name in head) if any(head) else ""
    lines = ("".join(f"<td>{_text(cell)}</td>" for cell in row) for row in rows)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><tr>{names}</tr>\n{body}</table>" if names else f"<table>{body}</table>"


def _text(words: str) -> str:
    return html.escape(words, quote=False)
