"""A real PostgreSQL server for an experiment: there inside the ``with`` block, gone after it.

It is the server of the package *pgserver*, or the system's, started from its own programs:
pgserver's own way of starting it adds a user to the machine when called by root and opens the
folders above its data to everybody.  It listens on a Unix socket in a folder of its own and
nowhere else, trusts whoever can reach that folder, keeps nothing, and never outlives its owner
(see :mod:`companion.instruments.server`).

PostgreSQL refuses to run as root, so root starts it as *nobody*.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from companion.instruments.server import ServerNotReadyError, SubprocessServer

_AS_NOBODY = """
import os, pwd, sys
nobody = pwd.getpwnam("nobody")
os.setgroups([])
os.setgid(nobody.pw_gid)
os.setuid(nobody.pw_uid)
os.execv(sys.argv[1], sys.argv[1:])
"""
_ANSWERS = 0  # what pg_isready exits with then


class PostgresqlMissingError(Exception):
    """There is no PostgreSQL server on this machine; the message says how to get one."""

    def __init__(self) -> None:
        super().__init__(
            "there is no PostgreSQL server here: neither the package pgserver (Python before 3.13) "
            "nor initdb and postgres on the path"
        )


@dataclass(frozen=True)
class PostgresqlServer:
    """A server that answers at ``url`` (``postgresql://…?host=FOLDER``); ``process`` runs it."""

    url: str
    process: SubprocessServer


def find_postgresql() -> Path | None:
    """The folder of the programs to run: pgserver's, or the system's, or ``None``."""
    with contextlib.suppress(PackageNotFoundError):
        brought = Path(str(distribution("pgserver").locate_file("pgserver/pginstall/bin")))
        if (brought / "postgres").is_file():
            return brought
    on_path = [shutil.which(program) for program in ("initdb", "postgres", "pg_isready")]
    return Path(str(on_path[1])).parent if all(on_path) else None


@contextlib.contextmanager
def postgresql_server(*, timeout: float = 30.0) -> Iterator[PostgresqlServer]:
    """Run an empty PostgreSQL server; its superuser and its database are called ``postgres``.

    ``timeout`` is how many seconds making it, and then its first answer, may take.

    Raises:
        PostgresqlMissingError: there is no server to run.
        ServerNotReadyError: it cannot be made or does not start; the error holds its last words.
    """
    programs = find_postgresql()
    if programs is None:
        raise PostgresqlMissingError
    # Its socket lives there, and a socket's path may have about a hundred characters.
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        _make(programs, folder, timeout)
        process = _start(programs, folder, timeout)
        try:
            yield PostgresqlServer(f"postgresql://postgres@/postgres?host={folder}", process)
        finally:
            if process.pid:
                os.kill(process.pid, signal.SIGQUIT)  # SIGTERM would wait for its clients
            process.terminate()


def _make(programs: Path, folder: str, timeout: float) -> None:
    options = ("--auth=trust", "--username=postgres", "--no-sync", "--no-locale", "--encoding=UTF8")
    command = _unprivileged([str(programs / "initdb"), "-D", f"{folder}/data", *options])
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        raise ServerNotReadyError(command, done.returncode, 0.0, done.stdout + done.stderr)


def _start(programs: Path, folder: str, timeout: float) -> SubprocessServer:
    # Nothing of it has to survive a crash of the machine.
    settings = ("-h", "", "-k", folder, "-F")
    command = _unprivileged([str(programs / "postgres"), "-D", f"{folder}/data", *settings])
    asking = [str(programs / "pg_isready"), "--quiet", "--host", folder, "--username=postgres"]

    def ready() -> bool:
        return subprocess.run(asking).returncode == _ANSWERS

    process = SubprocessServer(command, ready, cwd=folder, timeout=timeout)
    process.start()
    return process


def _unprivileged(command: list[str]) -> list[str]:
    if os.geteuid() != 0:
        return command
    return [sys.executable, "-S", "-E", "-c", _AS_NOBODY, *command]
