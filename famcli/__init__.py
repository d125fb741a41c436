"""famcli: does this model remember what it read long ago, and what did that cost?

``evaluate`` runs tasks on a model, ``compare`` sets runs side by side, ``load_runs`` gives them as pandas frames, and
``load_model`` gives a model that reads. What a caller can put right is a ``UserError``. See docs/python.md.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from famcli.errors import UserError
from famcli.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from famcli.checkpoints.sources import LoadedModel
    from famcli.compare.cells import By
    from famcli.evaluation.asking import OnError
    from famcli.evaluation.prompts import Side
    from famcli.evaluation.record import RunRecord
    from famcli.reports.frames import Frames
    from famcli.reports.shown import ShownComparison
    from famcli.task import Task

__all__ = ["UserError", "__version__", "compare", "evaluate", "load_model", "load_runs"]

# Whoever imports a package says what is shown of its warnings; nothing is by itself.
logging.getLogger("famcli").addHandler(logging.NullHandler())

# The room of this name is imported now: when it is imported later, Python would put it in the place of the function.
importlib.import_module("famcli.compare")


def load_model(spec: str, device: str = "auto", dtype: str = "auto") -> LoadedModel:
    """Finds, checks and loads a model, in evaluation mode; its weights want no gradient.

    Args:
        spec: what ``--model`` takes: a preset, a directory, a GGUF file or a hub id, and fields to override, such as
            ``fam-tiny,block_size=256``.
        device: ``auto`` (CUDA, else MPS, else the processor), ``cuda``, ``mps`` or ``cpu``.
        dtype: ``auto``, ``float32`` or ``bfloat16``; ``auto`` is bfloat16 on CUDA for weights stored in 16 bits.

    Raises:
        UserError: there is no such model, device or dtype, or its files are not usable.
    """
    from famcli.checkpoints import registry

    return registry.load_model(spec, device, dtype)


def evaluate(
    model: str | LoadedModel,
    tasks: str | Task | type[Task] | Sequence[str | Task | type[Task]] = (),
    *,
    suite: str | Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    data: str | Path | Mapping[str, str | Path] | None = None,
    split: str | None = None,
    output: str | Path = "results",
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int | None = None,
    limit: int | None = None,
    limit_documents: int | None = None,
    max_context: int | None = None,
    truncate: Side | None = None,
    chat_template: bool = False,
    chat_arguments: Mapping[str, Any] | None = None,
    system_prompt: str | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    draws: int | None = None,
    thinking: int | None = None,
    seed: int = 0,
    on_error: OnError = "stop",
    fresh: bool = False,
    keep_prompts: bool = False,
    progress: bool = False,
) -> list[RunRecord]:
    """Runs tasks on a model as ``famcli eval`` does, with the same run ids; a finished run is given back at once.

    All tasks are checked before the first one runs. A call that was broken off is continued by the same call.

    Args:
        model: what ``load_model`` takes, or what it gave.
        tasks: a name, a task with its options, or its class; or several.
        suite: several tasks by the name of a suite, or by its file; or several suites. What of them is beyond the
            context of a full-attention model is left out; the models that a file names do not count.
        options: of the tasks, as after ``-o``: ``{"lengths": ["1k", "64k"], "trials": 20}``. Each goes to every task
            that has it; a task that was made with its options keeps them.
        data: a path, ``sample`` or ``hub``, for all tasks or by the name of a task.
        split: of data with several: ``train``, ``validation``, ``test`` or ``all``.
        output: the directory of the run records.
        device: see ``load_model``, as for ``dtype``; of a model that is to be loaded.
        dtype: see there.
        batch_size: samples read together; it changes no answer.
        limit: most samples of each task.
        limit_documents: most documents of each task.
        max_context: the most tokens that a prompt with its answer takes.
        truncate: what of a document beyond ``max_context`` is cut: ``left``, ``right`` or ``middle``.
        chat_template: every question is one user turn of the model's chat template.
        chat_arguments: variables of the chat template.
        system_prompt: a message of the system before every question, in the chat template.
        temperature: answers are drawn; otherwise each token is the most likely one.
        top_p: only the likeliest tokens that together have this likelihood are drawn.
        draws: answers drawn to each question, whose mean score is its score.
        thinking: what stands in ``<think>`` is no part of an answer; the most tokens of it.
        seed: given to the tasks.
        on_error: ``stop`` at the first sample that a task fails on, or ``skip`` such samples.
        fresh: start over where there is such a run already; the old one is kept beside it.
        keep_prompts: keep every prompt as it was read, for ``famcli show``; it changes no answer and no run id.
        progress: say on standard error how far a run is, and what it warns of; nothing is printed otherwise.

    Returns:
        A record a task, in order, those of suites last; its directory is ``record.path``, its scores
        ``record.metrics``.

    Raises:
        UserError: a name, an option or a value is wrong, the samples do not fit the model, or files cannot be used.
    """
    from pathlib import Path

    from famcli.evaluation.drawing import sampling_of
    from famcli.evaluation.settings import Settings
    from famcli.evaluation.several import as_list, data_words, evaluate_tasks, suite_names

    settings = Settings(
        results=Path(output),
        seed=seed,
        limit=limit,
        limit_documents=limit_documents,
        max_context=max_context,
        truncate=truncate,
        chat_template=chat_template,
        chat_arguments=chat_arguments,
        system_prompt=system_prompt,
        sampling=sampling_of(temperature, top_p, draws),
        thinking=thinking,
        batch_size=batch_size,
        fresh=fresh,
        on_error=on_error,
        keep_prompts=keep_prompts,
    )
    return evaluate_tasks(
        model,
        as_list(tasks),
        settings,
        suites=suite_names(suite),
        options=options or {},
        data=data_words(data),
        split=split,
        device=device,
        dtype=dtype,
        progress=progress,
    )


def compare(
    *runs: str | Path | RunRecord,
    baseline: str | Path | RunRecord | None = None,
    output: str | Path = "results",
    by: By | None = None,
    force: bool = False,
    held: float = 0.95,
) -> ShownComparison:
    """Sets finished runs side by side, as ``famcli compare`` does. ``print`` shows the tables, and so does a notebook.

    Args:
        runs: records, run directories, run ids or their beginnings, models; none means all runs in ``output``.
        baseline: what the others are compared with, sample by sample.
        output: the directory of the run records.
        by: what samples are grouped by: ``length``, ``language``, ``answer_type`` or ``document``.
        force: compare runs that are not comparable; the tables say so.
        held: the score from which a text counts as remembered, as ``--held``.

    Returns:
        Its ``rows`` hold scores, intervals and differences; ``render("markdown")`` and ``curves()`` show them.

    Raises:
        UserError: a name means no finished run, or runs cannot be compared.
    """
    from pathlib import Path

    from famcli.reports.shown import compare_runs

    return compare_runs(runs, baseline, Path(output), by=by, force=force, held=held)


def load_runs(*paths: str | Path) -> Frames:
    """Run records as pandas frames ``runs``, ``scores`` and ``samples``, see ``famcli.reports.frames``.

    Args:
        paths: directories of runs, run directories or their ``run.json``; none means ``results``.

    Raises:
        UserError: a path holds no run.
    """
    from famcli.reports import frames

    return frames.load_runs(*paths)
