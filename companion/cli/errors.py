"""What ends a command with one sentence."""

from __future__ import annotations


class CommandError(Exception):
    """The command cannot do what was asked; the message is the sentence that a person reads."""
