"""BENCHMARKS.md: what a section says, and that each benchmark touches its own alone."""

import math
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from importlib import metadata

import pytest
from typer.testing import CliRunner

import companion.cli
from companion.cli import bench_report
from companion.cli.bench_report import Circumstances, record, render, replace_section, sections_of
from companion.cli.benches import Bench
from companion.cli.errors import CommandError
from companion.cli.libraries import library_versions
from companion.instruments.benchmark import Row
from companion.study.workbook import Workbook

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HERE = Circumstances(
    NOON, "Fast CPU, 2 cores, 8 GiB · Linux", "3.11.9", {"numpy": "2.4.0", "redis": "8.1"}, "abc123"
)
ROWS = (
    Row("closed | call", "ours", 0.52345, "µs", 0.5, "below 1"),
    Row("Feast", "-", math.nan, ""),
)


def section(name, said="rows"):
    return f"## Title of {name} (`{name}`)\n\n{said}\n"


# ----- a section --------------------------------------------------------------------------------


def test_a_section_names_its_benchmark_and_its_circumstances():
    said = render(Bench("breaker", "Circuit breaker", ROWS, about="Ratios: to pybreaker."), HERE)
    assert said.startswith("## Circuit breaker (`breaker`)\n\n2026-03-01 12:00 UTC · Fast CPU")
    for words in ("Python 3.11.9", "numpy 2.4.0, redis 8.1", "revision abc123", "to pybreaker."):
        assert words in said


def test_a_row_is_a_line_of_a_table_with_value_unit_ratio_and_target():
    said = render(Bench("breaker", "Circuit breaker", ROWS), HERE)
    assert "| closed \\| call | ours | 0.5234 µs | 0.50 × | below 1 |" in said


def test_a_value_that_there_is_not_is_a_dash():
    assert "| Feast | - | – |  |  |" in render(Bench("b", "B", ROWS), HERE)


def test_a_date_is_told_in_utc():
    east = NOON.astimezone(timezone(timedelta(hours=2)))
    said = render(Bench("b", "B", ()), Circumstances(east, "m", "3.11", {}, ""))
    assert "2026-03-01 12:00 UTC" in said


def test_an_unknown_revision_is_left_out():
    assert "revision" not in render(Bench("b", "B", ()), Circumstances(NOON, "m", "3.11", {}, ""))


# ----- the file ---------------------------------------------------------------------------------


def test_a_new_report_says_how_to_read_ratios():
    assert "How to read a ratio" in replace_section("", "a", section("a"))


def test_a_section_replaces_its_own_and_leaves_the_others_letter_for_letter():
    report = replace_section("", "a", section("a", "old, with\n\n### a heading\n| of | its own |"))
    report = replace_section(report, "b", section("b", "old"))
    before = sections_of(report)["a"]
    after = sections_of(replace_section(report, "b", section("b", "new")))
    assert after == {"a": before, "b": section("b", "new").strip()}


def test_sections_stand_in_order_of_name_whatever_ran_first():
    one = replace_section(replace_section("", "b", section("b")), "a", section("a"))
    other = replace_section(replace_section("", "a", section("a")), "b", section("b"))
    assert one == other
    assert list(sections_of(one)) == ["a", "b"]


def test_writing_the_same_section_again_changes_nothing():
    report = replace_section("", "a", section("a"))
    assert replace_section(report, "a", section("a")) == report


def test_the_head_is_written_anew():
    report = "# Old words\n\n" + section("a")
    assert "Old words" not in replace_section(report, "b", section("b"))


def test_recording_writes_the_file_of_the_checkout(tmp_path):
    path = record(Bench("a", "A", ROWS), tmp_path, clock=lambda: NOON)
    assert path == tmp_path / "BENCHMARKS.md"
    said = path.read_text()
    assert "2026-03-01 12:00 UTC" in said
    assert re.search(r"\d+ cores, \d+ GiB", said)


def test_a_report_that_cannot_be_written_is_the_old_one(tmp_path, monkeypatch):
    path = record(Bench("a", "A", ROWS), tmp_path, clock=lambda: NOON)
    before = path.read_text()
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        record(Bench("b", "B", ROWS), tmp_path, clock=lambda: NOON)
    assert path.read_text() == before


# ----- the machine ------------------------------------------------------------------------------


def test_the_processor_is_named_where_linux_names_it(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: Quick 9000 @ 3 GHz\n")
    assert bench_report._processor(tmp_path / "cpuinfo") == "Quick 9000 @ 3 GHz"


def test_elsewhere_it_is_what_the_platform_says(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert bench_report._processor(tmp_path / "nothing") == "arm64"


def test_a_system_without_a_release_file_is_named_by_its_kernel(monkeypatch):
    def missing():
        raise OSError

    monkeypatch.setattr("platform.freedesktop_os_release", missing)
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("platform.release", lambda: "25.1")
    assert bench_report._system() == "Darwin 25.1"


# ----- the revision -----------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path):
    settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]

    def git(*arguments):
        command = ["git", "-C", str(tmp_path), *settings, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "code.py").write_text("1\n")
    git("add", "code.py")
    git("commit", "-qm", "one")
    return tmp_path, git("rev-parse", "--short", "HEAD")


def test_the_revision_is_the_commit(repository):
    root, commit = repository
    assert bench_report.git_revision(root) == commit


def test_changed_files_are_said(repository):
    root, commit = repository
    (root / "code.py").write_text("2\n")
    assert bench_report.git_revision(root) == f"{commit}+changes"


def test_the_report_itself_is_no_change(repository):
    root, commit = repository
    (root / "BENCHMARKS.md").write_text("new\n")
    assert bench_report.git_revision(root) == commit


def test_outside_a_repository_there_is_no_revision(tmp_path):
    assert bench_report.git_revision(tmp_path) == ""


def test_without_git_there_is_no_revision(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bench_report.git_revision(tmp_path) == ""


# ----- the libraries ----------------------------------------------------------------------------


def write(root, path, source):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(source)
    return root / path


def test_libraries_are_those_imported_by_the_module_and_by_ours_that_it_uses(tmp_path):
    write(tmp_path, "ours/room/__init__.py", "def f():\n    from ours.room import deep\n")
    write(tmp_path, "ours/room/deep.py", "import redis\nimport benchmarks.speed\n")
    write(tmp_path, "ours/unused.py", "import pandas\n")
    bench = write(
        tmp_path,
        "benchmarks/speed.py",
        "import json\nimport sklearn.ensemble\nfrom numpy import array\nfrom ours import room\n"
        "import not_installed_anywhere\n",
    )
    versions = library_versions(bench, tmp_path)
    assert versions == {name: metadata.version(name) for name in ("numpy", "redis", "scikit-learn")}


def test_libraries_that_the_source_does_not_show_are_named(tmp_path):
    bench = write(tmp_path, "benchmarks/speed.py", "import json\n")
    found = library_versions(bench, tmp_path, more=("uvicorn", "not-installed-anywhere"))
    assert found == {"uvicorn": metadata.version("uvicorn")}


# ----- the command ------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(Workbook, "find", classmethod(lambda cls: Workbook(tmp_path)))
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks"]:
        monkeypatch.delitem(sys.modules, name)
    bench = '"""Ratios: to the other."""\n{}\nTITLE = "Speed"\ndef run():\n    {}\n'
    one = "return [Row('call', 'ours', 1.5, 's')]"
    imports = "from companion.instruments.benchmark import Row"
    write(tmp_path, "benchmarks/fine.py", bench.format(imports, one))
    write(tmp_path, "benchmarks/broken.py", bench.format("", "raise OSError('no port')"))
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks"]:
        del sys.modules[name]


def bench_command(*names):
    return CliRunner().invoke(companion.cli.app, ["bench", *names])


def test_the_command_writes_the_report_with_the_words_of_the_module(checkout):
    done = bench_command("fine")
    assert done.exit_code == 0, done.output
    said = (checkout / "BENCHMARKS.md").read_text()
    assert "## Speed (`fine`)" in said
    assert "Ratios: to the other." in said
    assert "| call | ours | 1.5 s |" in said


def test_a_benchmark_that_fails_keeps_its_old_section_and_the_rest_runs(checkout):
    old = replace_section("", "broken", section("broken", "last month's"))
    (checkout / "BENCHMARKS.md").write_text(old)
    done = bench_command()
    assert isinstance(done.exception, CommandError), "which ends the process with 1"
    assert "nothing new of: broken" in str(done.exception)
    assert "OSError: no port" in done.stderr
    sections = sections_of((checkout / "BENCHMARKS.md").read_text())
    assert list(sections) == ["broken", "fine"]
    assert "last month's" in sections["broken"]
