"""All that is asked in a turn of the loop is answered in one go, and each gets its own."""

import asyncio
import itertools
from contextvars import ContextVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.serving.batching import BatchResultError, Cohort


class Doubles:
    """Answers twice the number, and keeps what it was asked together."""

    def __init__(self):
        self.turns = []

    def __call__(self, numbers):
        self.turns.append(numbers)
        return [2 * number for number in numbers]


async def ask(cohort, number):
    return await cohort.ask(number)


def test_what_is_asked_in_one_turn_is_answered_together():
    doubles = Doubles()

    async def main():
        cohort = Cohort(doubles)
        return await asyncio.gather(*(ask(cohort, number) for number in range(4)))

    assert asyncio.run(main()) == [0, 2, 4, 6]
    assert doubles.turns == [[0, 1, 2, 3]]


def test_who_is_alone_waits_for_nobody():
    doubles = Doubles()

    async def main():
        cohort = Cohort(doubles)
        steps = 0
        asked = asyncio.ensure_future(ask(cohort, 1))
        while not asked.done():
            await asyncio.sleep(0)
            steps += 1
        return steps

    assert asyncio.run(main()) <= 3  # to ask, to answer, to hear
    assert doubles.turns == [[1]]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_whoever_comes_when_gets_the_own_answer(turns_before):
    doubles = Doubles()

    async def late(cohort, number, turns):
        for _ in range(turns):
            await asyncio.sleep(0)
        return await cohort.ask(number)

    async def main():
        cohort = Cohort(doubles)
        return await asyncio.gather(
            *(late(cohort, number, turns) for number, turns in enumerate(turns_before))
        )

    assert asyncio.run(main()) == [2 * number for number in range(len(turns_before))]
    assert len(doubles.turns) <= len(set(turns_before))
    assert sorted(itertools.chain(*doubles.turns)) == list(range(len(turns_before)))


def test_nobody_asks_for_who_has_left():
    doubles = Doubles()

    async def main(*leaving):
        cohort = Cohort(doubles)
        asked = [asyncio.ensure_future(ask(cohort, number)) for number in range(3)]
        await asyncio.sleep(0)
        for number in leaving:
            asked[number].cancel()
        return await asyncio.gather(*asked, return_exceptions=True)

    zero, one, two = asyncio.run(main(1))
    assert (zero, two) == (0, 4)
    assert isinstance(one, asyncio.CancelledError)
    asyncio.run(main(0, 1, 2))
    assert doubles.turns == [[0, 2]]


def failing(numbers):
    raise OSError("the model is gone")


@pytest.mark.parametrize(
    ("answer", "error"), [(failing, OSError), (lambda numbers: numbers[1:], BatchResultError)]
)
def test_all_of_the_turn_hear_of_an_error_and_the_next_turn_is_another(answer, error):
    doubles, wrong = Doubles(), [answer]

    async def main():
        cohort = Cohort(lambda numbers: (wrong.pop() if wrong else doubles)(numbers))
        first = await asyncio.gather(*(ask(cohort, n) for n in range(2)), return_exceptions=True)
        return first, await cohort.ask(5)

    first, second = asyncio.run(main())
    assert [type(heard) for heard in first] == [error, error]
    assert second == 10


def test_it_answers_outside_of_any_requests_context():
    request = ContextVar("request", default="none")

    async def main():
        request.set("somebody's")
        return await Cohort(lambda asked: [request.get()]).ask(0)

    assert asyncio.run(main()) == "none"
