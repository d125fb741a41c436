"""PassKey accuracy by length and by the position of the key: heat maps and curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from famcli.compare.cells import format_settings, format_tokens
from famcli.compare.comparison import Comparison, Row
from famcli.errors import UserError
from famcli.files import write_text
from famcli.reports.layout import score_words
from famcli.reports.numbers import format_field
from famcli.reports.plots.chart import Chart, as_svg
from famcli.reports.plots.svg import Axis, HeatCell, Line, Point, heat_panel, line_panel


def passkey_rows(comparison: Comparison) -> dict[str, list[Row]]:
    """Rows of PassKey cells by task, which has several names where runs cannot be compared."""
    found: dict[str, list[Row]] = {}
    for row in comparison.rows:
        length = row.settings.get("length")
        if row.task.split(" ")[0] == "passkey" and "position" in row.settings and type(length) is int and length > 0:
            found.setdefault(row.task, []).append(row)
    return found


def passkey_charts(comparison: Comparison) -> list[Chart]:
    """A heat map and curves of every PassKey task."""
    charts = []
    for number, (task, rows) in enumerate(passkey_rows(comparison).items(), 1):
        ending = "" if number == 1 else f"-{number}"
        charts += [_heat(comparison, task, rows, ending), _curves(comparison, task, rows, ending)]
    return charts


def plot_passkey(comparison: Comparison, file: Path) -> None:
    """Draws PassKey accuracy against length, a panel a position, a line a model; always the same for one comparison.

    Args:
        comparison: what ``famcli.compare.side_by_side.compare`` made.
        file: ``.svg``; replaced where it exists.

    Raises:
        UserError: the format is another, there are no PassKey cells, or the file cannot be written.
    """
    if file.suffix != ".svg":
        svg = file.with_suffix(".svg") if file.name else Path("passkey.svg")
        raise UserError(
            f"cannot draw to {file}: famcli draws .svg",
            f"--plot {svg}; to make a PNG of it: pip install cairosvg, cairosvg {svg} -o {svg.with_suffix('.png')}",
        )
    write_text(file, passkey_svg(comparison) + "\n", hint="give --plot another file")


def passkey_svg(comparison: Comparison) -> str:
    """The same as the text of an SVG file; raises ``UserError`` where there are no PassKey cells."""
    charts = [_curves(comparison, task, rows, "") for task, rows in passkey_rows(comparison).items()]
    if not charts:
        raise UserError("no PassKey runs to draw", "make one with: famcli eval --task passkey --model fam-tiny")
    return as_svg(charts)


def _heat(comparison: Comparison, task: str, rows: Sequence[Row], ending: str) -> Chart:
    lengths = sorted({int(row.settings["length"]) for row in rows})
    positions = list(dict.fromkeys(str(row.settings["position"]) for row in rows))
    panels = []
    for column in comparison.columns:
        cells = {}
        for row in rows:
            if column.name in row.scores:
                place = lengths.index(int(row.settings["length"])), positions.index(str(row.settings["position"]))
                value = row.scores[column.name].value
                cells[place] = HeatCell(value, f"{value:.2f}", _words(row, column.name))
        if not cells:
            continue
        beyond = [i for i, n in enumerate(lengths) if column.receptive_field is not None and n > column.receptive_field]
        field = f"receptive field: {format_field(column.receptive_field)}"
        words = "; ".join(cell.label for cell in cells.values())
        names = [format_tokens(length) for length in lengths]
        edge = beyond[0] if beyond else None
        panels.append(heat_panel(column.title, field, words, across=names, down=positions, cells=cells, edge=edge))
    return Chart(
        f"passkey-heat-map{ending}",
        f"{task}: {rows[0].metric} by length and position of the key",
        "Dark blue is 0, yellow is 1. Beyond the dashed upright a text is longer than what the model can reach by "
        "attention alone, its receptive field.",
        tuple(panels),
    )


def _curves(comparison: Comparison, task: str, rows: Sequence[Row], ending: str) -> Chart:
    positions = list(dict.fromkeys(str(row.settings["position"]) for row in rows))
    lengths = sorted({int(row.settings["length"]) for row in rows})
    ticks = [(float(length), format_tokens(length)) for length in lengths]
    low, high = lengths[0] / 1.25, lengths[-1] * 1.25
    x = Axis(low, high, ticks, "length of the text in tokens", transform=math.log2)
    y = Axis(-0.04, 1.04, [(i / 4, f"{i / 4:.2f}") for i in range(5)], rows[0].metric)
    panels = []
    for position in positions:
        lines = []
        for index, column in enumerate(comparison.columns):
            points = [
                _point(row, column.name)
                for row in sorted(rows, key=lambda row: int(row.settings["length"]))
                if row.settings["position"] == position and column.name in row.scores
            ]
            if points:
                edge = column.receptive_field
                lines.append(Line(index, column.name, points, None if edge is None else float(edge)))
        words = "; ".join(point.label for line in lines for point in line.points)
        panels.append(line_panel(f"key at position: {position}", words, x, y, lines))
    shown = {name for row in rows for name in row.scores}
    legend = tuple(
        (index, f"{column.title}, receptive field: {format_field(column.receptive_field)}")
        for index, column in enumerate(comparison.columns)
        if column.name in shown
    )
    bare = any(name not in row.intervals and name not in row.too_few for row in rows for name in row.scores)
    error = " Points of runs without samples have none; ± in their labels is one standard error." if bare else ""
    return Chart(
        f"passkey-curves{ending}",
        f"{task}: {rows[0].metric} against length",
        f"Uprights through the points are 95 % intervals.{error} A dotted upright marks the receptive field of the "
        "model whose marker stands on it, where it lies within the plot.",
        tuple(panels),
        legend,
    )


def _point(row: Row, column: str) -> Point:
    interval = row.intervals.get(column)
    return Point(
        float(row.settings["length"]),
        row.scores[column].value,
        interval.low if interval else None,
        interval.high if interval else None,
        _words(row, column),
    )


def _words(row: Row, column: str) -> str:
    score = row.scores[column]
    return f"{column}, {format_settings(row.settings)}: {score_words(row, column)} (n={score.n})"
