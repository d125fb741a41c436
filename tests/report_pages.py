"""Runs for reports, and a page taken apart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from made_runs import Answer, document_run, entry

from famcli.compare.side_by_side import compare
from famcli.evaluation.journal import JOURNAL_NAME
from famcli.evaluation.record import RunRecord
from famcli.reports.html.page import Report, build

HOSTILE = (
    "</script></title><script>document.title='taken'</script><img src=x onerror=alert(1)>\"'&amp;\u2028]]>{{ 7*7 }}"
)


def report(*records: RunRecord, baseline: str | None = None) -> Report:
    return build(compare(records, baseline=baseline), lambda record: record.model["name"])


def reading_run(results: Path, name: str, rates: dict[str, Sequence[float]], task: str = "pg19") -> RunRecord:
    """Texts by id with bits per byte of stretches of 100 bytes each."""
    answers = [Answer(id, {"bits_per_byte": sum(found) / len(found)}, document=id) for id, found in rates.items()]
    record = document_run(results, name, answers, task)
    with open(record.path / JOURNAL_NAME, "wb") as file:
        for answer in answers:
            parts = [
                {"tokens": 50, "bytes": 100, "log_likelihood": -rate * 100 * 0.6931471805599453, "hits": 0}
                for rate in rates[answer.id]
            ]
            file.write(replace(entry(answer), answer={"by_position": parts}).to_line())
    return record


class Page(HTMLParser):
    """What is in a page.

    Attributes:
        tags: every element with its attributes.
        rows: the texts of the cells of every line of every table.
        data: what the script reads.
        text: all that is text.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[tuple[str, ...]] = []
        self.text = ""
        self._row: list[str] = []
        self._within = ""
        self._data = ""
        self.feed(source)
        self.close()
        self.data: dict[str, Any] = json.loads(self._data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._within = "data" if dict(attrs).get("id") == "data" else tag
        if tag == "tr":
            self._row = []
        elif tag in ("td", "th"):
            self._row.append("")

    def handle_endtag(self, tag: str) -> None:
        self._within = ""
        if tag == "tr":
            self.rows.append(tuple(self._row))

    def handle_data(self, data: str) -> None:
        if self._within == "data":
            self._data += data
        elif self._within in ("td", "th"):
            self._row[-1] += data
        if self._within not in ("data", "script", "style"):
            self.text += data
