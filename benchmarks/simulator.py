"""How fast transactions are simulated, beside a plain simulator of the same rules.

The plain one is what one writes first: a loop over customers, a loop over each one's purchases,
one draw after the other, a list of rows and at the end one pandas table. It takes the same
population, and the same rules and numbers for rhythm, journeys, sessions, merchants, distances,
devices and the five kinds of fraud; only the stratified starts of bursts are left out. Its rows are
fewer, so rows a second are compared. The million and its peak of memory are measured in a process
of its own, held to one core where the system can do that.
"""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
from numpy.random import Generator, SeedSequence

from companion.instruments.benchmark import Row, side_by_side
from companion.transactions import CATEGORIES, FRAUD_SCENARIOS, simulate
from companion.transactions.population import (
    CITIES,
    Customers,
    Merchants,
    draw_customers,
    draw_land,
    draw_merchants,
)
from companion.transactions.rhythm import DAYS
from companion.transactions.simulator import FIRST_DAY

TITLE = "Simulated transactions"

_PLAIN_ROWS = 10_000
_DAYS = 90
_FRAUD_RATE = 0.03
_GANG = dict(zip(FRAUD_SCENARIOS, (5.0, 4.5, 32.0, 12.0, 40.0), strict=True))  # frauds each

_IN_A_PROCESS = """
import json, os, resource, time

def peak():
    # Where Linux tells it, of this process alone: getrusage includes what its parent held.
    if not os.path.exists("/proc/self/status"):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from companion.transactions import simulate
before = peak()
start = time.perf_counter()
table = simulate(1_000_000, seed=1)
seconds = time.perf_counter() - start
print(json.dumps({"rows": len(table), "seconds": seconds, "before": before, "peak": peak()}))
"""


def run() -> list[Row]:
    """Rows a second of both, and seconds and MiB for a million rows."""
    seconds = side_by_side(
        {
            "plain loops and pandas": lambda: plain(_PLAIN_ROWS, seed=1),
            "simulate": lambda: simulate(_PLAIN_ROWS, seed=1),
        },
        rounds=5,
    )
    million = _million()
    base = _PLAIN_ROWS / seconds["plain loops and pandas"]
    rates = {
        f"{name}, {_PLAIN_ROWS:,} rows": _PLAIN_ROWS / took for name, took in seconds.items()
    } | {"simulate, 1,000,000 rows": million["rows"] / million["seconds"]}
    return [
        *(Row("rows a second", name, rate, "rows/s", rate / base) for name, rate in rates.items()),
        Row("1,000,000 rows, one core", "time", million["seconds"], "s", None, "at most 15 s"),
        Row(
            "1,000,000 rows, one core",
            "peak of the whole process",
            million["peak"] / _UNITS_PER_MIB,
            "MiB",
            None,
            "at most 2,048 MiB",
        ),
        Row(
            "1,000,000 rows, one core",
            "of which imports",
            million["before"] / _UNITS_PER_MIB,
            "MiB",
        ),
    ]


# `ru_maxrss` counts bytes on macOS and KiB elsewhere, as VmHWM does.
_UNITS_PER_MIB = 2**20 if sys.platform == "darwin" else 2**10


def _million() -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", _IN_A_PROCESS], capture_output=True, text=True, check=True
    )
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def plain(n: int, *, seed: int) -> pd.DataFrame:
    """`n` transactions, one after the other."""
    for_land, for_people, for_shops, for_events = SeedSequence(seed).spawn(4)
    land = draw_land(for_land)
    people = draw_customers(max(20, n // 40), _DAYS, land, for_people)
    shops = draw_merchants(max(20, n // 80), land, for_shops)
    town = _Town(people, shops, land.x, land.y, np.random.default_rng(for_events))
    frauds = round(n * _FRAUD_RATE)
    share = people.activity / people.activity.sum()
    purchases = town.rng.multinomial(n - frauds, share)
    for customer, count in enumerate(purchases):
        town.purchases_of(customer, int(count))
    town.frauds(frauds)
    frame = pd.DataFrame(town.rows).sort_values("time", kind="stable", ignore_index=True)
    frame.insert(0, "transaction_id", range(len(frame)))
    frame["time"] = pd.to_datetime(frame["time"], utc=True)
    frame["label_time"] = pd.to_datetime(frame["label_time"], utc=True)
    for name in ("category", "scenario"):
        frame[name] = frame[name].astype("category")
    return frame


class _Town:
    """Everything that the plain simulator knows, and the rows that it has made."""

    price = (0.9, 1.6, 1.0, 3.2, 4.5, 0.4)
    online_logit = (-2.2, -6.0, -1.8, 0.2, 0.6, 6.0)
    loot = (0.18, 0.12, 0.18, 0.30, 0.10, 0.12)
    online_loot = (0.12, 0.0, 0.10, 0.30, 0.13, 0.35)

    def __init__(
        self,
        people: Customers,
        shops: Merchants,
        city_x: "np.ndarray[tuple[int], np.dtype[np.float64]]",
        city_y: "np.ndarray[tuple[int], np.dtype[np.float64]]",
        rng: Generator,
    ) -> None:
        self.people, self.shops, self.rng = people, shops, rng
        self.city_x, self.city_y = city_x, city_y
        self.rows: list[dict[str, object]] = []
        self.thieves = 0
        self.weekend = np.arange(_DAYS) % 7 >= 5
        everyone = np.arange(len(shops))
        self.kind = [everyone[shops.category == kind] for kind in range(len(CATEGORIES))]
        self.chains = [group[shops.chain[group]] for group in self.kind]
        self.local = {
            (city, kind): group[~shops.chain[group] & (shops.city[group] == city)]
            for city in range(CITIES)
            for kind, group in enumerate(self.kind)
        }

    def purchases_of(self, customer: int, count: int) -> None:
        people, rng = self.people, self.rng
        made = 0
        while made < count:
            minute = self.own_minute(customer)
            kind = int(rng.choice(len(CATEGORIES), p=people.taste[customer]))
            first = True
            while made < count and (first or rng.random() > 1 / 1.2):
                if not first:
                    minute = (minute + rng.exponential(14.0)) % (_DAYS * 1440)
                    if rng.random() >= 0.5:
                        kind = int(rng.choice(len(CATEGORIES), p=people.taste[customer]))
                self.purchase(customer, minute, kind)
                made, first = made + 1, False

    def purchase(self, customer: int, minute: float, kind: int) -> None:
        people, rng = self.people, self.rng
        odds = self.online_logit[kind] + people.online[customer]
        online = bool(rng.random() < 1 / (1 + np.exp(-odds)))
        home = int(people.city[customer])
        city = home
        for block in range(people.trip_start.shape[1]):
            if people.trip_start[customer, block] <= minute < people.trip_end[customer, block]:
                city = int(people.trip_city[customer, block])
        travels = city != home and (online or rng.random() < 0.9)
        city = city if travels else home
        merchant = self.site(kind) if online else self.shop(city, kind)
        if online and rng.random() < 0.1:
            city = int(rng.integers(CITIES))
        amount = self.usual_price(customer, merchant)
        amount *= np.exp(people.spread[customer] * rng.normal())
        amount *= np.exp(rng.normal(1.3, 0.5)) if rng.random() < 0.03 else 1.0
        amount *= 1.5 if travels else 1.0
        device = self.own_device(customer, minute)
        self.add(customer, minute, merchant, amount, city, online, device, "legitimate")

    def frauds(self, count: int) -> None:
        upto = np.round(np.cumsum((0.0, 0.22, 0.28, 0.24, 0.12, 0.14)) * count).astype(int)
        todo = dict(zip(FRAUD_SCENARIOS, np.diff(upto).tolist(), strict=True))
        paid = pd.DataFrame(self.rows)
        for scenario, wanted in todo.items():
            done = 0
            while done < wanted:
                size = min(int(self.rng.geometric(1 / _GANG[scenario])), wanted - done)
                getattr(self, scenario)(size, paid)
                done += size

    def card_testing(self, size: int, paid: pd.DataFrame) -> None:
        rng, minute, victim = self.rng, self.begin(), self.anybody()
        merchant, copied = self.site(5), rng.random() < 0.25
        home, elsewhere = int(self.people.city[victim]), int(rng.integers(CITIES))
        city = home if rng.random() < 0.5 else elsewhere
        phone = self.thieves_device()
        for _ in range(size):
            device = self.own_device(victim, minute) if copied else phone
            amount = np.exp(rng.normal(np.log(2.0), 0.65))
            self.add(victim, minute, merchant, amount, city, True, device, "card_testing")
            minute = min(minute + rng.exponential(5.0), _DAYS * 1440 - 1)

    def stolen_card(self, size: int, paid: pd.DataFrame) -> None:
        rng, minute, victim = self.rng, self.begin(), self.anybody()
        home = int(self.people.city[victim])
        city = home if rng.random() < 0.15 else int(rng.integers(CITIES))
        phone = self.thieves_device()
        for _ in range(size):
            online = bool(rng.random() < 0.15)
            kind = int(rng.choice(len(CATEGORIES), p=self.loot))
            merchant = self.site(kind) if online else self.shop(city, kind)
            amount = self.usual_price(victim, merchant) * np.exp(rng.normal(1.25, 0.55))
            device = phone if online else self.own_device(victim, minute)
            self.add(victim, minute, merchant, amount, city, online, device, "stolen_card")
            minute = min(minute + rng.exponential(40.0), _DAYS * 1440 - 1)

    def compromised_merchant(self, size: int, paid: pd.DataFrame) -> None:
        rng = self.rng
        leak = int(rng.choice(paid["merchant_id"].unique()))
        outlet, phone = self.front(), self.thieves_device()
        middle, half = rng.random() * _DAYS * 1440, rng.uniform(24, 45) * 720
        there = paid[paid["merchant_id"] == leak]
        within = there[(there["minute"] - middle).abs() < half]
        exposed = within if len(within) else there
        for _ in range(size):
            seen = exposed.iloc[int(rng.integers(len(exposed)))]
            victim, left = int(seen["customer_id"]), _DAYS * 1440 - seen["minute"]
            delay = np.exp(rng.normal(np.log(3 * 1440), 0.7))
            minute = seen["minute"] + (delay if delay < left else left * rng.random())
            merchant = leak if rng.random() < 0.3 else outlet
            online = bool(self.shops.category[merchant] == 5 or rng.random() < 0.4)
            near = online and rng.random() < 0.7
            city = int(self.people.city[victim] if near else self.shops.city[merchant])
            cloned = not online or rng.random() < 0.5
            device = self.own_device(victim, minute) if cloned else phone
            amount = self.usual_price(victim, merchant) * np.exp(rng.normal(0.5, 0.55))
            self.add(victim, minute, merchant, amount, city, online, device, "compromised_merchant")

    def account_takeover(self, size: int, paid: pd.DataFrame) -> None:
        rng, minute, victim = self.rng, self.begin(), self.anybody()
        home = int(self.people.city[victim])
        city = home if rng.random() < 0.85 else int(rng.integers(CITIES))
        phone = self.thieves_device()
        for step in range(size):
            phone = self.thieves_device() if rng.random() < 0.22 else phone
            merchant = self.site(int(rng.choice(len(CATEGORIES), p=self.online_loot)))
            creeping = np.exp(rng.normal(-0.1, 0.5) + min(0.18 * step, 1.8))
            amount = self.usual_price(victim, merchant) * creeping
            self.add(victim, minute, merchant, amount, city, True, phone, "account_takeover")
            minute = min(minute + rng.exponential(0.8 * 1440), _DAYS * 1440 - 1)

    def collusion(self, size: int, paid: pd.DataFrame) -> None:
        rng, people = self.rng, self.people
        members = [self.anybody() for _ in range(6)]
        merchants = [self.front(), self.front()]
        middle, half = rng.random() * _DAYS, rng.uniform(45, 85) / 2
        first, last = max(0.0, middle - half), min(float(_DAYS), middle + half)
        for _ in range(size):
            member = members[int(rng.integers(6))]
            merchant = merchants[int(rng.integers(2))]
            minute = rng.uniform(first, last) // 1 * 1440 + self.own_minute(member) % 1440
            online = bool(self.shops.category[merchant] == 5 or rng.random() < 0.3)
            amount = self.usual_price(member, merchant)
            amount *= np.exp(people.spread[member] * rng.normal() + 0.15)
            device, city = self.own_device(member, minute), int(people.city[member])
            self.add(member, minute, merchant, amount, city, online, device, "collusion")

    def begin(self) -> float:
        return self.rng.random() * _DAYS * 1440

    def anybody(self) -> int:
        return int(self.rng.integers(len(self.people)))

    def front(self) -> int:
        candidates = self.rng.integers(len(self.shops), size=6)
        return int(min(candidates, key=lambda merchant: self.shops.popularity[merchant]))

    def thieves_device(self) -> int:
        self.thieves += 1
        return -self.thieves

    def own_device(self, customer: int, minute: float) -> int:
        people, rng = self.people, self.rng
        if rng.random() < 0.004:
            return self.thieves_device()
        slot = 0 if rng.random() < 0.72 else int(rng.integers(people.devices[customer]))
        replaced = minute / people.device_life[customer] + people.device_age[customer, slot]
        return (customer * 4 + slot) * 1024 + int(replaced)

    def own_minute(self, customer: int) -> float:
        people, rng = self.people, self.rng
        weight = np.where(self.weekend, people.weekend[customer], 1.0)
        day = rng.choice(_DAYS, p=weight / weight.sum())
        hours = DAYS[people.rhythm[customer]]
        hour = rng.choice(24, p=hours / hours.sum())
        late = (hour * 60 + rng.random() * 60 + people.shift[customer]) % 1440
        return float(day * 1440 + late)

    def by_popularity(self, group: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> int:
        group = group if len(group) else np.arange(len(self.shops))
        popularity = self.shops.popularity[group]
        return int(self.rng.choice(group, p=popularity / popularity.sum()))

    def site(self, kind: int) -> int:
        return self.by_popularity(self.kind[kind])

    def shop(self, city: int, kind: int) -> int:
        chains, local = self.chains[kind], self.local[city, kind]
        group = chains if self.rng.random() < 0.3 or not len(local) else local
        return self.by_popularity(group if len(group) else self.kind[kind])

    def usual_price(self, customer: int, merchant: int) -> float:
        factor = self.price[self.shops.category[merchant]] * self.shops.price[merchant]
        return float(np.exp(self.people.level[customer]) * factor)

    def add(
        self,
        customer: int,
        minute: float,
        merchant: int,
        amount: float,
        city: int,
        online: bool,
        device: int,
        scenario: str,
    ) -> None:
        people, shops, rng = self.people, self.shops, self.rng
        home_x, home_y = people.x[customer], people.y[customer]
        if online and city == people.city[customer]:
            x, y = home_x + rng.normal(0, 4.0), home_y + rng.normal(0, 4.0)
        elif online or shops.chain[merchant] or shops.city[merchant] != city:
            x, y = self.city_x[city] + rng.normal(0, 6.0), self.city_y[city] + rng.normal(0, 6.0)
        else:
            x, y = shops.x[merchant], shops.y[merchant]
        time: np.datetime64 = FIRST_DAY + np.timedelta64(int(minute * 60_000_000), "us")
        fraud = scenario != "legitimate"
        reported: np.datetime64 = np.datetime64("NaT", "us")
        if fraud and rng.random() >= 0.08:
            delay = min(np.exp(rng.normal(np.log(10.0), 0.9)), 120.0) * 1440
            reported = time + np.timedelta64(int(delay * 60_000_000), "us")
        self.rows.append(
            {
                "time": time,
                "minute": minute,
                "customer_id": customer,
                "merchant_id": merchant,
                "category": CATEGORIES[shops.category[merchant]],
                "amount": max(0.01, round(amount, 2)),
                "distance_km": round(float(np.hypot(x - home_x, y - home_y)), 3),
                "device_id": device,
                "is_online": online,
                "is_fraud": fraud,
                "scenario": scenario,
                "label_time": reported,
            }
        )
