"""Q18 · Past a thousand requests a second: the open loop, its checks, the mistakes they catch."""

import math
import time

from companion.instruments.clocks import FakeClock
from companion.study import Exercise, Stage

exercise = Exercise(
    "load_test",
    hints={
        "start": (
            "Two lists to fill, latencies and errors, in one loop over `due`.",
            "Note the start once, before the loop. Request i is due at start + due[i]: sleep until "
            "then if it is still to come, call, and note how it went.",
            "After the loop only arithmetic is left: rate from the time that has passed, p99 from "
            "the sorted latencies.",
        ),
        "report": (
            "The notebook reads the result by its four keys.",
            'Return {"latencies": …, "errors": …, "rate": …, "p99": …}; latencies is a list.',
        ),
        "empty": (
            "What is the rate of a test without requests?",
            "No requests mean no result: raise ValueError before you start the clock.",
        ),
        "every-request": (
            "Somebody was due and was never sent, or was sent twice, or not as itself.",
            "Call `call(number)` once for every entry of `due`, with its index, in order.",
        ),
        "timetable": (
            "When is request i sent, if all before it were answered at once?",
            "Sleep for start + due[i] - clock(), and only where that is positive; the gap to the "
            "request before says nothing once an answer has taken time.",
        ),
        "clocks": (
            "You were given a clock and a way to sleep. Who else tells the time in your code?",
            "Read the time only as clock() and pass it only with sleep(seconds).",
        ),
        "from-due": (
            "The server stands still. Who waits: only the one whose request is on its way?",
            "A customer begins to wait when the request is due, even if your one caller is still "
            "busy with the answer before.",
            "latency = clock() - (start + due[number]), not clock() - the moment you sent it.",
        ),
        "errors-apart": (
            "An error came back in no time. Did the service get faster?",
            "A call that raises adds one to errors and nothing to latencies, and the test goes on "
            "with the next.",
        ),
        "p99": (
            "Which latency do 99 % not exceed, and did anybody have it?",
            "Sort them; the one at position ceil(0.99 * n), counted from 1, is it. No averaging "
            "and no interpolation between two.",
        ),
        "nothing-answered": (
            "Every call failed. There is no latency to take a percentile of.",
            "Without successes p99 is None and the rate is 0.",
        ),
        "rate": (
            "Offered and achieved are two rates. Which one did you return?",
            "Successes divided by the seconds from the start until the last answer was there.",
        ),
    },
)


class Server:
    """Takes ``takes`` seconds for each call, or what ``stalls`` says; those in ``fails`` raise."""

    def __init__(self, clock, takes, *, stalls=(), fails=()):
        self.clock, self.takes = clock, takes
        self.stalls, self.fails = dict(stalls), set(fails)
        self.called = []
        self.sent = []

    def __call__(self, number):
        self.called.append(number)
        self.sent.append(self.clock())
        if number in self.fails:
            raise ConnectionError("refused at once")
        self.clock.sleep(self.stalls.get(number, self.takes))


def run(attempt, due, *, takes=0.01, **oddities):
    """What the attempt reports, and the server that it called."""
    clock = FakeClock(1000.0)
    server = Server(clock, takes, **oddities)
    return attempt(server, due, clock=clock, sleep=clock.sleep), server


def steady(case, requests=40):
    """Due times some 50 to 100 ms apart: a server that takes 10 ms keeps up."""
    return [float(t) for t in case.rng.uniform(0.05, 0.1, requests).cumsum()]


def responses(due, takes):
    """What each should have waited: begun when due, or when the one before was done (Lindley)."""
    free = 0.0
    for when, service in zip(due, takes, strict=True):
        free = max(free, when) + service
        yield free - when


@exercise.check(Stage.TYPE, hint="report")
def it_reports_four_things(attempt, case):
    """the result has latencies, errors, rate and p99"""
    report, _ = run(attempt, steady(case, 5))
    given = "5 requests that are all answered"
    case.true(isinstance(report, dict), given=given, expected="a dictionary", got=report)
    case.equal(
        given=f"{given}: the keys",
        expected=["errors", "latencies", "p99", "rate"],
        got=sorted(report),
    )
    case.equal(given=f"{given}: errors", expected=0, got=report["errors"])


@exercise.check(Stage.TYPE, hint="empty")
def no_requests_are_refused(attempt, case):
    """a test without requests is a ValueError"""
    case.raises(ValueError, lambda: run(attempt, []), given="due=[]")


@exercise.check(Stage.TYPE, hint="clocks")
def time_is_the_one_given(attempt, case):
    """time is read and passed only by the given clock and sleep"""
    report, server = run(attempt, [1.0])
    case.true(
        server.sent == [1001.0] and abs(report["latencies"][0] - 0.01) < 1e-6,
        given="a clock that stands at 1000 s, one request due after 1 s that takes 0.01 s",
        expected="sent at 1001 s, latency 0.01 s",
        got=f"sent at {server.sent}, latency {report['latencies']}",
    )


@exercise.check(Stage.SHAPE, hint="every-request")
def each_request_is_sent_once(attempt, case):
    """every request is sent once, in order, with its number"""
    requests = int(case.rng.integers(20, 60))
    report, server = run(attempt, steady(case, requests))
    case.equal(
        given=f"{requests} requests: the numbers sent",
        expected=list(range(requests)),
        got=server.called,
    )
    case.equal(
        given=f"{requests} requests: latencies", expected=requests, got=len(report["latencies"])
    )
    _, server = run(attempt, [0.1 * n for n in range(requests)], takes=0.25)
    case.equal(
        given=f"{requests} requests, ten a second, to a server that does four: the numbers sent",
        expected=list(range(requests)),
        got=server.called,
    )


@exercise.check(Stage.VALUE, hint="timetable")
def requests_keep_the_timetable(attempt, case):
    """while the server keeps up, every request is sent when it is due"""
    due = steady(case)
    _, server = run(attempt, due, takes=0.02)
    worst = max(abs(sent - 1000 - when) for sent, when in zip(server.sent, due, strict=True))
    case.true(
        worst < 1e-6,
        given="answers take 0.02 s, gaps are longer: the largest difference from the timetable",
        expected="0 s",
        got=f"{worst:.3f} s",
    )


@exercise.check(Stage.VALUE, hint="errors-apart")
def errors_are_not_latencies(attempt, case):
    """a call that raises is counted as an error, has no latency, and does not end the test"""
    fails = {int(n) for n in case.rng.choice(40, 9, replace=False)}
    report, server = run(attempt, steady(case), fails=fails)
    given = "40 requests of which 9 raise"
    case.equal(given=f"{given}: requests sent", expected=40, got=len(server.called))
    case.equal(given=f"{given}: errors", expected=9, got=report["errors"])
    case.equal(given=f"{given}: latencies", expected=31, got=len(report["latencies"]))


@exercise.check(Stage.VALUE, hint="rate")
def the_rate_is_what_was_achieved(attempt, case):
    """rate is successes per second until the last answer was there"""
    takes = float(case.rng.uniform(0.2, 0.4))
    report, _ = run(attempt, [0.1 * n for n in range(1, 31)], takes=takes, fails={3, 4, 5})
    expected = 27 / (0.1 + 27 * takes)
    case.true(
        math.isclose(report["rate"], expected, rel_tol=0.02),
        given=f"30 requests due within 3 s, answers take {takes:.2f} s each, 3 raise",
        expected=f"{expected:.2f} a second",
        got=report["rate"],
    )


@exercise.check(Stage.VALUE, hint="p99")
def p99_is_somebodys_latency(attempt, case):
    """p99 is the smallest latency that at least 99 % do not exceed"""
    for requests, slow in ((100, 1), (101, 2), (50, 1), (300, 5)):
        due = [1.0 * n for n in range(requests)]
        stalls = {int(n): float(case.rng.uniform(0.3, 0.9)) for n in range(slow)}
        report, _ = run(attempt, due, takes=0.1, stalls=stalls)
        ordered = sorted([*stalls.values()] + [0.1] * (requests - slow))
        expected = ordered[math.ceil(0.99 * requests) - 1]
        case.true(
            report["p99"] is not None and math.isclose(report["p99"], expected, abs_tol=1e-6),
            given=f"{requests} latencies, the slowest {slow} above 0.3 s, the rest 0.1 s",
            expected=f"{expected:.3f}",
            got=report["p99"],
        )


@exercise.check(Stage.STRESS, hint="from-due")
def whoever_is_due_in_a_stall_waits(attempt, case):
    """requests that are due while the server stands still wait from their due time"""
    stall = float(case.rng.uniform(1.5, 2.5))
    at = int(case.rng.integers(10, 20))
    due = [0.1 * n for n in range(100)]
    report, _ = run(attempt, due, takes=0.01, stalls={at: stall})
    takes = [stall if number == at else 0.01 for number in range(100)]
    waited = sum(latency > 0.5 for latency in report["latencies"])
    case.equal(
        given=f"ten requests a second, one stall of {stall:.1f} s: how many waited above 0.5 s",
        expected=sum(latency > 0.5 for latency in responses(due, takes)),
        got=waited,
    )


@exercise.check(Stage.STRESS, hint="timetable")
def after_a_stall_it_catches_up(attempt, case):
    """what was due during a stall is sent at once after it, and then the timetable holds again"""
    due = [0.1 * n for n in range(100)]
    _, server = run(attempt, due, takes=0.01, stalls={10: 2.0})
    case.true(
        abs(server.sent[-1] - 1000 - due[-1]) < 1e-6,
        given="100 requests over 10 s, a stall of 2 s after 1 s: when the last one is sent",
        expected=f"{due[-1]:.1f} s after the start, as planned",
        got=f"{server.sent[-1] - 1000:.2f} s after the start",
    )


@exercise.check(Stage.STRESS, hint="nothing-answered")
def a_dead_service_has_no_percentile(attempt, case):
    """when every call raises there are no latencies, p99 is None and the rate is 0"""
    report, _ = run(attempt, steady(case, 20), fails=range(20))
    seen = (report["latencies"], report["errors"], report["rate"], report["p99"])
    case.equal(given="20 calls that all raise", expected=([], 20, 0, None), got=seen)


@exercise.solution
def load_test(call, due, *, clock=time.perf_counter, sleep=time.sleep):
    if not len(due):
        raise ValueError("a load test needs at least one request")
    latencies, errors = [], 0
    start = clock()
    for number, offset in enumerate(due):
        planned = start + offset
        if (wait := planned - clock()) > 0:
            sleep(wait)
        try:
            call(number)
        except Exception:
            errors += 1
        else:
            latencies.append(clock() - planned)
    seconds = clock() - start
    ordered = sorted(latencies)
    return {
        "latencies": latencies,
        "errors": errors,
        "rate": len(latencies) / seconds,
        "p99": ordered[math.ceil(0.99 * len(ordered)) - 1] if ordered else None,
    }


@exercise.another_way
def by_generators(call, due, *, clock=time.perf_counter, sleep=time.sleep):
    """Another shape: one generator of outcomes, summed up at the end with numpy."""
    import numpy as np

    if len(due) == 0:
        raise ValueError("nothing to send")
    start = clock()

    def outcomes():
        for number, offset in enumerate(due):
            sleep(max(0.0, start + offset - clock()))
            try:
                call(number)
                yield clock() - start - offset
            except Exception:
                yield None

    seen = list(outcomes())
    took = clock() - start
    good = [latency for latency in seen if latency is not None]
    p99 = float(np.percentile(good, 99, method="inverted_cdf")) if good else None
    return {
        "latencies": good,
        "errors": len(seen) - len(good),
        "rate": len(good) / took,
        "p99": p99,
    }


def altered(**changes):
    """The solution with some of its figures computed otherwise, from its report and `due`."""

    def attempt(call, due, **time_as_given):
        report = load_test(call, due, **time_as_given)
        return report | {key: change(report, due) for key, change in changes.items()}

    return attempt


@exercise.wrong("report")
def requests_a_second_alone(call, due, *, clock=time.perf_counter, sleep=time.sleep):
    """The received answer's measure: a rate, and no word on how long anybody waited."""
    return {"rate": load_test(call, due, clock=clock, sleep=sleep)["rate"]}


@exercise.wrong("report")
def a_tuple(call, due, *, clock=time.perf_counter, sleep=time.sleep):
    """Returns the figures without their names."""
    return tuple(load_test(call, due, clock=clock, sleep=sleep).values())


@exercise.wrong("empty")
def nothing_is_fine(call, due, *, clock=time.perf_counter, sleep=time.sleep):
    """Reports a test that did not take place."""
    if not len(due):
        return {"latencies": [], "errors": 0, "rate": 0.0, "p99": None}
    return load_test(call, due, clock=clock, sleep=sleep)


@exercise.wrong("clocks")
def a_clock_of_its_own(call, due, *, clock=time.perf_counter, sleep=time.sleep):
    """Reads another clock than the one that it was given."""
    return load_test(call, due, clock=time.time, sleep=sleep)


@exercise.wrong("every-request")
def always_the_first(call, due, *, clock=time.perf_counter, sleep=time.sleep):
    """Sends the same request again and again, which flatters every cache."""
    return load_test(lambda number: call(0), due, clock=clock, sleep=sleep)


@exercise.wrong("every-request")
def skips_what_is_overdue(call, due, *, clock=time.perf_counter, sleep=time.sleep):
    """Leaves out whoever cannot be sent in time: an overload looks like a quiet day."""
    start = clock()

    def on_time(number):
        if clock() - start - due[number] < 0.01:
            call(number)

    return load_test(on_time, due, clock=clock, sleep=sleep)


@exercise.wrong("timetable")
def sleeps_the_gaps(call, due, *, clock=time.perf_counter, sleep=time.sleep):
    """Sleeps for the gap after each answer, so that the load gives way to a slow server."""
    if not len(due):
        raise ValueError("nothing to send")
    latencies, errors, start, before = [], 0, clock(), 0.0
    for number, when in enumerate(due):
        sleep(when - before)
        before, sent = when, clock()
        try:
            call(number)
            latencies.append(clock() - sent)
        except Exception:
            errors += 1
    rate = len(latencies) / (clock() - start)
    return {"latencies": latencies, "errors": errors, "rate": rate, "p99": nearest(latencies)}


def nearest(latencies):
    ordered = sorted(latencies)
    return ordered[math.ceil(0.99 * len(ordered)) - 1] if ordered else None


@exercise.wrong("from-due")
def counts_from_sending(call, due, *, clock=time.perf_counter, sleep=time.sleep):
    """Coordinated omission: sends by the timetable, but counts from when it gets round to it."""
    took = []

    def timed(number):
        sent = clock()
        call(number)
        took.append(clock() - sent)

    report = load_test(timed, due, clock=clock, sleep=sleep)
    return report | {"latencies": took, "p99": nearest(took)}


@exercise.wrong("errors-apart")
def errors_are_fast_answers(call, due, *, clock=time.perf_counter, sleep=time.sleep):
    """A refusal counts as an error and as an answer, and a quick one at that."""
    errors = []

    def forgiving(number):
        try:
            call(number)
        except Exception:
            errors.append(number)

    report = load_test(forgiving, due, clock=clock, sleep=sleep)
    return report | {"errors": len(errors)}


@exercise.wrong("errors-apart")
def ends_with_the_first_error(call, due, *, clock=time.perf_counter, sleep=time.sleep):
    """Stops at the first error, so that a bad day is a short test."""
    fallen = []

    def until_then(number):
        if fallen:
            raise ConnectionError
        try:
            call(number)
        except Exception:
            fallen.append(number)
            raise

    return load_test(until_then, due, clock=clock, sleep=sleep)


@exercise.wrong("rate")
def the_offered_rate(call, due, *, clock=time.perf_counter, sleep=time.sleep):
    """Reports the rate that was asked for, whatever came of it."""
    offered = altered(rate=lambda report, due: len(due) / due[-1])
    return offered(call, due, clock=clock, sleep=sleep)


@exercise.wrong("p99")
def between_two(call, due, *, clock=time.perf_counter, sleep=time.sleep):
    """Interpolates between the two slowest: a latency that nobody had."""
    import numpy as np

    between = altered(
        p99=lambda r, due: float(np.percentile(r["latencies"], 99)) if r["latencies"] else None
    )
    return between(call, due, clock=clock, sleep=sleep)


@exercise.wrong("p99")
def the_slowest(call, due, *, clock=time.perf_counter, sleep=time.sleep):
    """Takes the maximum, which is decided by one unlucky request."""
    slowest = altered(p99=lambda report, due: max(report["latencies"], default=None))
    return slowest(call, due, clock=clock, sleep=sleep)


@exercise.wrong("nothing-answered")
def nobody_waited(call, due, *, clock=time.perf_counter, sleep=time.sleep):
    """A service that is down has the best percentile of all: 0."""
    zero = altered(p99=lambda report, due: report["p99"] or 0.0)
    return zero(call, due, clock=clock, sleep=sleep)
