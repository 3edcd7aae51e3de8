"""Who pays and who is paid: customers and merchants, and the plane that they live on.

Every property of a customer or a merchant is drawn from a random stream of its own, one draw (or
one row of draws) each, in order of id. So customer 17 is the same person however many others
there are, and merchants do not change customers. The streams are spawned from one
`numpy.random.SeedSequence` (after O'Neill's seed_seq,
https://numpy.org/doc/stable/reference/random/parallel.html).

That a spending profile belongs to a customer and a place to both sides follows the transaction
simulator of Le Borgne, Siblini, Lebichot and Bontempi, *Reproducible Machine Learning for Credit
Card Fraud Detection – Practical Handbook* (2022), chapter 3; what is drawn here and how is ours.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator, SeedSequence

from companion.transactions.events import DAY, Bools, Floats, Ints
from companion.transactions.schema import CATEGORIES

CITIES = 12
_COLUMNS = 4  # of the grid that cities lie in, one in each cell, so that no two are neighbours
_CELL_KM = 160.0
_CITY_RADIUS_KM = 7.0
_TASTE = np.array([0.32, 0.12, 0.20, 0.08, 0.05, 0.23])  # share of transactions by category
_SHOPS = np.array([0.22, 0.12, 0.26, 0.14, 0.10, 0.16])  # share of merchants by category
_CHAINS = 0.25  # share of merchants with branches in every city
TRIP_BLOCK_DAYS = 30  # a customer goes on at most one journey in each block
MOST_DEVICES = 3

_OF_CUSTOMERS = (
    *("city", "x", "y", "level", "spread", "taste", "activity", "rhythm", "shift", "weekend"),
    *("online", "devices", "device_life", "device_age", "wander"),
)
_OF_JOURNEYS = ("trip", "trip_start", "trip_days", "trip_city")
_OF_MERCHANTS = ("category", "city", "x", "y", "chain", "price", "popularity")


@dataclass(frozen=True)
class Land:
    """The cities that customers live in and merchants stand in."""

    x: Floats  # km, cities
    y: Floats
    size: Floats  # share of the people


@dataclass(frozen=True)
class Customers:
    """One entry per customer; `customers × k` where a property has several parts."""

    city: Ints
    x: Floats  # km: home
    y: Floats
    level: Floats  # log of the usual amount in euros
    spread: Floats  # standard deviation of the log amount
    taste: Floats  # customers × CATEGORIES, shares
    activity: Floats  # how much a customer buys, relative to others
    rhythm: Ints  # index into rhythm.DAYS
    shift: Floats  # minutes by which the customer's day runs late
    weekend: Floats  # how much likelier a weekend day is than a weekday
    online: Floats  # added to the log-odds of buying online
    devices: Ints  # 1–MOST_DEVICES
    device_life: Floats  # minutes until a device is replaced
    device_age: Floats  # customers × MOST_DEVICES: share of its life that is over on the first day
    trip_start: Floats  # customers × blocks, minutes; infinite where there is no journey
    trip_end: Floats
    trip_city: Ints

    def __len__(self) -> int:
        return len(self.city)

    @property
    def usual_amount(self) -> Floats:
        """Euros: the median of what the customer pays at an average merchant."""
        amount: Floats = np.exp(self.level)
        return amount


@dataclass(frozen=True)
class Merchants:
    """One entry per merchant."""

    category: Ints  # index into CATEGORIES
    city: Ints
    x: Floats  # km
    y: Floats
    chain: Bools  # has a branch in every city
    price: Floats  # factor on the amount
    popularity: Floats  # relative to others

    def __len__(self) -> int:
        return len(self.category)


def named_streams(sequence: SeedSequence, names: Iterable[str]) -> dict[str, Generator]:
    """One independent generator per name, spawned in order: new names go to the end."""
    listed = tuple(names)
    children = sequence.spawn(len(listed))
    return {
        name: np.random.default_rng(child) for name, child in zip(listed, children, strict=True)
    }


def draw_land(sequence: SeedSequence) -> Land:
    """Where the cities lie and how many live there; always `CITIES` of them."""
    stream = named_streams(sequence, ("x", "y", "size"))
    column, row = np.arange(CITIES) % _COLUMNS, np.arange(CITIES) // _COLUMNS
    size = stream["size"].gamma(4.0, size=CITIES)
    return Land(
        x=(column + stream["x"].uniform(0.2, 0.8, size=CITIES)) * _CELL_KM,
        y=(row + stream["y"].uniform(0.2, 0.8, size=CITIES)) * _CELL_KM,
        size=size / size.sum(),
    )


def draw_customers(count: int, days: int, land: Land, sequence: SeedSequence) -> Customers:
    """`count` customers and their journeys over `days` days."""
    stream = named_streams(sequence, (*_OF_CUSTOMERS, *_OF_JOURNEYS))
    city = stream["city"].choice(CITIES, size=count, p=land.size)
    taste = stream["taste"].gamma(6.0 * _TASTE, size=(count, len(CATEGORIES)))
    blocks = (count, -(-days // TRIP_BLOCK_DAYS))
    away = stream["trip"].random(blocks) < stream["wander"].beta(1.2, 2.0, size=count)[:, None]
    start = (np.arange(blocks[1]) + stream["trip_start"].random(blocks)) * TRIP_BLOCK_DAYS
    lasts = np.exp(stream["trip_days"].normal(np.log(4), 0.6, size=blocks))
    end = start + np.minimum(lasts, TRIP_BLOCK_DAYS)
    return Customers(
        city=city,
        x=land.x[city] + stream["x"].normal(0, _CITY_RADIUS_KM, size=count),
        y=land.y[city] + stream["y"].normal(0, _CITY_RADIUS_KM, size=count),
        level=stream["level"].normal(np.log(25), 0.5, size=count),
        spread=stream["spread"].uniform(0.4, 0.75, size=count),
        taste=taste / taste.sum(axis=1, keepdims=True),
        activity=stream["activity"].gamma(2.0, size=count),
        rhythm=stream["rhythm"].choice(3, size=count, p=[0.6, 0.28, 0.12]),
        shift=stream["shift"].normal(0, 60, size=count),
        weekend=np.exp(stream["weekend"].normal(0.1, 0.35, size=count)),
        online=stream["online"].normal(0, 0.6, size=count),
        devices=stream["devices"].choice([1, 2, 3], size=count, p=[0.45, 0.38, 0.17]),
        device_life=np.exp(stream["device_life"].normal(np.log(270), 0.5, size=count)) * DAY,
        device_age=stream["device_age"].random((count, MOST_DEVICES)),
        trip_start=np.where(away, start, np.inf) * DAY,
        trip_end=np.where(away, end, np.inf) * DAY,
        trip_city=stream["trip_city"].integers(CITIES, size=blocks),
    )


def draw_merchants(count: int, land: Land, sequence: SeedSequence) -> Merchants:
    """`count` merchants, of which about a quarter are chains."""
    stream = named_streams(sequence, _OF_MERCHANTS)
    city = stream["city"].choice(CITIES, size=count, p=land.size)
    return Merchants(
        category=stream["category"].choice(len(CATEGORIES), size=count, p=_SHOPS),
        city=city,
        x=land.x[city] + stream["x"].normal(0, _CITY_RADIUS_KM, size=count),
        y=land.y[city] + stream["y"].normal(0, _CITY_RADIUS_KM, size=count),
        chain=stream["chain"].random(count) < _CHAINS,
        price=np.exp(stream["price"].normal(0, 0.25, size=count)),
        popularity=np.exp(stream["popularity"].normal(0, 0.8, size=count)),
    )
