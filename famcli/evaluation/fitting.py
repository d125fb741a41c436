"""Which tasks fit a model: known from its tokenizer and the length it was made to read, before it is in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from famcli.errors import UserError
from famcli.evaluation.asking import Skips
from famcli.evaluation.choice import ChosenTask
from famcli.evaluation.prompts import DoesNotFitError
from famcli.evaluation.settings import Settings

if TYPE_CHECKING:
    from famcli.checkpoints.tokenizer import Tokenizer


class Fitting(NamedTuple):
    """What a model can be asked.

    Attributes:
        tasks: those that fit it.
        left_out: names of tasks of which nothing fits, with the reason.
    """

    tasks: list[ChosenTask]
    left_out: list[tuple[str, str]]


def check_tasks(
    tasks: Sequence[ChosenTask], tokenizer: Tokenizer, longest_text: int | None, settings: Settings
) -> Fitting:
    """Makes sure that every task has samples for a model, and where the context is bounded that they fit.

    Raises:
        UserError: a task has none, or one does not fit and is not to be left out. It names the task, where there are
            several: a file may be fine for one and wrong for another.
    """
    fitting = Fitting([], [])
    for chosen in tasks:
        name, of_run = chosen.task.name, settings.of(chosen)
        try:
            if of_run.context(longest_text):
                of_run.draw(chosen.task, tokenizer, longest_text, Skips(settings.on_error))
            else:
                of_run.samples(chosen.task, tokenizer)
            fitting.tasks.append(chosen)
        except UserError as error:
            if isinstance(error, DoesNotFitError) and of_run.leaves_misfits_out:
                fitting.left_out.append((name, f"{error.message}; {error.hint}"))
            elif len(tasks) == 1 or f"task {name}" in error.message:
                raise
            else:
                raise UserError(f"task {name}: {error.message}", error.hint) from error
    return fitting
