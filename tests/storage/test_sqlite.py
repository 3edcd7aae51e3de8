"""SQLite shared by processes that are killed, interrupted and in each other's way."""

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest

from companion.storage import (
    BackupTargetInUseError,
    CorruptDatabaseError,
    DatabaseBusyError,
    DatabaseError,
    MissingFolderError,
    NetworkFilesystemError,
    NotADatabaseError,
    ReadOnlyDatabaseError,
    TransactionError,
    WalUnavailableError,
    backup,
    open_db,
    write,
)
from companion.storage.filesystems import network_filesystem

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "a.db"
    with closing(open_db(path)) as connection:
        connection.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER)")
        connection.execute("INSERT INTO account VALUES (1, 0)")
    return path


@pytest.fixture
def connection(database):
    with closing(open_db(database)) as opened:
        yield opened


def balance(path):
    with closing(open_db(path)) as reader:
        return reader.execute("SELECT balance FROM account WHERE id = 1").fetchone()[0]


class FakeTime:
    """A clock that only `sleep` moves."""

    def __init__(self):
        self.now = 0.0

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


# Opening


def test_it_opens_in_wal_with_full_sync_and_foreign_keys(connection):
    def pragma(name):
        return connection.execute(f"PRAGMA {name}").fetchone()[0]

    assert pragma("journal_mode") == "wal"
    assert pragma("synchronous") == 2
    assert pragma("foreign_keys") == 1


def test_the_busy_timeout_is_given_in_seconds(database):
    with closing(open_db(database, busy_timeout=1.5)) as connection:
        assert connection.execute("PRAGMA busy_timeout").fetchone()[0] == 1500


def test_no_statement_opens_a_transaction_by_itself(connection):
    connection.execute("UPDATE account SET balance = 5")
    assert not connection.in_transaction


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf")])
def test_a_senseless_busy_timeout_is_refused(database, timeout):
    with pytest.raises(ValueError, match="busy_timeout"):
        open_db(database, busy_timeout=timeout)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(MissingFolderError) as caught:
        open_db(tmp_path / "nowhere" / "a.db")
    assert caught.value.folder == tmp_path / "nowhere"


def test_a_folder_is_no_database(tmp_path):
    with pytest.raises(IsADirectoryError):
        open_db(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"x", b"amount,is_fraud\n" * 100, b"SQLite format 3\0" + b"junk" * 500],
    ids=["one byte", "a CSV file", "a torn database"],
)
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path, content):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(NotADatabaseError) as caught:
        open_db(path)
    assert caught.value.path == path
    assert path.read_bytes() == content


def test_an_empty_file_becomes_a_database(tmp_path):
    (tmp_path / "a.db").touch()
    with closing(open_db(tmp_path / "a.db")) as connection:
        connection.execute("CREATE TABLE t (x)")


def test_memory_is_refused_since_it_cannot_survive_a_crash():
    with pytest.raises(WalUnavailableError) as caught:
        open_db(":memory:")
    assert caught.value.mode == "memory"


def test_opening_waits_for_a_writer_that_holds_a_database_not_yet_in_wal(tmp_path):
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("CREATE TABLE t (x)")
        holder.execute("BEGIN IMMEDIATE")
        time = FakeTime()

        def sleep(seconds):
            time.sleep(seconds)
            if time.now > 1:
                holder.execute("COMMIT") if holder.in_transaction else None

        open_db(path, busy_timeout=5, clock=time.clock, sleep=sleep).close()
    assert 1 < time.now < 5


def test_opening_gives_up_after_the_busy_timeout(tmp_path):
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("CREATE TABLE t (x)")
        holder.execute("BEGIN IMMEDIATE")
        time = FakeTime()
        with pytest.raises(DatabaseBusyError) as caught:
            open_db(path, busy_timeout=5, clock=time.clock, sleep=time.sleep)
    assert caught.value.waited_seconds == pytest.approx(5, abs=0.02)
    assert caught.value.path == path


@pytest.fixture
def read_only_database():
    """A database that this process may read only; root steps down, whom no permission bit stops."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "a.db")
        open_db(path).close()
        path.chmod(0o444)
        Path(folder).chmod(0o755)
        was = os.geteuid()
        os.seteuid(was or 65534)
        try:
            yield path
        finally:
            os.seteuid(was)


def test_a_read_only_file_is_named(read_only_database):
    with pytest.raises(ReadOnlyDatabaseError) as caught:
        open_db(read_only_database)
    assert caught.value.path == read_only_database


def test_a_database_turned_read_only_is_named_when_writing(connection):
    connection.execute("PRAGMA query_only = ON")
    with pytest.raises(ReadOnlyDatabaseError), write(connection):
        connection.execute("UPDATE account SET balance = 1")


def test_a_network_file_system_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("companion.storage.sqlite.network_filesystem", lambda path: "nfs4")
    with pytest.raises(NetworkFilesystemError) as caught:
        open_db(tmp_path / "a.db")
    assert caught.value.filesystem == "nfs4"
    assert not (tmp_path / "a.db").exists()


def mounts(**types):
    return [
        SimpleNamespace(mountpoint="/" + point.replace("_", "/"), fstype=fstype)
        for point, fstype in types.items()
    ]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/srv/share/a.db", "nfs4"),
        ("/srv/share/local/a.db", None),
        ("/srv/shared/a.db", None),
        ("/elsewhere/a.db", None),
    ],
)
def test_the_longest_mount_point_decides(path, expected):
    table = mounts(srv_share="nfs4", srv="ext4", srv_share_local="xfs")
    assert network_filesystem(Path(path), table) == expected


def test_of_two_mounts_on_one_point_the_later_decides():
    table = [*mounts(srv="ext4"), *mounts(srv="cifs")]
    assert network_filesystem(Path("/srv/a.db"), table) == "cifs"


def test_this_machines_own_mounts_are_read(tmp_path):
    assert network_filesystem(tmp_path) is None


# Writing


def test_a_finished_block_is_committed(connection, database):
    with write(connection) as transaction:
        transaction.execute("UPDATE account SET balance = 7")
    assert balance(database) == 7


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_any_exception_rolls_back_and_frees_the_lock(connection, database, error):
    def fail():
        with write(connection):
            connection.execute("UPDATE account SET balance = 7")
            raise error

    with pytest.raises(error):
        fail()
    with closing(open_db(database, busy_timeout=0)) as other, write(other):
        assert other.execute("SELECT balance FROM account").fetchone() == (0,)


def test_a_failing_commit_rolls_back(connection, database):
    connection.execute(
        "CREATE TABLE card (owner REFERENCES account (id) DEFERRABLE INITIALLY DEFERRED)"
    )
    with pytest.raises(sqlite3.IntegrityError), write(connection):
        connection.execute("INSERT INTO card VALUES (99)")
    assert not connection.in_transaction
    assert connection.execute("SELECT count(*) FROM card").fetchone() == (0,)


def test_the_lock_is_held_before_the_block_reads(connection, database):
    with (
        write(connection),
        closing(sqlite3.connect(database, timeout=0)) as other,
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        other.execute("UPDATE account SET balance = 1")


def test_a_reader_goes_on_while_a_writer_is_at_work(connection, database):
    with write(connection):
        connection.execute("UPDATE account SET balance = 7")
        assert balance(database) == 0


def test_a_lock_that_stays_held_ends_in_a_named_error(connection, database):
    readings = iter([10.0, 15.25])
    with (
        closing(open_db(database, busy_timeout=0)) as late,
        write(connection),
        pytest.raises(DatabaseBusyError) as caught,
        write(late, clock=lambda: next(readings)),
    ):
        pytest.fail("the block must not run without the lock")
    assert caught.value.waited_seconds == 5.25
    assert caught.value.path == database


def test_write_does_not_nest_and_the_outer_block_survives_the_attempt(connection, database):
    with write(connection):
        connection.execute("UPDATE account SET balance = 7")
        with pytest.raises(TransactionError, match="nest"), write(connection):
            pass
    assert balance(database) == 7


def test_a_block_that_commits_by_itself_is_told_so(connection):
    with pytest.raises(TransactionError, match="executescript"), write(connection):
        connection.executescript("UPDATE account SET balance = 7;")


def test_an_error_in_a_statement_reaches_the_caller_as_it_is(connection):
    with pytest.raises(sqlite3.OperationalError, match="no such table"), write(connection):
        connection.execute("SELECT * FROM nowhere")


def add_one(path, times, results):
    """Read the balance, then write it plus one: the pattern that deadlocks when deferred."""
    failures = 0
    connection = open_db(path, busy_timeout=30)
    for _ in range(times):
        try:
            with write(connection):
                (old,) = connection.execute("SELECT balance FROM account WHERE id = 1").fetchone()
                connection.execute("UPDATE account SET balance = ? WHERE id = 1", (old + 1,))
        except (DatabaseError, sqlite3.Error):
            failures += 1
    connection.close()
    results.put(failures)


def test_four_processes_reading_and_writing_never_meet_a_lock_nor_lose_an_update(database):
    results = SPAWN.Queue()
    workers = [SPAWN.Process(target=add_one, args=(database, 15, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    failures = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    assert failures == [0, 0, 0, 0]
    assert balance(database) == 60


KILLED_WRITER = """
import os, signal, sys
from companion.storage import open_db, write
connection = open_db(sys.argv[1])
connection.execute("CREATE TABLE event (n INTEGER)")
connection.execute("PRAGMA cache_size = 5")  # pages spill into the -wal before the commit
for start in range(0, 500, 100):
    with write(connection):
        rows = [(n,) for n in range(start, start + 100)]
        connection.executemany("INSERT INTO event VALUES (?)", rows)
with write(connection):
    connection.executemany("INSERT INTO event VALUES (?)", [(-n,) for n in range(1, 20_000)])
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed(tmp_path):
    """A database whose writer was killed in the middle of its sixth transaction."""
    path = tmp_path / "killed.db"
    done = subprocess.run([sys.executable, "-c", KILLED_WRITER, path], timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    return path


def test_a_killed_writer_leaves_its_committed_rows_and_only_those(killed):
    with closing(open_db(killed)) as connection:
        assert connection.execute("SELECT n FROM event ORDER BY n").fetchall() == [
            (n,) for n in range(500)
        ]
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_sidecars_of_a_killed_writer_are_never_unlinked(killed, tmp_path, monkeypatch):
    unlinked = []
    monkeypatch.setattr(os, "unlink", lambda path, **_: unlinked.append(path))
    monkeypatch.setattr(os, "remove", lambda path, **_: unlinked.append(path))
    wal = killed.with_name("killed.db-wal")
    size = wal.stat().st_size
    with closing(open_db(killed)) as connection:
        assert wal.stat().st_size >= size > 0
        backup(connection, tmp_path / "copy.db")
        assert wal.exists()
    assert unlinked == []


# Backing up


def test_a_backup_holds_the_rows_that_stand_only_in_the_wal(killed, tmp_path):
    copy = tmp_path / "copy.db"
    with closing(open_db(killed)) as connection:
        backup(connection, copy)
    with closing(sqlite3.connect(copy)) as restored:
        assert restored.execute("SELECT count(*) FROM event").fetchone() == (500,)


def test_a_backup_is_one_file(connection, tmp_path):
    folder = tmp_path / "backups"
    folder.mkdir()
    backup(connection, folder / "copy.db")
    assert [path.name for path in folder.iterdir()] == ["copy.db"]


def test_a_backup_is_as_private_as_its_source(connection, database, tmp_path):
    database.chmod(0o600)
    backup(connection, tmp_path / "copy.db")
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600


def test_a_backup_replaces_an_older_one(connection, tmp_path):
    backup(connection, tmp_path / "copy.db")
    connection.execute("UPDATE account SET balance = 9")
    backup(connection, tmp_path / "copy.db")
    assert balance(tmp_path / "copy.db") == 9


def test_a_backup_is_taken_while_another_connection_writes(connection, database, tmp_path):
    with closing(open_db(database)) as writer, write(writer):
        writer.execute("UPDATE account SET balance = 7")
        backup(connection, tmp_path / "copy.db")
    assert balance(tmp_path / "copy.db") == 0


def test_a_backup_of_uncommitted_rows_is_refused(connection, tmp_path):
    with write(connection), pytest.raises(TransactionError, match="commit"):
        backup(connection, tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_a_backup_onto_a_database_in_use_is_refused(connection, tmp_path, suffix):
    (tmp_path / f"copy.db{suffix}").write_bytes(b"old")
    with pytest.raises(BackupTargetInUseError, match=suffix):
        backup(connection, tmp_path / "copy.db")
    assert (tmp_path / f"copy.db{suffix}").read_bytes() == b"old"


def test_a_backup_onto_its_own_source_is_refused(connection, database):
    with pytest.raises(BackupTargetInUseError, match="very database"):
        backup(connection, database)


def test_a_backup_into_a_missing_folder_names_it(connection, tmp_path):
    with pytest.raises(MissingFolderError):
        backup(connection, tmp_path / "nowhere" / "copy.db")


def test_a_database_in_memory_can_be_backed_up(tmp_path):
    with closing(sqlite3.connect(":memory:")) as memory:
        memory.execute("CREATE TABLE account (id, balance)")
        memory.execute("INSERT INTO account VALUES (1, 3)")
        memory.commit()
        backup(memory, tmp_path / "copy.db")
    assert balance(tmp_path / "copy.db") == 3


def damaged(path, page):
    """A database of many pages, of which `page` (counted from 0) is overwritten."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x INTEGER, y TEXT)")
        connection.execute("CREATE INDEX by_x ON t (x)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(n, "y" * 50) for n in range(2000)])
        connection.commit()
    with open(path, "r+b") as file:
        file.seek(4096 * page)
        file.write(b"\xff" * 4096)
    return path


@pytest.mark.parametrize("page", [1, 5])
def test_a_damaged_source_keeps_the_older_backup(tmp_path, page):
    copy = tmp_path / "backups" / "copy.db"
    copy.parent.mkdir()
    copy.write_bytes(b"older backup")
    source = damaged(tmp_path / "a.db", page)
    with closing(open_db(source)) as connection, pytest.raises(CorruptDatabaseError) as caught:
        backup(connection, copy)
    assert caught.value.findings
    assert copy.read_bytes() == b"older backup"
    assert [path.name for path in copy.parent.iterdir()] == ["copy.db"]


def test_a_source_locked_by_somebody_else_ends_the_backup_with_a_named_error(tmp_path):
    path = tmp_path / "a.db"
    readings = iter([0.0, 2.5])
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as holder,
        closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as source,
    ):
        holder.execute("CREATE TABLE t (x)")
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseBusyError) as caught:
            backup(source, tmp_path / "copy.db", clock=lambda: next(readings))
    assert caught.value.waited_seconds == 2.5
    assert [found.name for found in tmp_path.glob("*copy*")] == []


def test_a_row_that_breaks_a_constraint_is_found_and_listed(tmp_path):
    with closing(open_db(tmp_path / "a.db")) as connection:
        connection.execute("CREATE TABLE payment (amount CHECK (amount > 0))")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("INSERT INTO payment VALUES (-1)")
        with pytest.raises(CorruptDatabaseError) as caught:
            backup(connection, tmp_path / "copy.db")
    assert caught.value.findings == ("CHECK constraint failed in payment",)
    assert not (tmp_path / "copy.db").exists()
