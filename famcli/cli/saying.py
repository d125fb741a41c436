"""All that the verbs print: lines in which texts of others do nothing, and documents that are safe already."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import click

from famcli.display import json_text, visible

if TYPE_CHECKING:
    from rich.text import Text


def say(line: str = "") -> None:
    """A line on standard output."""
    click.echo(visible(line))


def tell(line: str) -> None:
    """A line on standard error."""
    click.echo(visible(line), err=True)


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
