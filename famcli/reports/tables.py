"""Runs side by side: models as columns, cells as rows, for the terminal and as markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from famcli.evaluation.record import RunRecord
from famcli.metrics.statistics import Metric

if TYPE_CHECKING:
    from rich.table import Table

Setting = int | str | float


@dataclass(frozen=True)
class Column:
    """A model: its ``name`` and its ``receptive_field`` in tokens, ``None`` where that is unbounded."""

    name: str
    receptive_field: int | None


@dataclass(frozen=True)
class Row:
    """One score of one cell, or of a whole task that has no cells.

    Attributes:
        task: name of the task, with its version where several were run.
        metric: name of the score.
        settings: the cell, e.g. ``{"length": 1024, "position": "start"}``.
        scores: by model name; a model without a run of the cell is left out.
    """

    task: str
    metric: str
    settings: dict[str, Setting]
    scores: dict[str, Metric]


@dataclass(frozen=True)
class Comparison:
    """Models, what they scored, and ``notes``: what differs between the runs besides the model."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def compare(records: Sequence[RunRecord]) -> Comparison:
    """Sets finished runs side by side; rows are those of ``shown_scores``.

    Runs of one task in different versions or on different data are in rows of their own. Of several runs of a model
    that have the same cell, the newest counts. Runs of a model's older weights are left out.

    Args:
        records: the newest first.
    """
    chosen, notes = _newest_weights([record for record in records if record.status == "finished"])
    label = _labels(chosen)
    rows: dict[tuple[Any, ...], Row] = {}
    used = []
    for record in chosen:
        task, new = label(record), False
        for metric, settings, score in shown_scores(record):
            row = rows.setdefault((task, metric, *sorted(settings.items())), Row(task, metric, settings, {}))
            new |= row.scores.setdefault(record.model["name"], score) is score
        if new:
            used.append(record)
    columns = {r.model["name"]: Column(r.model["name"], r.model["receptive_field"]) for r in reversed(used)}
    return Comparison(tuple(columns.values()), tuple(sorted(rows.values(), key=_order)), (*notes, *_differences(used)))


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


def _labels(records: Sequence[RunRecord]) -> Callable[[RunRecord], str]:
    """Names runs by task, and by what else tells apart runs that do not belong in one row."""
    variants: dict[str, set[tuple[int, str]]] = {}
    for record in records:
        variants.setdefault(record.task["name"], set()).add((record.task["version"], _data(record)[1]))

    def label(record: RunRecord) -> str:
        task, version = record.task["name"], record.task["version"]
        several = [{variant[i] for variant in variants[task]} for i in range(2)]
        words = [f"version {version}"] if len(several[0]) > 1 else []
        if len(several[1]) > 1:
            name, sha256 = _data(record)
            words.append(f"{name} {sha256[:6]}")
        return f"{task} ({', '.join(words)})" if words else task

    return label


def _data(record: RunRecord) -> tuple[str, str]:
    """Name and hash of a run's data."""
    data = record.task["data"] or {}
    name = data.get("name", "") if data.get("source") != "sample" else "sample"
    return name, data.get("sha256", "")


def cell_score(cell: Mapping[str, Any], metric: str, metrics: Iterable[str]) -> tuple[dict[str, Setting], Metric]:
    """A cell of a run record, taken apart into its settings and its score by one metric."""
    scores = {"n", *metrics, *(f"{name}_stderr" for name in metrics)}
    settings = {name: value for name, value in cell.items() if name not in scores}
    return settings, Metric(cell[metric], cell.get(f"{metric}_stderr"), cell["n"])


def format_metric(metric: Metric) -> str:
    """``0.980 ± 0.020``; ``2.149e+06 ± 8.7e+04`` where three decimals would say nothing."""
    if metric.value >= 1e5:
        return f"{metric.value:.4g}" if metric.stderr is None else f"{metric.value:.4g} ± {metric.stderr:.2g}"
    return f"{metric.value:.3f}" if metric.stderr is None else f"{metric.value:.3f} ± {metric.stderr:.3f}"


def format_tokens(count: int) -> str:
    """65536 -> ``64k``, 1048576 -> ``1M``, 5000 -> ``5,000``."""
    for size, unit in ((1024**2, "M"), (1024, "k")):
        if count >= size and count % size == 0:
            return f"{count // size}{unit}"
    return f"{count:,}"


def format_field(receptive_field: int | None) -> str:
    """``1,024 tokens`` or ``unbounded``."""
    return "unbounded" if receptive_field is None else f"{receptive_field:,} tokens"


def format_settings(settings: Mapping[str, Setting]) -> str:
    """``start 64k``: values in words first, lengths in tokens last."""
    return " ".join(
        format_tokens(value) if isinstance(value, int) else str(value)
        for _, value in sorted(settings.items(), key=_words)
    )


def to_rich(comparison: Comparison) -> Table:
    """A table for the terminal."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, caption_justify="left", header_style="bold")
    header, *lines = _cells(comparison)
    for i, title in enumerate(header):
        table.add_column(title, justify="left" if i < 2 else "right", overflow="fold")
    for line in lines:
        table.add_row(*line)
    return table


def to_markdown(comparison: Comparison) -> str:
    """A pipe table, with the notes below it."""
    header, *lines = [[text.replace("|", "\\|") for text in line] for line in _cells(comparison)]
    rule = ["---", "---", *("---:" for _ in comparison.columns)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in (header, rule, *lines))
    return table + "".join(f"\n{note}\n" for note in comparison.notes)


def to_csv(comparison: Comparison) -> str:
    """One line a row; three columns a model: its name, ``NAME stderr``, ``NAME n``. Numbers in full."""
    names = list(dict.fromkeys(name for row in comparison.rows for name in row.settings))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    models = [column.name for column in comparison.columns]
    writer.writerow(
        ["task", "metric", *names, *(title for model in models for title in (model, f"{model} stderr", f"{model} n"))]
    )
    for row in comparison.rows:
        scores = [row.scores.get(model) for model in models]
        values = [value for s in scores for value in ((s.value, s.stderr, s.n) if s else (None, None, None))]
        writer.writerow([row.task, row.metric, *(row.settings.get(name) for name in names), *values])
    return text.getvalue()


def to_json(comparison: Comparison) -> str:
    """``{"models": [...], "rows": [{"task", "metric", "settings", "scores": {MODEL: {...}}}], "notes": [...]}``."""
    values = asdict(comparison)
    return json.dumps({"models": values["columns"], "rows": values["rows"], "notes": values["notes"]}) + "\n"


def _cells(comparison: Comparison) -> list[list[str]]:
    """The table's texts, header first; the receptive field leads, because it is why a score falls."""
    lines = [["task", "cell", *(column.name for column in comparison.columns)]]
    lines.append(["", "receptive field", *(format_field(column.receptive_field) for column in comparison.columns)])
    for row in comparison.rows:
        scores = [row.scores.get(column.name) for column in comparison.columns]
        texts = [f"{format_metric(score)} (n={score.n})" if score else "-" for score in scores]
        lines.append([f"{row.task} {row.metric}", format_settings(row.settings), *texts])
    return lines


def _newest_weights(records: Sequence[RunRecord]) -> tuple[list[RunRecord], list[str]]:
    newest: dict[str, str] = {}
    kept, left_out = [], dict[str, int]()
    for record in records:
        name, digest = record.model["name"], record.model["weights_sha256"]
        if newest.setdefault(name, digest) == digest:
            kept.append(record)
        else:
            left_out[name] = left_out.get(name, 0) + 1
    return kept, [f"left out: {count} run(s) of {name} with older weights" for name, count in left_out.items()]


def _differences(records: Sequence[RunRecord]) -> list[str]:
    """What the runs of one task were not told alike: a reader must not take the models alone for the difference."""
    notes = []
    for task in dict.fromkeys(record.task["name"] for record in records):
        runs = [record for record in records if record.task["name"] == task]
        told: list[dict[str, Any]] = [
            {**run.task["options"], "seed": run.seed, "limit": run.limit, "device": run.device, "dtype": run.dtype}
            for run in runs
        ]
        # The rows tell apart what cells are named after: an option `lengths` makes cells of one `length` each.
        settings = {name for run in runs for _, cell, _ in shown_scores(run) for name in cell} | {"data"}
        shown = settings | {f"{name}s" for name in settings}
        for name in dict.fromkeys(name for options in told for name in options):
            values = list(dict.fromkeys(json.dumps(options.get(name)) for options in told))
            if len(values) > 1 and name not in shown:
                notes.append(f"note: runs of {task} differ in {name}: {', '.join(values)}")
    return notes


def _words(item: tuple[str, Setting]) -> tuple[bool, str]:
    return not isinstance(item[1], str), item[0]


def _order(row: Row) -> tuple[Any, ...]:
    """Tasks by name; cells by their words, then by their numbers; numbers inside words count as numbers."""
    settings = [value for _, value in sorted(row.settings.items(), key=_words)]
    return row.task, row.metric, [_natural(value) for value in settings]


def _natural(value: Setting) -> list[tuple[bool, float, str]]:
    if not isinstance(value, str):
        return [(False, value, "")]
    parts = re.split(r"(\d+)", value)
    return [(not part.isdigit(), float(part) if part.isdigit() else 0.0, part) for part in parts]


FORMATS: dict[str, Callable[[Comparison], str]] = {"markdown": to_markdown, "csv": to_csv, "json": to_json}
"""Renderers to text by the name of the format."""
