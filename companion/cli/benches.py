"""Find and run the benchmarks: modules under `benchmarks/` with a `TITLE` and a `run()`.

They stand outside the package, since they import incumbents that the companion never does. A module
may name in `LIBRARIES` distributions that it rests on without importing them.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from companion.cli.errors import CommandError
from companion.cli.libraries import library_versions
from companion.instruments.benchmark import Row


@dataclass(frozen=True)
class Bench:
    """A benchmark that has run: its rows, what its module says about them, and the versions."""

    name: str
    title: str
    rows: tuple[Row, ...]
    about: str = ""
    libraries: Mapping[str, str] = field(default_factory=dict)


def known_benches(root: Path) -> list[str]:
    """The names of the benchmarks of the checkout at `root`."""
    paths = (root / "benchmarks").glob("*.py")
    return sorted(path.stem for path in paths if not path.stem.startswith("_"))


def choose_benches(names: list[str], root: Path) -> list[str]:
    """The benchmarks to run: those named, or all.

    Raises:
        CommandError: a name is unknown; the message names those there are.
    """
    known = known_benches(root)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise CommandError(
            f"There is no benchmark {', '.join(unknown)}; there are: {', '.join(known) or 'none'}."
        )
    return names or known


def run_bench(name: str, root: Path) -> Bench:
    """Import the benchmark `name` and run it; raises whatever it does."""
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    module = importlib.import_module(f"benchmarks.{name}")
    return Bench(
        name,
        module.TITLE,
        tuple(module.run()),
        about=inspect.getdoc(module) or "",
        libraries=library_versions(
            root / "benchmarks" / f"{name}.py", root, more=getattr(module, "LIBRARIES", ())
        ),
    )
