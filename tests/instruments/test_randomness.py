"""Named random streams."""

from __future__ import annotations

import numpy as np
import pytest

from companion.instruments import stream, streams


def test_the_same_seed_and_name_give_the_same_draws() -> None:
    assert stream(7, "arrivals").random(5).tolist() == stream(7, "arrivals").random(5).tolist()


def test_other_seeds_and_other_names_give_other_draws() -> None:
    draws = {
        tuple(stream(seed, name).random(3)) for seed in range(20) for name in ("arrivals", "faults")
    }
    assert len(draws) == 40


def test_adding_or_reordering_streams_changes_none_of_the_others() -> None:
    few = streams(3, "arrivals", "amounts")
    many = streams(3, "faults", "amounts", "arrivals")
    for name, generator in few.items():
        assert generator.random(4).tolist() == many[name].random(4).tolist()


def test_streams_of_neighbouring_seeds_are_uncorrelated() -> None:
    one, other = stream(0, "arrivals").random(10_000), stream(1, "arrivals").random(10_000)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.05


def test_the_draws_are_those_of_every_other_machine() -> None:
    assert stream(42, "arrivals").integers(0, 1000, 4).tolist() == PINNED


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="repeated: amounts"):
        streams(1, "amounts", "arrivals", "amounts")


def test_a_stream_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="name"):
        stream(1, "")


def test_a_seed_is_a_whole_number_from_zero() -> None:
    with pytest.raises(ValueError):
        stream(-1, "arrivals")
    with pytest.raises(TypeError):
        stream(1.5, "arrivals")  # type: ignore[arg-type]


PINNED = [311, 39, 857, 824]
