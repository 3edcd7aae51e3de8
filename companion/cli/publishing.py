"""The commands that print: book, slides, picture, map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pathlib import Path

Open = Annotated[bool, typer.Option("--open", help="Open it in a browser.")]


def book(open_it: Open = False) -> None:
    """Make all notebooks into one linked HTML book with search, in build/book."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from companion.study.book import build_book
    from companion.study.workbook import Workbook

    workbook = Workbook.find()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("Printing the book", total=None)
        made = build_book(
            workbook,
            workbook.root / "build" / "book",
            on_page=lambda done, total: progress.update(task, completed=done, total=total),
        )
    print(f"The book has {made.pages} pages: {made.index}")
    if open_it:
        _open(made.index)


def slides(
    name: Annotated[str, typer.Argument(help="A notebook, as in q23_circuit_breaker or q23.")],
    open_it: Open = False,
) -> None:
    """Make one notebook into slides, in build/slides."""
    from companion.study.book import build_slides
    from companion.study.workbook import Workbook

    workbook = Workbook.find()
    made = build_slides(workbook, name, workbook.root / "build" / "slides")
    print(f"The slides are in {made} (arrow keys turn, f fills the screen)")
    if open_it:
        _open(made)


def picture(
    name: Annotated[str, typer.Argument(help="The notebook to show.")] = "q23_circuit_breaker",
) -> None:
    """Take the README's picture of a real notebook, with headless Chromium."""
    from companion.study.picture import take_picture
    from companion.study.workbook import Workbook

    workbook = Workbook.find()
    print(f"The picture is in {take_picture(workbook, name)}")


def overview(
    check: Annotated[bool, typer.Option("--check", help="Only say whether it is current.")] = False,
) -> None:
    """Write the generated parts again: the map of the questions and the scoreboard."""
    from companion.study.overview import stale, write
    from companion.study.workbook import Workbook

    workbook = Workbook.find()
    if not check:
        changed = write(workbook)
        print(f"Written again: {', '.join(changed)}" if changed else "Everything is current.")
        return
    outdated = stale(workbook)
    if outdated:
        print(f"Not current: {', '.join(outdated)}; 'companion map' writes them again.")
        raise typer.Exit(1)


def _open(page: Path) -> None:
    from companion.cli.servers import find_browser

    browser = find_browser()
    if browser:
        browser.open(page.as_uri())
    else:
        print("No browser was found on this machine: open that file in one.")
