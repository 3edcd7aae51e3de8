"""A real PostgreSQL server: there inside the block, gone after it, named when it cannot be had."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil
import psycopg
import pytest

from companion.instruments import ServerNotReadyError
from companion.instruments import postgresql_server as module
from companion.instruments.postgresql_server import (
    PostgresqlMissingError,
    find_postgresql,
    postgresql_server,
)

needs_postgresql = pytest.mark.skipif(
    find_postgresql() is None, reason="there is no PostgreSQL server on this machine"
)


@needs_postgresql
def test_it_answers_inside_the_block_and_is_gone_after_it_though_a_client_stays() -> None:
    with postgresql_server() as server:
        pid = server.process.pid
        client = psycopg.connect(server.url)
        folder = Path(client.execute("SHOW data_directory").fetchone()[0])
        assert client.execute("SELECT 6 * 7").fetchone() == (42,)
    client.close()
    assert pid is not None
    assert not psutil.pid_exists(pid)
    assert not folder.exists()


@needs_postgresql
def test_it_listens_on_no_network() -> None:
    with postgresql_server() as server, psycopg.connect(server.url) as client:
        assert client.execute("SHOW listen_addresses").fetchone() == ("",)


@needs_postgresql
def test_an_exception_in_the_block_stops_it() -> None:
    pids = []

    def fails() -> None:
        with postgresql_server() as server:
            pids.append(server.process.pid)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert not psutil.pid_exists(pids[0])


@needs_postgresql
def test_what_cannot_be_made_says_so_with_its_last_words(tmp_path: Path, monkeypatch) -> None:
    programs = find_postgresql()
    assert programs is not None
    (tmp_path / "initdb").write_text("#!/bin/sh\necho the disk is full\nexit 3\n")
    (tmp_path / "initdb").chmod(0o755)
    monkeypatch.setattr(module, "find_postgresql", lambda: tmp_path)
    monkeypatch.setattr(module, "_unprivileged", lambda command: command)
    with (
        pytest.raises(ServerNotReadyError, match="the disk is full") as caught,
        postgresql_server(),
    ):
        pass
    assert caught.value.exit_code == 3


def test_a_machine_without_it_is_told_how_to_get_it(monkeypatch) -> None:
    monkeypatch.setattr(module, "find_postgresql", lambda: None)
    with pytest.raises(PostgresqlMissingError, match="pgserver"), postgresql_server():
        pass


def test_the_systems_own_programs_do_where_the_package_is_missing(monkeypatch, tmp_path) -> None:
    def missing(name: str) -> None:
        raise module.PackageNotFoundError(name)

    monkeypatch.setattr(module, "distribution", missing)
    monkeypatch.setattr(shutil, "which", lambda program: str(tmp_path / program))
    assert find_postgresql() == tmp_path
    monkeypatch.setattr(shutil, "which", lambda program: None)
    assert find_postgresql() is None
