"""Q16 · A low-latency scoring API: the exercise, its checks, and the mistakes they catch."""

import asyncio
import threading
from collections import deque

import numpy as np

from companion.study import Exercise, Stage

exercise = Exercise(
    "MicroBatcher",
    hints={
        "start": (
            "Two parts: callers that put a row down and wait, and something that takes rows away.",
            "Give every caller a future of its own: "
            "`asyncio.get_running_loop().create_future()`. Keep (row, future) pairs in a list, and "
            "end predict() with `return await future`.",
            "The first row of a batch starts a task that sleeps max_delay and then flushes. "
            "Flushing takes up to max_batch pairs, awaits the model in a thread, and sets each "
            "future.",
        ),
        "settings": (
            "MicroBatcher(predict, *, max_batch=…, max_delay=…) and `await batcher.predict(row)`.",
            "Keep the stub's two lines as they are; predict(row) is an `async def`.",
        ),
        "lone-row": (
            "What happens to the last request at three in the morning?",
            "A batch that never fills must leave too: max_delay after its first row came.",
            "When a row finds the queue empty, start a task: `await asyncio.sleep(max_delay)`, "
            "then flush what is there.",
        ),
        "own-result": (
            "Everybody is answered, but with whose result?",
            "The model's results are in the order of its rows: give the n-th to the n-th future.",
            "`for future, result in zip(futures, results): future.set_result(result)`.",
        ),
        "stacked": (
            "What does the model get: rows one after the other, or one matrix?",
            "Stack the rows of a batch: np.stack gives rows × features. One call for all of them.",
        ),
        "max-batch": (
            "More rows wait than one batch may hold. What do you hand to the model?",
            "Take at most max_batch pairs off the queue at a time, and see to those that are left: "
            "they have nobody else to start a flush for them.",
        ),
        "full-batch": (
            "The batch is full. What is it waiting for?",
            "When max_batch rows wait, flush at once instead of when the delay is over.",
        ),
        "first-row": (
            "A row comes every few milliseconds, for ever. When does the first one leave?",
            "The delay runs from the first row of the batch. Do not start it again for later ones.",
        ),
        "off-the-loop": (
            "While your model computes, who answers the health check?",
            "The loop must be free: run the model in a thread and await it.",
            "`results = await asyncio.to_thread(self.model, np.stack(rows))`.",
        ),
        "errors": (
            "The model raised. Who is told, and what happens to the next batch?",
            "Catch the exception around the call of the model and set it on every future of this "
            "batch: `future.set_exception(error)`. The next batch starts afresh.",
        ),
        "cancelled": (
            "One caller gave up. Its future is done already when you want to set it.",
            "Setting a future that is done raises InvalidStateError, and whoever comes after it in "
            "the loop is never answered. Ask `future.done()` first.",
        ),
    },
)

PATIENCE = 0.6  # seconds after which a caller that is not answered counts as forgotten


class Model:
    """Doubles a row's first feature; remembers each call's shape and thread."""

    def __init__(self, fails=()):
        self.calls, self.threads, self.fails = [], set(), set(fails)

    def __call__(self, rows):
        self.calls.append(np.shape(rows))
        self.threads.add(threading.get_ident())
        if self.fails & set(np.ravel(rows).tolist()):
            raise ArithmeticError("the model failed")
        return 2 * np.asarray(rows)[:, 0]


async def ask(batcher, number):
    """What a caller gets: its result, or the class of its exception, or that nobody answered."""
    try:
        return float(await asyncio.wait_for(batcher.predict([number, 0.0]), PATIENCE))
    except NotImplementedError:
        raise
    except TimeoutError:
        return "never answered"
    except Exception as error:
        return type(error).__name__


def answers_to(attempt, model, numbers, **settings):
    """What all callers get who ask at the same time."""

    async def main():
        batcher = attempt(model, **settings)
        return await asyncio.gather(*(ask(batcher, number) for number in numbers))

    return asyncio.run(main())


def numbers_from(case, count):
    return (case.rng.permutation(1000)[:count] + 1.0).tolist()


@exercise.check(Stage.TYPE, hint="settings")
def it_takes_its_settings(attempt, case):
    """MicroBatcher(predict, max_batch=…, max_delay=…).predict(row) can be awaited"""

    async def main():
        pending = attempt(Model(), max_batch=1, max_delay=0.001).predict([1.0, 0.0])
        case.true(
            hasattr(pending, "__await__"),
            given="batcher.predict(row)",
            expected="something to await",
            got=pending,
        )
        return await asyncio.wait_for(pending, PATIENCE)

    case.equal(
        given="one row [1, 0], max_batch=1, a model that doubles",
        expected=2.0,
        got=asyncio.run(main()),
    )


@exercise.check(Stage.SHAPE, hint="lone-row")
def a_lone_row_is_answered(attempt, case):
    """a row that stays alone is answered too"""
    [number] = numbers_from(case, 1)
    got = answers_to(attempt, Model(), [number], max_batch=32, max_delay=0.01)
    case.equal(given="one row, max_batch=32, max_delay=0.01", expected=[2 * number], got=got)


@exercise.check(Stage.SHAPE, hint="stacked")
def the_model_gets_a_matrix(attempt, case):
    """rows that come together reach the model as one matrix, rows × features"""
    model = Model()
    count = int(case.rng.integers(5, 20))
    answers_to(attempt, model, numbers_from(case, count), max_batch=32, max_delay=0.02)
    case.equal(
        given=f"{count} rows of 2 features at once: the shapes that the model saw",
        expected=[(count, 2)],
        got=model.calls,
    )


@exercise.check(Stage.RANGE, hint="max-batch")
def batches_are_not_too_large(attempt, case):
    """no batch holds more than max_batch rows, and nobody is left behind"""
    model = Model()
    count = int(case.rng.integers(21, 29))
    numbers = numbers_from(case, count)
    got = answers_to(attempt, model, numbers, max_batch=10, max_delay=0.01)
    largest = max(shape[0] for shape in model.calls)
    given = f"{count} rows at once, max_batch=10"
    case.true(
        largest <= 10, given=f"{given}: the largest batch", expected="at most 10", got=largest
    )
    case.equal(
        given=f"{given}: callers that were never answered",
        expected=0,
        got=got.count("never answered"),
    )


@exercise.check(Stage.VALUE, hint="own-result")
def every_caller_gets_its_own(attempt, case):
    """every caller gets the result for its own row"""
    numbers = numbers_from(case, 25)
    got = answers_to(attempt, Model(), numbers, max_batch=10, max_delay=0.01)
    case.equal(
        given="25 different rows at once, a model that doubles",
        expected=[2 * number for number in numbers],
        got=got,
    )


@exercise.check(Stage.VALUE, hint="full-batch")
def a_full_batch_does_not_wait(attempt, case):
    """a full batch leaves at once, whatever max_delay says"""
    got = answers_to(attempt, Model(), numbers_from(case, 8), max_batch=8, max_delay=60.0)
    case.equal(
        given="8 rows at once, max_batch=8, max_delay=60: callers answered at once",
        expected=8,
        got=8 - got.count("never answered"),
    )


@exercise.check(Stage.VALUE, hint="first-row")
def later_rows_do_not_restart_the_delay(attempt, case):
    """the delay runs from the first row of a batch"""

    async def main():
        # A delay of many gaps: a busy machine may stretch one of them.
        batcher = attempt(Model(), max_batch=10_000, max_delay=0.2)
        callers = []
        begun = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() - begun < 0.45:
            callers.append(asyncio.ensure_future(ask(batcher, 1.0)))
            await asyncio.sleep(0.01)
            if callers[0].done():
                break
        is_answered = callers[0].done()
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        return is_answered

    case.true(
        asyncio.run(main()),
        given="a row every 10 ms for 0.45 s, max_delay=0.2",
        expected="the first row is answered before the last one comes",
        got="it still waits",
    )


@exercise.check(Stage.STRESS, hint="off-the-loop")
def the_model_is_not_on_the_loop(attempt, case):
    """the model runs in another thread than the event loop"""
    model = Model()
    answers_to(attempt, model, [1.0], max_batch=4, max_delay=0.005)
    case.true(
        threading.get_ident() not in model.threads,
        given="the thread in which the model ran",
        expected="not the event loop's",
        got="the event loop's: it answered nobody else meanwhile",
    )


@exercise.check(Stage.STRESS, hint="errors")
def an_error_reaches_its_batch_and_no_other(attempt, case):
    """an exception of the model reaches all callers of its batch, and the next batch is well"""
    numbers = numbers_from(case, 8)
    poison = numbers[int(case.rng.integers(4))]

    async def main():
        batcher = attempt(Model(fails=[poison]), max_batch=4, max_delay=0.01)
        first = await asyncio.gather(*(ask(batcher, number) for number in numbers[:4]))
        return first, await asyncio.gather(*(ask(batcher, number) for number in numbers[4:]))

    first, second = asyncio.run(main())
    case.equal(
        given="four callers whose batch fails with ArithmeticError",
        expected=["ArithmeticError"] * 4,
        got=first,
    )
    case.equal(
        given="the four callers after them", expected=[2 * n for n in numbers[4:]], got=second
    )


@exercise.check(Stage.STRESS, hint="cancelled")
def a_caller_that_gives_up_harms_nobody(attempt, case):
    """a caller that gives up while it waits harms nobody"""
    numbers = numbers_from(case, 6)
    leaver = int(case.rng.integers(0, 3))

    async def main():
        batcher = attempt(Model(), max_batch=32, max_delay=0.03)
        callers = [asyncio.ensure_future(ask(batcher, number)) for number in numbers]
        await asyncio.sleep(0)
        callers[leaver].cancel()
        stayed = [caller for place, caller in enumerate(callers) if place != leaver]
        return await asyncio.gather(*stayed)

    expected = [2 * number for place, number in enumerate(numbers) if place != leaver]
    case.equal(
        given="six callers in one batch, one is cancelled: what the others get",
        expected=expected,
        got=asyncio.run(main()),
    )


@exercise.solution
class MicroBatcher:
    def __init__(self, predict, *, max_batch=32, max_delay=0.005):
        self.model = predict
        self.max_batch, self.max_delay = max_batch, max_delay
        self._waiting = []  # (row, future) in order of arrival
        self._timer = None

    async def predict(self, row):
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((row, future))
        if len(self._waiting) >= self.max_batch:
            self._flush()
        elif self._timer is None:  # the first row of this batch
            self._timer = asyncio.ensure_future(self._flush_later())
        return await future

    async def _flush_later(self):
        await asyncio.sleep(self.max_delay)
        self._timer = None
        self._flush()

    def _flush(self):
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._waiting = self._waiting, []
        self._running = asyncio.ensure_future(self._answer(batch))

    async def _answer(self, batch):
        futures = [future for _, future in batch]
        try:
            results = await asyncio.to_thread(self.model, np.stack([row for row, _ in batch]))
        except Exception as error:
            outcomes = [("set_exception", error)] * len(batch)
        else:
            outcomes = [("set_result", result) for result in results]
        for future, (set_outcome, outcome) in zip(futures, outcomes, strict=True):
            if not future.done():  # its caller may have given up
                getattr(future, set_outcome)(outcome)


@exercise.another_way
class BatcherWithAWorker:
    """A different shape: a queue, and one task for as long as somebody waits."""

    def __init__(self, predict, *, max_batch=32, max_delay=0.005):
        self.model = predict
        self.max_batch, self.max_delay = max_batch, max_delay
        self._queue, self._worker = asyncio.Queue(), None

    async def predict(self, row):
        future = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((row, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self):
        while not self._queue.empty():
            batch = [self._queue.get_nowait()]
            try:
                async with asyncio.timeout(self.max_delay):
                    while len(batch) < self.max_batch:
                        batch.append(await self._queue.get())
            except TimeoutError:
                pass
            batch = [(row, future) for row, future in batch if not future.done()]
            if batch:
                await self._answer(*zip(*batch, strict=True))

    async def _answer(self, rows, futures):
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(None, self.model, np.array(rows))
        except Exception as error:
            results = [error] * len(futures)
        for future, result in zip(futures, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)


@exercise.wrong("lone-row")
class Received(MicroBatcher):
    """The received answer: `if len(queue) >= 32`, and no deadline."""

    async def predict(self, row):
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((row, future))
        if len(self._waiting) >= self.max_batch:
            self._flush()
        return await future


@exercise.wrong("settings")
class NotAwaitable:
    """predict() is an ordinary function that hands the result back."""

    def __init__(self, predict, *, max_batch=32, max_delay=0.005):
        self.model = predict

    def predict(self, row):
        return self.model(np.array([row]))[0]


@exercise.wrong("stacked")
class OneByOne:
    """Every row is a call of its own, in a thread: nothing is batched."""

    def __init__(self, predict, *, max_batch=32, max_delay=0.005):
        self.model = predict

    async def predict(self, row):
        return (await asyncio.to_thread(self.model, np.array([row])))[0]


@exercise.wrong("max-batch")
class TakesAll(MicroBatcher):
    """Waits for the delay and then takes everything, however much it is."""

    async def predict(self, row):
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((row, future))
        if self._timer is None:
            self._timer = asyncio.ensure_future(self._flush_later())
        return await future


@exercise.wrong("max-batch")
class ForgetsTheRest(MicroBatcher):
    """Takes max_batch rows when the delay is over, and forgets who is left."""

    async def predict(self, row):
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((row, future))
        if self._timer is None:
            self._timer = asyncio.ensure_future(self._flush_later())
        return await future

    async def _flush_later(self):
        await asyncio.sleep(self.max_delay)
        batch, self._waiting = self._waiting[: self.max_batch], self._waiting[self.max_batch :]
        await self._answer(batch)


@exercise.wrong("own-result")
class OneResultForAll(MicroBatcher):
    """All callers of a batch share one future, and with it row 0's result."""

    async def _answer(self, batch):
        results = await asyncio.to_thread(self.model, np.stack([row for row, _ in batch]))
        for _, future in batch:
            if not future.done():
                future.set_result(results[0])


@exercise.wrong("own-result")
class LastComeFirstServed(MicroBatcher):
    """Takes the rows from one end and the futures from the other."""

    async def _answer(self, batch):
        rows = deque(row for row, _ in batch)
        rows.reverse()
        results = await asyncio.to_thread(self.model, np.stack(rows))
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)


@exercise.wrong("full-batch")
class AlwaysWaits(MicroBatcher):
    """Sleeps the whole delay although the batch is full."""

    async def predict(self, row):
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((row, future))
        if self._timer is None:
            self._timer = asyncio.ensure_future(self._flush_later())
        return await future

    async def _flush_later(self):
        await asyncio.sleep(self.max_delay)
        self._timer = None
        while self._waiting:
            batch, self._waiting = self._waiting[: self.max_batch], self._waiting[self.max_batch :]
            await self._answer(batch)


@exercise.wrong("first-row")
class RestartsTheDelay(MicroBatcher):
    """Every row starts the delay again, so a steady trickle never leaves."""

    async def predict(self, row):
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return await super().predict(row)


@exercise.wrong("off-the-loop")
class OnTheLoop(MicroBatcher):
    """Calls the model inside the coroutine: `async` in name only."""

    async def _answer(self, batch):
        try:
            results = self.model(np.stack([row for row, _ in batch]))
        except Exception as error:
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)


@exercise.wrong("errors")
class Swallows(MicroBatcher):
    """`except: pass`: the futures of a failed batch are never resolved."""

    async def _answer(self, batch):
        try:
            results = await asyncio.to_thread(self.model, np.stack([row for row, _ in batch]))
        except Exception:
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)


@exercise.wrong("cancelled")
class SetsWhatIsDone(MicroBatcher):
    """Sets the future of a caller that gave up: the error keeps the rest from being answered."""

    async def _answer(self, batch):
        try:
            results = await asyncio.to_thread(self.model, np.stack([row for row, _ in batch]))
        except Exception as error:
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)
