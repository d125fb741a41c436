"""Several tasks on one model, as ``famcli.evaluate`` runs them: all is checked before anything runs."""

from __future__ import annotations

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
from famcli.evaluation.choice import ChosenTask, Given, TaskEntry, Wanted, choose_tasks
from famcli.evaluation.fitting import check_tasks
from famcli.evaluation.progress import PlainProgress
from famcli.evaluation.runner import evaluate
from famcli.evaluation.settings import Settings
from famcli.evaluation.suites import find_suite
from famcli.files import source_sha256
from famcli.machine.peak import held_beside, program, taken
from famcli.task import Task

if TYPE_CHECKING:
    from famcli.checkpoints.tokenizer import Tokenizer
    from famcli.evaluation.record import RunRecord

logger = logging.getLogger("famcli")


def evaluate_tasks(
    model: str | LoadedModel,
    tasks: Sequence[Wanted | Task],
    settings: Settings,
    *,
    suites: Sequence[str],
    options: Mapping[str, Any],
    data: Sequence[str],
    split: str | None,
    device: str,
    dtype: str,
    progress: bool,
) -> list[RunRecord]:
    """See ``famcli.evaluate``."""
    _check_types(model, options)
    typed = {name: option_text(value) for name, value in options.items()}
    made = _make_tasks(tasks, suites, Given(typed, data, split, settings.limit, settings.limit_documents))
    for chosen in made:
        _check_identity(chosen.task, settings)
    with _heard() if progress else nullcontext():
        if isinstance(model, str):
            loaded, fitting = _load(model, made, settings, device, dtype)
        elif (device, dtype) != ("auto", "auto"):
            raise UserError(
                f"the model '{model.name}' is loaded already, and a device or dtype is given",
                f"for example: famcli.load_model({model.name!r}, device={device!r}, dtype={dtype!r})",
            )
        else:
            loaded = model
            fitting = _fitting(model.name, made, model.tokenizer, model.stream.longest_text, settings)
        return [_run(loaded, chosen, settings, progress) for chosen in fitting]


def _check_types(model: Any, options: Any) -> None:
    """What a program may confuse, and no command line can."""
    if not isinstance(model, str | LoadedModel):
        raise UserError(
            f"model must be a spec, or what load_model gave, not {type(model).__name__}",
            "for several models, call evaluate for each of them",
        )
    if not isinstance(options, Mapping):
        raise UserError(f"options must be a mapping, not {type(options).__name__}", 'for example: {"lengths": ["1k"]}')


def _fitting(
    name: str, tasks: Sequence[ChosenTask], tokenizer: Tokenizer, longest_text: int | None, settings: Settings
) -> list[ChosenTask]:
    """The tasks that a model is asked; a warning for each of a suite of which nothing fits."""
    fitting, left_out = check_tasks(tasks, tokenizer, longest_text, settings)
    if not fitting:
        task, why = left_out[0]
        raise UserError(f"nothing of the suite fits the model {name}: task {task}: {why}")
    for task, why in left_out:
        logger.warning("warning: %s on %s: nothing of it fits, and it is left out: %s", name, task, why)
    return fitting


def _load(
    spec: str, tasks: Sequence[ChosenTask], settings: Settings, device: str, dtype: str
) -> tuple[LoadedModel, list[ChosenTask]]:
    """Finds the model, and reads its weights once every task fits it."""
    where = pick_device(device)
    program()  # before the first model is opened
    source = find_model(spec)
    picked = pick_dtype(dtype, where, source)
    fitting = _fitting(source.name, tasks, source.tokenizer, source.longest_text, settings)
    if source.untrained_memory:
        logger.warning("warning: %s: %s: nobody has trained its memory", source.name, source.untrained_memory)
    beside = held_beside()
    return replace(source.load(where, picked), beside=beside), fitting


def _run(model: LoadedModel, chosen: ChosenTask, settings: Settings, progress: bool) -> RunRecord:
    title = f"{model.name} on {chosen.task.name}"
    shown = PlainProgress(title, _say, lambda: taken(model.device)) if progress else None
    return evaluate(model, chosen.task, **vars(settings.of(chosen)), progress=shown)


def _make_tasks(tasks: Sequence[Wanted | Task], suites: Sequence[str], given: Given) -> list[ChosenTask]:
    """In the order given, those of suites last; a task that was made by the caller has its options already."""
    if not tasks and not suites:
        raise UserError(
            "no task is given",
            'for example: famcli.evaluate("fam-tiny", "passkey"), or famcli.evaluate(..., suite="quick")',
        )
    of_suites = [entry for name in suites for entry in find_suite(name).entries]
    entries = [*(TaskEntry(task) for task in tasks if not isinstance(task, Task)), *of_suites]
    if not entries and (given.options or given.data or given.split):
        raise UserError(
            "options, data or a split are given, and every task has its own already",
            "give them to the tasks, or give a name",
        )
    chosen = iter(choose_tasks(entries, given, leaves_out=True, note=logger.warning))
    bounds = given.limit, given.limit_documents
    made = [ChosenTask(task, *bounds) if isinstance(task, Task) else next(chosen) for task in tasks]
    return [*made, *chosen]


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


def suite_names(suite: str | Sequence[str] | None) -> list[str]:
    """One suite, several, or none."""
    return [suite] if isinstance(suite, str) else list(suite or ())


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
