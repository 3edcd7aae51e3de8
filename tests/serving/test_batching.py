"""Rows that come one by one, predicted together: every caller its own result, whatever happens."""

import asyncio
import gc
import logging
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from companion.instruments import FakeClock, LoopLag
from companion.serving.batching import (
    BatcherClosedError,
    BatchResultError,
    Gathering,
    MicroBatcher,
    PredictorExitError,
    QueueFullError,
)


class Model:
    """Answers a row with its first feature, doubled; remembers batches, and refuses poison."""

    def __init__(self, poison=(), error=ValueError):
        self.batches = []
        self.poison, self.error = set(poison), error

    def __call__(self, rows):
        firsts = [int(first) for first in rows[:, 0]]
        self.batches.append(firsts)
        if self.poison & set(firsts):
            raise self.error("no such row")
        return rows[:, 0] * 2


class Gate:
    """A model that answers when it is let; `entered` says that a batch is in its hands."""

    def __init__(self):
        self.entered, self.open = threading.Event(), threading.Event()
        self.inner = Model()

    def __call__(self, rows):
        self.entered.set()
        assert self.open.wait(10)
        return self.inner(rows)

    async def reached(self):
        await asyncio.to_thread(self.entered.wait, 10)


class InVirtualTime(Executor):
    """Runs a call on the loop, as if it took a thread `seconds` of `clock`."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds
        self.tasks = set()

    def submit(self, function, /, *args, **kwargs):
        ended = Future()

        async def run():
            await self.clock.asleep(self.seconds)
            ended.set_result(function(*args, **kwargs))

        task = asyncio.ensure_future(run())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return ended


def in_virtual_time(scenario, model, *, seconds=1.0, **settings):
    """Run `scenario(batcher, clock)`, in which a batch takes `seconds` and nothing else any."""
    clock = FakeClock()
    settings = {"max_delay": 0.25, **settings}

    async def main():
        async with MicroBatcher(
            model,
            executor=InVirtualTime(clock, seconds),
            clock=clock,
            sleep=clock.asleep,
            **settings,
        ) as batcher:
            return await scenario(batcher, clock)

    return asyncio.run(clock.run(main()))


def run(scenario, model, **settings):
    """Run `scenario(batcher)` with a thread and a clock that are real."""

    async def main():
        async with MicroBatcher(model, **settings) as batcher:
            return await scenario(batcher)

    return asyncio.run(main())


def every(batcher, numbers):
    return asyncio.gather(*(batcher.predict([n, 0]) for n in numbers), return_exceptions=True)


# ----- whose result is whose ---------------------------------------------------------------------


def test_every_caller_gets_its_own_result():
    results = run(lambda batcher: every(batcher, range(100)), Model(), max_batch=7)
    assert results == [2 * n for n in range(100)]


def test_a_row_of_probabilities_stays_a_row():
    async def scenario(batcher):
        return await batcher.predict([0.25])

    got = run(scenario, lambda rows: np.hstack([1 - rows, rows]))
    assert got.tolist() == [0.75, 0.25]


@pytest.mark.parametrize(
    "kind", [list, tuple, lambda a: a.reshape(-1, 1), lambda a: pd.DataFrame({"p": a, "q": a})]
)
def test_the_model_may_answer_with_any_sequence_of_results(kind):
    results = run(lambda b: every(b, range(3)), lambda rows: kind(rows[:, 0]))
    assert [float(np.ravel(result)[0]) for result in results] == [0, 1, 2]


def test_the_model_gets_rows_by_features_of_one_dtype():
    seen = []

    def model(rows):
        seen.append((rows.shape, rows.dtype))
        return rows[:, 0]

    run(lambda b: every(b, range(3)), model, dtype=np.float32)
    assert seen == [((3, 2), np.float32)]


def test_a_row_is_copied_when_it_comes():
    async def scenario(batcher):
        row = np.array([1.0, 2.0])
        pending = asyncio.ensure_future(batcher.predict(row))
        await asyncio.sleep(0)
        row[:] = 99
        return await pending

    assert run(scenario, Model()) == 2


# ----- when rows leave ---------------------------------------------------------------------------


def test_a_lone_row_is_not_held_back():
    async def scenario(batcher, clock):
        for _ in range(3):
            await batcher.predict([1, 0])
        return clock()

    assert in_virtual_time(scenario, Model()) == 3.0  # three calls of the model, and no delay


def test_the_classical_rule_holds_a_lone_row_for_the_delay():
    async def scenario(batcher, clock):
        await batcher.predict([1, 0])
        return clock()

    assert in_virtual_time(scenario, Model(), adaptive=False) == 1.25


def test_a_full_batch_leaves_at_once():
    async def scenario(batcher, clock):
        await every(batcher, range(4))
        return clock()

    model = Model()
    assert in_virtual_time(scenario, model, adaptive=False, max_batch=4) == 1.0
    assert model.batches == [[0, 1, 2, 3]]


def test_the_delay_runs_from_the_first_row_and_is_not_restarted():
    model = Model()

    async def scenario(batcher, clock):
        pending = []
        for n in range(5):
            pending.append(asyncio.ensure_future(batcher.predict([n, 0])))
            await clock.asleep(0.125)
        return await asyncio.gather(*pending)

    in_virtual_time(scenario, model, adaptive=False, max_delay=0.3125, seconds=5.0)
    assert model.batches == [[0, 1, 2], [3, 4]]


def test_rows_gather_while_the_model_is_busy():
    model = Model()

    async def scenario(batcher, clock):
        first = asyncio.ensure_future(batcher.predict([0, 0]))
        await clock.asleep(0.5)
        await asyncio.gather(first, every(batcher, range(1, 9)))

    in_virtual_time(scenario, model, max_batch=5)
    assert model.batches == [[0], [1, 2, 3, 4, 5], [6, 7, 8]]


def test_callers_who_came_together_are_waited_for_together():
    model = Model()

    async def scenario(batcher, clock):
        async def caller(number, pause):
            for _ in range(3):
                await batcher.predict([number, 0])
                await clock.asleep(pause)

        await asyncio.gather(*(caller(n, n * 0.0625) for n in range(4)))

    in_virtual_time(scenario, model)
    assert model.batches == [[0, 1, 2, 3]] * 3


def test_two_groups_of_callers_become_one():
    model = Model()

    async def scenario(batcher, clock):
        async def caller(number, starts):
            await clock.asleep(starts)
            for _ in range(3):
                await batcher.predict([number, 0])
                await clock.asleep(0.125)

        await asyncio.gather(*(caller(n, 0.5 if n < 3 else 0.0) for n in range(6)))

    in_virtual_time(scenario, model)
    assert [len(batch) for batch in model.batches] == [3, 6, 6, 3]


def test_callers_who_stay_away_are_waited_for_once():
    async def scenario(batcher, clock):
        await every(batcher, range(4))
        waited = []
        for _ in range(3):
            began = clock()
            await batcher.predict([0, 0])
            waited.append(clock() - began)
        return waited

    assert in_virtual_time(scenario, Model()) == [1.25, 1.0, 1.0]


def test_company_of_long_ago_is_not_waited_for():
    async def scenario(batcher, clock):
        await every(batcher, range(4))
        await clock.asleep(0.375)
        began = clock()
        await batcher.predict([0, 0])
        return clock() - began

    assert in_virtual_time(scenario, Model()) == 1.0


def test_no_delay_means_as_soon_as_the_model_is_free():
    async def scenario(batcher, clock):
        await every(batcher, range(4))
        await batcher.predict([0, 0])
        return clock()

    assert in_virtual_time(scenario, Model(), max_delay=0.0) == 2.0


@pytest.mark.parametrize(
    "wrong", [{"max_batch": 0}, {"max_delay": -1.0}, {"max_delay": float("inf")}, {"max_queue": 0}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        MicroBatcher(Model(), **wrong)


def test_before_the_first_batch_nobody_is_waited_for():
    assert Gathering().leave_at(1, 7.0, 0, -np.inf) == 7.0


# ----- the model's thread ------------------------------------------------------------------------


def test_the_model_runs_in_one_thread_off_the_loop():
    threads = set()

    def model(rows):
        threads.add(threading.get_ident())
        return rows[:, 0]

    run(lambda b: every(b, range(50)), model, max_batch=5)
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_the_loop_is_free_while_the_model_works():
    gate = Gate()

    async def scenario(batcher):
        pending = asyncio.ensure_future(batcher.predict([1, 0]))
        await gate.reached()
        async with LoopLag() as lag:
            await asyncio.sleep(0.02)
        gate.open.set()
        await pending
        return len(lag.samples)

    assert run(scenario, gate) >= 1


def test_the_thread_is_gone_afterwards():
    before = threading.active_count()
    run(lambda b: every(b, range(3)), Model())
    assert threading.active_count() == before


def test_a_given_executor_is_used_and_left_open():
    with ThreadPoolExecutor(1, thread_name_prefix="mine") as mine:
        names = set()

        def model(rows):
            names.add(threading.current_thread().name)
            return rows[:, 0]

        run(lambda b: every(b, range(3)), model, executor=mine)
        assert names == {"mine_0"}
        assert mine.submit(int).result() == 0


# ----- errors ------------------------------------------------------------------------------------


def test_a_poison_row_fails_alone():
    results = run(lambda b: every(b, range(64)), Model(poison=[41]))
    assert isinstance(results.pop(41), ValueError)
    assert results == [2 * n for n in range(64) if n != 41]


def test_one_poison_row_of_64_costs_twelve_more_calls():
    model = Model(poison=[0])
    run(lambda b: every(b, range(64)), model)
    assert len(model.batches) == 1 + 2 * 6


def test_a_batch_of_poison_costs_less_than_two_calls_a_row():
    model = Model(poison=range(64))
    results = run(lambda b: every(b, range(64)), model)
    assert {type(result) for result in results} == {ValueError}
    assert len(model.batches) == 2 * 64 - 1


def test_a_row_of_another_width_fails_alone():
    async def scenario(batcher):
        rows = [[1, 0], [2, 0], [3, 0, 0], [4, 0]]
        return await asyncio.gather(*map(batcher.predict, rows), return_exceptions=True)

    def model(rows):
        if rows.shape[1] != 2:
            raise ValueError("two features, please")
        return rows[:, 0]

    first, second, wide, last = run(scenario, model)
    assert (first, second, last) == (1, 2, 4)
    assert str(wide) == "two features, please"


def test_an_error_of_the_model_itself_reaches_its_batch_at_once_and_no_other():
    model = Model(poison=[1], error=ConnectionError)
    results = run(lambda b: every(b, range(6)), model, max_batch=3)
    assert [type(result) for result in results[:3]] == [ConnectionError] * 3
    assert results[3:] == [6, 8, 10]
    assert model.batches == [[0, 1, 2], [3, 4, 5]]  # and nothing was asked twice


def test_what_counts_as_the_fault_of_a_row_can_be_said():
    model = Model(poison=[1], error=RuntimeError)
    results = run(lambda b: every(b, range(3)), model, row_errors=(RuntimeError,))
    assert results[0::2] == [0, 4]
    assert isinstance(results[1], RuntimeError)


@pytest.mark.parametrize(
    ("answer", "got"),
    [([1.0], 1), ([1.0] * 4, 4), (0.5, None), (None, None), (np.array(0.5), None)],
)
def test_another_number_of_results_than_rows_is_an_error(answer, got):
    results = run(lambda b: every(b, range(3)), lambda rows: answer)
    assert {type(result) for result in results} == {BatchResultError}
    assert (results[0].expected, results[0].got) == (3, got)


@pytest.mark.parametrize("raised", [SystemExit, StopIteration, KeyboardInterrupt])
def test_what_must_not_be_raised_in_a_caller_arrives_as_a_named_error(raised):
    def model(rows):
        raise raised

    (error,) = run(lambda b: every(b, [1]), model)
    assert isinstance(error, PredictorExitError)
    assert isinstance(error.__cause__, raised)


@pytest.mark.parametrize("row", [[[1.0, 2.0]], 1.0, ["a"], [{}]])
def test_a_row_that_is_no_flat_list_of_numbers_is_refused_to_its_caller(row):
    async def scenario(batcher):
        return await asyncio.gather(
            batcher.predict(row), batcher.predict([1, 0]), return_exceptions=True
        )

    model = Model()
    refused, fine = run(scenario, model)
    assert isinstance(refused, ValueError | TypeError)
    assert (fine, model.batches) == (2, [[1]])


def test_an_executor_that_takes_nothing_or_breaks_fails_the_batch():
    class Broken(Executor):
        def __init__(self, error):
            self.error = error

        def submit(self, function, /, *args, **kwargs):
            ended = Future()
            if self.error is None:
                ended.cancel()
                ended.set_running_or_notify_cancel()
            else:
                ended.set_exception(self.error)
            return ended

    def failure_in(executor):
        return type(run(lambda b: every(b, [1]), Model(), executor=executor)[0])

    shut = ThreadPoolExecutor(1)
    shut.shutdown()
    assert failure_in(shut) is RuntimeError
    assert failure_in(Broken(OSError("gone"))) is OSError
    assert failure_in(Broken(SystemExit())) is PredictorExitError
    assert failure_in(Broken(None)) is BatcherClosedError


# ----- a full queue ------------------------------------------------------------------------------


def test_a_full_queue_refuses_and_says_when_to_come_back():
    async def scenario(batcher, clock):
        await batcher.predict([0, 0])  # so that it knows what a batch takes: a second
        running = asyncio.ensure_future(batcher.predict([1, 0]))
        await clock.asleep(0.5)
        waiting = asyncio.ensure_future(every(batcher, range(4)))
        await clock.asleep(0)
        with pytest.raises(QueueFullError) as refused:
            await batcher.predict([5, 0])
        assert await waiting == [0, 2, 4, 6]
        assert await running == 2
        assert batcher.stats().refused == 1
        return refused.value

    error = in_virtual_time(scenario, Model(), max_queue=4, max_batch=2)
    assert (error.waiting, error.retry_after) == (4, 2.0)


def test_a_model_that_hangs_lengthens_retry_after():
    async def scenario(batcher, clock):
        pending = [asyncio.ensure_future(batcher.predict([0, 0]))]
        await clock.asleep(30.0)
        pending.append(asyncio.ensure_future(batcher.predict([1, 0])))
        await clock.asleep(0)
        with pytest.raises(QueueFullError) as refused:
            await batcher.predict([2, 0])
        await asyncio.gather(*pending)
        return refused.value.retry_after

    assert in_virtual_time(scenario, Model(), seconds=60.0, max_queue=1) == 30.0


def test_there_is_room_again_after_a_caller_gave_up():
    async def scenario(batcher, clock):
        running = asyncio.ensure_future(batcher.predict([0, 0]))
        await clock.asleep(0.5)
        gives_up = asyncio.ensure_future(batcher.predict([1, 0]))
        await clock.asleep(0)
        gives_up.cancel()
        await clock.asleep(0)
        return await asyncio.gather(running, batcher.predict([2, 0]))

    assert in_virtual_time(scenario, Model(), max_queue=1) == [0, 4]


# ----- callers that give up ----------------------------------------------------------------------


def test_a_cancelled_caller_harms_nobody_and_is_not_predicted():
    model = Model()

    async def scenario(batcher, clock):
        running = asyncio.ensure_future(batcher.predict([0, 0]))
        await clock.asleep(0.5)
        waiting = [asyncio.ensure_future(batcher.predict([n, 0])) for n in (1, 2, 3)]
        await clock.asleep(0)
        waiting[0].cancel()
        await asyncio.wait([waiting[0]])
        assert waiting[0].cancelled()
        assert await asyncio.gather(running, *waiting[1:]) == [0, 4, 6]
        return batcher.stats()

    stats = in_virtual_time(scenario, model)
    assert model.batches == [[0], [2, 3]]
    assert (stats.rows, stats.cancelled) == (3, 1)


def test_a_caller_that_gives_up_in_the_models_hands_harms_nobody():
    async def scenario(batcher, clock):
        callers = [asyncio.ensure_future(batcher.predict([n, 0])) for n in range(3)]
        await clock.asleep(0.5)
        callers[1].cancel()
        return await asyncio.gather(*callers, return_exceptions=True), await batcher.predict([7, 0])

    (first, second, third), later = in_virtual_time(scenario, Model())
    assert (first, third, later) == (0, 4, 14)
    assert isinstance(second, asyncio.CancelledError)


def test_when_all_give_up_before_they_leave_the_model_is_not_asked():
    model = Model()

    async def scenario(batcher, clock):
        for delay in (0, 0.125):  # in the turn before they leave, and while they are held back
            callers = [asyncio.ensure_future(batcher.predict([n, 0])) for n in range(3)]
            await clock.asleep(delay)
            for caller in callers:
                caller.cancel()
            await asyncio.wait(callers)
        await clock.asleep(1)
        before = list(model.batches)
        return before, await batcher.predict([1, 0])

    assert in_virtual_time(scenario, model, adaptive=False) == ([], 2)
    assert in_virtual_time(scenario, model, max_batch=3)[1] == 2


def test_the_delay_of_those_who_stay_is_their_own_when_the_first_gives_up():
    async def scenario(batcher, clock):
        first = asyncio.ensure_future(batcher.predict([0, 0]))
        await clock.asleep(0.125)
        second = asyncio.ensure_future(batcher.predict([1, 0]))
        await clock.asleep(0)
        first.cancel()
        await second
        return clock()

    assert in_virtual_time(scenario, Model(), adaptive=False) == 0.125 + 0.25 + 1.0


def test_an_error_for_a_caller_that_has_just_given_up_is_not_complained_about(caplog):
    async def scenario(batcher):
        caller = asyncio.ensure_future(batcher.predict([1, 0]))
        await asyncio.sleep(0)
        (answer,) = batcher._waiting
        answer.set_exception(ValueError("in the very turn in which the caller gives up"))
        caller.cancel()
        await asyncio.wait([caller])
        assert caller.cancelled()

    with caplog.at_level(logging.ERROR):
        run(scenario, Model())
        gc.collect()
    assert caplog.records == []


# ----- the end -----------------------------------------------------------------------------------


def test_leaving_answers_all_that_wait_without_holding_them_back():
    clock = FakeClock()
    model = Model()

    async def main():
        async with MicroBatcher(
            model,
            adaptive=False,
            max_batch=4,
            max_delay=100.0,
            executor=InVirtualTime(clock, 1.0),
            clock=clock,
            sleep=clock.asleep,
        ) as batcher:
            pending = asyncio.ensure_future(every(batcher, range(10)))
            await asyncio.sleep(0)
            came = clock()
        return await pending, clock() - came

    assert asyncio.run(clock.run(main())) == ([2 * n for n in range(10)], 3.0)


def test_new_rows_are_refused_while_the_last_ones_are_answered():
    gate = Gate()

    async def main():
        batcher = MicroBatcher(gate)
        async with batcher:
            pending = asyncio.ensure_future(batcher.predict([1, 0]))
            await gate.reached()
            leaving = asyncio.ensure_future(batcher.__aexit__(None, None, None))
            await asyncio.sleep(0)
            with pytest.raises(BatcherClosedError):
                await batcher.predict([2, 0])
            gate.open.set()
            await leaving
            return await pending

    assert asyncio.run(main()) == 2


def test_outside_its_block_it_takes_nothing():
    async def main():
        batcher = MicroBatcher(Model())
        with pytest.raises(BatcherClosedError):
            await batcher.predict([1, 0])
        async with batcher:
            pass
        with pytest.raises(BatcherClosedError):
            await batcher.predict([1, 0])
        with pytest.raises(RuntimeError, match="once"):
            await batcher.__aenter__()

    asyncio.run(main())


def test_when_leaving_is_cut_short_nobody_waits_for_ever():
    gate = Gate()

    async def main():
        batcher = MicroBatcher(gate, max_batch=1)
        await batcher.__aenter__()
        running = asyncio.ensure_future(batcher.predict([1, 0]))
        await gate.reached()
        waiting = asyncio.ensure_future(batcher.predict([2, 0]))
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await batcher.__aexit__(None, None, None)
        with pytest.raises(BatcherClosedError):
            await waiting
        gate.open.set()
        return await running

    assert asyncio.run(main()) == 2


def test_leaving_leaves_no_task_behind():
    async def main():
        async with MicroBatcher(Model(), adaptive=False, max_delay=60.0) as batcher:
            caller = asyncio.ensure_future(batcher.predict([1, 0]))
            await asyncio.sleep(0)
            caller.cancel()
        await asyncio.sleep(0)
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(main()) == set()


def test_a_batcher_belongs_to_one_loop():
    async def main(batcher):
        async with batcher:
            with pytest.raises(RuntimeError, match="event loop"):
                await asyncio.to_thread(asyncio.run, batcher.predict([1, 0]))

    asyncio.run(main(MicroBatcher(Model())))


# ----- what is counted ---------------------------------------------------------------------------


def test_it_counts_rows_batches_and_failures():
    async def scenario(batcher):
        await every(batcher, range(10))
        return batcher.stats()

    stats = run(scenario, Model(poison=[3]), max_batch=4)
    assert (stats.rows, stats.batches, stats.largest, stats.failed) == (10, 3, 4, 1)
    assert stats.mean_batch == pytest.approx(10 / 3)
    assert stats.waiting == 0


def test_the_mean_of_no_batches_is_zero():
    assert MicroBatcher(Model()).stats().mean_batch == 0.0
