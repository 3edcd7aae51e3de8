"""Where a card is used: which merchant, how far from home, and what it costs there.

In a shop the place decides: mostly a merchant of the same city, or a chain's branch there. Online
any merchant of the category will do, and the place is the one that the buyer's address seems to
come from. A merchant is drawn in proportion to its popularity by one binary search over the
cumulative popularity of all groups laid end to end, so a million choices are one array operation.
"""

import numpy as np
from numpy.random import Generator

from companion.transactions.events import Bools, Floats, Ints
from companion.transactions.population import CITIES, Customers, Land, Merchants
from companion.transactions.schema import CATEGORIES

_PRICE = np.array([0.9, 1.6, 1.0, 3.2, 4.5, 0.4])  # by category, times the customer's level
_KINDS = len(CATEGORIES)
_CHAIN_SHARE = 0.3  # of purchases in a shop
_BRANCH_RADIUS_KM = 6.0
_ADDRESS_RADIUS_KM = 4.0  # an address on the network tells a place no better than this
_ELSEWHERE = 0.1  # of purchases online that seem to come from another city: gateways, VPNs


class Venues:
    """The merchants by city and category, and distances on the land."""

    def __init__(self, land: Land, people: Customers, shops: Merchants) -> None:
        self._land, self._people, self._shops = land, people, shops
        everyone = np.arange(len(shops))
        chains = everyone[shops.chain]
        members = [
            everyone[~shops.chain & (shops.city == city) & (shops.category == kind)]
            for city in range(CITIES)
            for kind in range(_KINDS)
        ]
        members += [chains[shops.category[chains] == kind] for kind in range(_KINDS)]
        members += [everyone[shops.category == kind] for kind in range(_KINDS)]
        members.append(everyone)
        size = np.array([len(group) for group in members])
        self._merchant = np.concatenate(members)
        self._upto = np.concatenate([[0.0], np.cumsum(shops.popularity[self._merchant])])
        self._end = np.cumsum(size)
        self._begin = self._end - size
        self._local = self._nearest_filled(np.arange(CITIES * _KINDS), size)
        self._chain = self._nearest_filled(CITIES * _KINDS + np.arange(_KINDS), size)
        self._kind = self._nearest_filled((CITIES + 1) * _KINDS + np.arange(_KINDS), size)

    def _nearest_filled(self, group: Ints, size: Ints) -> Ints:
        """`group`, or where it is empty: the category's chains, the whole category, everyone."""
        kind = group % _KINDS
        chain, whole = CITIES * _KINDS + kind, (CITIES + 1) * _KINDS + kind
        everyone = (CITIES + 2) * _KINDS
        rest = np.where(size[chain] > 0, chain, np.where(size[whole] > 0, whole, everyone))
        return np.where(size[group] > 0, group, rest)

    def shop(self, city: Ints, category: Ints, rng: Generator) -> Ints:
        """A merchant with a door in `city`."""
        chain = rng.random(len(city)) < _CHAIN_SHARE
        return self._drawn(
            np.where(chain, self._chain[category], self._local[city * _KINDS + category]), rng
        )

    def site(self, category: Ints, rng: Generator) -> Ints:
        """A merchant that sells online."""
        return self._drawn(self._kind[category], rng)

    def _drawn(self, group: Ints, rng: Generator) -> Ints:
        low, high = self._upto[self._begin[group]], self._upto[self._end[group]]
        sought = low + rng.random(len(group)) * (high - low)
        place = np.searchsorted(self._upto, sought, side="right") - 1
        # A rounded sum may end one merchant too far.
        drawn: Ints = self._merchant[np.clip(place, self._begin[group], self._end[group] - 1)]
        return drawn

    def distance(
        self, customer: Ints, city: Ints, merchant: Ints, online: Bools, rng: Generator
    ) -> Floats:
        """Kilometres from the customer's home to where the card is used in `city`."""
        people, shops, land = self._people, self._shops, self._land
        count = len(customer)
        scatter_x, scatter_y = rng.normal(size=count), rng.normal(size=count)
        branch = shops.chain[merchant] | (shops.city[merchant] != city)
        at_home = online & (city == people.city[customer])
        radius = np.where(at_home, _ADDRESS_RADIUS_KM, _BRANCH_RADIUS_KM)
        around_x = np.where(at_home, people.x[customer], land.x[city]) + radius * scatter_x
        around_y = np.where(at_home, people.y[customer], land.y[city]) + radius * scatter_y
        at_door = ~online & ~branch
        used_x = np.where(at_door, shops.x[merchant], around_x)
        used_y = np.where(at_door, shops.y[merchant], around_y)
        away: Floats = np.hypot(used_x - people.x[customer], used_y - people.y[customer])
        return away

    def seeming_city(self, city: Ints, online: Bools, rng: Generator) -> Ints:
        """`city`, but for some online purchases another one, by a gateway or a VPN."""
        elsewhere = online & (rng.random(len(city)) < _ELSEWHERE)
        return np.where(elsewhere, rng.integers(CITIES, size=len(city)), city)

    def usual_price(self, customer: Ints, merchant: Ints) -> Floats:
        """Euros: the median that this customer would pay at this merchant."""
        price: Floats = (
            self._people.usual_amount[customer]
            * _PRICE[self._shops.category[merchant]]
            * self._shops.price[merchant]
        )
        return price
