"""Versions that never change: saved whole, found by creation, checked when loaded."""

import json
import os
import threading
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from filelock import FileLock
from pandas.testing import assert_frame_equal

from companion.features import (
    AliasNotFoundError,
    CorruptVersionError,
    FeatureVersions,
    InvalidFrameError,
    InvalidVersionNameError,
    NoVersionsError,
    SchemaMismatchError,
    StoreBusyError,
    VersionExistsError,
    VersionNotFoundError,
    schema_of,
)

NOON = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
UNSAFE_NAMES = ["", "latest", "../x", "a/b", "a\\b", ".hidden", "-flag", "@prod", "v 1", "v1\n"]


class SetClock:
    """A wall clock that shows what the test sets."""

    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return SetClock(NOON)


@pytest.fixture
def store(tmp_path, clock):
    return FeatureVersions(tmp_path / "features", clock=clock)


def features(amount=1.0, rows=3):
    return pd.DataFrame(
        {
            "transaction_id": range(rows),
            "amount": [amount] * rows,
            "country": pd.Categorical(["at", "de", "at"][:rows], ["at", "de", "ch"]),
            "is_fraud": [False] * rows,
        }
    )


# Saving and loading


def test_what_was_saved_is_loaded(store):
    store.save(features(2.5))
    assert_frame_equal(store.load().frame, features(2.5))


def test_the_root_folder_is_made_by_the_first_save(store):
    assert not store.root.exists()
    store.save(features())
    assert store.root.is_dir()


def test_features_labels_and_ids_are_counted_apart(store):
    meta = store.save(features(), labels=["is_fraud"], ids=["transaction_id"])
    assert meta.features == ("amount", "country")
    assert meta.n_features == 2
    assert (meta.labels, meta.ids, meta.rows) == (("is_fraud",), ("transaction_id",), 3)


def test_the_loaded_metadata_is_that_of_the_save(store):
    store.save(features(), version="base")
    saved = store.save(
        features(), labels=["is_fraud"], ids=["transaction_id"], parent="base", definition="SELECT"
    )
    assert store.load().meta == saved


def test_the_definition_is_kept_as_a_hash(store):
    one, same, other = (store.save(features(), definition=text) for text in ("a", "a", "b"))
    assert one.definition_sha256 == same.definition_sha256 != other.definition_sha256


def test_the_parent_is_recorded_by_its_name(store):
    store.save(features(), version="base")
    assert store.save(features(), parent="latest").parent == "base"


def test_a_parent_that_does_not_exist_is_refused_and_nothing_saved(store):
    with pytest.raises(VersionNotFoundError):
        store.save(features(), parent="base")
    assert store.versions() == []


# Names


def test_a_default_name_tells_time_and_content(store):
    meta = store.save(features())
    assert meta.version == f"20261123T120000.123456Z-{meta.sha256[:8]}"


def test_a_default_name_can_be_loaded(store):
    meta = store.save(features())
    assert store.load(meta.version).meta == meta


def test_three_saves_at_one_moment_are_three_versions(store):
    saved = [store.save(features(amount)).version for amount in (1, 2, 3)]
    assert len(set(saved)) == 3
    assert [store.load(version).frame["amount"][0] for version in saved] == [1, 2, 3]


def test_the_same_content_saved_twice_is_two_versions_with_one_hash(store):
    first, second = store.save(features()), store.save(features())
    assert first.version != second.version
    assert first.sha256 == second.sha256


def test_an_existing_version_is_never_overwritten(store):
    store.save(features(1), version="v1")
    with pytest.raises(VersionExistsError) as caught:
        store.save(features(2), version="v1")
    assert caught.value.version == "v1"
    assert store.load("v1").frame["amount"][0] == 1


def test_a_rival_that_takes_the_name_during_the_save_wins(store, monkeypatch):
    rival = FeatureVersions(store.root)

    def encode_while_the_rival_saves(frame):
        monkeypatch.undo()
        rival.save(features(9), version="v1")
        return encode(frame)

    from companion.features.versions import encode

    monkeypatch.setattr("companion.features.versions.encode", encode_while_the_rival_saves)
    with pytest.raises(VersionExistsError):
        store.save(features(1), version="v1")
    assert store.load("v1").frame["amount"][0] == 9
    assert store.collect_garbage() == []


@pytest.mark.parametrize("name", [*UNSAFE_NAMES, "x" * 65, 7])
def test_an_unsafe_name_is_refused_everywhere(store, name):
    store.save(features(), version="v1")
    for attempt in (
        lambda: store.save(features(), version=name),
        lambda: store.set_alias(name, "v1"),
        lambda: store.alias(name),
    ):
        with pytest.raises(InvalidVersionNameError) as caught:
            attempt()
        assert caught.value.name == name
    assert [meta.version for meta in store.versions()] == ["v1"]


@pytest.mark.parametrize("name", ["../v1", "a/../v1", ".aliases", ""])
def test_an_unsafe_name_cannot_be_loaded(store, name):
    store.save(features(), version="v1")
    with pytest.raises(InvalidVersionNameError):
        store.load(name)


@pytest.mark.parametrize("name", ["v1", "V1.2_rc-3", "7", "x" * 64, "training"])
def test_an_ordinary_name_is_kept(store, name):
    assert store.save(features(), version=name).version == name


def test_a_refused_frame_leaves_no_trace(store):
    with pytest.raises(InvalidFrameError):
        store.save(features().iloc[1:])
    assert not store.root.exists()


# Latest


def test_latest_is_by_creation_and_not_by_name(store):
    for amount, name in enumerate(["v10", "v9", "v2"]):
        store.save(features(amount), version=name)
    assert store.load("latest").meta.version == "v2"
    assert [meta.version for meta in store.versions()] == ["v2", "v9", "v10"]


def test_latest_does_not_follow_file_times(store):
    store.save(features(), version="old")
    store.save(features(), version="new")
    for path in [store.root / "old", *(store.root / "old").iterdir()]:
        os.utime(path, (4e9, 4e9))
    assert store.latest().version == "new"


def test_a_clock_that_jumps_back_does_not_change_the_order(store, clock):
    first = store.save(features(), version="before")
    clock.now = NOON - timedelta(hours=1)
    second = store.save(features(), version="after")
    assert store.latest() == second
    assert second.created_at == first.created_at + timedelta(microseconds=1)


def test_the_repeated_hour_of_autumn_is_in_order(store, clock):
    vienna = ZoneInfo("Europe/Vienna")
    clock.now = datetime(2026, 10, 25, 2, 50, tzinfo=vienna, fold=0)
    store.save(features(), version="summer")
    clock.now = datetime(2026, 10, 25, 2, 10, tzinfo=vienna, fold=1)
    meta = store.save(features(), version="winter")
    assert store.latest().version == "winter"
    assert meta.created_at == datetime(2026, 10, 25, 1, 10, tzinfo=UTC)


def test_a_clock_without_a_zone_is_refused(store, clock):
    clock.now = datetime(2026, 10, 25, 2, 50)
    with pytest.raises(ValueError, match="zone"):
        store.save(features())
    assert store.versions() == []


def test_an_empty_store_has_no_latest(store):
    assert store.versions() == []
    with pytest.raises(NoVersionsError) as caught:
        store.load()
    assert caught.value.root == store.root


def test_an_unknown_version_brings_the_nearest_names(store):
    for name in ("training-2026-10", "training-2026-11", "holdout"):
        store.save(features(), version=name)
    with pytest.raises(VersionNotFoundError, match="did you mean") as caught:
        store.load("training-2026-12")
    assert set(caught.value.near) == {"training-2026-10", "training-2026-11"}


def test_strangers_in_the_folder_are_ignored(store):
    store.save(features(), version="v1")
    (store.root / "notes").mkdir()
    (store.root / "README.txt").write_text("not a version")
    assert [meta.version for meta in store.versions()] == ["v1"]
    with pytest.raises(VersionNotFoundError):
        store.load("notes")


# Schema


def test_the_expected_schema_passes(store):
    store.save(features())
    assert store.load(expect_schema=schema_of(features())).meta.rows == 3


def test_a_drifted_type_is_refused_at_load(store):
    store.save(features().astype({"amount": "float32"}), version="v1")
    with pytest.raises(SchemaMismatchError) as caught:
        store.load(expect_schema=schema_of(features()))
    assert caught.value.version == "v1"
    assert caught.value.changed == {"amount": ("float64", "float32")}


# Damage


def test_one_flipped_bit_of_the_data_is_found_before_it_is_parsed(store, monkeypatch):
    store.save(features(), version="v1")
    path = store.root / "v1" / "data.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    monkeypatch.setattr(
        "companion.features.versions.decode", lambda data: pytest.fail("parsed unchecked bytes")
    )
    with pytest.raises(CorruptVersionError, match="checksum") as caught:
        store.load()
    assert caught.value.version == "v1"


@pytest.mark.parametrize("lost", ["data.parquet", "meta.json"])
def test_a_version_that_lost_a_file_is_reported_and_not_hidden(store, lost):
    store.save(features(), version="v1")
    (store.root / "v1" / lost).unlink()
    with pytest.raises(CorruptVersionError, match=f"{lost} is missing"):
        store.load("v1")


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"metadata": 1}', "\x00\xff"])
def test_metadata_that_is_none_is_reported(store, text):
    store.save(features(), version="v1")
    (store.root / "v1" / "meta.json").write_text(text)
    with pytest.raises(CorruptVersionError, match=r"meta\.json is no metadata"):
        store.load("v1")


def test_an_edited_creation_time_is_found(store):
    store.save(features(), version="v1")
    path = store.root / "v1" / "meta.json"
    path.write_text(path.read_text().replace("2026-11-23", "2036-11-23"))
    with pytest.raises(CorruptVersionError, match="own checksum"):
        store.latest()


def test_a_renamed_version_is_found(store):
    store.save(features(), version="v1")
    (store.root / "v1").rename(store.root / "v2")
    with pytest.raises(CorruptVersionError, match="belongs to version 'v1'"):
        store.load("v2")


def test_no_older_version_passes_for_the_latest_when_the_latest_is_damaged(store):
    store.save(features(), version="v1")
    store.save(features(), version="v2")
    (store.root / "v2" / "meta.json").write_text("torn")
    with pytest.raises(CorruptVersionError) as caught:
        store.load("latest")
    assert caught.value.version == "v2"
    assert store.load("v1").meta.version == "v1"


def test_the_metadata_file_can_be_read_by_a_person(store):
    store.save(features(), labels=["is_fraud"], version="v1")
    content = json.loads((store.root / "v1" / "meta.json").read_text())["metadata"]
    assert content["created_at"] == "2026-11-23T12:00:00.123456+00:00"
    assert content["schema"]["amount"] == "float64"


# Aliases


def test_an_alias_is_a_pointer_that_moves_and_moves_back(store):
    store.save(features(1), version="v1")
    store.save(features(2), version="v2")
    for name in ("v1", "v2", "v1"):
        assert store.set_alias("production", name) == name
        assert store.load("@production").meta.version == name


def test_an_alias_set_to_latest_stays_where_it_was_set(store):
    store.save(features(), version="v1")
    store.set_alias("production", "latest")
    store.save(features(), version="v2")
    assert store.aliases() == {"production": "v1"}


def test_an_alias_may_point_where_another_points(store):
    store.save(features(), version="v1")
    store.set_alias("candidate", "v1")
    assert store.set_alias("production", "@candidate") == "v1"


def test_an_alias_is_not_set_to_a_version_that_does_not_exist(store):
    store.save(features(), version="v1")
    with pytest.raises(VersionNotFoundError):
        store.set_alias("production", "v2")
    assert store.aliases() == {}


def test_an_alias_that_was_never_set_brings_those_that_were(store):
    store.save(features(), version="v1")
    store.set_alias("production", "v1")
    with pytest.raises(AliasNotFoundError) as caught:
        store.load("@prod")
    assert caught.value.known == ("production",)


def test_an_alias_and_a_version_of_one_name_are_not_confused(store):
    store.save(features(1), version="production")
    store.save(features(2), version="v2")
    store.set_alias("production", "v2")
    assert store.load("production").frame["amount"][0] == 1
    assert store.load("@production").frame["amount"][0] == 2


def test_an_alias_whose_version_was_taken_away_says_so(store):
    store.save(features(), version="v1")
    store.set_alias("production", "v1")
    (store.root / "v1").rename(store.root.parent / "elsewhere")
    with pytest.raises(VersionNotFoundError):
        store.load("@production")


# Leftovers and locks


def test_leftovers_of_dead_writers_are_ignored_and_collected(store):
    store.save(features(), version="v1")
    store.set_alias("production", "v1")
    torn_folder = store.root / ".tmp-0123"
    torn_folder.mkdir()
    (torn_folder / "data.parquet").write_bytes(b"half")
    torn_alias = store.root / ".aliases" / ".tmp-4567"
    torn_alias.write_text("v")
    assert [meta.version for meta in store.versions()] == ["v1"]
    assert store.aliases() == {"production": "v1"}
    assert set(store.collect_garbage()) == {torn_folder, torn_alias}
    assert store.collect_garbage() == []
    assert store.load("@production").meta.version == "v1"


def test_a_store_that_was_never_written_has_no_garbage(store):
    assert store.collect_garbage() == []
    assert not store.root.exists()


def test_a_failed_save_leaves_no_garbage(store, monkeypatch):
    def full_disk(staged, final):
        raise OSError("no space left on device")

    monkeypatch.setattr("companion.features.versions.publish_folder", full_disk)
    with pytest.raises(OSError, match="no space"):
        store.save(features())
    assert store.collect_garbage() == []
    assert store.versions() == []


def test_a_lock_that_stays_held_ends_in_a_named_error(store):
    store.save(features())
    late = FeatureVersions(store.root, lock_timeout=0)
    with FileLock(store.root / ".lock"), pytest.raises(StoreBusyError) as caught:
        late.save(features())
    assert caught.value.root == store.root


def test_readers_need_no_lock(store):
    store.save(features(), version="v1")
    with FileLock(store.root / ".lock"):
        assert store.load().meta.version == "v1"


def test_eight_threads_that_save_at_once_make_eight_versions_in_one_order(store):
    start = threading.Barrier(8)

    def save(amount):
        start.wait()
        store.save(features(amount))

    threads = [threading.Thread(target=save, args=(amount,)) for amount in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = [meta.created_at for meta in store.versions()]
    assert len(set(times)) == 8
    assert times == sorted(times, reverse=True)
