"""Run records as pandas frames, for notebooks."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from famcli.compare.cells import Setting, cell_names, cell_score
from famcli.compare.measure import scored
from famcli.compare.pairing import samples_of, with_samples
from famcli.compare.selection import MAKE_ONE
from famcli.errors import UserError
from famcli.evaluation.cost import known_cost
from famcli.evaluation.record import RECORD_NAME, RunRecord, load_record, load_records
from famcli.metrics.statistics import Metric

if TYPE_CHECKING:
    from pandas import DataFrame


class Frames(NamedTuple):
    """Runs, their scores and their samples; ``run_id`` joins them.

    Attributes:
        runs: a row a run: ``run_id``, ``task``, ``version``, ``model``, ``status``, ``seed``, ``limit``, ... , task
            options as ``option.NAME``, costs as ``cost.NAME``, and its directory ``path``.
        scores: a row a run, metric and cell: ``run_id``, ``task``, ``model``, ``metric``, the cell as ``cell.NAME``
            (empty for all samples), ``value``, ``stderr``, the 95 % interval ``low`` and ``high``, and ``n``.
        samples: a row a run and sample: ``run_id``, ``task``, ``model``, ``id``, ``document``, ``reference``,
            ``output``, token counts, ``cell.NAME``, ``details.NAME``, ``score.NAME`` and ``weight.NAME``.
    """

    runs: DataFrame
    scores: DataFrame
    samples: DataFrame


def load_runs(*paths: str | Path) -> Frames:
    """Run records as pandas frames.

    Args:
        paths: directories of runs, run directories or their ``run.json``; none means ``results``.

    Raises:
        UserError: a path holds no run.
    """
    from pandas import DataFrame

    records = [record for path in paths or ("results",) for record in with_samples(_records(Path(path)))]
    return Frames(
        runs=DataFrame([_run(record) for record in records]),
        scores=DataFrame([score for record in records for score in _scores(record)]),
        samples=DataFrame([sample for record in records for sample in _samples(record)]),
    )


def _records(path: Path) -> list[RunRecord]:
    if path.is_file() or os.path.lexists(path / RECORD_NAME):
        return [load_record(path)]
    if found := load_records(path):
        return found
    raise UserError(f"no runs in {path}", MAKE_ONE)


def _named(record: RunRecord) -> dict[str, Any]:
    return {"run_id": record.run_id, "task": record.task["name"], "model": record.model["name"]}


def _run(record: RunRecord) -> dict[str, Any]:
    return {
        **_named(record),
        "version": record.task["version"],
        "status": record.standing,
        "seed": record.seed,
        "limit": record.limit,
        "limit_documents": record.limit_documents,
        **record.context,
        "data": (record.task["data"] or {}).get("name"),
        "parameters": record.model["parameters"],
        "receptive_field": record.model["receptive_field"],
        "tokenizer": record.model["tokenizer"],
        "device": record.device,
        "dtype": record.dtype,
        "started": record.started,
        "finished": record.finished,
        **_prefixed("option", record.task["options"]),
        **_prefixed("cost", known_cost(record)),
        "path": str(record.path),
    }


def _scores(record: RunRecord) -> Iterable[dict[str, Any]]:
    names = cell_names(record)
    for found in scored(record, _all_scores(record)):
        yield {
            **_named(record),
            "metric": found.metric,
            **{f"cell.{name}": found.settings.get(name) for name in sorted(names)},
            **vars(found.score),
            "low": found.interval.low if found.interval else None,
            "high": found.interval.high if found.interval else None,
        }


def _all_scores(record: RunRecord) -> Iterable[tuple[str, dict[str, Setting], Metric]]:
    for metric, score in record.metrics.items():
        yield metric, {}, score
        for cell in record.cells:
            if cell[metric] is not None:
                settings, found = cell_score(cell, metric, record.task["metrics"])
                if settings:
                    yield metric, settings, found


def _samples(record: RunRecord) -> Iterable[dict[str, Any]]:
    for entry in samples_of(record).values():
        yield {
            **_named(record),
            "id": entry.id,
            "document": entry.document or None,
            "reference": entry.reference,
            "output": entry.output,
            "prompt_tokens": entry.prompt_tokens,
            "shared_tokens": entry.shared_tokens,
            "cut_tokens": entry.cut_tokens,
            "computed_tokens": entry.computed_tokens,
            "seconds": entry.seconds,
            **_prefixed("cell", entry.cell),
            **_prefixed("details", entry.details),
            **_prefixed("score", entry.scores),
            **_prefixed("weight", {name: entry.weights.get(name, 1.0) for name in entry.scores}),
        }


def _prefixed(prefix: str, values: Any) -> dict[str, Any]:
    return {f"{prefix}.{name}": value for name, value in values.items()}
