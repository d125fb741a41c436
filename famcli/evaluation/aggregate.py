"""From the journal of a run to the figures of its record."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from famcli.evaluation.cost import cost
from famcli.evaluation.journal import Entry
from famcli.evaluation.record import RunRecord
from famcli.metrics.statistics import Metric, clustered_mean
from famcli.task import MetricSpec


def aggregate(record: RunRecord, metrics: Sequence[MetricSpec], entries: Iterable[Entry]) -> None:
    """Fills in metrics, cells and cost.

    Args:
        record: of the run.
        metrics: of its task.
        entries: in the order of the task's samples, whatever the order of the answers.
    """
    ordered = list(entries)
    means = {spec.name: _mean(spec, ordered) for spec in metrics}
    record.metrics = {name: metric for name, metric in means.items() if metric}
    cells: dict[str, list[Entry]] = {}
    for entry in ordered:
        cells.setdefault(json.dumps(entry.cell), []).append(entry)
    record.cells = [_cell(metrics, members) for members in cells.values()]
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


def _cell(metrics: Sequence[MetricSpec], entries: Sequence[Entry]) -> dict[str, Any]:
    means = {spec.name: _mean(spec, entries) for spec in metrics}
    values = {name: metric.value if metric else None for name, metric in means.items()}
    errors = {f"{name}_stderr": metric.stderr if metric else None for name, metric in means.items()}
    return {**entries[0].cell, **values, **errors, "n": len(entries)}
