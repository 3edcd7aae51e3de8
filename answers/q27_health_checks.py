"""Q27 · Health checks: the exercise, its checks, and the mistakes they catch."""

import asyncio

from companion.instruments.virtual_time import run_in_virtual_time, virtual_now
from companion.resilience import health
from companion.study import Exercise, Stage

exercise = Exercise(
    "HealthRegistry",
    hints={
        "start": (
            "Begin with the case in which every check passes: await them all, return 200 and a "
            "body that says so.",
            "Then give each check a coroutine of its own that ends in a word: "
            '"ok" or the name of an error\'s type. readiness() only collects the words.',
            "The status follows from the words of the critical checks and from one flag that "
            "drain() sets. liveness() needs neither.",
        ),
        "shape": (
            "readiness() and liveness() are awaited, and the settings come by name.",
            "`async def readiness(self)` returns a tuple of an int and a dict; keep the stub's "
            "__init__ line and store the three settings on self.",
        ),
        "report": (
            "Whoever reads the probe's body wants to know about every check, critical or not.",
            'body["checks"] has one entry for each name in `checks`: "ok" where it passed.',
        ),
        "optional": (
            "A cache that all replicas share fails for all of them at once. Who answers then?",
            "The names in `critical` decide the status, and no others.",
            'Run all checks, then look at `results[name] != "ok"` for the names in self.critical '
            "only.",
        ),
        "critical": (
            "This pod cannot answer, and the load balancer should hear of it.",
            "503 when any check named in `critical` did not pass.",
        ),
        "type-not-message": (
            "Who can read this body, and what may the text of an exception hold?",
            "Report type(error).__name__, and keep str(error) for the log.",
        ),
        "ask-again": (
            "Dependencies go away and come back. When did you last ask?",
            "Run the checks at each readiness(); nothing is decided in __init__ or kept from "
            "the last time.",
        ),
        "liveness": (
            "Liveness that fails restarts the container. Does that repair a database?",
            "liveness() returns 200 and calls no check.",
        ),
        "drain": (
            "A process that is told to stop should get no new requests, and finish its old ones.",
            "drain() sets a flag. With it readiness() says 503, whatever the checks say, and "
            "liveness() goes on saying 200.",
        ),
        "time-limit": (
            "A dependency that accepts and never answers: what does your probe do, and what "
            "becomes of the results of the other checks?",
            "Each check gets its own limit of self.timeout seconds; one that exceeds it is a "
            '"TimeoutError", and the others are reported as ever.',
            "`async with asyncio.timeout(self.timeout): await check()`, inside the try of that "
            "one check.",
        ),
        "side-by-side": (
            "Three checks hang. How many time limits does that cost?",
            "The kubelet allows one second for all of it, so start all checks before you wait for "
            "any: asyncio.gather over one coroutine for each check.",
        ),
        "base-exception": (
            "KeyboardInterrupt and SystemExit are how Python ends a process. Who asked for it?",
            "`except Exception` lets them through; a bare `except` and `except BaseException` do "
            "not.",
        ),
    },
)


async def passes():
    return None


async def hangs():
    await asyncio.sleep(3600)  # in virtual time: long, and no wait


def failing(error):
    async def check():
        raise error

    return check


def ask(attempt, checks, critical=(), *, timeout=0.3, drained=False):
    """(status, body) of readiness(), and how many seconds it took."""

    async def run():
        registry = attempt(checks, critical=set(critical), timeout=timeout)
        if drained:
            registry.drain()
        status, body = await registry.readiness()
        return status, body, virtual_now()

    return run_in_virtual_time(run())


def named(rng, count):
    """As many names that nobody could have guessed."""
    return [f"check-{number}" for number in rng.choice(10_000, count, replace=False)]


@exercise.check(Stage.TYPE, hint="shape")
def it_answers(attempt, case):
    """await readiness() returns a status and a body"""

    async def run():
        registry = attempt({"model": passes}, critical={"model"}, timeout=0.5)
        return await registry.readiness()

    answer = run_in_virtual_time(run())
    good = isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict)
    case.true(
        good and answer[0] == 200,
        given="one check, which passes",
        expected="(200, a dict)",
        got=answer,
    )


@exercise.check(Stage.SHAPE, hint="report")
def every_check_is_reported(attempt, case):
    """the body has an entry for every check, optional ones too"""
    names = named(case.rng, 4)
    _, body, _ = ask(attempt, dict.fromkeys(names, passes), names[:1])
    case.equal(
        given=f"four checks that pass, {names[0]} critical: body['checks']",
        expected=dict.fromkeys(names, "ok"),
        got=body.get("checks"),
    )


@exercise.check(Stage.VALUE, hint="optional")
def an_optional_check_takes_nobody_out(attempt, case):
    """with an optional check down it is ready, and the body says what is down"""
    model, cache = named(case.rng, 2)
    checks = {model: passes, cache: failing(ConnectionError("refused"))}
    status, body, _ = ask(attempt, checks, [model])
    given = f"{cache} raises ConnectionError, critical: {model}"
    case.equal(given=f"{given}: status", expected=200, got=status)
    expected = {model: "ok", cache: "ConnectionError"}
    case.equal(
        given=f"{given}: body['checks']",
        expected=expected,
        got=body.get("checks"),
        hint="type-not-message",
    )


@exercise.check(Stage.VALUE, hint="critical")
def a_critical_check_takes_it_out(attempt, case):
    """with any critical check down it is not ready"""
    names = named(case.rng, 3)
    down = names[int(case.rng.integers(2))]
    checks = {name: failing(OSError("gone")) if name == down else passes for name in names}
    status, _, _ = ask(attempt, checks, names[:2])
    given = f"{down} raises OSError, critical: {', '.join(names[:2])}"
    case.equal(given=given, expected=503, got=status)


@exercise.check(Stage.VALUE, hint="type-not-message")
def the_message_stays_inside(attempt, case):
    """the type of an error is reported, its message nowhere"""
    secret = f"pw{case.rng.integers(10**9)}"
    kind = [LookupError, PermissionError, ConnectionResetError][int(case.rng.integers(3))]
    checks = {"database": failing(kind(f"postgresql://scoring:{secret}@10.0.0.7"))}
    _, body, _ = ask(attempt, checks)
    given = f"a check raises {kind.__name__} with a password in its message"
    reported = body.get("checks", {}).get("database")
    case.equal(given=given, expected=kind.__name__, got=reported)
    case.true(
        secret not in repr(body), given=f"{given}: the body", expected="no password", got=body
    )


@exercise.check(Stage.VALUE, hint="ask-again")
def it_looks_each_time(attempt, case):
    """a check that goes down and comes back is seen each time"""
    states = [bool(state) for state in case.rng.permutation([True, False, True, False, False])]
    now = {}

    async def database():
        if not now["up"]:
            raise ConnectionError

    async def run():
        registry = attempt({"database": database}, critical={"database"}, timeout=0.3)
        seen = []
        for now["up"] in states:
            seen.append((await registry.readiness())[0])
        return seen

    now["up"] = states[0]
    case.equal(
        given=f"a critical check that is up: {states}",
        expected=[200 if up else 503 for up in states],
        got=run_in_virtual_time(run()),
    )


@exercise.check(Stage.VALUE, hint="liveness")
def liveness_asks_nobody(attempt, case):
    """liveness is 200 whatever is down, and calls no check"""
    asked = []

    async def database():
        asked.append(1)
        raise ConnectionError

    async def run():
        registry = attempt({"database": database}, critical={"database"}, timeout=0.3)
        return await registry.liveness()

    status = run_in_virtual_time(run())
    case.equal(given="a critical check that is down: liveness()", expected=200, got=status)
    case.equal(given="liveness(): checks that were called", expected=0, got=len(asked))


@exercise.check(Stage.VALUE, hint="drain")
def draining_it_is_alive_and_not_ready(attempt, case):
    """after drain() it is not ready, and alive"""

    async def run():
        registry = attempt({"model": passes}, critical={"model"}, timeout=0.3)
        before = (await registry.readiness())[0]
        registry.drain()
        return before, (await registry.readiness())[0], await registry.liveness()

    case.equal(
        given="readiness before drain(), readiness after, liveness after",
        expected=(200, 503, 200),
        got=run_in_virtual_time(run()),
    )


@exercise.check(Stage.STRESS, hint="time-limit")
def a_hung_check_is_bounded(attempt, case):
    """a check that hangs is a TimeoutError after its limit, and the others are heard"""
    timeout = round(float(case.rng.uniform(0.1, 0.4)), 2)
    checks = {"model": passes, "cache": hangs, "rules": failing(KeyError("x"))}
    status, body, seconds = ask(attempt, checks, ["model"], timeout=timeout)
    given = f"cache hangs, rules raises KeyError, model is critical, timeout={timeout}"
    case.true(
        seconds <= 2 * timeout, given=given, expected="an answer in time", got=f"{seconds:.1f} s"
    )
    expected = {"model": "ok", "cache": "TimeoutError", "rules": "KeyError"}
    case.equal(given=given, expected=(200, expected), got=(status, body.get("checks")))


@exercise.check(Stage.STRESS, hint="side-by-side")
def hung_checks_share_the_limit(attempt, case):
    """several checks that hang cost one time limit"""
    count, timeout = int(case.rng.integers(3, 7)), round(float(case.rng.uniform(0.1, 0.4)), 2)
    _, _, seconds = ask(attempt, dict.fromkeys(named(case.rng, count), hangs), timeout=timeout)
    case.true(
        seconds <= 1.5 * timeout,
        given=f"{count} checks that hang, timeout={timeout}",
        expected=f"an answer after about {timeout} s",
        got=f"{seconds:.2f} s",
    )


@exercise.check(Stage.STRESS, hint="base-exception")
def what_ends_the_process_goes_through(attempt, case):
    """KeyboardInterrupt and SystemExit are not results of a check"""
    for kind in (KeyboardInterrupt, SystemExit):
        case.raises(
            kind,
            lambda kind=kind: ask(attempt, {"model": passes, "other": failing(kind())}),
            given=f"a check raises {kind.__name__}",
        )


@exercise.solution
class HealthRegistry:
    def __init__(self, checks, *, critical, timeout=0.3):
        self.checks, self.critical, self.timeout = checks, critical, timeout
        self.draining = False

    async def liveness(self):
        return 200

    async def readiness(self):
        words = await asyncio.gather(*(self.word(check) for check in self.checks.values()))
        results = dict(zip(self.checks, words, strict=True))
        able = all(results[name] == "ok" for name in self.critical)
        status = 200 if able and not self.draining else 503
        return status, {"checks": results}

    async def word(self, check):
        try:
            async with asyncio.timeout(self.timeout):
                await check()
        except Exception as error:
            return type(error).__name__
        return "ok"

    def drain(self):
        self.draining = True


@exercise.another_way
class TasksAndOneWait:
    """A different shape: all checks as tasks, one wait for all, what is left over has timed out."""

    def __init__(self, checks, *, critical, timeout=0.3):
        self.checks, self.critical, self.timeout = dict(checks), set(critical), timeout
        self.accepting = True

    async def liveness(self):
        return 200

    async def readiness(self):
        tasks = {name: asyncio.ensure_future(check()) for name, check in self.checks.items()}
        if tasks:
            await asyncio.wait(tasks.values(), timeout=self.timeout)
        found = {}
        for name, task in tasks.items():
            if not task.done():
                task.cancel()
                found[name] = "TimeoutError"
            else:
                error = task.exception()
                found[name] = type(error).__name__ if error else "ok"
        failed = {name for name, word in found.items() if word != "ok"}
        ready = self.accepting and not failed & self.critical
        return (200 if ready else 503), {"checks": found}

    def drain(self):
        self.accepting = False


@exercise.another_way
class FromTheCompanion:
    """The companion's registry behind the interface that was asked for."""

    def __init__(self, checks, *, critical, timeout=0.3):
        self.registry = health.HealthRegistry(
            checks, critical=critical, timeout=timeout, fresh_for=0
        )
        self.drain = self.registry.drain

    async def liveness(self):
        self.registry.liveness()
        return 200

    async def readiness(self):
        seen = await self.registry.readiness()
        checks = {check.name: check.error or "ok" for check in seen.checks}
        return (200 if seen.ready else 503), {"checks": checks}


@exercise.wrong("optional")
class ReceivedPattern(HealthRegistry):
    """The received answer: all(checks.values()), so a cache that all share takes all pods out."""

    async def readiness(self):
        _, body = await super().readiness()
        able = all(word == "ok" for word in body["checks"].values())
        return (200 if able and not self.draining else 503), body


@exercise.wrong("base-exception")
class BareExcept(HealthRegistry):
    """The received answer's `except:`, which swallows what ends the process."""

    async def word(self, check):
        try:
            async with asyncio.timeout(self.timeout):
                await check()
        except BaseException as error:
            return type(error).__name__
        return "ok"


@exercise.wrong("shape")
class NotAwaited(HealthRegistry):
    """A plain def: it cannot await a check."""

    def readiness(self):
        return 200, {"checks": dict.fromkeys(self.checks, "ok")}


@exercise.wrong("report")
class OnlyCritical(HealthRegistry):
    """Runs the critical checks only, so nobody hears that the cache is down."""

    def __init__(self, checks, *, critical, timeout=0.3):
        chosen = {name: check for name, check in checks.items() if name in critical}
        super().__init__(chosen, critical=critical, timeout=timeout)


@exercise.wrong("critical")
class AlwaysReady(HealthRegistry):
    """The body tells the truth, and the status, which is all that a probe reads, does not."""

    async def readiness(self):
        _, body = await super().readiness()
        return 200, body


@exercise.wrong("critical")
class AnyCriticalWillDo(HealthRegistry):
    """any() where all() is meant."""

    async def readiness(self):
        _, body = await super().readiness()
        able = any(body["checks"][name] == "ok" for name in self.critical or body["checks"])
        return (200 if able and not self.draining else 503), body


@exercise.wrong("type-not-message")
class TellsTheMessage(HealthRegistry):
    """str(error) in the answer: whoever may ask for readiness reads the address and password."""

    async def readiness(self):
        self.messages = {}
        status, body = await super().readiness()
        return status, {**body, "errors": self.messages}

    async def word(self, check):
        async def told():
            try:
                await check()
            except Exception as error:
                self.messages[str(check)] = str(error)
                raise

        return await super().word(told)


@exercise.wrong("ask-again")
class AsksOnce(HealthRegistry):
    """Keeps the first result for ever."""

    kept = None

    async def readiness(self):
        if self.kept is None or self.draining:
            self.kept = await super().readiness()
        return self.kept


@exercise.wrong("liveness")
class LivenessAsksToo(HealthRegistry):
    """Checks dependencies in liveness: an outage of the database restarts every pod."""

    async def liveness(self):
        return (await self.readiness())[0]


@exercise.wrong("drain")
class DrainingIsDead(HealthRegistry):
    """Liveness fails while draining, so the kubelet kills what should finish its requests."""

    async def liveness(self):
        return 503 if self.draining else 200


@exercise.wrong("drain")
class DrainForgotten(HealthRegistry):
    """drain() changes nothing that a probe sees."""

    def drain(self):
        return None


@exercise.wrong("time-limit")
class NoLimit(HealthRegistry):
    """Waits as long as the slowest dependency likes."""

    async def word(self, check):
        try:
            await check()
        except Exception as error:
            return type(error).__name__
        return "ok"


@exercise.wrong("time-limit")
class FixedLimit(HealthRegistry):
    """A limit of its own choice: one second is what the kubelet waits, so it has gone by then."""

    def __init__(self, checks, *, critical, timeout=0.3):
        super().__init__(checks, critical=critical, timeout=1.0)


@exercise.wrong("time-limit")
class OneLimitForAll(HealthRegistry):
    """One limit around all checks: when it strikes, what the others found is lost."""

    async def readiness(self):
        try:
            async with asyncio.timeout(self.timeout):
                words = await asyncio.gather(*map(self.word, self.checks.values()))
        except TimeoutError:
            words = ["TimeoutError"] * len(self.checks)
        results = dict(zip(self.checks, words, strict=True))
        able = all(results[name] == "ok" for name in self.critical)
        return (200 if able and not self.draining else 503), {"checks": results}

    async def word(self, check):
        try:
            await check()
        except Exception as error:
            return type(error).__name__
        return "ok"


@exercise.wrong("side-by-side")
class OneAfterTheOther(HealthRegistry):
    """Awaits each check in turn: three that hang take three limits, and the probe gives up."""

    async def readiness(self):
        results = {name: await self.word(check) for name, check in self.checks.items()}
        able = all(results[name] == "ok" for name in self.critical)
        return (200 if able and not self.draining else 503), {"checks": results}
