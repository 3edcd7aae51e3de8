"""Where online values live: one suite over all homes, Redis being a real server."""

import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from companion.features.store import (
    FeatureStore,
    FeatureView,
    MissingKeysError,
    UnreadableRecordError,
    open_home,
)
from companion.features.store.records import Record, event_time_of, stamp_of
from companion.instruments.redis_server import find_redis_server, redis_server

FEATURES = {"mean": "float64", "count": "Int64", "abroad": "boolean", "city": "str"}
VIEW = FeatureView("spending", {"customer_id": "int64"}, FEATURES, timedelta(days=7))
START = datetime(2026, 3, 1, tzinfo=UTC)
HOMES = ["memory", "sqlite", "redis"]


def day(number):
    return START + timedelta(days=number)


def rows(*facts):
    customers, events, created, values = zip(*facts, strict=True)
    return pd.DataFrame(
        {
            "customer_id": list(customers),
            "event_time": pd.DatetimeIndex([day(number) for number in events]),
            "created_time": pd.DatetimeIndex([day(number) for number in created]),
            "mean": [float(value) for value in values],
            "count": pd.array([3] * len(values), dtype="Int64"),
            "abroad": [True] * len(values),
            "city": ["Köln"] * len(values),
        }
    )


@pytest.fixture(scope="module")
def redis_url():
    if find_redis_server() is None:
        pytest.skip("there is no Redis server on this machine")
    with redis_server() as server:
        yield server.url


@pytest.fixture(params=HOMES)
def home_url(request, tmp_path):
    if request.param == "redis":
        from redis import Redis

        url = request.getfixturevalue("redis_url")
        with Redis.from_url(url) as client:
            client.flushall()
        return url
    return {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path}/online.db"}[request.param]


@pytest.fixture
def home(home_url):
    opened = open_home(home_url, timeout=30)
    yield opened
    opened.close()


@pytest.fixture
def store(tmp_path, home):
    made = FeatureStore(tmp_path / "offline", home=home)
    made.register(VIEW)
    return made


def mean(store, now=5.0, key=1):
    return store.online(VIEW, [key], day(now))[0].values["mean"]


# What any home does


def record(event, created, value):
    return Record(stamp_of(event, created), f'["{value}"]')


def test_what_was_put_is_got_in_the_order_asked(home):
    home.put("t:1", [("1", record(5, 5, "a")), ("2", record(6, 6, "b"))])
    assert home.get("t:1", ["2", "9", "1", "2"]) == [
        record(6, 6, "b"),
        None,
        record(5, 5, "a"),
        record(6, 6, "b"),
    ]


def test_nothing_asked_is_nothing_got(home):
    assert home.get("t:1", []) == []


@pytest.mark.parametrize("older", [(4, 9), (5, 4), (5, 5)], ids=["event", "created", "equal"])
def test_only_a_later_stamp_replaces(home, older):
    assert home.put("t:1", [("1", record(5, 5, "kept"))]) == 1
    assert home.put("t:1", [("1", record(*older, "lost"))]) == 0
    assert home.get("t:1", ["1"]) == [record(5, 5, "kept")]


@pytest.mark.parametrize("newer", [(5, 6), (6, 0)], ids=["created", "event"])
def test_a_later_stamp_does_replace(home, newer):
    home.put("t:1", [("1", record(5, 5, "old"))])
    assert home.put("t:1", [("1", record(*newer, "new"))]) == 1
    assert home.get("t:1", ["1"]) == [record(*newer, "new")]


def test_within_one_put_the_latest_stamp_wins_in_any_order(home):
    home.put("t:1", [("1", record(6, 6, "new")), ("1", record(5, 5, "old"))])
    assert home.get("t:1", ["1"]) == [record(6, 6, "new")]


def test_times_before_1970_come_before_later_ones(home):
    home.put("t:1", [("1", record(-5, -5, "old")), ("1", record(5, 5, "new"))])
    assert home.get("t:1", ["1"]) == [record(5, 5, "new")]


def test_tables_do_not_see_each_other(home):
    home.put("t:1", [("1", record(5, 5, "one"))])
    assert home.get("t:2", ["1"]) == [None]


def test_many_records_go_in_and_come_out(home):
    many = [(str(number), record(number, number, "v")) for number in range(1234)]
    assert home.put("t:1", many) == 1234
    assert home.get("t:1", [key for key, _ in many]) == [value for _, value in many]


def test_threads_that_write_older_and_newer_values_end_with_the_newest(home):
    stamps = list(np.random.default_rng(0).permutation(200))
    together = threading.Barrier(4)

    def put(share):
        together.wait()
        for stamp in share:
            home.put("t:1", [("1", record(int(stamp), 0, stamp))])

    threads = [threading.Thread(target=put, args=(stamps[part::4],)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert home.get("t:1", ["1"]) == [record(199, 0, 199)]


def test_a_stamp_gives_its_event_time_back():
    moment = datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    assert event_time_of(stamp_of(-1, 0)) == moment


@pytest.mark.parametrize("url", ["postgres://x", "sqlite:", "sqlite:///", "file.db"])
def test_an_unknown_url_is_refused(url):
    with pytest.raises(ValueError, match="no online home"):
        open_home(url)


# What a store does with any of them


def test_online_gives_values_event_time_and_age(store):
    store.ingest(VIEW, rows((1, 0, 0, 0.1)))
    store.materialize(VIEW, day(1))
    (served,) = store.online(VIEW, [1], day(3))
    assert served.values == {"mean": 0.1, "count": 3, "abroad": True, "city": "Köln"}
    assert (served.event_time, served.age, served.stale) == (day(0), timedelta(days=3), False)


def test_an_unknown_key_is_missing_and_no_error(store):
    (served,) = store.online(VIEW, [99], day(1))
    assert served.values == dict.fromkeys(FEATURES)
    assert (served.event_time, served.age, served.stale) == (None, None, False)


def test_values_older_than_the_ttl_are_missing_with_their_age(store):
    store.ingest(VIEW, rows((1, 0, 0, 10)))
    store.materialize(VIEW, day(1))
    assert mean(store, now=7) == 10
    (served,) = store.online(VIEW, [1], day(7.5))
    assert served.values == dict.fromkeys(FEATURES)
    assert (served.age, served.stale) == (timedelta(days=7.5), True)


def test_missing_values_stay_missing(store):
    frame = rows((1, 0, 0, np.nan))
    frame["count"] = pd.array([None], dtype="Int64")
    frame["abroad"] = pd.array([None], dtype="boolean")
    frame["city"] = pd.array([None], dtype="str")
    store.ingest(VIEW, frame)
    store.materialize(VIEW, day(1))
    (served,) = store.online(VIEW, [1], day(1))
    assert served.values == dict.fromkeys(FEATURES)
    assert not served.stale


@pytest.mark.parametrize("value", [0.1 + 0.2, 1e-310, float("inf"), -0.0, 2.0])
def test_floats_come_back_to_the_last_bit(store, value):
    store.ingest(VIEW, rows((1, 0, 0, value)))
    store.materialize(VIEW, day(1))
    assert np.float64(mean(store)).tobytes() == np.float64(value).tobytes()


def test_materialising_again_changes_nothing(store):
    store.ingest(VIEW, rows((1, 0, 0, 10), (2, 0, 0, 20)))
    first, again = store.materialize(VIEW, day(1)), store.materialize(VIEW, day(1))
    assert (first.keys, first.moved) == (2, 2)
    assert (again.keys, again.moved) == (2, 0)


def test_what_is_not_known_yet_does_not_go_online(store):
    store.ingest(VIEW, rows((1, 0, 0, 10), (1, 2, 2, 12), (1, 1, 3, 11)))
    store.materialize(VIEW, day(1.5))
    assert mean(store) == 10


def test_an_older_event_that_arrives_late_does_not_replace_a_newer_value(store):
    store.ingest(VIEW, rows((1, 3, 3, 13)))
    store.materialize(VIEW, day(4))
    store.ingest(VIEW, rows((1, 1, 4, 11)))
    assert store.materialize(VIEW, day(5)).moved == 0
    assert mean(store) == 13


def test_a_correction_of_the_same_event_does_replace(store):
    store.ingest(VIEW, rows((1, 3, 3, 13)))
    store.materialize(VIEW, day(4))
    store.ingest(VIEW, rows((1, 3, 4, 14)))
    assert store.materialize(VIEW, day(5)).moved == 1
    assert mean(store) == 14


def test_materialising_for_an_earlier_now_takes_nothing_back(store):
    store.ingest(VIEW, rows((1, 0, 0, 10), (1, 3, 3, 13)))
    store.materialize(VIEW, day(4))
    store.materialize(VIEW, day(1))
    assert mean(store) == 13


def test_a_value_from_ahead_of_our_clock_has_a_negative_age(store):
    store.ingest(VIEW, rows((1, 3, 3, 13)))
    store.materialize(VIEW, day(3))
    (served,) = store.online(VIEW, [1], day(3) - timedelta(seconds=1))
    assert (served.values["mean"], served.age) == (13, timedelta(seconds=-1))


def test_keys_come_back_in_order_with_repeats(store):
    store.ingest(VIEW, rows((1, 0, 0, 10), (2, 0, 0, 20)))
    store.materialize(VIEW, day(1))
    served = store.online(VIEW, [2, 1, np.int64(2), 3], day(1))
    assert [row.values["mean"] for row in served] == [20, 10, 20, None]


def test_a_missing_key_is_refused(store):
    with pytest.raises(MissingKeysError):
        store.online(VIEW, [1, None], day(1))


def test_a_frame_of_keys_keeps_its_index_and_other_columns(store):
    store.ingest(VIEW, rows((1, 0, 0, 10)))
    store.materialize(VIEW, day(1))
    entities = pd.DataFrame({"customer_id": [9, 1], "x": [0, 1]}, index=[7, 7])
    found = store.online_frame(VIEW, entities, day(1))
    assert list(found.index) == [7, 7]
    assert found["x"].tolist() == [0, 1]
    assert {name: str(found[name].dtype) for name in FEATURES} == FEATURES
    assert found["mean"].isna().tolist() == [True, False]


def test_an_empty_frame_of_keys_keeps_its_dtypes(store):
    entities = pd.DataFrame({"customer_id": pd.Series(dtype="int64")})
    found = store.online_frame(VIEW, entities, day(1))
    assert {name: str(found[name].dtype) for name in FEATURES} == FEATURES


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ("nonsense", "no JSON array"),
        ("{}", "no JSON array"),
        ("5", "no JSON array"),
        ('["00000000",1.0,1,true,"a"]', "other features"),
        (f'["{VIEW.fingerprint}",1.0]', "other features"),
        (f'["{VIEW.fingerprint}",1.0,1,true,5]', "city is 5, not a str"),
        (f'["{VIEW.fingerprint}","x",1,true,"a"]', "mean is 'x', not a float64"),
        (f'["{VIEW.fingerprint}",true,1,true,"a"]', "mean is True, not a float64"),
    ],
)
def test_a_record_of_another_making_is_refused(store, home, payload, said):
    home.put(VIEW.id, [("1", Record(stamp_of(0, 0), payload))])
    with pytest.raises(UnreadableRecordError, match=said) as refused:
        store.online(VIEW, [1], day(1))
    assert refused.value.key == "1"


@pytest.mark.parametrize("home_url", ["sqlite", "redis"], indirect=True)
def test_two_stores_on_one_home_share_what_is_online(tmp_path, home_url):
    stores = [
        FeatureStore(tmp_path / "offline", home=open_home(home_url, timeout=30)) for _ in range(2)
    ]
    for store in stores:
        store.register(VIEW)
    stores[0].ingest(VIEW, rows((1, 0, 0, 10)))
    stores[0].materialize(VIEW, day(1))
    assert mean(stores[1]) == 10
