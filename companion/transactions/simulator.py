"""Card transactions with fraud in them, the same for the same seed on any machine.

Customers with a home, a spending profile, a rhythm and devices buy from merchants with a place, a
category, a price level and a popularity (`population`); owners' purchases are made first
(`legitimate`), then frauds of five kinds among them (`scenarios`), and each fraud is reported days
to weeks later or never (`reporting`). The idea of simulating from profiles, with scenarios that
call for different features, is that of Le Borgne et al., *Reproducible Machine Learning for Credit
Card Fraud Detection – Practical Handbook* (2022), chapter 3.

Every part draws from a random stream of its own, spawned from the seed
(`numpy.random.SeedSequence`, after O'Neill's seed_seq; see
https://numpy.org/doc/stable/reference/random/parallel.html). One more merchant therefore changes
no customer, and one more customer changes no other customer.

To see the scenarios, draw each one's rows over `time` and `amount` (both axes as they are, amount
on a log scale), or a ring's `customer_id` over `merchant_id`.
"""

import numpy as np
import pandas as pd
from numpy.random import SeedSequence

from companion.transactions import scenarios
from companion.transactions.events import DAY, Events, Floats, Ints
from companion.transactions.legitimate import legitimate
from companion.transactions.population import (
    Merchants,
    draw_customers,
    draw_land,
    draw_merchants,
    named_streams,
)
from companion.transactions.reporting import report_delay
from companion.transactions.schema import CATEGORIES, COLUMNS, SCENARIOS
from companion.transactions.venues import Venues

FIRST_DAY = np.datetime64("2026-01-05", "us")  # a Monday
FRAUD_RATES = (0.001, 0.10)


class SimulationError(ValueError):
    """An argument of `simulate` is out of range: `parameter` had `value`."""

    def __init__(self, parameter: str, value: object, allowed: str) -> None:
        super().__init__(f"{parameter} must be {allowed}; got {value!r}")
        self.parameter = parameter
        self.value = value


def simulate(
    n: int,
    *,
    seed: int,
    fraud_rate: float = 0.03,
    days: int = 90,
    customers: int | None = None,
    merchants: int | None = None,
) -> pd.DataFrame:
    """`n` transactions over `days` days in order of time, with the columns of `schema.COLUMNS`.

    Exactly `round(n * fraud_rate)` of them are fraud, shared out over the five scenarios by
    `scenarios.SHARES`. By default there is one customer for 40 transactions and one merchant for
    80.

    Raises `SimulationError` for a `fraud_rate` outside 0.001–0.10 and for an `n`, `days`,
    `customers`, `merchants` or `seed` that is no whole number in its range, or an `n` too small
    for one fraud.
    """
    _check_whole("n", n, 1)
    _check_whole("seed", seed, 0)
    _check_whole("days", days, 1)
    customers = max(20, n // 40) if customers is None else customers
    merchants = max(20, n // 80) if merchants is None else merchants
    _check_whole("customers", customers, 1)
    _check_whole("merchants", merchants, 1)
    if not FRAUD_RATES[0] <= fraud_rate <= FRAUD_RATES[1]:
        raise SimulationError(
            "fraud_rate", fraud_rate, f"from {FRAUD_RATES[0]} to {FRAUD_RATES[1]}"
        )
    frauds = round(n * fraud_rate)
    if frauds == 0:
        raise SimulationError("n", n, f"large enough for one fraud, about {1 / fraud_rate:.0f}")

    for_land, for_people, for_shops, for_events = SeedSequence(seed).spawn(4)
    stream = named_streams(for_events, (*SCENARIOS, "reports"))
    land = draw_land(for_land)
    people = draw_customers(customers, days, land, for_people)
    shops = draw_merchants(merchants, land, for_shops)
    venues = Venues(land, people, shops)
    owners = legitimate(n - frauds, days, people, shops, venues, stream["legitimate"])
    world = scenarios.World(days, people, shops, venues, owners)
    thefts = [
        commit(count, world, stream[name])
        for (name, commit), count in zip(scenarios.ALL.items(), _shared_out(frauds), strict=True)
    ]
    kind = np.repeat(np.arange(len(SCENARIOS)), [len(part) for part in (owners, *thefts)])
    delay = np.concatenate([np.full(n - frauds, np.nan), report_delay(frauds, stream["reports"])])
    events = Events.joined([owners, *thefts])
    return _table(events, kind, delay, shops, days)


def _check_whole(parameter: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise SimulationError(parameter, value, f"a whole number from {least} up")


def _shared_out(frauds: int) -> list[int]:
    """`frauds` in whole numbers by `scenarios.SHARES`, none lost to rounding."""
    upto = np.round(np.cumsum((0.0, *scenarios.SHARES)) * frauds).astype(int)
    return [int(part) for part in np.diff(upto)]


def _table(events: Events, kind: Ints, delay: Floats, shops: Merchants, days: int) -> pd.DataFrame:
    """The events in order of time as a table with `schema.COLUMNS`."""
    # Cut to microseconds before sorting, so that the order is that of the times a reader sees.
    # What rounding would put on the stroke of the next period stays in this one.
    last = days * DAY * 60_000_000 - 1
    microsecond = np.minimum((events.minute * 60_000_000).astype("int64"), last)
    order = np.argsort(microsecond, kind="stable")
    instant = FIRST_DAY + microsecond[order].astype("timedelta64[us]")
    late = delay[order]
    known = ~np.isnan(late)
    reported = np.full(len(order), np.datetime64("NaT", "us"))
    reported[known] = instant[known] + (late[known] * 60_000_000).astype("timedelta64[us]")
    frame = pd.DataFrame(
        {
            "transaction_id": np.arange(len(order)),
            "time": pd.DatetimeIndex(instant, tz="UTC"),
            "customer_id": events.customer[order],
            "merchant_id": events.merchant[order],
            "category": pd.Categorical.from_codes(
                shops.category[events.merchant[order]], pd.Index(CATEGORIES)
            ),
            "amount": np.maximum(0.01, np.round(events.amount[order], 2)),
            "distance_km": np.round(events.distance_km[order], 3),
            "device_id": events.device[order],
            "is_online": events.online[order],
            "is_fraud": kind[order] > 0,
            "scenario": pd.Categorical.from_codes(kind[order], pd.Index(SCENARIOS)),
            "label_time": pd.DatetimeIndex(reported, tz="UTC"),
        }
    )
    return frame[list(COLUMNS)]
