"""A new baseline in the place of an old one, and what moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from famcli.compare.cells import Setting
from famcli.errors import UserError
from famcli.evaluation.record import RunRecord
from famcli.gate.baseline import Baseline, BaselineRun, Score
from famcli.gate.baseline_run import new_run
from famcli.gate.check import match, tolerance_words
from famcli.gate.cost import MeasuredCost, new_gates


@dataclass(frozen=True)
class Move:
    """A score of the old baseline, of the new one, or of both; ``tolerance`` in words is the one from now on."""

    task: str
    metric: str
    settings: Mapping[str, Setting]
    before: float | None
    after: float | None
    tolerance: str

    @property
    def moved(self) -> bool:
        """Before and after differ."""
        return self.before != self.after


def new_baseline(records: Sequence[RunRecord], old: Baseline | None, measured: MeasuredCost | None) -> Baseline:
    """The baseline that ``records`` make; tolerances are those of ``old``, where it has them.

    Args:
        records: the runs.
        old: the baseline before, if there was one.
        measured: cost to be gated; ``None`` keeps the gates of ``old``.

    Raises:
        UserError: a run's samples are not there.
    """
    earlier = {one.record.run_id: one.run for one in match(old.runs, records) if one.record} if old else {}
    names = {new: run.record.run_id for new, run in earlier.items()}
    cost = old.cost if old else None
    if measured:
        cost = new_gates(cost, measured, names)
    elif cost:
        gates = cost.throughput
        cost = replace(cost, throughput={new: gates[run] for new, run in names.items() if run in gates})
    return Baseline(tuple(new_run(record, earlier.get(record.run_id)) for record in records), cost)


def moves(old: Baseline | None, new: Baseline, records: Sequence[RunRecord]) -> list[Move]:
    """Every score of the new baseline beside that of the old one; then those that are gone.

    Args:
        old: the baseline before, if there was one.
        new: the baseline that ``records`` made, its runs in their order.
        records: as given to ``new_baseline``.
    """
    matched = match(old.runs, records) if old else []
    earlier = {one.record.run_id: one.run for one in matched if one.record}
    found = []
    for run, record in zip(new.runs, records, strict=True):
        before = _scores(earlier.get(record.run_id))
        found += [_move(run, before.pop(score.key, None), score) for score in run.scores]
        found += [_move(run, score, None) for score in before.values()]
    gone = [one.run for one in matched if not one.record]
    return found + [_move(run, score, None) for run in gone for score in run.scores]


def _scores(run: BaselineRun | None) -> dict[tuple[object, ...], Score]:
    return {score.key: score for score in run.scores} if run else {}


def _move(run: BaselineRun, before: Score | None, after: Score | None) -> Move:
    score = after or before
    if score is None:
        raise ValueError("a move needs a score")
    return Move(
        task=run.record.task["name"],
        metric=score.metric,
        settings=score.settings,
        before=before.value if before else None,
        after=after.value if after else None,
        tolerance=tolerance_words(after.tolerance) if after else "no more checked",
    )


def one_model(records: Sequence[RunRecord]) -> None:
    """Makes sure that all runs are of one model.

    Raises:
        UserError: they are not.
    """
    models = dict.fromkeys((record.model["name"], record.model["weights_sha256"]) for record in records)
    if len(models) > 1:
        names = ", ".join(f"{name} ({digest[:8]})" for name, digest in models)
        raise UserError(f"the runs are of {len(models)} models: {names}", "check the runs of one model at a time")
