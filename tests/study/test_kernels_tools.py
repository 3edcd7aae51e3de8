"""The tools that start kernels use warm ones unchanged: papermill, nbclient, nbval, servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from websockets.sync.client import connect

from companion.study.kernels import spec

LIMIT_S = 90
IS_A_FORK = "import threading; print('lifeline' in [t.name for t in threading.enumerate()])"


def wait_until(true: Callable[[], object], limit_s: float = LIMIT_S) -> None:
    """Wait for another process to get somewhere."""
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.fixture(scope="module", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    prefix = tmp_path_factory.mktemp("prefix")
    spec.install_kernelspec(prefix)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(prefix / "share" / "jupyter"))
        patch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path_factory.mktemp("config")))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path_factory.mktemp("jupyter")))
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        patch.setenv("COMPANION_WARM", "1")
        patch.setenv("COMPANION_WARM_IDLE", "20")
        patch.setenv("COMPANION_WARM_LIBRARIES", "json")
        yield


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    path = tmp_path / "warm.ipynb"
    stored = new_output("stream", name="stdout", text="True\n")
    cell = new_code_cell(IS_A_FORK, execution_count=1, outputs=[stored])
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=[cell], metadata={"kernelspec": kernelspec}), path)
    return path


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def test_papermill(notebook: Path, tmp_path: Path) -> None:
    done = run("papermill", "--no-progress-bar", str(notebook), str(tmp_path / "out.ipynb"))
    assert done.returncode == 0, done.stderr
    (cell,) = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    assert cell.outputs[0].text == "True\n"


def test_nbval_compares_with_the_stored_output(notebook: Path) -> None:
    done = run("pytest", "--nbval", "-q", "-p", "no:cacheprovider", str(notebook))
    assert done.returncode == 0, done.stdout


def test_nbclient_on_the_command_line(notebook: Path) -> None:
    done = run("jupyter", "execute", "--inplace", str(notebook))
    assert done.returncode == 0, done.stderr
    (cell,) = nbformat.read(notebook, as_version=4).cells
    assert cell.outputs[0].text == "True\n"


@contextmanager
def server(*command: str, where: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A server process that is gone afterwards, and the file with what it says."""
    log = where / "server.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=file, stderr=file, text=True, cwd=where
        )
        try:
            yield process, log
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(20)


def jupyter_server(tmp_path: Path) -> Any:
    return server(
        *("jupyter_server", "--no-browser", "--ServerApp.port=0", "--allow-root"),
        *("--IdentityProvider.token=secret", "--MappingKernelManager.shutdown_wait_time=2"),
        where=tmp_path,
    )


def address_of(process: subprocess.Popen[str]) -> str:
    runtime = Path(os.environ["JUPYTER_RUNTIME_DIR"])
    wait_until(lambda: (runtime / f"jpserver-{process.pid}.json").exists())
    time_left = time.monotonic() + LIMIT_S
    while time.monotonic() < time_left:
        info = json.loads((runtime / f"jpserver-{process.pid}.json").read_text())
        if info.get("port"):
            return f"127.0.0.1:{info['port']}"
        time.sleep(0.05)
    raise AssertionError("the server names no port")


class Session:
    """A kernel behind Jupyter's REST interface and websocket, as JupyterLab uses it."""

    def __init__(self, api: httpx.Client, address: str) -> None:
        self.api = api
        self.id = api.post("/api/kernels", json={"name": "python3"}).raise_for_status().json()["id"]
        self.url = f"ws://{address}/api/kernels/{self.id}/channels?token=secret"

    def do(self, what: str) -> None:
        self.api.post(f"/api/kernels/{self.id}/{what}").raise_for_status()

    def run(
        self, code: str, *, until: str, after: str = "stream", then: str = ""
    ) -> dict[str, Any]:
        """Run code until a message of one type; on one of another, do something meanwhile."""
        with connect(self.url, open_timeout=LIMIT_S) as channel:
            content = {
                "code": code,
                "silent": False,
                "store_history": True,
                "user_expressions": {},
                "allow_stdin": False,
                "stop_on_error": False,
            }
            header = {
                "msg_id": os.urandom(8).hex(),
                "msg_type": "execute_request",
                "session": "s",
                "username": "",
                "version": "5.3",
                "date": "2026-01-01T00:00:00Z",
            }
            message = {
                "header": header,
                "parent_header": {},
                "metadata": {},
                "content": content,
                "channel": "shell",
            }
            channel.send(json.dumps(message))
            while True:
                answer = json.loads(channel.recv(timeout=LIMIT_S))
                if answer.get("parent_header", {}).get("msg_id") != header["msg_id"]:
                    continue
                if answer["msg_type"] == until:
                    found: dict[str, Any] = answer["content"]
                    return found
                if then and answer["msg_type"] == after:
                    self.do(then)
                    then = ""


def test_a_jupyter_server_starts_interrupts_restarts_and_ends_warm_kernels(tmp_path: Path) -> None:
    with jupyter_server(tmp_path) as (process, _):
        address = address_of(process)
        headers = {"Authorization": "token secret"}
        with httpx.Client(base_url=f"http://{address}", headers=headers, timeout=LIMIT_S) as api:
            session = Session(api, address)
            assert session.run(IS_A_FORK, until="stream")["text"].strip() == "True"
            pid = int(session.run("import os; print(os.getpid())", until="stream")["text"])

            looping = "print('begun', flush=True)\nwhile True: pass"
            error = session.run(looping, until="error", then="interrupt")
            assert error["ename"] == "KeyboardInterrupt"

            session.do("restart")
            wait_until(lambda: not psutil.pid_exists(pid))
            second = int(session.run("import os; print(os.getpid())", until="stream")["text"])
            assert second != pid

            os.kill(second, signal.SIGKILL)  # the server notices and starts another
            wait_until(lambda: not psutil.pid_exists(second))
            wait_until(
                lambda: (
                    api.get(f"/api/kernels/{session.id}").json().get("execution_state")
                    in ("starting", "idle")
                )
            )
            third = int(session.run("import os; print(os.getpid())", until="stream")["text"])
            assert third != second

            api.delete(f"/api/kernels/{session.id}").raise_for_status()
            wait_until(lambda: not psutil.pid_exists(third))


def test_voila_renders_from_a_warm_kernel(notebook: Path, tmp_path: Path) -> None:
    voila = ("voila", "--no-browser", "--port=0", "--Voila.ip=127.0.0.1", str(notebook))
    with server(*voila, where=tmp_path) as (process, log):
        port = listening_port(process, log)
        page = httpx.get(f"http://127.0.0.1:{port}/", timeout=LIMIT_S, follow_redirects=True)
        assert page.status_code == 200, log.read_text()
        assert "<pre>True" in page.text


def listening_port(process: subprocess.Popen[str], log: Path) -> int:
    found: list[int] = []

    def listens() -> bool:
        assert process.poll() is None, log.read_text()
        connections = psutil.Process(process.pid).net_connections("tcp")
        found[:] = [c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN]
        return bool(found)

    wait_until(listens)
    return found[0]
