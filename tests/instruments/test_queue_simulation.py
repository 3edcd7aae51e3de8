"""A queue in virtual time: small cases by hand, then what must hold for any."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.instruments.queue_simulation import LinearService, simulate_queue

SECOND = LinearService(1.0)


def test_a_row_that_finds_nobody_is_served_at_once() -> None:
    run = simulate_queue([2.0], SECOND)
    assert (run.starts.tolist(), run.ends.tolist()) == ([2.0], [3.0])


def test_rows_wait_their_turn() -> None:
    run = simulate_queue([0.0, 0.0, 0.5, 5.0], SECOND)
    assert run.starts.tolist() == [0.0, 1.0, 2.0, 5.0]
    assert run.waits.tolist() == [0.0, 1.0, 1.5, 0.0]
    assert run.responses.tolist() == [1.0, 2.0, 2.5, 1.0]


def test_two_workers_serve_two_at_a_time_from_one_queue() -> None:
    run = simulate_queue([0.0, 0.0, 0.0], SECOND, workers=2)
    assert run.ends.tolist() == [1.0, 1.0, 2.0]


def test_a_free_worker_takes_all_that_wait_up_to_its_batch() -> None:
    run = simulate_queue([0.0, 0.1, 0.2, 0.3, 0.4], LinearService(0.9, 0.1), max_batch=3)
    assert run.batches.tolist() == [1, 3, 1]
    assert run.ends.tolist() == pytest.approx([1.0, 2.2, 2.2, 2.2, 3.2])


def test_a_free_worker_waits_for_company_until_the_oldest_has_waited_the_delay() -> None:
    run = simulate_queue([0.0, 0.4, 2.0], SECOND, max_batch=8, max_delay=0.5)
    assert run.batches.tolist() == [2, 1]
    assert run.starts.tolist() == [0.5, 0.5, 2.5]


def test_a_full_batch_goes_at_once() -> None:
    run = simulate_queue([0.0, 0.1, 0.2], SECOND, max_batch=3, max_delay=9.0)
    assert run.starts.tolist() == pytest.approx([0.2] * 3)


def test_whoever_has_waited_for_a_worker_need_not_wait_for_company() -> None:
    run = simulate_queue([0.0, 0.2], SECOND, max_batch=8, max_delay=0.1)
    assert run.starts.tolist() == [0.1, 1.1]


def test_the_numbers_in_the_system_are_those_come_and_not_gone() -> None:
    run = simulate_queue([0.0, 0.0, 0.5], SECOND)
    assert run.in_system([-1.0, 0.0, 0.75, 1.5, 2.5, 3.0]).tolist() == [0, 2, 3, 2, 1, 0]


def test_utilisation_is_the_busy_share_of_all_workers() -> None:
    run = simulate_queue([0.0, 3.0], SECOND, workers=2)
    assert run.seconds == 4.0
    assert run.utilisation == 0.25


def test_percentiles_are_responses_that_somebody_had() -> None:
    run = simulate_queue([0.0, 0.0, 0.0], SECOND)
    assert (run.percentile(50), run.percentile(99)) == (2.0, 3.0)


arrivals = st.lists(st.floats(0, 50), min_size=1, max_size=60).map(sorted)


@settings(max_examples=150, deadline=None)
@given(
    arrivals=arrivals,
    workers=st.integers(1, 4),
    max_batch=st.integers(1, 8),
    max_delay=st.sampled_from([0.0, 0.5, 3.0]),
)
def test_whatever_comes_each_is_served_once_in_order_and_by_somebody_free(
    arrivals: list[float], workers: int, max_batch: int, max_delay: float
) -> None:
    run = simulate_queue(
        arrivals,
        LinearService(0.7, 0.1),
        workers=workers,
        max_batch=max_batch,
        max_delay=max_delay,
    )
    assert (run.waits >= 0).all()
    assert (np.diff(run.starts) >= 0).all()
    assert run.batches.sum() == len(arrivals)
    assert 1 <= run.batches.min() <= run.batches.max() <= max_batch
    begins = run.starts[np.cumsum(run.batches) - 1]
    under_way = [
        int(((run.starts <= begin) & (run.ends > begin)).sum()) for begin in np.unique(begins)
    ]
    assert max(under_way) <= workers * max_batch
    assert 0 < run.utilisation <= 1 + 1e-9
    # Nobody waits longer than the delay while a worker is free: all busy, or a batch that fills.
    lone = simulate_queue([arrivals[0]], SECOND, max_batch=max_batch, max_delay=max_delay)
    assert lone.waits[0] <= max_delay + 1e-9


@pytest.mark.parametrize(
    ("times", "settings", "says"),
    [
        ([], {}, "arrivals"),
        ([1.0, 0.0], {}, "ascending"),
        ([float("nan")], {}, "arrivals"),
        ([[0.0]], {}, "arrivals"),
        ([0.0], {"workers": 0}, "workers"),
        ([0.0], {"max_batch": 0}, "max_batch"),
        ([0.0], {"max_delay": -1.0}, "max_delay"),
    ],
)
def test_nonsense_is_refused(times: list[float], settings: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        simulate_queue(times, SECOND, **settings)  # type: ignore[arg-type]


def test_a_service_that_goes_back_in_time_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 1 cannot take -1"):
        simulate_queue([0.0], LinearService(-1.0))
