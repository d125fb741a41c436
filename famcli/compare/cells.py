"""Cells: the settings whose samples are averaged together, as keys, in order and in words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from famcli.evaluation.journal import Entry
from famcli.evaluation.record import RunRecord
from famcli.metrics.statistics import Metric

Setting = int | str | float


By = Literal["length", "language", "answer_type", "document"]


Key = tuple[tuple[str, Setting], ...]
"""Settings that can be looked up."""


LENGTH = "length"
"""The setting that is a length of texts in tokens; any other whole number is so many of what its name says."""


ALL: Key = ()
"""The group of all samples of a run."""


def cell_names(record: RunRecord) -> set[str]:
    """What the cells of a run are named after, such as ``length``."""
    scores = {"n", *record.task["metrics"], *(f"{name}_stderr" for name in record.task["metrics"])}
    return {name for cell in record.cells for name in cell} - scores


def cell_score(cell: Mapping[str, Any], metric: str, metrics: Iterable[str]) -> tuple[dict[str, Setting], Metric]:
    """A cell of a run record, taken apart into its settings and its score by one metric."""
    scores = {"n", *metrics, *(f"{name}_stderr" for name in metrics)}
    settings = {name: value for name, value in cell.items() if name not in scores}
    return settings, Metric(cell[metric], cell.get(f"{metric}_stderr"), cell["n"])


def shown_scores(record: RunRecord) -> list[tuple[str, dict[str, Setting], Metric]]:
    """(metric, settings, score) of what tables show of a run.

    Where samples differ in settings, it is the headline metric of each cell, and over all of them unless the settings
    are numbers: a mean over lengths says nothing. Otherwise it is every metric of the run.
    """
    headline = next(iter(record.metrics), None)
    if headline is None:
        return []
    names = record.task["metrics"]
    cells = [cell_score(cell, headline, names) for cell in record.cells if cell[headline] is not None]
    scores = [(headline, settings, score) for settings, score in cells if settings]
    if not scores:
        return [(name, {}, metric) for name, metric in record.metrics.items()]
    if all(isinstance(value, str) for _, settings, _ in scores for value in settings.values()):
        scores.append((headline, {}, record.metrics[headline]))
    return scores


def group_of(entry: Entry, by: By | None) -> Key | None:
    """The group of a sample as its settings; ``None`` where its task knows no such groups.

    A length is that of its cell, else the tokens of its prompt to a power of two.
    """
    if by is None:
        return ALL
    value: Setting | None = {**entry.details, **entry.cell}.get(by)
    if by == "length" and value is None:
        power = 1 << max(0, entry.prompt_tokens.bit_length() - 1)
        value = f"{power}-{2 * power - 1}"
    if by == "document":
        value = entry.document or None
    return None if value is None else ((by, value),)


def grouped(entries: Iterable[Entry], key: Callable[[Entry], Key | None]) -> dict[Key, list[Entry]]:
    """Entries by key, in the order of their first; those without one are left out."""
    groups: dict[Key, list[Entry]] = {}
    for entry in entries:
        if (found := key(entry)) is not None:
            groups.setdefault(found, []).append(entry)
    return groups


def words_first(item: tuple[str, Setting]) -> tuple[bool, bool, str]:
    """Sorts settings: values in words, then numbers, both by name, and a length last."""
    return not isinstance(item[1], str), item[0] == LENGTH, item[0]


def axis_of(settings: Mapping[str, Setting]) -> str | None:
    """The setting that says how much is to be remembered: a length, else the only whole number; ``None`` for none.

    A length may be 0: a text without what makes it long.
    """
    amounts = [name for name, value in settings.items() if type(value) is int and value >= (name != LENGTH)]
    return LENGTH if LENGTH in amounts else amounts[0] if len(amounts) == 1 else None


def in_order(settings: Mapping[str, Setting]) -> list[Any]:
    """Sorts cells: by their words, then by their numbers; numbers inside words count as numbers."""
    return [_natural(value) for _, value in sorted(settings.items(), key=words_first)]


def _natural(value: Setting) -> list[tuple[bool, float, str]]:
    if not isinstance(value, str):
        return [(False, value, "")]
    parts = re.split(r"(\d+)", value)
    return [(not part.isdigit(), float(part) if part.isdigit() else 0.0, part) for part in parts]


def format_settings(settings: Mapping[str, Setting]) -> str:
    """``start 64k``, ``16 pairs 8k``: values in words first, lengths in tokens last."""
    return " ".join(
        format_amount(name, value) if isinstance(value, int) else str(value)
        for name, value in sorted(settings.items(), key=words_first)
    )


def format_amount(name: str, value: int) -> str:
    """``64k`` of a length, ``16 pairs`` of anything else; ``0k`` is the text without what makes it long."""
    if name == LENGTH:
        return format_tokens(value) if value else "0k"
    return f"{value:,} {name.removesuffix('s') if value == 1 else name}"


def format_tokens(count: int) -> str:
    """65536 -> ``64k``, 1048576 -> ``1M``, 5000 -> ``5,000``."""
    for size, unit in ((1024**2, "M"), (1024, "k")):
        if count >= size and count % size == 0:
            return f"{count // size}{unit}"
    return f"{count:,}"
