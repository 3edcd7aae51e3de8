"""Feast's side of `benchmarks/feature_store.py`; runs in its own environment, on an older pandas.

    python _feast_side.py FOLDER REDIS

FOLDER holds `rows.parquet` (customer_id, event_time, created_time, mean, count), `entities.parquet`
(customer_id, event_time) and `now.txt`. REDIS is `host:port`, or `-` for none. The values that
Feast gives go to `as_of_default.parquet`, `as_of_created.parquet` (told to filter by created time)
and `online_<home>.json`, the times in seconds to `seconds.json`.
"""

import json
import statistics
import sys
import time
import warnings
from datetime import timedelta
from pathlib import Path

warnings.simplefilter("ignore")

import pandas as pd  # noqa: E402
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType  # noqa: E402
from feast.types import Float64, Int64  # noqa: E402

FEATURES = ["spending:mean", "spending:count"]
AS_OF = {"default": {}, "created": {"filter_by_created_timestamp": True}}
READS = 200
KEYS = 50


def main(folder, redis):
    now = pd.Timestamp((folder / "now.txt").read_text()).to_pydatetime()
    entities = pd.read_parquet(folder / "entities.parquet").rename(
        columns={"event_time": "event_timestamp"}
    )
    homes = {"sqlite": {"type": "sqlite", "path": str(folder / "online.db")}}
    if redis != "-":
        homes["redis"] = {"type": "redis", "connection_string": redis}
    seconds = {}
    for home, online_store in homes.items():
        store = opened(folder / home, online_store, folder / "rows.parquet")
        if home == "sqlite":
            for name, settings in AS_OF.items():
                began = time.perf_counter()
                found = store.get_historical_features(entities, FEATURES, **settings).to_df()
                seconds[f"as_of {name}"] = time.perf_counter() - began
                found.to_parquet(folder / f"as_of_{name}.parquet")
        began = time.perf_counter()
        store.materialize(now - timedelta(days=365), now)
        seconds[f"materialize {home}"] = time.perf_counter() - began
        keys = [{"customer_id": number} for number in range(KEYS)]
        served = store.get_online_features(FEATURES, keys).to_dict()
        (folder / f"online_{home}.json").write_text(json.dumps(served))
        for count in (1, KEYS):
            asked = keys[:count]
            seconds[f"online {home} {count}"] = median_seconds(
                lambda store=store, asked=asked: store.get_online_features(
                    FEATURES, asked
                ).to_dict()
            )
    (folder / "seconds.json").write_text(json.dumps(seconds))


def opened(repository, online_store, rows):
    repository.mkdir()
    settings = {
        "project": "bench",
        "provider": "local",
        "registry": str(repository / "registry.db"),
        "offline_store": {"type": "file"},
        "online_store": online_store,
        "entity_key_serialization_version": 3,
    }
    # JSON is YAML.
    (repository / "feature_store.yaml").write_text(json.dumps(settings))
    store = FeatureStore(str(repository))
    customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)
    view = FeatureView(
        name="spending",
        entities=[customer],
        ttl=timedelta(days=7),
        schema=[Field(name="mean", dtype=Float64), Field(name="count", dtype=Int64)],
        source=FileSource(
            path=str(rows),
            timestamp_field="event_time",
            created_timestamp_column="created_time",
        ),
        online=True,
    )
    store.apply([customer, view])
    return store


def median_seconds(call):
    call()
    taken = []
    for _ in range(READS):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
