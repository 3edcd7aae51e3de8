"""Precision and recall of as many alerts as can be looked at, by row, by day and by card."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.models.alerts import (
    BudgetError,
    TimesError,
    at_budget,
    at_daily_budget,
    card_precision_at_k,
)
from companion.models.labels import LabelError
from companion.models.metrics import ProbabilityError, RowsMismatchError


def hours(*values):
    """Times, so many hours after a midnight in UTC."""
    return pd.Timestamp("2026-03-02", tz="UTC") + pd.to_timedelta(values, unit="h")


def test_the_top_of_the_ranking_is_alerted():
    found = at_budget([1, 0, 1, 0, 1], [0.9, 0.8, 0.7, 0.6, 0.1], alerts=3)
    assert found.alerts == 3
    assert found.threshold == 0.7
    assert found.precision == pytest.approx(2 / 3)
    assert found.recall == pytest.approx(2 / 3)
    assert (found.caught, found.frauds) == (2, 3)


def test_a_share_is_rounded_and_gives_one_alert_at_least():
    y, p = [1, 0] * 50, np.linspace(0, 1, 100)
    assert at_budget(y, p, share=0.104).alerts == 10
    assert at_budget(y, p, share=0.0001).alerts == 1
    assert at_budget(y, p, share=1.0).recall == 1.0


@given(st.data())
def test_ties_at_the_edge_count_as_over_all_orders_of_the_rows(data):
    rows = data.draw(st.integers(2, 6))
    y = np.array(data.draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows)))
    y[:2] = [0, 1]
    p = np.array(data.draw(st.lists(st.sampled_from([0.2, 0.5]), min_size=rows, max_size=rows)))
    budget = data.draw(st.integers(1, rows))
    caught = []
    for order in itertools.permutations(range(rows)):
        order = np.array(order)
        ranked = order[np.argsort(-p[order], kind="stable")]
        caught.append(y[ranked[:budget]].sum())
    assert at_budget(y, p, alerts=budget).caught == pytest.approx(np.mean(caught))


def test_a_model_that_knows_nothing_has_the_precision_of_the_base_rate():
    found = at_budget([1, 0, 0, 0, 0, 0, 0, 1], np.full(8, 0.5), alerts=3)
    assert found.precision == pytest.approx(0.25)
    assert found.recall == pytest.approx(3 / 8)


def test_each_day_has_its_own_budget():
    times = hours(1, 2, 3, 25, 26, 27)
    y = [0, 1, 0, 1, 1, 0]
    p = [0.9, 0.8, 0.1, 0.3, 0.2, 0.1]
    found = at_daily_budget(times, y, p, alerts_per_day=2)
    assert found.per_day["caught"].tolist() == [1, 2]
    assert found.per_day["precision"].tolist() == [0.5, 1.0]
    assert found.precision == 0.75
    assert found.recall == 1.0


def test_a_quiet_day_has_as_many_alerts_as_rows_and_no_recall_without_fraud():
    found = at_daily_budget(
        hours(1, 25, 26, 27), [0, 1, 1, 0], [0.1, 0.9, 0.8, 0.7], alerts_per_day=2
    )
    assert found.per_day["alerts"].tolist() == [1, 2]
    assert np.isnan(found.per_day["recall"].iloc[0])
    assert found.precision == pytest.approx(2 / 3)


def test_days_are_those_of_the_time_zone():
    times = hours(22.5, 23.5)  # one day in UTC, two in Berlin
    y, p = [0, 1], [0.9, 0.8]
    assert len(at_daily_budget(times, y, p, alerts_per_day=1).per_day) == 1
    berlin = times.tz_convert("Europe/Berlin")
    assert len(at_daily_budget(berlin, y, p, alerts_per_day=1).per_day) == 2


# Cards


def test_a_card_is_as_suspicious_as_its_worst_transaction():
    found = card_precision_at_k(
        hours(1, 2, 3, 4), [7, 7, 8, 9], [0, 1, 0, 0], [0.9, 0.1, 0.5, 0.4], k=1
    )
    assert found.mean == 1.0  # card 7 stands first because of its legitimate transaction
    assert found.per_day[["cards", "compromised", "found"]].to_numpy().tolist() == [[3, 1, 1]]


def test_three_alerts_about_one_card_take_one_place():
    times, cards = hours(1, 2, 3, 4), [7, 7, 7, 8]
    y, p = [1, 1, 1, 1], [0.9, 0.9, 0.9, 0.2]
    found = card_precision_at_k([*times, *hours(5)], [*cards, 9], [*y, 0], [*p, 0.1], k=2)
    assert found.per_day["found"].tolist() == [2]


def test_a_card_that_was_found_is_gone_the_next_day():
    times, cards = hours(1, 2, 25, 26), [7, 8, 7, 8]
    y, p = [1, 0, 1, 0], [0.9, 0.1, 0.9, 0.1]
    assert card_precision_at_k(times, cards, y, p, k=1).per_day["precision"].tolist() == [1.0, 0.0]
    kept = card_precision_at_k(times, cards, y, p, k=1, block_found=False)
    assert kept.per_day["precision"].tolist() == [1.0, 1.0]
    assert kept.mean == 1.0


def test_a_day_on_which_every_card_is_blocked_counts_for_nothing():
    found = card_precision_at_k(hours(1, 2, 25), [7, 8, 7], [1, 0, 1], [0.9, 0.1, 0.9], k=1)
    assert np.isnan(found.per_day["precision"].iloc[1])
    assert found.mean == 1.0


def test_cards_match_a_plain_count_day_by_day():
    rng = np.random.default_rng(0)
    rows = 500
    times = hours(*np.sort(rng.uniform(0, 24 * 6, rows)))
    cards, y = rng.integers(0, 60, rows), (rng.random(rows) < 0.1).astype(int)
    p = rng.random(rows)
    blocked, expected = set(), []
    for day in sorted(set(times.date)):
        here = [
            row for row in range(rows) if times[row].date() == day and cards[row] not in blocked
        ]
        worst = {card: max(p[row] for row in here if cards[row] == card) for card in cards[here]}
        top = sorted(worst, key=lambda card: -worst[card])[:5]
        bad = {card for card in top if any(y[row] for row in here if cards[row] == card)}
        expected.append(len(bad) / len(top))
        blocked |= bad
    assert card_precision_at_k(times, cards, y, p, k=5).per_day["precision"].tolist() == expected


def test_equally_suspicious_cards_do_not_depend_on_the_order_of_rows():
    times, cards, y, p = hours(1, 2), np.array([9, 3]), np.array([1, 0]), np.array([0.5, 0.5])
    forward = card_precision_at_k(times, cards, y, p, k=1)
    back = card_precision_at_k(times[::-1], cards[::-1], y[::-1], p[::-1], k=1)
    assert forward.mean == back.mean == 0.0


# What is refused


@pytest.mark.parametrize(
    "budget",
    [
        {},
        {"alerts": 1, "share": 0.5},
        {"alerts": 0},
        {"alerts": 1.5},
        {"alerts": True},
        {"alerts": 3},
        {"share": 0.0},
        {"share": 1.1},
        {"share": float("nan")},
    ],
)
def test_a_budget_that_is_none_is_refused(budget):
    with pytest.raises(BudgetError):
        at_budget([0, 1], [0.1, 0.9], **budget)


def test_a_daily_budget_is_a_whole_number():
    with pytest.raises(BudgetError, match="alerts_per_day"):
        at_daily_budget(hours(1, 2), [0, 1], [0.1, 0.9], alerts_per_day=0)
    with pytest.raises(BudgetError, match="k must"):
        card_precision_at_k(hours(1, 2), [1, 2], [0, 1], [0.1, 0.9], k=0.5)


@pytest.mark.parametrize(
    "times",
    [
        hours(1, 2).tz_localize(None),
        [1, 2],
        pd.DatetimeIndex([hours(1)[0], pd.NaT]),
    ],
    ids=["naive", "numbers", "missing"],
)
def test_times_that_give_no_day_are_refused(times):
    with pytest.raises(TimesError):
        at_daily_budget(times, [0, 1], [0.1, 0.9], alerts_per_day=1)


def test_other_rows_are_refused():
    with pytest.raises(RowsMismatchError, match="times"):
        at_daily_budget(hours(1), [0, 1], [0.1, 0.9], alerts_per_day=1)
    with pytest.raises(RowsMismatchError, match="cards"):
        card_precision_at_k(hours(1, 2), [1], [0, 1], [0.1, 0.9], k=1)


def test_labels_and_probabilities_are_checked():
    with pytest.raises(LabelError):
        at_budget([0, 0], [0.1, 0.9], alerts=1)
    with pytest.raises(ProbabilityError):
        at_budget([0, 1], [0.1, 4.2], alerts=1)
