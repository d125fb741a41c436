"""What is remembered, by length and by kind of text: curves and heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from famcli.compare.cells import format_settings, format_tokens
from famcli.compare.comparison import Column, Comparison
from famcli.compare.recall import Measured, Recall
from famcli.errors import UserError
from famcli.files import write_text
from famcli.reports.numbers import field_of, format_score
from famcli.reports.plots.axes import length_axis
from famcli.reports.plots.chart import Chart, as_svg
from famcli.reports.plots.palette import series
from famcli.reports.plots.svg import Axis, HeatCell, Line, Panel, Point, heat_panel, line_panel


def recall_charts(comparison: Comparison) -> list[Chart]:
    """Curves of all that is measured by length, then a heat map a task; none where nothing is."""
    recalls = comparison.answer.recalls if comparison.answer else ()
    if not recalls:
        return []
    tasks = list(dict.fromkeys(recall.task for recall in recalls))
    heat = [_heat(comparison, [r for r in recalls if r.task == task], number) for number, task in enumerate(tasks, 1)]
    return [_curves(comparison, recalls), *heat]


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
    if not (charts := recall_charts(comparison)):
        raise UserError("no PassKey runs to draw", "make one with: famcli eval --task passkey --model fam-tiny")
    return as_svg(charts[:1])


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
            panels.append(_heat_panel(column, lengths, kinds, cells))
    return Chart(
        "recall-heat-map" + ("" if number == 1 else f"-{number}"),
        f"{recalls[0].task}: {recalls[0].metric} by length and kind of text",
        "Dark blue is 0, yellow is 1. Beyond the dashed upright a text is longer than what the model can reach by "
        "attention alone, its receptive field.",
        tuple(panels),
    )


def _heat_panel(
    column: Column, lengths: Sequence[int], kinds: Sequence[str], cells: dict[tuple[int, int], HeatCell]
) -> Panel:
    beyond = [i for i, n in enumerate(lengths) if column.receptive_field is not None and n > column.receptive_field]
    return heat_panel(
        column.title,
        f"receptive field: {field_of(column)}",
        "; ".join(cell.label for cell in cells.values()),
        across=[format_tokens(length) for length in lengths],
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
    x = length_axis(sorted({point.length for point in points}))
    return Chart(
        "recall-curves",
        "what is remembered, against length",
        f"Uprights through the points are 95 % intervals.{error} The dashed line is the score from which a text counts "
        "as remembered. A dotted upright marks the receptive field of the model whose marker stands on it, where it "
        "lies within the plot.",
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
        edge = columns[recall.column].receptive_field
        points = [_point(recall, point) for point in recall.points]
        lines.append(Line(looks[recall.column], recall.column, points, None if edge is None else float(edge)))
    words = "; ".join(point.label for line in lines for point in line.points)
    return line_panel(kind[0], words, x, y, lines, level=recalls[0].held)


def _point(recall: Recall, point: Measured) -> Point:
    low, high = (point.interval.low, point.interval.high) if point.interval else (None, None)
    return Point(float(point.length), point.score.value, low, high, _words(recall, point))


def _words(recall: Recall, point: Measured) -> str:
    cell = format_settings({**recall.settings, "length": point.length})
    score = format_score(point.score, point.interval, point.too_few)
    return f"{recall.column}, {cell}: {score} (n={point.score.n})"
