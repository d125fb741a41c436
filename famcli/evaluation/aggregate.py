"""From the journal of a run to the figures of its record."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from famcli.evaluation.journal import Entry
from famcli.evaluation.record import Cost, RunRecord
from famcli.metrics.statistics import Metric, clustered_mean
from famcli.task import MetricSpec, Task


def aggregate(record: RunRecord, task: Task, entries: Iterable[Entry]) -> None:
    """Fills in metrics, cells and cost.

    Args:
        record: of the run.
        task: its task.
        entries: in the order of the task's samples, whatever the order of the answers.
    """
    ordered = list(entries)
    means = {spec.name: _mean(spec, ordered) for spec in task.metrics}
    record.metrics = {name: metric for name, metric in means.items() if metric}
    cells: dict[str, list[Entry]] = {}
    for entry in ordered:
        cells.setdefault(json.dumps(entry.cell), []).append(entry)
    record.cells = [_cell(task, members) for members in cells.values()]
    record.cost = cost(ordered)


def _mean(spec: MetricSpec, entries: Sequence[Entry]) -> Metric | None:
    weights = [entry.weights.get(spec.name, 1.0) for entry in entries]
    if spec.complete and not all(weights):
        return None
    return clustered_mean(
        [entry.scores[spec.name] for entry in entries],
        weights,
        [entry.document or entry.id for entry in entries],
        geometric=spec.mean == "geometric",
    )


def _cell(task: Task, entries: Sequence[Entry]) -> dict[str, Any]:
    means = {spec.name: _mean(spec, entries) for spec in task.metrics}
    values = {name: metric.value if metric else None for name, metric in means.items()}
    errors = {f"{name}_stderr": metric.stderr if metric else None for name, metric in means.items()}
    return {**entries[0].cell, **values, **errors, "n": len(entries)}


def cost(entries: Sequence[Entry]) -> Cost:
    """What the answers cost."""
    shared = {(entry.document, entry.shared_tokens) for entry in entries if entry.shared_tokens}
    own = sum(entry.prompt_tokens - entry.shared_tokens + entry.option_tokens for entry in entries)
    read = own + sum(tokens for _, tokens in shared)
    texts = [entry for entry in entries if "token_ids" in entry.answer]
    generated = sum(len(entry.answer["token_ids"]) + entry.answer.get("thinking_tokens", 0) for entry in texts)
    seconds = math.fsum(entry.seconds for entry in entries)
    told = Cost(
        tokens_read=read,
        tokens_read_alone=sum(entry.prompt_tokens * entry.requests + entry.option_tokens for entry in entries),
        tokens_cut=sum(entry.cut_tokens for entry in entries),
        tokens_generated=generated,
        seconds=seconds,
        tokens_per_second=(read + generated) / seconds if seconds else 0.0,
        peak_memory_bytes=max((entry.peak_memory_bytes for entry in entries), default=0),
        state_bytes=max((entry.state_bytes for entry in entries), default=0),
    )
    if empty := sum(not entry.output.strip() for entry in texts):
        told["answers_empty"] = empty
    if cut := sum(bool(entry.answer.get("cut")) for entry in texts):
        told["answers_cut"] = cut
    return told
