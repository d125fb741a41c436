"""Which runs may be compared, and their samples side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

from famcli.errors import UserError
from famcli.evaluation.journal import JOURNAL_NAME, Entry, read_entries
from famcli.evaluation.record import RunRecord
from famcli.metrics.paired import Interval, PairedDifference, interval, paired_difference
from famcli.metrics.statistics import Metric, clustered_mean

Setting = int | str | float
By = Literal["length", "language", "answer_type", "document"]
BY: tuple[By, ...] = get_args(By)

Key = tuple[tuple[str, Setting], ...]
"""Settings that can be looked up."""

ALL: Key = ()
"""The group of all samples of a run."""


HOW_MANY = "trials"
"""The option of PassKey that says how many samples a cell has; the first ones are the same whatever it is."""


def samples_of(record: RunRecord) -> Mapping[str, Entry]:
    """The answered samples of a run by id; none where only its ``run.json`` is there.

    Raises:
        UserError: the file is damaged, or lacks samples of a finished run.
    """
    file = record.path / JOURNAL_NAME
    try:
        state = file.stat()
    except OSError:
        return {}
    found = _read(file, state.st_size, state.st_mtime_ns)
    if record.status == "finished" and len(found) < record.samples:
        raise UserError(
            f"{file} has {len(found)} samples, and its run had {record.samples}",
            "repeat its `famcli eval` command: the missing ones are asked again",
        )
    return found


@lru_cache(maxsize=64)
def _read(file: Path, size: int, modified: int) -> Mapping[str, Entry]:
    return read_entries(file)


def facts(record: RunRecord) -> dict[str, str]:
    """What runs must have in common to be compared, in words.

    An option that cells are named after (``lengths`` makes cells of one ``length`` each) is none of it: cells of one
    name are alike. Neither is how many samples they have, nor where the data lies, only what it is. The tokenizer
    counts where lengths are counted in tokens: in cells of one ``length``, and in texts that were cut. Models may each
    have a chat template of their own, but all or none of them.
    """
    task, settings = record.task, cell_names(record)
    cells = settings | {f"{name}s" for name in settings} | {"data", HOW_MANY}
    found = {
        "task": task["name"],
        "task version": str(task["version"]),
        "prompt template": task["template_sha256"][:8],
        "data": " ".join(data_of(record)).strip() or "none",
        **{name: json.dumps(value) for name, value in task["options"].items() if name not in cells},
        "seed": str(record.seed),
        "limit": str(record.limit or "none"),
        "max context": str(record.context["max_context"] or "none"),
        "truncation": record.context["truncate"] or "none",
        "chat template": "yes" if "chat_template_sha256" in record.context else "no",
    }
    if "length" in settings or record.context["truncate"]:
        found["tokenizer"] = record.model["tokenizer"]
    return found


def cell_names(record: RunRecord) -> set[str]:
    """What the cells of a run are named after, such as ``length``."""
    scores = {"n", *record.task["metrics"], *(f"{name}_stderr" for name in record.task["metrics"])}
    return {name for cell in record.cells for name in cell} - scores


def data_of(record: RunRecord) -> tuple[str, str]:
    """Name and short hash of a run's data, ``""`` for none."""
    data = record.task["data"] or {}
    name = data.get("name", "") if data.get("source") != "sample" else "sample"
    return name, data.get("sha256", "")[:6]


def comparable(record: RunRecord, baseline: RunRecord) -> list[str]:
    """What forbids to compare two runs, such as ``limit: 5, none`` (the record's first); empty where nothing does.

    Besides ``facts`` these are samples of one id that are not the same question.
    """
    left, right = facts(record), facts(baseline)
    # The name of the same data may be another, where it lies elsewhere.
    if data_of(record)[1] == data_of(baseline)[1]:
        left["data"] = right["data"]
    if "tokenizer" in left or "tokenizer" in right:
        left["tokenizer"], right["tokenizer"] = record.model["tokenizer"], baseline.model["tokenizer"]
    names = dict.fromkeys([*left, *right])
    found = [
        f"{name}: {left.get(name, 'none')}, {right.get(name, 'none')}"
        for name in names
        if left.get(name) != right.get(name)
    ]
    if not found:
        ours, theirs = samples_of(record), samples_of(baseline)
        other = [id for id in ours.keys() & theirs.keys() if _question(ours[id]) != _question(theirs[id])]
        if other:
            found.append(f"samples: {len(other)} of one id have other right answers, such as {min(other)}")
    return found


def _question(entry: Entry) -> tuple[str, str]:
    return entry.reference, json.dumps(entry.cell, sort_keys=True)


def group_of(entry: Entry, by: By | None) -> Key | None:
    """The group of a sample as its settings; ``None`` where its task knows no such groups.

    A length is that of its cell, else the tokens of its prompt to a power of two.
    """
    if by is None:
        return ALL
    value: Setting | None = {**entry.details, **entry.cell}.get(by)
    if by == "length" and value is None:
        power = 1 << (entry.prompt_tokens.bit_length() - 1)
        value = f"{power}-{2 * power - 1}"
    if by == "document":
        value = entry.document or None
    return None if value is None else ((by, value),)


@dataclass(frozen=True)
class Measure:
    """A metric as its samples are compared by it.

    Attributes:
        name: of the metric.
        binary: all samples of the runs are right or wrong.
        geometric: its mean is a geometric one.
        higher_is_better: direction.
        low, high: the least and largest value it can have.
        within: samples of one document count by themselves, because the group is one document.
    """

    name: str
    binary: bool
    geometric: bool
    higher_is_better: bool
    low: float
    high: float
    within: bool = False

    @classmethod
    def of(cls, name: str, records: Iterable[RunRecord], by: By | None = None) -> Measure:
        """The metric ``name`` of runs of one task."""
        runs = list(records)
        values = {entry.scores[name] for run in runs for entry in samples_of(run).values()}
        spec = runs[0].task["metrics"][name]
        unit = spec["higher_is_better"] and all(0 <= value <= 1 for value in values)
        return cls(
            name=name,
            binary=values <= {0.0, 1.0},
            geometric=spec["mean"] == "geometric",
            higher_is_better=spec["higher_is_better"],
            low=0.0 if all(value >= 0 for value in values) else -math.inf,
            high=1.0 if unit else math.inf,
            within=by == "document",
        )

    def weight(self, entry: Entry) -> float:
        """How often a sample counts."""
        return entry.weights.get(self.name, 1.0)

    def mean(self, entries: Iterable[Entry]) -> Metric | None:
        """See ``clustered_mean``."""
        return clustered_mean(*self._columns(entries), self.geometric)

    def interval(self, entries: Iterable[Entry]) -> Interval | None:
        """See ``famcli.metrics.paired.interval``."""
        values, weights, clusters = self._columns(entries)
        return interval(
            values,
            weights,
            clusters,
            binary=self._right_or_wrong(values),
            geometric=self.geometric,
            bounds=(self.low, self.high),
        )

    def difference(self, left: Mapping[str, Entry], right: Mapping[str, Entry]) -> PairedDifference | None:
        """Compares the samples that both have and that count in both.

        Returns:
            ``None`` without any, and where a sample counts more in one than in the other, as by the tokens of two
            tokenizers: such means are of different things.
        """
        pairs = [(entry, right[id]) for id, entry in left.items() if id in right]
        pairs = [(a, b) for a, b in pairs if self.weight(a) and self.weight(b)]
        if any(self.weight(a) != self.weight(b) for a, b in pairs):
            return None
        ours, weights, clusters = self._columns(a for a, _ in pairs)
        theirs = [b.scores[self.name] for _, b in pairs]
        return paired_difference(
            ours,
            theirs,
            weights,
            clusters,
            binary=self._right_or_wrong([*ours, *theirs]),
            geometric=self.geometric,
            higher_is_better=self.higher_is_better,
            bounds=(self.low - self.high, self.high - self.low),
        )

    def _right_or_wrong(self, values: Sequence[float]) -> bool:
        """Also where only these samples are, of a score from 0 to 1: no other share varies more."""
        return self.high == 1 and set(values) <= {0.0, 1.0}

    def _columns(self, entries: Iterable[Entry]) -> tuple[list[float], list[float], list[str]]:
        """Scores, weights and clusters of the samples that count."""
        entries = [entry for entry in entries if self.weight(entry)]
        return (
            [entry.scores[self.name] for entry in entries],
            [self.weight(entry) for entry in entries],
            [entry.id if self.within else entry.document or entry.id for entry in entries],
        )


def pair(record: RunRecord, baseline: RunRecord, metric: str, by: By | None = None) -> dict[Key, PairedDifference]:
    """The differences of a run to its baseline, over all samples or by groups; p-values are not corrected.

    Args:
        record: the run.
        baseline: a run that is ``comparable``, of which the caller makes sure.
        metric: name of the score.
        by: what samples are grouped by; ``None`` makes one group ``ALL``.

    Returns:
        By the settings of the group, ``(("length", 1024),)``; without groups that have no ``Measure.difference``.

    Raises:
        UserError: a run has no samples.
    """
    for run in (record, baseline):
        if not samples_of(run):
            raise UserError(f"the run {run.run_id} has no {JOURNAL_NAME} beside its record: it cannot be paired")
    measure = Measure.of(metric, (record, baseline), by)
    left, right = samples_of(record), samples_of(baseline)
    found = {}
    for group, members in grouped(right.values(), lambda entry: group_of(entry, by)).items():
        if difference := measure.difference({e.id: left[e.id] for e in members if e.id in left}, right):
            found[group] = difference
    return found


def grouped(entries: Iterable[Entry], key: Callable[[Entry], Key | None]) -> dict[Key, list[Entry]]:
    """Entries by key, in the order of their first; those without one are left out."""
    groups: dict[Key, list[Entry]] = {}
    for entry in entries:
        if (found := key(entry)) is not None:
            groups.setdefault(found, []).append(entry)
    return groups
