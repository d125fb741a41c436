"""``--help`` in which no word is broken: Click would part options and paths at their hyphens."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import click

from famcli.errors import UserError

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
    """The command, whose help, and that of the commands in it, is written by ``Formatter``.

    An option that takes one value and is given twice is refused; Click keeps the last in silence.
    """
    command.context_class = Context
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            whole_words(inner)
    else:
        setattr(command, "make_parser", partial(_parser_of_one_value, command))  # noqa: B010  # mypy wants a method
    return command


def _parser_of_one_value(command: click.Command, ctx: click.Context) -> Any:
    parser = type(command).make_parser(command, ctx)
    parse = parser.parse_args

    def parse_args(args: list[str]) -> Any:
        opts, rest, order = parse(args)
        for option in order:
            if isinstance(option, click.Option) and not (option.multiple or option.is_flag) and order.count(option) > 1:
                raise UserError(f"{max(option.opts, key=len)} is given {order.count(option)} times", "give it once")
        return opts, rest, order

    setattr(parser, "parse_args", parse_args)  # noqa: B010
    return parser
