"""Running a server for one person: ports, browsers, tokens, and how it ends."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import webbrowser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from companion.cli import servers
from companion.cli.errors import CommandError
from companion.cli.servers import LOOPBACK, Server, choose_port, find_browser, new_token, serve

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def taken_port():
    with socket.socket() as holder:
        holder.bind((LOOPBACK, 0))
        holder.listen()
        yield holder.getsockname()[1]


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def test_the_usual_port_is_used_when_it_is_free(free_port):
    assert choose_port(None, free_port) == (free_port, "")


def test_a_taken_usual_port_is_replaced_with_a_sentence(taken_port):
    port, remark = choose_port(None, taken_port)
    assert port != taken_port
    assert remark == f"Port {taken_port} is taken by another program, so this one uses {port}."


def test_a_taken_port_that_was_asked_for_is_an_error(taken_port, free_port):
    with pytest.raises(CommandError, match=f"Port {taken_port} is taken by another program"):
        choose_port(taken_port, free_port)


def test_a_free_port_that_was_asked_for_is_used(taken_port, free_port):
    assert choose_port(free_port, taken_port) == (free_port, "")


def test_no_two_tokens_are_alike():
    assert len({new_token() for _ in range(100)}) == 100


def test_there_is_no_browser_without_a_screen(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    assert find_browser({}) is None


def test_the_screens_browser_is_found(monkeypatch):
    browser = webbrowser.GenericBrowser("shown")
    monkeypatch.setattr(webbrowser, "get", lambda: browser)
    assert find_browser({"DISPLAY": ":0"}) is browser


def test_a_screen_without_a_browser_has_none(monkeypatch):
    def none():
        raise webbrowser.Error

    monkeypatch.setattr(webbrowser, "get", none)
    assert find_browser({"WAYLAND_DISPLAY": "wayland-0"}) is None


def file_server(port, token="secret"):
    command = [sys.executable, "-m", "http.server", str(port), "--bind", LOOPBACK]
    return Server("The server", command, {}, port, token, "/here")


class StoppingBrowser:
    """Opens a page by noting it, then stops the program as Ctrl-C or a shutdown would."""

    def __init__(self, number):
        self.number = number
        self.page = ""
        self.mode = 0

    def open(self, uri):
        path = Path(unquote(urlsplit(uri).path))
        self.page, self.mode = path.read_text(), path.stat().st_mode & 0o777
        signal.raise_signal(self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_signal_ends_the_server_and_is_no_error(free_port, monkeypatch, capsys, number):
    monkeypatch.setattr(servers, "find_browser", lambda: StoppingBrowser(number))
    before = signal.getsignal(number)
    serve(file_server(free_port))
    assert "The server has stopped." in capsys.readouterr().out
    assert signal.getsignal(number) is before
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection(LOOPBACK, free_port, timeout=5).connect()


def test_the_browser_gets_the_address_through_a_private_file(free_port, monkeypatch, capsys):
    browser = StoppingBrowser(signal.SIGINT)
    monkeypatch.setattr(servers, "find_browser", lambda: browser)
    serve(file_server(free_port))
    address = f"http://127.0.0.1:{free_port}/here?token=secret"
    assert f"url={address}" in browser.page
    assert browser.mode == 0o600
    assert address in capsys.readouterr().out


def test_without_a_browser_the_address_is_printed_and_it_says_so(free_port, monkeypatch, capsys):
    monkeypatch.setattr(servers, "find_browser", lambda: None)
    monkeypatch.setattr(servers, "_announce", stopping_after(servers._announce, signal.SIGINT))
    serve(file_server(free_port))
    said = capsys.readouterr().out
    assert f"http://127.0.0.1:{free_port}/here?token=secret" in said
    assert "No browser was found on this machine" in said


def stopping_after(function, number):
    def wrapped(*arguments, **options):
        function(*arguments, **options)
        signal.raise_signal(number)

    return wrapped


def test_a_server_that_does_not_start_says_why(free_port):
    command = [sys.executable, "-c", "raise SystemExit('no such option')"]
    broken = Server("The server", command, {}, free_port, "t", "/")
    with pytest.raises(CommandError, match=r"did not start:\n  no such option"):
        serve(broken)


def test_a_server_that_never_answers_is_ended(free_port, monkeypatch):
    monkeypatch.setattr(servers, "SECONDS_TO_START", 0.0)
    silent = [sys.executable, "-c", "import time; time.sleep(60)"]
    with pytest.raises(CommandError, match=r"did not answer within 0 s:\n  \(it said nothing\)"):
        serve(Server("The server", silent, {}, free_port, "t", "/"))


def test_a_server_that_dies_later_is_an_error(free_port, monkeypatch):
    dying = (
        f"import socket; s = socket.create_server(('{LOOPBACK}', {free_port})); s.accept(); "
        "raise SystemExit('out of memory')"
    )
    monkeypatch.setattr(servers, "find_browser", lambda: None)
    with pytest.raises(CommandError, match=r"ended by itself:\n  out of memory"):
        serve(Server("The server", [sys.executable, "-c", dying], {}, free_port, "t", "/"))


def test_a_server_that_ignores_the_signal_is_killed(free_port, monkeypatch):
    stubborn = (
        "import signal, socket; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        f"s = socket.create_server(('{LOOPBACK}', {free_port}))\nwhile True: s.accept()"
    )
    monkeypatch.setattr(servers, "SECONDS_TO_STOP", 0.1)
    monkeypatch.setattr(servers, "find_browser", lambda: StoppingBrowser(signal.SIGINT))
    serve(Server("The server", [sys.executable, "-c", stubborn], {}, free_port, "t", "/"))
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection(LOOPBACK, free_port, timeout=5).connect()


def until_ready(process):
    """What the command printed up to its last line before it waits."""
    said = ""
    while "Ctrl-C" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    return said


@pytest.fixture
def started(monkeypatch):
    monkeypatch.setenv("BROWSER", "")
    monkeypatch.delenv("DISPLAY", raising=False)
    running = []

    def start(*arguments):
        command = [str(Path(sys.executable).parent / "companion"), *arguments]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()


def get(address):
    with urllib.request.urlopen(address, timeout=30) as answer:
        return answer.url, answer.read().decode()


@pytest.mark.parametrize(
    ("command", "path"),
    [("lab", "/lab/tree/notebooks/00_start_here.ipynb"), ("demo", "/")],
)
def test_the_real_server_asks_for_its_token_and_ends_on_ctrl_c(started, free_port, command, path):
    process = started(command, "--port", str(free_port))
    said = until_ready(process)
    address = re.search(r"http://\S+", said)[0]
    assert address.startswith(f"http://127.0.0.1:{free_port}{path}?token=")
    assert "No browser was found" in said
    opened, _ = get(address)
    assert "/login" not in opened
    refused, _ = get(address.partition("?")[0])
    assert "/login" in refused
    if command == "lab":
        token = address.partition("token=")[2]
        settings = f"http://127.0.0.1:{free_port}/lab/api/settings/"
        name = "@jupyterlab/apputils-extension:themes"
        _, body = get(f"{settings}{name}?token={token}")
        themes = json.loads(body)["schema"]["properties"]
        assert themes["adaptive-theme"]["default"] is True
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0
    assert "has stopped" in process.stdout.read()
