"""Runs a task on a model and keeps what happened: each sample is asked once, whatever interrupts the run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from famcli.claim import claim
from famcli.errors import UserError
from famcli.evaluation.aggregate import aggregate
from famcli.evaluation.answering import Answering
from famcli.evaluation.asking import OnError, Skips
from famcli.evaluation.asking_remote import groups_of
from famcli.evaluation.drawing import Sampling
from famcli.evaluation.environment import environment
from famcli.evaluation.finished import earlier_run, finished_run, shown_again
from famcli.evaluation.identity import now
from famcli.evaluation.journal import JOURNAL_NAME, Entry, Journal
from famcli.evaluation.kept_prompts import PromptKeeper
from famcli.evaluation.plan import Group, Planned, plan
from famcli.evaluation.progress import Progress
from famcli.evaluation.prompts import Side
from famcli.evaluation.record import RunRecord, Skipped
from famcli.evaluation.settings import Settings
from famcli.evaluation.shards import Shard
from famcli.evaluation.stream import StateKeeper, forget_states
from famcli.evaluation.workers.job import Asked, units
from famcli.machine.peak import PeakMemory
from famcli.models.remote import Remote
from famcli.task import Sample, Task

if TYPE_CHECKING:
    from famcli.checkpoints.sources import LoadedModel
    from famcli.evaluation.workers.crew import Crew

logger = logging.getLogger(__name__)

CPU_ROWS, CUDA_ROWS = 16, 64
CPU_STATE_BYTES = 2 * 1024**3


def evaluate(
    model: LoadedModel,
    task: Task,
    *,
    results: Path,
    seed: int = 0,
    limit: int | None = None,
    limit_documents: int | None = None,
    max_context: int | None = None,
    truncate: Side | None = None,
    chat_template: bool = False,
    chat_arguments: Mapping[str, Any] | None = None,
    system_prompt: str | None = None,
    sampling: Sampling | None = None,
    thinking: int | None = None,
    leaves_out: bool = False,
    batch_size: int | None = None,
    fresh: bool = False,
    on_error: OnError = "stop",
    keep_prompts: bool = False,
    shard: Shard | None = None,
    progress: Progress | None = None,
    crew: Crew | None = None,
) -> RunRecord:
    """Runs ``task`` on ``model``, or goes on with such a run, or returns it at once when it is finished.

    The run lies in ``results/<run-id>``: ``samples.jsonl`` gets a line a sample as soon as its batch is answered, and
    the scores are computed from these lines alone, so a run that was killed ends like one that was not. A document that
    several samples are about is read once; the state of a long one is kept on the way, so that a killed run goes
    on in the middle of it. Neither that nor the batch size changes the answers, except for the rounding of matrix
    products in the last bit.

    Args:
        model: the loaded model.
        task: the task with its options.
        results: where runs are kept.
        seed: passed to the task.
        limit: most samples; ``None`` is all.
        limit_documents: most documents, see ``famcli.evaluation.asking.Limits``.
        max_context: the most tokens prompt and answer may take. ``None`` is no bound, but under ``full`` attention the
            length it was trained on, where that is known.
        truncate: which part of a document beyond ``max_context`` is cut; ``None`` makes it an error.
        chat_template: put every prompt as one user turn into the model's chat template; texts to predict are read bare.
        chat_arguments: variables of the chat template.
        system_prompt: the text of a message of the system before every prompt; needs the chat template.
        sampling: draws answers, each from a generator of its own, by seed, sample and number of the draw; the scores of
            a sample are means over its draws. ``None`` takes the most likely token each time.
        thinking: thoughts before an answer, up to this number of tokens, are no part of it; nor is white space.
        leaves_out: without ``max_context``, cells and documents beyond the length a model was trained on are left out,
            as long as others are there; the record counts them. Which they are follows from what the run id hashes.
        batch_size: samples answered together. ``None`` is 16, on CUDA 64, or as many as keep the stream states within
            2 GiB, on CUDA within a quarter of the free memory.
        fresh: start over; the run so far is kept in ``results/<run-id>.old-N``.
        on_error: what to do with a sample that the task fails on, see ``Skips``. A finished run that lacks samples goes
            on where it is ``stop``.
        keep_prompts: keep every prompt as it was read, in ``prompts.jsonl.gz``; it changes no answer and no run id.
        shard: the part of the documents to ask about, a run of its own; ``None`` is all.
        progress: shows how the run advances.
        crew: workers that answer in place of ``model``, which may be an outline then; without them this process does.

    Raises:
        UserError: a value does not fit, a sample does not fit the context, the model has no chat template, a file of
            the run is damaged or cannot be written, or another process is working on this run.
    """
    settings = Settings(
        results=results,
        seed=seed,
        limit=limit,
        limit_documents=limit_documents,
        max_context=max_context,
        truncate=truncate,
        chat_template=chat_template,
        chat_arguments=chat_arguments,
        system_prompt=system_prompt,
        sampling=sampling,
        thinking=thinking,
        leaves_out=leaves_out,
        batch_size=batch_size,
        fresh=fresh,
        on_error=on_error,
        keep_prompts=keep_prompts,
        shard=shard,
    )
    record = settings.record(model, task)
    tell = partial(_tell, model, task)
    if finished := shown_again(record, settings, tell):
        return finished
    context = settings.context(model.stream.longest_text)
    special = settings.special(model.tokenizer)
    skips = Skips(on_error, tell)
    drawn = settings.draw(task, model.tokenizer, model.stream.longest_text, skips, tell)
    samples, planned, record.left_out = drawn.samples, drawn.planned, drawn.left_out
    _warn_of_long(planned, model.stream.longest_text, tell)
    if record.shard:
        record.shard["places"] = drawn.places
    if isinstance(model.stream, Remote):
        _check_remote(
            model.stream,
            {
                "--chat-template": chat_template,
                "--strip-thinking": thinking,
                "--temperature": sampling,
                "--keep-prompts": keep_prompts,
                "--workers": crew,
            },
        )
        planned = [replace(p, shared_tokens=0) for p in planned]  # it reads every prompt by itself
    fitting = {p.sample.id for p in planned}
    with claim(record.path, fresh, within=results):
        if finished := finished_run(record.path, on_error):
            return finished
        if earlier := earlier_run(record.path):
            record.started = earlier.started
        journal = Journal(record.path / JOURNAL_NAME)
        _check_journal(journal, samples, task)
        record.environment, record.planned = environment(), len(planned)
        record.save()
        rows = batch_size or _automatic_batch_size(model, planned, crew)
        groups, drawing = _groups(model, planned, rows, journal), settings.drawing(rows)
        if crew:
            groups = [unit.group for unit in units(groups)]  # a header is read by each worker, and progress counts that
            asked = Asked(model, task, context, special, thinking, drawing)
            answers = crew.answers(record, asked, groups, skips, progress)
        else:
            prompts = PromptKeeper(record.path, model.tokenizer, special, context) if keep_prompts else None
            answering = Answering(
                model=model,
                task=task,
                context=context,
                special=special,
                thinking=thinking,
                drawing=drawing,
                keeper=StateKeeper(record.path),
                skips=skips,
                advance=progress.advance if progress else lambda tokens: None,
                peak=PeakMemory(model.device, model.beside),
                prompts=prompts,
            )
            answers = answering.answers(groups)
        _keep(answers, journal, len(planned), groups, progress)
        journal.check()
        answered = [sample.id for sample in samples if sample.id in fitting and sample.id in journal.entries]
        if not answered:
            raise skips.all_failed(task)
        aggregate(record, task.metrics, [journal.entries[id] for id in answered])
        record.skipped = [Skipped(id=id, why=why) for id, why in skips.reasons.items() if id not in journal.entries]
        record.status, record.finished, record.planned = "finished", now(), None
        record.save()
        forget_states(record.path)
    return record


def _check_remote(remote: Remote, wanted: Mapping[str, object]) -> None:
    """Raises ``UserError`` where something is asked that is done with tokens, or with weights, here."""
    if asked := [option for option, value in wanted.items() if value]:
        raise UserError(
            f"{remote.name} answers elsewhere, to texts, and {asked[0]} is not for it", f"leave out {asked[0]}"
        )


def _warn_of_long(planned: Sequence[Planned], longest: int | None, tell: Callable[[str], None]) -> None:
    """Of prompts that ``--max-context`` lets grow beyond what the model was made to read."""
    count = sum(p.prompt_tokens > longest for p in planned) if longest is not None else 0
    if count:
        tell(
            f"{count:,} of {len(planned):,} prompts are longer than the {longest:,} tokens that the model was made to "
            "read: how it answers them says little of it"
        )


def _tell(model: LoadedModel, task: Task, message: str) -> None:
    logger.warning("warning: %s on %s: %s", model.name, task.name, message)


def _check_journal(journal: Journal, samples: Sequence[Sample], task: Task) -> None:
    """A journal that was edited, or written under the same version of a changed task, must not be mixed in."""
    known = {sample.id: sample for sample in samples}
    metrics = {metric.name for metric in task.metrics}
    for entry in journal.entries.values():
        sample = known.get(entry.id)
        if sample is None or entry.reference != sample.reference or entry.scores.keys() != metrics:
            raise UserError(
                f"{journal.path}: sample {entry.id} is not one of this run",
                "--fresh starts over and keeps this run beside the new one",
            )


def _automatic_batch_size(model: LoadedModel, planned: Sequence[Planned], crew: Crew | None = None) -> int:
    """See ``evaluate``; one for the whole run, whatever of it has been answered, and whoever answers."""
    rows, room = CPU_ROWS, CPU_STATE_BYTES
    if model.device.type == "cuda" and crew is None:
        rows, room = CUDA_ROWS, torch.cuda.mem_get_info(model.device)[0] // 4
    longest = max(p.prompt_tokens + p.option_tokens for p in planned)
    return max(1, min(rows, room // model.stream.state_bytes(longest)))


def _groups(model: LoadedModel, planned: Sequence[Planned], batch_size: int, journal: Journal) -> list[Group]:
    """What the journal lacks, in the order in which it is asked."""
    if isinstance(model.stream, Remote):
        return groups_of(planned, frozenset(journal.entries))
    return plan(planned, batch_size, journal.entries.keys())


def _keep(
    answers: Generator[list[Entry]], journal: Journal, samples: int, groups: Sequence[Group], progress: Progress | None
) -> None:
    """Writes the answers to the journal as they come."""
    if progress:
        progress.begin(samples, len(journal.entries), sum(group.tokens for group in groups))
    try:
        for entries in answers:
            journal.append(entries)
    finally:
        answers.close()
        if progress:
            progress.end()
