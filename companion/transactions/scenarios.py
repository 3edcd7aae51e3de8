"""Five ways to steal with a card, each visible in another way.

| scenario | what the thief does | what gives it away |
|---|---|---|
| card testing | tries cards with tiny amounts online, minutes apart | amount, gap, new device |
| stolen card | a spree of hours in shops, mostly in another city | distance, amount, gap |
| compromised merchant | uses cards that paid there at a few outlets, later | the merchants' risk |
| account takeover | buys online for days or weeks, dearer and dearer | new devices, count, amount |
| collusion | a ring of customers pays a few merchants as anybody would | the merchants' risk |

A single row shows the first two, the history of a customer the fourth; the other two can only be
seen in the history of the merchant. All are kept close enough to what owners do that the best
model finds a part and no model finds everything.

Sources of the ideas: the fraud scenarios of Le Borgne et al., *Reproducible Machine Learning for
Credit Card Fraud Detection – Practical Handbook* (2022), chapter 3 (a merchant compromised for
four weeks; a customer's amounts inflated for two); card testing and takeover as payment networks
describe them; Bolton and Hand, *Statistical Fraud Detection: A Review*, Statistical Science 17(3),
2002, for stolen cards against application and behavioural fraud.

Each function takes a number of rows and gives exactly that many `Events`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from companion.transactions.devices import own_device, thieves_device
from companion.transactions.events import DAY, Bools, Events, Floats, Ints
from companion.transactions.population import CITIES, Customers, Merchants
from companion.transactions.rhythm import bursts, own_minute, runs, spread_out
from companion.transactions.schema import CATEGORIES, FRAUD_SCENARIOS
from companion.transactions.venues import Venues

SHARES = (0.22, 0.28, 0.24, 0.12, 0.14)  # of all frauds, in the order of FRAUD_SCENARIOS

_DIGITAL = CATEGORIES.index("digital")
# What sells well again, by category.
_LOOT = np.array([0.18, 0.12, 0.18, 0.30, 0.10, 0.12])
_ONLINE_LOOT = np.array([0.12, 0.0, 0.10, 0.30, 0.13, 0.35])


@dataclass(frozen=True)
class World:
    """What the thieves find: people, merchants, and what owners have done."""

    days: int
    people: Customers
    shops: Merchants
    venues: Venues
    owners: Events

    @property
    def period(self) -> float:
        """Minutes."""
        return float(self.days * DAY)


def card_testing(count: int, world: World, rng: Generator) -> Events:
    """Tiny amounts online in bursts of minutes; the thief's device, or one that copies the owner's.

    One merchant serves a whole burst: the thief has found one that checks little.
    """
    burst, minute = bursts(
        count, world.days, rng, mean_size=5.0, gap=lambda size: rng.exponential(5.0, size=size)
    )
    victim = _anybody(count, world, rng)[burst]
    site = world.venues.site(np.full(count, _DIGITAL), rng)[burst]
    amount = np.exp(rng.normal(np.log(2.0), 0.65, size=count))
    own = own_device(world.people, victim, minute, rng)
    copied = (rng.random(count) < 0.25)[burst]
    device = np.where(copied, own, thieves_device(burst // 3, _number("card_testing")))
    hides = (rng.random(count) < 0.5)[burst]
    city = _hidden(hides, victim, burst, world, rng)
    return _online(minute, victim, site, amount, city, device, world, rng)


def stolen_card(count: int, world: World, rng: Generator) -> Events:
    """A spree of hours with the card itself: other people's cities, goods that sell again."""
    burst, minute = bursts(
        count, world.days, rng, mean_size=4.5, gap=lambda size: rng.exponential(40.0, size=size)
    )
    victim = _anybody(count, world, rng)[burst]
    home = (rng.random(count) < 0.15)[burst]
    city = np.where(home, world.people.city[victim], rng.integers(CITIES, size=count)[burst])
    online = rng.random(count) < 0.15
    category = rng.choice(len(CATEGORIES), size=count, p=_LOOT)
    shop = np.where(
        online, world.venues.site(category, rng), world.venues.shop(city, category, rng)
    )
    dear = np.exp(rng.normal(1.25, 0.55, size=count))
    phone = thieves_device(burst, _number("stolen_card"))
    return Events(
        minute=minute,
        customer=victim,
        merchant=shop,
        amount=world.venues.usual_price(victim, shop) * dear,
        distance_km=world.venues.distance(victim, city, shop, online, rng),
        # The card is the owner's, and so is its chip; only online does the thief's phone show.
        device=np.where(online, phone, own_device(world.people, victim, minute, rng)),
        online=online,
    )


def compromised_merchant(count: int, world: World, rng: Generator) -> Events:
    """Cards that paid at a merchant during three to six weeks, used days later at its outlets.

    The merchant itself is one of the two outlets: whoever reads its cards can also charge them.
    """
    campaign = _gangs(count, 32.0, rng)
    gangs = campaign[-1] + 1 if count else 0
    owners = world.owners
    leak = rng.choice(np.unique(owners.merchant), size=gangs)
    begin, end = _interval(gangs, world, rng, days=(24, 45))
    seen = _exposures(campaign, leak, begin, end, owners, rng)
    victim = owners.customer[seen]
    delay = np.exp(rng.normal(np.log(3 * DAY), 0.7, size=count))
    left = world.period - owners.minute[seen]
    minute = owners.minute[seen] + np.where(delay < left, delay, left * rng.random(count))

    outlet = _fronts(gangs, world, rng)
    merchant = np.where(rng.random(count) < 0.3, leak[campaign], outlet[campaign])
    city = world.shops.city[merchant]
    online = rng.random(count) < np.where(world.shops.category[merchant] == _DIGITAL, 1.0, 0.4)
    near = online & (rng.random(count) < 0.7)
    city = np.where(near, world.people.city[victim], city)
    phone = thieves_device(campaign, _number("compromised_merchant"))
    # A cloned chip cannot be told from the owner's; the gang's phone can.
    cloned = ~online | (rng.random(count) < 0.5)
    dear = np.exp(rng.normal(0.5, 0.55, size=count))
    return Events(
        minute=minute,
        customer=victim,
        merchant=merchant,
        amount=world.venues.usual_price(victim, merchant) * dear,
        distance_km=world.venues.distance(victim, city, merchant, online, rng),
        device=np.where(cloned, own_device(world.people, victim, minute, rng), phone),
        online=online,
    )


def account_takeover(count: int, world: World, rng: Generator) -> Events:
    """A week or more of buying online as the owner: at first as the owner would, then dearer.

    The address seems to be the owner's; the device changes from time to time.
    """
    account, minute = bursts(
        count,
        world.days,
        rng,
        mean_size=12.0,
        gap=lambda size: rng.exponential(0.8 * DAY, size=size),
    )
    victim = _anybody(count, world, rng)[account]
    starts = np.diff(account, prepend=-1) != 0
    _, first = runs(starts)
    step = np.arange(count) - first
    creeping = np.exp(rng.normal(-0.1, 0.5, size=count) + np.minimum(0.18 * step, 1.8))
    category = rng.choice(len(CATEGORIES), size=count, p=_ONLINE_LOOT)
    site = world.venues.site(category, rng)
    amount = world.venues.usual_price(victim, site) * creeping
    changes = np.cumsum(starts | (rng.random(count) < 0.22))
    city = _hidden((rng.random(count) < 0.85)[account], victim, account, world, rng)
    device = thieves_device(changes, _number("account_takeover"))
    return _online(minute, victim, site, amount, city, device, world, rng)


def collusion(count: int, world: World, rng: Generator) -> Events:
    """A ring of six customers and two merchants: ordinary amounts for goods that never existed."""
    ring = _gangs(count, 40.0, rng)
    people, shops = world.people, world.shops
    gangs = ring[-1] + 1 if count else 0
    member = rng.integers(len(people), size=(gangs, 6))[ring, rng.integers(6, size=count)]
    merchant = _fronts(gangs * 2, world, rng)[ring * 2 + rng.integers(2, size=count)]
    begin, end = _interval(gangs, world, rng, days=(45, 85))
    # An hour of the member's own on a day of the ring's.
    own = own_minute(people, member, world.days, rng) % DAY
    day = (begin[ring] + rng.random(count) * (end - begin)[ring]) // DAY
    minute = day * DAY + own
    online = rng.random(count) < np.where(shops.category[merchant] == _DIGITAL, 1.0, 0.3)
    city = people.city[member]  # the merchants' terminal comes to the ring
    ordinary = np.exp(people.spread[member] * rng.normal(size=count) + 0.15)
    return Events(
        minute=minute,
        customer=member,
        merchant=merchant,
        amount=world.venues.usual_price(member, merchant) * ordinary,
        distance_km=world.venues.distance(member, city, merchant, online, rng),
        device=own_device(people, member, minute, rng),
        online=online,
    )


ALL: dict[str, Callable[[int, World, Generator], Events]] = dict(
    zip(
        FRAUD_SCENARIOS,
        (card_testing, stolen_card, compromised_merchant, account_takeover, collusion),
        strict=True,
    )
)


def _number(scenario: str) -> int:
    return FRAUD_SCENARIOS.index(scenario)


def _anybody(count: int, world: World, rng: Generator) -> Ints:
    return rng.integers(len(world.people), size=count)


def _gangs(count: int, mean_size: float, rng: Generator) -> Ints:
    """Which gang commits each of `count` frauds; about `mean_size` frauds each."""
    gangs = max(1, round(count / mean_size))
    return np.sort(rng.integers(gangs, size=count))


def _interval(
    gangs: int, world: World, rng: Generator, *, days: tuple[float, float]
) -> tuple[Floats, Floats]:
    """From which minute to which each gang is at work: for so many `days`, within the period."""
    middle = spread_out(gangs, rng) * world.period
    half = rng.uniform(*days, size=gangs) * DAY / 2
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, world.period)


def _fronts(count: int, world: World, rng: Generator) -> Ints:
    """Merchants with few honest customers, as a gang's own are: the least popular of six each."""
    candidates = rng.integers(len(world.shops), size=(count, 6))
    least = np.argmin(world.shops.popularity[candidates], axis=1)
    fronts: Ints = candidates[np.arange(count), least]
    return fronts


def _hidden(hides: Bools, victim: Ints, group: Ints, world: World, rng: Generator) -> Ints:
    """The city of the owner where the thief hides behind an address there, else the thief's own."""
    away = rng.integers(CITIES, size=len(victim))[group]
    return np.where(hides, world.people.city[victim], away)


def _online(
    minute: Floats,
    victim: Ints,
    site: Ints,
    amount: Floats,
    city: Ints,
    device: Ints,
    world: World,
    rng: Generator,
) -> Events:
    online = np.ones(len(minute), dtype=bool)
    away = world.venues.distance(victim, city, site, online, rng)
    return Events(minute, victim, site, amount, away, device, online)


def _exposures(
    campaign: Ints, leak: Ints, begin: Floats, end: Floats, owners: Events, rng: Generator
) -> Ints:
    """For each fraud a purchase of an owner at the leaking merchant while it leaks.

    Where nobody bought then, any purchase there will do; there is one, since `leak` was found so.
    """
    # In order of merchant and time, a merchant's purchases within an interval are one slice.
    order = np.lexsort((owners.minute, owners.merchant))
    merchant, minute = owners.merchant[order], owners.minute[order]
    whole = np.searchsorted(merchant, leak), np.searchsorted(merchant, leak, side="right")
    low, high = np.empty_like(leak), np.empty_like(leak)
    for gang, (first, last) in enumerate(zip(*whole, strict=True)):
        low[gang] = first + np.searchsorted(minute[first:last], begin[gang])
        high[gang] = first + np.searchsorted(minute[first:last], end[gang])
    low, high = np.where(low < high, [low, high], whole)
    drawn = low[campaign] + (rng.random(len(campaign)) * (high - low)[campaign]).astype(int)
    exposure: Ints = order[drawn]
    return exposure
