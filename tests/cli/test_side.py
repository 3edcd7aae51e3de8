"""Side environments: made whole or made again, pinned exactly, found by name."""

import json
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import companion.cli
from companion.cli import side
from companion.cli.errors import CommandError
from companion.study.workbook import Workbook


@pytest.fixture
def pins(tmp_path, monkeypatch):
    """A folder of pins with one environment, which installs nothing."""
    folder = tmp_path / "pins"
    folder.mkdir()
    (folder / "empty.txt").write_text("# nothing\n\n")
    monkeypatch.setattr(side, "PINS", folder)
    return folder


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    root = tmp_path / "checkout"
    root.mkdir()
    monkeypatch.setattr(Workbook, "find", classmethod(lambda cls: Workbook(root)))
    return root


@pytest.fixture
def quick(monkeypatch):
    """Steps that take no time: each notes its command and makes the interpreter."""
    commands = []

    def run(environment, command, on_progress):
        commands.append(command)
        environment.python.parent.mkdir(parents=True, exist_ok=True)
        environment.python.touch()
        on_progress(1)

    monkeypatch.setattr(side.SideEnvironment, "_run", run)
    return commands


def run(*arguments):
    return CliRunner().invoke(companion.cli.app, ["side", *arguments])


def test_the_pins_of_feast_are_exact_and_clash_with_the_lock():
    packages = side.side_environment("feast", Workbook.find().root).packages()
    assert "feast==0.67.0" in packages
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line) for line in packages)
    (pandas,) = (line for line in packages if line.startswith("pandas=="))
    assert pandas.startswith("pandas==2.")


def test_without_a_name_it_lists_what_there_is(pins, checkout):
    assert run().output == "empty: not set up\n"


def test_an_unknown_name_names_the_known_ones(pins, checkout):
    with pytest.raises(CommandError, match=r"no side environment 'tecton'; there are: empty\."):
        side.side_environment("tecton", checkout)


def test_it_is_set_up_once_and_again_only_when_asked(pins, checkout, quick):
    assert "empty is ready" in run("empty").output
    steps = len(quick)
    assert steps == 2
    assert "empty is ready" in run("empty").output
    assert len(quick) == steps
    run("empty", "--again")
    assert len(quick) == 2 * steps
    assert run().output == "empty: ready\n"


def test_git_does_not_see_it(pins, checkout, quick):
    subprocess.run(["git", "init", "-q", str(checkout)], check=True)
    run("empty")
    said = subprocess.run(
        ["git", "-C", str(checkout), "status", "--porcelain"], capture_output=True, text=True
    )
    assert said.stdout == ""


def test_changed_pins_make_it_out_of_date(pins, checkout, quick):
    run("empty")
    (pins / "empty.txt").write_text("left-pad==1.0\n")
    assert not side.side_environment("empty", checkout).is_current()


@pytest.mark.parametrize("damage", ["stamp", "python"])
def test_what_is_torn_is_not_current(pins, checkout, quick, damage):
    run("empty")
    environment = side.side_environment("empty", checkout)
    if damage == "stamp":
        (environment.folder / "set-up.json").write_text("{")
    else:
        environment.python.unlink()
    assert not environment.is_current()


def test_a_set_up_that_stopped_is_made_again_from_nothing(pins, checkout, quick):
    environment = side.side_environment("empty", checkout)
    left = environment.folder / "half-a-package"
    left.mkdir(parents=True)
    environment.set_up()
    assert not left.exists()
    assert environment.is_current()


def test_a_step_that_fails_is_a_sentence_with_its_last_words(pins, checkout):
    environment = side.side_environment("empty", checkout)
    environment.folder.parent.mkdir(parents=True)
    script = "import sys; print('WARNING: never mind'); print('no such version'); sys.exit(3)"
    with pytest.raises(CommandError, match=r"could not be set up(?s:.)*no such version") as failed:
        environment._run([sys.executable, "-c", script], lambda done: None)
    assert "never mind" not in str(failed.value)


def test_an_interrupt_ends_the_step_that_runs(pins, checkout):
    environment = side.side_environment("empty", checkout)
    environment.folder.parent.mkdir(parents=True)

    def interrupt(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        environment._run([sys.executable, "-c", "import time; time.sleep(60)"], interrupt)


def test_a_real_environment_has_an_interpreter_of_its_own(pins, checkout):
    seen = []
    environment = side.side_environment("empty", checkout)
    environment.set_up(on_progress=seen.append)
    show = "import json, sys; print(json.dumps([sys.prefix, sys.version_info[:2]]))"
    said = subprocess.run([environment.python, "-c", show], capture_output=True, text=True)
    assert json.loads(said.stdout) == [str(environment.folder), list(sys.version_info[:2])]
    assert seen
