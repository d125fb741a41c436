"""Runs side by side: models as columns, cells as rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from famcli.compare.answer import answer_of
from famcli.compare.cell_runs import CellRuns, Name, runs_by_cell
from famcli.compare.cells import By, shown_scores
from famcli.compare.changes import changes_of
from famcli.compare.comparison import Column, Comparison
from famcli.compare.costs import costs_of
from famcli.compare.measure import Measure
from famcli.compare.notes import notes_of
from famcli.compare.recall import HELD
from famcli.compare.reference import reference_for
from famcli.compare.row import row_of, with_verdicts
from famcli.compare.row_samples import RowSamples, in_order, samples_by_group, samples_of_cell
from famcli.errors import UserError
from famcli.evaluation.record import RunRecord
from famcli.evaluation.recorded_model import context_of

_WHO_HAS: dict[By, str] = {
    "length": "runs without samples.jsonl beside their run.json have no samples",
    "language": "xlsum has it",
    "answer_type": "qasper has it, on data in the schema of the hub; runs of older versions need --fresh",
    "document": "all tasks except passkey have it",
}
"""Whose samples have such groups, for a hint."""


def model_name(record: RunRecord) -> str:
    """The model of a run, as it was given to ``famcli eval``."""
    return record.model["name"]


def compare(
    records: Sequence[RunRecord],
    baseline: str | None = None,
    *,
    name: Name = model_name,
    by: By | None = None,
    refuse: bool = False,
    force: bool = False,
    per_sample: bool = False,
    reference: str | None = None,
    held: float = HELD,
    notes: Sequence[str] = (),
) -> Comparison:
    """Sets finished runs side by side; rows are those of ``shown_scores``, or groups of samples by the headline metric.

    Runs that cannot be compared are in rows of their own (see ``famcli.compare.pairing.facts``). Of several runs of a
    column that have the same cell, the newest counts. Runs of a column's older weights are left out.

    Args:
        records: the newest first.
        baseline: the column that the others are compared with; ``None`` compares nothing.
        name: the column of a run.
        by: what samples are grouped by.
        refuse: runs that cannot be compared are an error, as they always are with a baseline.
        force: they share rows instead, and ``Comparison.differs`` says why they should not.
        per_sample: list the samples that changed sides, of the headline metrics; needs a baseline.
        reference: name of published figures to set beside.
        held: the score from which a text counts as remembered.
        notes: what a reader must know of how the runs were chosen.

    Raises:
        UserError: runs cannot be compared, none is of the baseline, no sample has such a group, samples are damaged, or
            there are no such published figures.
    """
    chosen, left_out = _newest_weights([record for record in records if record.status == "finished"], name)
    refuse = refuse or baseline is not None
    found = runs_by_cell(chosen, shown_scores, name, baseline=baseline, refuse=refuse, force=force)
    found = sorted(found, key=in_order)
    used = {id(record) for cell in found for record, _ in cell.runs.values()}
    counted = [record for record in chosen if id(record) in used]
    columns = {
        name(record): Column(
            name(record),
            record.model["receptive_field"],
            record.model.get("fam"),
            record.model.get("spec"),
            context_of(record),
        )
        for record in reversed(counted)
    }
    if baseline is not None and found:
        if baseline not in columns:
            raise UserError(f"no finished run is of the baseline '{baseline}'", f"there are: {', '.join(columns)}")
        if len(columns) == 1:
            raise UserError(
                f"there is nothing to compare with {baseline}",
                "make a run of a second one: famcli eval --task TASK --model MODEL",
            )
        columns = {baseline: columns[baseline], **columns}
    measures = _measures(found, by)
    whole = [samples_of_cell(cell) for cell in found]
    samples = samples_by_group(found, by, list(columns), measures) if by else whole
    if found and not samples:
        raise UserError(f"no sample here has the group {by}", _WHO_HAS[by] if by else None)
    samples = sorted(samples, key=in_order)
    rows = with_verdicts([row_of(one, measures[one.score], baseline) for one in samples])
    celled = [row_of(one, measure, None) for one, measure in _bare(found, whole)] if by else rows
    return Comparison(
        columns=tuple(columns.values()),
        rows=tuple(rows),
        notes=(*notes, *left_out, *notes_of(found, samples, rows, baseline, by)),
        baseline=baseline,
        changes=tuple(changes_of(_headlines(found, samples), measures, baseline))
        if per_sample and baseline is not None
        else None,
        reference=reference_for(reference, sorted({(cell.first.task["name"], cell.metric) for cell in found}))
        if reference and found
        else None,
        runs=tuple(counted),
        costs=costs_of(counted, name, list(columns)),
        answer=answer_of(found, celled, list(columns), held),
    )


def _headlines(found: Iterable[CellRuns], samples: Sequence[RowSamples]) -> list[RowSamples]:
    """The rows of the headline metrics that hold every sample once: not the whole of a task that has cells."""
    names = {cell.score for cell in found if cell.rank == 0}
    celled = {one.score for one in samples if one.settings}
    return [one for one in samples if one.score in names and (one.settings or one.score not in celled)]


def _measures(found: Iterable[CellRuns], by: By | None) -> dict[str, Measure]:
    """By ``CellRuns.score``."""
    runs: dict[str, tuple[str, list[RunRecord]]] = {}
    for cell in found:
        runs.setdefault(cell.score, (cell.metric, []))[1].extend(record for record, _ in cell.runs.values())
    return {
        score: Measure.of(metric, {id(record): record for record in records}.values(), by)
        for score, (metric, records) in runs.items()
    }


def _bare(found: Iterable[CellRuns], whole: Iterable[RowSamples]) -> list[tuple[RowSamples, Measure]]:
    """Cells with their measure, whatever samples are grouped by."""
    measures = _measures(found, None)
    return [(one, measures[one.score]) for one in whole]


def _newest_weights(records: Sequence[RunRecord], name: Name) -> tuple[list[RunRecord], list[str]]:
    newest: dict[str, str] = {}
    kept, left_out = [], dict[str, int]()
    for record in records:
        column, digest = name(record), record.model["weights_sha256"]
        if newest.setdefault(column, digest) == digest:
            kept.append(record)
        else:
            left_out[column] = left_out.get(column, 0) + 1
    return kept, [f"left out: {count} run(s) of {column} with older weights" for column, count in left_out.items()]
