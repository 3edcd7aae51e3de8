"""Q21 · A feature store: the exercise, its checks, and the mistakes they catch."""

import json
from bisect import bisect_right, insort

import numpy as np

from companion.study import Exercise, Stage

exercise = Exercise(
    "FeatureStore",
    hints={
        "start": (
            "Begin with `ingest`, which keeps the rows, and `as_of`, which looks through them.",
            "A row is visible at a time when both its event and its created time have passed. Of "
            "the visible rows of a key, the one with the greatest (event, created) counts.",
            "`materialize(now)` asks your own as_of logic for every key at `now` and writes what "
            "it found to kv as text; `online` reads that text and counts the age.",
        ),
        "one-answer-each": (
            "Three questions go in. How many answers come out, and in which order?",
            "Go through the questions, not through the rows: each question gets its (value, age), "
            "also when it was asked before.",
        ),
        "unknown": (
            "A customer who has never been seen is a Tuesday, not an error.",
            "Ask with .get(key), and answer (None, None) when there is nothing.",
        ),
        "future": (
            "Your answer about then uses a row from later. What would a model learn from that?",
            "Only rows with event <= time may count, whatever was ingested since.",
        ),
        "order": (
            "Rows come in any order, and the latest event wins: not the last one in the list.",
            "Take the maximum by (event, created) over the visible rows.",
        ),
        "created": (
            "Its event had happened by then, but who had written it down?",
            "A row counts from the later of its two times on: event <= time and created <= time.",
        ),
        "correction": (
            "Two rows of one key have the same event time. Which of them is the correction?",
            "Of equal event times, the greater created time wins, in whatever order they came.",
        ),
        "age": (
            "How old is the value at the time of the question, and is it older than ttl?",
            "age = time - event. Up to ttl the value counts; beyond it, answer (None, age): the "
            "age tells the caller why it is missing.",
        ),
        "online": (
            "The second process has not ingested anything. Where could its answer come from?",
            "Write value and event time to kv in materialize, and read nothing else in online.",
            "Age at the reading cannot be stored: store the event time, and subtract in online.",
        ),
        "not-before": (
            "Somebody ingested a row, and nobody materialised since. What may online know?",
            "Only materialize writes to kv.",
        ),
        "equal": (
            "Offline and online disagree about the same key at the same moment.",
            "Let materialize and as_of share one function that finds what was known at a time.",
            "Do not let the ttl decide what is written: a value that is too old has an age too.",
        ),
        "no-way-back": (
            "kv held a newer value, and you put an older one in its place. Who runs late?",
            "Read what is there before you write: only a greater (event, created) replaces it.",
            "Compare times as numbers: as text, '8.0' comes after '12.0'.",
        ),
        "version": (
            "Two versions of the view share one kv, and one reads what the other wrote.",
            "Put the view's name and version into the key: f'{view}:{version}:{key}'.",
        ),
        "text": (
            "A feature job computes with NumPy, and json knows nothing of it.",
            "float(value) before json.dumps; what comes back is a number then, not text.",
        ),
    },
)


class TextStore:
    """What Redis is to this exercise: text by key, shared between processes."""

    def __init__(self):
        self._texts = {}

    def get(self, key):
        return self._texts.get(str(key))

    def set(self, key, text):
        if not isinstance(text, str):
            raise TypeError(f"kv keeps text, as Redis does, not {type(text).__name__}")
        self._texts[str(key)] = text


def made(attempt, rows=(), *, view="spending", version=1, ttl=100.0, kv=None):
    store = attempt(view, version, ttl, TextStore() if kv is None else kv)
    store.ingest(list(rows))
    return store


def shown(answers):
    """Answers as plain tuples, so that a list of lists and NumPy numbers compare too."""
    plain = []
    for value, age in answers:
        plain.append(tuple(None if x is None else round(float(x), 9) for x in (value, age)))
    return plain


def asked(case, store, questions, expected, given, hint=""):
    try:
        got = shown(store.as_of(questions))
    except (KeyError, IndexError, TypeError) as error:
        got = f"{type(error).__name__}: {error}"
    case.equal(given=f"{given}; as_of({questions})", expected=expected, got=got, hint=hint)


def history(rng, keys=4, rows=40, hours=30):
    """Random rows with ties in event time, late rows and corrections, in random order."""
    facts = {}
    for _ in range(rows):
        event = int(rng.integers(hours))
        created = event + int(rng.integers(0, 12)) * int(rng.random() < 0.5)
        facts[int(rng.integers(keys)), event, created] = float(rng.integers(100))
    listed = [(*fact, value) for fact, value in facts.items()]
    return [listed[i] for i in rng.permutation(len(listed))]


@exercise.check(Stage.TYPE, hint="start")
def it_answers_a_question(attempt, case):
    """a row goes in, and as_of gives its value and its age"""
    value = float(case.rng.integers(10, 99))
    store = made(attempt, [(7, 10, 10, value)])
    asked(case, store, [(7, 12)], [(value, 2.0)], f"the row (7, 10, 10, {value})")


@exercise.check(Stage.SHAPE, hint="one-answer-each")
def every_question_has_its_answer(attempt, case):
    """as_of answers every question once, in order, repeated ones too"""
    store = made(attempt, [(1, 10, 10, 5.0), (2, 11, 11, 6.0)])
    asked(
        case,
        store,
        [(2, 12), (1, 12), (2, 12)],
        [(6.0, 1.0), (5.0, 2.0), (6.0, 1.0)],
        "rows for keys 1 and 2",
    )


@exercise.check(Stage.SHAPE, hint="unknown")
def an_unknown_key_is_no_error(attempt, case):
    """an unknown key is (None, None), in as_of and in online"""
    store = made(attempt, [(1, 10, 10, 5.0)])
    asked(case, store, [(99, 12)], [(None, None)], "one row, for key 1")
    store.materialize(12)
    try:
        got = shown(store.online([99], 12))
    except (KeyError, TypeError, ValueError) as error:
        got = f"{type(error).__name__}: {error}"
    case.equal(given="online([99], 12)", expected=[(None, None)], got=got)


@exercise.check(Stage.VALUE, hint="future")
def the_future_is_not_seen(attempt, case):
    """as_of sees no event that is later than the question"""
    later = int(case.rng.integers(20, 30))
    store = made(attempt, [(1, 10, 10, 5.0), (1, later, later, 9.0)])
    given = f"a value 5 at time 10 and 9 at time {later}"
    asked(case, store, [(1, 15), (1, 9)], [(5.0, 5.0), (None, None)], given)


@exercise.check(Stage.VALUE, hint="order")
def the_order_of_rows_does_not_matter(attempt, case):
    """the latest event wins, in whatever order the rows come"""
    rows = [(1, event, event, float(event)) for event in case.rng.permutation(9).tolist()]
    rows.sort(key=lambda row: row[1] == 8, reverse=True)  # the latest event comes first
    store = made(attempt, rows)
    asked(case, store, [(1, 20)], [(8.0, 12.0)], "rows at times 0 … 8 in random order")


@exercise.check(Stage.VALUE, hint="created")
def what_was_not_written_was_not_known(attempt, case):
    """a row that was written after the time of the question was not known then"""
    store = made(attempt, [(1, 10, 10, 5.0), (1, 12, 20, 9.0)])
    given = "a value 5 at time 10, and 9 at time 12 that was written at 20"
    asked(case, store, [(1, 15)], [(5.0, 5.0)], given)
    asked(case, store, [(1, 20)], [(9.0, 8.0)], given, hint="age")


@exercise.check(Stage.VALUE, hint="correction")
def a_correction_replaces_what_it_corrects(attempt, case):
    """of two rows with one event time, the one created later counts, from then on"""
    rows = [(1, 10, 14, 6.0), (1, 10, 10, 5.0)]
    for order in (rows, rows[::-1]):
        store = made(attempt, order)
        given = "a value 5 for time 10, corrected to 6 at time 14"
        asked(case, store, [(1, 12), (1, 15)], [(5.0, 2.0), (6.0, 5.0)], given)


@exercise.check(Stage.VALUE, hint="age")
def what_is_too_old_is_missing(attempt, case):
    """a value older than ttl is missing, and its age is still said"""
    ttl = float(case.rng.integers(5, 9))
    store = made(attempt, [(1, 10, 10, 5.0)], ttl=ttl)
    asked(
        case,
        store,
        [(1, 10 + ttl), (1, 11 + ttl)],
        [(5.0, ttl), (None, ttl + 1)],
        f"one row at time 10, ttl={ttl}",
    )


@exercise.check(Stage.VALUE, hint="online")
def another_process_reads_the_same(attempt, case):
    """whoever shares kv reads what was materialised, with the age at the time of reading"""
    kv = TextStore()
    made(attempt, [(1, 10, 10, 5.0)], ttl=6.0, kv=kv).materialize(12)
    reader = made(attempt, ttl=6.0, kv=kv)
    for now, expected in ((13, (5.0, 3.0)), (17, (None, 7.0))):
        case.equal(
            given=f"a row of time 10, materialised; another store's online([1], {now}), ttl=6",
            expected=[expected],
            got=shown(reader.online([1], now)),
        )


@exercise.check(Stage.VALUE, hint="not-before")
def what_is_not_materialised_is_not_online(attempt, case):
    """rows come online when they are materialised, not when they are ingested"""
    store = made(attempt, [(1, 10, 10, 5.0)])
    store.materialize(11)
    store.ingest([(1, 12, 12, 9.0)])
    case.equal(
        given="5 materialised, then 9 ingested; online([1], 13)",
        expected=[(5.0, 3.0)],
        got=shown(store.online([1], 13)),
    )


@exercise.check(Stage.VALUE, hint="text")
def numpys_numbers_are_numbers(attempt, case):
    """values may be NumPy's, and online gives numbers back"""
    value = np.float32(case.rng.integers(10, 99))
    store = made(attempt, [(1, 10, 10, value), (2, 10, 10, np.int64(7))])
    try:
        store.materialize(11)
        got = store.online([1, 2], 11)
    except TypeError as error:
        got = f"TypeError: {error}"
    plain = isinstance(got, list) and all(not isinstance(value, str) for value, _ in got)
    case.equal(
        given=f"the values np.float32({value}) and np.int64(7), materialised; online([1, 2], 11)",
        expected=[(float(value), 1.0), (7.0, 1.0)],
        got=shown(got) if plain else got,
    )


@exercise.check(Stage.STRESS, hint="version")
def versions_do_not_meet(attempt, case):
    """two views, and two versions of one, share kv and never see each other"""
    kv = TextStore()
    stores = {
        (view, version): made(
            attempt, [(1, 10, 10, float(number))], view=view, version=version, kv=kv
        )
        for number, (view, version) in enumerate([("spending", 1), ("spending", 2), ("devices", 1)])
    }
    for store in stores.values():
        store.materialize(11)
    got = [shown(store.online([1], 11))[0][0] for store in stores.values()]
    case.equal(
        given="spending v1, spending v2 and devices v1 materialised to one kv",
        expected=[0.0, 1.0, 2.0],
        got=got,
    )


@exercise.check(Stage.STRESS, hint="no-way-back")
def it_never_goes_back(attempt, case):
    """a late older event, or a job that runs late, never replaces a newer value"""
    kv = TextStore()
    rows = [(1, 8, 8, 5.0), (1, 12, 12, 9.0)]
    made(attempt, rows, kv=kv).materialize(9)
    late = made(attempt, rows, kv=kv)
    late.materialize(13)
    given = "values 5 at time 8 and 9 at time 12, materialised for time 9 and then for 13"
    case.equal(given=given, expected=[(9.0, 2.0)], got=shown(late.online([1], 14)))
    late.materialize(10)
    case.equal(
        given=f"{given}, and again for 10 by a job that runs late",
        expected=[(9.0, 2.0)],
        got=shown(late.online([1], 14)),
    )
    other = made(attempt, [(1, 9, 14, 6.0)], kv=kv)
    other.materialize(15)
    case.equal(
        given="then another process knows only an event of time 9, and materialises for 15",
        expected=[(9.0, 4.0)],
        got=shown(other.online([1], 16)),
    )
    corrected = made(attempt, [(1, 12, 15, 8.0)], kv=kv)
    corrected.materialize(16)
    case.equal(
        given="then the event of time 12 is corrected to 8 at time 15",
        expected=[(8.0, 5.0)],
        got=shown(corrected.online([1], 17)),
    )


@exercise.check(Stage.STRESS, hint="equal")
def online_is_offline_as_of_now(attempt, case):
    """over random histories, online right after materialising is as_of now"""
    for _ in range(20):
        rows = history(case.rng)
        store = made(attempt, rows[:25], ttl=8.0)
        for now in sorted(case.rng.integers(0, 45, 3).tolist()):
            store.ingest(rows[25:])
            store.ingest(rows[:5])  # a job that runs twice
            store.materialize(now)
            keys = [3, 0, 1, 2, 9]
            case.equal(
                given=f"{len(rows)} random rows, ttl=8, materialised; online({keys}, {now})",
                expected=shown(store.as_of([(key, now) for key in keys])),
                got=shown(store.online(keys, now)),
            )


@exercise.solution
class FeatureStore:
    def __init__(self, view, version, ttl, kv):
        self.view, self.version, self.ttl, self.kv = view, version, ttl, kv
        self._rows = {}  # key -> {(event, created): value}

    def ingest(self, rows):
        for key, event, created, value in rows:
            self._rows.setdefault(key, {})[event, created] = value

    def as_of(self, questions):
        return [self._answer(self._known(key, time), time) for key, time in questions]

    def materialize(self, now):
        for key in self._rows:
            known = self._known(key, now)
            there = self._read(key)
            if known and (there is None or known[:2] > there[:2]):
                event, created, value = known
                text = json.dumps([float(event), float(created), float(value)])
                self.kv.set(self._name(key), text)

    def online(self, keys, now):
        return [self._answer(self._read(key), now) for key in keys]

    def _known(self, key, time):
        """(event, created, value) of the row that counts at `time`."""
        rows = self._rows.get(key, {})
        visible = [times for times in rows if max(times) <= time]
        return (*max(visible), rows[max(visible)]) if visible else None

    def _answer(self, known, time):
        if known is None:
            return None, None
        event, _, value = known
        age = time - event
        return (value if age <= self.ttl else None), age

    def _read(self, key):
        text = self.kv.get(self._name(key))
        return None if text is None else tuple(json.loads(text))

    def _name(self, key):
        return f"{self.view}:{self.version}:{key}"


@exercise.another_way
class StoreOfTimelines:
    """A different shape: rows in order of becoming visible, with the best so far beside each."""

    def __init__(self, view, version, ttl, kv):
        self.prefix, self.ttl, self.kv = f"{view}/v{version}/", ttl, kv
        self.facts, self.timelines = {}, None

    def ingest(self, rows):
        for key, event, created, value in rows:
            facts = self.facts.setdefault(key, [])
            fact = (max(event, created), event, created, float(value))
            if fact not in facts:
                insort(facts, fact)
        self.timelines = {}
        for key, facts in self.facts.items():
            best, so_far = None, []
            for _, *rest in facts:
                best = rest if best is None else max(best, rest)
                so_far.append(best)
            self.timelines[key] = ([fact[0] for fact in facts], so_far)

    def known(self, key, time):
        visible, so_far = self.timelines.get(key, ([], []))
        place = bisect_right(visible, time)
        return so_far[place - 1] if place else None

    def aged(self, known, time):
        if not known:
            return (None, None)
        age = time - known[0]
        return (None, age) if age > self.ttl else (known[2], age)

    def as_of(self, questions):
        return [self.aged(self.known(*question), question[1]) for question in questions]

    def materialize(self, now):
        for key in self.timelines:
            new, old = self.known(key, now), self.kept(key)
            if new and (old is None or new[:2] > old[:2]):
                self.kv.set(self.prefix + str(key), " ".join(map(repr, map(float, new))))

    def kept(self, key):
        text = self.kv.get(self.prefix + str(key))
        return None if text is None else [float(part) for part in text.split()]

    def online(self, keys, now):
        return [self.aged(self.kept(key), now) for key in keys]


@exercise.wrong("future")
class LatestSnapshot(FeatureStore):
    """The received answer: training reads one file with the latest value of each key."""

    def _known(self, key, time):
        return super()._known(key, float("inf"))


@exercise.wrong("start")
class KeepsNothing(FeatureStore):
    """Forgets to store the rows."""

    def ingest(self, rows):
        return


@exercise.wrong("one-answer-each")
class OneAnswerPerKey(FeatureStore):
    """Collects the answers by question, so a repeated question is answered once."""

    def as_of(self, questions):
        answers = {
            question: super(OneAnswerPerKey, self).as_of([question]) for question in questions
        }
        return [answer for (answer,) in answers.values()]


@exercise.wrong("unknown")
class KeyErrorForStrangers(FeatureStore):
    """Indexes the dictionary, so that a new customer is a server error."""

    def _known(self, key, time):
        self._rows[key]
        return super()._known(key, time)


@exercise.wrong("unknown")
class GetAndParse(FeatureStore):
    """`json.loads(redis.get(key))`, which is None for a stranger."""

    def online(self, keys, now):
        for key in keys:
            json.loads(self.kv.get(self._name(key)))
        return super().online(keys, now)


@exercise.wrong("order")
class LastInTheList(FeatureStore):
    """Takes the row that was ingested last for the latest one."""

    def _known(self, key, time):
        known = None
        for (event, created), value in self._rows.get(key, {}).items():
            if max(event, created) <= time:
                known = (event, created, value)
        return known


@exercise.wrong("created")
class EventTimeOnly(FeatureStore):
    """Believes that everything was known as soon as it happened."""

    def _known(self, key, time):
        rows = self._rows.get(key, {})
        visible = [times for times in rows if times[0] <= time]
        return (*max(visible), rows[max(visible)]) if visible else None


@exercise.wrong("correction")
class FirstOfATie(FeatureStore):
    """Compares event times only, so of two rows the one that came first stays."""

    def _known(self, key, time):
        rows = self._rows.get(key, {})
        visible = [times for times in rows if max(times) <= time]
        best = max(visible, key=lambda times: times[0], default=None)
        return (*best, rows[best]) if best else None


@exercise.wrong("age")
class NoTimeToLive(FeatureStore):
    """Serves a value however old it is."""

    def _answer(self, known, time):
        return (None, None) if known is None else (known[2], time - known[0])


@exercise.wrong("age")
class StaleIsUnknown(FeatureStore):
    """Answers (None, None) for what is too old, so nobody learns that the job has stopped."""

    def _answer(self, known, time):
        value, age = super()._answer(known, time)
        return (None, None) if value is None else (value, age)


@exercise.wrong("age")
class AgeSinceWritten(FeatureStore):
    """Counts the age from when the row was written, so a late row looks fresh."""

    def _answer(self, known, time):
        return super()._answer(known and (known[1], *known[1:]), time)


@exercise.wrong("online")
class ReadsItsOwnHistory(FeatureStore):
    """Computes online answers from what this process has ingested."""

    def online(self, keys, now):
        return self.as_of([(key, now) for key in keys])


@exercise.wrong("online")
class StoresTheAge(FeatureStore):
    """Writes the age at materialisation, which is wrong one moment later."""

    def materialize(self, now):
        super().materialize(now)
        self.kv.set(f"{self.view}:{self.version}:now", str(now))

    def online(self, keys, now):
        then = self.kv.get(f"{self.view}:{self.version}:now")
        return super().online(keys, float(then or now))


@exercise.wrong("not-before")
class WritesThrough(FeatureStore):
    """Materialises whatever arrives, at once."""

    def ingest(self, rows):
        super().ingest(rows)
        self.materialize(max((max(row[1:3]) for row in rows), default=0))


@exercise.wrong("text")
class JsonOfWhatCame(FeatureStore):
    """Hands NumPy's numbers to json."""

    def materialize(self, now):
        for key in self._rows:
            known = self._known(key, now)
            if known:
                json.dumps(list(known))
        super().materialize(now)


@exercise.wrong("version")
class KeyWithoutVersion(FeatureStore):
    """The received key, `customer:17`: whoever writes last decides what all versions read."""

    def _name(self, key):
        return f"customer:{key}"


@exercise.wrong("version")
class KeyWithoutView(FeatureStore):
    """Names the version, and not what it is a version of."""

    def _name(self, key):
        return f"v{self.version}:{key}"


@exercise.wrong("no-way-back")
class OverwritesByArrival(FeatureStore):
    """The received cache: what is written last stays, however old its event is."""

    def materialize(self, now):
        for key in self._rows:
            known = self._known(key, now)
            if known:
                self.kv.set(self._name(key), json.dumps([float(part) for part in known]))


@exercise.wrong("no-way-back")
class ComparesEventsOnly(FeatureStore):
    """Never goes back, and never takes a correction of the same event either."""

    def materialize(self, now):
        for key in self._rows:
            known, there = self._known(key, now), self._read(key)
            if known and (there is None or known[0] > there[0]):
                self.kv.set(self._name(key), json.dumps([float(part) for part in known]))


@exercise.wrong("no-way-back")
class ComparesText(FeatureStore):
    """Compares the texts that kv keeps, so that 8 comes after 12."""

    def materialize(self, now):
        for key in self._rows:
            known, there = self._known(key, now), self.kv.get(self._name(key))
            text = known and json.dumps([float(part) for part in known])
            if text and (there is None or text > there):
                self.kv.set(self._name(key), text)


@exercise.wrong("equal")
class SkipsWhatIsStale(FeatureStore):
    """Leaves out what is too old when it materialises, so online knows no age for it."""

    def materialize(self, now):
        kept = self._rows
        self._rows = {
            key: rows
            for key, rows in kept.items()
            if self._answer(self._known(key, now), now)[0] is not None
        }
        super().materialize(now)
        self._rows = kept
