"""The pictures of docs/memories.md, drawn from the records of ``benchmarks/zoo.py`` alone.

A panel a memory, since 19 lines in one panel cannot be told apart. Behind each stand, in grey, what passes nothing on
(``none``), the last block as it is (``window``), and attention to all (``full``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from markupsafe import Markup
from zoo_records import BySeed, Cell, Scores, Spread

from famcli.files import write_text
from famcli.reports.plots.chart import Chart, as_svg, swatch
from famcli.reports.plots.svg import Axis, Line, Panel, Point, Room, element, line_panel, marker

BEHIND = ("full", "window", "none")
SMALL = Room(width=160, height=118, left=24, right=8, top=28, bottom=24, title=4, mark=3)
"""Three beside each other can be read on a phone."""
RECALL = Axis(-0.05, 1.05, [(0.0, "0"), (0.5, ".5"), (1.0, "1")], "")
COMPARED = Cell("remember", 8)
"""What is set against the cost of a block: that of the last block of such a text."""

Values = Mapping[float, BySeed]
"""Exact match of each seed by what stands on the x axis."""


def draw_pictures(found: Mapping[str, Scores], folder: Path) -> list[Path]:
    """Writes all pictures to ``folder``; the same records give the same bytes.

    Raises:
        UserError: a file cannot be written.
    """
    files = []
    for chart in (pairs_chart(found), distance_chart(found), rewrite_chart(found), cost_chart(found)):
        files.append(folder / f"{chart.name}.svg")
        write_text(files[-1], as_svg([chart], dark=True) + "\n")
    return files


def pairs_chart(found: Mapping[str, Scores]) -> Chart:
    """Exact match in ``remember`` against the number of pairs."""
    return _chart(
        "pairs",
        "remember: exact match against the pairs of a text",
        "Mean over the seeds; uprights go from the least to the most. Nothing was trained on more than 8 pairs.",
        _amounts(found, ["remember"]),
        found,
        (("remember", lambda scores: _by_pairs(scores, "remember")),),
    )


def rewrite_chart(found: Mapping[str, Scores]) -> Chart:
    """Exact match in ``rewrite`` against the number of pairs, beside that in ``remember``."""
    return _chart(
        "rewrite",
        "rewrite: exact match against the pairs of a text",
        "Mean over the seeds; uprights go from the least to the most. Grey lines are rewrite.",
        _amounts(found, ["remember", "rewrite"]),
        found,
        (
            ("rewrite: the latest value of a key", lambda scores: _by_pairs(scores, "rewrite")),
            ("remember: a key comes once", lambda scores: _by_pairs(scores, "remember")),
        ),
    )


def distance_chart(found: Mapping[str, Scores]) -> Chart:
    """Exact match in ``remember`` against how far back a pair stands, in blocks."""
    most = max((blocks for scores in found.values() for blocks in _by_distance(scores, 16)), default=1.0)
    return _chart(
        "distance",
        "remember: exact match against how far back a pair stands",
        "Across: blocks behind the pair's own, 0 for the last pair of the text. Mean over the seeds; uprights go from "
        "the least to the most. Grey lines are texts of 16 pairs.",
        Axis(-0.5, most + 0.5, [(float(tick), str(tick)) for tick in range(0, int(most) + 1, 5)], ""),
        found,
        (
            ("texts of 16 pairs", lambda scores: _by_distance(scores, 16)),
            ("texts of 8 pairs", lambda scores: _by_distance(scores, 8)),
        ),
    )


def _by_pairs(scores: Scores, task: str) -> Values:
    return {float(cell.pairs): seeds for cell, seeds in scores.by_pairs.items() if cell.task == task}


def _by_distance(scores: Scores, pairs: int) -> Values:
    return {float(blocks): seeds for blocks, seeds in scores.by_distance.get(Cell("remember", pairs), {}).items()}


def _amounts(found: Mapping[str, Scores], tasks: Sequence[str]) -> Axis:
    """Of numbers of pairs, each twice as far as half of it."""
    pairs = [cell.pairs for scores in found.values() for cell in scores.by_pairs if cell.task in tasks] or [1]
    ticks = [(float(pairs), str(pairs)) for pairs in sorted(set(pairs))]
    return Axis(min(pairs) / 1.2, max(pairs) * 1.2, ticks, "", transform=math.log2)


def _chart(
    name: str,
    title: str,
    note: str,
    x: Axis,
    found: Mapping[str, Scores],
    shown: Sequence[tuple[str, Callable[[Scores], Values]]],
) -> Chart:
    """A panel a memory with a line for each of ``shown``, the first of which the grey ones have too."""
    behind = [
        Line(index, memory, _points(memory, shown[0][1](found[memory])), behind=True)
        for index, memory in enumerate(BEHIND)
        if memory in found
    ]
    panels = []
    for memory in (memory for memory in found if memory not in BEHIND):
        lines = [
            Line(i, memory, _points(f"{memory}, {words}", of(found[memory]))) for i, (words, of) in enumerate(shown)
        ]
        labels = "; ".join(point.label for line in lines for point in line.points)
        panels.append(line_panel(memory, labels, x, RECALL, [*behind, *reversed(lines)], room=SMALL))
    return Chart(name, title, note, (*panels, _legend([words for words, _ in shown])))


def _points(words: str, values: Values) -> list[Point]:
    points = []
    for x in sorted(values):
        found = Spread.of(values[x])
        label = f"{words}, {x:g}: {found.mean:.2f} ({found.least:.2f} to {found.most:.2f})"
        points.append(Point(x, found.mean, found.least, found.most, label))
    return points


def _legend(shown: Sequence[str]) -> Panel:
    """As wide as two panels."""
    entries = [
        *((i, words, False) for i, words in enumerate(shown)),
        *((i, words, True) for i, words in enumerate(BEHIND)),
    ]
    parts: list[Markup] = []
    for place, (index, words, behind) in enumerate(entries):
        parts.append(element("g", swatch(index, behind), transform=f"translate(4 {16 + 19 * place})"))
        parts.append(element("text", words, x=46.0, y=27.0 + 19 * place, class_="tick"))
    return Panel("", "", 2 * SMALL.width + 12, SMALL.height, Markup("").join(parts))


def cost_chart(found: Mapping[str, Scores]) -> Chart:
    """Operations of a block, the least first, beside exact match."""
    asked = {name: scores.by_pairs[COMPARED] for name, scores in found.items() if COMPARED in scores.by_pairs}
    costs = {name: found[name].operations(COMPARED.pairs - 1) / 1e6 for name in asked}
    names = sorted(asked, key=lambda name: (costs[name], name))
    most = max(costs.values(), default=1.0)
    rows = [_cost_row(place, name, costs[name], most, asked[name]) for place, name in enumerate(names)]
    bottom = ROWS_TOP + ROW * len(names)
    labels = "; ".join(_cost_words(name, costs[name], asked[name]) for name in names)
    panel = Panel("", labels, RECALL_RIGHT + 12, bottom + 24, Markup("").join([*_cost_frame(bottom), *rows]))
    note = (
        f"Matrix products of reading the last block of a text of {COMPARED.pairs} pairs, logits left out, by famcli's "
        "count. Marks are means over the seeds, lines go from the least to the most. Grey: to compare with."
    )
    return Chart("cost", "what a block costs, and what is held for it", note, (panel,))


BAR_LEFT, BAR_RIGHT, RECALL_LEFT, RECALL_RIGHT = 148.0, 268.0, 336.0, 496.0
ROWS_TOP, ROW = 28.0, 19.0


def _recall_at(score: float) -> float:
    return RECALL_LEFT + score * (RECALL_RIGHT - RECALL_LEFT)


def _cost_frame(bottom: float) -> list[Markup]:
    parts = [
        element("text", "MFLOP a block", x=BAR_LEFT, y=16.0, class_="tick"),
        element("text", f"exact match, {COMPARED.pairs} pairs", x=RECALL_LEFT, y=16.0, class_="tick"),
    ]
    for value, text in RECALL.ticks:
        at = _recall_at(value)
        parts.append(element("line", x1=at, x2=at, y1=ROWS_TOP, y2=bottom, class_="grid"))
        parts.append(element("text", text, x=at, y=bottom + 16, class_="tick", text_anchor="middle"))
    return parts


def _cost_row(place: int, name: str, cost: float, most: float, scores: BySeed) -> Markup:
    top, recall = ROWS_TOP + ROW * place, Spread.of(scores)
    middle, end = top + ROW / 2, BAR_LEFT + cost / most * (BAR_RIGHT - BAR_LEFT)
    colour = 5 if name in BEHIND else 0
    ends = {"x1": _recall_at(recall.least), "x2": _recall_at(recall.most), "y1": middle, "y2": middle}
    return element(
        "g",
        element("title", _cost_words(name, cost, scores)),
        element("text", name, x=BAR_LEFT - 8, y=middle + 4, text_anchor="end"),
        element("rect", x=BAR_LEFT, y=top + 4, width=end - BAR_LEFT, height=ROW - 8, class_=f"fill-{colour}"),
        element("text", f"{cost:.2f}", x=end + 5, y=middle + 4, class_="tick"),
        element("line", class_=f"curve stroke-{colour}", **ends),
        marker(_recall_at(recall.mean), middle, colour),
    )


def _cost_words(name: str, cost: float, scores: BySeed) -> str:
    recall = Spread.of(scores)
    return f"{name}: {cost:.2f} MFLOP a block, {recall.mean:.2f} ({recall.least:.2f} to {recall.most:.2f})"
