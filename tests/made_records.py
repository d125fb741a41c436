"""Run records made by hand, as evaluations would have left them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from famcli.evaluation.record import RunRecord
from famcli.metrics.statistics import Metric, clustered_mean

Cells = dict[tuple[int, str], list[float]]
"""(length, position) -> the accuracies of its trials."""


def mean(values: Sequence[float]) -> Metric:
    """Of samples that stand alone and count the same."""
    found = clustered_mean(values, [1.0] * len(values), [str(i) for i in range(len(values))])
    assert found is not None
    return found


def passkey_record(name: str, cells: Cells, finished: str | None = "2030-01-01", /, **fields: Any) -> RunRecord:
    """A PassKey run; ``fields`` replaces fields of the record, or single entries of its ``model`` and ``task``."""
    means = {place: mean(values) for place, values in cells.items()}
    values: dict[str, Any] = {
        "path": Path("results", f"passkey-{name}-{finished}"),
        "run_id": f"passkey-{name}-{finished}",
        "schema_version": 2,
        "status": "finished" if finished else "running",
        "model": {
            "name": name,
            "config": {},
            "weights_sha256": "0" * 64,
            "tokenizer": "bytes",
            "parameters": 1,
            "receptive_field": 1024 if "bswa" in name else None,
        },
        "task": {
            "name": "passkey",
            "version": 1,
            "options": {"trials": len(next(iter(cells.values())))},
            "template_sha256": "0" * 64,
            "data": None,
            "metrics": {"accuracy": {"paper": True, "higher_is_better": True, "mean": "arithmetic"}},
        },
        "seed": 0,
        "limit": None,
        "context": {"max_context": None, "truncate": None},
        "device": "cpu",
        "dtype": "float32",
        "environment": {"python": "", "torch": "", "famcli": "", "git_commit": None, "platform": ""},
        "metrics": {"accuracy": mean([value for values in cells.values() for value in values])} if finished else {},
        "cells": [
            {"length": length, "position": position, "accuracy": m.value, "accuracy_stderr": m.stderr, "n": m.n}
            for (length, position), m in means.items()
        ],
        "cost": {
            "tokens_read": 1,
            "tokens_read_alone": 1,
            "tokens_cut": 0,
            "tokens_generated": 1,
            "tokens_computed": 1,
            "seconds": 1.0,
            "tokens_per_second": 2.0,
            "peak_memory_bytes": 1,
            "state_bytes": 1,
        },
        "started": "2030-01-01",
        "finished": finished,
    }
    for field, value in fields.items():
        values[field] = {**values[field], **value} if isinstance(value, dict) else value
    return RunRecord(**values)


FAM: Cells = {(1024, "start"): [1, 1, 1], (65536, "start"): [1, 1, 0], (1048576, "start"): [1, 0, 0]}
BSWA: Cells = {(1024, "start"): [1, 1, 1], (65536, "start"): [0, 0, 0], (65536, "random"): [0, 1, 0]}
