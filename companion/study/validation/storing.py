"""New outputs written back into the notebook file, so that a diff shows only what changed.

Kept from the file: every id, source and tag, and each output that is the same as the new one but
for addresses and the like. Left out: times, papermill's records, widget state (a widget leaves its
text), and the Python version, which is in the lock.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import nbformat
from nbval import plugin

from companion.study.atomic import write_atomically
from companion.study.validation.comparison import PICTURES, Comparison
from companion.study.validation.engine import SKIP_TAG

NOTEBOOK_NOISE = ("papermill", "widgets", "ExecuteTime", "signature")
CELL_NOISE = ("papermill", "execution", "ExecuteTime")
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def with_outputs(original: Any, executed: Any, comparison: Comparison) -> Any:
    """A copy of ``original`` with the outputs of ``executed``, cell by cell, and no noise."""
    node = copy.deepcopy(original)
    count = 0
    for cell, run in zip(node.cells, executed.cells, strict=True):
        _drop(cell.metadata, CELL_NOISE)
        if cell.cell_type != "code" or SKIP_TAG in run.metadata.get("tags", ()):
            continue
        outputs = _joined([_without_widget(output) for output in run.outputs])
        cell.outputs = _joined(cell.outputs)
        if cell.execution_count is None or not _same(outputs, cell.outputs, comparison):
            cell.outputs = outputs
        count += bool(cell.source.strip())
        cell.execution_count = count if cell.source.strip() else None
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    _drop(node.metadata, NOTEBOOK_NOISE)
    language = node.metadata.setdefault("language_info", nbformat.from_dict({"name": "python"}))
    language.pop("version", None)
    return node


def store(path: Path, node: Any) -> None:
    """Write the notebook, as a whole or not at all; a file that would not change is left alone."""
    text = nbformat.writes(node)
    text = text if text.endswith("\n") else text + "\n"
    if path.read_text(encoding="utf-8") != text:
        write_atomically(path, text)


def _same(new: list[Any], stored: list[Any], comparison: Comparison) -> bool:
    """Whether nothing changed. Pictures are compared as they are: sanitising rules are for text."""
    return comparison.same(new, stored) and _pictures(new) == _pictures(stored)


def _pictures(outputs: list[Any]) -> list[Any]:
    return [output.get("data", {}).get(kind) for output in outputs for kind in PICTURES]


def _joined(outputs: list[Any]) -> list[Any]:
    """Each stream in one piece; how a kernel cut it up depends on timing."""
    return list(plugin.coalesce_streams(outputs))


def _drop(metadata: Any, names: tuple[str, ...]) -> None:
    for name in names:
        metadata.pop(name, None)


def _without_widget(output: Any) -> Any:
    if WIDGET_VIEW in output.get("data", {}):
        output = copy.deepcopy(output)
        del output.data[WIDGET_VIEW]
    return output
