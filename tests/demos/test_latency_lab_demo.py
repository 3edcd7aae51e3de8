"""The latency lab, started as an instructor starts it and driven in a real browser."""

import re
import time

import pytest

pytestmark = pytest.mark.browser

DEMO = "latency_lab"
START_LIMIT = 60.0  # seconds; a machine that is busy may take most of them


@pytest.fixture
def page(chromium, address):
    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(START_LIMIT * 1000)
    page.goto(address)
    page.wait_for_selector("table.queue")
    return page


def figures(page):
    """The table under the sliders: name → [busy, wait, response, 99 %, in the system, batch]."""
    # In one go: between two questions the table may be another.
    rows = page.locator("table.queue tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.innerText))"
    )
    return {name: cells for name, *cells in rows[1:]}


def number(text):
    return float(re.sub(r"[^\d.]", "", text))


def settles(page, condition):
    """Wait until the table fulfils `condition`; each movement of a slider is a simulation."""
    deadline = time.monotonic() + START_LIMIT
    while not condition(now := figures(page)):
        assert time.monotonic() < deadline, now
        page.wait_for_timeout(100)
    return now


def test_measured_and_predicted_agree_and_follow_the_sliders(page, move):
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    calm = figures(page)
    measured, predicted = (number(calm[row][2]) for row in ("measured", "predicted"))
    assert measured == pytest.approx(predicted, rel=0.1)

    move(page, "arrival rate", "ArrowRight", 7)
    settles(page, lambda now: now["predicted"][0] == "overload")
    assert "can be served" in page.locator("img[alt]").first.get_attribute("alt")

    move(page, "largest batch", "ArrowRight", 3)
    batched = settles(
        page, lambda now: number(now["measured"][5]) > 1 and "%" in now["predicted"][0]
    )
    assert number(batched["measured"][2]) == pytest.approx(number(batched["predicted"][2]), rel=0.1)

    move(page, "wait for company", "ArrowRight", 4)
    settles(page, lambda now: number(now["measured"][5]) > number(batched["measured"][5]))
    assert not problems


def test_it_fits_a_projector_and_speaks_to_screen_readers(page):
    picture = page.locator("img[alt]").first
    assert len(picture.get_attribute("alt").split()) > 10
    box = picture.bounding_box()
    assert box["y"] + box["height"] <= 800, "sliders, table and figure fit one screen"
    size = page.locator("table.queue td").first.evaluate("e => getComputedStyle(e).fontSize")
    assert float(size.rstrip("px")) >= 16
