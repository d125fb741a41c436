"""What a reader should know first: which model is better at what, and what it cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from famcli.compare.cells import format_settings
from famcli.compare.comparison import Comparison
from famcli.compare.row import Difference, Row
from famcli.evaluation.record import RunRecord
from famcli.reports.grid import Grid
from famcli.reports.layout import FORCED, grids
from famcli.reports.numbers import field_of, format_paired


def verdict_lines(comparison: Comparison) -> list[str]:
    """A sentence a model on how often it is better or worse than the baseline; none without a baseline."""
    lines = []
    for column in comparison.columns:
        found = [row.differences[column.name] for row in comparison.rows if column.name in row.differences]
        if column.name == comparison.baseline or not found:
            continue
        counts = _counts(found)
        lines.append(
            f"{column.title} against {comparison.baseline}: better in {counts[0]} of {len(found)} comparisons, "
            f"worse in {counts[1]}, undecided in {counts[2]}."
        )
    return lines


def verdict_grid(comparison: Comparison) -> Grid | None:
    """Verdicts by model, task and metric; ``None`` without a baseline."""
    if comparison.baseline is None:
        return None
    lines = []
    scores = dict.fromkeys((row.task, row.metric) for row in comparison.rows)
    for task, metric in scores:
        rows = [row for row in comparison.rows if (row.task, row.metric) == (task, metric)]
        forced = f" {FORCED}" if any(row.differs for row in rows) else ""
        for column in comparison.columns:
            found = [(row, row.differences[column.name]) for row in rows if column.name in row.differences]
            if found:
                counts = [str(count) for count in _counts([difference for _, difference in found])]
                lines.append((f"{task} {metric}{forced}", column.title, *counts, *_largest(found)))
    header = ("task", "model", "better", "worse", "undecided", "largest difference", "where", "verdict")
    return Grid(f"verdicts against {comparison.baseline}", header, tuple(lines), words=2, once=1)


def _counts(found: Sequence[Difference]) -> list[int]:
    return [sum(difference.verdict == word for difference in found) for word in ("better", "worse", "undecided")]


def _largest(found: Sequence[tuple[Row, Difference]]) -> tuple[str, str, str]:
    """The difference that is largest, with its interval, its cell and its verdict."""
    row, difference = max(found, key=lambda pair: abs(pair[1].paired.value))
    return format_paired(difference.paired), format_settings(row.settings) or "all samples", difference.verdict


def task_grids(comparison: Comparison) -> list[tuple[str, list[Grid]]]:
    """The tables of ``famcli compare``, one a task."""
    found: list[tuple[str, list[Grid]]] = []
    for task in dict.fromkeys(row.task for row in comparison.rows):
        rows = tuple(row for row in comparison.rows if row.task == task)
        shown = grids(replace(comparison, rows=rows, reference=None, changes=None, costs=(), profile=None))
        found.append((task, [_under(task, grid) for grid in shown]))
    return found


def _under(task: str, grid: Grid) -> Grid:
    """A grid that stands under the name of its task, which it need not repeat, nor cells where there are none."""
    cells = tuple((line[0].removeprefix(f"{task} "), *line[1:]) for line in grid.cells)
    grid = replace(grid, header=("metric", *grid.header[1:]), cells=cells)
    if any(line[1] for line in cells):
        return grid
    bare = tuple((line[0], *line[2:]) for line in cells)
    header = (grid.header[0], *grid.header[2:])
    return replace(grid, header=header, cells=bare, words=grid.words - 1, once=max(grid.once - 1, 0))


def model_grid(comparison: Comparison, name: Callable[[RunRecord], str]) -> Grid:
    """The models."""
    lines = []
    for column in comparison.columns:
        run = next(run for run in comparison.runs if name(run) == column.name)
        role = "baseline" if column.name == comparison.baseline else ""
        parameters = f"{run.model['parameters']:,}"
        tokenizer = run.model["tokenizer"]
        lines.append((column.title, field_of(column), parameters, tokenizer, role))
    header = ("model", "receptive field", "parameters", "tokenizer", "")
    return Grid("models", header, tuple(lines), words=1)
