"""Run a web server for one person: loopback only, behind a token, until Ctrl-C.

JupyterLab and Voila are both programs that serve notebooks, that is, that run code for whoever
can reach them. So both listen on 127.0.0.1 alone and ask for a token, which travels in the
environment and in a private file rather than on a command line, where other users of the machine
could read it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from companion.cli.errors import CommandError

LOOPBACK = "127.0.0.1"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SECONDS_TO_START = 60.0
SECONDS_TO_STOP = 10.0
REDIRECT = '<!doctype html><title>{name}</title><meta http-equiv="refresh" content="0; url={url}">'


@dataclass(frozen=True)
class Server:
    """A web server to run: its command, what it adds to the environment, and where it answers."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    port: int
    token: str
    path: str

    @property
    def address(self) -> str:
        """What a person opens in a browser."""
        return f"http://{LOOPBACK}:{self.port}{self.path}?token={self.token}"


def new_token() -> str:
    """A secret for one run of a server."""
    return secrets.token_urlsafe(24)


def choose_port(wanted: int | None, usual: int) -> tuple[int, str]:
    """A free loopback port, and a sentence when it is not the usual one.

    Raises:
        CommandError: `wanted` was asked for by name and is taken.
    """
    if wanted is not None:
        if not _is_free(wanted):
            raise CommandError(
                f"Port {wanted} is taken by another program: stop that one, or choose another with "
                "--port."
            )
        return wanted, ""
    if _is_free(usual):
        return usual, ""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        free = int(probe.getsockname()[1])
    return free, f"Port {usual} is taken by another program, so this one uses {free}."


def find_browser(environment: Mapping[str, str] = os.environ) -> webbrowser.BaseBrowser | None:
    """The person's graphical browser, or None: over SSH, in a container, on a bare server."""
    graphical = sys.platform == "darwin" or any(
        environment.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
    if not graphical:
        return None
    try:
        return webbrowser.get()
    except webbrowser.Error:
        return None


def serve(server: Server, *, open_browser: bool = True) -> None:
    """Run `server` until it ends by itself or this process is told to stop.

    Raises:
        CommandError: the server did not start; the message holds its last words.
    """
    print(f"Starting {server.name} …", flush=True)
    with tempfile.TemporaryDirectory(prefix="companion-") as private, _raising_on_stop():
        log = Path(private, "server.log")
        try:
            with _running(server, log) as child:
                _wait_until_ready(server, child, log)
                _announce(server, Path(private), open_browser=open_browser)
                if child.wait() != 0:
                    raise CommandError(f"{server.name} ended by itself:\n{_last_words(log)}")
        except _StopRequest:
            print(f"\n{server.name} has stopped.")


class _StopRequest(BaseException):
    """A signal asked this process to stop. Not an Exception: nothing on the way may swallow it."""


@contextlib.contextmanager
def _raising_on_stop() -> Iterator[None]:
    def request(number: int, frame: object) -> None:
        raise _StopRequest

    before = {number: signal.signal(number, request) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _running(server: Server, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    # A session of its own: Ctrl-C then reaches only us, and the server gets one signal, once.
    with log.open("wb") as out:
        child = subprocess.Popen(
            list(server.command),
            env={**os.environ, **server.environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
            try:
                child.wait(SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def _wait_until_ready(server: Server, child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while not _answers(server.port):
        if child.poll() is not None:
            raise CommandError(f"{server.name} did not start:\n{_last_words(log)}")
        if time.monotonic() > deadline:
            raise CommandError(
                f"{server.name} did not answer within {SECONDS_TO_START:.0f} s:\n{_last_words(log)}"
            )
        time.sleep(0.05)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((LOOPBACK, port)) == 0


def _announce(server: Server, private: Path, *, open_browser: bool) -> None:
    browser = find_browser() if open_browser else None
    print(f"{server.name} is at\n\n    {server.address}\n")
    if browser:
        page = private / "open.html"
        page.touch(mode=0o600)
        page.write_text(REDIRECT.format(name=server.name, url=server.address), encoding="utf-8")
        browser.open(page.as_uri())
    elif open_browser:
        print(
            "No browser was found on this machine: open that address in one. From another machine, "
            f"first run there: ssh -L {server.port}:{LOOPBACK}:{server.port} <this machine>"
        )
    print("Ctrl-C stops it.", flush=True)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _last_words(log: Path, lines: int = 6) -> str:
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return "\n".join(f"  {line}" for line in said[-lines:]) or "  (it said nothing)"
