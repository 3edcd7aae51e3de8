"""How a server's connections are divided among workers."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.resilience.pool import (
    ConnectionBudgetError,
    PoolExhaustedError,
    connection_budget,
    engine_for,
)

SMALL = st.integers(1, 200)


def test_a_worker_keeps_ten_and_may_add_five_where_there_is_room():
    budget = connection_budget(4, 100)
    assert (budget.pool_size, budget.max_overflow) == (10, 5)
    assert (budget.per_worker, budget.total) == (15, 60)


def test_overflow_is_cut_before_what_is_kept():
    assert connection_budget(7, 100).per_worker == 12
    assert connection_budget(7, 100).pool_size == 10


def test_many_workers_keep_less_than_they_would_like():
    budget = connection_budget(40, 100)
    assert (budget.pool_size, budget.max_overflow, budget.total) == (2, 0, 80)


@given(workers=SMALL, limit=SMALL, reserve=st.integers(0, 50), size=SMALL, overflow=SMALL)
def test_no_budget_ever_exceeds_the_limit_less_the_reserve(workers, limit, reserve, size, overflow):
    try:
        budget = connection_budget(workers, limit, reserve, pool_size=size, max_overflow=overflow)
    except ConnectionBudgetError:
        assert limit - reserve < workers
    else:
        assert budget.total <= limit - reserve
        assert 1 <= budget.pool_size <= size
        assert 0 <= budget.max_overflow <= overflow


def test_an_impossible_budget_is_refused_with_the_sum_in_the_message():
    with pytest.raises(ConnectionBudgetError) as refused:
        connection_budget(100, 100, reserve=10)
    assert "100 connections - 10 in reserve = 90" in str(refused.value)
    assert "100 workers" in str(refused.value)
    assert (refused.value.workers, refused.value.reserve) == (100, 10)


def test_an_impossible_budget_is_refused_before_anything_is_connected():
    with pytest.raises(ConnectionBudgetError):
        engine_for("postgresql://nobody@nowhere/none", workers=8, max_connections=12)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"workers": 0}, "workers"),
        ({"max_connections": 0}, "max_connections"),
        ({"reserve": -1}, "reserve"),
        ({"pool_size": 0}, "pool_size"),
        ({"max_overflow": -1}, "max_overflow"),
        ({"pool_timeout": 0}, "pool_timeout"),
        ({"pool_timeout": 30}, "pool_timeout"),
        ({"pool_timeout": float("nan")}, "pool_timeout"),
        ({"statement_timeout": 0}, "statement_timeout"),
        ({"statement_timeout": float("inf")}, "statement_timeout"),
        ({"connect_timeout": 1}, "connect_timeout"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(settings, named):
    with pytest.raises(ValueError, match=named):
        engine_for("postgresql://a@b/c", **{"workers": 2, "max_connections": 100, **settings})


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(url):
    with pytest.raises(ValueError, match="give a file"):
        engine_for(url, workers=1, max_connections=20)


@pytest.mark.parametrize("url", ["mysql://a@b/c", "postgresql+asyncpg://a@b/c"])
def test_another_database_or_driver_is_refused(url):
    with pytest.raises(ValueError, match=r"postgresql:// or sqlite:///FILE"):
        engine_for(url, workers=1, max_connections=20)


def test_a_url_without_a_driver_means_psycopg_3():
    engine = engine_for("postgresql://a@b/c", workers=1, max_connections=20)
    assert engine.dialect.driver == "psycopg"


def test_errors_travel_between_processes():
    sent = pickle.loads(pickle.dumps(PoolExhaustedError(1.0, 3)))
    assert (sent.waited, sent.most, str(sent)) == (1.0, 3, str(PoolExhaustedError(1.0, 3)))
    assert str(pickle.loads(pickle.dumps(ConnectionBudgetError(9, 10, 2)))).startswith("10 conn")
