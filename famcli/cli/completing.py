"""What the shell completes: names of tasks, suites, models and runs. Nothing heavy is imported, no plugin is loaded."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from famcli.display import visible
from famcli.errors import UserError

DEFAULT_OUTPUT = Path("results")
"""Of ``--output``, where the records of runs lie."""


def tasks(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Tasks of all installed packages."""
    return _items(_installed("famcli.tasks"), incomplete)


def suites(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Suites for ``--suite``, those in ``suites/`` among them; what looks like a path is left to the shell."""
    if _is_path(incomplete):
        return [CompletionItem(incomplete, type="file")]
    return _items([*_files("suites"), *_own_suites()], incomplete)


def models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Presets, and models of other packages; what looks like a path is left to the shell."""
    if _is_path(incomplete):
        return [CompletionItem(incomplete, type="file")]
    return _items([*_files("models"), *_installed("famcli.models")], incomplete)


def runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Ids of runs under ``--output``, presets besides; what looks like a path is left to the shell."""
    if _is_path(incomplete):
        return [CompletionItem(incomplete, type="file")]
    return _items([*_run_ids(ctx), *_files("models")], incomplete)


def run_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Ids of runs under ``--output``."""
    return [CompletionItem(incomplete, type="file")] if _is_path(incomplete) else _items(_run_ids(ctx), incomplete)


def _is_path(incomplete: str) -> bool:
    return "/" in incomplete or incomplete.startswith(("~", "."))


def _items(names: Iterable[str], incomplete: str) -> list[CompletionItem[str]]:
    """Those that begin so; a name that would steer the terminal is not offered."""
    fitting = sorted({name for name in names if name.startswith(incomplete) and visible(name) == name})
    return [CompletionItem(name) for name in fitting]


def _installed(group: str) -> list[str]:
    return [entry.name for entry in entry_points(group=group)]


def _files(folder: str) -> list[str]:
    """The names of the configurations of a kind."""
    files = (importlib.resources.files("famcli.configs") / folder).iterdir()
    return [file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")]


def _own_suites() -> list[str]:
    from famcli.evaluation.suites import own_suites

    try:
        return list(own_suites())
    except UserError:
        return []


def _run_ids(ctx: click.Context) -> list[str]:
    """Directories with a record, those of runs that were put aside left out."""
    try:
        found = Path(ctx.params.get("output") or DEFAULT_OUTPUT).iterdir()
        return [path.name for path in found if ".old-" not in path.name and (path / "run.json").is_file()]
    except OSError:
        return []
