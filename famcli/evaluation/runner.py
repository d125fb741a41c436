"""Runs a task on a model and keeps what happened: each sample is asked once, whatever interrupts the run."""

from __future__ import annotations

import hashlib
import json
import math
import re
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from famcli.errors import UserError
from famcli.evaluation.generation import Answer, generate
from famcli.evaluation.journal import JOURNAL_NAME, Entry, Journal, claim
from famcli.evaluation.plan import plan
from famcli.evaluation.record import (
    RECORD_NAME,
    SCHEMA_VERSION,
    Cost,
    ModelFields,
    RunRecord,
    TaskFields,
    environment,
    load_record,
)
from famcli.metrics.statistics import Metric, mean
from famcli.task import Sample, Task

if TYPE_CHECKING:
    from famcli.models.registry import LoadedModel

CPU_ROWS, CUDA_ROWS = 16, 64
CPU_STATE_BYTES = 2 * 1024**3


class Progress(Protocol):
    """Told how a run advances."""

    def begin(self, samples: int, done: int, tokens: int) -> None:
        """The run has so many samples, so many of them done, and so many prompt tokens still to read."""
        ...

    def advance(self, tokens: int) -> None:
        """So many more prompt tokens have been read."""
        ...

    def end(self) -> None:
        """The run is over or broken off."""
        ...


def evaluate(
    model: LoadedModel,
    task: Task,
    *,
    results: Path,
    seed: int = 0,
    limit: int | None = None,
    batch_size: int | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
) -> RunRecord:
    """Runs ``task`` on ``model``, or goes on with such a run, or returns it at once when it is finished.

    The run lies in ``results/<run-id>``: ``samples.jsonl`` gets a line a sample as soon as its batch is answered, and
    the scores are computed from these lines alone, so a run that was killed ends like one that was not. The answers do
    not depend on the batch size, but for the rounding of matrix products that may differ with it in the last bit.

    Args:
        model: the loaded model.
        task: the task with its options.
        results: where runs are kept.
        seed: passed to the task.
        limit: at most so many samples; ``None`` is all.
        batch_size: samples answered together. ``None`` is 16, on CUDA 64, or as many as keep the stream states within
            2 GiB, on CUDA within a quarter of the free memory.
        fresh: start over; the run so far is kept in ``results/<run-id>.old-N``.
        progress: told how the run advances.

    Raises:
        UserError: a value does not fit, a file of the run is damaged or cannot be written, or another process is
            working on this run.
    """
    for name, value in (("limit", limit), ("batch size", batch_size)):
        if value is not None and value < 1:
            raise UserError(f"the {name} must be at least 1, not {value}")
    record = _new_record(model, task, results, seed, limit)
    if not fresh and (finished := _finished(record.path)):
        return finished
    samples = _samples(model, task, seed, limit)
    with claim(record.path, fresh):
        if earlier := _earlier(record.path):
            if earlier.status == "finished":
                return earlier
            record.started = earlier.started
        journal = Journal(record.path / JOURNAL_NAME)
        _check_journal(journal, samples, task)
        record.environment = environment()
        record.save()
        _answer(model, task, samples, journal, batch_size or _automatic_batch_size(model), progress)
        _aggregate(record, task, samples, journal.entries)
        record.status, record.finished = "finished", _now()
        record.save()
    return record


def _new_record(model: LoadedModel, task: Task, results: Path, seed: int, limit: int | None) -> RunRecord:
    config = model.decoder.config
    record = RunRecord(
        path=results,
        run_id="",
        schema_version=SCHEMA_VERSION,
        status="running",
        model=ModelFields(
            name=model.name,
            config=asdict(config),
            weights_sha256=model.weights_sha256,
            tokenizer=model.tokenizer.name,
            parameters=sum(weight.numel() for weight in model.decoder.parameters()),
            receptive_field=config.receptive_field,
        ),
        # Through JSON, so that a record is the same whether it was just made or read from its file.
        task=TaskFields(name=task.name, version=task.version, options=json.loads(json.dumps(asdict(task.options)))),
        seed=seed,
        limit=limit,
        device=str(model.device),
        dtype=str(model.dtype).removeprefix("torch."),
        environment={"python": "", "torch": "", "famcli": "", "git_commit": None, "platform": ""},
        metrics={},
        cells=[],
        cost=_cost([]),
        started=_now(),
        finished=None,
    )
    run_id = _run_id(record, model.device.type)
    return replace(record, run_id=run_id, path=results / run_id)


def _run_id(record: RunRecord, device_type: str) -> str:
    """Task and model, to be readable, and 12 hex digits over all that determines the answers."""
    identity = {
        "schema_version": record.schema_version,
        "config": record.model["config"],
        "weights_sha256": record.model["weights_sha256"],
        "tokenizer": record.model["tokenizer"],
        "task": record.task,
        "seed": record.seed,
        "limit": record.limit,
        "device": device_type,
        "dtype": record.dtype,
    }
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:12]
    readable = re.sub("[^A-Za-z0-9_.]+", "-", f"{record.task['name']}-{record.model['name'].rstrip('/')}")
    return f"{readable[:80].strip('-.')}-{digest}"


def _finished(directory: Path) -> RunRecord | None:
    earlier = _earlier(directory)
    return earlier if earlier and earlier.status == "finished" else None


def _earlier(directory: Path) -> RunRecord | None:
    """The record of the processes before this one.

    Raises:
        UserError: it is damaged.
    """
    if not (directory / RECORD_NAME).exists():
        return None
    try:
        return load_record(directory)
    except UserError as error:
        raise UserError(error.message, "--fresh starts over and keeps the damaged run beside the new one") from error


def _samples(model: LoadedModel, task: Task, seed: int, limit: int | None) -> list[Sample]:
    samples = task.samples(model.tokenizer, seed, limit)
    if not samples:
        raise UserError(f"task {task.name} gives no samples with these options")
    if len({sample.id for sample in samples}) < len(samples):
        raise UserError(f"task {task.name} gives two samples the same id")
    return samples


def _check_journal(journal: Journal, samples: Sequence[Sample], task: Task) -> None:
    """A journal that was edited, or written under the same version of a changed task, must not be mixed in."""
    known = {sample.id: sample for sample in samples}
    for entry in journal.entries.values():
        sample = known.get(entry.id)
        if sample is None or entry.reference != sample.reference or entry.scores.keys() != set(task.metrics):
            raise UserError(
                f"{journal.path}: sample {entry.id} is not one of this run",
                "--fresh starts over and keeps this run beside the new one",
            )


def _automatic_batch_size(model: LoadedModel) -> int:
    rows, room = CPU_ROWS, CPU_STATE_BYTES
    if model.device.type == "cuda":
        rows, room = CUDA_ROWS, torch.cuda.mem_get_info(model.device)[0] // 4
    with torch.no_grad():
        return max(1, min(rows, room // model.decoder.start(1).nbytes))


def _answer(
    model: LoadedModel,
    task: Task,
    samples: Sequence[Sample],
    journal: Journal,
    batch_size: int,
    progress: Progress | None,
) -> None:
    """Answers what the journal lacks."""
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
    batches = plan(samples, batch_size, journal.entries.keys())
    advance = progress.advance if progress else lambda tokens: None
    if progress:
        pending = sum(sample.prompt_tokens for batch in batches for sample in batch)
        progress.begin(len(samples), len(journal.entries), pending)
    try:
        for batch in batches:
            begun = time.perf_counter()
            answers = generate(model.decoder, model.tokenizer, [sample.request() for sample in batch], advance)
            seconds = (time.perf_counter() - begun) / len(batch)
            peak = _peak_memory(model.device)
            journal.append(
                [_entry(task, *pair, seconds, peak) for pair in zip(batch, answers, strict=True)],
            )
    finally:
        if progress:
            progress.end()


def _entry(task: Task, sample: Sample, answer: Answer, seconds: float, peak_memory: int) -> Entry:
    if answer.prompt_tokens != sample.prompt_tokens:
        raise UserError(
            f"task {task.name}: sample {sample.id} announced {sample.prompt_tokens} prompt tokens "
            f"and has {answer.prompt_tokens}"
        )
    scores = {name: float(value) for name, value in sample.score(answer.generated).items()}
    if scores.keys() != set(task.metrics) or not all(map(math.isfinite, scores.values())):
        raise UserError(f"task {task.name}: sample {sample.id} is scored {scores}, not a number for each metric")
    return Entry(
        id=sample.id,
        cell=dict(sample.cell),
        details=dict(sample.details),
        prompt_sha256=answer.prompt_sha256,
        prompt_tokens=answer.prompt_tokens,
        output=answer.generated.text,
        output_ids=list(answer.generated.token_ids),
        reference=sample.reference,
        scores=scores,
        truncated=False,
        seconds=seconds,
        state_bytes=answer.state_bytes,
        peak_memory_bytes=peak_memory,
    )


def _aggregate(record: RunRecord, task: Task, samples: Sequence[Sample], entries: dict[str, Entry]) -> None:
    """Fills in metrics, cells and cost, in the order of the task's samples whatever the order of the answers."""
    ordered = [entries[sample.id] for sample in samples]
    record.metrics = _metrics(task, ordered)
    cells: dict[str, list[Entry]] = {}
    for entry in ordered:
        cells.setdefault(json.dumps(entry.cell), []).append(entry)
    record.cells = [_cell(members[0].cell, _metrics(task, members)) for members in cells.values()]
    record.cost = _cost(ordered)


def _metrics(task: Task, entries: Sequence[Entry]) -> dict[str, Metric]:
    return {name: mean([entry.scores[name] for entry in entries]) for name in task.metrics}


def _cell(settings: dict[str, Any], metrics: dict[str, Metric]) -> dict[str, Any]:
    values = {name: metric.value for name, metric in metrics.items()}
    errors = {f"{name}_stderr": metric.stderr for name, metric in metrics.items()}
    return {**settings, **values, **errors, "n": max(metric.n for metric in metrics.values())}


def _cost(entries: Sequence[Entry]) -> Cost:
    read = sum(entry.prompt_tokens for entry in entries)
    generated = sum(len(entry.output_ids) for entry in entries)
    seconds = math.fsum(entry.seconds for entry in entries)
    return Cost(
        tokens_read=read,
        tokens_generated=generated,
        seconds=seconds,
        tokens_per_second=(read + generated) / seconds if seconds else 0.0,
        peak_memory_bytes=max((entry.peak_memory_bytes for entry in entries), default=0),
        state_bytes=max((entry.state_bytes for entry in entries), default=0),
    )


def _peak_memory(device: torch.device) -> int:
    """Bytes; see ``record.Cost``."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
