"""What a reader of a comparison must know besides its figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import mean

from famcli.compare.cell_runs import CellRuns
from famcli.compare.cells import By
from famcli.compare.comparison import Row
from famcli.compare.pairing import HOW_MANY, samples_of
from famcli.compare.row_samples import RowSamples
from famcli.evaluation.journal import JOURNAL_NAME
from famcli.evaluation.record import RunRecord, skipped_words
from famcli.metrics.paired import LEVEL

DISTANCE = "distance"
"""The detail of a sample that says how many tokens before its question lies what it asks for."""


def notes_of(
    cells: Sequence[CellRuns], samples: Sequence[RowSamples], rows: Sequence[Row], baseline: str | None, by: By | None
) -> list[str]:
    """What differs besides the model, what is missing and why, and how intervals and p-values were made."""
    found = [
        *_skipped(cells),
        *_surroundings(cells),
        *_without_samples(cells),
        *_without_difference(samples, rows, baseline),
    ]
    found += _by_field(cells)
    found += [f"note: {task} has no groups by {by}: left out" for task in sorted(_tasks(cells) - _tasks(samples))]
    return list(dict.fromkeys([*found, *_methods(rows, baseline, by)]))


def _tasks(rows: Iterable[CellRuns] | Iterable[RowSamples]) -> set[str]:
    return {row.task for row in rows}


def _skipped(cells: Iterable[CellRuns]) -> Iterator[str]:
    for cell in cells:
        for record, _ in cell.runs.values():
            if record.skipped:
                yield f"note: {record.run_id} skipped {skipped_words(record)}"


def _surroundings(cells: Iterable[CellRuns]) -> Iterator[str]:
    """What does not forbid to compare, but may move a score."""
    for cell in cells:
        runs = [record for record, _ in cell.runs.values()]
        found = [_facts(record) for record in runs]
        for name in found[0]:
            values = list(dict.fromkeys(facts.get(name, "none") for facts in found))
            if len(values) > 1:
                yield f"note: runs of {cell.first.task['name']} differ in {name}: {', '.join(values)}"


def _facts(record: RunRecord) -> dict[str, str]:
    trials = {HOW_MANY: str(record.task["options"][HOW_MANY])} if HOW_MANY in record.task["options"] else {}
    return {
        **trials,
        "tokenizer": record.model["tokenizer"],
        "chat template": record.context.get("chat_template_sha256", "none")[:8],
        "device": record.device,
        "dtype": record.dtype,
    }


def _without_samples(cells: Iterable[CellRuns]) -> Iterator[str]:
    for cell in cells:
        for record, _ in cell.runs.values():
            if not samples_of(record):
                yield f"note: {record.run_id} has no {JOURNAL_NAME}: standard errors (±) only, and no difference"


def _without_difference(samples: Iterable[RowSamples], rows: Iterable[Row], baseline: str | None) -> Iterator[str]:
    for found, row in zip(samples, rows, strict=True):
        if baseline is None or baseline not in found.scores:
            continue
        for column in found.scores.keys() - row.differences.keys() - {baseline}:
            left, right = found.answers[column], found.answers[baseline]
            if left and right:
                shared = left.keys() & right.keys()
                why = "weigh the samples differently, as by their tokens" if shared else "have no sample in common"
                yield f"note: {column} and {baseline} {why}: no difference of {row.task} {row.metric}"


def _by_field(cells: Iterable[CellRuns]) -> Iterator[str]:
    """What a model recalls from within its receptive field and from before it, which a length alone does not say."""
    found: dict[tuple[str, str, int], dict[bool, dict[str, float]]] = {}
    for cell in cells:
        for column, (record, _) in cell.runs.items():
            if (field := record.model["receptive_field"]) is None:
                continue
            for entry in cell.entries(column).values():
                if isinstance(distance := entry.details.get(DISTANCE), int | float):
                    sides = found.setdefault((column, cell.score, field), {True: {}, False: {}})
                    sides[distance < field][entry.id] = entry.scores[cell.metric]
    for (column, score, field), sides in found.items():
        near, far = (f"{mean(values.values()):.3f} (n={len(values)})" if values else "-" for values in sides.values())
        yield f"{column}, {score}: {near} within {field:,} tokens before the question, {far} earlier"


def _methods(rows: Sequence[Row], baseline: str | None, by: By | None) -> Iterator[str]:
    made = sorted({interval.method for row in rows for interval in row.intervals.values()})
    cluster = "question" if by == "document" else "document"
    if made:
        yield f"interval: {LEVEL:.0%}, {_by(made, cluster)}"
    compared = [difference.paired for row in rows for difference in row.differences.values()]
    methods = [paired.method.split(" and ") for paired in compared if paired.p_value is not None]
    if methods:
        intervals, tests = (sorted({method[i] for method in methods}) for i in range(2))
        yield (
            f"difference: to {baseline}, on the shared samples; interval {LEVEL:.0%}, {_by(intervals, cluster)}; "
            f"p two-sided, {_by(tests, cluster)}, corrected for {len(methods)} tests (Holm)"
        )
    if len(methods) < len(compared):
        yield f"no interval and no p where all samples are of one {cluster}"


def _by(methods: Iterable[str], cluster: str) -> str:
    return " or ".join(methods).replace("cluster", cluster)
