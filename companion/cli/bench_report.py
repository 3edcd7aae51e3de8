"""BENCHMARKS.md: what was measured last, each benchmark in a section of its own.

A section is written whole, with the circumstances that its figures belong to, and replaces the
section of the same benchmark; all others stay as they are, with theirs. So a file may hold figures
of several days and machines, and says so.
"""

from __future__ import annotations

import math
import os
import platform
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from companion.cli.benches import Bench
from companion.instruments.benchmark import Row
from companion.storage import write_text

FILE = "BENCHMARKS.md"
_HEAD = """\
# Benchmarks

Written by `make bench` (`companion bench NAME` runs one and replaces its section alone); edits are
lost. Each section has its own date and machine.

How to read a ratio: contenders of one situation took turns in one run, so what the machine did
meanwhile hit them alike, and each is the median of its rounds. A ratio compares a row with the
baseline of its situation, which the section names; where it names none, the row of 1.00 × is it.
Ratios of times are better when small, ratios of rates when large. They carry over to another
machine roughly; the absolute values do not, and values of two sections are not to be compared.
"""
_SECTION = re.compile(r"^## .*\(`(?P<name>\w+)`\)$", re.MULTILINE)


@dataclass(frozen=True)
class Circumstances:
    """When, on what, and with which versions something was measured.

    `revision` is git's, short, with `+changes` where files differed from it; empty where unknown.
    """

    when: datetime
    machine: str
    python: str
    libraries: Mapping[str, str]
    revision: str


def record(
    bench: Bench, root: Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Path:
    """Write the section of `bench` into the report of the checkout at `root`; the report's path."""
    path = root / FILE
    here = Circumstances(
        clock(), machine(), platform.python_version(), bench.libraries, git_revision(root)
    )
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    write_text(path, replace_section(text, bench.name, render(bench, here)))
    return path


def replace_section(report: str, name: str, section: str) -> str:
    """`report` with `section` in place of the one of benchmark `name`; sections in order of name.

    What stands before the first section is written anew.
    """
    sections = {**sections_of(report), name: section.strip("\n")}
    return "\n\n".join([_HEAD.strip("\n"), *(sections[key] for key in sorted(sections))]) + "\n"


def sections_of(report: str) -> dict[str, str]:
    """Benchmark → its section, as it stands in `report`."""
    starts = list(_SECTION.finditer(report))
    ends = [start.start() for start in starts[1:]] + [len(report)]
    # Without any section there is one end too many.
    return {
        start["name"]: report[start.start() : end].strip("\n")
        for start, end in zip(starts, ends, strict=False)
    }


def render(bench: Bench, here: Circumstances) -> str:
    """The section of one benchmark, as Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in here.libraries.items())
    facts = [
        f"{here.when.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
        here.machine,
        f"Python {here.python}",
        versions,
        here.revision and f"revision {here.revision}",
    ]
    parts = [
        f"## {bench.title} (`{bench.name}`)",
        " · ".join(filter(None, facts)),
        bench.about.strip(),
        _table(bench.rows),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _table(rows: Sequence[Row]) -> str:
    lines = ["| what | contender | value | ratio | to reach |", "|---|---|---:|---:|---|"]
    for row in rows:
        value = "–" if math.isnan(row.value) else f"{row.value:.4g} {row.unit}".strip()
        ratio = "" if row.ratio is None else f"{row.ratio:.2f} ×"
        cells = (row.what, row.contender, value, ratio, row.target)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def machine() -> str:
    """Processor, cores that this process may use, memory, system; nothing that names the host."""
    import psutil

    allowed = getattr(os, "sched_getaffinity", None)
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    memory = psutil.virtual_memory().total / 2**30
    return f"{_processor()}, {cores} cores, {memory:.0f} GiB · {_system()}"


def _processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.release()}"


def git_revision(root: Path) -> str:
    """The commit that `root` is at, with `+changes` where other files than the report differ.

    Empty without git, or outside a repository.
    """
    commit = _git(root, "rev-parse", "--short", "HEAD")
    if not commit:
        return ""
    changed = _git(root, "status", "--porcelain", "--", ".", f":!{FILE}")
    return f"{commit}+changes" if changed else commit


def _git(root: Path, *arguments: str) -> str:
    try:
        ended = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return ended.stdout.strip()
