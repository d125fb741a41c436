"""Bits per byte against the position in a text: does a model get better as it reads on?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from famcli.errors import UserError
from famcli.evaluation.journal import Entry
from famcli.metrics.paired import paired_difference
from famcli.reports.grid import Grid
from famcli.reports.html.task_runs import TaskRuns
from famcli.reports.numbers import format_number, format_paired
from famcli.reports.plots.chart import Chart
from famcli.reports.plots.svg import Axis, Line, Panel, Point, line_panel, nice_ticks

FEW, MOST_DOCUMENTS = 5, 60
"""Up to ``FEW`` documents are shown at once, and up to ``MOST_DOCUMENTS`` have a panel of their own, folded away."""


@dataclass(frozen=True)
class Curve:
    """A document as a model read it.

    Attributes:
        bits: [stretches] of each of the equal stretches of the text, in tokens.
        sizes: [stretches] their bytes.
    """

    bits: NDArray[np.float64]
    sizes: NDArray[np.float64]

    def per_byte(self, stretches: slice) -> float:
        """Bits per byte of these stretches together."""
        return float(self.bits[stretches].sum() / self.sizes[stretches].sum())

    @property
    def quarters(self) -> tuple[float, float]:
        """Bits per byte of the first and of the last quarter of the text."""
        quarter = len(self.bits) // 4
        return self.per_byte(slice(0, quarter)), self.per_byte(slice(len(self.bits) - quarter, None))


def curve_of(entry: Entry) -> Curve | None:
    """The curve of a text that was read; ``None`` for other answers, and for a text too short to have one.

    Raises:
        UserError: the entry is damaged.
    """
    parts = entry.answer.get("by_position")
    if parts is None:
        return None
    try:
        bits = np.array([-float(part["log_likelihood"]) / math.log(2) for part in parts])
        sizes = np.array([float(part["bytes"]) for part in parts])
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(f"sample {entry.id} is damaged: its by_position is not what famcli writes") from error
    return Curve(bits, sizes) if len(parts) >= 4 and (sizes > 0).all() else None


def reading_charts(groups: Sequence[TaskRuns], looks: Mapping[str, int]) -> tuple[list[Chart], list[Grid]]:
    """A chart of every task that reads texts, and its first quarters against its last.

    Args:
        groups: the runs.
        looks: the index of each model's look.
    """
    charts, grids = list[Chart](), list[Grid]()
    for group in groups:
        curves = {
            column: {id: curve for id, entry in entries.items() if (curve := curve_of(entry))}
            for column, entries in group.answers.items()
        }
        curves = {column: found for column, found in curves.items() if found}
        if curves:
            charts.append(_chart(group.label, curves, looks, len(charts)))
            grids.append(_quarters(group.label, curves))
    return charts, grids


def _chart(label: str, curves: dict[str, dict[str, Curve]], looks: Mapping[str, int], number: int) -> Chart:
    documents = list(dict.fromkeys(id for found in curves.values() for id in found))
    panels = [_document(id, {c: found[id] for c, found in curves.items() if id in found}, looks) for id in documents]
    together = _together(label, curves, looks)
    first = [together] if together else []
    shown, more = ([*first, *panels], []) if len(panels) <= FEW else (first, panels[:MOST_DOCUMENTS])
    left_out = len(documents) - MOST_DOCUMENTS
    note = "Lower is better. A curve also follows the text: some stretches are easier for every model."
    if left_out > 0:
        note += f" {left_out} more documents have no panel of their own."
    return Chart(
        f"reading-{number + 1}",
        f"{label}: bits per byte against the position in the document",
        note,
        tuple(shown),
        tuple((looks[column], column) for column in curves),
        tuple(more),
    )


def _together(label: str, curves: dict[str, dict[str, Curve]], looks: Mapping[str, int]) -> Panel | None:
    """All documents of as many stretches as the longest, where there are several."""
    count = max(len(curve.bits) for found in curves.values() for curve in found.values())
    lines, documents = [], 0
    for column, found in curves.items():
        whole = [curve for curve in found.values() if len(curve.bits) == count]
        if whole:
            rates = np.sum([c.bits for c in whole], axis=0) / np.sum([c.sizes for c in whole], axis=0)
            points = [Point((i + 0.5) / count * 100, float(rate)) for i, rate in enumerate(rates)]
            lines.append(Line(looks[column], column, points))
            documents = max(documents, len(whole))
    if documents < 2:
        return None
    ticks = [(share, f"{share} %") for share in (0, 25, 50, 75, 100)]
    x = Axis(0, 100, ticks, "share of the document read before")
    return _panel(f"{label}: {documents} documents together", x, lines)


def _document(id: str, curves: dict[str, Curve], looks: Mapping[str, int]) -> Panel:
    lines, longest = [], 0.0
    for column, curve in curves.items():
        ends = np.cumsum(curve.sizes)
        middles = ends - curve.sizes / 2
        points = [Point(float(x), float(y)) for x, y in zip(middles, curve.bits / curve.sizes, strict=True)]
        lines.append(Line(looks[column], column, points))
        longest = max(longest, float(ends[-1]))
    ticks = [(value, _bytes(value)) for value in nice_ticks(0, longest) if value <= longest]
    return _panel(id, Axis(0, longest, ticks, "bytes read before"), lines)


def _panel(title: str, x: Axis, lines: Sequence[Line]) -> Panel:
    values = [point.y for line in lines for point in line.points]
    places = nice_ticks(min(values), max(values))
    y = Axis(places[0], places[-1], [(value, f"{value:.4g}") for value in places], "bits per byte")
    words = "; ".join(
        f"{line.name} from {format_number(line.points[0].y)} to {format_number(line.points[-1].y)} bits per byte"
        for line in lines
    )
    return line_panel(title, words, x, y, lines, every=8)


def _bytes(value: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _quarters(label: str, curves: dict[str, dict[str, Curve]]) -> Grid:
    """The mean over documents of bits per byte in the first quarter and in the last."""
    lines = []
    for column, found in curves.items():
        first, last = zip(*(curve.quarters for curve in found.values()), strict=True)
        paired = paired_difference(last, first, [1.0] * len(first), list(found), binary=False, higher_is_better=False)
        assert paired is not None
        means = (format_number(sum(values) / len(values)) for values in (first, last))
        lines.append((label, column, str(len(found)), *means, format_paired(paired)))
    header = ("task", "model", "documents", "first quarter", "last quarter", "last less first")
    return Grid("bits per byte, mean of the documents", header, tuple(lines), words=2, once=1)
