"""Card transactions with fraud in them, the same for the same seed on any machine.

Customers have a home, a habit of spending and a rhythm; merchants a category and a price level.
Three kinds of fraud differ in how they can be seen: a stolen card's *spree* (large amounts, far
away, one soon after the other), card *testing* (tiny amounts online, in bursts), and *quiet* use
that looks almost like the owner's, which keeps any model from being perfect.

Every part draws from a random stream of its own, spawned from the seed
(`numpy.random.SeedSequence`, after O'Neill's seed_seq; see
https://numpy.org/doc/stable/reference/random/parallel.html). One more merchant therefore changes
no customer, and one more customer changes no other customer.
"""

from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
from numpy.random import Generator, SeedSequence
from numpy.typing import NDArray

from companion.transactions.schema import CATEGORIES, COLUMNS

FIRST_DAY = np.datetime64("2026-01-05", "us")  # a Monday
FRAUD_RATES = (0.001, 0.10)

_DAY_MINUTES = 24 * 60
_HOUR_WEIGHTS = np.array(
    [2, 1, 1, 1, 1, 2, 4, 7, 9, 8, 8, 9, 12, 11, 8, 8, 9, 12, 14, 13, 10, 8, 6, 4], dtype=float
)
_PRICE_LEVEL = np.array([0.8, 1.3, 1.0, 3.5, 5.0, 0.5])  # by category, times the customer's habit
_ONLINE_SHARE = np.array([0.1, 0.0, 0.1, 0.5, 0.6, 1.0])  # by category
_SHARE_SPREE, _SHARE_TESTING = 0.45, 0.30  # of all frauds; the rest is quiet

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_STREAMS = (
    "habit",
    "activity",
    "category",
    "price",
    "legitimate",
    "spree",
    "testing",
    "quiet",
)


class SimulationError(ValueError):
    """An argument of `simulate` is out of range: `parameter` had `value`."""

    def __init__(self, parameter: str, value: object, allowed: str) -> None:
        super().__init__(f"{parameter} must be {allowed}; got {value!r}")
        self.parameter = parameter
        self.value = value


@dataclass(frozen=True)
class _Customers:
    usual_amount: Floats  # euros
    activity: Floats  # share of all transactions


@dataclass(frozen=True)
class _Merchants:
    category: Ints  # index into CATEGORIES
    price: Floats  # factor


@dataclass(frozen=True)
class _Events:
    minute: Floats  # since FIRST_DAY
    customer: Ints
    merchant: Ints
    amount: Floats
    distance_km: Floats
    online: NDArray[np.bool_]


def simulate(
    n: int,
    *,
    seed: int,
    fraud_rate: float = 0.03,
    days: int = 30,
    customers: int | None = None,
    merchants: int | None = None,
) -> pd.DataFrame:
    """`n` transactions over `days` days in order of time, with the columns of `schema.COLUMNS`.

    Exactly `round(n * fraud_rate)` of them are fraud. By default there is one
    customer for 40 transactions and one merchant for 100.

    Raises `SimulationError` for a `fraud_rate` outside 0.001–0.10 and for an `n`, `days`,
    `customers`, `merchants` or `seed` that is no whole number in its range, or an `n` too small
    for one fraud.
    """
    _check_whole("n", n, 1)
    _check_whole("seed", seed, 0)
    _check_whole("days", days, 1)
    customers = max(20, n // 40) if customers is None else customers
    merchants = max(20, n // 100) if merchants is None else merchants
    _check_whole("customers", customers, 1)
    _check_whole("merchants", merchants, 1)
    if not FRAUD_RATES[0] <= fraud_rate <= FRAUD_RATES[1]:
        raise SimulationError(
            "fraud_rate", fraud_rate, f"from {FRAUD_RATES[0]} to {FRAUD_RATES[1]}"
        )

    children = SeedSequence(seed).spawn(len(_STREAMS))
    stream = {
        name: np.random.default_rng(child) for name, child in zip(_STREAMS, children, strict=True)
    }
    people = _draw_customers(customers, stream)
    shops = _draw_merchants(merchants, stream)
    frauds = round(n * fraud_rate)
    if frauds == 0:
        raise SimulationError("n", n, f"large enough for one fraud, about {1 / fraud_rate:.0f}")
    sprees, tests = round(frauds * _SHARE_SPREE), round(frauds * _SHARE_TESTING)
    parts = [
        _legitimate(n - frauds, days, people, shops, stream["legitimate"]),
        _spree(sprees, days, people, shops, stream["spree"]),
        _testing(tests, days, people, shops, stream["testing"]),
        _quiet(frauds - sprees - tests, days, people, shops, stream["quiet"]),
    ]
    return _table(parts, days, people, shops)


def _check_whole(parameter: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise SimulationError(parameter, value, f"a whole number from {least} up")


def _draw_customers(count: int, stream: dict[str, Generator]) -> _Customers:
    activity = stream["activity"].gamma(2.0, size=count)
    return _Customers(
        usual_amount=np.exp(stream["habit"].normal(np.log(25), 0.6, size=count)),
        activity=activity / activity.sum(),
    )


def _draw_merchants(count: int, stream: dict[str, Generator]) -> _Merchants:
    return _Merchants(
        category=stream["category"].integers(len(CATEGORIES), size=count),
        price=np.exp(stream["price"].normal(0, 0.25, size=count)),
    )


def _legitimate(
    count: int, days: int, people: _Customers, shops: _Merchants, rng: Generator
) -> _Events:
    customer = rng.choice(len(people.activity), size=count, p=people.activity)
    merchant = rng.integers(len(shops.category), size=count)
    category = shops.category[merchant]
    travelling = rng.random(count) < 0.06
    amount = (
        people.usual_amount[customer]
        * _PRICE_LEVEL[category]
        * shops.price[merchant]
        * np.exp(rng.normal(0, 0.7, size=count))
        * np.where(travelling, 1.6, 1.0)  # journeys cost more, so distance alone proves nothing
    )
    distance = np.where(
        travelling,
        np.exp(rng.normal(np.log(200), 1.0, size=count)),
        rng.gamma(1.2, 6.0, size=count),
    )
    hour = rng.choice(24, size=count, p=_HOUR_WEIGHTS / _HOUR_WEIGHTS.sum())
    minute = rng.integers(days, size=count) * _DAY_MINUTES + hour * 60 + rng.random(count) * 60
    online = rng.random(count) < _ONLINE_SHARE[category]
    return _Events(minute, customer, merchant, amount, distance, online)


def _quiet(count: int, days: int, people: _Customers, shops: _Merchants, rng: Generator) -> _Events:
    owner = _legitimate(count, days, people, shops, rng)
    dearer = np.exp(rng.normal(0.4, 0.4, size=count))
    return _Events(
        owner.minute,
        owner.customer,
        owner.merchant,
        owner.amount * dearer,
        owner.distance_km,
        owner.online | (rng.random(count) < 0.3),
    )


def _spree(count: int, days: int, people: _Customers, shops: _Merchants, rng: Generator) -> _Events:
    burst, minute = _bursts(count, days, mean_size=3.0, mean_gap=25.0, rng=rng)
    victim = rng.integers(len(people.activity), size=count)[burst]
    place = np.exp(rng.normal(np.log(70), 1.2, size=count))[burst]
    merchant = rng.integers(len(shops.category), size=count)
    category = shops.category[merchant]
    amount = (
        people.usual_amount[victim]
        * _PRICE_LEVEL[category]
        * shops.price[merchant]
        * np.exp(rng.normal(0.9, 0.7, size=count))
    )
    distance = place * rng.uniform(0.8, 1.2, size=count)
    online = rng.random(count) < _ONLINE_SHARE[category]
    return _Events(minute, victim, merchant, amount, distance, online)


def _testing(
    count: int, days: int, people: _Customers, shops: _Merchants, rng: Generator
) -> _Events:
    burst, minute = _bursts(count, days, mean_size=4.0, mean_gap=4.0, rng=rng)
    victim = rng.integers(len(people.activity), size=count)[burst]
    merchant = rng.integers(len(shops.category), size=count)
    amount = np.exp(rng.normal(np.log(3.0), 0.6, size=count))
    distance = np.exp(rng.normal(np.log(30), 1.5, size=count))[burst]
    return _Events(minute, victim, merchant, amount, distance, np.ones(count, dtype=bool))


def _bursts(
    count: int, days: int, *, mean_size: float, mean_gap: float, rng: Generator
) -> tuple[Ints, Floats]:
    """Which burst each of `count` events belongs to, and its minute; bursts start at any hour."""
    starts_burst = rng.random(count) < 1 / mean_size
    starts_burst[:1] = True
    burst: Ints = np.cumsum(starts_burst, dtype=np.int64) - 1
    gap = np.where(starts_burst, 0.0, rng.exponential(mean_gap, size=count))
    total = np.cumsum(gap)
    first = np.maximum.accumulate(np.where(starts_burst, np.arange(count), 0))
    since_start = total - total[first]
    start = rng.uniform(0, days * _DAY_MINUTES, size=count)[burst]
    # What would run past the end stays inside the period by going round, as a clock does.
    minute: Floats = (start + since_start) % (days * _DAY_MINUTES)
    return burst, minute


def _table(parts: list[_Events], days: int, people: _Customers, shops: _Merchants) -> pd.DataFrame:
    events = _Events(
        *(
            np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(_Events)
        )
    )
    is_fraud = np.arange(len(events.minute)) >= len(parts[0].minute)
    # Cut to microseconds before sorting, so that the order is that of the times a reader sees.
    microsecond = (events.minute * 60_000_000).astype("int64")
    order = np.argsort(microsecond, kind="stable")
    time = pd.DatetimeIndex(FIRST_DAY + microsecond[order].astype("timedelta64[us]"), tz="UTC")
    hour = time.hour.to_numpy().astype("int64")
    customer, merchant = events.customer[order], events.merchant[order]
    frame = pd.DataFrame(
        {
            "transaction_id": np.arange(len(order)),
            "time": time,
            "customer_id": customer,
            "merchant_id": merchant,
            "category": pd.Categorical.from_codes(shops.category[merchant], pd.Index(CATEGORIES)),
            "amount": np.maximum(0.01, np.round(events.amount[order], 2)),
            "usual_amount": np.round(people.usual_amount[customer], 2),
            "distance_km": np.round(events.distance_km[order], 3),
            "hour": hour,
            "is_night": hour < 6,
            "is_weekend": time.dayofweek.to_numpy() >= 5,
            "is_online": events.online[order],
            "is_fraud": is_fraud[order],
        }
    )
    gap = frame.groupby("customer_id")["time"].diff().dt.total_seconds() / 60
    frame["minutes_since_previous"] = gap.fillna(float(days * _DAY_MINUTES))
    return frame[list(COLUMNS)]
