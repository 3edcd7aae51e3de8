"""The classroom's interactive parts, built of ipywidgets; used only where a person sits.

Each function takes what it needs to say and a callback, and knows nothing of questions or logs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as widgets

from companion.study.display import Shown

TIMER_STOPS_AFTER = 30 * 60.0  # seconds; nobody answers for longer, and the task should end


def answer_box(prompt: str, on_done: Callable[[str, float], Shown]) -> widgets.Widget:
    """A text box and a running clock. `on_done(text, seconds)` gives what is shown afterwards."""
    began = time.monotonic()
    text = widgets.Textarea(
        placeholder="Your answer, as you would say it. Nobody else reads it.",
        layout=widgets.Layout(width="100%", height="9em"),
    )
    clock = widgets.Label("0:00")
    done = widgets.Button(description="Done", button_style="primary", icon="check")
    result = widgets.HTML()

    async def tick() -> None:
        while not done.disabled and time.monotonic() - began < TIMER_STOPS_AFTER:
            minutes, seconds = divmod(int(time.monotonic() - began), 60)
            clock.value = f"{minutes}:{seconds:02d}"
            await asyncio.sleep(1)

    def finish(_: widgets.Button) -> None:
        done.disabled = text.disabled = True
        result.value = on_done(text.value, time.monotonic() - began).html

    done.on_click(finish)
    timer = asyncio.ensure_future(tick())
    box = widgets.VBox(
        [widgets.HTML(f"<strong>{prompt}</strong>"), text, widgets.HBox([done, clock]), result]
    )
    box.timer = timer  # a task that nothing refers to may be collected while it runs
    return box


def rating_buttons(
    prompt: str, ratings: Sequence[str], suggested: str, on_rate: Callable[[str], Shown]
) -> widgets.Widget:
    """One button per rating, the suggested one marked. `on_rate(rating)` gives what is shown."""
    result = widgets.HTML()
    buttons = [
        widgets.Button(
            description=rating.capitalize(),
            button_style="primary" if rating == suggested else "",
        )
        for rating in ratings
    ]

    def rate(button: widgets.Button) -> None:
        for other in buttons:
            other.disabled = True
        result.value = on_rate(button.description.lower()).html

    for button in buttons:
        button.on_click(rate)
    heading = widgets.HTML(f"<strong>{prompt}</strong>")
    return widgets.VBox([heading, widgets.HBox(buttons), result])


def filter_controls(
    choices: Mapping[str, Mapping[str, Any]], render: Callable[..., Shown]
) -> widgets.Widget:
    """A dropdown per filter over a table; `render(**chosen)` makes the table.

    `choices` maps a filter to its labels and values; each gets an "all" that leaves it out.
    """
    table = widgets.HTML()
    dropdowns = {
        name: widgets.Dropdown(
            options=[("all", None), *values.items()],
            description=name,
            layout=widgets.Layout(width="14em"),
            style={"description_width": "4em"},
        )
        for name, values in choices.items()
    }

    def update(_: object = None) -> None:
        chosen = {name: box.value for name, box in dropdowns.items() if box.value is not None}
        table.value = render(**chosen).html

    for dropdown in dropdowns.values():
        dropdown.observe(update, names="value")
    update()
    return widgets.VBox([widgets.HBox(list(dropdowns.values())), table])
