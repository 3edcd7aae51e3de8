"""Reading the past: what was known at each row's time, and nothing that came later."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from companion.features import StoreBusyError, VersionMeta
from companion.features.store import (
    ClashingColumnsError,
    ConflictingRowsError,
    FeatureStore,
    FeatureView,
    FrameRefusedError,
    MissingColumnsError,
    MissingKeysError,
    UnknownViewError,
    ViewConflictError,
    history,
)

VIEW = FeatureView("spending", {"customer_id": "int64"}, {"mean": "float64"}, timedelta(days=7))
START = pd.Timestamp("2026-03-01", tz="UTC")


def day(number):
    return START + pd.Timedelta(days=number)


def rows(*facts):
    """Rows of the view from (customer, event day, created day, value)."""
    customers, events, created, values = zip(*facts, strict=True)
    return pd.DataFrame(
        {
            "customer_id": list(customers),
            "event_time": [day(number) for number in events],
            "created_time": [day(number) for number in created],
            "mean": [float(value) for value in values],
        }
    )


def asked(*questions):
    """An entity frame from (customer, day)."""
    customers, days = zip(*questions, strict=True)
    return pd.DataFrame(
        {"customer_id": list(customers), "event_time": [day(number) for number in days]}
    )


@pytest.fixture
def store(tmp_path):
    made = FeatureStore(tmp_path)
    made.register(VIEW)
    return made


def means(store, *questions):
    return store.as_of(VIEW, asked(*questions))["mean"].tolist()


def test_the_latest_value_before_each_time_is_found(store):
    store.ingest(VIEW, rows((1, 0, 0, 10), (1, 2, 2, 12), (2, 1, 1, 21)))
    assert means(store, (1, 1), (1, 3), (2, 3)) == [10, 12, 21]


def test_a_value_counts_from_its_own_moment_on(store):
    store.ingest(VIEW, rows((1, 1, 1, 10)))
    assert np.isnan(means(store, (1, 0.999))[0])
    assert means(store, (1, 1)) == [10]


def test_what_was_written_down_later_was_not_known_then(store):
    store.ingest(VIEW, rows((1, 0, 0, 10), (1, 1, 3, 11)))
    assert means(store, (1, 2), (1, 3)) == [10, 11]


def test_a_correction_counts_from_when_it_was_made(store):
    store.ingest(VIEW, rows((1, 1, 1, 10), (1, 1, 2, 11)))
    assert means(store, (1, 1.5), (1, 2.5)) == [10, 11]


def test_a_late_older_event_does_not_replace_a_newer_one(store):
    store.ingest(VIEW, rows((1, 3, 3, 13), (1, 1, 4, 11)))
    assert means(store, (1, 5)) == [13]


def test_a_value_older_than_the_ttl_is_missing_and_its_age_is_said(store):
    store.ingest(VIEW, rows((1, 0, 0, 10)))
    found = store.as_of(VIEW, asked((1, 7), (1, 8)))
    assert found["mean"].tolist()[0] == 10
    assert np.isnan(found["mean"].tolist()[1])
    assert found["spending_age"].tolist() == [pd.Timedelta(days=7), pd.Timedelta(days=8)]
    assert found["spending_event_time"].tolist() == [day(0), day(0)]


def test_without_a_ttl_values_never_grow_too_old(tmp_path):
    view = FeatureView("forever", {"customer_id": "int64"}, {"mean": "float64"}, ttl=None)
    store = FeatureStore(tmp_path)
    store.register(view)
    store.ingest(view, rows((1, 0, 0, 10)))
    assert store.as_of(view, asked((1, 9999)))["mean"].tolist() == [10]


def test_an_unknown_key_is_missing(store):
    store.ingest(VIEW, rows((5, 0, 0, 10)))
    found = store.as_of(VIEW, asked((4, 1), (6, 1)))
    assert found[["mean", "spending_event_time", "spending_age"]].isna().all(axis=None)


def test_before_its_first_row_a_key_is_missing_and_no_neighbours_value_is_taken(store):
    store.ingest(VIEW, rows((1, 0, 0, 10), (2, 3, 3, 20), (3, 0, 0, 30)))
    assert np.isnan(means(store, (1, 1), (2, 1), (3, 1))).tolist() == [False, True, False]


def test_an_empty_history_knows_nothing(store):
    found = store.as_of(VIEW, asked((1, 1)))
    assert found[["mean", "spending_event_time", "spending_age"]].isna().all(axis=None)
    assert store.materialize(VIEW).keys == 0


def test_no_questions_give_no_rows(store):
    store.ingest(VIEW, rows((1, 0, 0, 10)))
    found = store.as_of(VIEW, asked((1, 1)).iloc[:0])
    assert len(found) == 0
    assert "mean" in found.columns


def test_order_index_duplicates_and_other_columns_stay(store):
    store.ingest(VIEW, rows((1, 0, 0, 10), (2, 0, 0, 20)))
    entities = asked((2, 2), (1, 1), (2, 2), (1, 0)).assign(label=[1, 0, 1, 0])
    entities.index = ["b", "a", "b", "c"]
    found = store.as_of(VIEW, entities)
    assert_frame_equal(found[entities.columns], entities)
    assert found["mean"].tolist() == [20, 10, 20, 10]


def test_the_time_column_may_have_another_name(store):
    store.ingest(VIEW, rows((1, 0, 0, 10)))
    entities = asked((1, 1)).rename(columns={"event_time": "time"})
    assert store.as_of(VIEW, entities, time="time")["mean"].tolist() == [10]


def test_times_of_any_zone_and_unit_mean_the_same_moment(store):
    store.ingest(VIEW, rows((1, 0, 0, 10)))
    entities = asked((1, 0))
    entities["event_time"] = entities["event_time"].dt.tz_convert("Asia/Tokyo").dt.as_unit("s")
    assert store.as_of(VIEW, entities)["mean"].tolist() == [10]


def test_dtypes_stay_where_values_are_missing(tmp_path):
    features = {"mean": "float64", "count": "Int64", "abroad": "boolean", "city": "str"}
    view = FeatureView("mixed", {"customer_id": "int64"}, features, timedelta(days=7))
    store = FeatureStore(tmp_path)
    store.register(view)
    store.ingest(view, rows((1, 0, 0, 10)).assign(count=3, abroad=True, city="Wien"))
    found = store.as_of(view, asked((1, 1), (9, 1)))
    assert {name: str(found[name].dtype) for name in features} == features
    assert found.loc[0, list(features)].tolist() == [10.0, 3, True, "Wien"]
    assert found.loc[1, list(features)].isna().all()


def test_keys_of_several_columns_are_matched_together(tmp_path):
    view = FeatureView(
        "pairs", {"customer_id": "int64", "country": "str"}, {"mean": "float64"}, timedelta(days=7)
    )
    store = FeatureStore(tmp_path)
    store.register(view)
    store.ingest(
        view, rows((1, 0, 0, 10), (2, 0, 0, 20), (1, 0, 0, 11)).assign(country=["AT", "AT", "DE"])
    )
    entities = asked((1, 1), (1, 1), (2, 1), (2, 1)).assign(country=["DE", "AT", "AT", "DE"])
    assert store.as_of(view, entities)["mean"].tolist()[:3] == [11, 10, 20]
    assert np.isnan(store.as_of(view, entities)["mean"].tolist()[3])


# Ingesting


def test_the_same_rows_again_change_nothing(store):
    first = store.ingest(VIEW, rows((1, 0, 0, 10), (2, 0, 0, 20)))
    again = store.ingest(VIEW, rows((2, 0, 0, 20), (1, 0, 0, 10)))
    assert (first.new_rows, first.repeated_rows) == (2, 0)
    assert first.version is not None
    assert (again.version, again.new_rows, again.repeated_rows) == (None, 0, 2)


def test_an_overlapping_backfill_adds_only_what_is_new(store):
    store.ingest(VIEW, rows((1, 0, 0, 10), (1, 2, 2, np.nan)))
    done = store.ingest(VIEW, rows((1, 2, 2, np.nan), (1, 1, 5, 11), (1, 1, 5, 11)))
    assert (done.new_rows, done.repeated_rows) == (1, 2)


def test_an_empty_frame_adds_nothing(store):
    done = store.ingest(VIEW, rows((1, 0, 0, 10)).iloc[:0])
    assert (done.version, done.new_rows) == (None, 0)


@pytest.mark.parametrize("split", [False, True], ids=["in one frame", "in two"])
def test_another_value_for_the_same_fact_is_refused_and_nothing_of_it_is_stored(store, split):
    store.ingest(VIEW, rows((1, 0, 0, 10)))
    facts = [(2, 0, 0, 20), (3, 0, 0, 30), (3, 0, 0, 31)]
    if split:
        store.ingest(VIEW, rows((3, 0, 0, 30)))
        facts = [(2, 0, 0, 20), (1, 9, 9, 19), (3, 0, 0, 31)]
    with pytest.raises(ConflictingRowsError, match="later created time") as refused:
        store.ingest(VIEW, rows(*facts))
    assert refused.value.rows == (2,)
    assert np.isnan(means(store, (2, 1))[0])


def test_a_refused_frame_leaves_nothing_behind(store):
    store.ingest(VIEW, rows((1, 0, 0, 10)))
    with pytest.raises(FrameRefusedError):
        store.ingest(VIEW, rows((1, 1, 1, 11), (2, 1, 1, 21)).astype({"mean": "str"}))
    assert means(store, (1, 2)) == [10]


def test_another_store_on_the_same_folder_sees_what_was_ingested(store, tmp_path):
    store.ingest(VIEW, rows((1, 0, 0, 10)))
    other = FeatureStore(tmp_path)
    other.register(VIEW)
    other.ingest(VIEW, rows((1, 1, 1, 11)))
    assert means(store, (1, 2)) == means(other, (1, 2)) == [11]


def test_two_versions_of_a_view_have_rows_of_their_own(store):
    newer = FeatureView(
        "spending", {"customer_id": "int64"}, {"mean": "Int64"}, timedelta(days=7), version=2
    )
    store.register(newer)
    store.ingest(VIEW, rows((1, 0, 0, 10)))
    store.ingest(newer, rows((1, 0, 0, 10)).assign(mean=99))
    assert means(store, (1, 1)) == [10]
    assert store.as_of(newer, asked((1, 1)))["mean"].tolist() == [99]


def test_an_ingest_is_a_version_with_ids_and_a_checksum(store, tmp_path):
    done = store.ingest(VIEW, rows((1, 0, 0, 10)))
    text = (tmp_path / "spending/1/rows" / done.version / "meta.json").read_text()
    assert "sha256" in text
    assert VersionMeta.__dataclass_fields__.keys() >= {"sha256", "ids"}


# Refusals


def test_a_view_that_was_not_registered_is_named(store):
    other = FeatureView("other", {"customer_id": "int64"}, {"mean": "float64"}, None)
    with pytest.raises(UnknownViewError, match=r"other:1 is not registered; registered: spend"):
        store.as_of(other, asked((1, 1)))


def test_registering_again_changes_nothing(store):
    store.ingest(VIEW, rows((1, 0, 0, 10)))
    store.register(VIEW)
    assert means(store, (1, 1)) == [10]


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"features": {"mean": "float64", "count": "Int64"}}, "features"),
        ({"ttl": timedelta(days=8)}, "ttl"),
        ({"entities": {"customer_id": "str"}}, "entities"),
    ],
)
def test_another_definition_needs_another_version(store, tmp_path, changed, part):
    settings = {
        "name": "spending",
        "entities": {"customer_id": "int64"},
        "features": {"mean": "float64"},
        "ttl": timedelta(days=7),
    }
    with pytest.raises(ViewConflictError, match="new version") as refused:
        FeatureStore(tmp_path).register(FeatureView(**(settings | changed)))
    assert refused.value.changed == (part,)


def test_an_entity_frame_without_its_columns_is_refused(store):
    with pytest.raises(MissingColumnsError, match="customer_id, event_time"):
        store.as_of(VIEW, pd.DataFrame({"x": [1]}))


def test_an_entity_frame_with_a_missing_key_is_refused(store):
    with pytest.raises(MissingKeysError):
        store.as_of(VIEW, asked((1, 1)).assign(customer_id=[np.nan]))


def test_an_entity_frame_that_has_the_answers_columns_is_refused(store):
    with pytest.raises(ClashingColumnsError, match="mean"):
        store.as_of(VIEW, asked((1, 1)).assign(mean=0.0))


def test_now_must_know_its_zone(store):
    naive = datetime(2026, 3, 1)
    with pytest.raises(ValueError, match="must know its zone"):
        store.materialize(VIEW, naive)


def test_a_busy_store_says_so(store, monkeypatch, tmp_path):
    from filelock import FileLock

    monkeypatch.setattr(history, "_LOCK_SECONDS", 0.0)
    with FileLock(tmp_path / "spending/1/.lock"), pytest.raises(StoreBusyError):
        store.ingest(VIEW, rows((1, 0, 0, 10)))


def test_the_clock_gives_the_present_where_nobody_names_it(tmp_path):
    store = FeatureStore(tmp_path, clock=lambda: datetime(2026, 3, 4, tzinfo=UTC))
    store.register(VIEW)
    store.ingest(VIEW, rows((1, 0, 0, 10), (1, 5, 5, 15)))
    assert store.materialize(VIEW).now == datetime(2026, 3, 4, tzinfo=UTC)
    (served,) = store.online(VIEW, [1])
    assert (served.values, served.age) == ({"mean": 10.0}, timedelta(days=3))
