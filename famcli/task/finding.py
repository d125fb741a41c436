"""Finds tasks: a plugin is a ``Task`` subclass named under the entry points ``famcli.tasks``, and so are famcli's own.

A plugin is code of others. Whatever it does when it is loaded, the other tasks stay usable, and it is named.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

from famcli.errors import UserError, unknown_name
from famcli.task.contract import MetricSpec, Task

logger = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "famcli.tasks"
_OWN = "famcli.tasks."
"""What the modules of famcli's own tasks begin with."""


def available_tasks() -> dict[str, type[Task]]:
    """Every installed task by name. A plugin that does not load is left out with a warning."""
    tasks = {}
    for name, entry in sorted(_entry_points().items()):
        try:
            tasks[name] = _load(entry)
        except UserError as error:
            logger.warning("warning: %s", error.message)
    return tasks


def load_task(name: str, options: Mapping[str, str]) -> Task:
    """The task called ``name`` with ``options`` as typed; other plugins are not loaded.

    Raises:
        UserError: there is no such task, it does not load, or an option does not fit.
    """
    entries = _entry_points()
    if name not in entries:
        raise unknown_name("task", name, entries)
    entry = entries[name]
    others = {other.value for other in entry_points(group=ENTRY_POINT_GROUP, name=name)} - {entry.value}
    if others and not _is_own(entry):
        message = f"two packages install a task '{name}': {entry.value} and {min(others)}"
        raise UserError(message, "uninstall one of them")
    task = _load(entry)
    try:
        return task.from_options(options)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"task '{name}' ({entry.value}) cannot be made: {error!r}", _whose(entry)) from error


def _entry_points() -> dict[str, EntryPoint]:
    """By name; nobody takes the name of one of famcli's own, and of several others the first one has it."""
    found: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: not _is_own(entry)):
        first = found.setdefault(entry.name, entry)
        if first.value == entry.value:
            continue
        if _is_own(first):
            logger.warning(
                "warning: %s is left out: '%s' is a task of famcli's own, and a plugin needs another name",
                *(entry.value, entry.name),
            )
        else:
            logger.warning("warning: two plugins are called '%s': %s and %s", entry.name, first.value, entry.value)
    return found


def _is_own(entry: EntryPoint) -> bool:
    return entry.value.startswith(_OWN)


def _whose(entry: EntryPoint) -> str:
    return f"it comes from the package {entry.dist.name if entry.dist else entry.value}, not from famcli"


def _load(entry: EntryPoint) -> type[Task]:
    try:
        task = entry.load()
    except (Exception, SystemExit) as error:  # whatever a third party's module raises
        raise UserError(f"task '{entry.name}' ({entry.value}) does not load: {error!r}", _whose(entry)) from error
    if not (isinstance(task, type) and issubclass(task, Task)):
        raise UserError(f"task '{entry.name}' ({entry.value}) is not a famcli.task.Task", _whose(entry))
    try:
        problem = _problem(task, entry.name)
    except Exception as error:
        problem = f"cannot be described: {error!r}"
    if problem:
        raise UserError(f"task '{entry.name}' ({entry.value}) {problem}", _whose(entry))
    return task


def _problem(task: type[Task], name: str) -> str | None:
    """What a class lacks of what a listing and a run need of it."""
    if lacking := [field for field in ("name", "version", "summary", "metrics") if not hasattr(task, field)]:
        return f"lacks {', '.join(lacking)}"
    if task.name != name:
        return f"calls itself {task.name!r}"
    if not isinstance(task.version, int) or not isinstance(task.summary, str) or not isinstance(task.template, str):
        return "needs a whole number as its version, and text as its summary and template"
    metrics = task.metrics
    if not isinstance(metrics, tuple | list) or not metrics or not all(isinstance(one, MetricSpec) for one in metrics):
        return "needs a MetricSpec for each of its metrics"
    if not all(isinstance(one.name, str) for one in metrics) or len({one.name for one in metrics}) < len(metrics):
        return "has metrics that cannot be told apart by name"
    if not dataclasses.is_dataclass(task.Options):
        return "has Options that are no dataclass"
    for field in dataclasses.fields(task.Options):
        if not field.metadata.keys() >= {"help", "default", "parse"}:
            return f"has an option '{field.name}' that is not made by famcli.task.option"
    if not all(isinstance(text, str) for help in task.option_help() for text in help):
        return "has options whose name, default or help is no text"
    return None
