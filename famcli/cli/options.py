"""Options that several verbs share, and the suites that ``eval`` and ``list`` know."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from famcli.cli import completing
from famcli.cli.folding import standard_width
from famcli.errors import unknown_name
from famcli.fields import read_fields, read_pairs, read_yaml

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH = 1_000
"""Output that is piped on must not be folded to the width of a terminal that is not there."""

PLUGINS = "famcli.plugins"
"""Where a command's context keeps what was typed after ``--plugin``."""

Function = TypeVar("Function", bound=Callable[..., Any])


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


@dataclass(frozen=True)
class SuiteEntry:
    """One task of a suite with its options as a user would type them."""

    task: str
    options: dict[str, str]


@dataclass(frozen=True)
class Suite:
    """Tasks to run together, ``configs/suites/NAME.yaml``."""

    name: str
    summary: str
    entries: tuple[SuiteEntry, ...]


def list_suites() -> list[Suite]:
    """All suites by name; raises ``UserError`` where a file is not valid."""
    folder = importlib.resources.files("famcli.configs") / "suites"
    files = [file for file in folder.iterdir() if file.name.endswith(".yaml")]
    return [_read_suite(file) for file in sorted(files, key=lambda file: file.name)]


def find_suite(name: str) -> Suite:
    """The suite called ``name``; raises ``UserError`` where there is none."""
    suites = {suite.name: suite for suite in list_suites()}
    if name not in suites:
        raise unknown_name("suite", name, suites)
    return suites[name]


@dataclass(frozen=True)
class _EntryFile:
    task: str
    options: dict[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True)
class _SuiteFile:
    summary: str
    tasks: tuple[_EntryFile, ...]


def _read_suite(file: Traversable) -> Suite:
    where = f"suite {file.name}"
    found = read_fields(_SuiteFile, read_yaml(file, where), where)
    entries = tuple(SuiteEntry(e.task, {name: str(value) for name, value in e.options.items()}) for e in found.tasks)
    return Suite(file.name.removesuffix(".yaml"), found.summary, entries)


def parse_options(given: tuple[str, ...]) -> dict[str, str]:
    """``-o lengths=1k -o trials=5`` -> ``{"lengths": "1k", "trials": "5"}``.

    Raises:
        UserError: one is no ``KEY=VALUE``, or a key is there twice.
    """
    return read_pairs(given, "task option", "KEY=VALUE", "-o lengths=1k,64k")
