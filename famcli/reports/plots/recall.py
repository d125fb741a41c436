"""What is remembered, by length or amount and by kind of text: curves and heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from famcli.compare.cells import LENGTH, format_amount, format_settings
from famcli.compare.comparison import Column, Comparison
from famcli.compare.recall import Measured, Recall
from famcli.errors import UserError
from famcli.files import write_text
from famcli.reports.numbers import field_of, format_score
from famcli.reports.plots.axes import amount_axis
from famcli.reports.plots.chart import Chart, as_svg
from famcli.reports.plots.palette import series
from famcli.reports.plots.svg import Axis, HeatCell, Line, Panel, Point, heat_panel, line_panel


def recall_charts(comparison: Comparison) -> list[Chart]:
    """Curves of all that is measured by length, or by amount, then a heat map a task; none where nothing is."""
    recalls = comparison.answer.recalls if comparison.answer else ()
    tasks = list(dict.fromkeys((recall.task, recall.axis) for recall in recalls))
    heat = [
        _heat(comparison, [r for r in recalls if (r.task, r.axis) == task], number)
        for number, task in enumerate(tasks, 1)
    ]
    return [*_curve_charts(comparison), *heat]


def _curve_charts(comparison: Comparison) -> list[Chart]:
    """A chart for each axis, that of lengths first; a length of 0 has no place on it."""
    found = comparison.answer.recalls if comparison.answer else ()
    long = [replace(recall, points=tuple(point for point in recall.points if point.length)) for recall in found]
    recalls = [recall for recall in long if recall.points]
    axes = sorted({recall.axis for recall in recalls}, key=lambda axis: (axis != LENGTH, axis))
    return [_curves(comparison, [recall for recall in recalls if recall.axis == axis]) for axis in axes]


def plot_recall(comparison: Comparison, file: Path) -> None:
    """Draws the curves of ``recall_charts``; always the same for one comparison.

    Args:
        comparison: what ``famcli.compare.side_by_side.compare`` made.
        file: ``.svg``; replaced where it exists.

    Raises:
        UserError: the format is another, nothing is measured by length, or the file cannot be written.
    """
    if file.suffix != ".svg":
        svg = file.with_suffix(".svg") if file.name else Path("passkey.svg")
        raise UserError(
            f"cannot draw to {file}: famcli draws .svg",
            f"--plot {svg}; to make a PNG of it: pip install cairosvg, cairosvg {svg} -o {svg.with_suffix('.png')}",
        )
    write_text(file, recall_svg(comparison) + "\n", hint="give --plot another file")


def recall_svg(comparison: Comparison) -> str:
    """The same as the text of an SVG file; raises ``UserError`` where nothing is measured by length."""
    if not (charts := _curve_charts(comparison)):
        raise UserError(
            "no runs to draw: none has scores by length", "make one with: famcli eval --task passkey --model fam-tiny"
        )
    return as_svg(charts)


def _heat(comparison: Comparison, recalls: Sequence[Recall], number: int) -> Chart:
    lengths = sorted({point.length for recall in recalls for point in recall.points})
    kinds = list(dict.fromkeys(format_settings(recall.settings) for recall in recalls))
    panels = []
    for column in comparison.columns:
        cells = {
            (lengths.index(point.length), kinds.index(format_settings(recall.settings))): HeatCell(
                point.score.value, f"{point.score.value:.2f}", _words(recall, point)
            )
            for recall in recalls
            if recall.column == column.name
            for point in recall.points
        }
        if cells:
            panels.append(_heat_panel(column, recalls[0].axis, lengths, kinds, cells))
    return Chart(
        "recall-heat-map" + ("" if number == 1 else f"-{number}"),
        f"{recalls[0].task}: {recalls[0].metric} by {recalls[0].axis} and kind of text",
        "Dark blue is 0, yellow is 1." + (_BEYOND if recalls[0].axis == LENGTH else ""),
        tuple(panels),
    )


_BEYOND = (
    " Beyond the dashed upright a text is longer than what the model can reach by attention alone, its receptive field."
)


def _heat_panel(
    column: Column, axis: str, lengths: Sequence[int], kinds: Sequence[str], cells: dict[tuple[int, int], HeatCell]
) -> Panel:
    field = column.receptive_field if axis == LENGTH else None
    beyond = [i for i, n in enumerate(lengths) if field is not None and n > field]
    return heat_panel(
        column.title,
        f"receptive field: {field_of(column)}",
        "; ".join(cell.label for cell in cells.values()),
        across=[format_amount(axis, length) if axis == LENGTH else f"{length:,}" for length in lengths],
        down=kinds,
        cells=cells,
        edge=beyond[0] if beyond else None,
    )


def _curves(comparison: Comparison, recalls: Sequence[Recall]) -> Chart:
    looks = series(comparison.names)
    kinds = dict.fromkeys((recall.kind, recall.metric) for recall in recalls)
    shown = {recall.column for recall in recalls}
    points = [point for recall in recalls for point in recall.points]
    bare = any(point.interval is None and not point.too_few for point in points)
    error = " Points of runs without samples have none; ± in their labels is one standard error." if bare else ""
    columns = {column.name: column for column in comparison.columns}
    axis = recalls[0].axis
    x = amount_axis(axis, sorted({point.length for point in points}))
    field = (
        " A dotted upright marks the receptive field of the model whose marker stands on it, where it lies within the "
        "plot."
    )
    return Chart(
        "recall-curves" if axis == LENGTH else f"recall-curves-{axis}",
        f"what is remembered, against {axis if axis == LENGTH else f'the number of {axis}'}",
        f"Uprights through the points are 95 % intervals.{error} The dashed line is the score from which a text counts "
        f"as remembered.{field if axis == LENGTH else ''}",
        tuple(_panel(kind, x, columns, looks, [r for r in recalls if (r.kind, r.metric) == kind]) for kind in kinds),
        tuple(
            (
                looks[column.name],
                f"{column.title}, receptive field: {field_of(column)}",
            )
            for column in comparison.columns
            if column.name in shown
        ),
    )


def _panel(
    kind: tuple[str, str], x: Axis, columns: Mapping[str, Column], looks: Mapping[str, int], recalls: Sequence[Recall]
) -> Panel:
    y = Axis(-0.04, 1.04, [(i / 4, f"{i / 4:.2f}") for i in range(5)], kind[1])
    lines = []
    for recall in recalls:
        edge = columns[recall.column].receptive_field if recall.axis == LENGTH else None
        points = [_point(recall, point) for point in recall.points]
        lines.append(Line(looks[recall.column], recall.column, points, None if edge is None else float(edge)))
    words = "; ".join(point.label for line in lines for point in line.points)
    return line_panel(kind[0], words, x, y, lines, level=recalls[0].held)


def _point(recall: Recall, point: Measured) -> Point:
    low, high = (point.interval.low, point.interval.high) if point.interval else (None, None)
    return Point(float(point.length), point.score.value, low, high, _words(recall, point))


def _words(recall: Recall, point: Measured) -> str:
    cell = format_settings({**recall.settings, recall.axis: point.length})
    score = format_score(point.score, point.interval, point.too_few)
    return f"{recall.column}, {cell}: {score} (n={point.score.n})"
