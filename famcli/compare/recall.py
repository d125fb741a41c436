"""How long a text may be, or how much may stand in it, until a model no longer remembers, and what that cost."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from famcli.compare import cells
from famcli.compare.cell_runs import CellRuns
from famcli.compare.cells import Setting
from famcli.compare.pairing import TOKENIZER, fact_words, facts
from famcli.compare.row import Row
from famcli.evaluation.journal import Entry
from famcli.metrics.paired import Interval
from famcli.metrics.statistics import Metric

HELD = 0.95
"""The score from which a text counts as remembered, unless the user says another."""


@dataclass(frozen=True)
class Measured:
    """A score at one length.

    Attributes:
        length: of the texts, in tokens; where ``Recall.axis`` is another, how much of that stands in them.
        score, interval, too_few: see ``Row``.
        right: how many samples were right, where each is right or wrong.
        seconds: mean of the samples, each with its share of the time its batch took; ``None`` without samples.
        state_bytes: the largest state of one stream; ``None`` without samples.
    """

    length: int
    score: Metric
    interval: Interval | None
    too_few: bool
    right: int | None
    seconds: float | None
    state_bytes: int | None


@dataclass(frozen=True)
class Recall:
    """What a model remembers of texts of one kind.

    Attributes:
        task: its name, with what differs between texts of its kinds, such as ``passkey (wording flight)``.
        metric: its headline score.
        settings: what the cells have in common besides ``axis``, such as where the key is.
        axis: what ``points`` differ in: ``length``, or what is counted in a task that has no lengths, such as
            ``pairs``.
        column: the model.
        held: the score from which a text counts as remembered.
        points: by length, the shortest first; at least one.
    """

    task: str
    metric: str
    settings: dict[str, Setting]
    axis: str
    column: str
    held: float
    points: tuple[Measured, ...]

    @property
    def family(self) -> str:
        """The bare name of the task."""
        return self.task.partition(" (")[0]

    @property
    def place(self) -> str:
        """``kind`` without the task, ``wording flight random``."""
        words = self.task.removeprefix(self.family).strip(" ()")
        return f"{words} {cells.format_settings(self.settings)}".strip()

    @property
    def kind(self) -> str:
        """Task and settings, ``passkey (wording flight) start``."""
        return f"{self.task} {cells.format_settings(self.settings)}".rstrip()

    @property
    def broken(self) -> Measured | None:
        """The shortest length at which the score is not held; ``None`` where every length measured holds it."""
        return next((point for point in self.points if not point.score.value >= self.held), None)

    @property
    def longest(self) -> Measured | None:
        """The longest length such that it and all shorter ones hold the score; ``None`` where the shortest does not."""
        broken = self.broken
        held = [point for point in self.points if broken is None or point.length < broken.length]
        return held[-1] if held else None


@dataclass
class _Kind:
    """Texts of one kind: what their runs have in common, and the points of each column."""

    metric: str
    settings: dict[str, Setting]
    axis: str
    facts: dict[str, str]
    points: dict[str, list[Measured]] = field(default_factory=dict)


def recalls_of(
    found: Sequence[CellRuns], rows: Sequence[Row], columns: Sequence[str], held: float
) -> tuple[Recall, ...]:
    """By task, kind and column, of all scores from 0 to 1 that are measured by an amount, of which more is better.

    Runs of a task that differ in anything but their lengths, such as the wording, are kinds of their own. Lengths are
    in tokens of each model's own tokenizer, which no name of a kind repeats.

    Args:
        found: the cells.
        rows: the same, worked out.
        columns: in the order they are shown.
        held: the score from which a text counts as remembered.
    """
    kinds: dict[str, _Kind] = {}
    for cell, row in zip(found, rows, strict=True):
        axis = cells.axis_of(row.settings)
        if axis is None or not is_recall(row):
            continue
        settings = {name: value for name, value in cell.settings.items() if name != axis}
        for column, (record, _) in cell.runs.items():
            told = facts(record)
            key = repr((cell.metric, axis, sorted(told.items()), sorted(settings.items())))
            kind = kinds.setdefault(key, _Kind(cell.metric, settings, axis, told))
            kind.points.setdefault(column, []).append(_measured(row, axis, column, cell.entries(column).values()))
    recalls = [
        Recall(
            task=" ".join([kind.facts["task"], *([f"({', '.join(words)})"] if words else [])]),
            metric=kind.metric,
            settings=kind.settings,
            axis=kind.axis,
            column=column,
            held=held,
            points=tuple(sorted(points, key=lambda point: point.length)),
        )
        for words, kind in zip(fact_words(_besides_tokenizers(kinds.values())), kinds.values(), strict=True)
        for column, points in kind.points.items()
    ]
    return tuple(sorted(recalls, key=lambda one: (one.task, cells.in_order(one.settings), columns.index(one.column))))


def _besides_tokenizers(kinds: Collection[_Kind]) -> list[dict[str, str]]:
    """The facts without tokenizers, unless a column has several."""
    owned: dict[str, set[str]] = {}
    for kind in kinds:
        for column in kind.points:
            owned.setdefault(column, set()).add(kind.facts.get(TOKENIZER, ""))
    several = any(len(names - {""}) > 1 for names in owned.values())
    return [{name: fact for name, fact in kind.facts.items() if several or name != TOKENIZER} for kind in kinds]


def is_recall(row: Row) -> bool:
    """Whether a row tells what is remembered of texts of a length, or with so much in them."""
    measured = cells.axis_of(row.settings) is not None
    return measured and row.higher_is_better and all(0 <= score.value <= 1 for score in row.scores.values())


def _measured(row: Row, axis: str, column: str, entries: Iterable[Entry]) -> Measured:
    samples, score = list(entries), row.scores[column]
    values = [entry.scores[row.metric] for entry in samples if entry.weights.get(row.metric, 1.0)]
    binary = len(values) == score.n and set(values) <= {0.0, 1.0}
    return Measured(
        length=int(row.settings[axis]),
        score=score,
        interval=row.intervals.get(column),
        too_few=column in row.too_few,
        right=int(sum(values)) if binary else None,
        seconds=math.fsum(entry.seconds for entry in samples) / len(samples) if samples else None,
        state_bytes=max((entry.state_bytes for entry in samples), default=None),
    )
