"""Real subprocesses: started, ready, killed, and never left behind."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request
from pathlib import Path

import psutil
import pytest

from companion.instruments import FakeClock, ServerNotReadyError, SubprocessServer, free_port

HTTP_SERVER = """
import http.server, os, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(self.path.strip("/") or 200))
        self.end_headers()
        self.wfile.write(os.environ.get("GREETING", "hello").encode())
def bye(*_):
    print("bye", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, bye)
print("up in", os.getcwd(), flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]


def http_server(**settings: object) -> tuple[SubprocessServer, str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    return SubprocessServer(python(HTTP_SERVER, port), url, **settings), url  # type: ignore[arg-type]


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
        return body


def wait_until_gone(pid: int) -> None:
    """Wait for the end of a process that is not our child; fails after a generous time."""
    try:
        psutil.Process(pid).wait(timeout=30)
    except psutil.NoSuchProcess:
        return


def test_it_is_ready_inside_the_block_and_gone_after_it() -> None:
    server, url = http_server()
    with server:
        pid = server.pid
        assert pid is not None
        assert get(url) == b"hello"
    assert server.pid is None
    assert not psutil.pid_exists(pid)
    with pytest.raises(OSError):
        get(url)


def test_it_gets_its_environment_and_its_folder(tmp_path: Path) -> None:
    server, url = http_server(env={"GREETING": "good day"}, cwd=tmp_path)
    with server:
        assert get(url) == b"good day"
        assert f"up in {tmp_path}" in server.log()


def test_an_exception_in_the_block_stops_it() -> None:
    server, _ = http_server()
    pids = []

    def fails() -> None:
        with server:
            pids.append(server.pid)
            raise LookupError

    with pytest.raises(LookupError):
        fails()
    assert not psutil.pid_exists(pids[0])


def test_terminate_lets_it_say_goodbye() -> None:
    server, _ = http_server()
    with server:
        assert server.terminate() == 0
        assert server.log().endswith("bye\n")


def test_kill_gives_it_no_chance() -> None:
    server, url = http_server()
    with server:
        assert server.kill() == -signal.SIGKILL
        assert server.pid is None
        assert "bye" not in server.log()
        with pytest.raises(OSError):
            get(url)


def test_what_ignores_the_request_to_end_is_killed() -> None:
    stubborn = "import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=True); "
    server = SubprocessServer(
        python(stubborn + "signal.pause()"), ready=lambda: "up" in server.log()
    )
    with server:
        assert server.terminate(grace=0.0) == -signal.SIGKILL


def test_restart_gives_a_new_process_and_keeps_the_log() -> None:
    server, url = http_server()
    with server:
        before = server.pid
        server.restart()
        assert server.pid not in (before, None)
        assert get(url) == b"hello"
        server.kill()
        server.restart()
        assert get(url) == b"hello"
        assert server.log().count("up in") == 3


def test_its_children_are_killed_with_it() -> None:
    parent = """
        import subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        print("child", child.pid, flush=True)
        time.sleep(3600)
    """
    server = SubprocessServer(python(parent), ready=lambda: server.log().endswith("\n"))
    with server:
        child = int(server.log().split()[1])
        assert psutil.pid_exists(child)
        server.kill()
    wait_until_gone(child)


# ----- the owner dies ---------------------------------------------------------------------------

OWNER = """
import os, signal, sys
from companion.instruments import SubprocessServer
server = SubprocessServer(
    [sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()"],
    ready=lambda: "up" in server.log(),
)
server.start()
print(server.pid, flush=True)
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("", 0),
        ("raise LookupError", 1),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    ],
    ids=["ends", "fails", "is killed"],
)
def test_it_does_not_outlive_an_owner_who(end: str, code: int) -> None:
    owner = subprocess.run(
        python(OWNER + end), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60
    )
    assert owner.returncode == code
    wait_until_gone(int(owner.stdout))


# ----- not ready --------------------------------------------------------------------------------


def test_a_server_that_ends_before_it_is_ready_is_reported_with_its_last_words() -> None:
    server = SubprocessServer(
        python("import sys; print('no model file'); sys.exit(3)"), ready=lambda: False
    )
    with pytest.raises(ServerNotReadyError, match="ended with code 3") as failed:
        server.start()
    assert failed.value.exit_code == 3
    assert failed.value.log_tail == "no model file"
    assert "no model file" in str(failed.value)


def test_a_server_that_stays_unready_is_killed_when_time_is_up() -> None:
    clock = FakeClock()
    pids: list[int] = []
    server = SubprocessServer(
        python("import signal; signal.pause()"),
        ready=lambda: pids.append(server.pid or 0),
        timeout=5.0,
        clock=clock,
        sleep=lambda seconds: clock.sleep(1.0),
    )
    with pytest.raises(ServerNotReadyError, match=r"was not ready after 5\.0 s") as failed:
        server.start()
    assert failed.value.exit_code is None
    assert "(it wrote nothing)" in str(failed.value)
    assert len(pids) == 6
    assert not psutil.pid_exists(pids[0])


def test_an_interrupt_while_it_starts_kills_it() -> None:
    pids: list[int] = []

    def interrupt() -> bool:
        pids.append(server.pid or 0)
        raise KeyboardInterrupt

    server = SubprocessServer(python("import signal; signal.pause()"), ready=interrupt)
    with pytest.raises(KeyboardInterrupt):
        server.start()
    assert not psutil.pid_exists(pids[0])


def test_a_url_that_answers_with_an_error_is_not_ready() -> None:
    port = free_port()
    server = SubprocessServer(
        python(HTTP_SERVER, port), f"http://127.0.0.1:{port}/503", timeout=0.5
    )
    with pytest.raises(ServerNotReadyError):
        server.start()


def test_something_that_does_not_speak_http_is_not_ready() -> None:
    port = free_port()
    chatter = """
        import socket, sys
        listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
        while True:
            visitor, _ = listener.accept()
            visitor.recv(1000)
            visitor.sendall(b"220 smtp here\\r\\n")
            visitor.close()
    """
    server = SubprocessServer(python(chatter, port), f"http://127.0.0.1:{port}/", timeout=0.5)
    with pytest.raises(ServerNotReadyError):
        server.start()


def test_a_proxy_in_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    server, _ = http_server(timeout=20.0)
    with server:
        assert server.pid is not None


# ----- misuse -----------------------------------------------------------------------------------


def test_it_cannot_be_started_twice() -> None:
    server, _ = http_server()
    with server, pytest.raises(RuntimeError, match="runs already"):
        server.start()


def test_a_command_that_does_not_exist_is_an_os_error() -> None:
    with pytest.raises(FileNotFoundError):
        SubprocessServer(["no-such-command-here"], ready=lambda: True).start()


def test_stopping_what_never_started_does_nothing() -> None:
    server = SubprocessServer(["no-such-command-here"], ready=lambda: True)
    assert server.pid is None
    assert server.terminate() is None
    assert server.kill() is None
    assert server.log() == ""


def test_a_free_port_can_be_bound() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        assert listener.getsockname()[1] > 0
