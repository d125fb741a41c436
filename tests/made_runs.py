"""Runs made by hand, with their samples, as evaluations would have left them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from made_records import Cells, passkey_record

from famcli.evaluation.journal import JOURNAL_NAME, Entry
from famcli.evaluation.record import RunRecord
from famcli.metrics.statistics import Metric, clustered_mean


@dataclass(frozen=True)
class Answer:
    """A sample and how it was answered."""

    id: str
    scores: Mapping[str, float]
    cell: Mapping[str, Any] = field(default_factory=dict)
    document: str = ""
    weights: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    reference: str = "right"
    output: str = "said"
    prompt_tokens: int = 100
    cut_tokens: int = 0
    prompt_sha256: str = "0" * 64


def entry(answer: Answer) -> Entry:
    """As the journal keeps it."""
    return Entry(
        id=answer.id,
        cell=dict(answer.cell),
        details=dict(answer.details),
        document=answer.document,
        prompt_sha256=answer.prompt_sha256,
        prompt_tokens=answer.prompt_tokens,
        shared_tokens=0,
        option_tokens=0,
        cut_tokens=answer.cut_tokens,
        requests=1,
        output=answer.output,
        answer={},
        reference=answer.reference,
        scores=dict(answer.scores),
        weights=dict(answer.weights),
        seconds=1.0,
        state_bytes=1,
        peak_memory_bytes=1,
    )


def passkey_run(results: Path, name: str, cells: Cells, finished: str = "2030-01-01", /, **fields: Any) -> RunRecord:
    """A PassKey run of ``made_records`` with its samples, in ``results``; ``cut`` tokens of each were left out."""
    cut = fields.pop("cut", 0)
    record = passkey_record(name, cells, finished, **fields)
    answers = [
        Answer(
            id=f"{length}/{position}/{trial:03}",
            scores={metric: float(value) for metric in record.task["metrics"]},
            cell={"length": length, "position": position},
            prompt_tokens=length - 10,
            cut_tokens=cut,
        )
        for (length, position), values in cells.items()
        for trial, value in enumerate(values)
    ]
    return _save(replace(record, path=results / record.run_id), answers)


def document_run(
    results: Path, name: str, answers: Sequence[Answer], task: str = "quality", /, **fields: Any
) -> RunRecord:
    """A run of a task whose metrics are those of the answers, the first one the headline."""
    metrics = list(answers[0].scores)
    described = {"paper": True, "higher_is_better": True, "mean": "arithmetic"}
    told = {"name": task, "options": {"data": "x"}, "metrics": dict.fromkeys(metrics, described)}
    told |= fields.pop("task", {})
    record = passkey_record(name, {(1, "start"): [1.0]}, task=told, **fields)
    means = {metric: _mean(metric, answers) for metric in metrics}
    cells: dict[str, list[Answer]] = {}
    for answer in answers:
        cells.setdefault(str(answer.cell), []).append(answer)
    record.metrics = {metric: mean for metric, mean in means.items() if mean}
    record.cells = [_cell(metrics, members) for members in cells.values()]
    run_id = f"{task}-{name}-{record.finished}"
    return _save(replace(record, path=results / run_id, run_id=run_id), answers)


def _cell(metrics: Sequence[str], answers: Sequence[Answer]) -> dict[str, Any]:
    found = {metric: _mean(metric, answers) for metric in metrics}
    values = {metric: mean.value if mean else None for metric, mean in found.items()}
    errors = {f"{metric}_stderr": mean.stderr if mean else None for metric, mean in found.items()}
    return {**answers[0].cell, **values, **errors, "n": len(answers)}


def _mean(metric: str, answers: Sequence[Answer]) -> Metric | None:
    return clustered_mean(
        [answer.scores[metric] for answer in answers],
        [answer.weights.get(metric, 1.0) for answer in answers],
        [answer.document or answer.id for answer in answers],
    )


def _save(record: RunRecord, answers: Sequence[Answer]) -> RunRecord:
    record.path.mkdir(parents=True)
    record.cost["tokens_cut"] = sum(answer.cut_tokens for answer in answers)
    record.save()
    (record.path / JOURNAL_NAME).write_bytes(b"".join(entry(answer).to_line() for answer in answers))
    return record
