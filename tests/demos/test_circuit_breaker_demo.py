"""The circuit breaker demo, started as an instructor starts it and driven in a real browser."""

import re
import time

import pytest

pytestmark = pytest.mark.browser

DEMO = "circuit_breaker"
START_LIMIT = 60.0  # seconds; a machine that is busy may take most of them


@pytest.fixture
def page(chromium, address):
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(START_LIMIT * 1000)
    page.goto(address)
    page.wait_for_selector("table.outage")
    return page


def figures(page):
    """The table under the sliders: name → [into the outage, refused, open needlessly, served]."""
    rows = page.locator("table.outage tr").all()[1:]
    cells = [re.split(r"\s+", row.inner_text().replace(" s", "").strip()) for row in rows]
    return {name: values for name, *values in cells}


def settles(page, condition):
    """Wait until the table fulfils `condition`; each movement of a slider is a simulation."""
    deadline = time.monotonic() + START_LIMIT
    while not condition(now := figures(page)):
        assert time.monotonic() < deadline, now
        page.wait_for_timeout(100)
    return now


def number(text):
    return int(text.replace(",", "").rstrip("%"))


def test_sliders_move_the_real_breakers(page, move):
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    before = figures(page)
    assert number(before["ours"][0]) < number(before["received"][0])
    assert number(before["received"][2]) > number(before["ours"][2])

    move(page, "sporadic errors", "ArrowLeft", 2)
    needless = number(before["received"][2])
    calm = settles(page, lambda now: number(now["received"][2]) < needless / 2)

    move(page, "probes in half-open", "ArrowRight", 5)
    single_probes = number(calm["ours"][0])
    settles(page, lambda now: number(now["ours"][0]) > single_probes)
    assert not problems


def test_it_fits_a_projector_and_speaks_to_screen_readers(page):
    picture = page.locator("img[alt]").first
    assert len(picture.get_attribute("alt").split()) > 10
    box = picture.bounding_box()
    assert box["y"] + box["height"] <= 900, "sliders, table and figure fit one screen"
    size = page.locator("table.outage td").first.evaluate("e => getComputedStyle(e).fontSize")
    assert float(size.rstrip("px")) >= 16
