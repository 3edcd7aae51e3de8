"""The two definitions of one body: msgspec for the hot path, pydantic for the contract."""

import json
from datetime import UTC, datetime
from typing import Any, get_args
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from companion.features.defaults import FEATURES
from companion.serving.schemas import (
    LARGEST_AMOUNT,
    LARGEST_ID,
    LONGEST_DISTANCE,
    REFUSALS,
    Category,
    FeaturesIn,
    Score,
    ScoreOut,
    Transaction,
    TransactionIn,
    decode_transaction,
    encode_score,
)
from companion.transactions import CATEGORIES

BERLIN = ZoneInfo("Europe/Berlin")
GOOD: dict[str, Any] = {
    "transaction_id": 1,
    "time": "2026-03-01T12:30:00Z",
    "customer_id": 17,
    "merchant_id": 4,
    "category": "fuel",
    "amount": 42.5,
    "distance_km": 3.25,
    "device_id": 17,
    "is_online": False,
}
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(LARGEST_ID - 1, LARGEST_ID + 2),
    st.sampled_from([0, -1, 1.0, -0.0, 1e400, float("nan"), 5e-324, 10**400, "1", "NaN", "true"]),
    st.sampled_from([LARGEST_AMOUNT, LARGEST_AMOUNT + 0.01, LONGEST_DISTANCE, 20_041]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(CATEGORIES),
)
TIMES: st.SearchStrategy[Any] = st.one_of(
    st.datetimes(timezones=st.sampled_from([UTC, BERLIN, None])).map(datetime.isoformat),
    st.from_regex(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?([Zz]|[+-]\d\d:?\d\d)?"),
    st.sampled_from(
        [
            "1700000000",
            "2026-03-01",
            "1999-12-31T23:59:59Z",
            "2099-12-31T23:59:59+00:00",
            "2026-06-30T23:59:60Z",
            "2100-01-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "now",
            "",
        ]
    ),
)
ANY = SCALARS | TIMES | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(), SCALARS)


def verdicts(body: bytes) -> tuple[Any, Any]:
    """What each definition makes of `body`, `None` for a refusal."""
    try:
        fast = decode_transaction(body)
    except REFUSALS:
        fast = None
    try:
        slow = TransactionIn.model_validate_json(body).as_transaction()
    except ValidationError:
        slow = None
    return fast, slow


@settings(max_examples=200, deadline=None)
@given(
    changed=st.dictionaries(st.sampled_from(list(GOOD)), ANY, max_size=2),
    added=st.dictionaries(st.text(max_size=5), SCALARS, max_size=1),
    dropped=st.sets(st.sampled_from(list(GOOD)), max_size=1),
)
def test_both_definitions_accept_and_refuse_the_same_bodies(changed, added, dropped):
    body = {**GOOD, **changed, **added}
    body = {name: value for name, value in body.items() if name not in dropped}

    fast, slow = verdicts(json.dumps(body).encode())

    assert fast == slow


@settings(max_examples=100, deadline=None)
@given(time=TIMES)
def test_both_definitions_read_the_same_times(time):
    fast, slow = verdicts(json.dumps({**GOOD, "time": time}).encode())

    assert fast == slow


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=40), place=st.integers(0, 200))
def test_both_definitions_agree_about_bodies_with_bytes_in_wrong_places(data, place):
    body = json.dumps(GOOD).encode()

    fast, slow = verdicts(body[:place] + data + body[place:])

    assert fast == slow


@pytest.mark.parametrize(
    "body",
    [json.dumps(GOOD).encode(), json.dumps({**GOOD, "amount": 10}).encode(), b" " + b"{}" + b" "],
)
def test_whole_numbers_are_amounts_and_space_around_a_body_is_none(body):
    fast, slow = verdicts(body)

    assert fast == slow


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount", "10"),
        ("amount", True),
        ("amount", 0),
        ("amount", 1_000_000.01),
        ("customer_id", 1.0),
        ("customer_id", -1),
        ("is_online", 1),
        ("category", "weapons"),
        ("time", 1_700_000_000),
        ("time", "2026-03-01T12:30:00"),
        ("time", "1999-12-31T23:59:59Z"),
        ("nobody_knows", 1),
    ],
)
def test_what_is_refused_by_one_is_refused_by_both(field, value):
    assert verdicts(json.dumps({**GOOD, field: value}).encode()) == (None, None)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_no_body_brings_a_number_that_is_none(number):
    body = json.dumps(GOOD).encode().replace(b"42.5", number)

    assert verdicts(body) == (None, None)


@pytest.mark.parametrize("opening", [b"[", b'{"amount":', b'{"amount":['])
def test_depth_is_refused_and_breaks_nothing(opening):
    assert verdicts(opening * 100_000) == (None, None)


def test_a_field_that_stands_there_twice_is_refused_by_the_hot_path_if_either_is_wrong():
    body = b'{"amount": "ten",' + json.dumps(GOOD).encode()[1:]

    with pytest.raises(msgspec.ValidationError):
        decode_transaction(body)


def test_categories_are_those_of_the_transactions():
    assert get_args(Category) == CATEGORIES


def test_the_structs_have_the_fields_of_the_models():
    assert list(Transaction.__struct_fields__) == list(TransactionIn.model_fields)
    assert list(Score.__struct_fields__) == list(ScoreOut.model_fields)


def test_an_encoded_score_is_what_the_contract_promises():
    score = Score(1, 0.25, "review", 0.1, "abc", "model", False, None, "r-1")

    assert ScoreOut.model_validate_json(encode_score(score)).model_dump() == msgspec.to_builtins(
        score
    )


def test_the_first_version_takes_exactly_the_twelve_features():
    values = {name: place / 7 for place, name in enumerate(FEATURES)}

    assert FeaturesIn.of(values).row == list(values.values())
    with pytest.raises(ValidationError):
        FeaturesIn.of({**values, "more": 1.0})
    with pytest.raises(ValidationError):
        FeaturesIn.of({**values, FEATURES[0]: float("nan")})
