"""Short names for models whose specs are long, and for tokenizers: what tables call them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from famcli.compare.answer import Answer
from famcli.compare.comparison import Column, Comparison
from famcli.compare.row import Row
from famcli.reports.tokenizer_names import with_short_tokenizers

LONGEST = 32
"""Characters of a name that is never shortened."""

Value = TypeVar("Value")


def short_names(names: Sequence[str]) -> dict[str, str]:
    """What tables call each model; a name with more than ``LONGEST`` characters is cut to where it differs.

    That is the last part of its path and the fields that not all models of this path have. No two models get one name.
    """
    found: dict[str, str] = {}
    for name in names:
        base, *fields = name.split(",")
        others = [other.split(",")[1:] for other in names if other.split(",")[0] == base]
        differing = [field for field in fields if not all(field in other for other in others)]
        tries = [",".join([part, *differing]) for part in (base.rstrip("/").rpartition("/")[2], base)]
        taken = {*found.values(), *(other for other in names if other != name)}
        free = [short for short in tries if short and short not in taken]
        found[name] = free[0] if len(name) > LONGEST and free else name
    return found


def with_short_names(comparison: Comparison) -> Comparison:
    """The comparison with ``short_names`` in place of the models' names, which the notes keep.

    Tokenizers have short names everywhere, see ``with_short_tokenizers``.
    """
    names = short_names(comparison.names)
    comparison = with_short_tokenizers(comparison, names)
    if all(name == short for name, short in names.items()):
        return comparison
    profile = comparison.profile
    return replace(
        comparison,
        columns=tuple(_column(column, names[column.name]) for column in comparison.columns),
        rows=tuple(_row(row, names) for row in comparison.rows),
        baseline=names[comparison.baseline] if comparison.baseline is not None else None,
        changes=comparison.changes
        and tuple(replace(change, column=names[change.column]) for change in comparison.changes),
        costs=tuple(replace(cost, model=names[cost.model]) for cost in comparison.costs),
        profile=profile and replace(profile, models=[replace(m, name=names[m.name]) for m in profile.models]),
        answer=comparison.answer and _answer(comparison.answer, names),
    )


def _column(column: Column, short: str) -> Column:
    return column if column.name == short else replace(column, name=short, spec=column.spec or column.name)


def _answer(answer: Answer, names: Mapping[str, str]) -> Answer:
    recalls = tuple(replace(recall, column=names[recall.column]) for recall in answer.recalls)
    return replace(answer, recalls=recalls, headlines=tuple(_row(row, names) for row in answer.headlines))


def _row(row: Row, names: Mapping[str, str]) -> Row:
    return replace(
        row,
        scores=_keys(row.scores, names),
        intervals=_keys(row.intervals, names),
        differences=_keys(row.differences, names),
        too_few=tuple(names[name] for name in row.too_few),
    )


def _keys(values: Mapping[str, Value], names: Mapping[str, str]) -> dict[str, Value]:
    return {names[name]: value for name, value in values.items()}
