"""Short names for tokenizers that are known by a hash: what tables and notes call them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from famcli.compare.comparison import Comparison
from famcli.compare.row import Row

FEWEST = 4
"""Digits of a hash that are always shown."""

MOST_MODELS = 5
"""Models that are named as those of a tokenizer."""

_HASHED = re.compile("(.*?)[0-9a-f]{12,}")


def short_tokenizers(names: Sequence[str]) -> dict[str, str]:
    """By tokenizer, ``hub-0d24`` for ``hub-0d24109d7c331d04``: the shortest beginning that no other one has.

    It has at least ``FEWEST`` digits; a name that does not end in a hash stays as it is.
    """
    found = {}
    for name in names:
        hashed = _HASHED.fullmatch(name)
        others = [other for other in names if other != name]
        shortest = len(name) if hashed is None else len(hashed[1]) + FEWEST
        tries = (name[:end] for end in range(shortest, len(name)))
        found[name] = next((part for part in tries if not any(o.startswith(part) for o in others)), name)
    return found


def with_short_tokenizers(comparison: Comparison, models: Mapping[str, str]) -> Comparison:
    """The comparison with ``short_tokenizers`` in names and notes, and a note that spells them out.

    Args:
        comparison: what is shown.
        models: what tables call each model.
    """
    owners: dict[str, dict[str, None]] = {}
    for record in comparison.runs:
        model = record.model["name"]
        owners.setdefault(record.model["tokenizer"], {})[models.get(model, model)] = None
    names = {name: short for name, short in short_tokenizers([*owners]).items() if short != name}
    told = set[str]()

    def short(text: str) -> str:
        for name, instead in names.items():
            if name in text:
                told.add(name)
                text = text.replace(name, instead)
        return text

    shown = _renamed(comparison, short)
    if not told:
        return comparison
    spelled = [f"{names[name]} is {name}, of {_listed([*owners[name]])}" for name in sorted(told)]
    note = f"tokenizers, in whose tokens lengths are counted: {'; '.join(spelled)}"
    return replace(shown, notes=(*shown.notes, note))


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MOST_MODELS
    return f"{', '.join(names[:MOST_MODELS])} and {more} more" if more > 0 else ", ".join(names)


def _renamed(comparison: Comparison, short: Callable[[str], str]) -> Comparison:
    def row(one: Row) -> Row:
        return replace(one, task=short(one.task), differs=tuple(map(short, one.differs)))

    answer, changes = comparison.answer, comparison.changes
    return replace(
        comparison,
        rows=tuple(map(row, comparison.rows)),
        notes=tuple(map(short, comparison.notes)),
        changes=changes and tuple(replace(one, task=short(one.task)) for one in changes),
        costs=tuple(replace(one, cells=short(one.cells)) for one in comparison.costs),
        answer=answer
        and replace(
            answer,
            recalls=tuple(replace(one, task=short(one.task)) for one in answer.recalls),
            headlines=tuple(map(row, answer.headlines)),
        ),
    )
