"""What the result of a notebook depends on, by content, and the record of runs that passed.

A build system skips a step whose inputs hash to what they did at its last success (make compares
times, Bazel and this compare contents). The inputs of a notebook here: its own bytes, its answer
files, all of ``companion`` in Python, every fixture, the lock, the sanitising rules, the
parameters and the Python version. Coarse on purpose: an edit to any room runs everything again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from companion.study.atomic import write_atomically

SANITIZE = Path("jupyter_config", "nbval_sanitize.cfg")


def shared_fingerprint(root: Path) -> str:
    """Hash over everything that all notebooks depend on."""
    files = [*root.glob("companion/**/*.py"), *root.glob("fixtures/**/*")]
    files += [root / "requirements.lock", root / SANITIZE]
    return _hash(root, files, sys.version)


def fingerprint(
    notebook: Path, *, root: Path, shared: str, parameters: Mapping[str, object]
) -> str:
    """Hash over everything that the result of one notebook depends on."""
    answers = root.glob(f"answers/{notebook.stem}.*")
    return _hash(root, [notebook, *answers], shared, _canonical(parameters))


@dataclass(frozen=True)
class PassedRuns:
    """The record of passed runs: one small file for each notebook and set of parameters.

    Files are replaced as a whole, so runs side by side cannot spoil them; the later one counts.
    """

    folder: Path

    def has(self, notebook: Path, parameters: Mapping[str, object], fingerprint: str) -> bool:
        """Whether the last run passed, and passed with just this content."""
        try:
            return self._file(notebook, parameters).read_text(encoding="ascii") == fingerprint
        except (OSError, UnicodeDecodeError):
            return False

    def note(self, notebook: Path, parameters: Mapping[str, object], fingerprint: str) -> None:
        """Record a passed run."""
        write_atomically(self._file(notebook, parameters), fingerprint)

    def forget(self, notebook: Path, parameters: Mapping[str, object]) -> None:
        """Record that the last run did not pass."""
        self._file(notebook, parameters).unlink(missing_ok=True)

    def _file(self, notebook: Path, parameters: Mapping[str, object]) -> Path:
        name = f"{notebook.resolve()}\0{_canonical(parameters)}"
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
        return self.folder / f"{notebook.stem}-{digest[:16]}.passed"


def _canonical(parameters: Mapping[str, object]) -> str:
    return json.dumps({name: repr(value) for name, value in parameters.items()}, sort_keys=True)


def _hash(root: Path, files: Iterable[Path], *more: str) -> str:
    total = hashlib.sha256()
    for path in sorted(path for path in files if path.is_file()):
        if "__pycache__" in path.parts:
            continue
        total.update(os.path.relpath(path, root).encode("utf-8", "surrogateescape") + b"\0")
        total.update(hashlib.sha256(path.read_bytes()).digest())
    for text in more:
        total.update(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest())
    return total.hexdigest()
