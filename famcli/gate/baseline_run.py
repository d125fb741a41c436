"""A run as a baseline keeps it: which scores, which samples, and how much worse a score may get by default."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from famcli.compare.cells import Setting, cell_score
from famcli.compare.measure import Measure
from famcli.compare.pairing import samples_of
from famcli.errors import UserError
from famcli.evaluation.journal import Entry
from famcli.evaluation.record import RunRecord
from famcli.gate.baseline import BaselineRun, Score, Tolerance, kept_entry, kept_record, question
from famcli.metrics.statistics import Metric

LEVEL, AMOUNT = 0.05, 0.02
"""Default tolerances: level of the test, and the most by which a mean may be worse where no test is possible."""


def new_run(record: RunRecord, old: BaselineRun | None) -> BaselineRun:
    """A run as a baseline keeps it; tolerances are those of ``old``, and defaults for scores it lacks.

    The default is no significant drop, or, where too few samples could get worse for a test, an absolute
    bound for scores between 0 and 1 and a relative one for others.

    Raises:
        UserError: the run's samples are not there.
    """
    answered = samples_of(record)
    if not answered:
        raise UserError(
            f"the run {record.run_id} has no samples beside its record", "a baseline needs the whole directory of a run"
        )
    entries = {
        id: kept_entry(id, e.cell, e.document, question(e.reference, e.cell), dict(e.scores), dict(e.weights))
        for id, e in sorted(answered.items())
    }
    cells: list[dict[str, Any]] = []
    for entry in answered.values():
        if entry.cell not in cells:
            cells.append(dict(entry.cell))
    run = BaselineRun(kept_record(record, cells), (), entries)
    known = {score.key: score.tolerance for score in old.scores} if old else {}
    scores = []
    for metric, settings, score in checked_scores(record):
        bare = Score(metric, settings, score.value, score.n, Tolerance("no_significant_drop", LEVEL))
        scores.append(replace(bare, tolerance=known.get(bare.key) or _default(run, bare)))
    return replace(run, scores=tuple(scores))


def _default(run: BaselineRun, score: Score) -> Tolerance:
    if not blind(run, score):
        return score.tolerance
    measure = measure_of(run, score.metric, run.entries.values())
    return Tolerance("absolute" if measure.high == 1 else "relative", AMOUNT)


def checked_scores(record: RunRecord) -> list[tuple[str, dict[str, Setting], Metric]]:
    """(metric, settings, score): the headline metric of each cell, and every metric over all samples."""
    found: list[tuple[str, dict[str, Setting], Metric]] = [(name, {}, score) for name, score in record.metrics.items()]
    if not found or len(record.cells) < 2:
        return found
    headline = found[0][0]
    cells = [cell for cell in record.cells if cell[headline] is not None]
    return [(headline, *cell_score(cell, headline, record.task["metrics"])) for cell in cells] + found


def members(run: BaselineRun, score: Score) -> dict[str, Entry]:
    """The samples that a score is over."""
    return {id: entry for id, entry in run.entries.items() if not score.settings or entry.cell == score.settings}


def measure_of(run: BaselineRun, metric: str, entries: Iterable[Entry]) -> Measure:
    """How samples of ``run``, and of others that answered them, are compared by a metric."""
    spec = run.record.task["metrics"][metric]
    values = {entry.scores[metric] for entry in entries}
    least = min(values, default=0.0)
    unit = spec["higher_is_better"] and least >= 0 and max(values, default=0.0) <= 1
    return Measure(
        name=metric,
        binary=values <= {0.0, 1.0},
        geometric=spec["mean"] == "geometric",
        higher_is_better=spec["higher_is_better"],
        low=0.0 if least >= 0 else -math.inf,
        high=1.0 if unit else math.inf,
    )


def blind(run: BaselineRun, score: Score) -> bool:
    """No run could fail the test of this score, though there is something to lose: too few samples could get worse."""
    if score.tolerance.kind != "no_significant_drop":
        return False
    losable = _losable(run, score)
    return losable > 0 and 0.5**losable >= score.tolerance.amount


def _losable(run: BaselineRun, score: Score) -> int:
    """Number of clusters that could get worse; with ``k`` of them, all worse, the test's p-value is ``2 ** -k``."""
    entries = list(members(run, score).values())
    measure = measure_of(run, score.metric, entries)
    worst = measure.low if measure.higher_is_better else math.inf
    return len({e.document or e.id for e in entries if measure.weight(e) and e.scores[score.metric] != worst})
