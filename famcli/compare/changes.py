"""The samples that changed sides between a baseline and another model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from famcli.compare.cells import Setting
from famcli.compare.measure import Measure
from famcli.compare.row_samples import RowSamples

LARGEST = 20
"""The most samples of either side that are listed of scores that are not right or wrong: nearly all differ a little."""


@dataclass(frozen=True)
class Change:
    """A sample that one model does better than the baseline, or worse.

    Attributes:
        task, metric, settings: of its row.
        id, reference: the sample's.
        column: the other model.
        score, baseline_score: of the sample.
        output, baseline_output: what was answered.
    """

    task: str
    metric: str
    settings: dict[str, Setting]
    id: str
    column: str
    score: float
    baseline_score: float
    reference: str
    output: str
    baseline_output: str


def changes_of(rows: Iterable[RowSamples], measures: Mapping[str, Measure], baseline: str) -> list[Change]:
    """What changed sides, the losses of each row and model first, the largest first.

    Of a score that is right or wrong it is every sample that one has right and the other wrong, of others the
    ``LARGEST`` losses and wins.

    Args:
        rows: by the headline metric.
        measures: by ``RowSamples.score``.
        baseline: its column.
    """
    found = []
    for row in rows:
        measure = measures[row.score]
        sign = 1 if measure.higher_is_better else -1
        right = row.answers.get(baseline, {})
        for column, left in row.answers.items():
            both = [(e, right[id]) for id, e in left.items() if id in right and measure.weight(e)]
            gains = [(sign * (a.scores[row.metric] - b.scores[row.metric]), a.id) for a, b in both]
            lost = sorted(gain for gain in gains if gain[0] < 0)
            won = sorted((gain for gain in gains if gain[0] > 0), key=lambda gain: (-gain[0], gain[1]))
            if not measure.binary:
                lost, won = lost[:LARGEST], won[:LARGEST]
            for _, id in (*lost, *won):
                found.append(
                    Change(
                        task=row.task,
                        metric=row.metric,
                        settings=row.settings,
                        id=id,
                        column=column,
                        score=left[id].scores[row.metric],
                        baseline_score=right[id].scores[row.metric],
                        reference=left[id].reference,
                        output=left[id].output,
                        baseline_output=right[id].output,
                    )
                )
    return found
