"""nbval's own comparison of stored outputs with new ones, without pytest around it.

The methods are nbval's, borrowed by a class of ours that stands where a pytest item would; so a
cell differs here exactly when ``pytest --nbval`` says so, with the same tags, the same sanitising
rules and the same blind spots (pictures are not compared).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nbval import plugin

from companion.study.validation.outcome import Difference

PICTURES = ("image/png", "image/jpeg")
UNCOMPARED = (
    *("metadata", "traceback", "prompt_number", "output_type", "name", "execution_count"),
    "application/vnd.jupyter.widget-view+json",
    *PICTURES,
)
"""Not compared, as nbval has it (``IPyNbFile.skip_compare``)."""


class Comparison:
    """Compares outputs under the sanitising rules of one file."""

    colors = plugin.nocolors
    sanitize = plugin.IPyNbCell.sanitize
    compare_outputs = plugin.IPyNbCell.compare_outputs

    def __init__(self, sanitize_file: Path | None = None) -> None:
        rules = sanitize_file.read_text(encoding="utf-8") if sanitize_file else ""
        self.parent = SimpleNamespace(
            skip_compare=UNCOMPARED, sanitize_patterns=dict(plugin.get_sanitize_patterns(rules))
        )
        self.comparison_traceback: list[str] = []
        self._mismatch: tuple[str, str, str] | None = None

    def format_output_compare(self, key: str, left: Any, right: Any) -> None:
        """Called by nbval for the first field that differs."""
        self._mismatch = (key, _text(left), _text(right))

    def difference(self, cell: Any, found: Sequence[Any]) -> Difference | None:
        """How the outputs ``found`` differ from those stored in ``cell``, if they do."""
        name = cell_name(cell)
        if cell.execution_count is None:
            # A cell that was never run has nothing to compare with, unless it claims it has.
            why = "has outputs but no execution number: store them again"
            return Difference(name, "unrun", _joined(cell.outputs), why) if cell.outputs else None
        if self.same(found, cell.outputs):
            return None
        kind, stored, new = self._mismatch or ("fields", _joined(cell.outputs), _joined(found))
        return Difference(name, kind, stored, new)

    def same(self, found: Sequence[Any], stored: Sequence[Any]) -> bool:
        """Whether two lists of outputs are the same to nbval."""
        self._mismatch = None
        return bool(
            self.compare_outputs(
                plugin.coalesce_streams(copy.deepcopy(list(found))),
                plugin.coalesce_streams(copy.deepcopy(list(stored))),
                skip_compare=UNCOMPARED,
            )
        )


def options_of(cell: Any) -> dict[str, bool]:
    """nbval's options for a cell, from its tags and its comments: ``check``, ``skip``."""
    options = dict(plugin.find_metadata_tags(cell.metadata))
    options.update(plugin.find_comment_markers(cell.source))
    return {"check": options.get("check", True), "skip": options.get("skip", False)}


def cell_name(cell: Any) -> str:
    """The cell's id; older notebooks have none."""
    return str(cell.get("id") or "(no id)")


def _joined(outputs: Sequence[Any]) -> str:
    """All outputs as text, one after the other, each with what it is."""
    parts = []
    for output in outputs:
        kind = output.get("name") or output.output_type
        data = output.get("data", {})
        text = output.get("text") or data.get("text/plain") or output.get("evalue") or ""
        others = ", ".join(sorted(set(data) - {"text/plain"}))
        parts.append(f"[{kind}{': ' + others if others else ''}]\n{_text(text)}")
    return "\n".join(parts)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)
