"""A page that is made again when the runs that it is about have moved on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from famcli.errors import UserError
from famcli.evaluation.journal import JOURNAL_NAME
from famcli.evaluation.record import RECORD_NAME
from famcli.reports.html.asked import Asked, report_of
from famcli.reports.html.page import waiting_page
from famcli.reports.html.under_way import runs_under_way, under_way_grid

EVERY: float = 10
"""Seconds after which a browser asks for news."""


class Made(NamedTuple):
    """A page, and whether it may change while the files of the runs do not: a run at work may end."""

    page: str
    moves: bool


def live_page(asked: Asked) -> Made:
    """The report of what is finished, below what is under way; without anything finished, the latter and why."""
    records = runs_under_way(asked.names, asked.results)
    under_way = under_way_grid(records) if records else None
    moves = any(record.standing == "running" for record in records)
    try:
        page = report_of(asked, under_way, EVERY).page
    except UserError as error:
        page, moves = waiting_page(error.message, error.hint, under_way, EVERY), True
    return Made(page, moves)


class Remade:
    """What ``make`` gives, kept until a file of the runs has changed, or the run at work may have ended."""

    def __init__(self, make: Callable[[], Made], folders: Sequence[Path]) -> None:
        self._make, self._folders = make, folders
        self._seen: frozenset[tuple[str, int, int]] | None = None
        self._last, self._at = Made("", False), 0.0

    def __call__(self) -> str:
        seen = frozenset(_files(self._folders))
        old = self._last.moves and time.monotonic() - self._at >= EVERY
        if seen != self._seen or old:
            self._last, self._seen, self._at = self._make(), seen, time.monotonic()
        return self._last.page


def _files(folders: Sequence[Path]) -> Iterator[tuple[str, int, int]]:
    """Path, size and time of each record and journal in folders of runs, or of a run."""
    for folder in folders:
        try:
            within = [folder, *folder.iterdir()]
        except OSError:
            continue
        for path in (run / name for run in within for name in (RECORD_NAME, JOURNAL_NAME)):
            try:
                state = os.stat(path)
            except OSError:
                continue
            yield str(path), state.st_size, state.st_mtime_ns
