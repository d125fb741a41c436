"""The rows of a comparison before they are worked out: which samples belong to each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from famcli.compare import cells
from famcli.compare.cell_runs import CellRuns
from famcli.compare.cells import By, Key, Setting, group_of, grouped
from famcli.compare.measure import Measure
from famcli.evaluation.journal import Entry
from famcli.metrics.statistics import Metric


@dataclass(frozen=True)
class RowSamples:
    """A row before it is worked out: its samples by column and id, and what scores are known.

    ``rank`` is the place of its score among those of its task; 0 is the headline.
    """

    task: str
    metric: str
    settings: dict[str, Setting]
    answers: Mapping[str, Mapping[str, Entry]]
    scores: Mapping[str, Metric]
    differs: tuple[str, ...]
    rank: int = 0

    @property
    def score(self) -> str:
        """Task and metric, as ``CellRuns.score``."""
        return f"{self.task} {self.metric}"


def samples_of_cell(cell: CellRuns) -> RowSamples:
    """A cell as a row."""
    return RowSamples(
        task=cell.task,
        metric=cell.metric,
        settings=cell.settings,
        answers={column: cell.entries(column) for column in cell.runs},
        scores={column: score for column, (_, score) in cell.runs.items()},
        differs=tuple(cell.differs),
        rank=cell.rank,
    )


def samples_by_group(
    runs: Iterable[CellRuns], by: By, columns: Sequence[str], measures: Mapping[str, Measure]
) -> list[RowSamples]:
    """Rows of groups of samples, by the headline metric of each task; samples without a group are left out.

    Args:
        runs: by cell.
        by: what samples are grouped by.
        columns: names; the first one with a sample says which group it is in.
        measures: by ``CellRuns.score``.
    """
    tasks: dict[str, list[CellRuns]] = {}
    for cell in runs:
        if cell.rank == 0:
            tasks.setdefault(cell.score, []).append(cell)
    return [
        RowSamples(
            task=members[0].task,
            metric=members[0].metric,
            settings=dict(key),
            answers=sides,
            scores={column: mean for column, found in sides.items() if (mean := measures[score].mean(found.values()))},
            differs=tuple(dict.fromkeys(words for cell in members for words in cell.differs)),
        )
        for score, members in tasks.items()
        for key, sides in _groups(members, by, columns).items()
    ]


def _groups(runs: Sequence[CellRuns], by: By, columns: Sequence[str]) -> dict[Key, dict[str, dict[str, Entry]]]:
    """The samples of one task, by group, column and id."""
    answers = {column: {id: e for cell in runs for id, e in cell.entries(column).items()} for column in columns}
    owner: dict[str, Key | None] = {}
    for entries in answers.values():
        for id, entry in entries.items():
            if id not in owner:
                owner[id] = group_of(entry, by)
    groups: dict[Key, dict[str, dict[str, Entry]]] = {}
    for column, entries in answers.items():
        for key, found in grouped(entries.values(), lambda entry: owner[entry.id]).items():
            groups.setdefault(key, {})[column] = {entry.id: entry for entry in found}
    return groups


def in_order(row: RowSamples | CellRuns) -> tuple[Any, ...]:
    """Tasks by name, then scores with the headline first, then cells in their order."""
    return row.task, row.rank, row.metric, cells.in_order(row.settings)
