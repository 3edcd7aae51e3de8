"""A link that is down, hung, slow or garbled, between a real client and a real server."""

import contextlib
import socket
import socketserver
import tempfile
import threading
import time

import pytest

from companion.instruments.faulty_link import DOWN, GARBLED, HUNG, WELL, FaultyLink, slow


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        with contextlib.suppress(ConnectionError):
            while data := self.request.recv(1024):
                self.request.sendall(data)


@pytest.fixture(scope="module")
def echo():
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def link(echo):
    with FaultyLink(echo) as link:
        yield link


def connect(link, timeout=5.0):
    return contextlib.closing(socket.create_connection(("127.0.0.1", link.port), timeout))


def ask(connection, text=b"hello"):
    connection.sendall(text)
    return connection.recv(1024)


def test_a_link_that_is_well_passes_everything_on(link):
    with connect(link) as one, connect(link) as other:
        assert (ask(one, b"a"), ask(other, b"b"), ask(one, b"c")) == (b"a", b"b", b"c")


def test_down_it_refuses_and_cuts_off_who_is_connected(link):
    with connect(link) as connection:
        ask(connection)
        link.become(DOWN)
        with contextlib.suppress(ConnectionError):
            assert ask(connection) == b""
    with pytest.raises(ConnectionRefusedError):
        connect(link)


def test_mended_it_answers_at_the_same_port(link):
    before = link.port
    link.become(DOWN)
    link.become(WELL)
    assert link.port == before
    with connect(link) as connection:
        assert ask(connection) == b"hello"


def test_hung_it_accepts_and_says_nothing_until_it_is_mended(link):
    with connect(link, timeout=0.1) as connection:
        ask(connection)
        link.become(HUNG)
        with pytest.raises(TimeoutError):
            ask(connection)
        link.become(WELL)
        connection.settimeout(5.0)
        assert connection.recv(1024) == b"hello"


def test_hung_it_takes_new_connections_too(link):
    link.become(HUNG)
    with connect(link, timeout=0.1) as connection, pytest.raises(TimeoutError):
        ask(connection)


def test_slow_it_answers_later(link):
    link.become(slow(0.2))
    with connect(link) as connection:
        begun = time.monotonic()
        assert ask(connection) == b"hello"
        assert time.monotonic() - begun >= 0.2


def test_garbled_it_answers_something_else_of_the_same_length(link):
    link.become(GARBLED)
    with connect(link) as connection:
        answer = ask(connection, b"a sentence that chance will not write")
    assert answer != b"a sentence that chance will not write"
    assert len(answer) == len(b"a sentence that chance will not write")


def test_without_its_server_it_hangs_up(link, echo):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = unused.getsockname()[1]
    with FaultyLink(nobody) as dangling, connect(dangling) as connection:
        assert connection.recv(1024) == b""


def test_a_unix_socket_can_be_the_target():
    # Not pytest's folder: a socket's path may have about a hundred characters.
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/echo"
        with socketserver.ThreadingUnixStreamServer(path, Echo) as server:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
            with FaultyLink(path) as link, connect(link) as connection:
                assert ask(connection) == b"hello"
            server.shutdown()


def test_leaving_it_closes_connections_and_port(echo):
    with FaultyLink(echo) as link:
        connection = socket.create_connection(("127.0.0.1", link.port), 5.0)
        ask(connection)
    with connection:
        assert connection.recv(1024) == b""
    with pytest.raises(ConnectionRefusedError):
        connect(link)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_delay_of_nothing_is_refused(seconds):
    with pytest.raises(ValueError, match="delays by more than nothing"):
        slow(seconds)


def test_cutting_somebody_off_is_no_error_in_any_log(echo, caplog):
    with FaultyLink(echo) as link, connect(link) as connection:
        ask(connection)
        link.become(DOWN)
    assert caplog.records == []
