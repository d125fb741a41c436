"""Plots of a report: panels with a legend, as parts of the page and as files of their own."""

from __future__ import annotations

import importlib.resources
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from famcli.compare.cells import format_settings, format_tokens
from famcli.compare.comparison import Comparison, Row
from famcli.files import write_text
from famcli.reports.html.palette import LIGHT, look, plain
from famcli.reports.html.svg import LETTER, Axis, HeatCell, Line, Panel, Point, element, heat_panel, line_panel, marker
from famcli.reports.numbers import format_field, format_score

ACROSS = 3
"""Panels beside each other in a file."""


@dataclass(frozen=True)
class Chart:
    """A plot.

    Attributes:
        name: of its file.
        title, note: above and below it.
        panels: the drawings.
        legend: (index, text) of the models it shows.
        more: panels that stand folded away.
    """

    name: str
    title: str
    note: str
    panels: tuple[Panel, ...]
    legend: tuple[tuple[int, str], ...] = ()
    more: tuple[Panel, ...] = ()


def swatch(index: int) -> Markup:
    """The line and marker of a model, 34 by 14, for a legend."""
    drawn = look(index)
    line = element(
        "line", x1=1, x2=33, y1=7, y2=7, class_=f"curve stroke-{drawn.colour}", stroke_dasharray=drawn.dashes or None
    )
    return line + marker(17.0, 7.0, index)


def passkey_rows(comparison: Comparison) -> dict[str, list[Row]]:
    """Rows of PassKey cells by task, which has several names where runs cannot be compared."""
    found: dict[str, list[Row]] = {}
    for row in comparison.rows:
        if row.task.split(" ")[0] == "passkey" and {"length", "position"} <= row.settings.keys():
            found.setdefault(row.task, []).append(row)
    return found


def passkey_charts(comparison: Comparison) -> list[Chart]:
    """A heat map and curves of every PassKey task."""
    charts = []
    for number, (task, rows) in enumerate(passkey_rows(comparison).items(), 1):
        ending = "" if number == 1 else f"-{number}"
        charts += [_heat(comparison, task, rows, ending), _curves(comparison, task, rows, ending)]
    return charts


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
                cells[place] = HeatCell(value, f"{value:.2f}", _told(row, column.name))
        if not cells:
            continue
        beyond = [i for i, n in enumerate(lengths) if column.receptive_field is not None and n > column.receptive_field]
        field = f"receptive field: {format_field(column.receptive_field)}"
        told = "; ".join(cell.label for cell in cells.values())
        names = [format_tokens(length) for length in lengths]
        panels.append(
            heat_panel(
                column.title, field, told, across=names, down=positions, cells=cells, edge=beyond[0] if beyond else None
            )
        )
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
        told = "; ".join(point.label for line in lines for point in line.points)
        panels.append(line_panel(f"key at position: {position}", told, x, y, lines))
    shown = {name for row in rows for name in row.scores}
    legend = tuple(
        (index, f"{column.title}, receptive field: {format_field(column.receptive_field)}")
        for index, column in enumerate(comparison.columns)
        if column.name in shown
    )
    return Chart(
        f"passkey-curves{ending}",
        f"{task}: {rows[0].metric} against length",
        "Uprights through the points are 95 % intervals. A dotted upright marks the receptive field of the model whose "
        "marker stands on it, where it lies within the plot.",
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
        _told(row, column),
    )


def _told(row: Row, column: str) -> str:
    score = row.scores[column]
    text = format_score(score, row.intervals.get(column))
    return f"{column}, {format_settings(row.settings)}: {text} (n={score.n})"


def write_charts(charts: Sequence[Chart], folder: Path) -> list[Path]:
    """Writes every plot to ``folder`` as an SVG file in light colours, which browsers and vector programs open."""
    files = []
    for chart in charts:
        file = folder / f"{chart.name}.svg"
        write_text(file, _file(chart) + "\n")
        files.append(file)
    return files


def _file(chart: Chart) -> str:
    style = plain(plot_style())
    rows = [chart.panels[i : i + ACROSS] for i in range(0, len(chart.panels), ACROSS)]
    wide = max([sum(panel.width + 12 for panel in row) for row in rows])
    texts = [text for _, text in chart.legend]
    wide = max([wide, len(chart.title) * LETTER + 20, *(len(text) * LETTER + 60 for text in texts)])
    parts = [element("text", chart.title, x=8.0, y=20.0, class_="heading")]
    y = 32.0
    for index, text in chart.legend:
        label = element("text", text, x=52.0, y=y + 12, class_="tick")
        parts += [element("g", swatch(index), transform=f"translate(12 {y:.1f})"), label]
        y += 18
    for row in rows:
        x = 4.0
        for panel in row:
            parts.append(element("g", panel.body, transform=f"translate({x:.1f} {y:.1f})"))
            x += panel.width + 12
        y += max(panel.height for panel in row) + 10
    told = [element("title", chart.title), element("desc", " ".join(p.description for p in chart.panels))]
    back = element("rect", width="100%", height="100%", fill=LIGHT["paper"])
    return element(
        "svg",
        *told,
        element("style", Markup(style)),
        back,
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {wide:.0f} {y:.0f}",
        width=f"{wide:.0f}",
        height=f"{y:.0f}",
        role="img",
    )


def plot_style() -> str:
    """The style sheet of the plots."""
    return (importlib.resources.files("famcli.reports.html") / "assets" / "plots.css").read_text(encoding="utf-8")
