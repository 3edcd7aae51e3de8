"""The first step of a coroutine is taken at once, and the rest goes on where it stopped."""

import asyncio

import pytest

from companion.serving.eager import begin


async def at_once():
    return "here"


def test_what_need_not_wait_is_there_without_an_event_loop():
    assert begin(at_once()) == (True, "here")


def test_what_raises_at_once_raises_at_once():
    async def fails():
        raise LookupError("no")

    with pytest.raises(LookupError):
        begin(fails())


def test_what_waits_goes_on_when_it_is_awaited():
    async def main():
        gate = asyncio.get_running_loop().create_future()
        steps = []

        async def waits():
            steps.append("begun")
            steps.append(await gate)
            await asyncio.sleep(0)
            return "done"

        is_there, rest = begin(waits())
        assert (is_there, steps) == (False, ["begun"])
        gate.set_result("woken")
        return await rest, steps

    assert asyncio.run(main()) == ("done", ["begun", "woken"])


def test_a_time_limit_reaches_the_coroutine():
    async def main():
        seen = []

        async def waits():
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        _, rest = begin(waits())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await rest
        return seen

    assert asyncio.run(main()) == ["cancelled"]


def test_an_error_that_is_handled_inside_stays_inside():
    async def main():
        gate = asyncio.get_running_loop().create_future()

        async def handles():
            try:
                await gate
            except LookupError:
                return "handled"

        _, rest = begin(handles())
        gate.set_exception(LookupError())
        return await rest

    assert asyncio.run(main()) == "handled"


def test_what_is_given_up_is_closed():
    closed = []

    async def waits():
        try:
            await Never()
        finally:
            closed.append(True)

    class Never:
        def __await__(self):
            yield

    _, rest = begin(waits())
    step = rest.__await__()
    next(step)
    step.close()

    assert closed == [True]


def test_what_is_no_coroutine_is_left_to_be_awaited():
    async def main():
        answer = asyncio.get_running_loop().create_future()
        answer.set_result(7)
        is_there, rest = begin(answer)
        return is_there, await rest

    assert asyncio.run(main()) == (False, 7)
