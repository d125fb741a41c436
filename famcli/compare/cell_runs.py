"""Runs brought into rows: each row holds one score of runs that may be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from famcli.compare.cells import Setting
from famcli.compare.pairing import TOKENIZER, comparable, data_of, fact_words, facts, samples_of
from famcli.errors import UserError
from famcli.evaluation.journal import Entry
from famcli.evaluation.record import RunRecord
from famcli.metrics.statistics import Metric

Name = Callable[[RunRecord], str]
"""The column that a run belongs to."""


@dataclass
class CellRuns:
    """One score of one cell, and the runs that have it.

    Attributes:
        task: name of the task, with what differs between its runs and others of that task.
        metric: name of the score.
        settings: the cell, empty for a whole run.
        runs: by column, the run and its score.
        differs: what makes the runs not comparable; only where that was forced.
        replaced: by column, the runs that have this score too, and are older.
    """

    task: str
    metric: str
    settings: dict[str, Setting]
    runs: dict[str, tuple[RunRecord, Metric]] = field(default_factory=dict)
    differs: list[str] = field(default_factory=list)
    replaced: dict[str, list[tuple[RunRecord, Metric]]] = field(default_factory=dict)

    @property
    def first(self) -> RunRecord:
        """The newest of its runs."""
        return next(iter(self.runs.values()))[0]

    @property
    def rank(self) -> int:
        """The place of its score among those of its task; 0 is the headline."""
        return list(self.first.metrics).index(self.metric)

    @property
    def score(self) -> str:
        """Task and metric, which all cells have in common."""
        return f"{self.task} {self.metric}"

    def add(self, column: str, record: RunRecord, score: Metric) -> None:
        """Takes in a run that is older than those before."""
        if column in self.runs:
            self.replaced.setdefault(column, []).append((record, score))
        else:
            self.runs[column] = record, score

    def entries(self, column: str) -> dict[str, Entry]:
        """The samples behind a column's score by id; none where the run has no samples."""
        if column not in self.runs:
            return {}
        samples, wanted = samples_of(self.runs[column][0]), self.settings
        return {id: entry for id, entry in samples.items() if not wanted or entry.cell == wanted}


def runs_by_cell(
    records: Sequence[RunRecord],
    scores: Callable[[RunRecord], Iterable[tuple[str, dict[str, Setting], Metric]]],
    name: Name,
    *,
    baseline: str | None = None,
    refuse: bool = False,
    force: bool = False,
) -> list[CellRuns]:
    """Brings scores into cells; of several runs of a column that have the same score, the newest counts.

    Runs that are not ``comparable`` get cells of their own, named after what differs, unless ``force`` lets them share.

    Args:
        records: the newest first.
        scores: (metric, settings, score) of a run.
        name: the column of a run.
        baseline: the column that others are compared with, ``None`` for each with each.
        refuse: cells that keep columns apart are an error.
        force: runs share cells whatever differs.

    Raises:
        UserError: two columns are to be compared and cannot.
    """
    label, judge = _labels(records), _Judge()
    alike: dict[tuple[Any, ...], list[CellRuns]] = {}
    for record in records:
        for metric, settings, score in scores(record):
            cells = alike.setdefault((record.task["name"], metric, *sorted(settings.items())), [])
            fitting = [cell for cell in cells if force or not judge(record, cell.first)]
            if not fitting:
                fitting = [CellRuns(record.task["name"] if force else label(record), metric, settings)]
                cells += fitting
            fitting[0].add(name(record), record, score)
    for cells in alike.values():
        if refuse and not force:
            _refuse(cells, baseline, judge)
        for cell in cells:
            cell.differs = _forced(cell, baseline, judge)
    found = [cell for cells in alike.values() for cell in cells]
    if not force:
        _tell_apart(found)
    return found


class _Judge:
    """``comparable``, asked once for each two runs."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], list[str]] = {}

    def __call__(self, record: RunRecord, baseline: RunRecord) -> list[str]:
        key = id(record), id(baseline)
        if key not in self._known:
            self._known[key] = comparable(record, baseline)
        return self._known[key]


def _refuse(cells: Sequence[CellRuns], baseline: str | None, judge: _Judge) -> None:
    """Raises ``UserError`` where two columns have the same score, but nowhere in one cell."""
    newest: dict[str, RunRecord] = {}
    for cell in cells:
        for column, (record, _) in cell.runs.items():
            newest.setdefault(column, record)
    for first in newest if baseline is None else {baseline} & newest.keys():
        for second in newest:
            if not any({first, second} <= cell.runs.keys() for cell in cells):
                record, other = newest[second], newest[first]
                differences = judge(record, other)
                raise UserError(
                    f"{second} and {first} cannot be compared on {record.task['name']}: they differ in "
                    + "; ".join(differences),
                    _way_out(record, other, differences),
                )


def _way_out(record: RunRecord, other: RunRecord, differences: Sequence[str]) -> str:
    """What to do where two runs cannot be compared; a model cannot change its tokenizer."""
    if all(words.startswith(f"{TOKENIZER}: ") for words in differences):
        return (
            "texts of one length in tokens are not the same for both: famcli compare without names and --baseline "
            "sets them apart, --force compares them all the same"
        )
    return (
        f"the runs are {record.path} and {other.path}: repeat one as the other was made, name other runs, or compare "
        "them all the same with --force"
    )


def _tell_apart(cells: Sequence[CellRuns]) -> None:
    """Adds to the names of cells what differs between runs of their task: a run has one name, whatever its cells.

    The first word of a name is its task's, and what is as it is by default has no word.
    """
    told = [{**facts(cell.first), "task": cell.task} for cell in cells]
    words = fact_words([{name: fact for name, fact in found.items() if name not in _NAMED} for found in told])
    for cell, found in zip(cells, words, strict=True):
        cell.task += f" ({', '.join(found)})" * bool(found)
    alike: dict[tuple[Any, ...], list[CellRuns]] = {}
    for cell in cells:
        alike.setdefault((cell.task, cell.metric, *sorted(cell.settings.items())), []).append(cell)
    for group in alike.values():
        bounds = fact_words([facts(cell.first) for cell in group])
        for cell, found in zip(group, bounds, strict=True):
            if len(group) > 1:
                cell.task += f" ({', '.join([*found, cell.first.run_id])})"


_NAMED = ("data", "task version", "max context", "truncation")
"""Facts that are in a name already, or forbid nothing by themselves."""


def _forced(cell: CellRuns, baseline: str | None, judge: _Judge) -> list[str]:
    """What is not the same in the runs of a cell, such as ``fam-tiny and bswa-tiny: limit: 5, none``."""
    against = baseline if baseline in cell.runs else next(iter(cell.runs))
    other = cell.runs[against][0]
    found = {column: judge(record, other) for column, (record, _) in cell.runs.items() if record is not other}
    return [f"{column} and {against} differ in {'; '.join(words)}" for column, words in found.items() if words]


def _labels(records: Sequence[RunRecord]) -> Callable[[RunRecord], str]:
    """Names runs by task, and where a task has several versions or data by these."""
    variants: dict[str, set[tuple[int, str]]] = {}
    for record in records:
        variants.setdefault(record.task["name"], set()).add((record.task["version"], data_of(record)[1]))

    def label(record: RunRecord) -> str:
        task, version = record.task["name"], record.task["version"]
        several = [{variant[i] for variant in variants[task]} for i in range(2)]
        words = [f"version {version}"] if len(several[0]) > 1 else []
        if len(several[1]) > 1:
            words.append(" ".join(data_of(record)))
        return f"{task} ({', '.join(words)})" if words else task

    return label
