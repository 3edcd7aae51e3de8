"""Set the workbook up in `.venv`: the locked packages, the companion, the warm kernel.

Run by every target of the Makefile, so it has to be quick when there is nothing to do, safe to
interrupt, and clear when it cannot go on. The idea is make's own: a stamp, written last, holds what
the set-up was made from, and whatever lacks the right stamp is set up again. Nothing is trusted for
having been started.

Only the standard library is used, and only grammar that Python 3.6 parses: an old Python then ends
with one sentence about its version, not with a syntax error.
"""

import argparse
import errno
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows; refused below with a sentence
    fcntl = None

ROOT = Path(os.path.realpath(__file__)).parent
OLDEST = (3, 11)
# Measured: 2.1 GB installed on Linux, and the downloads lie beside it while pip unpacks them.
GIGABYTES_TO_BEGIN = 4.0
GIGABYTES_TO_GO_ON = 1.0
INTERRUPTED = 130
QUIET = subprocess.DEVNULL

FULL_DISK = ("No space left on device", "Errno 28", "Disk quota exceeded")
NO_NETWORK = (
    "after connection broken by",
    "Failed to establish a new connection",
    "Temporary failure in name resolution",
    "Could not fetch URL",
    "Read timed out",
)


class SetUpError(Exception):
    """The set-up cannot go on; the message is the one sentence that a person reads."""


class Place:
    """Where the parts of one set-up lie."""

    def __init__(self, root):
        self.root = root
        self.venv = root / ".venv"
        self.python = self.venv / "bin" / "python"
        self.config = self.venv / "pyvenv.cfg"
        self.stamp = self.venv / "set-up.json"
        self.busy = self.venv / "set-up.lock"
        self.log = self.venv / "set-up.log"
        self.scratch = self.venv / "scratch"
        self.lock = root / "requirements.lock"
        self.project = root / "pyproject.toml"
        self.held = ()

    def made_from(self):
        """What the stamp of a finished set-up says: change any of it, and it is set up again."""
        inputs = hashlib.sha256()
        for path in (self.lock, self.project, Path(os.path.realpath(__file__))):
            inputs.update(path.read_bytes())
        return {
            "inputs": inputs.hexdigest(),
            "python": "{}.{}".format(*sys.version_info[:2]),
            "venv": str(self.venv),
        }

    def is_current(self):
        """True when the stamp fits and the interpreter behind `.venv` is still there."""
        try:
            stamped = json.loads(self.stamp.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return stamped == self.made_from() and self.python.exists()

    def packages(self):
        """The lines of the lock, `name==version`."""
        lines = self.lock.read_text(encoding="utf-8").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


class Step:
    """One line on the screen for one piece of work, kept up to date on a terminal; else two."""

    def __init__(self, what, screen=None):
        self.what = what
        self.screen = screen or sys.stdout
        self.live = self.screen.isatty()
        self.began = time.monotonic()

    def __enter__(self):
        if not self.live:
            self._write("{} ...\n".format(self.what))
        return self

    def show(self, detail=""):
        """Say how far the work is."""
        if self.live:
            line = "{} ... {}".format(self.what, detail)
            width = shutil.get_terminal_size().columns - 8
            self._write("\r\x1b[K{} {:3.0f} s".format(line[:width], self.seconds()))

    def __exit__(self, kind, error, trace):
        ending = "done" if kind is None else "stopped"
        line = "{}: {} after {:.0f} s\n".format(self.what, ending, self.seconds())
        self._write("\r\x1b[K" + line if self.live else line)

    def seconds(self):
        return time.monotonic() - self.began

    def _write(self, text):
        self.screen.write(text)
        self.screen.flush()


# ------------------------------------------------------------------ can it be done here at all?


def refuse_old_python(version):
    """Raise SetUpError for a Python that the workbook does not run on."""
    if tuple(version[:2]) >= OLDEST:
        return
    raise SetUpError(
        "The workbook needs Python {}.{} or newer, and this is {}.{}: {}.".format(
            *(OLDEST + tuple(version[:2]) + (_newer_python(),))
        )
    )


def _newer_python():
    for minor in range(OLDEST[1] + 3, OLDEST[1] - 1, -1):
        name = "python3.{}".format(minor)
        path = shutil.which(name)
        # A name on the path may be a version manager's shim for a Python that is not there.
        if path and subprocess.call([path, "-c", ""], stdout=QUIET, stderr=QUIET) == 0:
            return "{0} is installed, so name it, as in 'make PYTHON={0} lab'".format(name)
    return "install a newer one and name it, as in 'make PYTHON=python3.11 lab'"


def refuse_what_is_missing(place):
    """Raise SetUpError where this platform, this Python or this disk cannot hold the set-up."""
    if fcntl is None:
        raise SetUpError("The workbook runs on Linux and macOS; on Windows, use it inside WSL.")
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        raise SetUpError(
            "This Python cannot make virtual environments, since its ensurepip is missing: install "
            "it (on Debian and Ubuntu, 'sudo apt install python3-venv') and run this again."
        )
    begun = any(place.venv.glob("lib/python*/site-packages/torch/version.py"))
    needed = GIGABYTES_TO_GO_ON if begun else GIGABYTES_TO_BEGIN
    disk = place.venv if place.venv.exists() else place.root
    free = shutil.disk_usage(str(disk)).free / 1e9
    if free < needed:
        raise SetUpError(
            "The disk is too full: the set-up needs {:.0f} GB, and the disk of {} has {:.1f} GB "
            "free.".format(needed, disk, free)
        )


def sentence_for(error, place):
    """The sentence for an operating-system error met while writing to the checkout."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The disk is full: free about {:.0f} GB for {} and run this again.".format(
            GIGABYTES_TO_BEGIN, place.venv
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return (
            "The set-up cannot write to {} ({}): run it in a checkout of your own, or give "
            "yourself the right to write there.".format(
                error.filename or place.root, error.strerror
            )
        )
    return "The set-up met a problem with {}: {}.".format(
        error.filename or place.venv, error.strerror or error
    )


# ------------------------------------------------------------------------------- the steps


def take_turn(place):
    """An open file that holds this checkout's set-up lock; waits for a set-up that holds it."""
    place.venv.mkdir(exist_ok=True)
    turn = place.busy.open("a")
    try:
        fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Another set-up is under way in this checkout; waiting for it to finish.", flush=True)
        fcntl.flock(turn, fcntl.LOCK_EX)
    # Commands inherit it: a pip that outlives this process, if that is killed, keeps its turn.
    place.held = (turn.fileno(),)
    return turn


def is_sound(place):
    """True when `.venv` was made here by this version of Python, has pip, and lost no package.

    An uninstall that was cut off leaves its package moved aside under a name that begins with `~`,
    and no way to tell what else it moved: such an environment is made again.
    """
    try:
        lines = place.config.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    config = dict(line.partition(" = ")[::2] for line in lines)
    same_python = config.get("version", "").split(".")[:2] == [str(n) for n in sys.version_info[:2]]
    same_place = config.get("command", "").endswith(" " + str(place.venv))
    if not (same_python and same_place) or any(place.venv.glob("lib/python*/site-packages/~*")):
        return False
    try:
        return (
            subprocess.call([str(place.python), "-c", "import pip"], stdout=QUIET, stderr=QUIET)
            == 0
        )
    except OSError:
        return False


def clear(place):
    """Empty `.venv`, keeping the lock that this process holds and the log."""
    for path in place.venv.iterdir():
        if path in (place.busy, place.log):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(str(path))
        else:
            path.unlink()


def drop_torn_packages(place):
    """Forget packages whose installation was cut off, so that pip installs them again.

    pip writes a package's RECORD after all its other files, but its METADATA may come earlier and
    is enough for pip to believe that the package is there.
    """
    for info in place.venv.glob("lib/python*/site-packages/*.dist-info"):
        if not (info / "RECORD").exists():
            shutil.rmtree(str(info))


def run(command, place, step, progress=None):
    """Run `command` with its output in the log; raise SetUpError with the reason when it fails."""
    shutil.rmtree(str(place.scratch), ignore_errors=True)
    place.scratch.mkdir()
    environment = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1")
    # Downloads go to the disk that was looked at, not to a /tmp that may be small.
    environment["TMPDIR"] = str(place.scratch)
    with place.log.open("ab") as log:
        log.write("\n$ {}\n".format(" ".join(command)).encode("utf-8"))
        log.flush()
        begins = log.tell()
        child = subprocess.Popen(
            command,
            cwd=str(place.root),
            env=environment,
            stdin=QUIET,
            stdout=log,
            stderr=log,
            pass_fds=place.held,
        )
        try:
            while child.poll() is None:
                step.show(progress() if progress else "")
                time.sleep(0.25)
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()
    shutil.rmtree(str(place.scratch), ignore_errors=True)
    if child.returncode != 0:
        said = place.log.read_bytes()[begins:].decode("utf-8", "replace")
        raise SetUpError(reason_in(said, step.what, place))


def reason_in(said, what, place):
    """The sentence for a command that failed after saying `said`."""
    if any(sign in said for sign in FULL_DISK):
        return "The disk is full: free about {:.0f} GB for {} and run this again.".format(
            GIGABYTES_TO_BEGIN, place.venv
        )
    if any(sign in said for sign in NO_NETWORK):
        return (
            "No package index could be reached: connect to a network or point pip at a mirror, and "
            "run this again; what is installed already is kept (log: {}).".format(place.log)
        )
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = [line for line in lines if not line.startswith(("WARNING:", "[notice]"))][-5:]
    return "{} failed (log: {}); its last words:\n  {}".format(
        what, place.log, "\n  ".join(last) or "none"
    )


def install(place):
    """Everything from the lock, the companion itself, and the kernelspec that notebooks ask for."""
    packages = place.packages()
    total = len(packages)
    pip = [str(place.python), "-m", "pip", "install", "--no-compile", "--progress-bar", "off"]
    torch = next(line for line in packages if line.startswith("torch==")).split(";")[0]

    def unpacked():
        found = sum(1 for _ in place.venv.glob("lib/python*/site-packages/*.dist-info"))
        return "{} of {} packages".format(min(found, total), total)

    # Asked for alone, and by its exact version, pip takes a CPU build where it finds one
    # (2.13.0+cpu satisfies ==2.13.0), and with it no CUDA package. The rest is the lock, as it is.
    with Step("Installing {}".format(torch.replace("==", " "))) as step:
        run([*pip, "--constraint", str(place.lock), torch], place, step, unpacked)
    with Step("Installing the packages of requirements.lock") as step:
        run([*pip, "--no-deps", "--requirement", str(place.lock)], place, step, unpacked)
    with Step("Installing the companion and its kernel") as step:
        run([*pip, "--no-deps", "--no-build-isolation", "--editable", "."], place, step)
        run([str(place.venv / "bin" / "companion"), "kernel"], place, step)


def set_up(place, again=False):
    """Bring `.venv` up to date; does nothing when it is."""
    if not again and place.is_current():
        return
    refuse_what_is_missing(place)
    with take_turn(place):
        if not again and place.is_current():  # the set-up that we waited for did it
            return
        if place.stamp.exists():
            place.stamp.unlink()
        place.log.write_bytes(b"")
        print("Setting up {} with Python {}.{}".format(place.venv, *sys.version_info[:2]))
        if is_sound(place):
            drop_torn_packages(place)
        else:
            clear(place)
            # Inside a virtual environment sys.executable may lie in the very .venv just cleared.
            base = getattr(sys, "_base_executable", None) or sys.executable
            with Step("Making the virtual environment") as step:
                run([base, "-m", "venv", str(place.venv)], place, step)
        install(place)
        finished = place.stamp.with_name("set-up.part")
        finished.write_text(json.dumps(place.made_from()) + "\n", encoding="utf-8")
        finished.replace(place.stamp)


def main(arguments=None, root=ROOT):
    """Exit status: 0 ready, 1 with one sentence on standard error, 130 interrupted."""
    try:
        refuse_old_python(sys.version_info)
        parser = argparse.ArgumentParser(description="Set the workbook up in .venv.")
        parser.add_argument("--again", action="store_true", help="even when it seems up to date")
        place = Place(root)
        set_up(place, again=parser.parse_args(arguments).again)
    except SetUpError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(sentence_for(error, Place(root)), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; the next run goes on from here.", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
