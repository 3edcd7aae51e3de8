"""Cold and warm kernels, one at a time and in a set of ten notebooks.

*Cold* is an ordinary kernel, which imports its libraries itself (``COMPANION_WARM=0``). *Warm* is a
fork of a template that has imported them; the template is running already, and what its own start
costs is a row of its own. Files of the libraries are in the page cache in both cases: the first
start of the template reads them.

Ratios are to the cold kernel, and to plain ``pytest --nbval`` for the set. Takes four minutes.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import psutil
from jupyter_client.manager import KernelManager
from nbformat.v4 import new_code_cell, new_notebook, new_output

from companion.instruments.benchmark import Row, side_by_side
from companion.study.kernels.spec import install_kernelspec

TITLE = "Warm kernels"
IMPORTS = "import torch, sklearn.ensemble, skorch, optuna, shap, mlflow, fastapi, pandas"
WORK_S = 0.3
NOTEBOOKS = 10
ROUNDS = 3
LIMIT_S = 600
COLD, WARM = {"COMPANION_WARM": "0"}, {"COMPANION_WARM": "1"}


def run() -> list[Row]:
    """Measure, with kernels, templates and notebooks of our own in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="kernels-") as name:
        folder = Path(name)
        with _own_surroundings(folder):
            return [*_one_kernel(), *_set_of_notebooks(folder / "set")]


def _one_kernel() -> list[Row]:
    template_s, _ = _start_and_import(WARM)
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    memory: dict[str, float] = {}

    def measure(name: str, environment: dict[str, str]) -> None:
        taken, memory[name] = _start_and_import(environment)
        seconds[name].append(taken)

    # Taking turns is side_by_side's; the time up to the last import is what counts, not its whole.
    side_by_side(
        {"cold": lambda: measure("cold", COLD), "warm": lambda: measure("warm", WARM)},
        rounds=ROUNDS,
    )
    cold, warm = (statistics.median(seconds[name]) for name in ("cold", "warm"))
    what = "from starting a kernel to eight libraries imported"
    own = "memory of a kernel's own, with the eight libraries"
    return [
        Row(what, "cold", cold, "s", 1.0),
        Row(what, "warm", warm, "s", cold / warm, "≥ 8× faster than cold"),
        Row(
            "the first kernel, which starts the template",
            "warm",
            template_s,
            "s",
            cold / template_s,
        ),
        Row(own, "cold", memory["cold"], "MB", 1.0),
        Row(own, "warm", memory["warm"], "MB", memory["cold"] / memory["warm"]),
    ]


def _set_of_notebooks(folder: Path) -> list[Row]:
    paths = _write_notebooks(folder / "notebooks")
    nbval = [sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider"]
    script = (
        "import sys; from pathlib import Path; from companion.study.validation import validate\n"
        "root = Path(sys.argv[1])\n"
        "paths, jobs = sorted(root.rglob('*.ipynb')), int(sys.argv[2])\n"
        "outcomes = validate(paths, root=root, jobs=jobs, fresh=True)\n"
        "sys.exit(any(outcome.state != 'passed' for outcome in outcomes))"
    )
    # Once each: three minutes of cold imports average over their own noise.
    nbval_s = _timed([[*nbval, f"--rootdir={folder}", str(folder / "notebooks")]], COLD)
    papermill = [sys.executable, "-m", "papermill", "--no-progress-bar"]
    papermill_s = _timed([[*papermill, str(path), os.devnull] for path in paths], COLD)

    def validate_s(jobs: int) -> float:
        command = [sys.executable, "-c", script, str(folder), str(jobs)]
        return statistics.median(_timed([command], WARM) for _ in range(ROUNDS))

    # A kernel waits for half of its life, so small notebooks gain from more of them than cores.
    two, four = validate_s(2), validate_s(4)
    what = f"{NOTEBOOKS} notebooks of {WORK_S} s of work each"
    return [
        Row(what, "pytest --nbval, cold", nbval_s, "s", 1.0),
        Row(what, "papermill one by one, cold", papermill_s, "s", nbval_s / papermill_s),
        Row(what, "validate, warm, two jobs", two, "s", nbval_s / two),
        Row(
            what,
            "validate, warm, four jobs",
            four,
            "s",
            nbval_s / four,
            "≥ 10× faster than nbval",
        ),
    ]


def _start_and_import(environment: dict[str, str]) -> tuple[float, float]:
    """Seconds from starting a kernel to the imports done, and its own memory then in MB."""
    began = time.perf_counter()
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env=os.environ | environment)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=LIMIT_S)
        reply = client.execute_interactive(IMPORTS, timeout=LIMIT_S, output_hook=lambda _: None)
        seconds = time.perf_counter() - began
        if reply["content"]["status"] != "ok":
            raise RuntimeError(f"the imports failed: {reply['content']['evalue']}")
        assert manager.provisioner is not None
        process = psutil.Process(manager.provisioner.pid)
        return seconds, process.memory_full_info().uss / 1e6
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def _timed(commands: list[list[str]], environment: dict[str, str]) -> float:
    began = time.perf_counter()
    for command in commands:
        done = subprocess.run(
            command,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{command} failed:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - began


def _write_notebooks(folder: Path) -> list[Path]:
    work = (
        "import time\n"
        f"end = time.perf_counter() + {WORK_S}\n"
        "while time.perf_counter() < end: pass\n"
        "print('done')"
    )
    folder.mkdir(parents=True)
    paths = []
    for number in range(NOTEBOOKS):
        done = new_output("stream", name="stdout", text="done\n")
        cells = [
            new_code_cell(IMPORTS, execution_count=1),
            new_code_cell(work, execution_count=2, outputs=[done]),
        ]
        kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        node = new_notebook(cells=cells, metadata={"kernelspec": kernelspec})
        paths.append(folder / f"q{number:02d}_generated.ipynb")
        nbformat.write(node, paths[-1])
    return paths


@contextmanager
def _own_surroundings(folder: Path) -> Iterator[None]:
    """A kernelspec and a socket folder of our own; the templates in it end with the benchmark."""
    install_kernelspec(folder / "prefix")
    runtime = folder / "run"
    runtime.mkdir(mode=0o700)
    before = dict(os.environ)
    os.environ["JUPYTER_PATH"] = str(folder / "prefix" / "share" / "jupyter")
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        for process in psutil.process_iter(["cmdline"]):
            if any(part.startswith(str(runtime)) for part in process.info["cmdline"] or ()):
                process.send_signal(signal.SIGTERM)


if __name__ == "__main__":
    for row in run():
        print(json.dumps(row.__dict__))
