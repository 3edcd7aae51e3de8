"""The results of a job: stored part by part in Arrow's own format, given out as CSV or Parquet.

A part holds three columns (row, transaction_id, probability), a few thousand rows of them. Stored
as one value it is one insert, which either happened or did not; and both ways out work through one
part at a time, so that results of any size leave in flat memory.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from companion.serving.jobs.job import Reject

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("transaction_id", pa.int64(), nullable=False),
        pa.field("probability", pa.float64(), nullable=False),
    ]
)
"""`row` in the file from 1, the file's own id, and the probability of fraud."""

_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)


def encoded(
    rows: NDArray[np.int64], ids: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> bytes:
    """One part as bytes; the three have one length."""
    batch = pa.record_batch([rows, ids, probabilities], schema=SCHEMA)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA, options=_OPTIONS) as stream:
        stream.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def decoded(payload: bytes) -> pa.Table:
    """The table of one part, with the columns of `SCHEMA`."""
    return pa.ipc.open_stream(payload).read_all()


def as_table(payloads: Iterable[bytes]) -> pa.Table:
    """All parts as one table, for results that fit in memory."""
    return pa.concat_tables([SCHEMA.empty_table(), *(decoded(payload) for payload in payloads)])


def as_csv(payloads: Iterable[bytes]) -> Iterator[bytes]:
    """A CSV, in pieces: the header, then a part at a time."""
    yield (",".join(SCHEMA.names) + "\n").encode()
    options = pa_csv.WriteOptions(include_header=False)
    for payload in payloads:
        sink = io.BytesIO()
        pa_csv.write_csv(decoded(payload), sink, options)
        yield sink.getvalue()


def as_parquet(payloads: Iterable[bytes]) -> Iterator[bytes]:
    """A Parquet file, in pieces: a row group a part, then the footer."""
    sink = _Pieces()
    with pq.ParquetWriter(sink, SCHEMA, compression="zstd") as writer:
        for payload in payloads:
            writer.write_table(decoded(payload))
            yield sink.taken()
    yield sink.taken()


def rejects_as_csv(rejects: Iterable[Reject]) -> Iterator[bytes]:
    """The rejects as CSV; reasons are our own words and never the client's values."""
    yield b"row,reason\n"
    for one in rejects:
        yield f'{one.row},"{one.reason}"\n'.encode()


class _Pieces(io.RawIOBase):
    """A file that is only ever written on, and emptied as it is sent."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: object, /) -> int:
        added = bytes(data)  # type: ignore[call-overload]
        self._waiting += added
        self._position += len(added)
        return len(added)

    def taken(self) -> bytes:
        piece = bytes(self._waiting)
        self._waiting.clear()
        return piece
