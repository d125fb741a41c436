"""What the runs of a comparison cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from famcli.compare.pairing import samples_of
from famcli.evaluation.cost import known_cost
from famcli.evaluation.record import RunRecord


@dataclass(frozen=True)
class RunCost:
    """The cost of a run.

    Attributes:
        task, run_id, device, dtype: the run's.
        model: its column.
        samples: how many it answered.
        values: see ``famcli.evaluation.cost.known_cost``.
    """

    task: str
    model: str
    run_id: str
    device: str
    dtype: str
    samples: int
    values: Mapping[str, Any]


def costs_of(
    runs: Sequence[RunRecord], name: Callable[[RunRecord], str], columns: Sequence[str]
) -> tuple[RunCost, ...]:
    """By task, then by column, which ``name`` gives, in the order of ``columns``."""
    found = [
        RunCost(
            task=run.task["name"],
            model=name(run),
            run_id=run.run_id,
            device=run.device,
            dtype=run.dtype,
            samples=len(samples_of(run)) or max((metric.n for metric in run.metrics.values()), default=0),
            values=known_cost(run),
        )
        for run in runs
    ]
    return tuple(sorted(found, key=lambda cost: (cost.task, columns.index(cost.model), cost.run_id)))
