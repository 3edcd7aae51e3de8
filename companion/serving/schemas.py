"""What goes in and out over HTTP, each said twice: for documentation and for the hot path.

The pydantic classes are the contract: they make the OpenAPI document, and they word every refusal.
The msgspec structs (`Transaction`, `Score`) hold the same fields and ranges and are what a request
to `/v2/predict` is decoded into and answered from, at a twentieth of the cost. Two definitions of
one thing would drift apart, so the ranges are written once, above both, and a property test throws
bodies at both and asks for the same verdict.

Strict means: a number is not text, `true` is not 1, NaN and infinity are no numbers, a field that
nobody knows is a mistake of the caller and not noise, and a time without its zone is no time. Times
are RFC 3339; numbers of seconds and dates alone, which pydantic would take, are not.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

import msgspec
from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    create_model,
)

from companion.features.defaults import FEATURES

Category = Literal["groceries", "fuel", "restaurants", "electronics", "travel", "digital"]
"""`companion.transactions.CATEGORIES`; a test holds the two together."""

Action = Literal["approve", "review", "decline"]
Source = Literal["model", "cache", "fallback"]

LARGEST_ID = 2**63 - 1
LARGEST_AMOUNT = 1_000_000.0
"""Euros."""
LONGEST_DISTANCE = 20_040.0
"""Kilometres: half the way around the Earth."""
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)
"""The first moment that is too late. Others are mistakes: milliseconds for seconds, a default."""

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)
_WRONG_CENTURY = "the time lies outside 2000–2099"

_Id = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_ID)]
_IdIn = Annotated[int, Field(ge=0, le=LARGEST_ID)]


class Transaction(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """One transaction as the hot path sees it: the msgspec twin of `TransactionIn`.

    Subscripted by a column's name it is a row, as the features take one.
    """

    transaction_id: _Id
    time: Annotated[datetime, msgspec.Meta(tz=True)]
    customer_id: _Id
    merchant_id: _Id
    category: Category
    amount: Annotated[float, msgspec.Meta(gt=0, le=LARGEST_AMOUNT)]
    distance_km: Annotated[float, msgspec.Meta(ge=0, le=LONGEST_DISTANCE)]
    device_id: _Id
    is_online: bool

    def __post_init__(self) -> None:
        if not EARLIEST <= self.time < LATEST:
            raise ValueError(_WRONG_CENTURY)


def _rfc_3339(value: object) -> datetime:
    """The time in `value` by the very parser of the hot path; a `datetime` is left as it is."""
    if isinstance(value, str):
        value = _parsed(value)
    if not isinstance(value, datetime):
        raise ValueError("a time is text by RFC 3339, as 2026-03-01T12:30:00Z")
    if value.tzinfo is not None and not EARLIEST <= value < LATEST:
        raise ValueError(_WRONG_CENTURY)
    return value


def _parsed(text: str) -> datetime | None:
    try:
        return msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        return None


class TransactionIn(BaseModel):
    """One card transaction to be scored: what is known when the card is presented."""

    model_config = _STRICT

    transaction_id: Annotated[_IdIn, Field(examples=[90_001])]
    time: Annotated[
        AwareDatetime,
        BeforeValidator(_rfc_3339),
        WithJsonSchema({"type": "string", "format": "date-time"}),
        Field(
            description="RFC 3339 with its zone, from 2000 to 2099",
            examples=["2026-03-01T12:30:00Z"],
        ),
    ]
    customer_id: Annotated[_IdIn, Field(examples=[17])]
    merchant_id: Annotated[_IdIn, Field(examples=[4])]
    category: Annotated[Category, Field(description="of the merchant", examples=["electronics"])]
    amount: Annotated[float, Field(gt=0, le=LARGEST_AMOUNT, description="euros", examples=[249.9])]
    distance_km: Annotated[
        float,
        Field(
            ge=0,
            le=LONGEST_DISTANCE,
            description="from the customer's home to where the card was used",
            examples=[12.5],
        ),
    ]
    device_id: Annotated[_IdIn, Field(description="chip, phone or computer", examples=[17])]
    is_online: Annotated[bool, Field(description="card not present", examples=[True])]

    def as_transaction(self) -> Transaction:
        """The same as the struct that the scorer takes."""
        return Transaction(**dict(self))


class Score(msgspec.Struct, frozen=True, gc=False):
    """The answer of `/v2/predict`: the msgspec twin of `ScoreOut`, which says what each is."""

    transaction_id: int
    fraud_probability: float
    decision: Action
    threshold: float
    model_version: str | None
    source: Source
    degraded: bool
    features_age_s: float | None
    request_id: str


class ScoreOut(BaseModel):
    """How probable fraud is, and what costs least in view of that."""

    model_config = ConfigDict(extra="forbid")

    transaction_id: int
    fraud_probability: Annotated[float, Field(ge=0, le=1)]
    decision: Annotated[Action, Field(description="the cheapest of the three, in expectation")]
    threshold: Annotated[
        float,
        Field(ge=0, le=1, description="approved below this probability; depends on the amount"),
    ]
    model_version: Annotated[
        str | None, Field(description="start of the model's SHA-256; null: no model answered")
    ]
    source: Annotated[
        Source, Field(description="fallback: no model answered, the base rate stands in for it")
    ]
    degraded: Annotated[
        bool, Field(description="features are missing or too old, or no model answered")
    ]
    features_age_s: Annotated[
        float | None,
        Field(description="seconds that the state lags behind the transaction; null: unknown"),
    ]
    request_id: str


class ReasonOut(BaseModel):
    """Something observed, and what it does to the score."""

    subject: str
    words: str
    effect: Annotated[float, Field(description="in the explanation's unit; above 0: for fraud")]
    effect_in_words: str


class ExplanationOut(BaseModel):
    """A score and its reasons, strongest first; base and all contributions add up to the score."""

    transaction_id: int
    fraud_probability: Annotated[float, Field(ge=0, le=1)]
    decision: Action
    threshold: Annotated[float, Field(ge=0, le=1)]
    model_version: str
    degraded: bool
    features_age_s: float | None
    unit: Literal["probability", "log-odds"]
    base: Annotated[float, Field(description="the score of the rows compared with, in the unit")]
    reasons: list[ReasonOut]
    features: Annotated[dict[str, float], Field(description="what the model saw")]
    contributions: Annotated[dict[str, float], Field(description="by feature, in the unit")]
    request_id: str


_FEATURE_FIELDS: dict[str, Any] = {
    name: (Annotated[float, Field(ge=-1e6, le=1e6, examples=[0.5])], ...) for name in FEATURES
}


class _FeaturesBase(BaseModel):
    model_config = _STRICT

    @property
    def row(self) -> list[float]:
        """The values in the order of `FEATURES`."""
        return list(dict(self).values())

    @classmethod
    def of(cls, values: dict[str, float]) -> Self:
        """From values by name; raises pydantic's `ValidationError`."""
        return cls.model_validate(values)


FeaturesIn = create_model(
    "FeaturesIn",
    __base__=_FeaturesBase,
    __doc__="The first version's contract: the client computes the twelve features itself.",
    **_FEATURE_FIELDS,
)


class ScoreV1Out(BaseModel):
    """The first version's answer."""

    model_config = ConfigDict(extra="forbid")

    fraud_probability: Annotated[float, Field(ge=0, le=1)]
    model_version: str


class ProblemItem(BaseModel):
    """One field that was refused, and why; what was sent is not repeated."""

    type: str
    loc: list[str | int]
    msg: str


class ProblemOut(BaseModel):
    """A problem by RFC 9457 (`application/problem+json`)."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str | None = None
    request_id: str


class InvalidOut(ProblemOut):
    """The problem of a request that does not fit its schema."""

    errors: list[ProblemItem]


decode_transaction = msgspec.json.Decoder(Transaction).decode
"""JSON to a `Transaction`; raises one of `REFUSALS`."""

REFUSALS: tuple[type[Exception], ...] = (msgspec.DecodeError, UnicodeDecodeError)
"""No JSON, no `Transaction`, or a name that is no UTF-8, which msgspec leaves to Python to say."""

encode_score = msgspec.json.Encoder().encode
