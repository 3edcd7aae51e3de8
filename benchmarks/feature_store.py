"""The feature store beside Feast: equal values on the same data, and what each reading costs.

Ratios: every online reading to our in-process one of as many keys, the join to Feast's. Feast asks
for other versions than the lock, so it runs in its own environment (`companion side feast`); where
that is not there, a row says so.

One row in ten was written a day after its event. By default Feast answers with such a row as if it
had been known at once; told to filter by created time, it gives the values that were known. Either
way its file store leaves out entity rows whose key has values but none that counts at that time
(none yet, or too old), so values are compared where it answers, and the rest is counted.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from companion.cli.side import side_environment
from companion.features.store import FeatureStore, FeatureView, open_home
from companion.instruments import Row, side_by_side, stream
from companion.instruments.redis_server import RedisMissingError, redis_server
from companion.study.workbook import Workbook

TITLE = "Feature store"

VIEW = FeatureView(
    "spending",
    {"customer_id": "int64"},
    {"mean": "float64", "count": "Int64"},
    ttl=timedelta(days=7),
)
START = datetime(2026, 3, 1, tzinfo=UTC)
NOW = START + timedelta(days=31)
_DAY = pd.Timedelta(days=1)
_KEYS = 50
_READS = 200


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as name, _redis_url() as redis:
        folder = Path(name)
        return [*_large_join(folder / "large"), *_beside_feast(folder, redis)]


def _large_join(folder: Path) -> list[Row]:
    store = _filled(folder, _rows(1_000_000), "memory:")
    entities = _entities(200_000)
    what = "as_of, 200,000 entity rows, 1,000,000 feature rows"

    def ask() -> pd.DataFrame:
        return store.as_of(VIEW, entities)

    first = side_by_side({"": ask}, rounds=1)[""]
    again = side_by_side({"": ask}, rounds=5)[""]
    return [
        Row(what, "ours, first (sorts the history)", first, "s", None, "a second or so"),
        Row(what, "ours, again", again, "s", again / first),
    ]


def _beside_feast(folder: Path, redis: str | None) -> list[Row]:
    rows, entities = _rows(100_000), _entities(20_000)
    urls = {"memory": "memory:", "sqlite": f"sqlite:///{folder}/ours.db", "redis": redis}
    stores = {
        home: _filled(folder / home, rows, url) for home, url in urls.items() if url is not None
    }
    for store in stores.values():
        store.materialize(VIEW, NOW)
    feast = _feast(folder / "feast", rows, entities, redis)
    if feast is None:
        absent = "not set up: 'companion side feast'"
        return [Row("Feast", absent, float("nan"), ""), *_online(stores, None)]
    ours = stores["memory"].as_of(VIEW, entities)

    def from_disk() -> pd.DataFrame:
        store = FeatureStore(folder / "memory")
        store.register(VIEW)
        return store.as_of(VIEW, entities)

    seconds = side_by_side({"": from_disk}, rounds=5)[""]
    what = "as_of, 20,000 entity rows, 100,000 feature rows"
    theirs = feast.seconds["as_of created"]
    return [
        Row(what, "Feast", theirs, "s", 1.0),
        Row(what, "ours, from Parquet too", seconds, "s", seconds / theirs),
        *_equal_values(feast, ours, stores),
        *_online(stores, feast),
    ]


def _equal_values(
    feast: _Feast, ours: pd.DataFrame, stores: Mapping[str, FeatureStore]
) -> list[Row]:
    answered = feast.as_of["created"]["row"].to_numpy()
    unknown = ours["spending_age"].isna().to_numpy()
    left_out = ~np.isin(np.arange(len(ours)), answered)
    of = f"of {len(ours):,}"
    return [
        Row("as_of: left out, no value yet", "Feast", int((left_out & unknown).sum()), of),
        Row("as_of: left out, value too old", "Feast", int((left_out & ~unknown).sum()), of),
        *(
            Row(
                "as_of: other values than ours",
                f"Feast, {name}",
                _differing(theirs, ours.iloc[theirs["row"]]),
                of,
                None,
                target,
            )
            for name, target in (("created", "0"), ("default", ""))
            for theirs in (feast.as_of[name],)
        ),
        *(
            Row(
                "online: other values than ours",
                f"Feast, {home}",
                _differing(served, stores[home].online_frame(VIEW, _keys(), NOW)),
                f"of {_KEYS}",
                None,
                "0",
            )
            for home, served in feast.online.items()
        ),
    ]


def _online(stores: Mapping[str, FeatureStore], feast: _Feast | None) -> list[Row]:
    rows = []
    for count in (1, _KEYS):
        seconds = side_by_side(
            {
                f"ours, {home}": partial(store.online, VIEW, range(count), NOW)
                for home, store in stores.items()
            },
            rounds=_READS,
        )
        if feast is not None:
            seconds |= {
                f"Feast, {home}": feast.seconds[f"online {home} {count}"] for home in feast.online
            }
        base = seconds["ours, memory"]
        what = f"online, {count} key{'s' * (count > 1)}"
        rows += [Row(what, name, took * 1e6, "µs", took / base) for name, took in seconds.items()]
    return rows


class _Feast:
    """What Feast answered: values, and the seconds that it took."""

    def __init__(self, folder: Path) -> None:
        self.seconds: dict[str, float] = json.loads((folder / "seconds.json").read_text())
        self.as_of = {
            name: pd.read_parquet(folder / f"as_of_{name}.parquet").sort_values("row")
            for name in ("created", "default")
        }
        self.online = {
            path.stem.removeprefix("online_"): pd.DataFrame(json.loads(path.read_text()))
            for path in sorted(folder.glob("online_*.json"))
        }


def _feast(
    folder: Path, rows: pd.DataFrame, entities: pd.DataFrame, redis: str | None
) -> _Feast | None:
    environment = side_environment("feast", Workbook.find().root)
    if not environment.is_current():
        return None
    folder.mkdir()
    rows.to_parquet(folder / "rows.parquet")
    # Feast answers in an order of its own, so every row carries its place.
    entities.assign(row=range(len(entities))).to_parquet(folder / "entities.parquet")
    (folder / "now.txt").write_text(NOW.isoformat())
    address = redis.removeprefix("redis://").partition("/")[0] if redis else "-"
    script = Path(__file__).with_name("_feast_side.py")
    command = [environment.python, script, folder, address]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    return _Feast(folder)


def _differing(theirs: pd.DataFrame, ours: pd.DataFrame) -> int:
    different = np.zeros(len(ours), dtype=bool)
    for name in VIEW.features:
        one = theirs[name].to_numpy(dtype="float64", na_value=np.nan)
        other = ours[name].to_numpy(dtype="float64", na_value=np.nan)
        different |= ~((one == other) | (np.isnan(one) & np.isnan(other)))
    return int(different.sum())


def _filled(folder: Path, rows: pd.DataFrame, home: str) -> FeatureStore:
    store = FeatureStore(folder, home=open_home(home))
    store.register(VIEW)
    store.ingest(VIEW, rows)
    return store


def _rows(count: int) -> pd.DataFrame:
    """Four weeks of feature rows, one in ten of them written a day after its event."""
    rng = stream(21, f"rows {count}")
    event = _moments(rng, count, days=28)
    frame = pd.DataFrame(
        {
            "customer_id": rng.integers(0, count // 50, count),
            "event_time": event,
            "created_time": event + _DAY * (rng.random(count) < 0.1),
            "mean": rng.lognormal(3.6, 1.1, count).round(2),
            "count": pd.array(rng.integers(0, 40, count), dtype="Int64"),
        }
    )
    return frame.drop_duplicates(["customer_id", "event_time"], ignore_index=True)


def _entities(count: int) -> pd.DataFrame:
    """Questions about customers, one in five of them unknown."""
    rng = stream(21, f"entities {count}")
    return pd.DataFrame(
        {
            "customer_id": rng.integers(0, count // 8, count),
            "event_time": _moments(rng, count, days=31),
        }
    )


def _moments(rng: np.random.Generator, count: int, *, days: int) -> pd.Series[pd.Timestamp]:
    offsets = pd.to_timedelta(rng.integers(0, days * 86_400, count), unit="s")
    return pd.Series(pd.Timestamp(START) + offsets).dt.as_unit("us")


def _keys() -> pd.DataFrame:
    return pd.DataFrame({"customer_id": range(_KEYS)})


@contextlib.contextmanager
def _redis_url() -> Iterator[str | None]:
    try:
        with redis_server() as server:
            yield server.url
    except RedisMissingError:
        yield None
