"""What the runs of a comparison cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from famcli.compare.cells import Setting, cell_names, format_amount, in_order
from famcli.compare.pairing import TOKENIZER, fact_words, facts, samples_of
from famcli.evaluation.cost import known_cost
from famcli.evaluation.record import RunRecord

FEW = 3
"""The most values of a setting that are listed."""


@dataclass(frozen=True)
class RunCost:
    """The cost of a run.

    Attributes:
        task, run_id, device, dtype: the run's.
        model: its column.
        samples: how many it answered.
        values: see ``famcli.evaluation.cost.known_cost``.
        cells: what its samples are, in words: ``random 1k to 64k``, ``wording flight, random 4k``; may be empty.
        settings: what all its cells have in common, such as one length.
    """

    task: str
    model: str
    run_id: str
    device: str
    dtype: str
    samples: int
    values: Mapping[str, Any]
    cells: str = ""
    settings: Mapping[str, Setting] = field(default_factory=dict)

    @property
    def seconds_per_sample(self) -> float | None:
        """``None`` where there is no sample."""
        return self.values["seconds"] / self.samples if self.samples else None


def costs_of(
    runs: Sequence[RunRecord], name: Callable[[RunRecord], str], columns: Sequence[str]
) -> tuple[RunCost, ...]:
    """By task, by what the samples are, then by column, which ``name`` gives, in the order of ``columns``."""
    found = []
    # A model has one tokenizer, and its name stands beside.
    told = [{name: fact for name, fact in facts(run).items() if name != TOKENIZER} for run in runs]
    for run, differing in zip(runs, fact_words(told), strict=True):
        settings = _settings(run)
        words = " ".join([*_words(settings), *_lengths(settings)])
        cost = RunCost(
            task=run.task["name"],
            model=name(run),
            run_id=run.run_id,
            device=run.device,
            dtype=run.dtype,
            samples=len(samples_of(run)) or max((metric.n for metric in run.metrics.values()), default=0),
            values=known_cost(run),
            cells=", ".join(filter(None, [*differing, words])),
            settings={key: values[0] for key, values in settings.items() if len(values) == 1},
        )
        numbers = [value for values in settings.values() for value in values if not isinstance(value, str)]
        found.append((cost.task, differing, _words(settings), numbers, columns.index(cost.model), cost.run_id, cost))
    return tuple(cost for *_, cost in sorted(found, key=lambda line: line[:-1]))


def _settings(run: RunRecord) -> dict[str, list[Setting]]:
    """The values of each setting of a run's cells, each once and in order."""
    names = sorted(cell_names(run))
    return {name: sorted({cell[name] for cell in run.cells if name in cell}, key=_in_order) for name in names}


def _in_order(value: Setting) -> list[Any]:
    return in_order({"": value})


def _words(settings: Mapping[str, list[Setting]]) -> list[str]:
    """The values that are words, where they are few enough to be listed."""
    lists = [found for found in settings.values() if 0 < len(found) <= FEW]
    return [", ".join(map(str, found)) for found in lists if all(isinstance(value, str) for value in found)]


def _lengths(settings: Mapping[str, list[Setting]]) -> list[str]:
    """``1k, 4k`` or ``1k to 64k``, ``4, 16 pairs``."""
    lists = {name: [value for value in found if type(value) is int] for name, found in settings.items()}
    return [_range(name, found) for name, found in lists.items() if found]


def _range(name: str, amounts: Sequence[int]) -> str:
    *others, last = (format_amount(name, amount).split()[0] for amount in amounts)
    last = last + format_amount(name, amounts[-1]).removeprefix(last)
    return ", ".join([*others, last]) if len(amounts) <= FEW else f"{others[0]} to {last}"
