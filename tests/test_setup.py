"""The set-up: what it installs, how it recovers, and the one sentence for each thing that fails."""

import ast
import errno
import importlib.util
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]
BOOTSTRAP = ROOT / "bootstrap.py"
LOCK = "numpy==2.4.6\n# a comment\ntorch==2.13.0\nrich==15.0.0\n"
VERSION = "{}.{}".format(*sys.version_info[:2])


def load_bootstrap():
    spec = importlib.util.spec_from_file_location("bootstrap", BOOTSTRAP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Checkout:
    """A checkout whose set-up runs no command: `run` records them, and makes what they would."""

    def __init__(self, root: Path, bootstrap) -> None:
        self.root = root
        self.bootstrap = bootstrap
        self.place = bootstrap.Place(root)
        self.commands: list[list[str]] = []
        self.stop_at = ""
        (root / "requirements.lock").write_text(LOCK)
        (root / "pyproject.toml").write_text("[project]\n")

    def run(self, command, place, step, progress=None):
        words = [str(word) for word in command]
        self.commands.append(words)
        if self.stop_at and self.stop_at in " ".join(words):
            raise KeyboardInterrupt
        if "venv" in words:
            self.make_venv()

    def make_venv(self, version=VERSION, at=None):
        (self.place.venv / "bin").mkdir(parents=True, exist_ok=True)
        self.place.python.write_text("#!/bin/sh\nexit 0\n")
        self.place.python.chmod(0o755)
        self.place.config.write_text(
            f"home = /usr/bin\nversion = {version}.1\ncommand = python -m venv "
            f"{at or self.place.venv}\n"
        )
        self.site_packages.mkdir(parents=True)

    @property
    def site_packages(self):
        return self.place.venv / "lib" / f"python{VERSION}" / "site-packages"

    def set_up(self, *arguments):
        self.commands.clear()
        return self.bootstrap.main(list(arguments), root=self.root)

    def did(self, word):
        return any(word in command for command in self.commands)


@pytest.fixture
def bootstrap():
    return load_bootstrap()


@pytest.fixture
def checkout(tmp_path, bootstrap, monkeypatch):
    made = Checkout(tmp_path, bootstrap)
    monkeypatch.setattr(bootstrap, "run", made.run)
    return made


def test_a_fresh_checkout_gets_a_venv_torch_the_lock_the_companion_and_its_kernel(checkout):
    assert checkout.set_up() == 0
    venv, torch, lock, project, kernel = checkout.commands
    assert venv[1:] == ["-m", "venv", str(checkout.place.venv)]
    assert torch[-1] == "torch==2.13.0"
    assert "--no-deps" not in torch
    assert torch[torch.index("--constraint") + 1] == str(checkout.place.lock)
    assert "--no-deps" in lock
    assert lock[lock.index("--requirement") + 1] == str(checkout.place.lock)
    assert project[-2:] == ["--editable", "."]
    assert kernel == [str(checkout.place.venv / "bin" / "companion"), "kernel"]


def test_a_finished_set_up_is_not_done_again(checkout):
    checkout.set_up()
    assert checkout.set_up() == 0
    assert checkout.commands == []


def test_it_is_done_again_on_request(checkout):
    checkout.set_up()
    assert checkout.set_up("--again") == 0
    assert checkout.did("--requirement")


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_a_changed_input_is_installed_into_the_same_venv(checkout, name):
    checkout.set_up()
    (checkout.root / name).write_text(LOCK + "new==1.0\n")
    assert checkout.set_up() == 0
    assert checkout.did("--requirement")
    assert not checkout.did("venv")


@pytest.mark.parametrize("step", ["-m venv", "torch==", "--requirement", "--editable", "kernel"])
def test_an_interrupted_set_up_is_finished_by_the_next(checkout, step, capsys):
    checkout.stop_at = step
    assert checkout.set_up() == 130
    assert "next run goes on" in capsys.readouterr().err
    assert not checkout.place.is_current()
    checkout.stop_at = ""
    assert checkout.set_up() == 0
    assert checkout.place.is_current()
    assert checkout.did("venv") == (step == "-m venv")


def test_a_stamp_that_is_torn_counts_as_none(checkout):
    checkout.set_up()
    checkout.place.stamp.write_text('{"inputs": "12')
    assert not checkout.place.is_current()


def test_a_venv_whose_python_is_gone_is_made_again(checkout):
    checkout.set_up()
    checkout.place.python.unlink()
    checkout.place.python.symlink_to(checkout.root / "uninstalled")
    leftover = checkout.place.venv / "lib" / "leftover.txt"
    leftover.write_text("old")
    assert checkout.set_up() == 0
    assert checkout.did("venv")
    assert not leftover.exists()


def test_a_venv_of_another_python_is_made_again(checkout):
    checkout.make_venv(version="3.99")
    assert checkout.set_up() == 0
    assert checkout.did("venv")


def test_a_venv_that_was_moved_here_is_made_again(checkout):
    checkout.make_venv(at="/home/somebody/else/.venv")
    assert checkout.set_up() == 0
    assert checkout.did("venv")


def test_a_venv_that_somebody_made_here_by_hand_is_kept(checkout):
    checkout.make_venv()
    assert checkout.set_up() == 0
    assert not checkout.did("venv")
    assert checkout.did("--requirement")


def test_a_package_whose_installation_was_cut_off_is_installed_again(checkout):
    checkout.make_venv()
    whole, torn = (checkout.site_packages / f"{name}-1.0.dist-info" for name in ("whole", "torn"))
    for info in (whole, torn):
        info.mkdir()
        (info / "METADATA").write_text("Name: it\n")
    (whole / "RECORD").write_text("")
    checkout.set_up()
    assert whole.exists()
    assert not torn.exists()


def test_an_uninstall_that_was_cut_off_means_a_new_venv(checkout):
    checkout.make_venv()
    (checkout.site_packages / "~umpy").mkdir()
    assert checkout.set_up() == 0
    assert checkout.did("venv")


def test_a_second_set_up_waits_for_the_first_and_then_has_nothing_to_do(
    checkout, monkeypatch, capsys
):
    def flock(file, operation):
        if operation & checkout.bootstrap.fcntl.LOCK_NB:
            raise BlockingIOError
        checkout.make_venv()  # meanwhile the first one finishes
        checkout.place.stamp.write_text(json.dumps(checkout.place.made_from()))

    monkeypatch.setattr(checkout.bootstrap.fcntl, "flock", flock)
    assert checkout.set_up() == 0
    assert "Another set-up is under way" in capsys.readouterr().out
    assert checkout.commands == []


def test_an_old_python_gets_one_sentence(checkout, monkeypatch, capsys):
    monkeypatch.setattr(checkout.bootstrap.sys, "version_info", (3, 10, 13, "final", 0))
    assert checkout.set_up() == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("The workbook needs Python 3.11 or newer, and this is 3.10: ")
    assert said.err.count("\n") == 1


def test_the_sentence_names_a_newer_python_that_works_and_no_shim_that_does_not(
    bootstrap, tmp_path, monkeypatch
):
    for name, status in (("python3.13", 1), ("python3.12", 0)):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\nexit {status}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(bootstrap.SetUpError, match=r"make PYTHON=python3\.12 lab"):
        bootstrap.refuse_old_python((3, 9, 1))


def test_the_sentence_says_to_install_one_where_there_is_none(bootstrap, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(bootstrap.SetUpError, match="install a newer one"):
        bootstrap.refuse_old_python((3, 9, 1))


def test_every_python_from_3_11_on_is_welcome(bootstrap):
    for minor in (11, 12, 13, 14):
        bootstrap.refuse_old_python((3, minor, 0))


def test_an_old_python_can_parse_the_file():
    ast.parse(BOOTSTRAP.read_text(), feature_version=(3, 6))


def old_pythons():
    """Real interpreters older than 3.11 on this machine, on the path or under pyenv."""
    names = [f"python3.{minor}" for minor in range(6, 11)]
    found = [path for name in names if (path := shutil.which(name))]
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    found += [str(path) for path in sorted(versions.glob("3.*/bin/python"))]
    for program in found:
        asked = subprocess.run(
            [program, "-c", "import sys; print(sys.version_info < (3, 11))"],
            capture_output=True,
            text=True,
        )
        if asked.stdout.strip() == "True":
            yield program


def test_real_old_pythons_say_it_in_one_sentence_too():
    programs = list(old_pythons())
    if not programs:
        pytest.skip("no Python older than 3.11 is installed here")
    for program in {programs[0], programs[-1]}:
        done = subprocess.run([program, str(BOOTSTRAP)], capture_output=True, text=True)
        assert done.returncode == 1, program
        assert re.fullmatch(r"The workbook needs Python 3\.11 or newer[^\n]*\n", done.stderr)


def test_a_python_without_ensurepip_gets_one_sentence(checkout, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        checkout.bootstrap.importlib.util,
        "find_spec",
        lambda name: None if name == "ensurepip" else find(name),
    )
    assert checkout.set_up() == 1
    said = capsys.readouterr().err
    assert "python3-venv" in said
    assert said.count("\n") == 1
    assert not checkout.place.venv.exists()


def test_a_disk_without_room_is_refused_before_anything_is_made(checkout, monkeypatch, capsys):
    usage = SimpleNamespace(free=3.2e9)
    monkeypatch.setattr(checkout.bootstrap.shutil, "disk_usage", lambda path: usage)
    assert checkout.set_up() == 1
    assert "needs 4 GB" in capsys.readouterr().err
    assert not checkout.place.venv.exists()


def test_a_set_up_that_has_torch_already_needs_less_room(checkout, monkeypatch):
    checkout.make_venv()
    torch = checkout.site_packages / "torch"
    torch.mkdir()
    (torch / "version.py").write_text("")
    usage = SimpleNamespace(free=1.5e9)
    monkeypatch.setattr(checkout.bootstrap.shutil, "disk_usage", lambda path: usage)
    assert checkout.set_up() == 0


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "The disk is full"),
        (errno.EDQUOT, "The disk is full"),
        (errno.EROFS, "cannot write to"),
        (errno.EACCES, "cannot write to"),
        (errno.EIO, "met a problem with"),
    ],
)
def test_what_the_system_refuses_is_one_sentence(checkout, monkeypatch, capsys, number, words):
    def refuse(place):
        raise OSError(number, os.strerror(number), str(place.venv))

    monkeypatch.setattr(checkout.bootstrap, "take_turn", refuse)
    assert checkout.set_up() == 1
    said = capsys.readouterr().err
    assert words in said
    assert str(checkout.place.venv) in said
    assert said.count("\n") == 1


def test_a_platform_without_file_locks_is_told_where_it_runs(checkout, monkeypatch, capsys):
    monkeypatch.setattr(checkout.bootstrap, "fcntl", None)
    assert checkout.set_up() == 1
    assert "WSL" in capsys.readouterr().err


@pytest.fixture
def place(tmp_path, bootstrap):
    made = bootstrap.Place(tmp_path)
    made.venv.mkdir()
    return made


def python_saying(text, status=1):
    return [sys.executable, "-c", f"print({text!r}); raise SystemExit({status})"]


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("ERROR: [Errno 28] No space left on device", "The disk is full"),
        ("WARNING: Retrying after connection broken by 'X'\nERROR: none", "No package index"),
        ("WARNING: noise\nERROR: No matching distribution found for torch", "No matching"),
        ("", "its last words:\n  none"),
    ],
)
def test_a_failing_command_ends_with_the_reason(bootstrap, place, said, sentence):
    step = bootstrap.Step("Installing it", io.StringIO())
    with pytest.raises(bootstrap.SetUpError) as failure:
        bootstrap.run(python_saying(said), place, step)
    assert sentence in str(failure.value)
    assert "noise" not in str(failure.value)


def test_what_a_command_says_goes_to_the_log_and_not_to_the_screen(bootstrap, place, capfd):
    bootstrap.run(python_saying("many words", 0), place, bootstrap.Step("Work", io.StringIO()))
    assert "many words" in place.log.read_text()
    assert capfd.readouterr() == ("", "")


def test_downloads_go_to_the_disk_of_the_checkout(bootstrap, place):
    show = "import os, pathlib; pathlib.Path('seen').write_text(os.environ['TMPDIR'])"
    bootstrap.run([sys.executable, "-c", show], place, bootstrap.Step("Work", io.StringIO()))
    assert (place.root / "seen").read_text() == str(place.scratch)
    assert not place.scratch.exists()


def test_an_interrupted_command_is_ended_too(bootstrap, place):
    class Interrupting(bootstrap.Step):
        def show(self, detail=""):
            raise KeyboardInterrupt

    noted = place.root / "pid"
    command = [
        sys.executable,
        "-c",
        f"import os, time; open({str(noted)!r}, 'w').write(str(os.getpid())); time.sleep(60)",
    ]
    children = []
    start = subprocess.Popen

    def popen(*arguments, **options):
        children.append(start(*arguments, **options))
        return children[-1]

    bootstrap.subprocess.Popen = popen
    try:
        with pytest.raises(KeyboardInterrupt):
            bootstrap.run(command, place, Interrupting("Work", io.StringIO()))
    finally:
        bootstrap.subprocess.Popen = start
    assert children[0].returncode is not None


def test_a_pip_that_outlives_its_set_up_keeps_the_turn(bootstrap, place):
    with bootstrap.take_turn(place):
        ask = f"import os; os.fstat({place.held[0]})"
        bootstrap.run([sys.executable, "-c", ask], place, bootstrap.Step("Work", io.StringIO()))


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_one_line_that_changes_on_a_terminal(bootstrap):
    screen = Terminal()
    with bootstrap.Step("Installing", screen) as step:
        step.show("3 of 9 packages")
    assert "3 of 9 packages" in screen.getvalue()
    assert screen.getvalue().count("\n") == 1
    assert "Installing: done after 0 s" in screen.getvalue()


def test_progress_is_a_line_at_each_end_elsewhere(bootstrap):
    screen = io.StringIO()
    with pytest.raises(KeyError), bootstrap.Step("Installing", screen):
        raise KeyError
    assert screen.getvalue() == "Installing ...\nInstalling: stopped after 0 s\n"


def test_progress_counts_the_packages_that_are_there(checkout, monkeypatch):
    counts = []

    def run(command, place, step, progress=None):
        checkout.run(command, place, step)
        if progress:
            counts.append(progress())
            for name in ("numpy", "torch"):
                (checkout.site_packages / f"{name}-1.dist-info").mkdir(exist_ok=True)

    monkeypatch.setattr(checkout.bootstrap, "run", run)
    checkout.set_up()
    assert counts == ["0 of 3 packages", "2 of 3 packages"]


def test_make_lists_its_targets_by_default():
    said = subprocess.run(["make", "--silent"], cwd=ROOT, capture_output=True, text=True).stdout
    for target in ("lab", "test", "demo", "book", "bench", "check", "doctor"):
        assert re.search(rf"^  make {target} +\w", said, re.MULTILINE), said


def test_every_target_sets_up_first_and_is_then_one_companion_command():
    # These tests may run under `make test` themselves; what that make says to its children is not
    # meant for this one.
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    for target in ("lab", "test", "demo", "book", "bench", "check", "doctor"):
        dry = subprocess.run(
            ["make", "--dry-run", target, "PYTHON=pythonX", "ARGS=--some"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert dry.stdout.splitlines() == [
            "pythonX bootstrap.py",
            f".venv/bin/companion {target} --some",
        ]


def test_ci_does_what_the_readme_says():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    lines = script.read_text().splitlines()
    assert "set -euo pipefail" in lines
    assert lines[-1] == "make test"
