"""Validation end to end: real notebooks in real (ordinary) kernels."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from companion.study.kernels.spec import install_kernelspec
from companion.study.validation import Outcome, Progress, ValidationError, validate
from companion.study.validation.fingerprint import SANITIZE

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def light_kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Warm kernels with nothing but ipykernel in them: a third of an ordinary kernel's start."""
    prefix = tmp_path_factory.mktemp("prefix")
    install_kernelspec(prefix)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(prefix / "share" / "jupyter"))
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        patch.setenv("COMPANION_WARM", "1")
        patch.setenv("COMPANION_WARM_IDLE", "20")
        patch.setenv("COMPANION_WARM_LIBRARIES", "json")
        yield


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("notebooks", "answers", "companion", "fixtures", "jupyter_config"):
        (tmp_path / folder).mkdir()
    (tmp_path / "requirements.lock").write_text("numpy==2.4.6\n")
    (tmp_path / "companion" / "room.py").write_text("")
    (tmp_path / SANITIZE).write_bytes((REPOSITORY / SANITIZE).read_bytes())
    return tmp_path


def stream(text: str) -> Any:
    return new_output("stream", name="stdout", text=text)


def code(
    name: str, source: str, *outputs: Any, tags: tuple[str, ...] = (), count: int | None = 1
) -> Any:
    cell = new_code_cell(source, outputs=list(outputs), execution_count=count)
    cell["id"] = name
    if tags:
        cell.metadata["tags"] = list(tags)
    return cell


def write(root: Path, name: str, *cells: Any, **metadata: Any) -> Path:
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    node = new_notebook(cells=list(cells), metadata={"kernelspec": kernelspec, **metadata})
    path = root / "notebooks" / f"{name}.ipynb"
    nbformat.write(node, path)
    return path


WARNS = "import warnings; warnings.warn('odd')"
WARNING = f"/tmp/ipykernel_1/2.py:1: UserWarning: odd\n  {WARNS}\n"
DRAWS = "display({'image/png': 'BBBB', 'text/plain': '<a picture>'}, raw=True)"
HTML = "from IPython.display import HTML; HTML('<b>1</b>')"
AS_TEXT = "<IPython.core.display.HTML object>"
TWICE = "import sys\nprint(1)\nprint(2, file=sys.stderr)\nprint(3)"
CLEARS = "from IPython.display import clear_output\nprint(1); clear_output(); print(2)"


def shown(data: dict[str, str]) -> Any:
    return new_output("display_data", data=data)


def result(data: dict[str, str]) -> Any:
    return new_output("execute_result", data=data, execution_count=1)


def raised(value: str) -> Any:
    return new_output("error", ename="KeyError", evalue=value, traceback=[])


def one(path: Path, root: Path, **options: Any) -> Outcome:
    (outcome,) = validate([path], root=root, jobs=1, **options)
    return outcome


def test_a_notebook_that_prints_what_is_stored_passes(root: Path) -> None:
    path = write(
        root,
        "q01_same",
        new_markdown_cell("# A title"),
        code("quick", "print('a' * 3)", stream("aaa\n")),
        code("slow", "import time; time.sleep(0.3)"),
    )
    outcome = one(path, root)
    assert (outcome.state, outcome.error, outcome.differences) == ("passed", "", ())
    assert outcome.slowest_cell == "slow"
    assert 0.3 <= outcome.slowest_seconds < outcome.seconds


def test_another_output_fails_and_both_are_shown(root: Path) -> None:
    path = write(root, "q02_differs", code("sum", "print(1 + 1)", stream("3\n")))
    outcome = one(path, root)
    assert (outcome.state, outcome.failing_cell) == ("failed", "sum")
    (difference,) = outcome.differences
    assert (difference.kind, difference.stored, difference.found) == ("stdout", "3\n", "2\n")


def test_an_exception_fails_with_its_cell_and_traceback_and_ends_the_run(root: Path) -> None:
    path = write(
        root,
        "q03_raises",
        code("raises", "{}['missing']", count=None),
        code("after", "open('touched', 'w')", count=None),
    )
    outcome = one(path, root)
    assert (outcome.state, outcome.failing_cell) == ("failed", "raises")
    assert outcome.error == "KeyError: 'missing'"
    assert "Traceback" in outcome.traceback
    assert "\x1b" not in outcome.traceback
    assert not (path.parent / "touched").exists()


def test_a_cell_that_takes_too_long_fails_and_its_kernel_is_gone(root: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    path = write(root, "q04_loops", code("loop", "while True: pass", count=None))
    outcome = one(path, root, cell_limit_s=1)
    assert (outcome.state, outcome.failing_cell) == ("failed", "loop")
    assert "timed out" in outcome.error
    assert set(psutil.Process().children(recursive=True)) <= before


def test_a_kernel_that_dies_fails_its_cell(root: Path) -> None:
    path = write(root, "q05_dies", code("dies", "import os; os._exit(3)", count=None))
    outcome = one(path, root)
    assert (outcome.state, outcome.failing_cell) == ("failed", "dies")
    assert outcome.error == "the kernel died"


def test_a_kernel_that_does_not_exist_fails_without_a_cell(root: Path) -> None:
    path = write(
        root, "q06_kernel", code("a", "1"), kernelspec={"name": "cobol", "display_name": "C"}
    )
    outcome = one(path, root)
    assert (outcome.state, outcome.failing_cell) == ("failed", None)
    assert "cobol" in outcome.error


def test_validation_and_nbval_agree_cell_by_cell(root: Path) -> None:
    cells = [
        code("same", "print(1)", stream("1\n")),
        code("differs", "print(1)", stream("2\n")),
        code("missing", "pass", stream("2\n")),
        code("unexpected", "print(1)"),
        code("ignored", "print(1)", stream("2\n"), tags=("nbval-ignore-output",)),
        code("ignored-by-comment", "# NBVAL_IGNORE_OUTPUT\nprint(1)", stream("2\n")),
        code("skipped", "# NBVAL_SKIP\nraise SystemError", stream("2\n")),
        code("skipped-by-tag", "raise SystemError", tags=("nbval-skip",)),
        code("never-run", "print(1)", count=None),
        code("unrun-with-output", "print(1)", stream("1\n"), count=None),
        code("address", "print(object())", stream("<object object at 0x7f0123456789>\n")),
        code("warning", WARNS, new_output("stream", name="stderr", text=WARNING)),
        code("picture", DRAWS, shown({"image/png": "AAAA", "text/plain": "<a picture>"})),
        code("result", "6 * 7", result({"text/plain": "42"})),
        code("html", HTML, result({"text/html": "<b>1</b>", "text/plain": AS_TEXT})),
        code("html-differs", HTML, result({"text/html": "<b>2</b>", "text/plain": AS_TEXT})),
        code("two-of-one", "display(1); display(1)", shown({"text/plain": "1"})),
        code("raises", "raise KeyError('a')", raised("'a'"), tags=("raises-exception",)),
        code("raises-another", "raise KeyError('a')", raised("'b'"), tags=("raises-exception",)),
        code(
            "two-streams", TWICE, new_output("stream", name="stderr", text="2\n"), stream("1\n3\n")
        ),
        code("cleared", CLEARS, stream("2\n")),
        code("empty", ""),
    ]
    path = write(root, "q07_corpus", *cells)
    outcome = one(path, root)
    ours = {difference.cell for difference in outcome.differences}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval", "-p", "no:cacheprovider", "-q", "-rA",
         f"--nbval-sanitize-with={root / SANITIZE}", f"--rootdir={root}", str(path)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    numbers = {int(number) for number in re.findall(r"FAILED \S+::Cell (\d+)", run.stdout)}
    theirs = {cells[number]["id"] for number in numbers}
    assert theirs, run.stdout
    assert ours == theirs


def test_parameters_are_injected_under_the_notebooks_own_names_and_outputs_not_compared(
    root: Path,
) -> None:
    path = write(
        root,
        "q08_seed",
        code("parameters", "SEED = 1\nFRAUD_RATE = 0.01", tags=("parameters",)),
        code("shown", "print(SEED)", stream("1\n")),
        code("verdict", "assert (SEED, FRAUD_RATE) == (7, 0.01), SEED"),
    )
    other = write(root, "q09_none", code("shown", "print(1)", stream("1\n")))
    with_seed, without = validate([path, other], root=root, parameters={"seed": 7})
    assert (with_seed.state, with_seed.notes) == ("passed", ())
    assert (without.state, without.notes) == ("passed", ("has no parameter 'seed'",))
    broken = one(path, root, parameters={"seed": 8})
    assert (broken.state, broken.failing_cell) == ("failed", "verdict")


def test_an_unchanged_notebook_is_skipped_and_fresh_runs_it(root: Path) -> None:
    path = write(root, "q10_unchanged", code("a", "print(1)", stream("1\n")))
    states = [one(path, root).state, one(path, root).state, one(path, root, fresh=True).state]
    assert states == ["passed", "skipped-unchanged", "passed"]


def test_a_change_to_what_it_depends_on_runs_it_again(root: Path) -> None:
    path = write(root, "q11_inputs", code("a", "1;"))
    one(path, root)
    (root / "companion" / "room.py").write_text("CHANGED = True\n")
    assert one(path, root).state == "passed"


def test_a_failed_run_is_never_skipped(root: Path) -> None:
    switch = root / "switch"  # not among what it depends on
    source = f"import os; assert not os.path.exists({str(switch)!r})"
    path = write(root, "q14_flaky", code("a", source))
    assert one(path, root).state == "passed"
    switch.touch()
    assert one(path, root, fresh=True).state == "failed"
    switch.unlink()
    assert one(path, root).state == "passed"


def test_several_notebooks_run_at_once_and_come_back_in_order(root: Path) -> None:
    # Each waits for a file that the other makes: one after the other they would wait for ever.
    def meeting(mine: str, other: str) -> str:
        return (
            f"import os, time\nopen({str(root / mine)!r}, 'w').close()\n"
            f"while not os.path.exists({str(root / other)!r}): time.sleep(0.01)"
        )

    second = write(root, "q16_b", code("a", meeting("b", "a")))
    first = write(root, "q15_a", code("a", meeting("a", "b")))
    outcomes = validate([second, first], root=root, jobs=2, cell_limit_s=30)
    assert [outcome.notebook for outcome in outcomes] == [first, second]
    assert {outcome.state for outcome in outcomes} == {"passed"}


def counting(root: Path, name: str, then: str) -> Any:
    """A cell that counts its runs in the file ``name``; ``then`` may use ``runs``."""
    file = str(root / name)
    return code(
        "a",
        f"with open({file!r}, 'a') as f: f.write('x')\nruns = len(open({file!r}).read())\n{then}",
    )


def test_what_fails_beside_others_has_a_second_run_alone(root: Path) -> None:
    calm = write(root, "q50_calm", counting(root, "calm", ""))
    disturbed = write(root, "q51_disturbed", counting(root, "disturbed", "assert runs == 2, 'ow'"))
    broken = write(root, "q52_broken", counting(root, "broken", "assert runs > 9, f'run {runs}'"))
    outcomes = validate([calm, disturbed, broken], root=root, jobs=2)
    assert [outcome.state for outcome in outcomes] == ["passed", "passed", "failed"]
    first, second, third = outcomes
    assert (first.disturbed, first.notes) == ("", ())
    assert second.disturbed == "AssertionError: ow"
    assert second.notes == ("run again, alone; beside others it failed: AssertionError: ow",)
    assert third.error == "AssertionError: run 2"
    assert (root / "calm").read_text() == "x"


def test_one_that_was_alone_anyway_has_no_second_run(root: Path) -> None:
    path = write(root, "q53_alone", counting(root, "alone", "assert runs == 2"))
    (outcome,) = validate([path], root=root, jobs=2)
    assert outcome.state == "failed"
    assert (root / "alone").read_text() == "x"


def test_shards_are_disjoint_complete_and_the_same_every_time(root: Path) -> None:
    paths = [write(root, f"q{number}_x", code("a", "1;")) for number in range(20, 25)]
    validate(paths, root=root)
    shards = [
        [outcome.notebook for outcome in validate(paths[::-1], root=root, shard=(part, 3))]
        for part in (1, 2, 3)
    ]
    assert sorted(path for shard in shards for path in shard) == paths
    assert [len(shard) for shard in shards] == [2, 2, 1]


def test_storing_writes_outputs_without_noise_and_then_agrees(root: Path) -> None:
    path = write(
        root,
        "q17_store",
        new_markdown_cell("# Title"),
        code("first", "print('new')", stream("old\n"), count=12),
        code("widget", "import ipywidgets; ipywidgets.IntSlider(3)", count=None),
        code("blank", " "),
        code("address", "print(object())", stream("<object object at 0x7f0123456789>\n"), count=4),
        widgets={"application/vnd.jupyter.widget-state+json": {"state": {}}},
        papermill={"duration": 1.0},
        language_info={"name": "python", "version": "3.9.1"},
    )
    before = nbformat.read(path, as_version=4)
    assert one(path, root, store=True).state == "passed"
    text = path.read_text()
    after = nbformat.read(path, as_version=4)
    assert [cell["id"] for cell in after.cells] == [cell["id"] for cell in before.cells]
    code_cells = [cell for cell in after.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code_cells] == [1, 2, None, 3]
    assert code_cells[0].outputs[0].text == "new\n"
    assert list(code_cells[1].outputs[0].data) == ["text/plain"]
    assert code_cells[1].outputs[0].execution_count == 2
    assert code_cells[3].outputs == before.cells[4].outputs  # an address alone is no change
    assert not re.search('widget-state|papermill|iopub|version": "3', text)
    assert text.endswith("}\n")
    assert one(path, root).state == "skipped-unchanged"
    assert one(path, root, fresh=True).state == "passed"
    one(path, root, store=True)
    assert path.read_text() == text


def test_nothing_is_stored_from_a_run_that_failed(root: Path) -> None:
    path = write(root, "q18_fails", code("a", "print(1)", count=None), code("b", "1 / 0"))
    text = path.read_text()
    assert one(path, root, store=True).state == "failed"
    assert path.read_text() == text


def test_progress_is_told_cell_by_cell_and_ends_with_the_outcome(root: Path) -> None:
    path = write(root, "q19_told", code("a", "1;"), code("b", "2;"))
    told: list[Progress] = []
    outcome = one(path, root, on_progress=told.append)
    assert [(progress.cell, progress.done, progress.cells) for progress in told[:-1]] == [
        ("a", 0, 2),
        ("b", 1, 2),
    ]
    assert told[-1].outcome == outcome


def test_a_report_is_written_where_it_is_wanted(root: Path) -> None:
    path = write(root, "q26_report", code("a", "print('<b>')", stream("<i>\n")))
    one(path, root, report=root / "build" / "report.html")
    page = (root / "build" / "report.html").read_text()
    assert "q26_report" in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"jobs": 0}, "jobs is 0"),
        ({"shard": (3, 2)}, "no shard 3 of 2"),
        ({"shard": (0, 2)}, "no shard 0 of 2"),
        ({"parameters": {"speed": 1}}, "No notebook .* has a parameter speed"),
        ({"parameters": {"seed": 1}, "store": True}, "not stored"),
    ],
)
def test_a_wrong_request_is_one_sentence_and_starts_nothing(
    root: Path, options: dict[str, Any], sentence: str
) -> None:
    path = write(root, "q27_wrong", code("a", "open('ran', 'w')"))
    with pytest.raises(ValidationError, match=sentence):
        validate([path], root=root, **options)
    assert not (path.parent / "ran").exists()


def test_ctrl_c_shuts_every_kernel_down(root: Path, tmp_path: Path) -> None:
    pids = [tmp_path / f"pid{number}" for number in (1, 2)]
    for number, pid in enumerate(pids):
        source = (
            f"import os, time\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
        )
        write(root, f"q3{number}_sleeps", code("a", source))
    script = tmp_path / "run.py"
    script.write_text(
        "import signal\nfrom pathlib import Path\nfrom companion.study.validation import validate\n"
        # Whoever runs tests in the background hands down an ignored SIGINT.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"root = Path({str(root)!r})\n"
        "validate(sorted(root.glob('notebooks/*.ipynb')), root=root)\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE) as run:
        killer = threading.Timer(90, run.kill)
        killer.start()
        while not all(pid.exists() and pid.read_text() for pid in pids):
            assert run.poll() is None
            time.sleep(0.02)
        run.send_signal(signal.SIGINT)
        _, stderr = run.communicate(timeout=60)
        killer.cancel()
    assert b"KeyboardInterrupt" in stderr
    assert not any(psutil.pid_exists(int(pid.read_text())) for pid in pids)
