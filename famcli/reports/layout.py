"""What tables for readers hold, as text: every format for readers shows these grids."""

from __future__ import annotations

from collections.abc import Sequence

from famcli.compare.cells import format_settings
from famcli.compare.changes import Change
from famcli.compare.comparison import Comparison
from famcli.compare.reference import Reference
from famcli.compare.row import Difference, Row
from famcli.reports import profile as profiled
from famcli.reports.cost import brief_grid
from famcli.reports.grid import Grid
from famcli.reports.numbers import (
    NOTHING,
    field_of,
    format_number,
    format_p,
    format_paired,
    format_published,
    format_score,
)

LONGEST = 60
"""Characters of a text that a cell shows."""

FORCED = "(not comparable)"


def grids(comparison: Comparison) -> list[Grid]:
    """The main table and what it cost, then what was asked for besides."""
    found = [_side_by_side(comparison) if comparison.baseline is None else _against(comparison, comparison.baseline)]
    if comparison.costs:
        found.append(brief_grid(comparison.costs))
    if comparison.profile is not None:
        found += profiled.cost_grids(comparison.profile)
    if comparison.changes is not None:
        found.append(_changes(comparison.changes, comparison.baseline or ""))
    if comparison.reference is not None and comparison.reference.figures:
        found.append(_published(comparison.reference))
    return found


def remarks(comparison: Comparison) -> list[str]:
    """The lines below the tables; what was forced comes first."""
    forced = [f"NOT COMPARABLE, set side by side by force: {words}" for words in comparison.differs]
    fields = [f"{column.title} {field_of(column)}" for column in comparison.columns]
    specs = [f"{column.name} is {column.spec}" for column in comparison.columns if column.spec]
    read = [f"receptive field: {', '.join(fields)}"] if comparison.baseline is not None else []
    unknown = any(cost.values["tokens_computed"] is None for cost in comparison.costs)
    older = ["cost: what older versions of famcli computed of the tokens read is not known"] if unknown else []
    published = [f"published: {note}" for note in comparison.reference.notes] if comparison.reference else []
    reading = profiled.remarks(comparison.profile) if comparison.profile else []
    return [*forced, *specs, *comparison.notes, *read, *older, *reading, *published]


def _task(row: Row) -> str:
    return f"{row.task} {row.metric}{' ' + FORCED if row.differs else ''}"


def score_words(row: Row, column: str) -> str:
    """The score with its interval."""
    return format_score(row.scores[column], row.intervals.get(column), column in row.too_few)


def _side_by_side(comparison: Comparison) -> Grid:
    """Models as columns; the receptive field leads, because it is why a score falls."""
    names = [column.name for column in comparison.columns]
    lines = [
        (
            "",
            "receptive field",
            *(field_of(column) for column in comparison.columns),
        )
    ]
    for row in comparison.rows:
        texts = [
            f"{score_words(row, name)} (n={row.scores[name].n})" if name in row.scores else NOTHING for name in names
        ]
        lines.append((_task(row), format_settings(row.settings), *texts))
    titles = (column.title for column in comparison.columns)
    return Grid("", ("task", "cell", *titles), tuple(lines), words=2)


def _against(comparison: Comparison, baseline: str) -> Grid:
    """A line a model, the baseline's first, because a difference takes many figures."""
    header = (
        "task",
        "cell",
        "model",
        "value",
        "n",
        "difference",
        "p",
        "corrected",
        "won/lost/tied",
        "shared",
        "verdict",
    )
    lines = []
    for row in comparison.rows:
        start = (_task(row), format_settings(row.settings))
        for column in comparison.columns:
            if column.name not in row.scores:
                continue
            score = row.scores[column.name]
            value = score_words(row, column.name)
            rest = _difference(row.differences.get(column.name)) if column.name != baseline else ("",) * 6
            lines.append((*start, column.title, value, str(score.n), *rest))
    return Grid("", header, tuple(lines), words=3, once=2, splits=(5,))


def _difference(difference: Difference | None) -> tuple[str, ...]:
    """Difference, p as it is and corrected, samples won, lost and tied, samples shared, verdict."""
    if difference is None:
        return (NOTHING,) * 6
    paired = difference.paired
    sides = f"{paired.wins}/{paired.losses}/{paired.ties}"
    ps = format_p(paired.p_value), format_p(difference.p_corrected)
    return format_paired(paired), *ps, sides, str(paired.n), difference.verdict


def _changes(changes: Sequence[Change], baseline: str) -> Grid:
    header = (
        "task",
        "sample",
        "model",
        "score",
        f"score of {baseline}",
        "reference",
        "output",
        f"output of {baseline}",
    )
    lines = tuple(
        (
            f"{change.task} {change.metric}",
            change.id,
            change.column,
            format_number(change.score),
            format_number(change.baseline_score),
            shorten(change.reference),
            shorten(change.output),
            shorten(change.baseline_output),
        )
        for change in changes
    )
    return Grid(f"samples that changed sides: {len(lines)}", header, lines, words=3)


def _published(reference: Reference) -> Grid:
    scores = list(dict.fromkeys((figure.task, figure.metric) for figure in reference.figures))
    models = dict.fromkeys((figure.table, figure.model) for figure in reference.figures)
    values = {(figure.table, figure.model, figure.task, figure.metric): figure for figure in reference.figures}
    lines = tuple(
        (
            f"Table {table}",
            model,
            *(format_published(f.value) if (f := values.get((table, model, *score))) else NOTHING for score in scores),
        )
        for table, model in models
    )
    header = ("published", "model", *(f"{task} {metric}" for task, metric in scores))
    return Grid(f"published figures, not comparable: {reference.source}", header, lines, words=2)


def shorten(text: str) -> str:
    """At most ``LONGEST`` characters."""
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
