"""The tasks of a command: those that were typed and those of suites, with their options, data and bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import click

from famcli.cli import completing
from famcli.cli.options import Function, bundled, parse_options, plugin_option
from famcli.cli.saying import tell
from famcli.errors import UserError
from famcli.evaluation.suites import Suite, find_suite

if TYPE_CHECKING:
    from famcli.evaluation.choice import ChosenTask


@dataclass(frozen=True)
class TaskChoice:
    """The tasks as typed; see the options of ``task_options``."""

    tasks: tuple[str, ...]
    suites: tuple[str, ...]
    options: tuple[str, ...]
    data: tuple[str, ...]
    split: str | None
    limit: int | None
    limit_documents: int | None

    @cached_property
    def _suites(self) -> list[Suite]:
        return [find_suite(name) for name in self.suites]

    def models(self, typed: Sequence[str]) -> tuple[str, ...]:
        """The models to run: those that were typed, else those of the suites.

        Raises:
            UserError: two suites name other models.
        """
        naming = [suite for suite in self._suites if suite.models]
        if typed:
            for suite in naming:
                tell(f"note: suite {suite.name}: what is typed takes the place of models={','.join(suite.models)}")
            return tuple(typed)
        for suite in naming[1:]:
            if suite.models != naming[0].models:
                raise UserError(
                    f"the suites {naming[0].name} and {suite.name} name other models",
                    "run one suite at a time, or give --model for both",
                )
        return naming[0].models if naming else ()

    @property
    def empty(self) -> bool:
        """Nothing was typed."""
        return self == TaskChoice((), (), (), (), None, None, None)

    def load(self, example: str, *, leaves_out: bool = False, all_leave_out: bool = False) -> list[ChosenTask]:
        """The tasks with their options. What is typed takes the place of what a suite says, and a line says so.

        Args:
            example: the command that the error names where there is no task.
            leaves_out: whether tasks of suites leave out what does not fit a model's trained context.
            all_leave_out: whether all tasks do.

        Raises:
            UserError: there is none, or one does not exist or cannot have these options.
        """
        if not self.tasks and not self.suites:
            raise UserError("no task given", f"for example: {example}")
        from famcli.evaluation.choice import Given, TaskEntry, choose_tasks, once_each

        entries = [TaskEntry(task) for task in self.tasks]
        entries += [entry for suite in self._suites for entry in suite.entries]
        given = Given(parse_options(self.options), self.data, self.split, self.limit, self.limit_documents)
        found = choose_tasks(entries, given, leaves_out=leaves_out, all_leave_out=all_leave_out, note=tell)
        return list(once_each(found, tell))


def task_options(function: Function) -> Function:
    """``--task`` to ``--limit-documents``, given to the command as ``chosen``, a ``TaskChoice``.

    ``--plugin`` is among them, see ``plugin_option``.
    """
    return bundled(
        plugin_option(function),
        "chosen",
        TaskChoice,
        click.option(
            "--task",
            "tasks",
            multiple=True,
            metavar="TASK",
            shell_complete=completing.tasks,
            help="See famcli list tasks; or ./my_task.py:MyTask. Repeat it for several.",
        ),
        click.option(
            "--suite",
            "suites",
            multiple=True,
            metavar="SUITE|FILE.yaml",
            shell_complete=completing.suites,
            help="Several tasks with their options: a name of famcli list tasks, or a file of your own.",
        ),
        click.option(
            "-o", "options", multiple=True, metavar="KEY=VALUE", help="An option of the tasks, e.g. -o lengths=1k,64k."
        ),
        click.option(
            "--data",
            "data",
            multiple=True,
            metavar="[TASK=]SOURCE",
            help="Of tasks with data: files or directories, sample (built in), or hub (downloads).",
        ),
        click.option("--split", metavar="NAME", help="Of data with several splits: train, validation, test or all."),
        click.option("--limit", type=click.IntRange(min=1), help="Most samples of each task."),
        click.option("--limit-documents", type=click.IntRange(min=1), help="Most documents of each task."),
    )
