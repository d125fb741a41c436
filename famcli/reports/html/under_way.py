"""Runs that are not finished, with what they have answered so far."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from famcli.compare.cells import format_settings
from famcli.compare.measure import Measure
from famcli.compare.one_model import runs_of_model
from famcli.compare.pairing import samples_of
from famcli.errors import UserError
from famcli.evaluation.journal import Entry
from famcli.evaluation.record import RunRecord, load_records
from famcli.reports.grid import Grid
from famcli.reports.numbers import NOTHING, format_score


def runs_under_way(names: Sequence[str], results: Path) -> list[RunRecord]:
    """The runs in ``results`` that are not finished, the newest first; with names those that one of them means."""
    records = load_records(results)
    meant = {record.run_id for name in names for record in runs_of_model(name, records)}
    return [
        record
        for record in records
        if record.status != "finished"
        and (not names or record.run_id in meant or any(record.run_id.startswith(name) for name in names))
    ]


def under_way_grid(records: Sequence[RunRecord]) -> Grid:
    """A line a run and cell: how many samples are answered, and the first score of these."""
    lines = [(*_start(record), *line) for record in records for line in _lines(record)]
    header = ("run", "model", "task", "standing", "answered", "cell", "score so far", "n")
    return Grid("runs under way", header, tuple(lines), words=4, once=5)


def _start(record: RunRecord) -> tuple[str, str, str, str]:
    standing = f"{record.standing}, begun {record.started[:19].replace('T', ' ')}"
    return record.run_id, record.model["name"], record.task["name"], standing


def _lines(record: RunRecord) -> list[tuple[str, str, str, str]]:
    try:
        entries = list(samples_of(record).values())
        measured = _measured(record, entries)
    except UserError as error:
        return [(NOTHING, "", error.message, "")]
    of = "" if record.planned is None else f" of {record.planned:,}"
    answered = f"{len(entries):,}{of}"
    return [(answered, *line) for line in measured] or [(answered, "", NOTHING, "")]


def _measured(record: RunRecord, entries: Sequence[Entry]) -> list[tuple[str, str, str]]:
    """Cell, score and number of samples of each cell that has some."""
    metric = next(iter(record.task["metrics"]), None)
    if metric is None:
        return []
    measure = Measure.of(metric, [record])
    cells: dict[str, list[Entry]] = {}
    for entry in entries:
        cells.setdefault(format_settings(entry.cell), []).append(entry)
    found = []
    for cell, members in cells.items():
        mean, interval = measure.mean(members), measure.interval(members)
        if mean:
            found.append((cell, f"{metric} {format_score(mean, interval, interval is None)}", str(mean.n)))
    return found
