"""The `companion` command: everything a person does with the workbook, by one name.

Commands import what they run when they run, so `companion --help` answers at once. An error that
the workbook names itself is a sentence for the person in front of the terminal and ends with exit
status 1; any other exception is a defect, and keeps its traceback.
"""

from __future__ import annotations

import sys

import typer

from companion.cli import proving, publishing, scoring, serve, side, studying, tuning, worker
from companion.cli.errors import CommandError

app = typer.Typer(
    name="companion",
    help="Fifty interview questions, each answered by a notebook that proves itself.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

STUDY, PROVE, PUBLISH, USE = "Study", "Prove", "Publish", "Use"
PASSING_ON = {"allow_extra_args": True, "ignore_unknown_options": True}

app.command("lab", rich_help_panel=STUDY)(studying.lab)
app.command("next", rich_help_panel=STUDY)(studying.next_question)
app.command("demo", rich_help_panel=STUDY)(studying.demo)
app.command("doctor", rich_help_panel=STUDY)(studying.doctor)
app.command("kernel", rich_help_panel=STUDY)(studying.kernel)
app.command("test", rich_help_panel=PROVE, context_settings=PASSING_ON)(proving.run_tests)
app.command("validate", rich_help_panel=PROVE)(proving.validate)
app.command("check", rich_help_panel=PROVE)(proving.check)
app.command("bench", rich_help_panel=PROVE)(proving.bench)
app.command("side", rich_help_panel=PROVE)(side.side)
app.command("book", rich_help_panel=PUBLISH)(publishing.book)
app.command("slides", rich_help_panel=PUBLISH)(publishing.slides)
app.command("picture", rich_help_panel=PUBLISH)(publishing.picture)
app.command("map", rich_help_panel=PUBLISH)(publishing.overview)
app.command("serve", rich_help_panel=USE)(serve.serve)
app.command("worker", rich_help_panel=USE)(worker.worker)
app.command("score", rich_help_panel=USE)(scoring.score)
app.command("tune", rich_help_panel=USE)(tuning.tune)


def main() -> None:
    """Run the command line; the entry point of the `companion` script."""
    try:
        app()
    except Exception as error:
        if not isinstance(error, CommandError) and not _is_named_by_the_classroom(error):
            raise
        sys.stderr.write(f"{error}\n")
        sys.exit(1)


def _is_named_by_the_classroom(error: Exception) -> bool:
    return type(error).__module__.startswith("companion.study.")
