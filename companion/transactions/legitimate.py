"""What owners do with their cards: the part of the table that is no fraud, and looks odd at times.

People buy by their own taste and rhythm, go on journeys (far and dear for some days), shop in
sessions (several purchases within minutes), replace devices, and buy gifts. Each of these looks
like one of the fraud scenarios in one respect, so that no single sign proves fraud.
"""

import numpy as np
from numpy.random import Generator

from companion.transactions.devices import own_device
from companion.transactions.events import DAY, Events, Floats, Ints
from companion.transactions.population import TRIP_BLOCK_DAYS, Customers, Merchants
from companion.transactions.rhythm import own_minute, runs, since_start
from companion.transactions.schema import CATEGORIES
from companion.transactions.venues import Venues

_ONLINE_LOGIT = np.array([-2.2, -6.0, -1.8, 0.2, 0.6, 6.0])  # by category
_SESSION_SIZE = 1.2  # purchases, on average
_SESSION_GAP = 14.0  # minutes
_SAME_KIND = 0.5  # of a session's purchases that are of the first one's category
_AWAY_IN_SHOPS = 0.9  # of a traveller's purchases in shops that are made where the journey goes
_JOURNEY_PRICE = 1.5
_GIFTS = 0.03
_GIFT_LOG_FACTOR = (1.3, 0.5)  # mean and standard deviation


def legitimate(
    count: int, days: int, people: Customers, shops: Merchants, venues: Venues, rng: Generator
) -> Events:
    """`count` transactions of owners."""
    starts = rng.random(count) < 1 / _SESSION_SIZE
    starts[:1] = True
    session, first = runs(starts)
    share = people.activity / people.activity.sum()
    buyer = rng.choice(len(people), size=session[-1] + 1 if count else 0, p=share)
    begin = own_minute(people, buyer, days, rng)
    customer = buyer[session]
    elapsed = since_start(rng.exponential(_SESSION_GAP, size=count), starts)
    minute = (begin[session] + elapsed) % (days * DAY)

    category = _by_taste(people, customer, rng)
    category = np.where(rng.random(count) < _SAME_KIND, category[first], category)
    odds = _ONLINE_LOGIT[category] + people.online[customer]
    online = rng.random(count) < 1 / (1 + np.exp(-odds))
    destination = journey(people, customer, minute)
    travels = destination >= 0
    there = travels & (online | (rng.random(count) < _AWAY_IN_SHOPS))
    city = np.where(there, destination, people.city[customer])

    merchant = np.empty(count, dtype=np.int64)
    merchant[online] = venues.site(category[online], rng)
    merchant[~online] = venues.shop(city[~online], category[~online], rng)
    city = venues.seeming_city(city, online, rng)
    noise = people.spread[customer] * rng.normal(size=count)
    gift = np.where(rng.random(count) < _GIFTS, rng.normal(*_GIFT_LOG_FACTOR, size=count), 0.0)
    amount = venues.usual_price(customer, merchant) * np.exp(noise + gift)
    return Events(
        minute=minute,
        customer=customer,
        merchant=merchant,
        amount=amount * np.where(there, _JOURNEY_PRICE, 1.0),
        distance_km=venues.distance(customer, city, merchant, online, rng),
        device=own_device(people, customer, minute, rng),
        online=online,
    )


def journey(people: Customers, customer: Ints, minute: Floats) -> Ints:
    """The city that each customer's journey has gone to at `minute`; −1 for those at home."""
    city = np.full(len(customer), -1, dtype=np.int64)
    now = (minute // (TRIP_BLOCK_DAYS * DAY)).astype(np.int64)
    for block in (np.maximum(now - 1, 0), now):  # no journey is longer than a block
        begin, end = people.trip_start[customer, block], people.trip_end[customer, block]
        city = np.where((minute >= begin) & (minute < end), people.trip_city[customer, block], city)
    return city


def _by_taste(people: Customers, customer: Ints, rng: Generator) -> Ints:
    """A category for each entry of `customer`, in that customer's shares."""
    upto = np.cumsum(people.taste, axis=1)
    drawn = rng.random(len(customer))
    category = np.zeros(len(customer), dtype=np.int64)
    for kind in range(len(CATEGORIES) - 1):
        category += drawn >= upto[customer, kind]
    return category
