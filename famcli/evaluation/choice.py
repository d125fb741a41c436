"""Which tasks are asked for, and with which options, by a command line or a call of ``famcli.evaluate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from famcli.errors import UserError, unknown_name
from famcli.task import Task, load_typed_task

Wanted = str | type[Task]
"""A task: what ``load_typed_task`` takes, or its class."""


def choose_tasks(
    entries: Sequence[tuple[Wanted, Mapping[str, str]]], given: Mapping[str, str], data: Sequence[str]
) -> list[Task]:
    """The tasks; an option that is given goes to every task that has it, and at least one must.

    Args:
        entries: each task with options of its own.
        given: options for all of them, as typed after ``-o``.
        data: what is typed after ``--data``: one of these options with a name of its own, for one task or for all;
            tasks that need none do without.

    Raises:
        UserError: a task does not exist, no task has an option, a value does not fit, or the data is given twice.
    """
    bare = [_make(wanted, {}) for wanted, _ in entries]
    for name in given:
        if not any(name in _options_of(task) for task in bare):
            known = set().union(*map(_options_of, bare))
            raise unknown_name(f"option of task {', '.join(sorted({task.name for task in bare}))}:", name, known)
    sources = _sources(data, {task.name: "data" in _options_of(task) for task in bare})
    if sources and "data" in given:
        raise UserError("the data is given twice", "leave out either --data or -o data=")

    def options(own: Mapping[str, str], task: Task) -> dict[str, str]:
        typed = {name: value for name, value in given.items() if name in _options_of(task)}
        source = sources.get(task.name, sources.get(""))
        return {**own, **typed, **({"data": source} if source and "data" in _options_of(task) else {})}

    return [_make(wanted, options(own, task)) for (wanted, own), task in zip(entries, bare, strict=True)]


def _make(wanted: Wanted, options: Mapping[str, str]) -> Task:
    return load_typed_task(wanted, options) if isinstance(wanted, str) else wanted.from_options(options)


def _options_of(task: Task) -> set[str]:
    return {help.name for help in task.option_help()}


def _sources(data: Sequence[str], takes_data: dict[str, bool]) -> dict[str, str]:
    """What ``--data`` says by task, ``""`` for all others.

    Raises:
        UserError: a task has two sources, or none takes data.
    """
    sources: dict[str, str] = {}
    for text in data:
        name, equals, source = text.partition("=")
        name, source = (name, source) if equals and name in takes_data else ("", text)
        if not (takes_data[name] if name else any(takes_data.values())):
            names = name or ", ".join(sorted(takes_data))
            raise UserError(f"--data is given, but no task here takes data: {names}", "leave out --data")
        if name in sources:
            raise UserError(f"the data {f'of {name} ' if name else ''}is given twice: {sources[name]} and {source}")
        sources[name] = source
    return sources
