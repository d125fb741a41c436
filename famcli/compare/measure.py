"""A metric as samples are compared by it: means, intervals, paired differences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from famcli.compare.cells import By, Setting
from famcli.compare.pairing import samples_of
from famcli.evaluation.journal import Entry
from famcli.evaluation.record import RunRecord
from famcli.metrics.paired import Interval, PairedDifference, interval, paired_difference
from famcli.metrics.statistics import Metric, clustered_mean


@dataclass(frozen=True)
class Scored:
    """A score of a run with its interval.

    Attributes:
        metric, settings, score: see ``famcli.compare.cells.shown_scores``.
        interval: of the score, ``None`` where there are too few samples, or where they are not there.
        too_few: why it is so.
    """

    metric: str
    settings: dict[str, Setting]
    score: Metric
    interval: Interval | None
    too_few: bool


def scored(record: RunRecord, scores: Iterable[tuple[str, dict[str, Setting], Metric]]) -> list[Scored]:
    """Scores of a run, (metric, settings, score) each, with their intervals."""
    samples, measures, found = list(samples_of(record).values()), dict[str, Measure](), []
    for metric, settings, score in scores:
        measure = measures.setdefault(metric, Measure.of(metric, [record]))
        interval = measure.interval(entry for entry in samples if not settings or entry.cell == settings)
        found.append(Scored(metric, settings, score, interval, too_few=bool(samples) and interval is None))
    return found


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
