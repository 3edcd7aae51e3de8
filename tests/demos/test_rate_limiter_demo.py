"""The rate limiter demo, started as an instructor starts it and driven in a real browser."""

import time

import pytest

pytestmark = pytest.mark.browser

DEMO = "rate_limiter"
START_LIMIT = 90.0  # seconds; a machine that is busy may take most of them
SETTLE_LIMIT = 30.0


@pytest.fixture
def page(chromium, address):
    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(START_LIMIT * 1000)
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.goto(address)
    page.wait_for_selector("table.limits")
    return page


def figures(page):
    """The table beside the sliders: name → (let through, most in one window, longest wait)."""
    read = {}
    for row in page.locator("table.limits tr").all()[1:]:
        name, let, most, wait, _ = (cell.inner_text() for cell in row.locator("th, td").all())
        read[name] = int(let.replace(",", "")), int(most), float(wait.removesuffix(" s"))
    return read


def settles(page, condition):
    """Wait until the table fulfils `condition`; each movement plays the calls anew."""
    deadline = time.monotonic() + SETTLE_LIMIT
    while not condition(now := figures(page)):
        assert time.monotonic() < deadline, now
        page.wait_for_timeout(50)
    return now


def test_who_was_silent_and_pushes_gets_twice_the_burst_around_an_edge_but_not_from_a_log(page):
    shown = figures(page)
    assert shown["fixed window"][1] == 40
    assert shown["sliding log"][1] == 20
    assert shown["token bucket"] == shown["GCRA"]
    assert shown["fixed window"][2] > 5 * shown["GCRA"][2], "the window makes clients wait"


def test_sliders_and_buttons_play_the_real_limiters_anew(page, move):
    before = figures(page)
    move(page, "rate", "ArrowRight", 3)
    faster = settles(page, lambda now: now["GCRA"][0] > 1.3 * before["GCRA"][0])

    page.get_by_role("button", name="at random", exact=True).click()
    settles(page, lambda now: now["GCRA"][0] != faster["GCRA"][0])

    page.get_by_role("button", name="in bursts", exact=True).click()
    move(page, "burst", "Home", 1)
    # Bursts hardly pass a burst of one. Where the kernel is busy, the slider overtakes the button.
    smallest = settles(
        page,
        lambda now: now["sliding log"][1] == 1 and now["GCRA"][0] < faster["GCRA"][0] / 3,
    )

    move(page, "burst", "End", 1)
    settles(page, lambda now: now["GCRA"][0] > 2 * smallest["GCRA"][0])
    assert not page.problems


def test_it_fits_a_projector_and_speaks_to_screen_readers(page):
    picture = page.locator("img[alt]").first
    assert len(picture.get_attribute("alt").split()) > 10
    box = picture.bounding_box()
    assert box["y"] + box["height"] <= 800, "sliders, table and figure fit one screen"
    assert box["x"] + box["width"] <= 1280
    size = page.locator("table.limits td").first.evaluate("e => getComputedStyle(e).fontSize")
    assert float(size.rstrip("px")) >= 16
