"""Q24 · Horizontal scaling: the exercise, its checks, and the mistakes they catch."""

import hashlib
import json
import threading
from concurrent.futures import Future
from contextlib import contextmanager

from companion.study import Exercise, Stage

exercise = Exercise(
    "PredictionCache",
    hints={
        "start": (
            "Write it first as if nothing ever failed: key, look-up, compute, store.",
            "The backend holds text and gives bytes back: json.dumps on the way in, json.loads on "
            "the way out.",
            "Return the value itself, the same thing whether it was computed or found.",
        ),
        "store": (
            "The second request for the same features should find what the first one computed.",
            "After compute(), call backend.set(key, json.dumps(value), ex=...).",
        ),
        "ttl": (
            "How long does your entry live when nobody touches it again?",
            "Give every set an ex= of at most ttl seconds; a little less, at random, keeps entries "
            "that were made together from ending together.",
        ),
        "key": (
            "One customer makes two transactions. Which score does the second one get?",
            "A score belongs to all of its inputs, so all of them are the key: digest the "
            "features, names and values.",
        ),
        "version": (
            "The model was replaced a minute ago. Whose score do you return?",
            "Put self.version into the key: the old entries are then out of reach, and run out.",
        ),
        "canonical": (
            "These features are equal, and your keys are not.",
            "Write the features down in one way only: names sorted, and every number as a float, "
            "so that 1 and 1.0 are one value.",
            "`float(value) + 0.0` also turns -0.0 into 0.0.",
        ),
        "process": (
            "Your key is right in this process. What would another one come to?",
            "hash() of text is salted anew in every process; a digest from hashlib is not.",
            "`hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()`",
        ),
        "falsy": (
            "A probability of 0.0 is a result. What does your code take it for?",
            "Only None from the backend means that there is nothing; compare with `is not None`, "
            "before decoding.",
        ),
        "fail-open": (
            "Redis is down. Does that have to be the caller's problem?",
            "Catch ConnectionError around the look-up and around the store, add 1 to self.errors "
            "each time, and compute.",
        ),
        "compute-errors": (
            "Not every error is the backend's. What if compute() itself fails?",
            "Keep the try blocks as narrow as one backend call each, so that an error of compute "
            "reaches the caller, after one attempt.",
        ),
        "single-flight": (
            "Fifty requests miss at the same moment. How often do you compute?",
            "Keep a table of the keys under way: the first caller of a key leads, the others wait "
            "for its result. Reading and changing that table needs a lock.",
            "A concurrent.futures.Future for each key: followers return its result(), "
            "the leader sets it, or its exception, and takes it off the table.",
        ),
        "release": (
            "The leader failed. Who tells those who wait, and who goes next?",
            "Whatever happens, take the key off the table and free those who wait: `finally`.",
        ),
        "one-lock": (
            "Two different requests wait for each other here.",
            "One lock around everything makes all of them queue up. Lock only the table, and wait "
            "only for the same key.",
        ),
    },
)


class Backend:
    """Works as Redis does, as far as the exercise goes; keeps what it was told."""

    def __init__(self):
        self.kept, self.lives, self.down = {}, [], ()
        self._lock = threading.Lock()

    def get(self, key):
        with self._lock:
            self._answer("get")
            return self.kept.get(key)

    def set(self, key, text, ex=None):
        with self._lock:
            self._answer("set")
            if not isinstance(text, str | bytes | int | float) or isinstance(text, bool):
                raise TypeError(f"the backend stores text, not a {type(text).__name__}")
            self.kept[key] = text if isinstance(text, bytes) else str(text).encode()
            self.lives.append(ex)

    def _answer(self, what):
        if what in self.down:
            raise ConnectionError("the backend is down")


class Counting:
    """A computation that counts how often it was made."""

    def __init__(self, value=0.5, error=None):
        self.value, self.error, self.made = value, error, 0

    def __call__(self):
        self.made += 1
        if self.error is not None:
            raise self.error
        return self.value


class FromElsewhere(str):
    """Text as another process sees it: equal, and with another hash."""

    __slots__ = ()

    def __hash__(self):
        return super().__hash__() ^ 0x5A17


def some_features(rng):
    return {
        "customer_id": int(rng.integers(1, 1000)),
        "amount": round(float(rng.uniform(1, 500)), 2),
        "category": str(rng.choice(["travel", "grocery", "fuel"])),
        "is_online": float(rng.integers(2)),
    }


def made(attempt, backend=None, ttl=600, version="v1"):
    return attempt(Backend() if backend is None else backend, ttl, version)


def in_threads(calls, wait=4.0):
    """Run all at once; what each returned or raised, `None` for one that did not come back."""
    told = [None] * len(calls)

    def run(place, call):
        try:
            told[place] = call()
        except Exception as error:
            told[place] = error

    threads = [threading.Thread(target=run, args=each, daemon=True) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(wait)
    for error in told:
        if isinstance(error, NotImplementedError):
            raise error
    return told


@exercise.check(Stage.TYPE, hint="start")
def a_prediction_comes_back(attempt, case):
    """the caller gets the prediction, computed or found"""
    value = {"score": round(float(case.rng.random()), 3), "reasons": ["amount"]}
    cache, features = made(attempt), some_features(case.rng)
    got = [cache.get_or_compute(features, lambda: value) for _ in range(2)]
    case.equal(given=f"compute returns {value}, two requests", expected=[value] * 2, got=got)


@exercise.check(Stage.SHAPE, hint="store")
def the_second_request_computes_nothing(attempt, case):
    """the second request for the same features computes nothing"""
    cache, features, compute = made(attempt), some_features(case.rng), Counting()
    for _ in range(3):
        cache.get_or_compute(dict(features), compute)
    case.equal(given="three requests with equal features", expected=1, got=compute.made)


@exercise.check(Stage.SHAPE, hint="store")
def another_worker_finds_it(attempt, case):
    """what one worker computed, another one finds"""
    backend, features, compute = Backend(), some_features(case.rng), Counting()
    for worker in (made(attempt, backend), made(attempt, backend)):
        worker.get_or_compute(features, compute)
    case.equal(given="two caches on one backend, computed", expected=1, got=compute.made)


@exercise.check(Stage.RANGE, hint="ttl")
def every_entry_ends(attempt, case):
    """every entry lives for ttl seconds at most, and for half of them at least"""
    backend, ttl = Backend(), int(case.rng.integers(100, 1000))
    cache = made(attempt, backend, ttl=ttl)
    for _ in range(5):
        cache.get_or_compute(some_features(case.rng), Counting())
    lives = backend.lives
    case.true(
        lives and all(ex is not None and ttl / 2 <= ex <= ttl for ex in lives),
        given=f"ttl={ttl}; the ex of each set",
        expected=f"numbers from {ttl / 2:g} to {ttl}",
        got=lives,
    )


@exercise.check(Stage.VALUE, hint="key")
def other_features_have_a_score_of_their_own(attempt, case):
    """transactions of one customer that differ in anything get scores of their own"""
    features = some_features(case.rng)
    others = {"amount": (9_999.0, features["amount"] + 0.01), "category": ("jewellery",)}
    for name, other in [(name, other) for name, few in others.items() for other in few]:
        cache = made(attempt)
        cache.get_or_compute(features, lambda: 0.02)
        got = cache.get_or_compute({**features, name: other}, lambda: 0.97)
        case.equal(
            given=f"{features} scored 0.02, then {name}={other!r}, which computes 0.97",
            expected=0.97,
            got=got,
        )


@exercise.check(Stage.VALUE, hint="key")
def names_matter_too(attempt, case):
    """the same values under other names are other features"""
    cache = made(attempt)
    cache.get_or_compute({"hour": 3.0, "distance": 8.0}, lambda: "first")
    got = cache.get_or_compute({"hour": 8.0, "distance": 3.0}, lambda: "second")
    case.equal(given="hour=3, distance=8, then hour=8, distance=3", expected="second", got=got)


@exercise.check(Stage.VALUE, hint="version")
def a_new_model_computes_anew(attempt, case):
    """another model version never sees the old one's scores"""
    backend, features = Backend(), some_features(case.rng)
    made(attempt, backend, version="v1").get_or_compute(features, lambda: 0.1)
    got = made(attempt, backend, version="v2").get_or_compute(features, lambda: 0.2)
    case.equal(given="v1 computed 0.1, v2 would compute 0.2", expected=0.2, got=got)


@exercise.check(Stage.VALUE, hint="canonical")
def equal_features_are_one_entry(attempt, case):
    """equal features are one entry: whatever their order, 1 or 1.0, 0.0 or -0.0"""
    pairs = (
        ({"a": 1.5, "b": 2.5}, {"b": 2.5, "a": 1.5}),
        ({"a": 1, "b": "x"}, {"a": 1.0, "b": "x"}),
        ({"a": 0.0, "b": 2.5}, {"a": -0.0, "b": 2.5}),
    )
    for one, same in pairs:
        cache, compute = made(attempt), Counting()
        cache.get_or_compute(one, compute)
        cache.get_or_compute(same, compute)
        case.equal(given=f"{one}, then {same}: computed", expected=1, got=compute.made)


@exercise.check(Stage.VALUE, hint="process")
def another_process_comes_to_the_same_key(attempt, case):
    """the key does not depend on hash(), which every process salts in its own way"""
    backend, compute = Backend(), Counting()
    features = some_features(case.rng)
    made(attempt, backend).get_or_compute(features, compute)
    elsewhere = {**features, "category": FromElsewhere(features["category"])}
    made(attempt, backend).get_or_compute(elsewhere, compute)
    case.equal(
        given="two workers, equal features, text that hashes differently: computed",
        expected=1,
        got=compute.made,
    )


@exercise.check(Stage.VALUE, hint="falsy")
def a_falsy_prediction_is_a_prediction(attempt, case):
    """0.0, False and None are kept like any other prediction"""
    for value in (0.0, False, None, 0):
        cache, features, compute = made(attempt), some_features(case.rng), Counting(value)
        got = [cache.get_or_compute(features, compute) for _ in range(2)]
        case.equal(given=f"compute returns {value!r}", expected=[value, value], got=got)
        case.equal(given=f"compute returns {value!r}: computed", expected=1, got=compute.made)


@exercise.check(Stage.VALUE, hint="fail-open")
def a_backend_that_is_down_is_no_reason_to_fail(attempt, case):
    """with the backend down every request is computed, and the failures are counted"""
    for down in (("get", "set"), ("set",)):
        backend, compute = Backend(), Counting(0.25)
        cache = made(attempt, backend)
        backend.down = down
        given = f"a backend whose {' and '.join(down)} raise ConnectionError, three requests"
        rows = [some_features(case.rng) for _ in range(3)]
        got = in_threads([lambda c=cache, f=compute, r=rows: [c.get_or_compute(x, f) for x in r]])
        case.equal(given=given, expected=[[0.25] * 3], got=got)
        case.true(
            cache.errors >= 3, given=f"{given}: errors", expected="3 at least", got=cache.errors
        )
        backend.down, features = (), {"amount": 0.5}
        for _ in range(2):
            cache.get_or_compute(features, compute)
        case.equal(given="it is back; two requests: computed", expected=1, got=compute.made - 3)


@exercise.check(Stage.VALUE, hint="compute-errors")
def an_error_of_the_computation_is_the_callers(attempt, case):
    """what compute raises reaches the caller after one attempt, and is not the backend's error"""
    for kind in (ValueError, ConnectionError):
        cache, compute = made(attempt), Counting(error=kind("the model service"))
        given = f"compute raises {kind.__name__}"
        [got] = in_threads([lambda c=cache, f=compute: c.get_or_compute({"a": 1.0}, f)])
        case.equal(given=given, expected=kind.__name__, got=type(got).__name__)
        case.equal(given=f"{given}: attempts", expected=1, got=compute.made)
        case.equal(given=f"{given}: cache.errors", expected=0, got=cache.errors)


@exercise.check(Stage.STRESS, hint="single-flight")
def fifty_threads_compute_once(attempt, case):
    """fifty threads that want the same at the same time compute once"""
    cache, features = made(attempt), some_features(case.rng)
    together, second, computed = threading.Barrier(50), threading.Event(), []

    def compute():
        computed.append(1)
        if len(computed) > 1:
            second.set()
        second.wait(0.3)  # time enough for a second one to begin
        return 0.5

    def ask():
        together.wait(5)
        return cache.get_or_compute(dict(features), compute)

    got = in_threads([ask] * 50)
    case.equal(given="50 threads, one key: computed", expected=1, got=len(computed))
    case.equal(given="50 threads, one key: results", expected={0.5}, got=set(got))


@exercise.check(Stage.STRESS, hint="release")
def a_failed_computation_blocks_nobody(attempt, case):
    """after a computation that failed, the next request for the same features gets through"""
    cache, features = made(attempt), some_features(case.rng)
    in_threads([lambda: cache.get_or_compute(features, Counting(error=ValueError("no")))])
    got = in_threads([lambda: cache.get_or_compute(features, lambda: 0.5)], wait=0.8)
    case.equal(given="compute failed; the next request", expected=[0.5], got=got)


@exercise.check(Stage.STRESS, hint="one-lock")
def different_requests_do_not_wait_for_each_other(attempt, case):
    """requests for different features are computed side by side"""
    cache, inside = made(attempt), threading.Barrier(4)

    def compute():
        inside.wait(1.0)
        return "met"

    calls = [lambda n=n: cache.get_or_compute({"amount": float(n)}, compute) for n in range(4)]
    case.equal(
        given="4 threads, 4 keys, computations that wait for each other",
        expected=["met"] * 4,
        got=in_threads(calls),
    )


@exercise.solution
class PredictionCache:
    def __init__(self, backend, ttl, version):
        self.backend, self.ttl, self.version = backend, ttl, version
        self.errors = 0
        self._lock = threading.Lock()
        self._under_way = {}

    def get_or_compute(self, features, compute):
        key = self._key(features)
        with self._lock:
            flight = self._under_way.get(key)
            leads = flight is None
            if leads:
                flight = self._under_way[key] = Future()
        if not leads:
            return flight.result()
        try:
            value = self._look_or_compute(key, compute)
            flight.set_result(value)
            return value
        except BaseException as error:
            flight.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._under_way[key]

    def _key(self, features):
        canonical = {
            name: value if isinstance(value, str) else float(value) + 0.0
            for name, value in features.items()
        }
        written = json.dumps(canonical, sort_keys=True)
        return f"{self.version}:{hashlib.sha256(written.encode()).hexdigest()}"

    def _look_or_compute(self, key, compute):
        try:
            found = self.backend.get(key)
        except ConnectionError:
            self._failed()
            return compute()
        if found is not None:
            return json.loads(found)
        value = compute()
        try:
            self.backend.set(key, json.dumps(value), ex=self.ttl)
        except ConnectionError:
            self._failed()
        return value

    def _failed(self):
        with self._lock:
            self.errors += 1


@exercise.another_way
class CacheOfKeyLocks:
    """A different shape: a lock for each key, counted, and a look-up once it is held."""

    def __init__(self, backend, ttl, version):
        self.backend, self.ttl, self.prefix = backend, ttl, str(version)
        self.errors = 0
        self.table = threading.Lock()
        self.locks = {}

    @contextmanager
    def alone(self, key):
        with self.table:
            lock, users = self.locks.get(key, (threading.Lock(), 0))
            self.locks[key] = lock, users + 1
        try:
            with lock:
                yield
        finally:
            with self.table:
                lock, users = self.locks.pop(key)
                if users > 1:
                    self.locks[key] = lock, users - 1

    def asked(self, call, *args, **named):
        try:
            return call(*args, **named)
        except ConnectionError:
            with self.table:
                self.errors += 1

    def get_or_compute(self, features, compute):
        digest = hashlib.blake2b(self.prefix.encode())
        for name in sorted(features):
            value = features[name]
            text = value if isinstance(value, str) else repr(float(value) + 0.0)
            digest.update(repr((name, isinstance(value, str), str(text))).encode())
        key = digest.hexdigest()
        with self.alone(key):
            found = self.asked(self.backend.get, key)
            if found is None:
                value = compute()
                self.asked(self.backend.set, key, json.dumps([value]), ex=0.9 * self.ttl)
                return value
        return json.loads(found)[0]


@exercise.wrong("key")
class ReceivedPattern(PredictionCache):
    """The received answer: the customer's last score for whatever the customer does next."""

    def _key(self, features):
        return f"{self.version}:{features.get('customer_id')}"


@exercise.wrong("key")
class OnlyTheValues(PredictionCache):
    """Digests the values and forgets which name each of them had."""

    def _key(self, features):
        values = [v if isinstance(v, str) else float(v) + 0.0 for v in features.values()]
        return f"{self.version}:{sorted(map(str, values))}"


@exercise.wrong("start")
class ReturnsWhatIsStored(PredictionCache):
    """Hands the backend's bytes to the caller."""

    def _look_or_compute(self, key, compute):
        found = self.backend.get(key)
        return found if found is not None else super()._look_or_compute(key, compute)


@exercise.wrong("store")
class NeverStores(PredictionCache):
    """Looks up and computes; nobody puts anything in."""

    def _look_or_compute(self, key, compute):
        found = self.backend.get(key)
        return json.loads(found) if found is not None else compute()


@exercise.wrong("store")
class KeepsItToItself(PredictionCache):
    """A dictionary of its own beside the backend: no other worker finds anything."""

    def __init__(self, backend, ttl, version):
        super().__init__(Backend(), ttl, version)


@exercise.wrong("ttl")
class LivesForEver(PredictionCache):
    """Stores without an end: the score of last spring, and a server that fills up."""

    def _look_or_compute(self, key, compute):
        found = self.backend.get(key)
        if found is not None:
            return json.loads(found)
        value = compute()
        self.backend.set(key, json.dumps(value))
        return value


@exercise.wrong("version")
class NoVersion(PredictionCache):
    """After a deployment the old model goes on answering until its entries run out."""

    def __init__(self, backend, ttl, version):
        super().__init__(backend, ttl, "")


@exercise.wrong("canonical")
class AsItComes(PredictionCache):
    """Digests the features as they were filled in, so equal ones miss each other."""

    def _key(self, features):
        return f"{self.version}:{json.dumps(features)}"


@exercise.wrong("canonical")
class SortedButTyped(PredictionCache):
    """Sorts the names; 1 and 1.0 are still two texts."""

    def _key(self, features):
        return f"{self.version}:{json.dumps(features, sort_keys=True)}"


@exercise.wrong("process")
class PythonsHash(PredictionCache):
    """hash() of a tuple: right here, different in the next worker."""

    def _key(self, features):
        return f"{self.version}:{hash(tuple(sorted(features.items())))}"


@exercise.wrong("falsy")
class IfCached(PredictionCache):
    """`if value:` takes a score of 0.0 for nothing."""

    def _look_or_compute(self, key, compute):
        try:
            found = self.backend.get(key)
        except ConnectionError:
            self._failed()
            return compute()
        if found is not None and json.loads(found):
            return json.loads(found)
        value = compute()
        try:
            self.backend.set(key, json.dumps(value), ex=self.ttl)
        except ConnectionError:
            self._failed()
        return value


@exercise.wrong("fail-open")
class DownWithTheBackend(PredictionCache):
    """The cache's error is the caller's error: every request a 500."""

    def _look_or_compute(self, key, compute):
        found = self.backend.get(key)
        if found is not None:
            return json.loads(found)
        value = compute()
        self.backend.set(key, json.dumps(value), ex=self.ttl)
        return value


@exercise.wrong("fail-open")
class ReadsCarefullyOnly(PredictionCache):
    """Guards the look-up and not the store, which a full Redis refuses."""

    def _look_or_compute(self, key, compute):
        try:
            found = self.backend.get(key)
        except ConnectionError:
            self._failed()
            return compute()
        if found is not None:
            return json.loads(found)
        value = compute()
        self.backend.set(key, json.dumps(value), ex=self.ttl)
        return value


@exercise.wrong("fail-open")
class CountsNothing(PredictionCache):
    """Fails open and tells nobody, so the outage is found by the bill."""

    def _failed(self):
        return


@exercise.wrong("compute-errors")
class OneLargeTry(PredictionCache):
    """Catches everything around everything: an error of the model is computed twice."""

    def _look_or_compute(self, key, compute):
        try:
            return super()._look_or_compute(key, compute)
        except Exception:
            self._failed()
            return compute()


@exercise.wrong("single-flight")
class EverybodyComputes(PredictionCache):
    """Look, miss, compute: fifty times at once."""

    def get_or_compute(self, features, compute):
        return self._look_or_compute(self._key(features), compute)


@exercise.wrong("release")
class KeepsTheLock(PredictionCache):
    """Releases only where all went well; after one error the key is blocked."""

    def __init__(self, backend, ttl, version):
        super().__init__(backend, ttl, version)
        self._locks = {}

    def get_or_compute(self, features, compute):
        key = self._key(features)
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        lock.acquire()
        value = self._look_or_compute(key, compute)
        lock.release()
        return value


@exercise.wrong("one-lock")
class OneLockForAll(PredictionCache):
    """Locks the whole cache while it computes: one slow row, and all others wait."""

    def __init__(self, backend, ttl, version):
        super().__init__(backend, ttl, version)
        self._all = threading.Lock()

    def get_or_compute(self, features, compute):
        with self._all:
            return self._look_or_compute(self._key(features), compute)
