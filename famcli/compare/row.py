"""A row of a comparison: one score of several models, how sure it is, and how it differs from a baseline's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from famcli.compare.cells import Setting
from famcli.compare.measure import Measure
from famcli.compare.row_samples import RowSamples
from famcli.metrics.paired import SIGNIFICANT, Interval, PairedDifference, holm
from famcli.metrics.statistics import Metric

Verdict = Literal["better", "worse", "undecided"]


@dataclass(frozen=True)
class Difference:
    """A column's score less the baseline's.

    Attributes:
        paired: the difference on the samples that both answered.
        p_corrected: its p-value, corrected for all differences of the table (Holm 1979).
        verdict: ``better`` or ``worse`` where that is below ``SIGNIFICANT``.
    """

    paired: PairedDifference
    p_corrected: float | None = None
    verdict: Verdict = "undecided"


@dataclass(frozen=True)
class Row:
    """One score of one cell, of a group of samples, or of a whole task that has no cells.

    Attributes:
        task: name of the task; of runs that cannot be compared, with what differs between them.
        metric: name of the score.
        settings: the cell or group, e.g. ``{"length": 1024, "position": "start"}``.
        scores: by column; a model without a run of the cell is left out.
        intervals: of the scores, by column; left out where there are too few samples, or none of them is there.
        too_few: the columns with too few samples.
        differences: to the baseline, by column; none without a baseline.
        differs: why the runs cannot be compared, where that was forced.
        higher_is_better: direction of the score.
    """

    task: str
    metric: str
    settings: dict[str, Setting]
    scores: dict[str, Metric]
    intervals: dict[str, Interval] = field(default_factory=dict)
    differences: dict[str, Difference] = field(default_factory=dict)
    differs: tuple[str, ...] = ()
    higher_is_better: bool = True
    too_few: tuple[str, ...] = ()


def row_of(found: RowSamples, measure: Measure, baseline: str | None) -> Row:
    """Works out a row; its p-values are not corrected yet."""
    intervals = {column: measure.interval(found.answers[column].values()) for column in found.scores}
    too_few = tuple(column for column, found_ in intervals.items() if not found_ and found.answers[column])
    right = found.answers.get(baseline or "", {})
    differences = {
        column: measure.difference(left, right) for column, left in found.answers.items() if column != baseline
    }
    return Row(
        task=found.task,
        metric=found.metric,
        settings=found.settings,
        scores=dict(found.scores),
        intervals={column: found for column, found in intervals.items() if found},
        differences={column: Difference(found) for column, found in differences.items() if found},
        differs=found.differs,
        higher_is_better=measure.higher_is_better,
        too_few=too_few,
    )


def with_verdicts(rows: Sequence[Row]) -> list[Row]:
    """The rows with p-values corrected for all of them, and what these say."""
    corrected = iter(holm([d.paired.p_value for row in rows for d in row.differences.values()]))
    return [
        replace(row, differences={column: _judged(row, d, next(corrected)) for column, d in row.differences.items()})
        for row in rows
    ]


def _judged(row: Row, difference: Difference, p_corrected: float | None) -> Difference:
    verdict: Verdict = "undecided"
    if p_corrected is not None and p_corrected < SIGNIFICANT:
        verdict = "better" if (difference.paired.value > 0) == row.higher_is_better else "worse"
    return Difference(difference.paired, p_corrected, verdict)
