"""The `companion` command: what each command does, says and exits with."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import companion.cli
from companion.cli import benches, checks, studying
from companion.cli.errors import CommandError
from companion.instruments.benchmark import Row
from companion.study import agenda, doctor, overview, validation
from companion.study import book as books
from companion.study.doctor import Finding
from companion.study.validation import Outcome, ValidationError
from companion.study.workbook import Workbook

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    *("lab", "next", "demo", "doctor", "kernel"),
    *("test", "validate", "check", "bench", "side"),
    *("book", "slides", "picture", "map"),
    *("serve", "worker", "score", "tune"),
)


@pytest.fixture
def run():
    def invoke(*arguments):
        return CliRunner().invoke(companion.cli.app, list(arguments))

    return invoke


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """An empty checkout that the commands take for theirs."""
    for folder in ("notebooks/demos", "answers", "benchmarks"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setattr(Workbook, "find", classmethod(lambda cls: Workbook(tmp_path)))
    return tmp_path


def test_help_lists_every_command(run):
    said = run("--help").output
    assert all(re.search(rf"\b{name}\b", said) for name in COMMANDS)


def test_help_imports_nothing_heavy():
    heavy = "torch sklearn pandas numpy matplotlib nbconvert jupyterlab yaml pydantic"
    show = (
        "import sys, companion.cli; "
        f"print([name for name in {heavy.split()} if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_the_makefile_calls_only_commands_that_exist():
    called = re.findall(r"bin/companion (\w+)", (ROOT / "Makefile").read_text())
    assert called
    assert set(called) <= set(COMMANDS)


def main_saying(monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setattr(companion.cli, "app", fail)
    companion.cli.main()


@pytest.mark.parametrize("error", [CommandError("No such thing."), ValidationError("Not so.")])
def test_an_error_with_a_name_is_one_sentence_and_status_1(monkeypatch, capsys, error):
    with pytest.raises(SystemExit) as ended:
        main_saying(monkeypatch, error)
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"{error}\n"


def test_any_other_error_keeps_its_traceback(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        main_saying(monkeypatch, ZeroDivisionError())


def execed(monkeypatch, run, *arguments):
    seen = []
    monkeypatch.setattr("os.execv", lambda program, argv: seen.append(argv))
    monkeypatch.setattr("os.chdir", lambda folder: seen.append(folder))
    run("test", *arguments)
    return seen


def test_test_becomes_pytest_in_the_checkout_with_all_further_arguments(monkeypatch, run):
    folder, argv = execed(monkeypatch, run, "-k", "breaker", "--maxfail=1")
    assert folder == ROOT
    assert argv[:3] == [sys.executable, "-m", "pytest"]
    assert argv[-3:] == ["-k", "breaker", "--maxfail=1"]
    assert "--dist=loadfile" in argv, "or every worker would run all notebooks for itself"


def test_coverage_is_reported_and_bound_to_nine_tenths_on_request(monkeypatch, run):
    _, argv = execed(monkeypatch, run, "--coverage")
    assert "--cov" in argv
    assert "--cov-fail-under=90" in argv


def test_check_exits_with_1_and_shows_what_the_failing_tool_said(monkeypatch, run):
    results = [
        checks.Result("ruff check", False, 0.1, "x.py:1: unused"),
        checks.Result("mypy", True, 2.0, "Success"),
    ]
    monkeypatch.setattr(checks, "run_checks", lambda root: results)
    done = run("check")
    assert done.exit_code == 1
    assert "x.py:1: unused" in done.output
    assert "Success" not in done.output


def test_check_exits_with_0_when_all_pass(monkeypatch, run):
    monkeypatch.setattr(checks, "run_checks", lambda root: [checks.Result("mypy", True, 2.0, "")])
    assert run("check").exit_code == 0


def test_a_check_runs_its_tool_in_the_checkout(tmp_path):
    (tmp_path / "bad.py").write_text("import os\n")
    result = checks.run_check("ruff check", tmp_path)
    assert not result.passed
    assert "bad.py" in result.said


def test_all_checks_run_one_by_one(monkeypatch, tmp_path):
    monkeypatch.setattr(checks, "run_check", lambda name, root: name)
    assert list(checks.run_checks(tmp_path)) == list(checks.CHECKS)


def write_bench(checkout, name):
    (checkout / "benchmarks" / f"{name}.py").write_text(
        "from companion.instruments.benchmark import Row\n"
        "TITLE = 'How fast it is'\n"
        "def run():\n"
        "    return [Row('closed', 'ours', 0.5, 'µs', 0.55, 'below 1'),"
        " Row('closed', 'bare', 0.05, 'µs')]\n"
    )


def test_bench_runs_a_module_and_shows_its_rows(checkout, run, monkeypatch):
    write_bench(checkout, "only_here")
    (checkout / "benchmarks" / "_shared.py").write_text("")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "benchmarks", raising=False)
    done = run("bench")
    assert done.exit_code == 0, done.output
    for words in ("only_here: How fast it is", "0.5 µs", "0.55 ×", "below 1", "bare"):
        assert words in done.output


def test_an_unknown_bench_names_the_known_ones(checkout):
    write_bench(checkout, "breaker")
    with pytest.raises(CommandError, match=r"no benchmark nope; there are: breaker\."):
        benches.choose_benches(["nope"], checkout)


def test_bench_chooses_those_named_or_all(checkout):
    for name in ("b", "a"):
        write_bench(checkout, name)
    assert benches.choose_benches([], checkout) == ["a", "b"]
    assert benches.choose_benches(["b"], checkout) == ["b"]


def test_rows_keep_their_numbers(checkout):
    bench = benches.Bench("b", "t", (Row("what", "who", 1.0, "s"),))
    assert bench.rows[0].ratio is None


def test_doctor_exits_with_1_and_says_the_mend(monkeypatch, run):
    findings = [
        Finding("Python", True, "3.11.7"),
        Finding("Redis", None, "not here"),
        Finding("kernelspec", False, "missing", "run 'companion kernel'"),
    ]
    monkeypatch.setattr(doctor, "examine", lambda: findings)
    done = run("doctor")
    assert done.exit_code == 1
    assert "kernelspec: run 'companion kernel'" in done.output


def test_doctor_exits_with_0_when_only_optional_things_are_missing(monkeypatch, run):
    monkeypatch.setattr(doctor, "examine", lambda: [Finding("Redis", None, "not here")])
    assert run("doctor").exit_code == 0


def test_kernel_installs_the_kernelspec_into_this_environment(monkeypatch, tmp_path, run):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert run("kernel").exit_code == 0
    assert (tmp_path / "share/jupyter/kernels/python3/kernel.json").is_file()


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (None, "nothing is due"),
        (
            SimpleNamespace(entry=SimpleNamespace(label="Q23", title="Breaker", stem="q23_b")),
            "Q23 · Breaker: nothing is due (notebooks/q23_b.ipynb)",
        ),
    ],
)
def test_next_says_which_question_and_why(monkeypatch, run, place, words):
    advice = agenda.Advice(place, "nothing is due")
    monkeypatch.setattr(agenda, "next_question", lambda places, at: advice)
    assert run("next").output.strip() == words


@pytest.fixture
def validated(monkeypatch, checkout):
    """Records what `validate` was asked for; its outcomes can be set."""
    asked = SimpleNamespace(states=["passed"], options={}, names=None)

    def named(names, root):
        asked.names = names
        return [root / "notebooks" / "q.ipynb"]

    def validate(notebooks, **options):
        asked.options = options
        return [Outcome(notebooks[0], state) for state in asked.states]

    monkeypatch.setattr(validation, "notebooks_named", named)
    monkeypatch.setattr(validation, "validate", validate)
    return asked


def test_validate_passes_its_options_on(validated, run, checkout):
    options = "--fresh --jobs 1 --shard 1/2 --parameters seed=7 --parameters rate=0.1 --store"
    done = run("validate", "q23", *options.split(), "--report", "r.html")
    assert done.exit_code == 0, done.output
    assert validated.names == ["q23"]
    del validated.options["on_progress"]
    assert validated.options == {
        "root": checkout,
        "fresh": True,
        "jobs": 1,
        "shard": (1, 2),
        "parameters": {"seed": 7, "rate": 0.1},
        "report": Path("r.html"),
        "store": True,
    }


def test_validate_exits_with_1_when_a_notebook_failed(validated, run):
    validated.states = ["passed", "failed", "skipped-unchanged"]
    done = run("validate")
    assert done.exit_code == 1
    assert "1 failed, 1 passed, 1 skipped-unchanged" in done.output


def test_validate_refuses_a_shard_that_is_none(validated, run):
    assert isinstance(run("validate", "--shard", "3/2").exception, ValidationError)


def test_map_writes_what_is_generated(monkeypatch, run):
    monkeypatch.setattr(overview, "write", lambda workbook: ["README.md"])
    assert "README.md" in run("map").output
    monkeypatch.setattr(overview, "write", lambda workbook: [])
    assert "current" in run("map").output


def test_map_check_exits_with_1_when_something_is_stale(monkeypatch, run):
    monkeypatch.setattr(overview, "stale", lambda workbook: ["README.md"])
    done = run("map", "--check")
    assert done.exit_code == 1
    assert "README.md" in done.output
    monkeypatch.setattr(overview, "stale", lambda workbook: [])
    assert run("map", "--check").exit_code == 0


def test_book_says_where_it_is_and_opens_it_on_request(monkeypatch, run, checkout):
    opened = []
    browser = SimpleNamespace(open=opened.append)

    def build(workbook, target, on_page):
        on_page(1, 2)
        return books.Book(target / "index.html", 2)

    monkeypatch.setattr(books, "build_book", build)
    monkeypatch.setattr("companion.cli.servers.find_browser", lambda: browser)
    index = checkout / "build" / "book" / "index.html"
    assert f"The book has 2 pages: {index}" in run("book").output.replace("\n", "")
    assert opened == []
    run("book", "--open")
    assert opened == [index.as_uri()]


def test_slides_say_where_they_are_and_that_no_browser_was_found(monkeypatch, run, checkout):
    monkeypatch.setattr(
        books, "build_slides", lambda workbook, name, target: target / f"{name}.html"
    )
    monkeypatch.setattr("companion.cli.servers.find_browser", lambda: None)
    said = run("slides", "q23", "--open").output
    assert str(checkout / "build" / "slides" / "q23.html") in said.replace("\n", "")
    assert "No browser was found" in said


def test_picture_says_where_it_is(monkeypatch, run, checkout):
    monkeypatch.setattr(
        "companion.study.picture.take_picture", lambda workbook, name: Path(f"{name}.png")
    )
    assert "q23_circuit_breaker.png" in run("picture").output


def test_the_start_page_has_to_be_there(checkout, run):
    assert "is missing" in str(run("lab").exception)


def test_an_unknown_demo_names_the_known_ones(checkout, run):
    (checkout / "notebooks" / "demos" / "limiter.ipynb").write_text("{}")
    assert "no demo 'nope'; the demos are: limiter." in str(run("demo", "nope").exception)


@pytest.fixture
def served(monkeypatch, checkout):
    """The servers that commands would have run."""
    seen = []
    (checkout / "notebooks" / "00_start_here.ipynb").write_text("{}")
    (checkout / "notebooks" / "demos" / "breaker.ipynb").write_text("{}")
    monkeypatch.setattr(
        "companion.cli.servers.serve", lambda server, open_browser: seen.append(server)
    )
    monkeypatch.setattr(
        "companion.cli.servers.choose_port", lambda wanted, usual: (usual, "Taken.")
    )
    return seen


def test_lab_opens_the_start_page_on_loopback_behind_a_token(served, run, checkout):
    assert "Taken." in run("lab").output
    (server,) = served
    assert server.path == "/lab/tree/notebooks/00_start_here.ipynb"
    assert "--ServerApp.ip=127.0.0.1" in server.command
    assert f"--ServerApp.root_dir={checkout}" in server.command
    assert server.environment["JUPYTER_TOKEN"] == server.token
    assert len(server.token) >= 32


def test_no_token_stands_on_a_command_line(served, run):
    run("lab")
    run("demo")
    assert all(server.token not in " ".join(server.command) for server in served)


def test_the_workbooks_settings_come_before_the_persons_own(served, run, checkout, monkeypatch):
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "/own")
    run("lab")
    assert served[0].environment["JUPYTER_CONFIG_PATH"] == f"{checkout / 'jupyter_config'}:/own"


@pytest.mark.parametrize(("arguments", "shown"), [((), "demos"), (("breaker",), "breaker.ipynb")])
def test_demo_shows_the_list_or_one(served, run, arguments, shown):
    run("demo", *arguments)
    (server,) = served
    assert Path(server.command[3]).name == shown
    assert "--token" in server.command


def test_root_needs_jupyters_leave(served, run, monkeypatch):
    monkeypatch.setattr(studying.os, "geteuid", lambda: 0)
    run("lab")
    monkeypatch.setattr(studying.os, "geteuid", lambda: 1000)
    run("lab")
    assert ["--allow-root" in server.command for server in served] == [True, False]
