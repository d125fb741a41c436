"""Errors meant for the person at the keyboard."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from famcli.display import visible

GO_ON = "make room and repeat the command: it continues the run"
"""The hint where a file of a run cannot be written."""

_LONGEST = 80


class UserError(Exception):
    """Something the user gave cannot be used.

    The command line prints ``message`` (what was wrong, and where) and ``hint`` (the next thing to type) without a
    traceback and leaves with exit code 2.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def printable(text: str, longest: int = _LONGEST) -> str:
    """``text`` for a message: cut where it is long, with control characters and halves of characters escaped."""
    shown = visible(text[: longest + 1])
    return shown if len(shown) <= longest else f"{shown[:longest]}..."


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """A ``UserError`` for a name that does not exist, suggesting the closest names that do."""
    names = sorted(known)
    close = closest(name, names)
    return UserError(f"unknown {kind} '{printable(name)}'", close or f"known: {', '.join(names)}")


def closest(name: str, known: Iterable[str]) -> str | None:
    """The question whether one of the closest names was meant; ``None`` where none is close."""
    close = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else None
