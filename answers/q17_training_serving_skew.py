"""Q17 · Training–serving skew: the exercise, its checks, and the mistakes they catch."""

import numpy as np
import pandas as pd

from companion.study import Exercise, Stage

exercise = Exercise(
    "point_in_time_join",
    hints={
        "start": (
            "Take one event and do it by hand: which entries of the log may it see, and which of "
            "those is the latest?",
            "`pd.merge_asof(events, features, on='time', by='customer_id', …)` does nearly all of "
            "it. What is left: strictly before, the ttl, and the order of the rows.",
            "Sort both by time, join with allow_exact_matches=False and tolerance=ttl, and bring "
            "the rows back into the order and under the index of events.",
        ),
        "columns": (
            "A DataFrame is wanted: the events' columns, then the features' columns.",
            "customer_id and time of the log are keys, not features: they do not come twice.",
        ),
        "rows": (
            "Every event is one row of the result, no more and no less, where it stood.",
            "merge_asof wants sorted times. Remember the places before you sort, and put the rows "
            "back afterwards.",
            "`order = events['time'].argsort()`, join `events.iloc[order]`, then place the joined "
            "rows with `order` as positions.",
        ),
        "index": (
            "The index of events is part of events: whoever joins by it later needs it.",
            "merge and merge_asof number rows anew. Set `result.index = events.index` at the end, "
            "when the order is that of events again.",
        ),
        "per-customer": (
            "Whose log entry was that?",
            "Look only at the entries of the event's own customer: by='customer_id'.",
        ),
        "future": (
            "The value that you found was written after the event. In service it does not exist "
            "yet; in training it tells the model how the story ends.",
            "Not the latest entry of all, and not the nearest: the latest among those before the "
            "event. merge_asof's direction is 'backward'.",
        ),
        "own-row": (
            "An entry of the very instant of the event was written because of it.",
            "Strictly before: merge_asof allows equal times unless told allow_exact_matches=False.",
        ),
        "no-history": (
            "A new customer has no entry before. That is no error, nor a reason to lose the event.",
            "Leave the values missing (NaN): a left join keeps the event, a dictionary's [] does "
            "not.",
        ),
        "ttl": (
            "How old is the value that you gave, and how old may it be?",
            "Where time − (the entry's time) is more than ttl, the values are missing; an older "
            "entry is no replacement. merge_asof calls it tolerance.",
        ),
        "unsorted": (
            "Logs arrive in any order, and so do events.",
            "Sort both by time yourself; merge_asof raises ValueError for what is not sorted.",
        ),
        "inputs": (
            "The caller's tables look different after your call.",
            "Sort and rename copies: `features.sort_values('time')` gives one, inplace=True does "
            "not.",
        ),
    },
)

START = pd.Timestamp("2026-03-01", tz="UTC")


def hours(numbers):
    return START + pd.to_timedelta(np.asarray(numbers), unit="h")


def events_at(times, customers, **columns):
    return pd.DataFrame({"customer_id": customers, "time": hours(times), **columns})


def log_at(times, customers, averages):
    return pd.DataFrame(
        {"customer_id": customers, "time": hours(times), "average": np.asarray(averages, float)}
    )


def averages_of(result):
    """The joined values as a list that can be compared: None for a missing one."""
    return [None if pd.isna(value) else float(value) for value in result["average"]]


def by_hand(events, features, ttl=None):
    """For each event, the average that was known: the definition, looked up row by row."""
    found = []
    for customer, time in zip(events["customer_id"], events["time"], strict=True):
        earlier = features[(features["customer_id"] == customer) & (features["time"] < time)]
        if len(earlier) == 0:
            found.append(None)
            continue
        latest = earlier.loc[earlier["time"].idxmax()]
        expired = ttl is not None and time - latest["time"] > ttl
        found.append(None if expired else float(latest["average"]))
    return found


@exercise.check(Stage.TYPE, hint="columns")
def a_table_with_the_features_beside_the_events(attempt, case):
    """it gives a DataFrame: the events' columns, then the log's features"""
    amount = float(case.rng.integers(1, 100))
    events = events_at([5], ["a"], amount=[amount])
    result = attempt(events, log_at([1], ["a"], [7.0]))
    given = "one event with an amount, one log entry with an average"
    case.true(
        isinstance(result, pd.DataFrame), given=given, expected="a DataFrame", got=type(result)
    )
    case.equal(
        given=given,
        expected=["customer_id", "time", "amount", "average"],
        got=[str(column) for column in result.columns],
    )


@exercise.check(Stage.SHAPE, hint="rows")
def one_row_for_each_event_in_its_place(attempt, case):
    """it gives one row for each event, in the order of the events"""
    customers = case.rng.permutation([1, 2, 3, 2, 1, 3])
    times = np.array([40, 50, 60, 70, 80, 90])
    events = events_at(times, customers, number=range(6))
    log = log_at([1, 2, 3, 4, 5, 6], [1, 2, 3, 1, 2, 3], range(6))
    result = attempt(events, log)
    given = "six events in order of time, two log entries for each customer before them"
    case.equal(given=given, expected=list(range(6)), got=result["number"].tolist())


@exercise.check(Stage.SHAPE, hint="index")
def the_index_of_the_events_stays(attempt, case):
    """it keeps the index of the events"""
    labels = [f"t{number}" for number in case.rng.integers(100, 999, size=3)]
    events = events_at([10, 20, 30], [1, 1, 1]).set_index(pd.Index(labels))
    result = attempt(events, log_at([1], [1], [7.0]))
    case.equal(given=f"events with the index {labels}", expected=labels, got=list(result.index))


@exercise.check(Stage.VALUE, hint="per-customer")
def each_customer_has_a_log_of_their_own(attempt, case):
    """it takes the entries of the event's own customer only"""
    first, second = (float(value) for value in case.rng.permutation([100, 200]))
    result = attempt(events_at([10, 11], ["a", "b"]), log_at([1, 2], ["a", "b"], [first, second]))
    case.equal(
        given=f"a's average is {first:.0f}, b's, logged later, {second:.0f}; a pays, then b",
        expected=[first, second],
        got=averages_of(result),
    )


@exercise.check(Stage.VALUE, hint="no-history")
def a_new_customer_has_missing_values(attempt, case):
    """an event without an earlier entry stays, with missing values"""
    known = float(case.rng.integers(1, 100))
    result = attempt(events_at([10, 11], ["new", "a"]), log_at([1], ["a"], [known]))
    case.equal(
        given=f"a new customer pays, then one whose average is {known:.0f}",
        expected=[None, known],
        got=averages_of(result),
    )


@exercise.check(Stage.VALUE, hint="future")
def nothing_later_than_the_event_counts(attempt, case):
    """it never sees an entry that was written after the event"""
    before, after = (float(value) for value in case.rng.choice(1000, 2, replace=False))
    result = attempt(events_at([10], ["a"]), log_at([2, 11], ["a", "a"], [before, after]))
    case.equal(
        given=f"average {before:.0f} at hour 2, a payment at hour 10, average {after:.0f} at "
        "hour 11",
        expected=[before],
        got=averages_of(result),
    )


@exercise.check(Stage.VALUE, hint="own-row")
def the_events_own_entry_does_not_count(attempt, case):
    """it does not see an entry of the very instant of the event"""
    before, own = (float(value) for value in case.rng.choice(1000, 2, replace=False))
    result = attempt(events_at([10], ["a"]), log_at([2, 10], ["a", "a"], [before, own]))
    case.equal(
        given=f"average {before:.0f} at hour 2, a payment at hour 10, average {own:.0f} logged at "
        "hour 10",
        expected=[before],
        got=averages_of(result),
    )


@exercise.check(Stage.VALUE, hint="ttl")
def what_is_older_than_ttl_is_missing(attempt, case):
    """a value older than ttl is missing; one exactly as old is still good"""
    age = int(case.rng.integers(5, 40))
    events = events_at([100, 100], ["young", "old"])
    log = log_at([50, 99 - age, 100 - age], ["old", "old", "young"], [3.0, 2.0, 1.0])
    result = attempt(events, log, ttl=pd.Timedelta(hours=age))
    case.equal(
        given=f"entries {age} and {age + 1} hours old, ttl of {age} hours",
        expected=[1.0, None],
        got=averages_of(result),
    )
    case.equal(
        given=f"the same entries, {age} and {age + 1} hours old, without a ttl",
        expected=[1.0, 2.0],
        got=averages_of(attempt(events, log)),
    )


@exercise.check(Stage.STRESS, hint="unsorted")
def rows_may_come_in_any_order(attempt, case):
    """events and log may come in any order"""
    events = events_at(case.rng.permutation(np.arange(100, 140)), case.rng.integers(3, size=40))
    size = 60
    log = log_at(
        case.rng.permutation(np.arange(80, 80 + size)),
        case.rng.integers(3, size=size),
        np.round(case.rng.normal(50, 10, size), 2),
    )
    case.equal(
        given="40 events and 60 log entries of three customers, shuffled",
        expected=by_hand(events, log),
        got=averages_of(attempt(events, log)),
    )
    ttl = pd.Timedelta(hours=6)
    case.equal(
        given="the same, with a ttl of six hours",
        expected=by_hand(events, log, ttl),
        got=averages_of(attempt(events, log, ttl=ttl)),
    )


@exercise.check(Stage.STRESS, hint="inputs")
def the_callers_tables_stay_as_they_are(attempt, case):
    """it leaves the caller's tables as they were"""
    events = events_at([100, 120, 110], case.rng.permutation(["a", "b", "a"]))
    log = log_at([90, 70, 80], case.rng.permutation(["a", "b", "a"]), [1.0, 2.0, 3.0])
    before = events.copy(), log.copy()
    attempt(events, log)
    for name, now, then in zip(("events", "features"), (events, log), before, strict=True):
        case.true(
            now.equals(then) and list(now.columns) == list(then.columns),
            given=f"{name}, before and after the call",
            expected="the same table",
            got=now.to_dict("list"),
        )


@exercise.solution
def point_in_time_join(events, features, *, ttl=None):
    order = np.argsort(events["time"].to_numpy(), kind="stable")
    joined = pd.merge_asof(
        events.iloc[order],
        features.sort_values("time"),
        on="time",
        by="customer_id",
        allow_exact_matches=False,  # an entry of the same instant was written by the event
        tolerance=ttl,
    )
    places = np.argsort(order)  # where each event went
    return joined.iloc[places].set_axis(events.index)


@exercise.another_way
def search_in_each_log(events, features, *, ttl=None):
    """A binary search in every customer's own sorted log."""
    names = [name for name in features.columns if name not in ("customer_id", "time")]
    logs = dict(iter(features.sort_values("time").groupby("customer_id")))
    rows = []
    for customer, time in zip(events["customer_id"], events["time"], strict=True):
        log = logs.get(customer)
        place = -1 if log is None else log["time"].searchsorted(time, side="left") - 1
        fresh = place >= 0 and (ttl is None or time - log["time"].iloc[place] <= ttl)
        rows.append([log[name].iloc[place] if fresh else np.nan for name in names])
    return events.join(pd.DataFrame(rows, columns=names, index=events.index))


@exercise.another_way
def carry_forward(events, features, *, ttl=None):
    """Both tables in one, events before entries of their instant, and the last entry carried on."""
    names = [name for name in features.columns if name not in ("customer_id", "time")]
    entries = features.assign(_written=features["time"], _place=-1, _kind=1)
    asked = events[["customer_id", "time"]].assign(_place=np.arange(len(events)), _kind=0)
    both = pd.concat([asked, entries]).sort_values(["time", "_kind"], kind="stable")
    carried = [*names, "_written"]
    both[carried] = both.groupby("customer_id")[carried].ffill()
    found = both[both["_place"] >= 0].sort_values("_place")
    if ttl is not None:
        found.loc[found["time"] - found["_written"] > ttl, names] = np.nan
    return events.assign(**{name: found[name].to_numpy() for name in names})


@exercise.wrong("future")
def dictionary_of_today(events, features, *, ttl=None):
    """The received answer: one dictionary by customer, made of the whole history."""
    store = features.sort_values("time").groupby("customer_id").last()
    known = events["customer_id"].map(store["average"])
    return events.assign(average=known)


@exercise.wrong("no-history")
def dictionary_without_default(events, features, *, ttl=None):
    """The same dictionary, read with []: a new customer is a KeyError."""
    store = features.set_index("customer_id")["average"].to_dict()
    return events.assign(average=[store[customer] for customer in events["customer_id"]])


@exercise.wrong("columns")
def only_the_values(events, features, *, ttl=None):
    """Gives the values without the events that they belong to."""
    return point_in_time_join(events, features, ttl=ttl)["average"]


@exercise.wrong("columns")
def both_times(events, features, *, ttl=None):
    """Keeps the log's own time as a column."""
    with_time = features.assign(logged=features["time"])
    return point_in_time_join(events, with_time, ttl=ttl)


@exercise.wrong("rows")
def every_earlier_entry(events, features, *, ttl=None):
    """An ordinary merge: a row for every entry of the customer, not for the latest."""
    merged = events.merge(features.rename(columns={"time": "logged"}), on="customer_id", how="left")
    return merged[~(merged["logged"] >= merged["time"])].drop(columns="logged")


@exercise.wrong("index")
def numbered_anew(events, features, *, ttl=None):
    """Leaves the index that merge_asof made."""
    return point_in_time_join(events, features, ttl=ttl).reset_index(drop=True)


@exercise.wrong("per-customer")
def everybodys_log(events, features, *, ttl=None):
    """Forgets by=: the latest entry of anybody."""
    joined = pd.merge_asof(
        events,
        features.drop(columns="customer_id").sort_values("time"),
        on="time",
        allow_exact_matches=False,
        tolerance=ttl,
    )
    return joined.set_axis(events.index)


@exercise.wrong("future")
def nearest(events, features, *, ttl=None):
    """The nearest entry, whether before or after."""
    joined = pd.merge_asof(
        events, features, on="time", by="customer_id", direction="nearest", tolerance=ttl
    )
    return joined.set_axis(events.index)


@exercise.wrong("own-row")
def merge_asof_as_it_comes(events, features, *, ttl=None):
    """merge_asof's default, which allows equal times."""
    order = np.argsort(events["time"].to_numpy(), kind="stable")
    joined = pd.merge_asof(
        events.iloc[order], features.sort_values("time"), on="time", by="customer_id", tolerance=ttl
    )
    return joined.iloc[np.argsort(order)].set_axis(events.index)


@exercise.wrong("ttl")
def never_too_old(events, features, *, ttl=None):
    """Takes ttl and does nothing with it."""
    return point_in_time_join(events, features)


@exercise.wrong("ttl")
def fresh_entries_only(events, features, *, ttl=None):
    """A value exactly ttl old is thrown away as well."""
    shorter = None if ttl is None else ttl - pd.Timedelta(microseconds=1)
    return point_in_time_join(events, features, ttl=shorter)


@exercise.wrong("unsorted")
def as_it_came(events, features, *, ttl=None):
    """Trusts that both tables are sorted."""
    joined = pd.merge_asof(
        events, features, on="time", by="customer_id", allow_exact_matches=False, tolerance=ttl
    )
    return joined.set_axis(events.index)


@exercise.wrong("unsorted")
def left_sorted(events, features, *, ttl=None):
    """Sorts the events, and gives them back sorted, under the index of the unsorted ones."""
    joined = pd.merge_asof(
        events.sort_values("time"),
        features.sort_values("time"),
        on="time",
        by="customer_id",
        allow_exact_matches=False,
        tolerance=ttl,
    )
    return joined.set_axis(events.index)


@exercise.wrong("inputs")
def sorts_in_place(events, features, *, ttl=None):
    """Sorts the caller's own log."""
    features.sort_values("time", inplace=True)
    return point_in_time_join(events, features, ttl=ttl)
