"""The checks of a process: who decides, what a hung check costs, what is told to whom."""

import asyncio
import contextlib
import dataclasses
import logging
import math
import threading

import pytest

from companion.instruments import FakeClock
from companion.instruments.virtual_time import run_in_virtual_time, virtual_now
from companion.resilience.health import HealthRegistry

SHORT = 0.05
"""Seconds for checks that hang; the others get more than a busy machine could need."""


def passes():
    return True


async def passes_async():
    return True


def fails():
    raise ConnectionError("redis://:secret@cache.internal:6379 refused\nforged line")


async def hangs():
    await asyncio.Event().wait()


def registry(checks, critical=(), **settings):
    return HealthRegistry(checks, critical=critical, **{"timeout": 30, "fresh_for": 0} | settings)


def readiness(checks, critical=(), **settings):
    return asyncio.run(registry(checks, critical, **settings).readiness())


def errors(seen):
    return {check.name: check.error for check in seen.checks}


class Counted:
    """A check that counts its calls and does as it is told."""

    def __init__(self, error=None):
        self.calls = 0
        self.error = error

    def __call__(self):
        self.calls += 1
        if self.error:
            raise self.error


@pytest.fixture
def gate():
    """An event that a blocking check waits for; set at the end, so that its thread ends."""
    event = threading.Event()
    yield event
    event.set()


# ----- who decides ------------------------------------------------------------------------------


def test_it_is_ready_when_every_check_passes():
    seen = readiness({"model": passes, "cache": passes_async}, ["model"])
    assert (seen.ready, seen.degraded, seen.draining) == (True, False, False)
    assert [(c.name, c.critical, c.passed) for c in seen.checks] == [
        ("model", True, True),
        ("cache", False, True),
    ]


def test_a_failed_optional_check_degrades_it_and_keeps_it_in_traffic():
    seen = readiness({"model": passes, "cache": fails}, ["model"])
    assert (seen.ready, seen.degraded) == (True, True)
    assert errors(seen) == {"model": None, "cache": "ConnectionError"}


def test_a_failed_critical_check_takes_it_out_of_traffic():
    seen = readiness({"model": fails, "cache": passes}, ["model"])
    assert (seen.ready, seen.degraded) == (False, False)


def test_without_checks_it_is_ready():
    assert readiness({}).ready


@pytest.mark.parametrize("answer", [None, True, 1, "PONG", object()])
def test_a_check_passes_with_none_or_anything_true(answer):
    assert errors(readiness({"check": lambda: answer})) == {"check": None}


@pytest.mark.parametrize("answer", [False, 0, "", []])
def test_a_check_fails_with_anything_else(answer):
    assert errors(readiness({"check": lambda: answer})) == {"check": "CheckFailedError"}


# ----- kinds of checks --------------------------------------------------------------------------


class AsyncObject:
    async def __call__(self):
        self.thread = threading.current_thread()


def test_an_object_with_an_async_call_runs_on_the_loop():
    check = AsyncObject()
    assert errors(readiness({"check": check})) == {"check": None}
    assert check.thread is threading.current_thread()


def test_a_plain_function_may_return_something_to_await():
    assert errors(readiness({"check": lambda: passes_async()})) == {"check": None}


def test_what_a_plain_function_returns_to_await_is_awaited():
    async def says_no():
        return False

    assert errors(readiness({"check": lambda: says_no()})) == {"check": "CheckFailedError"}


def test_a_blocking_check_leaves_the_event_loop_free(gate):
    async def run():
        looking = asyncio.create_task(registry({"slow": gate.wait}).readiness())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not looking.done()
        gate.set()  # Had the check blocked the loop, nobody would have come here.
        return await looking

    assert errors(asyncio.run(run())) == {"slow": None}


def test_a_check_that_runs_out_of_an_iterator_fails_like_any_other():
    assert errors(readiness({"check": lambda: next(iter(()))})) == {"check": "RuntimeError"}


def test_a_thread_that_cannot_be_started_is_a_failed_check_and_tried_again(monkeypatch):
    health = registry({"check": passes})

    def no_more(thread):
        raise RuntimeError("can't start new thread")

    async def run():
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_more)
            first = await health.readiness()
        return errors(first), errors(await health.readiness())

    assert asyncio.run(run()) == ({"check": "RuntimeError"}, {"check": None})


# ----- what hanging costs -----------------------------------------------------------------------


def test_a_hung_check_fails_after_its_time_and_the_others_are_heard():
    checks = {"hung": hangs, "raises": fails, "fine": passes_async}
    seen = readiness(checks, ["fine"], timeout=SHORT)
    assert errors(seen) == {"hung": "TimeoutError", "raises": "ConnectionError", "fine": None}
    assert seen.ready


def test_checks_run_side_by_side():
    together = threading.Barrier(3)  # One after the other, the first would wait for ever.
    checks = dict.fromkeys(["a", "b", "c"], lambda: together.wait(20) >= 0)
    assert errors(readiness(checks)) == {"a": None, "b": None, "c": None}


def test_three_hung_checks_cost_one_time_limit():
    health = registry({"a": hangs, "b": hangs, "c": hangs}, timeout=0.3, clock=virtual_now)
    seen = run_in_virtual_time(health.readiness())
    assert [check.seconds for check in seen.checks] == pytest.approx([0.3] * 3)


def test_an_async_check_that_ignores_its_cancellation_holds_nobody_up():
    async def stubborn():
        while not let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await let_go.wait()

    async def run():
        nonlocal let_go
        let_go = asyncio.Event()
        health = registry({"stubborn": stubborn}, timeout=SHORT)
        first, second = await health.readiness(), await health.readiness()
        let_go.set()
        return errors(first), errors(second)

    let_go = None
    assert asyncio.run(run()) == ({"stubborn": "TimeoutError"},) * 2


def test_a_hung_thread_is_not_joined_by_another_at_each_probe(gate):
    check = Counted()

    def hung():
        check()
        gate.wait(30)

    async def run():
        health = registry({"hung": hung}, timeout=SHORT)
        seen = [errors(await health.readiness()) for _ in range(5)]
        assert check.calls == 1
        return seen

    assert asyncio.run(run()) == [{"hung": "TimeoutError"}] * 5


def test_a_check_that_has_come_back_is_run_again(gate):
    came_back = threading.Event()

    def slow_once():
        gate.wait(30)
        came_back.set()

    async def run():
        health = registry({"slow": slow_once}, timeout=SHORT)
        before = await health.readiness()
        gate.set()
        await asyncio.to_thread(came_back.wait, 10)
        while errors(await health.readiness())["slow"]:  # its thread may need a moment to end
            await asyncio.sleep(0)
        return errors(before)

    assert asyncio.run(run()) == {"slow": "TimeoutError"}


def test_an_error_after_the_time_is_nobodys_news(caplog):
    async def raises_when_cancelled():
        try:
            await asyncio.Event().wait()
        finally:
            raise ConnectionError("closed while waiting")

    async def run():
        seen = await registry({"late": raises_when_cancelled}, timeout=SHORT).readiness()
        await asyncio.sleep(0)
        return errors(seen)

    assert asyncio.run(run()) == {"late": "TimeoutError"}
    assert "never retrieved" not in caplog.text


def test_a_thread_that_comes_back_after_the_loop_has_ended_troubles_nobody(gate):
    asyncio.run(registry({"slow": gate.wait}, timeout=SHORT).readiness())
    thread = next(t for t in threading.enumerate() if t.name == "health-slow")
    gate.set()
    thread.join(10)  # An error in it would fail this test: pytest watches threads.
    assert not thread.is_alive()


# ----- what is meant for the process ------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("is_async", [False, True])
def test_what_ends_the_process_is_not_swallowed(error, is_async):
    def check():
        raise error

    async def acheck():
        raise error

    with pytest.raises(error):
        readiness({"check": acheck if is_async else check})


def test_a_cancelled_probe_is_cancelled_and_the_others_get_their_answer():
    async def run():
        go = asyncio.Event()
        health = registry({"slow": go.wait})
        gives_up = asyncio.create_task(health.readiness())
        stays = asyncio.create_task(health.readiness())
        await asyncio.sleep(0)
        gives_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gives_up
        go.set()
        return errors(await stays)

    assert asyncio.run(run()) == {"slow": None}


# ----- sparing the dependencies -----------------------------------------------------------------


def test_fresh_results_are_used_again():
    clock, check = FakeClock(), Counted()
    health = registry({"check": check}, fresh_for=1, clock=clock)

    async def run():
        await health.readiness()
        clock.advance(0.99)
        await health.readiness()
        assert check.calls == 1
        clock.advance(0.01)
        await health.readiness()

    asyncio.run(run())
    assert check.calls == 2


def test_a_hundred_probes_at_once_share_one_look():
    check = Counted()
    health = registry({"check": check})

    async def run():
        return await asyncio.gather(*(health.readiness() for _ in range(100)))

    assert len(set(asyncio.run(run()))) == 1
    assert check.calls == 1


def test_how_long_a_check_took_is_told_in_seconds():
    clock = FakeClock()
    (check,) = readiness({"check": lambda: clock.advance(0.25)}, clock=clock).checks
    assert check.seconds == 0.25


# ----- what is told to whom ---------------------------------------------------------------------


def test_the_message_of_an_error_stays_inside():
    assert "secret" not in repr(readiness({"cache": fails}))


def test_the_log_gets_the_message_in_one_line(caplog):
    readiness({"cache": fails})
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "health check cache fails: ConnectionError" in record.getMessage()
    assert "refused" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_the_log_hears_of_changes_not_of_probes(caplog):
    caplog.set_level(logging.INFO)
    check = Counted()
    health = registry({"cache": check})

    async def run():
        for error in (None, OSError("1"), OSError("2"), ValueError("3"), None, None):
            check.error = error
            await health.readiness()

    asyncio.run(run())
    assert [record.getMessage() for record in caplog.records] == [
        "health check cache fails: OSError: '1'",
        "health check cache fails: ValueError: '3'",
        "health check cache passes again",
    ]


def test_what_it_says_cannot_be_changed():
    seen = readiness({"cache": fails})
    with pytest.raises(dataclasses.FrozenInstanceError):
        seen.ready = True
    with pytest.raises(dataclasses.FrozenInstanceError):
        seen.checks[0].error = None


# ----- alive, started, draining -----------------------------------------------------------------


def test_liveness_asks_no_check():
    check = Counted(OSError("down"))
    assert not registry({"database": check}, ["database"]).liveness().draining
    assert check.calls == 0


def test_it_has_started_once_the_critical_checks_have_passed_and_for_good():
    check = Counted(OSError("still loading"))
    health = registry({"model": check, "cache": fails}, ["model"])

    async def run():
        before = await health.startup()
        check.error = None
        then = await health.startup()
        check.error, calls = OSError("gone"), check.calls
        after = await health.startup()
        assert check.calls == calls
        return before.started, then.started, after.started

    assert asyncio.run(run()) == (False, True, True)


def test_being_ready_is_having_started():
    check = Counted()
    health = registry({"model": check}, ["model"])

    async def run():
        await health.readiness()
        check.error = OSError("gone")
        return await health.startup()

    assert asyncio.run(run()).started


def test_draining_it_is_alive_and_not_ready_and_asks_no_check():
    check = Counted()
    health = registry({"model": check}, ["model"])

    async def run():
        before = await health.readiness()
        health.drain()
        health.drain()
        return before, await health.readiness()

    before, after = asyncio.run(run())
    assert before.ready
    assert (after.ready, after.draining) == (False, True)
    assert after.checks == before.checks
    assert health.liveness().draining
    assert check.calls == 1


def test_draining_before_it_started_it_never_has():
    health = registry({"model": passes}, ["model"])
    health.drain()
    assert not asyncio.run(health.startup()).started


def test_the_same_registry_serves_a_second_event_loop_after_the_first():
    health = registry({"model": passes, "cache": passes_async}, ["model"])
    assert [asyncio.run(health.readiness()).ready for _ in range(2)] == [True, True]


# ----- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"critical": ["model", "cahce"]}, "critical names checks that do not exist: cahce"),
        ({"critical": "model"}, "critical is a collection"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": math.inf}, "timeout"),
        ({"timeout": math.nan}, "timeout"),
        ({"fresh_for": -1}, "fresh_for"),
        ({"fresh_for": math.inf}, "fresh_for"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(settings, names):
    with pytest.raises(ValueError, match=f"^{names}"):
        HealthRegistry({"model": passes}, **{"critical": ["model"]} | settings)
