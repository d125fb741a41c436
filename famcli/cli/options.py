"""Options that several verbs share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from famcli.cli import completing
from famcli.cli.folding import standard_width
from famcli.errors import UserError, printable
from famcli.fields import LONGEST, parse_lengths, read_pairs

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH = 1_000
"""Output that is piped on must not be folded to the width of a terminal that is not there."""

PLUGINS = "famcli.plugins"
"""Where a command's context keeps what was typed after ``--plugin``."""

Function = TypeVar("Function", bound=Callable[..., Any])


class Tokens(click.ParamType[int]):
    """A number of tokens, ``8k`` as lengths are typed or ``8192``."""

    name = "tokens"

    def __init__(self, most: int = LONGEST) -> None:
        self.most = most

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Raises ``UserError`` where it is none, or more than ``most``."""
        if isinstance(value, int):
            return value
        try:
            lengths = () if "," in value else parse_lengths(value)
        except ValueError:
            lengths = ()
        option = max(param.opts, key=len) if param else self.name
        if not lengths:
            raise UserError(
                f"{option} must be a number of tokens such as 8k, 1M or 5000, not '{printable(value)}'",
                f"for example {option} 8k",
            )
        if lengths[0] > self.most:
            raise UserError(
                f"{option} must be at most {self.most:,} tokens, not {lengths[0]:,}", f"for example {option} 1k"
            )
        return lengths[0]


def console() -> Console:
    """Standard output for tables."""
    from rich.console import Console

    return Console(width=standard_width() or PIPED_WIDTH, highlight=False)


def as_json(function: Function) -> Function:
    """``--json``, given to the command as ``json_output``."""
    return click.option("--json", "json_output", is_flag=True, help="Print one JSON object and nothing else.")(function)


def models_option(function: Function) -> Function:
    """``--model``, as often as there are models, given to the command as ``models``."""
    return click.option(
        "--model",
        "models",
        multiple=True,
        metavar="MODEL[,FIELD=VALUE...]",
        shell_complete=completing.models,
        help="See famcli list models; repeat it for several.",
    )(function)


def output(function: Function) -> Function:
    """``--output``, the directory of the run records."""
    return click.option(
        "--output",
        type=click.Path(file_okay=False, path_type=Path),
        default=completing.DEFAULT_OUTPUT,
        show_default=True,
        help="Directory of the run records.",
    )(function)


def held(function: Function) -> Function:
    """``--held``, the score from which a text counts as remembered."""
    return click.option(
        "--held",
        type=click.FloatRange(min=0, max=1, min_open=True),
        default=0.95,
        show_default=True,
        help="Score from which a length counts as remembered.",
    )(function)


def profile(function: Function) -> Function:
    """``--profile``, given to the command as ``profiled``: what ``famcli profile --output`` wrote."""
    return click.option(
        "--profile",
        "profiled",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Add what reading costs by length, as famcli profile --output DIR measured it.",
    )(function)


def plugin_option(function: Function) -> Function:
    """``--plugin``: while the command runs, what the paths bring is known as if it were installed."""
    return click.option(
        "--plugin",
        multiple=True,
        type=click.Path(exists=True, path_type=Path),
        metavar="PATH",
        is_eager=True,
        expose_value=False,
        callback=_add_plugins,
        help="A .py file or a folder whose tasks, models and memories are used as if they were installed.",
    )(function)


def _add_plugins(ctx: click.Context, param: click.Parameter, paths: tuple[Path, ...]) -> None:
    ctx.meta[PLUGINS] = paths
    if paths and not ctx.resilient_parsing:
        from famcli.plugins import plugins

        ctx.with_resource(plugins(paths))


def parse_options(given: tuple[str, ...]) -> dict[str, str]:
    """``-o lengths=1k -o trials=5`` -> ``{"lengths": "1k", "trials": "5"}``.

    Raises:
        UserError: one is no ``KEY=VALUE``, or a key is there twice.
    """
    return read_pairs(given, "task option", "KEY=VALUE", "-o lengths=1k,64k")


def bundled(function: Function, name: str, kind: type[Any], *options: Callable[[Any], Any]) -> Function:
    """``function`` with ``options``, whose values it is given as one ``kind`` of the same field names.

    A command may bring further options of the kind's; a field without one keeps its default.
    """

    @functools.wraps(function)
    def command(**given: Any) -> Any:
        return function(
            **{name: kind(**{field.name: given.pop(field.name) for field in fields(kind) if field.name in given})},
            **given,
        )

    for option in reversed(options):
        command = option(command)
    return command  # type: ignore[return-value]  # it is called by click only
