"""The rows of a comparison before they are worked out: which samples belong to each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from famcli.compare import cells
from famcli.compare.cell_runs import Lane
from famcli.compare.cells import By, Key, Setting, group_of, grouped
from famcli.compare.measure import Measure
from famcli.evaluation.journal import Entry
from famcli.metrics.statistics import Metric


@dataclass(frozen=True)
class Place:
    """A row before it is worked out: its samples by column and id, and what scores are known."""

    task: str
    metric: str
    settings: dict[str, Setting]
    answers: Mapping[str, Mapping[str, Entry]]
    scores: Mapping[str, Metric]
    differs: tuple[str, ...]

    @property
    def score(self) -> str:
        """Task and metric, as ``Lane.score``."""
        return f"{self.task} {self.metric}"


def place_of(lane: Lane) -> Place:
    """A lane as a row."""
    return Place(
        task=lane.task,
        metric=lane.metric,
        settings=lane.settings,
        answers={column: lane.entries(column) for column in lane.runs},
        scores={column: score for column, (_, score) in lane.runs.items()},
        differs=tuple(lane.differs),
    )


def places_by(lanes: Iterable[Lane], by: By, columns: Sequence[str], measures: Mapping[str, Measure]) -> list[Place]:
    """Rows of groups of samples, by the headline metric of each task; samples that tell no group are left out.

    Args:
        lanes: of the runs.
        by: what samples are grouped by.
        columns: names; the first one with a sample says which group it is in.
        measures: by ``Lane.score``.
    """
    tasks: dict[str, list[Lane]] = {}
    for lane in lanes:
        if lane.metric == next(iter(lane.first.metrics)):
            tasks.setdefault(lane.score, []).append(lane)
    return [
        Place(
            task=members[0].task,
            metric=members[0].metric,
            settings=dict(key),
            answers=sides,
            scores={column: mean for column, found in sides.items() if (mean := measures[score].mean(found.values()))},
            differs=tuple(dict.fromkeys(words for lane in members for words in lane.differs)),
        )
        for score, members in tasks.items()
        for key, sides in _groups(members, by, columns).items()
    ]


def _groups(lanes: Sequence[Lane], by: By, columns: Sequence[str]) -> dict[Key, dict[str, dict[str, Entry]]]:
    """The samples of lanes of one task, by group, column and id."""
    answers = {column: {id: e for lane in lanes for id, e in lane.entries(column).items()} for column in columns}
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


def in_order(place: Place) -> tuple[Any, ...]:
    """Tasks by name, then cells in their order."""
    return place.task, place.metric, cells.in_order(place.settings)
