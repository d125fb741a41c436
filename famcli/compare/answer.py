"""The answer to what a comparison is made for: does it remember, and what did that cost?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from famcli.compare.cell_runs import CellRuns
from famcli.compare.recall import Recall, is_recall, recalls_of
from famcli.compare.row import Row


@dataclass(frozen=True)
class Answer:
    """What a reader should know first.

    Attributes:
        held: the score from which a text counts as remembered.
        recalls: how far each model remembers, see ``recalls_of``.
        headlines: the headline score of each task that is not measured by length.
    """

    held: float
    recalls: tuple[Recall, ...] = ()
    headlines: tuple[Row, ...] = ()


def answer_of(found: Sequence[CellRuns], rows: Sequence[Row], columns: Sequence[str], held: float) -> Answer:
    """The answer; the arguments are those of ``recalls_of``."""
    recalls = recalls_of(found, rows, columns, held)
    headlines = [
        row for cell, row in zip(found, rows, strict=True) if not row.settings and cell.rank == 0 and not is_recall(row)
    ]
    return Answer(held, recalls, tuple(headlines))


def best(row: Row) -> list[str]:
    """The columns with the best score of a row."""
    values = {column: score.value for column, score in row.scores.items()}
    top = max(values.values()) if row.higher_is_better else min(values.values())
    return [column for column, value in values.items() if value == top]
