"""Panels of what something cost: lines of figures in one unit, on an axis that suits them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from famcli.compare.cells import LENGTH, format_tokens
from famcli.reports.numbers import short
from famcli.reports.plots.svg import Axis, Line, Panel, Point, line_panel, nice_ticks

MIB = 2**20


def length_axis(lengths: Sequence[int]) -> Axis:
    """Of lengths of texts, the shortest first."""
    return amount_axis(LENGTH, lengths)


def amount_axis(name: str, amounts: Sequence[int]) -> Axis:
    """Of lengths of texts, or of how much of ``name`` stands in them, the least first."""
    length = name == LENGTH
    ticks = [(float(amount), format_tokens(amount) if length else f"{amount:,}") for amount in amounts]
    label = "length of the text in tokens" if length else f"{name} in the text"
    return Axis(amounts[0] / 1.25, amounts[-1] * 1.25, ticks, label, transform=math.log2)


def cost_line(
    index: int, name: str, points: Sequence[tuple[float, float]], unit: str, words: Callable[[float], str]
) -> Line:
    """The line of a model: ``points`` (x, y), whose labels are ``words`` of x and the figure with its ``unit``."""
    return Line(index, name, [Point(x, y, label=f"{name}, {words(x)}: {short(y)} {unit}") for x, y in points])


def cost_panel(title: str, x: Axis, unit: str, lines: Sequence[Line], decades: bool) -> Panel:
    """Lines over ``x``, on powers of ten or from 0; those without points are left out, one at least must have some."""
    lines = [line for line in lines if line.points]
    values = [point.y for line in lines for point in line.points]
    words = "; ".join(point.label for line in lines for point in line.points)
    return line_panel(title, words, x, _log_axis(values, unit) if decades else _axis(values, unit), lines)


def _axis(values: Sequence[float], unit: str) -> Axis:
    ticks = nice_ticks(0.0, max(values))
    return Axis(0.0, ticks[-1], [(tick, f"{tick:,.6g}") for tick in ticks], unit)


def _log_axis(values: Sequence[float], unit: str) -> Axis:
    """Powers of ten around the values."""
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    last = max(last, first + 1)
    ticks = [(10.0**power, f"{10.0**power:,.6g}") for power in range(first, last + 1)]
    return Axis(10.0**first, 10.0**last, ticks, unit, transform=math.log10)
