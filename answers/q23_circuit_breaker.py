"""Q23 · Circuit breaker: the exercise, its checks, and the mistakes they catch."""

import threading
import time
from collections import deque

from companion.instruments.clocks import FakeClock
from companion.resilience import CircuitOpenError, State
from companion.study import Exercise, Stage

exercise = Exercise(
    "CircuitBreaker",
    hints={
        "start": (
            "Write `call` first as if nothing ever failed: run the function, hand back its result.",
            "Then split it: admit the call, run the function, record how it went. Only the first "
            "and the last part touch the breaker's state.",
            "Three states and one rule each: closed counts, open refuses until open_for has "
            "passed, half-open lets one call through and goes where its result points.",
        ),
        "settings": (
            "The class takes its settings by name, each with a default: the stub lists them.",
            "Keep the stub's __init__ line as it is and store what you need on self; state starts "
            'as "closed".',
        ),
        "pass-through": (
            "The caller must not notice the breaker: same result, same exception, all arguments.",
            "Pass *args and **kwargs on, return what the function returned, and end the except "
            "branch with a bare `raise`.",
        ),
        "count-a-rate": (
            "A number of failures says nothing without the number of calls beside it.",
            "Judge only when at least min_calls results are known, and compare failures divided by "
            "calls with failure_rate.",
        ),
        "failures-expire": (
            "What makes an old failure stop counting? In your breaker: nothing does.",
            "Keep the last `window` results, successes too: a success pushes an old failure out.",
            "`deque(maxlen=window)` of booleans is enough; its mean is the failure rate.",
        ),
        "ignore": (
            "A bad request says nothing about the health of the backend.",
            "Exceptions of the types in `ignore` go to the caller and are recorded neither as a "
            "failure nor as a success.",
        ),
        "fail-fast": (
            "Open means that the backend is left alone, and that the caller hears when to return.",
            "Raise CircuitOpenError(retry_after) before the function is touched; retry_after is "
            "what is left of open_for.",
        ),
        "clock": (
            "Which clock do you read, and what happens to it when the machine's time is corrected?",
            "Read the time only as self.clock(); the default time.monotonic never jumps.",
        ),
        "half-open": (
            "After open_for one call finds out. Both of its results must lead somewhere.",
            "A probe that succeeds closes the breaker with an empty window; one that fails opens "
            "it for another full open_for.",
        ),
        "one-probe": (
            "Fifty callers wait for the breaker to half-open. How many reach the backend?",
            "Deciding that the breaker is half-open and taking the only permit is one step: do "
            "both under the same lock.",
        ),
        "generations": (
            "This call began before the breaker opened. What does its result say about now?",
            "Number the periods between transitions, remember the number when a call is admitted, "
            "and drop its result if the number has changed since.",
        ),
        "lock-free-call": (
            "Your lock is held while the caller's function runs, so calls queue up behind it.",
            "Lock around admitting and around recording, and let go of the lock in between.",
        ),
        "return-the-permit": (
            "The probe ended, but neither well nor badly. Who may try next?",
            "Give the permit back on every way out: an ignored exception, a KeyboardInterrupt, a "
            "cancellation. Catch BaseException, record, raise again.",
        ),
    },
)


class DownError(Exception):
    """The backend did not answer."""


class BadRequestError(Exception):
    """The caller's own fault."""


def fail(kind=DownError):
    raise kind("no answer")


def outcome_of(breaker, function, *args):
    """What a caller sees: the result, or the class of the exception."""
    try:
        return breaker.call(function, *args)
    except Exception as error:
        if isinstance(error, NotImplementedError):
            raise
        return type(error).__name__


def opened(attempt, clock, **settings):
    """A breaker that has just opened, by ten failures in a row."""
    breaker = attempt(min_calls=10, window=20, open_for=30.0, clock=clock, **settings)
    for _ in range(10):
        outcome_of(breaker, fail)
    return breaker


@exercise.check(Stage.TYPE, hint="settings")
def it_takes_its_settings(attempt, case):
    """CircuitBreaker takes its settings by name and starts closed"""
    breaker = attempt(
        failure_rate=0.3, min_calls=5, window=50, open_for=9.0, ignore=(), clock=FakeClock()
    )
    breaker.call(int)
    case.equal(given="a new breaker, one success", expected="closed", got=breaker.state)


@exercise.check(Stage.TYPE, hint="pass-through")
def the_caller_sees_the_function(attempt, case):
    """call() hands back what the function returns, and raises what it raises"""
    breaker = attempt(clock=FakeClock())
    number = int(case.rng.integers(10**6))
    got = breaker.call(lambda a, b=0: (a, b), number, b=7)
    case.equal(given=f"call(f, {number}, b=7)", expected=(number, 7), got=got)
    case.raises(DownError, lambda: breaker.call(fail), given="a function that raises DownError")


@exercise.check(Stage.SHAPE, hint="count-a-rate")
def it_opens(attempt, case):
    """it opens when nothing but failures comes back"""
    breaker = opened(attempt, FakeClock())
    case.equal(given="ten failures in a row, min_calls=10", expected="open", got=breaker.state)


@exercise.check(Stage.SHAPE, hint="clock")
def only_its_own_clock_counts(attempt, case):
    """it reads the time from the clock that it was given"""
    clock, reads = FakeClock(), []

    def counted():
        reads.append(clock())
        return clock()

    breaker = opened(attempt, counted)
    outcome_of(breaker, int)
    case.true(
        reads, given="clock=…, ten failures, a call", expected="the clock is read", got="never"
    )


@exercise.check(Stage.SHAPE, hint="half-open")
def it_walks_through_three_states(attempt, case):
    """state goes closed → open → half-open → closed"""
    clock, seen = FakeClock(), []
    breaker = opened(attempt, clock)
    seen.append(breaker.state)
    clock.advance(30.1)
    breaker.call(lambda: seen.append(breaker.state))
    seen.append(breaker.state)
    case.equal(
        given="ten failures, 30.1 s of waiting, one success",
        expected=["open", "half-open", "closed"],
        got=seen,
    )


@exercise.check(Stage.VALUE, hint="count-a-rate")
def it_judges_a_rate(attempt, case):
    """it opens when min_calls are known and the failure rate is reached, not before"""
    calls = int(case.rng.integers(20, 40))
    failures = int(case.rng.integers(6, calls // 2 - 1))
    settings = {"failure_rate": 0.5, "min_calls": calls, "window": 100, "clock": FakeClock()}
    quiet = attempt(**settings)
    for i in range(calls):
        outcome_of(quiet, fail if i < failures else int)
    given = f"{failures} failures in {calls} calls, failure_rate=0.5, min_calls={calls}"
    case.equal(given=given, expected="closed", got=quiet.state)
    loud = attempt(**settings)
    states = []
    for _ in range(calls):
        states.append(loud.state)
        outcome_of(loud, fail)
    case.equal(
        given=f"{calls} failures in a row, min_calls={calls}: the states before each and after",
        expected=["closed"] * calls + ["open"],
        got=[*states, loud.state],
    )


@exercise.check(Stage.VALUE, hint="failures-expire")
def rare_errors_never_open_it(attempt, case):
    """one error in a thousand never opens it, however long it goes on"""
    breaker = attempt(failure_rate=0.5, min_calls=10, window=100, clock=FakeClock())
    first = int(case.rng.integers(1000))
    for i in range(12_000):
        outcome_of(breaker, fail if i % 1000 == first else int)
        case.equal(
            given=f"every 1,000th call fails; after call {i + 1:,}",
            expected="closed",
            got=breaker.state,
        )


@exercise.check(Stage.VALUE, hint="ignore")
def ignored_exceptions_do_not_count(attempt, case):
    """exceptions in `ignore` reach the caller and count neither way"""
    breaker = attempt(min_calls=4, window=20, ignore=(BadRequestError,), clock=FakeClock())
    seen = {outcome_of(breaker, fail, BadRequestError) for _ in range(50)}
    given = "50 calls that raise BadRequestError, with ignore=(BadRequestError,)"
    case.equal(given=f"{given}: what the caller sees", expected={"BadRequestError"}, got=seen)
    case.equal(given=f"{given}: the state", expected="closed", got=breaker.state)
    for _ in range(4):
        outcome_of(breaker, fail)
    case.equal(given="then 4 real failures, min_calls=4", expected="open", got=breaker.state)


@exercise.check(Stage.VALUE, hint="fail-fast")
def open_refuses_at_once(attempt, case):
    """while open, calls are refused with retry_after and never reach the backend"""
    clock, reached = FakeClock(), []
    breaker = opened(attempt, clock)
    waited = float(case.rng.uniform(1, 29))
    clock.advance(waited)
    given = f"a call {waited:.1f} s after opening, open_for=30"
    error = case.raises(CircuitOpenError, lambda: breaker.call(reached.append, 1), given=given)
    case.equal(given=f"{given}: calls that reached the backend", expected=0, got=len(reached))
    case.true(
        abs(error.retry_after - (30 - waited)) < 1e-6,
        given=given,
        expected=f"retry_after of {30 - waited:.1f} s",
        got=error.retry_after,
    )


@exercise.check(Stage.VALUE, hint="half-open")
def a_failed_probe_opens_it_again(attempt, case):
    """a probe that fails opens it for another full open_for"""
    clock = FakeClock()
    breaker = opened(attempt, clock)
    clock.advance(31)
    outcome_of(breaker, fail)
    clock.advance(29)
    case.equal(
        given="a probe failed 29 s ago, open_for=30",
        expected="CircuitOpenError",
        got=outcome_of(breaker, int),
    )


@exercise.check(Stage.STRESS, hint="lock-free-call")
def calls_run_side_by_side(attempt, case):
    """calls in several threads run at the same time"""
    breaker = attempt(clock=FakeClock())
    callers = 5
    inside = threading.Barrier(callers)
    met = []

    def backend():
        inside.wait(2.0)
        met.append(1)

    threads = [threading.Thread(target=outcome_of, args=(breaker, backend)) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    case.equal(
        given=f"{callers} threads whose calls wait for each other", expected=callers, got=len(met)
    )


@exercise.check(Stage.STRESS, hint="one-probe")
def one_probe_of_fifty(attempt, case):
    """of fifty simultaneous callers in half-open, one reaches the backend"""
    clock = FakeClock()
    breaker = opened(attempt, clock)
    clock.advance(31)
    callers, reached, seen = 50, [], []
    together, all_tried = threading.Barrier(callers), threading.Event()

    def backend():
        reached.append(1)
        all_tried.wait(2.0)  # the probe is under way until everybody else has tried

    def caller():
        together.wait(5)
        try:
            breaker.call(backend)
        except Exception as error:
            seen.append(type(error).__name__)
            if len(seen) == callers - 1:
                all_tried.set()

    threads = [threading.Thread(target=caller) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    case.equal(given="50 threads at once, half-open", expected=1, got=len(reached))


@exercise.check(Stage.STRESS, hint="generations")
def late_results_change_nothing(attempt, case):
    """a call that began before the breaker opened changes nothing when it ends"""
    clock = FakeClock()
    breaker = attempt(min_calls=10, window=20, open_for=30.0, clock=clock)
    probe_began, old_call_ended = threading.Event(), threading.Event()

    def probe():
        probe_began.set()
        old_call_ended.wait(2.0)
        raise DownError

    prober = threading.Thread(target=outcome_of, args=(breaker, probe))

    def old_call():
        for _ in range(10):
            outcome_of(breaker, fail)
        clock.advance(31)
        prober.start()
        probe_began.wait(2.0)
        return "a success from before the outage"

    outcome_of(breaker, old_call)
    during = breaker.state
    old_call_ended.set()
    prober.join()
    case.equal(
        given="a success that began before the outage ends during a probe; then the probe fails",
        expected=["half-open", "open"],
        got=[during, breaker.state],
    )


@exercise.check(Stage.STRESS, hint="return-the-permit")
def no_way_out_keeps_the_permit(attempt, case):
    """a probe that ends in an ignored exception or an interrupt gives its permit back"""
    for kind in (BadRequestError, KeyboardInterrupt):
        clock = FakeClock()
        breaker = opened(attempt, clock, ignore=(BadRequestError,))
        clock.advance(31)
        case.raises(
            kind, lambda b=breaker, k=kind: b.call(fail, k), given=f"a probe raises {kind.__name__}"
        )
        clock.advance(31)
        case.equal(
            given=f"the probe raised {kind.__name__}; 31 s later somebody else calls",
            expected="reached",
            got=outcome_of(breaker, lambda: "reached"),
        )


@exercise.solution
class CircuitBreaker:
    def __init__(
        self,
        *,
        failure_rate=0.5,
        min_calls=10,
        window=100,
        open_for=30.0,
        ignore=(),
        clock=time.monotonic,
    ):
        self.failure_rate, self.min_calls, self.open_for = failure_rate, min_calls, open_for
        self.ignore, self.clock = ignore, clock
        self.state = "closed"
        self._failed = deque(maxlen=window)  # the last results, True for a failure
        self._generation = 0  # counts transitions: results of an earlier one are dropped
        self._opened_at = 0.0
        self._probing = False
        self._lock = threading.Lock()

    def call(self, function, *args, **kwargs):
        generation = self._admit()
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            counts = isinstance(error, Exception) and not isinstance(error, self.ignore)
            self._record(generation, failed=True if counts else None)
            raise
        self._record(generation, failed=False)
        return result

    def _admit(self):
        with self._lock:
            if self.state == "open":
                retry_after = self._opened_at + self.open_for - self.clock()
                if retry_after > 0:
                    raise CircuitOpenError(retry_after)
                self._move("half-open")
            if self.state == "half-open":
                if self._probing:
                    raise CircuitOpenError(0.0, State.HALF_OPEN)
                self._probing = True
            return self._generation

    def _record(self, generation, failed):
        with self._lock:
            if generation != self._generation:
                return
            if self.state == "half-open":
                self._probing = False
                if failed is not None:
                    self._move("open" if failed else "closed")
            elif failed is not None:
                self._failed.append(failed)
                calls = len(self._failed)
                if calls >= self.min_calls and sum(self._failed) / calls >= self.failure_rate:
                    self._move("open")

    def _move(self, state):
        self.state, self._probing = state, False
        self._generation += 1
        self._failed.clear()
        self._opened_at = self.clock()


@exercise.another_way
class BreakerOfStates:
    """A different shape: one small object per state, which is its own generation."""

    class Closed:
        name = "closed"

        def __init__(self, breaker):
            self.breaker, self.calls, self.failures = breaker, deque(), 0

        def admit(self):
            return self

        def record(self, failed):
            b = self.breaker
            self.calls.append(failed)
            self.failures += failed
            if len(self.calls) > b.window:
                self.failures -= self.calls.popleft()
            if len(self.calls) >= b.min_calls and self.failures >= b.failure_rate * len(self.calls):
                b.now = b.Open(b)

        def neither(self):
            return None

    class Open:
        name = "open"

        def __init__(self, breaker):
            self.breaker, self.until = breaker, breaker.clock() + breaker.open_for

        def admit(self):
            left = self.until - self.breaker.clock()
            if left > 0:
                raise CircuitOpenError(left)
            self.breaker.now = self.breaker.HalfOpen(self.breaker)
            return self.breaker.now.admit()

    class HalfOpen:
        name = "half-open"

        def __init__(self, breaker):
            self.breaker, self.permits = breaker, 1

        def admit(self):
            if not self.permits:
                raise CircuitOpenError(0.0, State.HALF_OPEN)
            self.permits -= 1
            return self

        def record(self, failed):
            b = self.breaker
            b.now = b.Open(b) if failed else b.Closed(b)

        def neither(self):
            self.permits += 1

    def __init__(
        self,
        *,
        failure_rate=0.5,
        min_calls=10,
        window=100,
        open_for=30.0,
        ignore=(),
        clock=time.monotonic,
    ):
        self.failure_rate, self.min_calls, self.window = failure_rate, min_calls, window
        self.open_for, self.ignore, self.clock = open_for, tuple(ignore), clock
        self.lock = threading.RLock()
        self.now = self.Closed(self)

    @property
    def state(self):
        return self.now.name

    def call(self, function, *args, **kwargs):
        with self.lock:
            admitted_by = self.now.admit()
        failed = None
        try:
            result = function(*args, **kwargs)
            failed = False
            return result
        except self.ignore:
            raise
        except Exception:
            failed = True
            raise
        finally:
            with self.lock:
                if self.now is admitted_by:
                    if failed is None:
                        admitted_by.neither()
                    else:
                        admitted_by.record(failed)


@exercise.wrong("failures-expire")
class ReceivedPattern(CircuitBreaker):
    """The received answer: failures are collected, and success clears them only in half-open."""

    def _record(self, generation, failed):
        if failed is False and self.state == "closed":
            return
        super()._record(generation, failed)


@exercise.wrong("settings")
class TakesPositions(CircuitBreaker):
    """Leaves out the settings that it does not use yet."""

    def __init__(self, failures=5, seconds=60):
        super().__init__(min_calls=failures, open_for=seconds)


@exercise.wrong("count-a-rate")
class NeverOpens(CircuitBreaker):
    """Passes everything on and draws no conclusion."""

    def _record(self, generation, failed):
        return


@exercise.wrong("count-a-rate")
class FiveFailuresInARow(CircuitBreaker):
    """Opens after five consecutive failures, whatever min_calls says."""

    def _record(self, generation, failed):
        with self._lock:
            if self.state == "closed":
                if failed is False:
                    self._failed.clear()
                elif failed:
                    self._failed.append(True)
                    if len(self._failed) >= 5:
                        self._move("open")
                return
        super()._record(generation, failed)


@exercise.wrong("pass-through")
class SwallowsTheError(CircuitBreaker):
    """Returns a fallback instead of raising, so that the caller cannot tell it from a score."""

    def call(self, function, *args, **kwargs):
        try:
            return super().call(function, *args, **kwargs)
        except DownError:
            return 0.5


@exercise.wrong("half-open")
class NeverTriesAgain(CircuitBreaker):
    """Open for ever: nothing leads out of it."""

    def _admit(self):
        if self.state == "open":
            raise CircuitOpenError(self.open_for)
        return super()._admit()


@exercise.wrong("half-open")
class ForgetsToOpenAgain(CircuitBreaker):
    """A failed probe leaves it half-open: the next caller probes at once, and the next."""

    def _record(self, generation, failed):
        if self.state == "half-open" and failed:
            self._probing = False
            return
        super()._record(generation, failed)


@exercise.wrong("ignore")
class EveryExceptionCounts(CircuitBreaker):
    """One client with malformed requests switches the service off for everybody."""

    def __init__(self, *, ignore=(), **settings):
        super().__init__(**settings)


@exercise.wrong("fail-fast")
class PlainException(CircuitBreaker):
    """Refuses with a bare exception that callers cannot tell from the backend's own."""

    def _admit(self):
        try:
            return super()._admit()
        except CircuitOpenError:
            raise RuntimeError("circuit is open") from None


@exercise.wrong("clock")
class WallClock(CircuitBreaker):
    """Reads the wall clock, which NTP and daylight saving move."""

    def __init__(self, *, clock=None, **settings):
        super().__init__(clock=time.time, **settings)


@exercise.wrong("one-probe")
class EverybodyProbes(CircuitBreaker):
    """No limit in half-open: the whole crowd falls upon a backend that is just getting up."""

    def _admit(self):
        self._probing = False
        return super()._admit()


@exercise.wrong("generations")
class NoGenerations(CircuitBreaker):
    """Believes every result, however old."""

    def _record(self, generation, failed):
        super()._record(self._generation, failed)


@exercise.wrong("lock-free-call")
class LockedWhileCalling(CircuitBreaker):
    """Holds a lock around the call: one slow call and all others wait for it."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self._calls = threading.RLock()

    def call(self, function, *args, **kwargs):
        with self._calls:
            return super().call(function, *args, **kwargs)


@exercise.wrong("return-the-permit")
class LeaksThePermit(CircuitBreaker):
    """Records only what counts, so an ignored exception leaves half-open without a permit."""

    def _record(self, generation, failed):
        if failed is not None:
            super()._record(generation, failed)
