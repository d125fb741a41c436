"""Several tasks on one model, as ``famcli.evaluate`` runs them: all is checked before anything runs."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from famcli.checkpoints.registry import find_model, pick_device, pick_dtype
from famcli.checkpoints.sources import LoadedModel
from famcli.display import visible
from famcli.errors import UserError
from famcli.evaluation.asking import Skips, ask_or_skip, samples_of
from famcli.evaluation.choice import Wanted, choose_tasks
from famcli.evaluation.plan import measure
from famcli.evaluation.progress import PlainProgress
from famcli.evaluation.prompts import special_tokens_of
from famcli.evaluation.runner import context_of, evaluate
from famcli.evaluation.settings import Settings
from famcli.files import source_sha256
from famcli.machine.peak import held_beside, program, taken
from famcli.seams import FramedEncoder
from famcli.task import Task

if TYPE_CHECKING:
    from famcli.checkpoints.tokenizer import Tokenizer
    from famcli.evaluation.record import RunRecord

logger = logging.getLogger("famcli")


def check_task(task: Task, tokenizer: Tokenizer, longest_text: int | None, settings: Settings) -> None:
    """Makes sure that a task has samples for a model, and where the context is bounded that they fit.

    Raises:
        UserError: it has none, or one does not fit.
    """
    special = special_tokens_of(tokenizer, settings.chat_template, settings.chat_arguments)
    samples = samples_of(task, FramedEncoder(tokenizer, special), settings.seed, settings.limit)
    context = context_of(longest_text, settings.max_context, settings.truncate, settings.thinking or 0)
    if context:
        ask = functools.partial(ask_or_skip, task, Skips(settings.on_error))
        measure(samples, tokenizer, context, special, ask=ask)


def check_tasks(tasks: Sequence[Task], tokenizer: Tokenizer, longest_text: int | None, settings: Settings) -> None:
    """``check_task`` for each, with its name in the message where there are several."""
    for task in tasks:
        try:
            check_task(task, tokenizer, longest_text, settings)
        except UserError as error:
            if len(tasks) == 1 or f"task {task.name}" in error.message:
                raise
            # A file may be fine for one task and wrong for another.
            raise UserError(f"task {task.name}: {error.message}", error.hint) from error


def evaluate_tasks(
    model: str | LoadedModel,
    tasks: Sequence[Wanted | Task],
    settings: Settings,
    *,
    options: Mapping[str, Any],
    data: Sequence[str],
    device: str,
    dtype: str,
    progress: bool,
) -> list[RunRecord]:
    """See ``famcli.evaluate``."""
    made = _make_tasks(tasks, options, data)
    for task in made:
        _check_identity(task, settings)
    with _heard() if progress else nullcontext():
        if isinstance(model, str):
            loaded = _load(model, made, settings, device, dtype)
        elif (device, dtype) != ("auto", "auto"):
            raise UserError(
                f"the model '{model.name}' is loaded already, and a device or dtype is given",
                f"for example: famcli.load_model({model.name!r}, device={device!r}, dtype={dtype!r})",
            )
        else:
            loaded = model
            check_tasks(made, model.tokenizer, model.stream.longest_text, settings)
        return [_run(loaded, task, settings, progress) for task in made]


def _load(spec: str, tasks: Sequence[Task], settings: Settings, device: str, dtype: str) -> LoadedModel:
    """Finds the model, and reads its weights once every task fits it."""
    where = pick_device(device)
    program()  # before the first model is opened
    source = find_model(spec)
    check_tasks(tasks, source.tokenizer, source.longest_text, settings)
    if source.untrained_memory:
        logger.warning("warning: %s: %s: nobody has trained its memory", source.name, source.untrained_memory)
    beside = held_beside()
    return replace(source.load(where, pick_dtype(dtype, where, source)), beside=beside)


def _run(model: LoadedModel, task: Task, settings: Settings, progress: bool) -> RunRecord:
    title = f"{model.name} on {task.name}"
    shown = PlainProgress(title, _say, lambda: taken(model.device)) if progress else None
    return evaluate(model, task, **vars(settings), progress=shown)


def _make_tasks(tasks: Sequence[Wanted | Task], options: Mapping[str, Any], data: Sequence[str]) -> list[Task]:
    """In the order given; a task that was made by the caller has its options already."""
    if not tasks:
        raise UserError("no task is given", 'for example: famcli.evaluate("fam-tiny", "passkey")')
    entries: list[tuple[Wanted, Mapping[str, str]]] = [(task, {}) for task in tasks if not isinstance(task, Task)]
    if not entries and (options or data):
        raise UserError(
            "options or data are given, and every task has its own already", "give them to the tasks, or give a name"
        )
    chosen = iter(choose_tasks(entries, {name: option_text(value) for name, value in options.items()}, data))
    return [task if isinstance(task, Task) else next(chosen) for task in tasks]


def option_text(value: Any) -> str:
    """A value of Python as it is typed after ``-o name=``: ``[1024, 4096]`` is ``1024,4096``, ``True`` is ``true``."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(option_text, value))
    return str(value)


def _check_identity(task: Task, settings: Settings) -> None:
    """A run of a task whose source no file holds could not be told from one after an edit."""
    kind = type(task)
    if settings.fresh or kind.__module__.partition(".")[0] == "famcli" or source_sha256(kind):
        return
    raise UserError(
        f"task {task.name}: no file holds the source of its class {kind.__name__}, so a run of it cannot be told from "
        "one after an edit",
        "write it to a file and give './my_task.py:MyTask', or give fresh=True",
    )


def as_list(tasks: Wanted | Task | Sequence[Wanted | Task]) -> list[Wanted | Task]:
    """One task, or several."""
    return [tasks] if isinstance(tasks, str | type | Task) else list(tasks)


def data_words(data: str | Path | Mapping[str, str | Path] | None) -> list[str]:
    """As typed after ``--data``: one source for all tasks, or one for each."""
    if data is None:
        return []
    if isinstance(data, Mapping):
        return [f"{name}={source}" for name, source in data.items()]
    return [str(data)]


@contextmanager
def _heard() -> Iterator[None]:
    """Shows warnings on standard error, unless somebody else does already."""
    handler = _Shown(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Shown(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _say(record.getMessage())


def _say(line: str) -> None:
    print(visible(line), file=sys.stderr, flush=True)
