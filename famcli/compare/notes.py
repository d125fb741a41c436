"""What a reader of a comparison must know besides its figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import mean

from famcli.compare.cell_runs import CellRuns
from famcli.compare.cells import By, format_settings
from famcli.compare.measure import Scored
from famcli.compare.pairing import HOW_MANY, cut_otherwise, samples_of
from famcli.compare.row import Row
from famcli.compare.row_samples import RowSamples
from famcli.evaluation.journal import JOURNAL_NAME
from famcli.evaluation.record import RunRecord, left_out_words, skipped_words
from famcli.metrics.paired import FEWEST, LEVEL
from famcli.task import added_defaults

DISTANCE = "distance"
"""The detail of a sample that says how many tokens before its question lies what it asks for."""


def notes_of(
    cells: Sequence[CellRuns], samples: Sequence[RowSamples], rows: Sequence[Row], baseline: str | None, by: By | None
) -> list[str]:
    """What differs besides the model, what is missing and why, and how intervals and p-values were made."""
    found = [
        *_replaced(cells),
        *_defaults(cells),
        *_skipped(cells),
        *_surroundings(cells),
        *_cuts(cells),
        *_without_samples(cells),
        *_without_difference(samples, rows, baseline),
    ]
    found += [*_by_field(cells), *_answers(cells)]
    found += [f"note: {task} has no groups by {by}: left out" for task in sorted(_tasks(cells) - _tasks(samples))]
    return list(dict.fromkeys([*found, *_methods(rows, baseline, by)]))


def _tasks(rows: Iterable[CellRuns] | Iterable[RowSamples]) -> set[str]:
    return {row.task for row in rows}


def _replaced(cells: Iterable[CellRuns]) -> Iterator[str]:
    """The newest run counts; where it has fewer samples than an older one, a reader must know."""
    found: dict[tuple[str, str, str], list[tuple[str, int, int]]] = {}
    for cell in cells:
        for column, others in cell.replaced.items():
            newer, score = cell.runs[column]
            older, other = max(others, key=lambda pair: pair[1].n)
            if other.n > score.n:
                words = format_settings(cell.settings) or "all samples"
                pairs = found.setdefault((column, newer.run_id, older.run_id), [])
                pairs += [(words, score.n, other.n)] * ((words, score.n, other.n) not in pairs)
    for (column, run, other_run), pairs in found.items():
        words = "; ".join(f"{cell}: n={n}, not n={more}" for cell, n, more in pairs[:_SHOWN])
        rest = f"; and {len(pairs) - _SHOWN} more" * (len(pairs) > _SHOWN)
        yield (
            f"note: {column}: the newer run {run} takes the place of the larger {other_run} ({words}{rest}); name that "
            "one to see it"
        )


_SHOWN = 3
"""Cells that a note names."""


def _defaults(cells: Sequence[CellRuns]) -> Iterator[str]:
    """What runs have that lack an option which others have: it came to the task later."""
    options: dict[str, list[set[str]]] = {}
    for cell in cells:
        options.setdefault(cell.first.task["name"], []).append(set(cell.first.task["options"]))
    for task, found in options.items():
        lacking = {name for names in found for name in names if not all(name in others for others in found)}
        defaults = added_defaults(task) if lacking else {}
        words = [f"{name} {default}" for name, default in defaults.items() if name in lacking]
        if words:
            yield f"note: {task}, where its name says no other: {', '.join(words)}"


def _skipped(cells: Iterable[CellRuns]) -> Iterator[str]:
    for cell in cells:
        for record, _ in cell.runs.values():
            if record.skipped:
                yield f"note: {record.run_id} skipped {skipped_words(record)}"
            if record.left_out:
                yield f"note: {record.run_id} left out what is beyond its context: {left_out_words(record.left_out)}"


def _surroundings(cells: Iterable[CellRuns]) -> Iterator[str]:
    """What does not forbid to compare, but may move a score."""
    for cell in cells:
        runs = [record for record, _ in cell.runs.values()]
        found = [_facts(record) for record in runs]
        for name in found[0]:
            values = list(dict.fromkeys(facts.get(name, "none") for facts in found))
            if len(values) > 1:
                yield f"note: runs of {cell.first.task['name']} differ in {name}: {', '.join(values)}"


def _cuts(cells: Iterable[CellRuns]) -> Iterator[str]:
    """One bound may cut more for one model than for another, which has more around the text."""
    for cell in cells:
        first, *others = cell.runs
        for other in others:
            one, two = cell.runs[other][0], cell.runs[first][0]
            if count := len(cut_otherwise(one, two)):
                yield f"note: of {count} samples of {one.task['name']} not the same was cut for {other} and {first}"


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
                why = "± is one standard error, and there is no difference"
                yield f"note: {record.run_id} has no {JOURNAL_NAME}: {why}"


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


def _answers(cells: Iterable[CellRuns]) -> Iterator[str]:
    """Answers that are no answers, which is no lack of memory."""
    for cell in cells:
        for column, (record, _) in cell.runs.items():
            counts = {"are empty": "answers_empty", "were cut at the budget of tokens": "answers_cut"}
            words = [f"{count} {what}" for what, name in counts.items() if (count := record.cost.get(name))]
            if words:
                of = f"{record.answers} answers of {column} to {record.task['name']}"
                yield f"note: of {of} {' and '.join(words)}"


def _methods(rows: Sequence[Row], baseline: str | None, by: By | None) -> Iterator[str]:
    made = sorted({interval.method for row in rows for interval in row.intervals.values()})
    cluster = "question" if by == "document" else "document"
    if made:
        yield f"interval: {interval_words(made, cluster)}"
    compared = [difference.paired for row in rows for difference in row.differences.values()]
    tested = [paired for paired in compared if paired.p_value is not None]
    if tested:
        tests = sorted({paired.method.split(" and ")[1] for paired in tested})
        intervals = sorted({paired.method.split(" and ")[0] for paired in tested if paired.low is not None})
        with_interval = f"interval {interval_words(intervals, cluster)}, 0 in it where p is 0.05 or more; " * bool(
            intervals
        )
        yield (
            f"difference: to {baseline}, on the shared samples; {with_interval}p two-sided, {_by(tests, cluster)}, and "
            f"corrected for {len(tested)} tests (Holm), which the verdict goes by"
        )
    if any(row.too_few for row in rows) or any(paired.low is None for paired in compared):
        yield too_few_words(cluster)


def score_notes(scores: Sequence[Scored]) -> list[str]:
    """How the intervals of a run's scores were made, and why there are none."""
    made = sorted({score.interval.method for score in scores if score.interval})
    found = [interval_words(made, "document")] if made else []
    if any(score.too_few for score in scores):
        found.append(too_few_words("document"))
    if not all(score.interval or score.too_few for score in scores):
        found.append(f"there is no {JOURNAL_NAME}: ± is one standard error")
    return found


def interval_words(methods: Iterable[str], cluster: str) -> str:
    """``95%, Wilson or bootstrap by document``."""
    return f"{LEVEL:.0%}, {_by(methods, cluster)}"


def too_few_words(cluster: str) -> str:
    """Why there is no interval."""
    return f"[too few]: no interval of fewer than {FEWEST} {cluster}s, or of a single right or wrong"


def _by(methods: Iterable[str], cluster: str) -> str:
    return " or ".join(methods).replace("cluster", cluster)
