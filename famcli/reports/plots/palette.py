"""Colours and marks that differ for readers without colour vision too, on light paper and on dark."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

LIGHT = {
    "paper": "#ffffff",
    "raised": "#f3f5f7",
    "ink": "#1a1d21",
    "faint": "#59626d",
    "line": "#d3d9df",
    "link": "#0b5cad",
    "good": "#00705a",
    "bad": "#b03a00",
    "series-0": "#0072b2",
    "series-1": "#c34a00",
    "series-2": "#007a5a",
    "series-3": "#a84f87",
    "series-4": "#806000",
    "series-5": "#4d5661",
}
DARK = {
    "paper": "#14171b",
    "raised": "#1f242a",
    "ink": "#e8ebee",
    "faint": "#a3adb8",
    "line": "#3a424b",
    "link": "#7dbdf5",
    "good": "#4fd1a8",
    "bad": "#ff9d66",
    "series-0": "#5db4f0",
    "series-1": "#ff8f4d",
    "series-2": "#3fd0a0",
    "series-3": "#ec9fd0",
    "series-4": "#e8c24a",
    "series-5": "#b4bec9",
}
"""After Okabe and Ito 2008, darker or lighter until each stands out from the paper."""

SERIES = 6
DASHES = ("", "7 3", "2 3", "9 3 2 3")
MARKERS = ("circle", "square", "triangle", "diamond", "cross", "downward", "bar")
"""As many as have no factor in common with ``SERIES``: 42 models look different."""

_SCALE = ((0, 34, 78), (65, 77, 107), (124, 123, 120), (188, 175, 111), (254, 232, 56))
"""cividis (Nunez et al. 2018), made for readers with any colour vision."""


class Look(NamedTuple):
    """How a model is drawn: number of its colour, its dashes and its marker."""

    colour: int
    dashes: str
    marker: str


def series(names: Iterable[str]) -> dict[str, int]:
    """The index of each model: by name, so that a model looks the same in whatever order models stand."""
    return {name: index for index, name in enumerate(sorted(set(names)))}


def look(index: int) -> Look:
    """Of the model at ``index``."""
    return Look(index % SERIES, DASHES[index % len(DASHES)], MARKERS[index % len(MARKERS)])


def heat(share: float) -> tuple[str, str]:
    """The colour of a cell for a share from 0 to 1, and whether text in it is ``white`` or ``black``."""
    place = min(max(share, 0.0), 1.0) * (len(_SCALE) - 1)
    index = min(int(place), len(_SCALE) - 2)
    low, high, part = _SCALE[index], _SCALE[index + 1], place - index
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(low, high, strict=True))
    return f"#{red:02x}{green:02x}{blue:02x}", "white" if share < 0.46 else "black"


def variables(colours: dict[str, str]) -> str:
    """As custom properties of CSS."""
    return " ".join(f"--{name}: {value};" for name, value in colours.items())


def plain(style: str, colours: Mapping[str, str] = LIGHT) -> str:
    """A style sheet with ``colours`` in place of its variables, which few programs for SVG know."""
    return re.sub(r"var\(--([a-z0-9-]+)\)", lambda found: colours[found.group(1)], style)
