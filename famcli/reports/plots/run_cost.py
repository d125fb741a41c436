"""What runs cost against the length of their texts: seconds a sample, and the state of a stream."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from famcli.compare.cells import LENGTH, format_tokens
from famcli.compare.comparison import Comparison
from famcli.compare.recall import Measured
from famcli.reports.plots.axes import MIB, cost_line, cost_panel, length_axis
from famcli.reports.plots.chart import Chart
from famcli.reports.plots.palette import series
from famcli.reports.plots.svg import Panel


def run_cost_chart(comparison: Comparison) -> Chart | None:
    """A line a model; ``None`` where nothing is measured by length, or no run has its samples."""
    panels = [
        _panel(comparison, "seconds a sample", "seconds", lambda point: point.seconds),
        _panel(comparison, "largest state of one stream", "MiB", lambda point: (point.state_bytes or 0) / MIB),
    ]
    drawn = tuple(panel for panel in panels if panel)
    if not drawn:
        return None
    looks = series(comparison.names)
    recalls = comparison.answer.recalls if comparison.answer else ()
    shown = {recall.column for recall in recalls if recall.axis == LENGTH}
    return Chart(
        "run-cost",
        "what a sample cost in these runs, against length",
        "Reading a text and answering its question: a sample's share of the time its batch took, the median of the "
        "kinds of text. It is of these runs on their machine, whatever else that did: famcli profile measures what "
        "reading costs.",
        drawn,
        tuple((looks[column.name], column.title) for column in comparison.columns if column.name in shown),
    )


def _panel(comparison: Comparison, title: str, unit: str, value: Callable[[Measured], float | None]) -> Panel | None:
    found: dict[str, dict[int, list[float]]] = {}
    for recall in comparison.answer.recalls if comparison.answer else ():
        for point in recall.points if recall.axis == LENGTH else ():
            if point.length and (figure := value(point)):
                found.setdefault(recall.column, {}).setdefault(point.length, []).append(figure)
    if not found:
        return None
    looks = series(comparison.names)
    lines = [
        cost_line(
            looks[column],
            column,
            [(float(length), median(figures)) for length, figures in sorted(lengths.items())],
            unit,
            lambda length: format_tokens(int(length)),
        )
        for column, lengths in found.items()
    ]
    lengths = sorted({length for points in found.values() for length in points})
    return cost_panel(title, length_axis(lengths), unit, lines, decades=True)
