"""A DataFrame as Parquet bytes that give back the same DataFrame, or a refusal that says why not.

Parquet is not pandas: it has no index, no column names but text, no second resolution for times,
no object columns. Most writers convert in silence, and the difference shows up later as a model
that sees other types than it was trained on. So the bytes are read back and compared before
anybody relies on them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from companion.features.errors import InvalidFrameError, SchemaMismatchError


def schema_of(frame: pd.DataFrame) -> dict[str, str]:
    """Column name → dtype as text, in the frame's order (`{"amount": "float64", …}`)."""
    return {str(name): _dtype_text(dtype) for name, dtype in frame.dtypes.items()}


def check_schema(version: str, expected: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Raise `SchemaMismatchError` unless names, dtypes and order agree."""
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    changed = {
        name: (dtype, found[name])
        for name, dtype in expected.items()
        if name in found and found[name] != dtype
    }
    reordered = not missing and not extra and list(expected) != list(found)
    if missing or extra or changed or reordered:
        raise SchemaMismatchError(
            version, missing=missing, extra=extra, changed=changed, reordered=reordered
        )


def check_frame(frame: pd.DataFrame, labels: Sequence[str], ids: Sequence[str]) -> None:
    """Raise `InvalidFrameError` for a frame that is no feature set, or that Parquet cannot hold.

    Refused: no rows, no feature column, names that are not text or that repeat, an index other than
    0, 1, 2 …, and `labels` or `ids` that are not columns, repeat, or overlap. `TypeError` for what
    is no DataFrame, and for `labels` or `ids` given as one text.
    """
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"a feature set is a DataFrame, not {type(frame).__name__}")
    if isinstance(labels, str) or isinstance(ids, str):
        raise TypeError('labels and ids are lists of column names: ["is_fraud"], not "is_fraud"')
    names = list(frame.columns)
    not_text = [name for name in names if not isinstance(name, str)]
    if not_text:
        raise InvalidFrameError("column names must be text", not_text)
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        raise InvalidFrameError("column names must differ", repeated)
    special = [*labels, *ids]
    unknown = [name for name in special if name not in names]
    if unknown:
        raise InvalidFrameError("labels and ids must be columns of the frame; unknown", unknown)
    twice = [name for name, times in Counter(special).items() if times > 1]
    if twice:
        raise InvalidFrameError("a column is a label or an id, once; named twice", twice)
    if len(frame) == 0:
        raise InvalidFrameError("the frame has no rows")
    if len(special) == len(names):
        raise InvalidFrameError("the frame has no feature columns, only labels and ids")
    if not _has_default_index(frame):
        raise InvalidFrameError(
            "the index is not 0, 1, 2 … and Parquet would lose it: "
            "reset_index() makes it a column, reset_index(drop=True) drops it"
        )


def encode(frame: pd.DataFrame) -> bytes:
    """`frame` as Parquet (zstd), proven to `decode` to an equal frame: values, dtypes, categories.

    Raises `InvalidFrameError` naming the columns that would come back different.
    """
    try:
        table = pa.Table.from_pandas(frame)
        sink = pa.BufferOutputStream()
        # Floats hardly repeat: building a dictionary of them first makes the file larger, and
        # later.
        repetitive = [field.name for field in table.schema if not pa.types.is_floating(field.type)]
        pq.write_table(table, sink, compression="zstd", use_dictionary=repetitive or False)
    except (pa.ArrowException, TypeError) as error:
        raise InvalidFrameError(f"Parquet cannot hold this frame ({error})") from error
    data: bytes = sink.getvalue().to_pybytes()
    returned = decode(data)
    altered = [name for name in frame.columns if not _same_column(frame[name], returned[name])]
    if altered:
        dtypes = ", ".join(f"{frame[name].dtype} → {returned[name].dtype}" for name in altered)
        raise InvalidFrameError(
            f"Parquet would not give these columns back as they are ({dtypes}); convert first",
            altered,
        )
    return data


def decode(data: bytes) -> pd.DataFrame:
    """The frame that `encode` made `data` from."""
    frame: pd.DataFrame = pq.read_table(pa.BufferReader(data)).to_pandas()
    return frame


def _has_default_index(frame: pd.DataFrame) -> bool:
    index = frame.index
    return (
        isinstance(index, pd.RangeIndex)
        and index.name is None
        and (index.start, index.step) == (0, 1)
    )


def _same_column(saved: "pd.Series[Any]", returned: "pd.Series[Any]") -> bool:
    if _dtype_text(saved.dtype) != _dtype_text(returned.dtype):
        return False
    # Unordered categories count as equal in any order; their codes, and an encoder's columns, do
    # not.
    if isinstance(saved.dtype, pd.CategoricalDtype) and (
        list(saved.cat.categories) != list(returned.cat.categories)
    ):
        return False
    return saved.equals(returned)


def _dtype_text(dtype: object) -> str:
    if not isinstance(dtype, pd.CategoricalDtype):
        return str(dtype)
    ordered = ", ordered" if dtype.ordered else ""
    return f"category[{dtype.categories.dtype}{ordered}]"
