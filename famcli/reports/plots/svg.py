"""Line plots and heat maps as SVG, with everything escaped that was not made here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from famcli.display import visible
from famcli.reports.plots.palette import heat, look

CELL_WIDTH, CELL_HEIGHT = 50.0, 32.0
LETTER = 7.2
"""About the width of a letter, of a bold one at most 1.2 times as much."""
LONGEST_ROW = 130.0
"""Room for the name of a row."""


@dataclass(frozen=True)
class Panel:
    """One drawing.

    Attributes:
        title: what it shows.
        description: the same for those who do not see it.
        width, height: of its coordinates.
        body: its elements.
        scroll: it does not get narrower than it can be read.
    """

    title: str
    description: str
    width: float
    height: float
    body: Markup
    scroll: bool = False


@dataclass(frozen=True)
class Room:
    """The sizes of a panel with axes.

    Attributes:
        width, height: of the panel.
        left, right, top, bottom: what is free around its lines, for texts.
        title: where its title begins.
        mark: size of its markers.
    """

    width: float = 420.0
    height: float = 280.0
    left: float = 58.0
    right: float = 12.0
    top: float = 30.0
    bottom: float = 44.0
    title: float = 58.0
    mark: float = 4.0

    @property
    def wide(self) -> float:
        """Between the ends of the x axis."""
        return self.width - self.left - self.right

    @property
    def high(self) -> float:
        """Between the ends of the y axis."""
        return self.height - self.top - self.bottom

    @property
    def floor(self) -> float:
        """Where the x axis lies."""
        return self.height - self.bottom


PAGE = Room()
"""Of a panel that is read by itself."""


@dataclass(frozen=True)
class Point:
    """A value, its interval where it has one, and its words for a reader."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    label: str = ""


@dataclass(frozen=True)
class Line:
    """The points of a model.

    Attributes:
        index: says which it is, see ``famcli.reports.plots.palette.look``.
        name: of the model.
        points: from left to right.
        edge: its receptive field on the x axis.
        behind: it is there to compare others with: grey, and without markers.
    """

    index: int
    name: str
    points: Sequence[Point]
    edge: float | None = None
    behind: bool = False


@dataclass(frozen=True)
class Axis:
    """An axis: its ends, its ticks (value, text), its name, and how values are placed."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    name: str
    transform: Callable[[float], float] = field(default=float)

    def share(self, value: float) -> float:
        """Where a value lies, 0 at the axis' low end and 1 at its high one."""
        low, high = self.transform(self.low), self.transform(self.high)
        return (self.transform(value) - low) / (high - low) if high > low else 0.5


def element(tag: str, *children: str, **attributes: object) -> Markup:
    """An element; what is no ``Markup`` is escaped. ``class_`` is ``class``, ``stroke_width`` is ``stroke-width``."""
    names = ((name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items() if value is not None)
    given = Markup("").join(Markup(' {}="{}"').format(n, f"{v:.6g}" if isinstance(v, float) else v) for n, v in names)
    inner = Markup("").join(child if isinstance(child, Markup) else escape(visible(child)) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(tag), given, inner)


def fit(text: str, width: float) -> str:
    """A name whose middle is left out where it is too long: models often differ at its end only."""
    text, most = visible(text), int(width / (LETTER * 1.2))
    return text if len(text) <= most else f"{text[: most // 2]}…{text[len(text) - (most - most // 2 - 1) :]}"


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers around the values from ``low`` to ``high``, the first and last not inside."""
    span = high - low
    if span <= 1e-9 * max(abs(low), abs(high), 1e-3):  # no more than rounding
        span = abs(high) if abs(high) > 1e-3 else 1.0
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * unit for unit in (1, 2, 5, 10) if power * unit >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def marker(x: float, y: float, index: int, size: float = 4.0) -> Markup:
    """The marker of the model at ``index``."""
    colour, _, shape = look(index)
    found, s = f"mark fill-{colour}", size
    if shape == "circle":
        return element("circle", cx=x, cy=y, r=s, class_=found)
    outlines = {
        "square": ((-s, -s), (s, -s), (s, s), (-s, s)),
        "triangle": ((0, -s * 1.3), (s * 1.2, s), (-s * 1.2, s)),
        "diamond": ((0, -s * 1.4), (s * 1.4, 0), (0, s * 1.4), (-s * 1.4, 0)),
        "downward": ((0, s * 1.3), (s * 1.2, -s), (-s * 1.2, -s)),
        "bar": ((-s * 0.5, -s * 1.4), (s * 0.5, -s * 1.4), (s * 0.5, s * 1.4), (-s * 0.5, s * 1.4)),
        "cross": (
            *((-s, -s * 0.4), (-s * 0.4, -s * 0.4), (-s * 0.4, -s), (s * 0.4, -s), (s * 0.4, -s * 0.4), (s, -s * 0.4)),
            *((s, s * 0.4), (s * 0.4, s * 0.4), (s * 0.4, s), (-s * 0.4, s), (-s * 0.4, s * 0.4), (-s, s * 0.4)),
        ),
    }
    points = " ".join(f"{x + dx:.2f},{y + dy:.2f}" for dx, dy in outlines[shape])
    return element("polygon", points=points, class_=found)


def line_panel(
    title: str,
    description: str,
    x: Axis,
    y: Axis,
    lines: Sequence[Line],
    *,
    every: int = 1,
    level: float | None = None,
    room: Room = PAGE,
) -> Panel:
    """Lines over two axes, with a marker at one point of ``every``; receptive fields are dotted uprights.

    ``level`` is a value of y that a dashed line marks.
    """
    heading = element("text", fit(title, room.width - room.title), x=room.title, y=room.top - 14, class_="title")
    parts = [heading, *_frame(x, y, room)]
    if level is not None:
        up = room.floor - y.share(level) * room.high
        tooltip = element("title", f"{level:g}")
        ends = {"x1": room.left, "x2": room.width - room.right, "y1": up, "y2": up}
        parts.append(element("line", tooltip, class_="level", **ends))
    for line in lines:
        if line.edge is not None and x.low <= line.edge <= x.high:
            across = room.left + x.share(line.edge) * room.wide
            tooltip = element("title", f"receptive field of {line.name}")
            ends = {"x1": across, "x2": across, "y1": room.top, "y2": room.floor}
            upright = element("line", class_=f"edge stroke-{look(line.index).colour}", **ends)
            # Its marker says whose it is where models share a colour.
            parts.append(element("g", tooltip, upright, marker(across, room.top - 4, line.index, size=3.2)))
    parts += [_line(line, x, y, every, room) for line in lines]
    return Panel(title, description, room.width, room.height, Markup("").join(parts))


def _frame(x: Axis, y: Axis, room: Room) -> list[Markup]:
    bottom, end_of_plot, parts = room.floor, room.width - room.right, []
    for value, text in y.ticks:
        up = bottom - y.share(value) * room.high
        parts.append(element("line", x1=room.left, x2=end_of_plot, y1=up, y2=up, class_="grid"))
        parts.append(element("text", text, x=room.left - 6, y=up + 4, class_="tick", text_anchor="end"))
    free = -math.inf
    for value, text in x.ticks:
        across = room.left + x.share(value) * room.wide
        parts.append(element("line", x1=across, x2=across, y1=bottom, y2=bottom + 4, class_="axis"))
        half = len(text) * LETTER / 2
        if across - half >= free:  # labels that would touch are left out
            end = across + half > room.width
            place = {"x": room.width - 1 if end else across, "text_anchor": "end" if end else "middle"}
            parts.append(element("text", text, y=bottom + 18, class_="tick", **place))
            free = across + half + 5
    parts.append(element("line", x1=room.left, x2=end_of_plot, y1=bottom, y2=bottom, class_="axis"))
    if x.name:
        middle = {"x": room.left + room.wide / 2, "y": room.height - 6, "text_anchor": "middle"}
        parts.append(element("text", x.name, class_="name", **middle))
    if y.name:
        turned = f"translate(11 {room.top + room.high / 2:.1f}) rotate(-90)"
        parts.append(element("text", y.name, transform=turned, class_="name", text_anchor="middle"))
    return parts


def _line(line: Line, x: Axis, y: Axis, every: int, room: Room) -> Markup:
    drawn = look(line.index)
    stroke = "behind" if line.behind else f"stroke-{drawn.colour}"

    def place(across: float, up: float) -> tuple[float, float]:
        return room.left + x.share(across) * room.wide, room.floor - min(max(y.share(up), 0.0), 1.0) * room.high

    places = [place(point.x, point.y) for point in line.points]
    points = " ".join(f"{a:.2f},{b:.2f}" for a, b in places)
    curve = element("polyline", points=points, class_=f"curve {stroke}", stroke_dasharray=drawn.dashes or None)
    if line.behind:
        return curve
    parts = [curve]
    for i, (point, (across, up)) in enumerate(zip(line.points, places, strict=True)):
        if point.low is not None and point.high is not None:
            ends = {"y1": place(point.x, point.low)[1], "y2": place(point.x, point.high)[1]}
            parts.append(element("line", x1=across, x2=across, class_=f"error {stroke}", **ends))
        if i % every == line.index % every:  # the markers of lines that lie on each other do not
            tooltip = element("title", point.label) if point.label else Markup("")
            parts.append(element("g", tooltip, marker(across, up, line.index, room.mark)))
    return element("g", *parts)


@dataclass(frozen=True)
class HeatCell:
    """A value from 0 to 1, its text, and its words for a reader."""

    value: float
    text: str
    label: str


def heat_panel(
    title: str,
    subtitle: str,
    description: str,
    *,
    across: Sequence[str],
    down: Sequence[str],
    cells: dict[tuple[int, int], HeatCell],
    edge: int | None = None,
) -> Panel:
    """Cells by (column, row); ``edge`` is the column before which a model's receptive field ends."""
    down = [fit(text, LONGEST_ROW) for text in down]
    left, top = max([40.0, *(len(text) * LETTER + 12 for text in down)]), 46.0
    bottom = top + len(down) * CELL_HEIGHT
    wide = max(left + len(across) * CELL_WIDTH + 8, 290.0)
    parts = [
        element("text", fit(title, wide), x=4.0, y=16.0, class_="title"),
        element("text", fit(subtitle, wide), x=4.0, y=34.0, class_="tick"),
    ]
    for j, text in enumerate(down):
        up = top + j * CELL_HEIGHT
        parts.append(element("text", text, x=left - 6, y=up + 21, class_="tick", text_anchor="end"))
        for i in range(len(across)):
            parts.append(_cell(cells.get((i, j)), left + i * CELL_WIDTH, up))
    for i, text in enumerate(across):
        middle = left + (i + 0.5) * CELL_WIDTH
        parts.append(element("text", text, x=middle, y=bottom + 17, class_="tick", text_anchor="middle"))
    if edge is not None:
        place = left + edge * CELL_WIDTH
        tooltip = element("title", "end of the receptive field")
        parts.append(element("line", tooltip, x1=place, x2=place, y1=top - 6, y2=bottom + 6, class_="limit"))
    middle = left + len(across) * CELL_WIDTH / 2
    name = "length of the text in tokens"
    # Under few columns the name would begin outside.
    place_name = {"x": max(middle, len(name) * LETTER / 2), "y": bottom + 36}
    parts.append(element("text", name, class_="name", text_anchor="middle", **place_name))
    return Panel(f"{title}, {subtitle}", description, wide, bottom + 44, Markup("").join(parts), scroll=True)


def _cell(cell: HeatCell | None, x: float, y: float) -> Markup:
    box = {"x": x + 1, "y": y + 1, "width": CELL_WIDTH - 2, "height": CELL_HEIGHT - 2}
    if cell is None:
        return element("rect", element("title", "no run"), class_="empty", **box)
    fill, ink = heat(cell.value)
    place = {"x": x + CELL_WIDTH / 2, "y": y + 21, "text_anchor": "middle"}
    text = element("text", cell.text, class_=f"value {ink}", **place)
    return element("g", element("title", cell.label), element("rect", fill=fill, class_="box", **box), text)
