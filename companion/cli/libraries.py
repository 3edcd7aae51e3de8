"""Which libraries a module rests on, read from its source: its imports and those of ours it uses.

Nothing is imported for that. Imports inside functions count, since that is where a command keeps
its heavy ones; imports for a type checker alone count too, which does no harm here.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path


def library_versions(source: Path, root: Path, *, more: Iterable[str] = ()) -> dict[str, str]:
    """Distribution name → version of every library that the module `source` rests on, by name.

    Modules under `root` are followed, others are libraries. `more` names distributions that a
    source does not show, such as those of a server that it starts. What is not installed is left
    out: a module that needs it could not have run.
    """
    distributions = metadata.packages_distributions()
    packages = _packages(source, root)
    names = {name for package in packages for name in distributions.get(package, ())} | set(more)
    versions = ((name, _version(name)) for name in sorted(names, key=str.lower))
    return {name: version for name, version in versions if version is not None}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _packages(source: Path, root: Path) -> set[str]:
    """The top-level packages imported by `source` and, through our own modules, by those."""
    packages: set[str] = set()
    seen = {source}
    waiting = [source]
    while waiting:
        for module in _imports(waiting.pop()):
            ours = _file(module, root)
            if ours is not None and ours not in seen:
                seen.add(ours)
                waiting.append(ours)
            packages.add(module.partition(".")[0])
    own = {path.stem for path in root.iterdir()}
    return packages - own - sys.stdlib_module_names


def _imports(source: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            # `from package import module` names the module only in its second half.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _file(module: str, root: Path) -> Path | None:
    """Where our module of that name lies; None for what is a library, or a name in a module."""
    path = root.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None
