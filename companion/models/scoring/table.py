"""Scores as a table that the owner of the file can join back to it, and as the bytes of a file.

One row for each row of the file, in the file's order, with the file's own ids and row numbers:
whoever gets scores wants them beside what they have. What the scores mean stands in every row,
since a table travels further than the report beside it.
"""

from __future__ import annotations

import json
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from companion.models.scoring.score import Scored

_METADATA_KEY = b"companion.scoring"


def meaning(scored: Scored) -> str:
    """What the scores are, in the few words that stand in every row of the table."""
    return {
        "own past": "probability, learned from this file's past",
        "saved model": "probability by the saved model",
        "simulated world": "rank only: simulated world, not calibrated",
    }[scored.basis.kind]


def score_table(scored: Scored) -> pd.DataFrame:
    """`row` (from 1, header not counted), the file's ids, `time` (UTC), `amount` (euros), `score`,
    `part`, `alert` (1 for the most suspicious; 0: none), `reasons`, `score_means`."""
    loaded, rows = scored.loaded, len(scored.score)
    rank = np.zeros(rows, dtype="int64")
    rank[scored.alerts] = np.arange(1, len(scored.alerts) + 1)
    reasons = np.full(rows, "", dtype=object)
    reasons[scored.alerts] = scored.reasons
    table = pd.DataFrame(
        {
            "row": loaded.rows + 1,
            **{name: loaded.ids[name] for name in loaded.ids.columns},
            "time": loaded.table["time"],
            "amount": loaded.table["amount"],
            "score": scored.score,
            "part": pd.Categorical(scored.basis.part),
            "alert": rank,
            "reasons": pd.Series(reasons, dtype="str"),
            "score_means": pd.Categorical([meaning(scored)] * rows),
        }
    )
    return loaded.in_file_order(table)


def encoded(scored: Scored, kind: Literal["parquet", "csv"]) -> bytes:
    """`score_table` as the bytes of a file."""
    table = pa.Table.from_pandas(score_table(scored), preserve_index=False)
    sink = pa.BufferOutputStream()
    if kind == "csv":
        pa_csv.write_csv(_flat(table), sink)
    else:
        about = {"score_means": meaning(scored), "features": scored.basis.features}
        metadata = {**(table.schema.metadata or {}), _METADATA_KEY: json.dumps(about).encode()}
        pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _flat(table: pa.Table) -> pa.Table:
    """Without dictionaries, which CSV cannot hold, and times in ISO 8601 with their zone."""
    columns = {}
    for name in table.column_names:
        column = table[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        columns[name] = column
    return pa.table(columns)
