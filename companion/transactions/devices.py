"""What presents a card: the owner's one to three devices, replaced now and then, and a thief's.

A device id says nothing by itself: the ids of owners' and thieves' devices are mixed by a
bijection of 52-bit numbers (multiplication by an odd number and xor-shifts, as in Steele, Lea and
Flood's SplitMix, 2014), so that they are distinct, the same for the same owner however many others
there are, exact as a double, and in no order that would tell who owns what.
"""

import numpy as np
from numpy.random import Generator

from companion.transactions.events import Floats, Ints
from companion.transactions.population import MOST_DEVICES, Customers

_BITS = 52
_MASK = np.uint64(2**_BITS - 1)
_HALF = np.uint64(_BITS // 2)
_ODD = (np.uint64(0x9E3779B97F4A7), np.uint64(0xBF58476D1CE4F))

_REPLACEMENTS = 2**10  # per slot, more than any period holds
_SLOTS = 4  # MOST_DEVICES of the owner's and one for what was lent
_OWNERS, _LENT, _THIEVES = 0, 1, 2

_MAIN_SHARE = 0.72  # of an owner's transactions that come from the first device
_LENT_SHARE = 0.004  # from one that is not seen again: a friend's phone, a hotel's computer


def own_device(people: Customers, customer: Ints, minute: Floats, rng: Generator) -> Ints:
    """The device that each of `customer` holds at `minute`; rarely one that was lent."""
    count = len(customer)
    other = rng.integers(MOST_DEVICES, size=count) % people.devices[customer]
    slot = np.where(rng.random(count) < _MAIN_SHARE, 0, other)
    life = people.device_life[customer]
    age = people.device_age[customer, slot]
    replaced = np.minimum(np.floor(minute / life + age), _REPLACEMENTS - 1).astype(np.int64)
    own = _device_id(_OWNERS, (customer * _SLOTS + slot) * _REPLACEMENTS + replaced)
    lent = rng.random(count) < _LENT_SHARE
    once = (minute * 60_000).astype(np.int64)  # whole milliseconds tell lent devices apart
    return np.where(lent, _device_id(_LENT, once), own)


def thieves_device(number: Ints, scenario: int) -> Ints:
    """The device with this `number` among those used in the scenario with this number."""
    return _device_id(_THIEVES, number * 8 + scenario)


def _device_id(kind: int, number: Ints) -> Ints:
    mixed = (number.astype(np.uint64) * np.uint64(4) + np.uint64(kind)) & _MASK
    for odd in _ODD:
        mixed ^= mixed >> _HALF
        mixed = (mixed * odd) & _MASK
    mixed ^= mixed >> _HALF
    return mixed.astype(np.int64)
