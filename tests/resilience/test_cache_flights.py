"""Of all who want the same at the same time, one computes."""

import asyncio
import functools
import threading

import pytest

from companion.resilience.cache.flights import TaskFlights, ThreadFlights


def on_a_loop(test):
    @functools.wraps(test)
    def run(*args, **kwargs):
        asyncio.run(test(*args, **kwargs))

    return run


def wait_for_a_follower(flights):
    while flights._under_way["key"]._landing is None:
        pass


class CallerThreads:
    """Threads that all ask for one key, and what each of them got."""

    def __init__(self, flights, work, count):
        self.got = []

        def ask():
            try:
                self.got.append(flights.share("key", work))
            except KeyError as error:
                self.got.append(error)

        self.threads = [threading.Thread(target=ask) for _ in range(count)]

    def start(self):
        for thread in self.threads:
            thread.start()
        return self

    def join(self):
        for thread in self.threads:
            thread.join(10)
        return self.got


def test_threads_that_wait_share_the_leaders_result():
    flights, led, go = ThreadFlights(), threading.Event(), threading.Event()

    def work():
        led.set()
        assert go.wait(5)
        return "led"

    leader = CallerThreads(flights, work, 1).start()
    led.wait(5)
    followers = CallerThreads(flights, lambda: "computed again", 3).start()
    wait_for_a_follower(flights)
    go.set()
    assert leader.join() == [("led", False)]
    assert ("led", True) in followers.join()


def test_threads_share_the_leaders_error_and_later_callers_start_anew():
    flights, led, go = ThreadFlights(), threading.Event(), threading.Event()

    def fails():
        led.set()
        assert go.wait(5)
        raise KeyError("no such customer")

    leader = CallerThreads(flights, fails, 1).start()
    led.wait(5)
    follower = CallerThreads(flights, lambda: "computed again", 1).start()
    wait_for_a_follower(flights)
    go.set()
    assert isinstance(leader.join()[0], KeyError)
    assert isinstance(follower.join()[0], KeyError)
    assert flights.share("key", lambda: "anew") == ("anew", False)


def test_a_thread_takes_over_from_an_interrupted_leader():
    flights, led, go = ThreadFlights(), threading.Event(), threading.Event()
    interrupted = []

    def is_interrupted():
        led.set()
        assert go.wait(5)
        raise KeyboardInterrupt

    def lead():
        try:
            flights.share("key", is_interrupted)
        except KeyboardInterrupt:
            interrupted.append(1)

    leader = threading.Thread(target=lead)
    leader.start()
    led.wait(5)
    follower = CallerThreads(flights, lambda: "took over", 1).start()
    wait_for_a_follower(flights)
    go.set()
    leader.join(5)
    assert interrupted
    assert follower.join() == [("took over", False)]


def test_threads_with_different_keys_do_not_wait_for_each_other():
    flights = ThreadFlights()
    assert flights.share("a", lambda: flights.share("b", lambda: 1)) == ((1, False), False)


@on_a_loop
async def test_fifty_tasks_compute_once():
    flights, calls, go = TaskFlights(), [], asyncio.Event()

    async def work():
        calls.append(1)
        await go.wait()
        return 0.0

    tasks = [asyncio.ensure_future(flights.share("key", work)) for _ in range(50)]
    await asyncio.sleep(0)
    go.set()
    got = await asyncio.gather(*tasks)
    assert len(calls) == 1
    assert got == [(0.0, False)] + [(0.0, True)] * 49


@on_a_loop
async def test_tasks_share_the_leaders_error_and_later_callers_start_anew():
    flights, go = TaskFlights(), asyncio.Event()

    async def fails():
        await go.wait()
        raise KeyError

    tasks = [asyncio.ensure_future(flights.share("key", fails)) for _ in range(3)]
    await asyncio.sleep(0)
    go.set()
    got = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in got] == [KeyError] * 3

    async def works():
        return "anew"

    assert await flights.share("key", works) == ("anew", False)


@on_a_loop
async def test_a_task_takes_over_from_a_cancelled_leader_and_the_others_share_its_result():
    flights, calls, go = TaskFlights(), [], asyncio.Event()

    async def work():
        calls.append(1)
        await go.wait()
        return len(calls)

    tasks = [asyncio.ensure_future(flights.share("key", work)) for _ in range(4)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    while len(calls) < 2:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    go.set()
    got = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(got[0], asyncio.CancelledError)
    assert sorted(got[1:]) == [(2, False), (2, True), (2, True)]


@on_a_loop
async def test_a_cancelled_follower_harms_nobody():
    flights, go = TaskFlights(), asyncio.Event()

    async def work():
        await go.wait()
        return "score"

    tasks = [asyncio.ensure_future(flights.share("key", work)) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.sleep(0)
    go.set()
    got = await asyncio.gather(*tasks, return_exceptions=True)
    assert got[0] == ("score", False)
    assert got[2] == ("score", True)


@on_a_loop
async def test_nothing_is_left_behind():
    flights, threads = TaskFlights(), ThreadFlights()

    async def fails():
        raise KeyError

    with pytest.raises(KeyError):
        await flights.share("key", fails)
    threads.share("key", int)
    assert not flights._under_way
    assert not threads._under_way
