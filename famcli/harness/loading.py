"""Finds a task of lm-evaluation-harness by its name, and makes it on rows of the user's in place of its data set."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from famcli.errors import UserError, closest, printable

INSTALL = "pip install 'famcli[lm-eval]'"
LISTING = "lm_eval ls tasks"
_NAMED = re.compile(r"^(task|group):[ \t]*[\"']?([^\s\"'#]+)", re.MULTILINE)
Rows = Sequence[Mapping[str, Any]]
SAMPLERS = TASKS_OWN, FIRST = "task", "first_n"
"""How examples are drawn; the second is a name of the harness."""


@contextmanager
def harness(name: str) -> Iterator[None]:
    """The harness is there, and says nothing of its own; what it raises is told of as a fault of the task ``name``.

    Raises:
        UserError: it is not installed, or fails.
    """
    try:
        import lm_eval  # noqa: F401
    except ImportError as error:
        raise UserError(f"task {name} needs lm-evaluation-harness, which is not installed", INSTALL) from error
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    theirs, bars = logging.getLogger("lm_eval"), not are_progress_bars_disabled()
    level = theirs.level
    theirs.setLevel(logging.CRITICAL)
    disable_progress_bars()
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of every kind: rows may lack what the task wants of them
        reason = printable(" ".join(str(error).split()), 300)
        hint = "rows need the fields that the data set has on the hub"
        if isinstance(error, ImportError):
            hint = "this task wants a package, or a version of one, that is not installed"
        raise UserError(f"task {name}: lm-evaluation-harness fails: {type(error).__name__}: {reason}", hint) from error
    finally:
        theirs.setLevel(level)
        if bars:
            enable_progress_bars()


@lru_cache(maxsize=1)
def _names() -> tuple[dict[str, Path], set[str]]:
    """The files of tasks by name, and the names of groups. Reading the files as YAML would take many seconds."""
    import lm_eval.tasks

    tasks, groups = dict[str, Path](), set[str]()
    for folder in lm_eval.tasks.__path__:
        for file in sorted(Path(folder).rglob("*.yaml")):
            for kind, name in _NAMED.findall(file.read_text(encoding="utf-8", errors="replace")):
                if kind == "group":
                    groups.add(name)
                else:
                    tasks.setdefault(name, file)
    return tasks, groups


def find_file(name: str, called: str) -> Path:
    """The file of the task ``name`` of the harness; ``called`` is what the user typed.

    Raises:
        UserError: there is none, or it is a group of tasks.
    """
    tasks, groups = _names()
    if name in tasks:
        return tasks[name]
    if name in groups:
        raise UserError(f"{called} is a group of tasks", f"give its tasks by their names: {LISTING} shows them")
    raise UserError(
        f"unknown task of lm-evaluation-harness '{printable(name)}'", closest(name, tasks) or f"{LISTING} shows all"
    )


def make(file: Path, rows: Rows | None, examples: Mapping[str, Rows] | None = None) -> Any:
    """The task of a file; its data set is ``rows`` whatever split it is asked for, ``None`` for that of the hub.

    Args:
        file: names the task.
        rows: what is evaluated.
        examples: splits that have rows of their own.
    """
    import datasets
    from lm_eval.tasks import TaskManager

    def local(*_: Any, **__: Any) -> dict[str, Any]:
        return _Splits(rows or (), examples or {})

    load = datasets.load_dataset
    if rows is not None:
        datasets.load_dataset = local
    try:
        found = TaskManager(include_defaults=False).load([str(file)])["tasks"]
    finally:
        datasets.load_dataset = load
    (task,) = found.values()
    return task


class _Splits(dict[str, Any]):
    """A data set of the same rows in every split but those that have their own."""

    def __init__(self, rows: Rows, others: Mapping[str, Rows]) -> None:
        from datasets import Dataset

        super().__init__({name: Dataset.from_list([dict(row) for row in own]) for name, own in others.items()})
        self.rows = Dataset.from_list([dict(row) for row in rows])

    def __missing__(self, split: str) -> Any:
        return self.rows


def examples_apart(task: Any) -> str | None:
    """The split that examples come from, where it is none of those that are evaluated; ``None`` without such a one."""
    config = task.config
    chosen = config.fewshot_config
    if chosen is not None and getattr(chosen, "samples", None) is not None:
        return None
    evaluated = config.test_split if task.has_test_docs() else config.validation_split
    named = getattr(chosen, "split", None) if chosen is not None else None
    for split in (named, config.training_split, config.validation_split):
        if split is not None:
            return None if split == evaluated else str(split)
    return "train" if task.has_training_docs() and config.training_split is None else None


def take_first(task: Any, called: str) -> None:
    """Has every prompt of the task begin with the same examples, the first ones; ``called`` is what the user typed.

    Raises:
        UserError: its prompts have no examples.
    """
    from lm_eval.api.samplers import get_sampler

    drawn = getattr(task, "sampler", None)
    if not task.config.num_fewshot or drawn is None:
        raise UserError(
            f"task {called}: fewshot_sampler is given, and there are no examples in prompts",
            "-o num_fewshot=5 has five in each; or leave it out",
        )
    task.sampler = get_sampler(FIRST)(drawn.df)
