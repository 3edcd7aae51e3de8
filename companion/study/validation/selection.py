"""Which notebooks to validate, and with which parameters.

Everything that can be wrong with a request is found here, before any kernel starts, and raised as
one ``ValidationError`` with one sentence.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from companion.study.validation.outcome import ValidationError


class NotebookMissingError(ValidationError):
    """There is no such notebook."""


class NotebookMalformedError(ValidationError):
    """The file is not a notebook of format 4."""


class ShardError(ValidationError):
    """The shard is not ``I/N`` with 1 ≤ I ≤ N."""


class ParameterSyntaxError(ValidationError):
    """A parameter is not ``name=value``."""


class ParameterUnknownError(ValidationError):
    """No notebook has a parameter of this name."""


@dataclass(frozen=True)
class Selected:
    """A notebook to validate: its content as a node, and its parameters by their own names."""

    path: Path
    node: Any
    parameters: dict[str, object]
    notes: tuple[str, ...] = ()


def notebooks_named(names: Sequence[str], root: Path) -> list[Path]:
    """The notebooks under ``root/notebooks`` that are meant by ``names``; all where there are none.

    A name is a path, a stem (``q23_circuit_breaker``) or the beginning of one up to an underscore
    (``q23``). Raises ``NotebookMissingError``.
    """
    folder = root / "notebooks"
    present = sorted(
        path for path in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
    )
    if not names:
        return present
    found: list[Path] = []
    for name in names:
        matching = [Path(name)] if Path(name).is_file() else _by_stem(name, present)
        if not matching:
            raise NotebookMissingError(f"There is no notebook {name!r} in {folder}.")
        found += [path for path in matching if path not in found]
    return found


def parse_shard(text: str) -> tuple[int, int]:
    """``"2/3"`` → ``(2, 3)``. Raises ``ShardError``."""
    part, slash, parts = text.partition("/")
    if not (slash and part.strip().isdecimal() and parts.strip().isdecimal()):
        raise ShardError(f"A shard is written I/N, as in 1/3; {text!r} is not.")
    return checked_shard((int(part), int(parts)))


def checked_shard(shard: tuple[int, int]) -> tuple[int, int]:
    """The same shard, if there is one of that number. Raises ``ShardError``."""
    part, parts = shard
    if not 1 <= part <= parts:
        raise ShardError(f"There is no shard {part} of {parts}: count from 1 to {max(parts, 1)}.")
    return shard


def parse_parameters(pairs: Sequence[str]) -> dict[str, object]:
    """``["seed=7", "rate=0.01"]`` → ``{"seed": 7, "rate": 0.01}``.

    A value that is no Python literal is text. Raises ``ParameterSyntaxError``.
    """
    parameters: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (equals and name.strip().isidentifier()):
            raise ParameterSyntaxError(f"A parameter is written name=value; {pair!r} is not.")
        try:
            parameters[name.strip()] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            parameters[name.strip()] = value
    return parameters


def take_shard(paths: Sequence[Path], shard: tuple[int, int] | None) -> list[Path]:
    """Every N-th notebook, by name: the same split on every machine. Raises ``ShardError``."""
    ordered = sorted(set(paths))
    if shard is None:
        return ordered
    part, parts = checked_shard(shard)
    return ordered[part - 1 :: parts]


def select(paths: Sequence[Path], parameters: Mapping[str, object]) -> list[Selected]:
    """Read the notebooks and give each the parameters that it has.

    A name is matched as it stands, else in capitals: ``seed`` is ``SEED``. A parameter that a
    notebook has not is left out there, with a note. Raises ``NotebookMissingError``,
    ``NotebookMalformedError``, and ``ParameterUnknownError`` where no notebook has it.
    """
    selected = []
    unknown = set(parameters)
    for path in paths:
        node = read(path)
        known = _parameter_names(node)
        own: dict[str, object] = {}
        notes = []
        for name, value in parameters.items():
            match = next((form for form in (name, name.upper()) if form in known), None)
            if match is None:
                notes.append(f"has no parameter {name!r}")
                continue
            own[match] = value
            unknown.discard(name)
        selected.append(Selected(path, node, own, tuple(notes)))
    if unknown and selected:
        names = ", ".join(sorted(unknown))
        raise ParameterUnknownError(f"No notebook among those chosen has a parameter {names}.")
    return selected


def read(path: Path) -> Any:
    """The notebook at ``path``. Raises ``NotebookMissingError``, ``NotebookMalformedError``."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotebookMissingError(f"There is no notebook {path}.") from None
    except (OSError, UnicodeDecodeError) as unreadable:
        raise NotebookMalformedError(f"{path} cannot be read: {unreadable}.") from unreadable
    try:
        if json.loads(text)["nbformat"] != 4:
            raise NotebookMalformedError(f"{path} is not a notebook of format 4.")
        node = nbformat.reads(text, as_version=4)
        nbformat.validate(node)
    except (ValueError, KeyError, TypeError, nbformat.ValidationError) as wrong:
        if isinstance(wrong, ValidationError):
            raise
        sentence = str(wrong).strip().partition("\n")[0]
        raise NotebookMalformedError(f"{path} is not a notebook: {sentence}.") from wrong
    return node


def _parameter_names(node: Any) -> set[str]:
    from papermill.translators import PythonTranslator

    for cell in node.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            return {parameter.name for parameter in PythonTranslator.inspect(cell)}
    return set()


def _by_stem(name: str, present: Sequence[Path]) -> list[Path]:
    stem = name.removesuffix(".ipynb")
    return [path for path in present if path.stem == stem or path.stem.startswith(f"{stem}_")]
