"""The jobs demo, started as an instructor starts it; its workers are killed by a button."""

import re
import time

import pytest

pytestmark = pytest.mark.browser

DEMO = "jobs_and_crashes"
START_LIMIT = 90.0  # seconds; a machine that is busy may take most of them


@pytest.fixture
def page(chromium, address):
    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(START_LIMIT * 1000)
    page.goto(address)
    page.wait_for_selector("table.jobs")
    return page


def settles(page, condition):
    """Wait until what the page says, and the cells of the first job, fulfil `condition`."""
    deadline = time.monotonic() + START_LIMIT
    while True:
        said = page.locator("p.doing").inner_text()
        job = page.locator("table.jobs tr").nth(1).inner_text()
        if found := condition(said, job):
            return found
        assert time.monotonic() < deadline, (said, job)
        page.wait_for_timeout(100)


def rows_done(job):
    return int(re.search(r"([\d,]+) of", job)[1].replace(",", ""))


def test_a_killed_workers_job_is_taken_over_and_no_row_is_lost_or_twice(page):
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    victim = settles(
        page,
        lambda said, job: re.search(r"worker (\w): \S works", said) if rows_done(job) else None,
    )[1]
    other = {"A": "B", "B": "A"}[victim]
    page.get_by_role("button", name=f"kill -9 worker {victim}").click()
    settles(page, lambda said, job: f"worker {victim}: ✕ killed" in said)
    job = settles(page, lambda said, job: job if f"worker {other}" in job else None)
    at_takeover = rows_done(job)
    settles(page, lambda said, job: rows_done(job) > at_takeover)
    cells = [page.locator(f"td.{name}").first.inner_text() for name in ("begun", "lost", "twice")]
    assert cells == ["2", "0", "0"]
    page.get_by_role("button", name=f"start worker {victim}").click()
    settles(page, lambda said, job: f"worker {victim}: ■ waits" in said)
    assert not problems


def test_it_fits_a_projector_and_speaks_to_screen_readers(page):
    # The picture is drawn anew four times a second, so both are asked for in one go.
    words, bottom = page.evaluate(
        "() => { const picture = document.querySelector('svg[role=img]');"
        " return [picture.getAttribute('aria-label'), picture.getBoundingClientRect().bottom] }"
    )
    assert len(words.split()) > 10
    assert bottom <= 800, "buttons, table and picture fit one screen"
    size = page.locator("table.jobs td").first.evaluate("e => getComputedStyle(e).fontSize")
    assert float(size.rstrip("px")) >= 16
