"""Warm kernels seen from Jupyter: real kernels, forked from a template with few libraries."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager, KernelManager

from companion.study.kernels import client, provisioner, spec
from companion.study.kernels.process import UNKNOWN_EXIT, ForkedKernel

LIMIT_S = 60


def wait_until(true: Callable[[], object], limit_s: float = 30.0) -> None:
    """Wait for another process to get somewhere."""
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def template_pids(runtime: Path) -> list[int]:
    """The templates of this folder that got ready and live; each says so in its log."""
    logs = "\n".join(path.read_text() for path in (runtime / "companion").glob("*.log"))
    ready = (int(pid) for pid in re.findall(r"^(\d+) ready", logs, re.MULTILINE))
    return sorted(pid for pid in ready if psutil.pid_exists(pid))


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("prefix")
    spec.install_kernelspec(prefix)
    return prefix


@pytest.fixture(scope="module")
def runtime() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="run-") as name:
        folder = Path(name)
        yield folder
        for pid in template_pids(folder):
            os.kill(pid, signal.SIGTERM)


@pytest.fixture(autouse=True)
def environment(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("COMPANION_WARM", "1")
    monkeypatch.setenv("COMPANION_WARM_IDLE", "60")
    monkeypatch.setenv("COMPANION_WARM_LIBRARIES", "numpy,numpy.random,psutil")
    monkeypatch.setattr(provisioner, "_said", set())
    monkeypatch.setattr(provisioner, "_silent", [])


class Running:
    """A kernel, its manager and a client, as a test wants them."""

    def __init__(self, manager: KernelManager) -> None:
        self.manager = manager
        self.client: BlockingKernelClient = manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=LIMIT_S)

    @property
    def process(self) -> Any:
        return self.manager.provisioner.process  # type: ignore[union-attr]

    def run(self, code: str) -> str:
        """Run code; returns what it printed, or the name of its error."""
        seen: list[str] = []

        def note(message: dict[str, Any]) -> None:
            content = message["content"]
            seen.append(content.get("text") or content.get("ename") or "")

        self.client.execute_interactive(code, timeout=LIMIT_S, output_hook=note)
        return "".join(seen)


@contextmanager
def kernel(prefix: Path, **options: Any) -> Iterator[Running]:
    specs = KernelSpecManager(kernel_dirs=[str(prefix / "share" / "jupyter" / "kernels")])
    manager = KernelManager(kernel_name="python3", kernel_spec_manager=specs)
    manager.start_kernel(**options)
    running = Running(manager)
    try:
        yield running
    finally:
        running.client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_a_kernel_is_a_fork_with_the_libraries_imported_and_without_companion(prefix: Path) -> None:
    with kernel(prefix) as warm:
        loaded = warm.run("import sys; print('numpy' in sys.modules, 'companion' in sys.modules)")
        assert isinstance(warm.process, ForkedKernel)
    assert loaded.strip() == "True False"


def test_an_edited_module_counts_in_the_next_kernel(prefix: Path, tmp_path: Path) -> None:
    module = tmp_path / "mine.py"
    module.write_text("ANSWER = 'before'\n")
    with kernel(prefix, cwd=str(tmp_path)) as first:
        before = first.run("import mine; print(mine.ANSWER)")
    module.write_text("ANSWER = 'after it was edited'\n")
    with kernel(prefix, cwd=str(tmp_path)) as second:
        after = second.run("import mine; print(mine.ANSWER)")
    assert (before.strip(), after.strip()) == ("before", "after it was edited")


def test_a_warm_kernel_sees_what_an_ordinary_one_sees(
    prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = """
import json, os, signal, sys
print(json.dumps({
    "path": sys.path, "argv0": sys.argv[0], "executable": sys.executable, "flags": str(sys.flags),
    "cwd": os.getcwd(), "leader": os.getsid(0) == os.getpgid(0) == os.getpid(),
    "environment": {k: v for k, v in os.environ.items() if k != "COMPANION_WARM"},
    "handlers": [str(signal.getsignal(n)) for n in (signal.SIGCHLD, signal.SIGTERM)],
    "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "stdin": sys.__stdin__.read(), "backend": os.environ["MPLBACKEND"],
}))
"""
    seen = []
    for warm in ("1", "0"):
        monkeypatch.setenv("COMPANION_WARM", warm)
        monkeypatch.setenv("ONLY_HERE", "ä=1")
        with kernel(prefix, cwd=str(tmp_path)) as running:
            assert isinstance(running.process, ForkedKernel) == (warm == "1")
            seen.append(json.loads(running.run(look)))
    assert seen[0] == seen[1]


def test_matplotlib_draws_in_the_notebook(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPANION_WARM_LIBRARIES", "matplotlib.pyplot")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    with kernel(prefix) as warm:
        images: list[str] = []
        warm.client.execute_interactive(
            "import matplotlib.pyplot as plt; plt.plot([1, 2]);",
            timeout=LIMIT_S,
            output_hook=lambda message: images.extend(message["content"].get("data", {})),
        )
    assert "image/png" in images


def test_a_logging_handler_made_at_import_writes_into_the_notebook(
    prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "chatty.py").write_text(
        "import logging\n"
        "log = logging.getLogger('chatty')\n"
        "log.addHandler(logging.StreamHandler())\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("COMPANION_WARM_LIBRARIES", "chatty")
    with kernel(prefix) as warm:
        said = warm.run("import chatty; chatty.log.warning('heard in the cell')")
    assert said.strip() == "heard in the cell"


def test_random_numbers_differ_between_kernels(prefix: Path) -> None:
    draws = []
    for _ in range(2):
        with kernel(prefix) as warm:
            draws.append(
                warm.run(
                    "import random, numpy; print(random.random(), numpy.random.rand())"
                ).split()
            )
    assert draws[0][0] != draws[1][0]
    assert draws[0][1] != draws[1][1]


def test_an_endless_cell_can_be_interrupted(prefix: Path) -> None:
    with kernel(prefix) as warm:
        warm.client.execute("print('begun', flush=True)\nwhile True: pass", stop_on_error=False)
        while (message := warm.client.get_iopub_msg(timeout=LIMIT_S))["msg_type"] != "stream":
            pass
        warm.manager.interrupt_kernel()
        while (message := warm.client.get_iopub_msg(timeout=LIMIT_S))["msg_type"] != "error":
            pass
        assert message["content"]["ename"] == "KeyboardInterrupt"
        assert warm.run("print('still here')").strip() == "still here"


def test_restart_gives_a_fresh_kernel_with_the_same_connection(prefix: Path) -> None:
    with kernel(prefix) as warm:
        pid = warm.process.pid
        warm.run("kept = 1")
        warm.manager.restart_kernel()
        warm.client.wait_for_ready(timeout=LIMIT_S)
        assert warm.process.pid != pid
        assert warm.run("kept") == "NameError"
    assert not psutil.pid_exists(pid)


def test_polite_shutdown_ends_the_kernel_with_status_zero(prefix: Path) -> None:
    with kernel(prefix) as warm:
        process = warm.process
        warm.manager.shutdown_kernel()
    assert process.returncode == 0
    assert not psutil.pid_exists(process.pid)


def test_a_polite_end_runs_exit_handlers_waits_for_threads_and_flushes_files(
    prefix: Path, tmp_path: Path
) -> None:
    with kernel(prefix, cwd=str(tmp_path)) as warm:
        warm.run(
            "import atexit, threading, time\n"
            "left_open = open('left_open', 'w'); left_open.write('all of it')\n"
            "atexit.register(lambda: open('exit_handler', 'w').close())\n"
            "def late(): time.sleep(0.3); open('thread', 'w').close()\n"
            "threading.Thread(target=late).start()"
        )
        warm.manager.shutdown_kernel()
    assert (tmp_path / "left_open").read_text() == "all of it"
    assert (tmp_path / "exit_handler").exists()
    assert (tmp_path / "thread").exists()


@pytest.mark.parametrize(
    ("crash", "status"),
    [
        ("import os; os._exit(7)", 7),
        ("import ctypes; ctypes.string_at(0)", -signal.SIGSEGV),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    ],
)
def test_a_crash_is_reported_and_harms_no_other_kernel(
    prefix: Path, runtime: Path, crash: str, status: int
) -> None:
    with kernel(prefix) as crashing, kernel(prefix) as other:
        templates = template_pids(runtime)
        process = crashing.process
        crashing.client.execute(crash)
        assert process.wait(LIMIT_S) == status
        assert not crashing.manager.is_alive()
        assert other.run("print(1)").strip() == "1"
        assert template_pids(runtime) == templates
    with kernel(prefix) as later:
        assert isinstance(later.process, ForkedKernel)


def test_no_zombie_is_left_by_the_template(prefix: Path, runtime: Path) -> None:
    with kernel(prefix) as warm:
        (parent,) = {psutil.Process(warm.process.pid).ppid()}
    wait_until(lambda: not psutil.Process(parent).children())
    assert parent in template_pids(runtime)


def test_a_kernel_ends_when_its_requester_is_killed(prefix: Path, tmp_path: Path) -> None:
    script = tmp_path / "requester.py"
    script.write_text(
        "import sys, time\n"
        "from jupyter_client.kernelspec import KernelSpecManager\n"
        "from jupyter_client.manager import KernelManager\n"
        "specs = KernelSpecManager(kernel_dirs=[sys.argv[1]])\n"
        "manager = KernelManager(kernel_name='python3', kernel_spec_manager=specs)\n"
        "manager.start_kernel()\n"
        "print(type(manager.provisioner.process).__name__, manager.provisioner.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, str(script), str(prefix / "share" / "jupyter" / "kernels")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as requester:
        assert requester.stdout
        kind, pid = requester.stdout.readline().split()
        assert kind == "ForkedKernel"
        assert psutil.pid_exists(int(pid))
        requester.kill()
    wait_until(lambda: not psutil.pid_exists(int(pid)))


def test_kernels_outlive_a_killed_template_and_the_next_one_starts_another(
    prefix: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPANION_WARM_LIBRARIES", "wave")  # one of our own
    with kernel(prefix) as orphan:
        template = psutil.Process(orphan.process.pid).ppid()
        os.kill(template, signal.SIGKILL)
        wait_until(lambda: psutil.Process(orphan.process.pid).ppid() != template)
        assert orphan.run("print(1)").strip() == "1"
        assert orphan.manager.is_alive()
        with kernel(prefix) as fresh:
            assert isinstance(fresh.process, ForkedKernel)
            assert psutil.Process(fresh.process.pid).ppid() != template
        process = orphan.process
        orphan.manager.shutdown_kernel(now=True)
        assert process.returncode == UNKNOWN_EXIT


def test_sockets_and_connection_files_are_private(prefix: Path, runtime: Path) -> None:
    with kernel(prefix) as warm:
        connection_file = Path(warm.manager.connection_file)
        modes = {stat.S_IMODE(path.stat().st_mode) for path in (runtime / "companion").iterdir()}
        assert modes == {0o600}
        assert stat.S_IMODE((runtime / "companion").stat().st_mode) == 0o700
        assert stat.S_IMODE(connection_file.stat().st_mode) == 0o600


def test_what_a_kernel_sends_is_encrypted_and_it_does_not_warn(
    prefix: Path, tmp_path: Path
) -> None:
    with (tmp_path / "stderr").open("w+") as stderr:
        with kernel(prefix, stderr=stderr) as warm:
            connection = json.loads(Path(warm.manager.connection_file).read_text())
            warm.run("import os; os.write(2, b'raw')")
        stderr.seek(0)
        said = stderr.read()
    assert connection["curve_publickey"]
    assert "encryption" not in said


def test_stdio_goes_where_the_caller_wants_it(prefix: Path, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w+") as out:
        with kernel(prefix, stdout=out, stderr=subprocess.DEVNULL) as warm:
            warm.run("import sys; print('to the file', file=sys.__stdout__, flush=True)")
            descriptor = warm.run("import os; print(os.readlink('/proc/self/fd/0'))")
        assert descriptor.strip() == "/dev/null"


def test_a_kernel_can_be_told_to_outlive_its_requester(prefix: Path) -> None:
    with kernel(prefix, independent=True) as warm:
        names = warm.run(
            "import os, threading\n"
            "print([t.name for t in threading.enumerate()], os.environ.get('JPY_PARENT_PID'))"
        )
    assert "lifeline" not in names
    assert "None" in names


def test_the_session_name_and_the_requester_reach_the_kernel(
    prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "notebooks/q23.ipynb")
    with kernel(prefix) as warm:
        seen = warm.run("import os; print(os.environ['JPY_PARENT_PID'], __session__)")
    assert seen.split() == [str(os.getpid()), "notebooks/q23.ipynb"]


def test_forked_workers_of_a_kernel_do_not_keep_it_alive(prefix: Path) -> None:
    with kernel(prefix) as warm:
        total = warm.run(
            "import multiprocessing as mp\n"
            "with mp.get_context('fork').Pool(2) as pool: print(sum(pool.map(abs, [-1, -2])))"
        )
        assert total.strip() == "3"


@pytest.mark.parametrize(
    ("change", "options"),
    [
        ({"COMPANION_WARM": "0"}, {}),
        ({}, {"stdout": subprocess.PIPE}),
        ({}, {"preexec_fn": None}),
    ],
    ids=["switched off", "a pipe is wanted", "an option a fork cannot honour"],
)
def test_an_ordinary_kernel_starts_where_a_fork_is_not_wanted_or_cannot_do_it(
    prefix: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], options: dict[str, Any]
) -> None:
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    with kernel(prefix, **options) as ordinary:
        assert isinstance(ordinary.process, subprocess.Popen)
        assert ordinary.run("print(1)").strip() == "1"


def test_a_missing_folder_is_the_error_it_always_was(prefix: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), kernel(prefix, cwd=str(tmp_path / "missing")):
        pass


def test_where_the_platform_cannot_fork_the_kernel_is_ordinary(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = [sys.executable, *provisioner.LAUNCHER, "-f", "x.json"]
    assert provisioner.forkable(command, {})
    monkeypatch.delattr(os, "fork")
    assert not provisioner.forkable(command, {})


def test_another_interpreter_or_launcher_is_not_forked() -> None:
    assert not provisioner.forkable(["/usr/bin/python0", *provisioner.LAUNCHER], {})
    assert not provisioner.forkable([sys.executable, "-m", "xeus"], {})


def test_a_template_that_cannot_start_is_reported_once_and_ordinary_kernels_go_on(
    prefix: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise client.TemplateError("no room")

    monkeypatch.setattr(client, "request", refuse)
    for _ in range(2):
        with kernel(prefix) as ordinary:
            assert isinstance(ordinary.process, subprocess.Popen)
    assert capfd.readouterr().err.count("ordinary one: no room") == 1


def test_a_silent_template_is_waited_for_only_once(
    prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def keep_waiting(*_: object, **__: object) -> None:
        asked.append(1)
        raise client.TemplateSilentError("no answer within 120 s")

    monkeypatch.setattr(client, "request", keep_waiting)
    for _ in range(2):
        with kernel(prefix) as ordinary:
            assert isinstance(ordinary.process, subprocess.Popen)
    assert asked == [1]


def test_a_kernel_whose_start_is_cancelled_is_ended(prefix: Path) -> None:
    forked: list[ForkedKernel] = []
    ask = provisioner.fork_kernel

    def slow(command: list[str], options: dict[str, Any]) -> ForkedKernel:
        time.sleep(0.5)  # long enough for the cancellation to come first
        forked.append(ask(command, options))
        return forked[0]

    async def cancel() -> None:
        specs = KernelSpecManager(kernel_dirs=[str(prefix / "share" / "jupyter" / "kernels")])
        manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs)
        start = asyncio.ensure_future(manager.start_kernel())
        await asyncio.sleep(0.1)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        while not forked:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provisioner, "fork_kernel", slow)
        asyncio.run(cancel())
    assert forked[0].wait(LIMIT_S) == -signal.SIGKILL
