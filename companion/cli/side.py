"""Environments of their own for incumbents that ask for other versions than the lock.

A side environment is measured against and never imported. Each is one file of exact versions in
`side_environments/` and one folder under `.side/`, made by one command: a virtual environment whose
stamp, written last, holds what it was made from. Whatever lacks the right stamp is made again from
nothing, so an interrupted set-up is never taken for a finished one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from companion.cli.errors import CommandError

PINS = Path(__file__).with_name("side_environments")
_LAST_WORDS = 5
_POLL = 0.25


def side(
    name: Annotated[
        str | None, typer.Argument(help="One of them; without a name, the list.")
    ] = None,
    again: Annotated[bool, typer.Option(help="Even when it is up to date.")] = False,
) -> None:
    """Set up an environment of its own for an incumbent, such as feast."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from companion.study.workbook import Workbook

    root = Workbook.find().root
    if name is None:
        for known in side_names():
            state = "ready" if side_environment(known, root).is_current() else "not set up"
            print(f"{known}: {state}")
        return
    environment = side_environment(name, root)
    if environment.is_current() and not again:
        print(f"{name} is ready: {environment.python}")
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task(f"Setting up {name}", total=len(environment.packages()))
        environment.set_up(on_progress=lambda done: progress.update(task, completed=done))
    print(f"{name} is ready: {environment.python}")


def side_names() -> list[str]:
    """The side environments that there can be."""
    return sorted(path.stem for path in PINS.glob("*.txt"))


def side_environment(name: str, root: Path) -> SideEnvironment:
    """The environment `name` of the checkout at `root`, set up or not.

    Raises:
        CommandError: there is none of that name; the message names those there are.
    """
    if name not in side_names():
        raise CommandError(
            f"There is no side environment {name!r}; there are: {', '.join(side_names())}."
        )
    return SideEnvironment(name, PINS / f"{name}.txt", root / ".side" / name)


@dataclass(frozen=True)
class SideEnvironment:
    """One virtual environment: exact versions in the file `pins`, installed in `folder`."""

    name: str
    pins: Path
    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def packages(self) -> list[str]:
        """The lines of the pins, `name==version`."""
        lines = self.pins.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line.strip() and not line.startswith("#")]

    def is_current(self) -> bool:
        """Whether it was set up to its end, from these pins and by this version of Python."""
        try:
            stamped = json.loads(self._stamp.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(stamped == self._made_from() and self.python.exists())

    def set_up(self, *, on_progress: Callable[[int], object] = lambda done: None) -> None:
        """Make it from nothing; `on_progress` hears how many packages are installed.

        Raises:
            CommandError: a step failed; the message has its last words and where the log is.
        """
        from filelock import FileLock

        from companion.storage import write_text

        self.folder.parent.mkdir(exist_ok=True)
        # The folder ignores itself, so that no list elsewhere has to know of it.
        write_text(self.folder.parent / ".gitignore", "*\n")
        with FileLock(self.folder.with_suffix(".lock")):
            shutil.rmtree(self.folder, ignore_errors=True)
            # Inside a virtual environment, the interpreter that it was itself made from.
            base = getattr(sys, "_base_executable", None) or sys.executable
            self._run([base, "-m", "venv", str(self.folder)], on_progress)
            pip = [str(self.python), "-m", "pip", "install", "--no-compile", "--no-deps"]
            self._run([*pip, "--progress-bar=off", "--requirement", str(self.pins)], on_progress)
            write_text(self._stamp, json.dumps(self._made_from()) + "\n")

    @property
    def _stamp(self) -> Path:
        return self.folder / "set-up.json"

    def _made_from(self) -> dict[str, str]:
        return {
            "pins": hashlib.sha256(self.pins.read_bytes()).hexdigest(),
            "python": "{}.{}".format(*sys.version_info[:2]),
            "folder": str(self.folder),
        }

    def _run(self, command: Sequence[str], on_progress: Callable[[int], object]) -> None:
        log_path = self.folder.with_suffix(".log")
        with log_path.open("wb") as log:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
            try:
                while child.poll() is None:
                    on_progress(self._installed())
                    time.sleep(_POLL)
            finally:
                if child.poll() is None:
                    child.terminate()
                    child.wait()
        if child.returncode != 0:
            said = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
            words = [line for line in said if line and not line.startswith("WARNING:")]
            last = "\n  ".join(words[-_LAST_WORDS:]) or "none"
            raise CommandError(
                f"{self.name} could not be set up (log: {log_path}); the last words:\n  {last}"
            )

    def _installed(self) -> int:
        return sum(1 for _ in self.folder.glob("lib/python*/site-packages/*.dist-info"))
