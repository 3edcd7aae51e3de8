"""The demo of thresholds and costs, started as an instructor starts it and driven in a browser."""

import re
import time

import pytest

pytestmark = pytest.mark.browser

DEMO = "threshold_and_cost"
START_LIMIT = 90.0  # seconds; a machine that is busy may take most of them
SETTLE_LIMIT = 30.0


@pytest.fixture
def page(chromium, address):
    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(START_LIMIT * 1000)
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.goto(address)
    page.wait_for_selector("table.price")
    return page


def table(page):
    """Rows under the sliders: name → [threshold, alerts a day, of them fraud, caught, cost]."""
    rows = page.locator("table.price tr").all()[1:]
    read = {}
    for row in rows:
        name, *cells = (cell.inner_text() for cell in row.locator("th, td").all())
        numbers = [re.sub(r"[^0-9.]", "", cell) for cell in cells]
        read[name[2:].strip()] = [float(number) if number else None for number in numbers]
    return read


def sentence(page):
    return page.locator("p.model").inner_text()


def settles(page, read, condition):
    """Wait until what `read` sees fulfils `condition`."""
    deadline = time.monotonic() + SETTLE_LIMIT
    while not condition(now := read(page)):
        assert time.monotonic() < deadline, now
        page.wait_for_timeout(50)
    return now


def choose(page, strategy):
    page.get_by_role("button", name=strategy, exact=True).click()


def test_treated_models_promise_more_fraud_than_there_is_and_alert_more(page):
    alerts = table(page)["your threshold"][1]
    assert "model says 1." in sentence(page) or "model says 0.9" in sentence(page)
    choose(page, "class weights")
    settles(page, table, lambda now: now["your threshold"][1] > 3 * alerts)
    assert float(re.search(r"model says ([\d.]+)", sentence(page))[1]) > 3
    choose(page, "class weights, prior-corrected")
    settles(page, table, lambda now: now["your threshold"][1] < 2 * alerts)
    assert float(re.search(r"model says ([\d.]+)", sentence(page))[1]) < 2
    assert not page.problems


def test_prices_and_base_rate_move_thresholds_and_money(page, move):
    before = table(page)
    move(page, "missed fraud", "ArrowRight", 6)
    dearer = settles(
        page, table, lambda now: now["from the costs"][0] < 0.7 * before["from the costs"][0]
    )
    assert dearer["from the costs"][1] > before["from the costs"][1], "more alerts"
    move(page, "false alarm", "ArrowRight", 6)
    settles(page, table, lambda now: abs(now["from the costs"][0] - 5 / 105) < 0.005)

    move(page, "your threshold", "ArrowLeft", 15)
    lower = settles(page, table, lambda now: now["your threshold"][0] < 0.3)
    assert lower["your threshold"][1] > before["your threshold"][1], "more alerts"
    assert lower["from the costs"][4] < lower["your threshold"][4], "the costs know better"

    move(page, "base rate", "ArrowLeft", 10)
    settles(page, sentence, lambda now: "base rate of 1.00%" in now)
    rarer = table(page)["from the costs"]
    assert rarer[2] < before["from the costs"][2], "fewer of the alerts are fraud"
    assert rarer[3] == before["from the costs"][3], "the same share of frauds is caught"
    assert not page.problems


def test_it_fits_a_projector_and_speaks_to_screen_readers(page):
    picture = page.locator("img[alt]").first
    assert len(picture.get_attribute("alt").split()) > 10
    box = picture.bounding_box()
    assert box["y"] + box["height"] <= 800, "sliders, table and figure fit one screen"
    size = page.locator("table.price td").first.evaluate("e => getComputedStyle(e).fontSize")
    assert float(size.rstrip("px")) >= 16
