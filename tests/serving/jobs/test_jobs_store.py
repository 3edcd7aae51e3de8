"""A file is accepted whole, within its limits, once, or not at all."""

from __future__ import annotations

import gzip
import hashlib
import stat

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from companion.serving.jobs import (
    IdempotencyConflictError,
    JobsUnavailableError,
    TooLargeError,
    UnknownJobError,
    Worker,
    WrongFormatError,
)
from companion.serving.jobs.results import as_csv, as_parquet, rejects_as_csv
from companion.serving.jobs.uploads import Uploads

DAY = 86_400.0


@pytest.fixture
def uploads(tmp_path):
    return Uploads(tmp_path / "u", max_bytes=100)


def left_in(uploads):
    return sorted(path.name for path in uploads.folder.iterdir())


def test_an_upload_is_kept_whole_and_private_under_its_name(uploads):
    with uploads.begin("csv") as upload:
        upload.write(b"a,")
        upload.write(b"b\n1,2\n")
        path = upload.keep("job")
    assert path.read_bytes() == b"a,b\n1,2\n"
    assert (upload.bytes, upload.sha256) == (8, hashlib.sha256(b"a,b\n1,2\n").hexdigest())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(uploads.folder.stat().st_mode) == 0o700
    assert left_in(uploads) == ["job"]


def test_what_is_not_kept_leaves_nothing(uploads):
    with uploads.begin("csv") as upload:
        upload.write(b"a,b\n")
    assert left_in(uploads) == []


def test_a_file_is_refused_at_the_limit_and_not_at_its_end(uploads):
    with uploads.begin("csv") as upload:
        upload.write(b"x" * 100)
        with pytest.raises(TooLargeError) as large:
            upload.write(b"x")
    assert large.value.limit == 100
    assert left_in(uploads) == []


@pytest.mark.parametrize(
    ("kind", "start", "said"),
    [
        ("csv", b"PAR1....", "Parquet"),
        ("csv", gzip.compress(b"a,b\n", mtime=0), "gzip"),
        ("csv", b"PK\x03\x04....", "zip"),
        ("csv", b"\x28\xb5\x2f\xfd..", "zstd"),
        ("parquet", b"a,b\n1,2\n", "something else"),
        ("parquet", b"P", "something else"),
        ("csv", b"", "empty"),
    ],
)
def test_the_first_bytes_must_be_those_of_the_format(uploads, kind, start, said):
    def send_byte_by_byte():
        with uploads.begin(kind) as upload:
            for at in range(len(start)):
                upload.write(start[at : at + 1])
            upload.keep("job")

    with pytest.raises(WrongFormatError, match=said):
        send_byte_by_byte()
    assert left_in(uploads) == []


def test_a_short_csv_is_one(uploads):
    with uploads.begin("csv") as upload:
        upload.write(b"a")
        upload.keep("job")
    assert left_in(uploads) == ["job"]


def test_a_job_is_guessed_from_the_name_of_its_file(sqlite_jobs, parquet_file, tmp_path):
    (tmp_path / "t.csv").write_text("a\n")
    assert sqlite_jobs.submit(parquet_file).kind == "parquet"
    assert sqlite_jobs.submit(tmp_path / "t.csv").kind == "csv"


def test_a_key_makes_one_job_of_two_submissions_and_keeps_one_file(sqlite_jobs, parquet_file):
    first = sqlite_jobs.submit(parquet_file, key="k")
    assert sqlite_jobs.submit(parquet_file, key="k") == first
    assert left_in(sqlite_jobs.uploads) == [first.id]


def test_a_key_for_another_file_is_refused_and_its_file_is_not_kept(
    sqlite_jobs, parquet_file, tmp_path
):
    first = sqlite_jobs.submit(parquet_file, key="k")
    (tmp_path / "t.csv").write_text("a\n")
    with pytest.raises(IdempotencyConflictError):
        sqlite_jobs.submit(tmp_path / "t.csv", key="k")
    assert left_in(sqlite_jobs.uploads) == [first.id]


def test_where_it_is_not_known_whether_the_job_is_stored_its_file_stays(
    sqlite_jobs, parquet_file, monkeypatch
):
    def lost(new):
        raise JobsUnavailableError("store", "the connection broke")

    monkeypatch.setattr(sqlite_jobs.home, "insert", lost)
    with pytest.raises(JobsUnavailableError):
        sqlite_jobs.submit(parquet_file)
    assert len(left_in(sqlite_jobs.uploads)) == 1


def test_a_sweep_takes_what_belongs_to_no_job_once_it_is_old(sqlite_jobs, parquet_file):
    job = sqlite_jobs.submit(parquet_file)
    folder = sqlite_jobs.uploads.folder
    (folder / ".tmp-cut-off").touch()
    (folder / "of-no-job").touch()
    now = (folder / job.id).stat().st_mtime
    assert sqlite_jobs.sweep(clock=lambda: now + DAY / 2) == 0
    assert sqlite_jobs.sweep(clock=lambda: now + DAY + 60) == 2
    assert left_in(sqlite_jobs.uploads) == [job.id]


def test_an_owner_sees_no_job_of_another(sqlite_jobs, parquet_file):
    job = sqlite_jobs.submit(parquet_file, owner="a")
    assert sqlite_jobs.get(job.id, owner="a") == sqlite_jobs.get(job.id) == job
    with pytest.raises(UnknownJobError):
        sqlite_jobs.get(job.id, owner="b")


def test_old_jobs_are_forgotten(sqlite_jobs, sqlite_clock, parquet_file):
    job = sqlite_jobs.submit(parquet_file)
    sqlite_jobs.cancel(job.id)
    sqlite_clock.advance(10)
    assert (sqlite_jobs.forget(older_than=11), sqlite_jobs.forget(older_than=9)) == (0, 1)


def test_results_leave_as_csv_and_as_parquet_with_the_same_content(
    sqlite_jobs, parquet_file, tmp_path
):
    job = sqlite_jobs.submit(parquet_file)
    Worker(sqlite_jobs, lambda frame: frame["amount"] / 1e6, chunk_rows=300).run_one()
    table = sqlite_jobs.results(job.id)
    for name, made in (("r.csv", as_csv), ("r.parquet", as_parquet)):
        (tmp_path / name).write_bytes(b"".join(made(sqlite_jobs.payloads(job.id))))
    assert pa_csv.read_csv(tmp_path / "r.csv").to_pydict() == table.to_pydict()
    assert pq.read_table(tmp_path / "r.parquet").to_pydict() == table.to_pydict()
    assert pq.ParquetFile(tmp_path / "r.parquet").num_row_groups == 4


def test_a_job_without_results_leaves_empty_tables(sqlite_jobs, parquet_file, tmp_path):
    job = sqlite_jobs.submit(parquet_file)
    assert sqlite_jobs.results(job.id).num_rows == 0
    assert b"".join(as_csv(sqlite_jobs.payloads(job.id))) == b"row,transaction_id,probability\n"
    (tmp_path / "r.parquet").write_bytes(b"".join(as_parquet(sqlite_jobs.payloads(job.id))))
    assert pq.read_table(tmp_path / "r.parquet").num_rows == 0
    assert b"".join(rejects_as_csv(sqlite_jobs.rejects(job.id))) == b"row,reason\n"
