"""Formulas of queues: against known values, against each other, and against a simulation."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from companion.instruments import poisson_arrivals, stream
from companion.instruments.batch_queue import predict_batched
from companion.instruments.queue_simulation import LinearService, QueueRun, simulate_queue
from companion.instruments.queueing import (
    OverloadedError,
    UnreachableObjectiveError,
    erlang_c,
    predict,
    replicas_needed,
    workers_needed,
)


def settled(run: QueueRun) -> np.ndarray:
    """Responses after the first tenth: the queue begins empty, the formulas do not."""
    return run.responses[len(run.responses) // 10 :]


# ----- Erlang, Little, Khinchine ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("workers", "load", "chance"),
    # One worker: the load itself. Two: a²/(2 + a). Ten at 8: from Erlang's own kind of table.
    [(1, 0.7, 0.7), (2, 1.0, 1 / 3), (2, 1.8, 1.8**2 / 3.8), (10, 8.0, 0.4092)],
)
def test_the_chance_that_all_are_busy_is_erlangs(workers: int, load: float, chance: float) -> None:
    assert erlang_c(workers, load) == pytest.approx(chance, abs=5e-5)


def test_the_chance_to_wait_is_a_number_for_a_thousand_workers() -> None:
    assert 0.0 < erlang_c(1000, 950.0) < 0.2


def test_nothing_to_do_means_nobody_waits() -> None:
    assert erlang_c(3, 0.0) == 0.0


def test_one_worker_at_80_percent_makes_exponential_requests_wait_four_service_times() -> None:
    queue = predict(80.0, 0.01)
    assert queue.utilisation == pytest.approx(0.8)
    assert queue.wait == pytest.approx(0.04)
    assert queue.response == pytest.approx(0.05)


def test_constant_service_halves_the_wait_of_one_worker() -> None:
    assert predict(80.0, 0.01, variation=0).wait == pytest.approx(predict(80.0, 0.01).wait / 2)


def test_the_wait_of_one_worker_is_khinchines_for_any_variation() -> None:
    busy, service = 0.6, 0.5
    for variation in (0.3, 1.0, 4.0):
        queue = predict(busy / service, service, variation=variation)
        expected = busy / (1 - busy) * (1 + variation) / 2 * service
        assert queue.wait == pytest.approx(expected)


def test_from_80_to_90_percent_the_wait_more_than_doubles() -> None:
    assert predict(90.0, 0.01).wait > 2 * predict(80.0, 0.01).wait


def test_one_queue_for_two_workers_beats_a_queue_each() -> None:
    assert predict(160.0, 0.01, 2).wait < predict(80.0, 0.01, 1).wait


def test_littles_law_ties_numbers_to_times() -> None:
    queue = predict(80.0, 0.01)
    assert queue.in_queue == pytest.approx(80 * 0.04)
    assert queue.in_system == pytest.approx(80 * 0.05)


def test_constant_service_never_waits_longer_than_exponential() -> None:
    for rate in (1.0, 20.0, 300.0, 390.0):
        assert predict(rate, 0.01, 4, variation=0).wait <= predict(rate, 0.01, 4).wait


# ----- percentiles ------------------------------------------------------------------------------


def test_whoever_need_not_wait_waits_zero() -> None:
    queue = predict(20.0, 0.01)
    assert queue.wait_percentile(79) == 0.0
    assert queue.wait_percentile(81) > 0.0


def test_the_percentiles_of_one_worker_are_the_exponential_ones() -> None:
    queue = predict(80.0, 0.01)
    # P(wait > t) = 0.8 e^(-20 t)
    assert queue.wait_percentile(99) == pytest.approx(math.log(0.8 / 0.01) / 20)


@pytest.mark.parametrize("q", [-1, 100, math.nan])
def test_a_percentile_out_of_range_is_refused(q: float) -> None:
    with pytest.raises(ValueError, match="percentage"):
        predict(1.0, 0.1).wait_percentile(q)


# ----- against a simulation ---------------------------------------------------------------------


@pytest.mark.parametrize(("workers", "busy"), [(1, 0.7), (3, 0.8)])
def test_exponential_service_waits_as_erlang_says(workers: int, busy: float) -> None:
    rate = busy * workers / 0.01
    draws = iter(stream(3, "service").exponential(0.01, 60_000))
    arrivals = poisson_arrivals(rate, 50_000 / rate, stream(2, "arrivals"))
    run = simulate_queue(arrivals, lambda rows: next(draws), workers=workers)
    queue = predict(rate, 0.01, workers)
    assert settled(run).mean() == pytest.approx(queue.response, rel=0.06)
    assert np.percentile(run.waits, 99) == pytest.approx(queue.wait_percentile(99), rel=0.15)


@pytest.mark.parametrize(
    ("workers", "max_batch", "max_delay", "rate", "within"),
    [
        (1, 1, 0.0, 80, 0.03),
        (4, 1, 0.0, 300, 0.03),
        (1, 32, 0.0, 100, 0.02),
        (1, 32, 0.0, 900, 0.02),
        (1, 32, 0.005, 500, 0.03),
        (1, 32, 0.05, 100, 0.12),
        (2, 32, 0.0, 900, 0.1),
        (4, 8, 0.0, 1400, 0.2),
        (4, 8, 0.01, 900, 0.05),
    ],
)
def test_batches_answer_as_predicted(
    workers: int, max_batch: int, max_delay: float, rate: float, within: float
) -> None:
    service = LinearService(0.0095, 0.0005)
    arrivals = poisson_arrivals(rate, 30_000 / rate, stream(4, "arrivals"))
    run = simulate_queue(
        arrivals, service, workers=workers, max_batch=max_batch, max_delay=max_delay
    )
    queue = predict_batched(rate, service, workers, max_batch=max_batch, max_delay=max_delay)
    assert settled(run).mean() == pytest.approx(queue.response, rel=within)
    assert run.mean_batch == pytest.approx(queue.batch, rel=max(within, 0.05))
    assert run.utilisation == pytest.approx(queue.utilisation, abs=0.05)


def test_batches_of_one_are_the_plain_queue() -> None:
    plain = predict(80.0, 0.01, variation=0)
    assert predict_batched(80.0, LinearService(0.01)).wait == pytest.approx(plain.wait, rel=1e-4)


def test_batches_carry_what_single_requests_cannot() -> None:
    service = LinearService(0.009, 0.001)
    with pytest.raises(OverloadedError):
        predict_batched(500, service)
    assert predict_batched(500, service, max_batch=32).response < 0.1


def test_a_delay_without_batches_delays_nobody() -> None:
    service = LinearService(0.01)
    assert predict_batched(50, service, max_delay=0.5) == predict_batched(50, service)


def test_a_delay_makes_the_lone_request_wait() -> None:
    lone = predict_batched(0.01, LinearService(0.01), max_batch=8, max_delay=0.2)
    assert lone.wait == pytest.approx(0.2, rel=0.01)


# ----- capacity ---------------------------------------------------------------------------------


def test_a_thousand_requests_of_9_ms_at_60_percent_are_15_workers_and_a_spare() -> None:
    assert replicas_needed(1000, 0.009) == 16


def test_replicas_share_what_their_workers_can_do() -> None:
    assert replicas_needed(1000, 0.009, workers_per_replica=4, failures=2) == 4 + 2


def test_what_fits_exactly_needs_no_further_replica() -> None:
    assert replicas_needed(60, 0.01, utilisation=0.6, failures=0) == 1
    assert replicas_needed(180, 0.01, utilisation=0.6, failures=0) == 3


def test_the_fewest_workers_that_answer_in_time() -> None:
    needed = workers_needed(1000, 0.009, within=0.02)
    assert predict(1000, 0.009, needed).wait_percentile(99) <= 0.011
    assert predict(1000, 0.009, needed - 1).wait_percentile(99) > 0.011


def test_many_workers_can_be_busier_than_few() -> None:
    few = 100 * 0.009 / workers_needed(100, 0.009, within=0.02)
    many = 5000 * 0.009 / workers_needed(5000, 0.009, within=0.02)
    assert many > few


# ----- bad input --------------------------------------------------------------------------------


def test_an_overload_says_how_much_comes_and_how_much_can_be_served() -> None:
    with pytest.raises(OverloadedError, match="200 a second arrive and 100 can be") as caught:
        predict(200.0, 0.01)
    assert caught.value.rate == 200.0
    assert caught.value.capacity == pytest.approx(100.0)
    assert caught.value.utilisation == pytest.approx(2.0)


def test_exactly_the_capacity_is_an_overload() -> None:
    with pytest.raises(OverloadedError):
        erlang_c(2, 2.0)
    with pytest.raises(OverloadedError):
        predict_batched(100, LinearService(0.01))


def test_a_service_longer_than_its_deadline_is_said_to_be_hopeless() -> None:
    with pytest.raises(UnreachableObjectiveError, match="however many workers") as caught:
        workers_needed(10, 0.06, within=0.05)
    assert (caught.value.service, caught.value.objective) == (0.06, 0.05)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"rate": 0.0}, "rate"),
        ({"service": -1.0}, "service"),
        ({"workers": 0}, "workers"),
        ({"rate": math.nan}, "rate"),
        ({"rate": math.inf}, "rate"),
        ({"variation": -0.1}, "variation"),
    ],
)
def test_a_queue_of_nonsense_is_refused(changed: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        predict(**{"rate": 1.0, "service": 0.1, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(("workers", "load"), [(0, 0.5), (1, -0.1), (1, math.nan)])
def test_erlang_refuses_what_is_no_load(workers: int, load: float) -> None:
    with pytest.raises(ValueError, match="load"):
        erlang_c(workers, load)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"peak_rate": 0}, "peak_rate"),
        ({"service": -0.1}, "service"),
        ({"workers_per_replica": 0}, "workers_per_replica"),
        ({"utilisation": 1.0}, "utilisation"),
        ({"utilisation": 0.0}, "utilisation"),
        ({"failures": -1}, "failures"),
    ],
)
def test_a_capacity_of_nonsense_is_refused(changed: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replicas_needed(**{"peak_rate": 10, "service": 0.1, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"rate": 0}, "rate"),
        ({"service": LinearService(0.0)}, "service"),
        ({"max_batch": 0}, "max_batch"),
        ({"max_delay": -1.0}, "max_delay"),
    ],
)
def test_batches_of_nonsense_are_refused(changed: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        predict_batched(**{"rate": 1.0, "service": LinearService(0.1), **changed})  # type: ignore[arg-type]


def test_a_prediction_cannot_be_changed_afterwards() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        predict(1.0, 0.1).wait = 0.0  # type: ignore[misc]
