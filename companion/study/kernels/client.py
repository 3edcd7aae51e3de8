"""Finds the template that belongs to an environment, or starts it, and asks it for a kernel.

A template belongs to one user, one interpreter with one set of installed packages, one checkout,
and one value of the environment variables that libraries read *while they are imported*
(``IMPORT_TIME``). Whatever of these differs has another template: its name is a hash over all of
them. The kernel itself gets its requester's environment exactly, whatever the template had. What
it does not get is the requester's resource limits, umask and nice value: these are the template's.

The requester makes the listening socket and hands it to the template it starts, as inetd did and
systemd does. The socket exists before the template runs, so that requests queue while the imports
go on, and a socket that refuses is known to be left over from a template that was killed.
"""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import subprocess
import sys
import sysconfig
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from companion.study.kernels import warm_template
from companion.study.kernels.process import ForkedKernel
from companion.study.kernels.warm_template import wire

IMPORT_TIME = (
    *("PYTHON", "LC_", "LANG", "TZ", "LD_", "DYLD_", "MALLOC_", "GLIBC_TUNABLES", "ARROW_"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "GOTO_", "BLIS_", "VECLIB_", "NUMEXPR_"),
    *("NUMBA_", "NPY_", "NUMPY_", "SCIPY_", "SKLEARN_", "LOKY_", "JOBLIB_", "TORCH", "PYTORCH_"),
    *("CUDA_", "MPL", "QT_API", "TQDM_", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"),
    "COMPANION_WARM_",
)
"""Beginnings of the names of variables that are read at import; a template has one value each."""

ALSO_PASSED = (
    *("PATH", "HOME", "USER", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"),
    *("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"),
)
"""Given to a template by whoever starts it; another value does not make another template."""

PROGRAM = Path(warm_template.__file__).parent
START_LIMIT_S = 120.0
SPAWN_LIMIT_S = 30.0
BACKLOG = 64


class TemplateError(RuntimeError):
    """No kernel could be forked; the message says why. An ordinary kernel can still be started."""


class TemplateSilentError(TemplateError):
    """The template took a request and did not answer it in time."""


@dataclass(frozen=True)
class Request:
    """A kernel to be: arguments after ``ipykernel_launcher``, its environment, folder, streams."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    streams: tuple[int, int, int]
    independent: bool = False


@dataclass(frozen=True)
class Address:
    """Where a template listens. The lock and the log lie beside the socket."""

    socket: Path

    @property
    def lock(self) -> Path:
        """Held by whoever starts the template."""
        return self.socket.with_suffix(".lock")

    @property
    def log(self) -> Path:
        """What the template and the imported libraries had to say."""
        return self.socket.with_suffix(".log")


def address(environment: Mapping[str, str]) -> Address:
    """The address for kernels with this environment. Raises ``TemplateError``: no safe folder."""
    identity = hashlib.sha256()
    parts = [os.path.realpath(sys.executable), sys.prefix, sys.version, *_installed(), __file__]
    parts += [f"{name}={value}" for name, value in sorted(import_time(environment).items())]
    for part in parts:
        identity.update(part.encode("utf-8", "surrogateescape") + b"\0")
    for source in sorted(PROGRAM.glob("*.py")):
        identity.update(source.read_bytes())
    return Address(private_folder() / f"{identity.hexdigest()[:16]}.sock")


def import_time(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of an environment that may change what an import does."""
    return {name: value for name, value in environment.items() if name.startswith(IMPORT_TIME)}


def private_folder() -> Path:
    """The folder for sockets: the user's own, mode 0700, in a place where no other can swap it.

    Raises ``TemplateError`` where it is not. The rule for the folders above is that of OpenSSH's
    ``StrictModes``: owned by this user or root, and writable by others only if sticky.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # says that XDG_RUNTIME_DIR is unset; /tmp is then checked
        try:
            folder = platformdirs.user_runtime_path("companion")
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _require_private(folder.lstat(), folder)
            for parent in folder.resolve().parents:
                _require_unswappable(parent.stat(), parent)
        except OSError as refused:
            raise TemplateError(f"no private folder for sockets: {refused}") from refused
    return folder


def request(wanted: Request, *, limit_s: float = START_LIMIT_S) -> ForkedKernel:
    """Fork a kernel, within ``limit_s`` seconds, starting the template first where there is none.

    Raises ``TemplateError``, ``TemplateSilentError`` where the limit is what failed. A template
    that is gone or outdated is replaced once.
    """
    place = address(wanted.environment)
    deadline = time.monotonic() + limit_s
    failed: int | None = None
    for _ in range(2):
        connection, inode = connect(place, wanted.environment, replacing=failed)
        connection.settimeout(max(0.1, deadline - time.monotonic()))
        try:
            return _ask(connection, wanted)
        except (EOFError, ConnectionError):
            failed = inode
            connection.close()
        except TimeoutError:
            connection.close()
            raise TemplateSilentError(f"no answer within {limit_s:g} s; see {place.log}") from None
        except BaseException:
            connection.close()
            raise
    raise TemplateError(f"the template ended twice while it was asked; see {place.log}")


def connect(
    place: Address, environment: Mapping[str, str], *, replacing: int | None = None
) -> tuple[socket.socket, int]:
    """A connection to the template and the inode of its socket; starts the template if need be.

    ``replacing`` is the inode of a socket that is known to lead nowhere. Raises ``TemplateError``.
    """
    try:
        with FileLock(place.lock, timeout=SPAWN_LIMIT_S, mode=0o600):
            found = _try_connect(place, replacing)
            if found is None:
                _start(place, environment)
                found = _try_connect(place, None)
    except (OSError, Timeout, subprocess.SubprocessError) as failed:
        raise TemplateError(f"the template could not be started: {failed}") from failed
    if found is None:
        raise TemplateError(f"the template ended at once; see {place.log}")
    return found


def _ask(connection: socket.socket, wanted: Request) -> ForkedKernel:
    message = {
        "executable": sys.executable,
        "arguments": list(wanted.arguments),
        "environment": dict(wanted.environment),
        "folder": str(wanted.folder),
        "independent": wanted.independent,
    }
    wire.send(connection, message, wanted.streams)
    answer, _ = wire.receive(connection)
    if "pid" in answer:
        return ForkedKernel(int(answer["pid"]), connection)
    reason = answer.get("refused") or f"the fork ended at once with status {answer.get('exit')}"
    raise TemplateError(str(reason))


def _try_connect(place: Address, replacing: int | None) -> tuple[socket.socket, int] | None:
    try:
        inode = place.socket.lstat().st_ino
    except FileNotFoundError:
        return None
    if inode == replacing:
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(SPAWN_LIMIT_S)
    try:
        connection.connect(str(place.socket))
    except (ConnectionRefusedError, FileNotFoundError):
        connection.close()
        return None
    except OSError:
        connection.close()
        raise
    return connection, inode


def _start(place: Address, environment: Mapping[str, str]) -> None:
    """Make the socket and start the template on it. The caller holds the lock."""
    passed = {name: environment[name] for name in ALSO_PASSED if name in environment}
    fresh = place.socket.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(fresh))
        fresh.chmod(0o600)
        listener.listen(BACKLOG)
        fresh.replace(place.socket)
        command = [sys.executable, str(PROGRAM), "--listener", str(listener.fileno())]
        with open(os.open(place.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as log:
            subprocess.run(
                [*command, "--socket", str(place.socket)],
                env=passed | import_time(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(listener.fileno(),),
                start_new_session=True,
                check=True,
                timeout=SPAWN_LIMIT_S,
            )


def _installed() -> list[str]:
    """Name and version of every installed distribution, as the names of their folders have them."""
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    return sorted(entry.name for path in paths for entry in Path(path).glob("*.dist-info"))


def _require_private(status: os.stat_result, folder: Path) -> None:
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(f"{folder} is not a folder")
    if status.st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to user {status.st_uid}")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise PermissionError(f"{folder} is open to others (mode {stat.S_IMODE(status.st_mode):o})")


def _require_unswappable(status: os.stat_result, folder: Path) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise PermissionError(f"{folder} belongs to user {status.st_uid}")
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        raise PermissionError(f"{folder} can be written to by others")
