"""Options that several verbs share, and the suites that ``eval`` and ``list`` know."""

from __future__ import annotations

import importlib.resources
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from famcli.errors import UserError, unknown_name

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH = 1_000
"""Output that is piped on must not be folded to the width of a terminal that is not there."""

Function = TypeVar("Function", bound=Callable[..., Any])


def console() -> Console:
    """Standard output for tables."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)


def as_json(function: Function) -> Function:
    """``--json``, given to the command as ``json_output``."""
    return click.option("--json", "json_output", is_flag=True, help="Print one JSON object and nothing else.")(function)


def output(function: Function) -> Function:
    """``--output``, the directory of the run records."""
    return click.option(
        "--output",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("results"),
        show_default=True,
        help="Directory of the run records.",
    )(function)


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


def _read_suite(file: Traversable) -> Suite:
    import yaml

    fields = yaml.safe_load(file.read_text(encoding="utf-8"))
    try:
        entries = tuple(
            SuiteEntry(entry["task"], {name: str(value) for name, value in entry.get("options", {}).items()})
            for entry in fields["tasks"]
        )
        return Suite(file.name.removesuffix(".yaml"), fields["summary"], entries)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"suite {file.name} needs a summary and tasks with their options: {error!r}") from error


def parse_options(given: tuple[str, ...]) -> dict[str, str]:
    """``-o lengths=1k -o trials=5`` -> ``{"lengths": "1k", "trials": "5"}``.

    Raises:
        UserError: one is no ``KEY=VALUE``, or a key is there twice.
    """
    options: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UserError(f"task option '{text}' is not KEY=VALUE", "for example -o lengths=1k,64k")
        if name in options:
            raise UserError(f"task option '{name}' is given twice")
        options[name] = value
    return options
