"""Side-by-side measuring."""

from __future__ import annotations

import dataclasses

import pytest

from companion.instruments import Row, side_by_side


def test_contenders_take_turns() -> None:
    turns: list[str] = []
    side_by_side({"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, rounds=3)
    assert turns == ["a", "b"] * 3


def test_each_turn_makes_the_asked_number_of_calls() -> None:
    turns: list[str] = []
    side_by_side({"a": lambda: turns.append("a"), "b": lambda: None}, rounds=2, number=4)
    assert len(turns) == 8


def test_the_result_is_the_median_round_in_seconds_per_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rounds = iter([10.0, 2.0, 400.0])

    class CannedTimer:
        def __init__(self, call: object) -> None: ...

        def timeit(self, number: int) -> float:
            return next(rounds)

    monkeypatch.setattr("timeit.Timer", CannedTimer)
    assert side_by_side({"a": lambda: None}, rounds=3, number=5) == {"a": 2.0}


def test_a_contender_that_raises_stops_the_measurement() -> None:
    with pytest.raises(ZeroDivisionError):
        side_by_side({"a": lambda: 1 / 0})


@pytest.mark.parametrize(("rounds", "number"), [(0, 1), (1, 0), (-1, 1)])
def test_no_rounds_or_no_calls_are_refused(rounds: int, number: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        side_by_side({"a": lambda: None}, rounds=rounds, number=number)


def test_no_contenders_are_refused() -> None:
    with pytest.raises(ValueError, match="contender"):
        side_by_side({})


def test_a_row_cannot_be_changed_afterwards() -> None:
    row = Row("call", "ours", 0.5, "µs")
    assert (row.ratio, row.target) == (None, "")
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.value = 0.1  # type: ignore[misc]
