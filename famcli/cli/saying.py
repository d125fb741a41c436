"""All that the verbs print: lines in which texts of others do nothing, and documents that are safe already."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from famcli.cli.folding import aligned, folded, paired, standard_width, width_of
from famcli.display import json_text, visible

if TYPE_CHECKING:
    from rich.text import Text


def say(line: str = "") -> None:
    """A line on standard output, folded between words where the terminal is narrower."""
    click.echo(folded(visible(line), standard_width()))


def tell(line: str) -> None:
    """A line on standard error, folded as by ``say``."""
    click.echo(folded(visible(line), width_of(sys.stderr)), err=True)


def tell_whole(line: str) -> None:
    """A line on standard error that is never folded: it may be a command, which must stay one line to be copied."""
    click.echo(visible(line), err=True)


def say_heading(line: str) -> None:
    """As ``say``; bold on a terminal."""
    click.secho(folded(visible(line), standard_width()), bold=True)


def say_lines(lines: Iterable[str]) -> None:
    """Lines that are safe and folded already."""
    for line in lines:
        click.echo(line)


def say_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Names with their values beside them."""
    shown = [(visible(name), visible(value)) for name, value in pairs]
    say_lines(paired(shown, standard_width()))


def say_table(header: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> None:
    """Aligned columns; on a terminal that is too narrow a block a row, its first ``words`` cells as the heading."""
    shown = [[visible(cell) for cell in row] for row in rows]
    say_lines(aligned(header, shown, words, standard_width()))


def say_json(value: Any) -> None:
    """One JSON value on standard output."""
    click.echo(json_text(value))


def say_document(text: str) -> None:
    """Text of several lines on standard output; whoever made it has seen to it that it is safe."""
    click.echo(text, nl=False)


def plain(text: str, style: str = "") -> Text:
    """Text for a table of the terminal, in which nothing is markup."""
    from rich.text import Text

    return Text(visible(text), style=style)


class Told(logging.Handler):
    """Shows what the rooms below warn of."""

    def emit(self, record: logging.LogRecord) -> None:
        tell(record.getMessage())
