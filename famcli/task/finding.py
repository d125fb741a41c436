"""Finds tasks: a plugin is a ``Task`` subclass named under the entry points ``famcli.tasks``, and so are famcli's own;
or it stands in a file that the user names.

A plugin is code of others. Whatever it does when it is loaded, the other tasks stay usable, and it is named.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from famcli.errors import UserError, printable, unknown_name
from famcli.files import user_path
from famcli.loading import load_module, own_place
from famcli.task.contract import MetricSpec, Task

logger = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "famcli.tasks"
FAMILIES = "famcli.task_families"
"""Entry points of functions that make a task of a name: ``FAMILY:NAME`` is what that of FAMILY gives for NAME."""
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


def added_defaults(name: str) -> dict[str, str]:
    """What records of a task have that lack an option, as a user would write it: options that came to it later.

    None of a task that is not installed, or does not load.
    """
    try:
        options = dataclasses.fields(_load(_entry_points()[name]).Options)
    except (KeyError, UserError):
        return {}
    return {field.name: field.metadata["default"] for field in options if field.metadata.get("added")}


def load_task(name: str, options: Mapping[str, str]) -> Task:
    """The task called ``name`` with ``options`` as typed; other plugins are not loaded.

    Raises:
        UserError: there is no such task, it does not load, or an option does not fit.
    """
    entries = _entry_points()
    if family := _family(name):
        return _make(_of_family(family, name.partition(":")[2]), options, f"'{name}'", _whose(family))
    if name not in entries:
        raise unknown_name("task", name, entries)
    entry = entries[name]
    others = {other.value for other in entry_points(group=ENTRY_POINT_GROUP, name=name)} - {entry.value}
    if others and not _is_own(entry):
        message = f"two packages install a task '{name}': {entry.value} and {min(others)}"
        raise UserError(message, "uninstall one of them")
    return _make(_load(entry), options, f"'{name}' ({entry.value})", _whose(entry))


def load_typed_task(typed: str, options: Mapping[str, str]) -> Task:
    """``load_task`` of what the user typed, which may be a file: it is executed. No name from a file comes here.

    Args:
        typed: the name of a task, or ``FILE.py:CLASS``; the class may be left out where the file has one task.
        options: by name, as typed.

    Raises:
        UserError: as ``load_task``, or the file fails.
    """
    if found := _typed_file(typed):
        return _make(_in_file(*found), options, typed, "mend it and repeat the command")
    if typed not in _entry_points() and not _family(typed) and (meant := _meant_file(typed)):
        raise UserError(f"unknown task '{printable(typed)}'", f"for a task in a file: --task {printable(meant)}")
    return load_task(typed, options)


def is_file(name: str) -> bool:
    """Whether the name of a task is that of a file."""
    return "/" in name or name.endswith(".py") or name.rpartition(":")[0].endswith(".py")


def _meant_file(typed: str) -> str | None:
    """``./my_task.py:MyTask`` for ``my_task:MyTask``, as Python names what is in a module; of a bare name, a file."""
    module, colon, kind = typed.partition(":")
    file = f"{module.replace('.', '/')}.py"
    return f"./{file}{colon}{kind}" if colon or Path(file).is_file() else None


def _make(task: type[Task], options: Mapping[str, str], called: str, hint: str) -> Task:
    try:
        return task.from_options(options)
    except UserError:
        raise
    except Exception as error:
        file = getattr(sys.modules.get(task.__module__), "__file__", None)
        place = own_place(error, Path(file)) if file else None
        where = f" ({place[0]}:{place[1]})" if place else ""
        raise UserError(f"task {called} cannot be made: {error!r}{where}", hint) from error


def _typed_file(name: str) -> tuple[Path, str] | None:
    """File and class of ``FILE.py:CLASS`` or ``FILE.py``; ``None`` for the name of a task.

    Raises:
        UserError: it is a path, and no file of Python.
    """
    if name.endswith(".py"):
        return user_path(name), ""
    file, _, kind = name.rpartition(":")
    if file.endswith(".py"):
        return user_path(file), kind
    if "/" in name:
        raise UserError(f"'{printable(name)}' is no task", "a file of your own ends in .py: --task ./my_task.py:MyTask")
    return None


def _in_file(file: Path, name: str) -> type[Task]:
    """The task ``name`` of a file, or the only one in it."""
    module = load_module(file)
    kinds = {
        attribute: kind
        for attribute, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, Task) and kind.__module__ == module.__name__
    }
    whole = [attribute for attribute, kind in kinds.items() if not (attribute[:1] == "_" or inspect.isabstract(kind))]
    if not kinds:
        raise UserError(f"{file} has no task", "a task is a subclass of famcli.task.Task: docs/extend.md")
    if not name and len(whole) != 1:
        raise UserError(
            f"{file} has {len(whole)} tasks: {', '.join(whole or kinds)}", f"say which: {file}:{(whole or [*kinds])[0]}"
        )
    if name and name not in kinds:
        raise unknown_name(f"task in {file}:", name, kinds)
    found = kinds[name or whole[0]]
    if problem := _described(found, getattr(found, "name", None)):
        raise UserError(f"task {file}:{found.__name__} {problem}", "docs/extend.md shows what a task needs")
    if any(_is_own(entry) for entry in entry_points(group=ENTRY_POINT_GROUP, name=found.name)):
        raise UserError(
            f"task {file}:{found.__name__} calls itself '{found.name}', as a task of famcli's own does",
            "give it another name",
        )
    return found


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


def _family(name: str) -> EntryPoint | None:
    """That of a name such as ``lm_eval:NAME``; ``None`` for one of no family."""
    family, colon, _ = name.partition(":")
    return next(iter(entry_points(group=FAMILIES, name=family)), None) if colon else None


def _is_own(entry: EntryPoint) -> bool:
    return entry.value.startswith(_OWN)


def _whose(entry: EntryPoint) -> str:
    return f"it comes from the package {entry.dist.name if entry.dist else entry.value}, not from famcli"


def task_families() -> dict[str, str]:
    """What each family of tasks is, by the form of its names, such as ``lm_eval:NAME``."""
    found = {}
    for entry in sorted(entry_points(group=FAMILIES), key=lambda entry: entry.name):
        try:
            form, _, summary = str(entry.load().__doc__ or "").strip().partition("\n")[0].partition(": ")
        except (Exception, SystemExit) as error:  # whatever a third party's module raises
            logger.warning("warning: tasks '%s' (%s) do not load: %r", entry.name, entry.value, error)
            continue
        found[form] = summary
    return found


def _of_family(entry: EntryPoint, member: str) -> type[Task]:
    try:
        task = entry.load()(member)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"task '{entry.name}:{member}' cannot be made: {error!r}", _whose(entry)) from error
    if not (isinstance(task, type) and issubclass(task, Task)):
        raise UserError(f"'{entry.name}:{member}' ({entry.value}) is not a famcli.task.Task", _whose(entry))
    return task


def _load(entry: EntryPoint) -> type[Task]:
    try:
        task = entry.load()
    except (Exception, SystemExit) as error:  # whatever a third party's module raises
        raise UserError(f"task '{entry.name}' ({entry.value}) does not load: {error!r}", _whose(entry)) from error
    if not (isinstance(task, type) and issubclass(task, Task)):
        raise UserError(f"task '{entry.name}' ({entry.value}) is not a famcli.task.Task", _whose(entry))
    if problem := _described(task, entry.name):
        raise UserError(f"task '{entry.name}' ({entry.value}) {problem}", _whose(entry))
    return task


def _described(task: type[Task], name: str | None) -> str | None:
    """What ``_problem`` says, whatever a class does when it is looked at."""
    try:
        return _problem(task, name)
    except Exception as error:
        return f"cannot be described: {error!r}"


def _problem(task: type[Task], name: str | None) -> str | None:
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
