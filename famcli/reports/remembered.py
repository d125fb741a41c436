"""How far each model remembers, as tables: what stands in place of sentences that would be too many to read."""

from __future__ import annotations

from famcli.compare.answer import Answer
from famcli.compare.cells import format_amount
from famcli.compare.comparison import Column, Comparison
from famcli.compare.recall import Measured, Recall
from famcli.display import format_bytes
from famcli.reports.grid import Grid
from famcli.reports.numbers import NOTHING, field_of, format_number, format_score, short

MOST_MODELS = 3
"""Models of which sentences tell how far they remember."""

MOST_RECALLS = 6
"""Kinds of text, each counted for each model, of which sentences tell it."""


SECONDS = "s/sample"
"""The title of the seconds a sample."""


def in_tables(answer: Answer) -> bool:
    """Whether tables tell how far models remember, and not sentences."""
    models = {recall.column for recall in answer.recalls}
    return len(models) > MOST_MODELS or len(answer.recalls) > MOST_RECALLS


def answer_grids(comparison: Comparison) -> list[Grid]:
    """A table a task, a line a kind of text and model; none where sentences tell it."""
    answer = comparison.answer
    if answer is None or not in_tables(answer):
        return []
    columns = {column.name: column for column in comparison.columns}
    families: dict[str, list[Recall]] = {}
    for recall in answer.recalls:
        families.setdefault(recall.family, []).append(recall)
    return [_grid(family, recalls, columns) for family, recalls in families.items()]


def _grid(family: str, recalls: list[Recall], columns: dict[str, Column]) -> Grid:
    titles = ("receptive field", "remembers to", "first lost", SECONDS, "state")
    places = ["cell"] if any(recall.place for recall in recalls) else []
    words = len(places) + 1
    lines = []
    for recall in recalls:
        column = columns[recall.column]
        cost = _cost(recall.longest or recall.points[0])
        figures = (_field(column), _score(recall, recall.longest), _amount(recall, recall.broken), *cost)
        lines.append((*([recall.place] if places else []), column.title, *figures))
    return Grid(
        f"{family}: how far each model remembers",
        (*places, "model", *titles),
        tuple(lines),
        words=words,
        once=len(places),
        splits=tuple(range(words + 1, words + len(titles))),
    )


def _field(column: Column) -> str:
    """``15,872``, ``context 8,192``: short, so that one line has all."""
    return field_of(column).replace("context of", "context").removesuffix(" tokens")


def _score(recall: Recall, point: Measured | None) -> str:
    """``64k: 1.000 [0.839, 1.000] (n=20)``."""
    if point is None:
        return "none"
    score = format_score(point.score, point.interval, point.too_few)
    return f"{format_amount(recall.axis, point.length)}: {score} (n={point.score.n})"


def _amount(recall: Recall, point: Measured | None) -> str:
    """``4k: 0.333``."""
    if point is None:
        return "none"
    return f"{format_amount(recall.axis, point.length)}: {format_number(point.score.value)}"


def _cost(point: Measured) -> tuple[str, str]:
    """Seconds a sample and the largest state."""
    if point.seconds is None or point.state_bytes is None:
        return NOTHING, NOTHING
    return short(point.seconds), format_bytes(point.state_bytes)
