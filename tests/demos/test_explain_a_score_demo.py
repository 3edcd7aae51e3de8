"""The demo of explanations, started as an instructor starts it and driven in a real browser."""

import re
import time

import pytest

pytestmark = pytest.mark.browser

DEMO = "explain_a_score"
START_LIMIT = 90.0  # seconds; a machine that is busy may take most of them


@pytest.fixture
def page(chromium, address):
    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(START_LIMIT * 1000)
    page.goto(address)
    page.wait_for_selector(".told .score")
    page.wait_for_selector("img[alt]")
    return page


def score(page):
    """The score in per cent and the decision, as the audience reads them."""
    text = page.locator(".told .score").inner_text()
    return float(re.match(r"[\d.]+", text)[0]), text.split()[-1]


def listed(page, name):
    return page.locator(f".told .{name} li").all_inner_texts()


def settles(page, condition):
    """Wait until what is shown fulfils `condition`; each movement is a new explanation."""
    deadline = time.monotonic() + START_LIMIT
    while not condition(now := score(page)):
        assert time.monotonic() < deadline, now
        page.wait_for_timeout(100)
    return now


def choose(page, label, option):
    page.locator(".widget-dropdown", has_text=label).locator("select").select_option(label=option)


def test_the_first_payment_is_declined_with_reasons(page):
    shown, decision = score(page)
    assert shown >= 50
    assert decision == "declined"
    assert any("from home" in reason for reason in listed(page, "why"))
    assert listed(page, "changes")


def test_the_story_changes_with_the_payment(page, move):
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    before, _ = score(page)
    choose(page, "device", "known")
    settles(page, lambda now: now[0] < before)
    assert not any("first time from this device" in reason for reason in listed(page, "why"))
    move(page, "distance (km)", "PageDown", 20)
    choose(page, "channel", "card present")
    settles(page, lambda now: now[1] == "approved")
    assert not problems


def test_the_threshold_decides(page, move):
    shown, _ = score(page)
    move(page, "decline from", "End", 1)
    settles(page, lambda now: now == (shown, "approved"))


def test_it_fits_a_projector_and_speaks_to_screen_readers(page):
    picture = page.locator("img[alt]").first
    assert picture.get_attribute("alt").startswith("Waterfall in log-odds of fraud")
    box = picture.bounding_box()
    assert box["y"] + box["height"] <= 800, "sliders, words and figure fit one screen"
    assert box["x"] + box["width"] <= 1280
    size = page.locator(".told li").first.evaluate("e => getComputedStyle(e).fontSize")
    assert float(size.rstrip("px")) >= 16
