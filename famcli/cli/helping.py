"""``--help`` in which no word is broken: Click would part options and paths at their hyphens."""

from __future__ import annotations

from collections.abc import Iterable

import click

_HELD = "\u2011"
"""Stands for a hyphen while text is folded, which is done after hyphens of the usual kind alone."""
_NARROW = 78


class Formatter(click.HelpFormatter):
    """Click's, with whole words, and on a narrow terminal more room for what an option means."""

    def write(self, string: str) -> None:
        super().write(string.replace(_HELD, "-"))

    def write_text(self, text: str) -> None:
        super().write_text(text.replace("-", _HELD))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        held = [(first, second.replace("-", _HELD)) for first, second in rows]
        super().write_dl(held, col_max if self.width >= _NARROW else min(col_max, self.width // 4), col_spacing)


class Context(click.Context):
    """Click's, with our ``Formatter``."""

    formatter_class = Formatter


def whole_words(command: click.Command) -> click.Command:
    """The command, whose help, and that of the commands in it, is written by ``Formatter``."""
    command.context_class = Context
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        whole_words(inner)
    return command
