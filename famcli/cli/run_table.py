"""Run records, a line each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from famcli.cli.saying import say_table
from famcli.evaluation.record import RunRecord
from famcli.reports.numbers import format_number


def run_values(record: RunRecord) -> dict[str, Any]:
    """A run for programs."""
    return {
        "run_id": record.run_id,
        "status": record.standing,
        "model": record.model["name"],
        "task": record.task["name"],
        "options": record.task["options"],
        "started": record.started,
        "path": str(record.path / "run.json"),
        "metrics": {name: dataclasses.asdict(metric) for name, metric in record.metrics.items()},
    }


def show_runs(records: Sequence[RunRecord]) -> None:
    """A table of runs, in the order given."""
    rows = []
    for record in records:
        headline = next(iter(record.metrics.items()), None)
        score = f"{headline[0]} {format_number(headline[1].value)} (n={headline[1].n})" if headline else ""
        status = f"{record.standing}, {len(record.skipped)} skipped" if record.skipped else record.standing
        rows.append([record.run_id, status, record.model["name"], record.task["name"], score, record.started])
    say_table(["run", "status", "model", "task", "score", "started"], rows)
