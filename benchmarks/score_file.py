"""A foreign CSV of 200,000 rows: how long `companion score` takes for it, and how much memory.

Both are of a process of its own, from its start to its end, imports included. Ratios: the time to
the minute that it may take, the memory to the 2 GiB that it may use; of reading, rows a second to
those of plain `pandas.read_csv`, which parses the same columns and checks nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from companion.instruments.benchmark import Row, side_by_side
from companion.transactions import simulate
from companion.transactions.loading import load

TITLE = "Bring your own transactions"

_ROWS = 200_000
_MOST_SECONDS = 60.0
_MOST_BYTES = 2 * 1024**3
_ZONE = "Europe/Berlin"
_COLUMNS = {
    "transaction_id": "tx",
    "time": "ts",
    "customer_id": "card",
    "merchant_id": "shop",
    "amount": "amt_cents",
    "distance_km": "km",
    "device_id": "handset",
    "is_online": "ecommerce",
    "is_fraud": "chargeback",
}


def run() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="companion-") as folder:
        file = Path(folder, "payments.csv")
        _write_foreign(file)
        unlabelled = {**_COLUMNS, "is_fraud": ""}
        return [
            *_score(file, "with labels: its own past", _COLUMNS),
            *_score(file, "without: a simulated world", unlabelled),
            *_reading(file),
        ]


def _write_foreign(file: Path) -> None:
    table = simulate(_ROWS, seed=1)[list(_COLUMNS)]
    table["time"] = table["time"].dt.tz_convert(_ZONE).dt.tz_localize(None)
    table["amount"] = (table["amount"] * 100).round().astype("int64")
    for name, letter in (("customer_id", "c"), ("merchant_id", "m"), ("transaction_id", "tx")):
        table[name] = letter + table[name].astype("str")
    table["is_fraud"] = table["is_fraud"].astype("int64")
    table = table.rename(columns=_COLUMNS).sample(frac=1, random_state=0)
    table.to_csv(file, index=False)


def _score(file: Path, who: str, columns: dict[str, str]) -> list[Row]:
    what = f"companion score, {_ROWS:,} rows"
    pairs = ",".join(f"{ours}={theirs}" for ours, theirs in columns.items())
    command = [sys.executable, "-c", "from companion.cli import main; main()", "score", file.name]
    command += ["--columns", pairs, "--timezone", _ZONE, "--unit", "cent"]
    began = time.monotonic()
    child = subprocess.Popen(
        command, cwd=file.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(child.pid, 0)
    seconds = time.monotonic() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {child.returncode}")
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    busy = used.ru_utime + used.ru_stime
    return [
        Row(what, f"{who}: seconds", seconds, "s", seconds / _MOST_SECONDS, "below 1 × 60 s"),
        Row(what, f"{who}: of these, at work", busy, "s", busy / _MOST_SECONDS),
        Row(
            what,
            f"{who}: peak memory",
            peak / 1024**2,
            "MiB",
            peak / _MOST_BYTES,
            "below 1 × 2 GiB",
        ),
    ]


def _reading(file: Path) -> list[Row]:
    parquet = file.with_suffix(".parquet")
    pd.read_csv(file).to_parquet(parquet)
    options = {"timezone": _ZONE, "unit": "cent"}
    seconds = side_by_side(
        {
            "pandas.read_csv, nothing checked": lambda: pd.read_csv(
                file, usecols=list(_COLUMNS.values()), parse_dates=["ts"]
            ),
            "load, CSV": lambda: load(file, _COLUMNS, **options),
            "load, Parquet": lambda: load(parquet, _COLUMNS, **options),
        },
        rounds=5,
    )
    plain = seconds["pandas.read_csv, nothing checked"]
    return [
        Row(f"reading {_ROWS:,} rows", name, _ROWS / took, "rows/s", plain / took)
        for name, took in seconds.items()
    ]
