"""Something to serve when there is nothing yet: a small model of the simulated world, and its past.

`prepare` trains once and keeps what it made; `History` brings the past of the customers into the
online state, moved so that it ends now: features are about the last days, and a history that ended
in spring would be a service without one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.features.defaults import feature_matrix, windows_of
from companion.features.online import OnlineWindows
from companion.features.single import SingleRow
from companion.models.artefact_errors import ArtefactExistsError
from companion.models.artefact_metadata import TrainingRecord
from companion.models.artefacts import save_artefact
from companion.storage import write_bytes
from companion.transactions import LABEL, simulate

MODEL, HISTORY = "model", "history.parquet"
FRAUD_RATE = "fraud_rate"
"""The metric of an artefact that is the base rate where there is no model."""

_ROWS, _SEED = 12_000, 7
_TRAIN_SHARE = 0.7
_PROVEN_ON = 500
_BACKGROUND_ROWS = 6


def prepare(
    folder: str | os.PathLike[str],
    *,
    rows: int = _ROWS,
    seed: int = _SEED,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Train a model on `rows` simulated transactions into `folder`, unless that has been done.

    Gives the folder, which then holds the artefact `model` and `history.parquet`. `say` is told
    what takes time. Two processes may prepare one folder at once: whoever is first has made it.
    """
    place = Path(folder)
    if (place / MODEL).is_dir() and (place / HISTORY).is_file():
        return place
    say("Training a small model on simulated transactions, once …")
    from companion.models.families import make_boosting  # waits for scikit-learn
    from companion.models.metrics import average_precision

    place.mkdir(parents=True, exist_ok=True)
    table = simulate(rows, seed=seed)
    X, y = feature_matrix(table)
    cut = int(rows * _TRAIN_SHARE)
    model = make_boosting(seed=seed).fit(X.iloc[:cut], y.iloc[:cut])
    later = model.predict_proba(X.iloc[cut:])[:, 1]
    record = TrainingRecord(
        family="boosting",
        feature_set="default twelve",
        window=(table["time"].iloc[0].to_pydatetime(), table["time"].iloc[cut].to_pydatetime()),
        seed=seed,
        metrics={
            "average_precision": float(average_precision(y.iloc[cut:], later)),
            FRAUD_RATE: float(y.iloc[:cut].mean()),
        },
    )
    sink = BytesIO()
    table.to_parquet(sink, index=False)
    write_bytes(place / HISTORY, sink.getvalue())
    try:
        save_artefact(place / MODEL, model, X.iloc[:_PROVEN_ON], record)
    except ArtefactExistsError:
        say("Another process was faster.")
    return place


@dataclass(frozen=True)
class History:
    """Transactions as the online state knows them.

    `state` has observed them, frauds that were reported by the end included; `background` is a few
    honest ones of them (rows × features), for explanations; `latest` is the last one's row.
    """

    state: OnlineWindows
    background: NDArray[np.float64]
    latest: dict[str, object]

    @classmethod
    def of(cls, table: pd.DataFrame, *, ends: datetime | None = None) -> History:
        """The history in `table`, moved in time so that its last event is at `ends`, if given.

        Raises `MissingColumnsError`, `InvalidValuesError` and `ConflictingEventError`.
        """
        table = table.sort_values("time", kind="stable")
        last = table["time"].iloc[-1]
        moved = timedelta(0) if ends is None else ends.astimezone(UTC) - last.to_pydatetime()
        times = (table["time"] + moved).dt.to_pydatetime()
        columns = ["transaction_id", "customer_id", "merchant_id", "category", "amount"]
        columns += ["distance_km", "device_id", "is_online"]
        plain = (table[name].tolist() for name in columns)
        names = ["time", *columns]
        rows = [dict(zip(names, values, strict=True)) for values in zip(times, *plain, strict=True)]
        state = OnlineWindows(windows_of())
        for row in rows:
            state.observe(row)
        if "label_time" in table.columns:
            known = table[table["label_time"] <= last]
            reported = (known["label_time"] + moved).dt.to_pydatetime()
            for event_id, moment in zip(known["transaction_id"].tolist(), reported, strict=True):
                state.report(event_id, moment)
        honest = np.arange(len(rows))
        if LABEL in table.columns:
            honest = np.flatnonzero(~table[LABEL].to_numpy(dtype=bool))
        # From the later half: earlier ones have no past of their own.
        chosen = honest[len(honest) // 2 :: max(1, len(honest) // (2 * _BACKGROUND_ROWS))]
        single = SingleRow(state)
        background = np.vstack([single(rows[place]) for place in chosen[:_BACKGROUND_ROWS]])
        return cls(state, background, rows[-1])
