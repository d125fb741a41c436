"""A check for the terminal, for a CI job's summary and for what reads JUnit; and what moved in a baseline."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from famcli.compare.cells import format_settings
from famcli.display import in_markdown, json_text, visible
from famcli.gate.check import Check, Verdict
from famcli.gate.update import Move
from famcli.reports.grid import Grid
from famcli.reports.numbers import format_number

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = ("", "score", "cell", "value", "baseline", "tolerance", "why")
ALL = "all"
"""The cell of all samples of a task."""
COLOURS = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


def summary(check: Check) -> str:
    """``failed: 2 of 14 scores of my-model are worse than the baseline of fam-tiny allows``."""
    failed = check.count("failed")
    judged = check.count("passed") + failed
    skipped = f"; {check.count('skipped')} skipped" if check.count("skipped") else ""
    if check.passed:
        return f"passed: all {judged} scores of {check.model} hold the baseline of {check.made_of}{skipped}"
    return (
        f"failed: {failed} of {judged} scores of {check.model} are worse than the baseline of {check.made_of} "
        f"allows{skipped}"
    )


def to_rich(check: Check) -> Table:
    """What failed first."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in COLUMNS:
        table.add_column(
            title,
            justify="right" if title in ("value", "baseline") else "left",
            overflow="fold",
            no_wrap=title not in ("tolerance", "why"),
        )
    for status, *cells in lines(check):
        table.add_row(Text(status, style=COLOURS[status]), *(Text(visible(cell)) for cell in cells))
    return table


def lines(check: Check) -> list[tuple[str, ...]]:
    """The cells of ``COLUMNS``, what failed first."""
    return [_cells(verdict) for verdict in _ordered(check)]


def to_markdown(check: Check) -> str:
    """A heading, the summary and a pipe table, what failed first; the notes below it."""
    rows = [COLUMNS, tuple("---:" if title in ("value", "baseline") else "---" for title in COLUMNS)]
    rows += [tuple(in_markdown(cell) for cell in line) for line in lines(check)]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    notes = "".join(f"\nnote: {in_markdown(note)}\n" for note in check.notes)
    return f"### famcli check\n\n{in_markdown(summary(check))}\n\n{table}{notes}\n"


def to_junit(check: Check) -> str:
    """JUnit XML: a test suite a task, a test case a score."""
    root = ElementTree.Element("testsuites", {"name": "famcli check", **_counts(check.verdicts)})
    for task in dict.fromkeys(verdict.task for verdict in check.verdicts):
        verdicts = [verdict for verdict in check.verdicts if verdict.task == task]
        suite = ElementTree.SubElement(root, "testsuite", {"name": _legal(task), **_counts(verdicts)})
        for verdict in verdicts:
            _, _, cell, value, baseline, tolerance, why = _cells(verdict)
            name = f"{verdict.metric}, {cell}" if verdict.settings else verdict.metric
            case = ElementTree.SubElement(
                suite, "testcase", classname=_legal(f"{check.model}.{task}"), name=_legal(name), time="0"
            )
            message = _legal(f"{value}, baseline {baseline}, {tolerance}: {why}")
            if verdict.status == "failed":
                ElementTree.SubElement(case, "failure", message=message, type="regression").text = message
            elif verdict.status == "skipped":
                ElementTree.SubElement(case, "skipped", message=message)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def to_json(check: Check) -> str:
    """``{"passed": true, "model": ..., "verdicts": [{...}], "notes": [...]}``."""
    return json_text({"passed": check.passed, **dataclasses.asdict(check)}) + "\n"


def moves_grid(moves: Sequence[Move]) -> Grid:
    """Scores that moved, are new or are gone."""
    lines = []
    for move in moves:
        before, after = ("-" if value is None else format_number(value) for value in (move.before, move.after))
        task = f"{move.task} {move.metric}"
        lines.append((task, format_settings(move.settings) or ALL, move.tolerance, before, after))
    return Grid("", ("score", "cell", "tolerance", "before", "now"), tuple(lines), words=3)


def _ordered(check: Check) -> list[Verdict]:
    return sorted(check.verdicts, key=lambda verdict: list(COLOURS).index(verdict.status) != 1)


def _cells(verdict: Verdict) -> tuple[str, ...]:
    value = "-" if verdict.value is None else format_number(verdict.value)
    return (
        verdict.status,
        f"{verdict.task} {verdict.metric}",
        format_settings(verdict.settings) or ALL,
        value if verdict.n is None else f"{value} (n={verdict.n})",
        format_number(verdict.baseline),
        verdict.tolerance,
        verdict.why,
    )


def _counts(verdicts: Sequence[Verdict]) -> dict[str, str]:
    statuses = [verdict.status for verdict in verdicts]
    return {
        "tests": str(len(statuses)),
        "failures": str(statuses.count("failed")),
        "errors": "0",
        "skipped": str(statuses.count("skipped")),
    }


def _legal(text: str) -> str:
    """Text with escapes for what XML cannot hold, or a reader would not see."""
    return visible(text)
