"""The samples of a report as data for its script, small enough that a browser opens it at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from markupsafe import Markup

from famcli.compare.cells import format_settings
from famcli.display import visible
from famcli.evaluation.journal import Entry
from famcli.reports.html.task_runs import TaskRuns
from famcli.reports.numbers import format_number
from famcli.reports.one_run import options_of

LONGEST_TEXT, SHORTEST_TEXT = 2_000, 60
"""Characters of a text that are kept: the more, the fewer samples there are."""
MOST_BYTES = 12_000_000
MOST_SAMPLES = 50_000

_SHOWN = "\n\t\u200c\u200d"
"""Besides printable characters: breaks, and the joiners that Persian and Indic words are spelt with."""

Table = dict[str, Any]


def samples_data(groups: Sequence[TaskRuns], columns: Sequence[str]) -> Table:
    """What the script reads.

    Returns:
        ``models``; ``tasks`` with ``name`` and ``metrics``, the headline first; ``cells`` and ``texts``, which samples
        point into; ``samples``, each ``[task, model, cell, id, prompt tail, reference, output, class, scores]`` with
        indices for the first three and for tail and reference, class 1 for right, 0 for wrong, 2 for between and
        3 for a sample that does not count, and of a sample with options a last entry, what was said of each of them;
        ``cut``, the characters that long texts were cut to, or 0; ``all``, the
        number of samples there are.
    """
    entries = [item for group in groups for item in _entries(group)]
    kept = entries[:MOST_SAMPLES]
    tasks = [
        {"name": visible(group.label), "metrics": [visible(name) for name in group.runs[0].task["metrics"]]}
        for group in groups
    ]
    head = {"models": [visible(column) for column in columns], "tasks": tasks, "all": len(entries)}
    places = {id(group): i for i, group in enumerate(groups)}
    longest = LONGEST_TEXT
    while True:
        pool = _Pool(longest)
        rows = [
            [places[id(group)], columns.index(column), *_sample(entry, group.headline, pool)]
            for group, column, entry in kept
        ]
        table = {**head, "cells": list(pool.cells), "texts": list(pool.texts), "samples": rows}
        table["cut"] = longest if pool.cut else 0
        if longest <= SHORTEST_TEXT or (not pool.cut and longest < LONGEST_TEXT) or _size(table) <= MOST_BYTES:
            return table
        longest //= 2


def _entries(group: TaskRuns) -> Iterator[tuple[TaskRuns, str, Entry]]:
    """The answers of all models to a sample stand together."""
    ids = dict.fromkeys(id for entries in group.answers.values() for id in entries)
    for id_ in ids:
        for column, entries in group.answers.items():
            if id_ in entries:
                yield group, column, entries[id_]


class _Pool:
    """Texts that several samples have in common, each kept once."""

    def __init__(self, longest: int) -> None:
        self.longest = longest
        self.cut = False
        self.cells: dict[str, int] = {}
        self.texts: dict[str, int] = {}

    def cell(self, text: str) -> int:
        return self.cells.setdefault(text, len(self.cells))

    def text(self, text: str) -> int:
        return self.texts.setdefault(text, len(self.texts))

    def short(self, text: str) -> str:
        """At most ``longest`` characters from the beginning, control characters as escapes."""
        self.cut |= len(text) > self.longest
        return clean(text if len(text) <= self.longest else text[: self.longest - 1] + "…")

    def tail(self, text: str) -> str:
        """The same from the end."""
        self.cut |= len(text) > self.longest
        return clean(text if len(text) <= self.longest else "…" + text[1 - self.longest :])


def _sample(entry: Entry, headline: str, pool: _Pool) -> list[Any]:
    counts = entry.weights.get(headline, 1.0) > 0
    value = entry.scores[headline]
    kind = {0.0: 0, 1.0: 1}.get(value, 2) if counts else 3
    scores = [format_number(score) if entry.weights.get(name, 1.0) > 0 else "-" for name, score in entry.scores.items()]
    options = [pool.short(f"{option.words}: {option.text.strip()}") for option in options_of(entry)]
    return [
        pool.cell(clean(format_settings(entry.cell))),
        clean(entry.id),
        pool.text(pool.tail(entry.prompt_tail)),
        pool.text(pool.short(entry.reference)),
        _output(entry, headline, pool),
        kind,
        scores,
        *([options] if options else []),
    ]


def _output(entry: Entry, headline: str, pool: _Pool) -> str:
    """The answer; of several that were drawn, each on lines of its own behind its number and score."""
    if "draws" not in entry.answer:
        return pool.short(entry.output)
    scored = [(draw["text"].strip(), format_number(draw["scores"][headline])) for draw in entry.generated]
    return "\n".join(pool.short(f"{number}. [{score}] {text}") for number, (text, score) in enumerate(scored, 1))


def clean(text: str) -> str:
    """With control characters, which could turn a line around or hide it, as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _SHOWN else c.encode("unicode_escape").decode() for c in text)


def _size(table: Table) -> int:
    return len(embedded(table).encode())


def embedded(value: Any) -> Markup:
    """JSON that may stand inside a ``script`` element: nothing in it ends the element or a line of a script."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
