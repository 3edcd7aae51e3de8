"""A demo, started as an instructor starts it: `companion demo NAME`, each on a port of its own."""

import queue
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from companion.instruments import free_port

START_LIMIT = 90.0  # seconds; a machine that is busy may take most of them


@pytest.fixture(scope="module")
def address(request):
    """What `companion demo` prints for the instructor to open; the module's `DEMO` names it."""
    # Two demos that look for a free port at one moment would find the same one.
    port = str(free_port())
    companion = str(Path(sys.executable).parent / "companion")
    demo = subprocess.Popen(
        [companion, "demo", request.module.DEMO, "--no-browser", "--port", port],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = queue.Queue()
    threading.Thread(target=lambda: [lines.put(line) for line in demo.stdout], daemon=True).start()
    try:
        printed = ""
        while not (found := re.search(r"http://\S+", printed)):
            printed += lines.get(timeout=START_LIMIT)
        yield found[0]
    finally:
        demo.terminate()
        demo.wait(30)


@pytest.fixture
def move():
    """Move a slider with the keyboard, as somebody with a presenter's remote would."""

    def by_keyboard(page, label, key, times):
        slider = page.locator(".widget-hslider", has_text=label).locator(".noUi-handle")
        slider.focus()
        for _ in range(times):
            slider.press(key)

    return by_keyboard
