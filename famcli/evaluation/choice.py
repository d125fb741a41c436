"""Which tasks a command line or a call of ``famcli.evaluate`` asks for: with which options, data and bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from famcli.errors import UserError, printable, unknown_name
from famcli.task import Task, is_file, load_task, load_typed_task

LENGTHS = "lengths"
"""The option by which a user asks for texts of a length."""

Wanted = str | type[Task]
"""A task: what ``load_typed_task`` takes, or its class."""


@dataclass(frozen=True)
class TaskEntry:
    """One task that is asked for, and what is said of it alone.

    Attributes:
        task: it.
        options: as typed after ``-o``, ``data`` among them.
        limit, limit_documents: most samples and documents; ``None`` is all.
        suite: name of the suite that has it; empty for a task that was typed.
    """

    task: Wanted
    options: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None
    limit_documents: int | None = None
    suite: str = ""

    def make(self, options: Mapping[str, str]) -> Task:
        """The task with options. A suite is read from a file, and no name from a file is executed as one.

        Raises:
            UserError: there is no such task, or an option does not fit.
        """
        if not isinstance(self.task, str):
            return self.task.from_options(options)
        if not self.suite:
            return load_typed_task(self.task, options)
        if is_file(self.task):
            raise UserError(
                f"suite {self.suite}: '{printable(self.task)}' is a file, and a suite executes nothing",
                f"write the name of the task in it, and type --plugin {printable(self.task.partition(':')[0])}",
            )
        try:
            return load_task(self.task, options)
        except UserError as error:
            known = error.hint or ""
            own = "; one in a file of your own: --plugin FILE.py" * known.startswith("known: ")
            raise UserError(f"suite {self.suite}: {error.message}", f"{known}{own}" or None) from error


@dataclass(frozen=True)
class Given:
    """What is said of all tasks; it takes the place of what an entry says.

    Attributes:
        options: as typed after ``-o``.
        data: what is typed after ``--data``: one of these options with a name of its own, for one task or for all;
            tasks that need none do without.
        split: of data with several.
        limit, limit_documents: see ``TaskEntry``.
    """

    options: Mapping[str, str] = field(default_factory=dict)
    data: Sequence[str] = ()
    split: str | None = None
    limit: int | None = None
    limit_documents: int | None = None


@dataclass(frozen=True)
class ChosenTask:
    """One task with its options, and what bounds it.

    Attributes:
        task: it.
        limit, limit_documents: most samples and documents; ``None`` is all.
        leaves_out: what does not fit a model's trained context is left out, as nobody asked for it by its length.
    """

    task: Task
    limit: int | None = None
    limit_documents: int | None = None
    leaves_out: bool = False


def choose_tasks(
    entries: Sequence[TaskEntry],
    given: Given,
    *,
    leaves_out: bool = False,
    all_leave_out: bool = False,
    note: Callable[[str], None] = lambda message: None,
) -> list[ChosenTask]:
    """The tasks; an option that is given goes to every task that has it, and at least one must.

    Args:
        entries: what is asked for.
        given: what is said of all of them.
        leaves_out: whether tasks of suites leave out what does not fit a model's trained context.
        all_leave_out: whether all tasks do.
        note: is told what of a suite does not hold, a line a suite.

    Raises:
        UserError: a task does not exist, no task has an option, a value does not fit, or the data is given twice.
    """
    bare = [entry.make({}) for entry in entries]
    options = _options(given, bare)
    sources = _sources(given.data, {task.name: _takes(task, "data") for task in bare})
    if sources and "data" in options:
        raise UserError("the data is given twice", "leave out either --data or -o data=")
    typed = [_typed(task, options, sources) for task in bare]
    for message in _replaced(entries, given, typed):
        note(message)
    tasks = [entry.make({**entry.options, **own}) for entry, own in zip(entries, typed, strict=True)]
    for task in tasks:
        if given.split is not None and _takes(task, "split"):
            task.check_split()
    return [
        ChosenTask(
            task=task,
            limit=given.limit or entry.limit,
            limit_documents=given.limit_documents or entry.limit_documents,
            leaves_out=all_leave_out or (leaves_out and bool(entry.suite) and LENGTHS not in own),
        )
        for task, entry, own in zip(tasks, entries, typed, strict=True)
    ]


def once_each(chosen: Sequence[ChosenTask], note: Callable[[str], None]) -> Iterator[ChosenTask]:
    """What is asked for twice, alike in all, is run once."""
    seen = list[tuple[Any, ...]]()
    for one in chosen:
        alike = (type(one.task), one.task.options, one.limit, one.limit_documents, one.leaves_out)
        if alike in seen:
            note(f"task {one.task.name} is asked for twice, and runs once")
        else:
            seen.append(alike)
            yield one


def _takes(task: Task, option: str) -> bool:
    return any(help.name == option for help in task.option_help())


def _options(given: Given, tasks: Sequence[Task]) -> dict[str, str]:
    """The options that are given, the split among them.

    Raises:
        UserError: no task has one of them, or the split is there twice.
    """
    names = ", ".join(sorted({task.name for task in tasks}))
    for name in given.options:
        if not any(_takes(task, name) for task in tasks):
            known = {help.name for task in tasks for help in task.option_help()}
            raise unknown_name(f"option of task {names}:", name, known)
    if given.split is None:
        return dict(given.options)
    if "split" in given.options:
        raise UserError("the split is given twice", "leave out either --split or -o split=")
    if not any(_takes(task, "split") for task in tasks):
        raise UserError(f"--split is given, but no task here has data with splits: {names}", "leave out --split")
    return {**given.options, "split": given.split}


def _typed(task: Task, options: Mapping[str, str], sources: Mapping[str, str]) -> dict[str, str]:
    """Those of the options that a task has, its data among them."""
    own = {name: value for name, value in options.items() if _takes(task, name)}
    source = sources.get(task.name, sources.get(""))
    return own | ({"data": source} if source and _takes(task, "data") else {})


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
            raise UserError(
                f"the data {f'of {name} ' if name else ''}is given twice: {sources[name]} and {source}",
                "give one of them",
            )
        sources[name] = source
    return sources


def _replaced(entries: Sequence[TaskEntry], given: Given, typed: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """A line a suite: what of it does not hold, because something else was typed. Of several tasks it is named once."""
    tasks: dict[str, dict[str, list[str]]] = {}
    for entry, own in zip(entries, typed, strict=True):
        bounds = {"limit": (entry.limit, given.limit)}
        bounds["limit_documents"] = (entry.limit_documents, given.limit_documents)
        said = {**entry.options, **{name: str(own) for name, (own, _) in bounds.items() if own}}
        instead = {**own, **{name: str(value) for name, (_, value) in bounds.items() if value}}
        for name, value in said.items():
            if entry.suite and instead.get(name, value) != value:
                tasks.setdefault(entry.suite, {}).setdefault(f"{name}={value}", []).append(str(entry.task))
    for suite, by_option in tasks.items():
        words = "; ".join(f"{said} ({', '.join(dict.fromkeys(names))})" for said, names in by_option.items())
        yield f"note: suite {suite}: what is typed takes the place of {words}"
