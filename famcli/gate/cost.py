"""Cost against a baseline: throughput and memory as ratios to a yardstick, never as times or bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from famcli.gate.baseline import Baseline, CostGate, CostGates
from famcli.gate.check import Matched, Verdict

THROUGHPUT_FACTOR, MEMORY_FACTOR = 2.0, 1.25
"""Defaults: a busy machine halves the speed of anything; memory hardly differs from run to run."""


THROUGHPUT, MEMORY = "tokens/s per GFLOP/s", "peak memory / at rest"
"""What tables call them."""


@dataclass(frozen=True)
class MeasuredCost:
    """Ratios as ``famcli.evaluation.yardstick.CostMeter`` measures them, and where."""

    device: str
    dtype: str
    threads: int
    memory: float | None
    throughput: Mapping[str, float]


def judge_cost(baseline: Baseline, matched: Sequence[Matched], measured: MeasuredCost | None) -> list[Verdict]:
    """The verdicts on cost; none where the baseline does not gate it.

    Args:
        baseline: the baseline.
        matched: each of its runs with a comparable one.
        measured: ``None`` where runs were taken that had been made before.
    """
    gates = baseline.cost
    if gates is None:
        return []
    found = []
    skip = None
    if measured is None:
        skip = "finished runs have no yardstick: leave out --run to measure it"
    elif (ours := _place(measured)) != (theirs := _place(gates)):
        skip = f"measured on {ours}, the baseline on {theirs}"
    for one in matched:
        gate = gates.throughput.get(one.run.record.run_id)
        if gate and one.record:
            value = measured.throughput.get(one.record.run_id) if measured else None
            found.append(_judge(one.record.task["name"], THROUGHPUT, gate, value, skip))
    if gates.memory:
        found.append(_judge("all tasks", MEMORY, gates.memory, measured.memory if measured else None, skip))
    return found


def _place(cost: MeasuredCost | CostGates) -> str:
    return f"{cost.device} in {cost.dtype} with {cost.threads} thread{'s' * (cost.threads > 1)}"


def _judge(task: str, name: str, gate: CostGate, value: float | None, skip: str | None) -> Verdict:
    speed = name == THROUGHPUT
    status: Literal["passed", "failed", "skipped"] = "skipped"
    why = skip or "too short to be timed, or made before"
    if value and not skip:
        times = gate.ratio / value if speed else value / gate.ratio
        status = "passed" if times <= gate.factor else "failed"
        why = f"{times:.2f} times as {'slow' if speed else 'much'}"
    return Verdict(
        task=task,
        metric=name,
        settings={},
        status=status,
        value=None if skip else value,
        n=None,
        baseline=gate.ratio,
        tolerance=f"at most {gate.factor:g} times {'as slow' if speed else 'as much'}",
        why=why,
    )


def new_gates(old: CostGates | None, measured: MeasuredCost, before: Mapping[str, str]) -> CostGates:
    """Gates at what was measured; factors are those of ``old``, and defaults where it has none.

    Args:
        old: the gates before.
        measured: what was measured.
        before: run ids of the old baseline by those of the new one.
    """
    throughput = {}
    for run, value in measured.throughput.items():
        gate = old.throughput.get(before.get(run, run)) if old else None
        throughput[run] = CostGate(value, gate.factor if gate else THROUGHPUT_FACTOR)
    memory = None
    if measured.memory is not None:
        memory = CostGate(measured.memory, old.memory.factor if old and old.memory else MEMORY_FACTOR)
    return CostGates(measured.device, measured.dtype, measured.threads, memory, throughput)
