"""A chart: panels with a legend, as a part of the page or as a file of its own."""

from __future__ import annotations

import importlib.resources
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from famcli.files import write_text
from famcli.reports.plots.palette import DARK, LIGHT, look, plain
from famcli.reports.plots.svg import LETTER, Panel, element, marker

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


def swatch(index: int, behind: bool = False) -> Markup:
    """The line and marker of a model, 34 by 14, for a legend; see ``famcli.reports.plots.svg.Line``."""
    drawn = look(index)
    colour = "behind" if behind else f"stroke-{drawn.colour}"
    line = element("line", x1=1, x2=33, y1=7, y2=7, class_=f"curve {colour}", stroke_dasharray=drawn.dashes or None)
    return line if behind else line + marker(17.0, 7.0, index)


def write_charts(charts: Sequence[Chart], folder: Path) -> list[Path]:
    """Writes every plot to ``folder`` as a file, see ``as_svg``."""
    files = []
    for chart in charts:
        file = folder / f"{chart.name}.svg"
        write_text(file, as_svg([chart]) + "\n")
        files.append(file)
    return files


def as_svg(charts: Sequence[Chart], *, dark: bool = False) -> str:
    """Charts below each other, as an SVG file that browsers and vector programs open.

    Args:
        charts: to draw.
        dark: it is dark for readers whose pages are; otherwise it is light for all.
    """
    parts: list[Markup] = []
    wide = y = 0.0
    for chart in charts:
        parts.append(element("text", chart.title, x=8.0, y=y + 20, class_="heading"))
        texts = [text for _, text in chart.legend]
        wide = max([wide, len(chart.title) * LETTER + 20, *(len(text) * LETTER + 60 for text in texts)])
        y += 32
        for index, text in chart.legend:
            label = element("text", text, x=52.0, y=y + 12, class_="tick")
            parts += [element("g", swatch(index), transform=f"translate(12 {y:.1f})"), label]
            y += 18
        for row in (chart.panels[i : i + ACROSS] for i in range(0, len(chart.panels), ACROSS)):
            x = 4.0
            for panel in row:
                parts.append(element("g", panel.body, transform=f"translate({x:.1f} {y:.1f})"))
                x += panel.width + 12
            wide = max(wide, x - 4)
            y += max(panel.height for panel in row) + 10
        for line in textwrap.wrap(chart.note, max(40, int((wide - 20) / LETTER))):
            parts.append(element("text", line, x=12.0, y=y + 8, class_="tick"))
            y += 16
        y += 8
    titles, panels = [chart.title for chart in charts], [panel for chart in charts for panel in chart.panels]
    return element(
        "svg",
        element("title", "; ".join(titles)),
        element("desc", " ".join(panel.description for panel in panels)),
        element("style", Markup(_file_style(dark))),
        element("rect", width="100%", height="100%", **({"class_": "paper"} if dark else {"fill": LIGHT["paper"]})),
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {wide:.0f} {y:.0f}",
        width=f"{wide:.0f}",
        height=f"{y:.0f}",
        role="img",
    )


def _file_style(dark: bool) -> str:
    style = plot_style()
    if not dark:
        return plain(style)
    style += ".paper { fill: var(--paper); }\n"
    return f"{plain(style)}@media (prefers-color-scheme: dark) {{\n{plain(style, DARK)}}}\n"


def plot_style() -> str:
    """The style sheet of the plots."""
    return (importlib.resources.files("famcli.reports.plots") / "plots.css").read_text(encoding="utf-8")
