"""Errors meant for the person at the keyboard."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

GO_ON = "make room and repeat the command: it continues the run"
"""The hint where a file of a run cannot be written."""


class UserError(Exception):
    """Something the user gave cannot be used.

    The command line prints ``message`` (what was wrong, and where) and ``hint`` (the next thing to type) without a
    traceback and leaves with exit code 2.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """A ``UserError`` for a name that does not exist, suggesting the closest names that do."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names)}"
    return UserError(f"unknown {kind} '{name}'", hint)
