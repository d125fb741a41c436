"""Lines that fit the terminal: folded between words, never inside one.

Output that is piped on has no width, unless the environment says one with ``COLUMNS``, as it does for ``--help``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import TextIO

HANGING = "  "
"""What a line that goes on begins with, after the indent of its beginning."""


def width_of(stream: TextIO | None) -> int | None:
    """Columns of what shows the stream; ``None`` where nothing bounds a line."""
    given = os.environ.get("COLUMNS", "")
    if given.isascii() and given.isdecimal() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(stream.fileno()).columns or None if stream and stream.isatty() else None
    except (OSError, ValueError):  # it is closed, or is no file
        return None


def folded(line: str, width: int | None) -> str:
    """The line in as many lines as it takes; a word that is wider than the width stays whole."""
    if width is None or len(line) <= width:
        return line
    text = line.lstrip(" ")
    indent = line[: len(line) - len(text)]
    return "\n".join(_wrap(text, width, indent, indent + HANGING))


def paired(pairs: Sequence[tuple[str, str]], width: int | None) -> list[str]:
    """Names with their values beside them; a value that would not fit stands below its name."""
    widest = max((len(name) for name, _ in pairs), default=0) + len(HANGING)
    lines = []
    for name, value in pairs:
        start = f"{name:<{widest}}"
        longest = max(map(len, value.split(" ")))
        if width is None or widest + longest <= width:
            lines += [start + value] if width is None else _wrap(value, width, start, " " * widest) or [name]
        else:
            lines += [*_wrap(name, width, "", HANGING), *_wrap(value, width, HANGING, HANGING)]
    return lines


def aligned(header: Sequence[str], rows: Iterable[Sequence[str]], words: int, width: int | None) -> list[str]:
    """A table in aligned columns; where it is too wide, ``blocks``."""
    cells = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    if width is not None and sum(widths) + len(HANGING) * (len(widths) - 1) > width:
        return blocks(header, cells, words, width)
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in (header, *cells)]


def blocks(header: Sequence[str], rows: Iterable[Sequence[str]], words: int, width: int) -> list[str]:
    """A block a row: its first ``words`` cells as a heading, below it the others that say anything, by column."""
    lines = []
    for row in rows:
        heading = ", ".join(filter(None, row[:words]))
        named = [(f"{HANGING}{name}", cell) for name, cell in zip(header[words:], row[words:], strict=True) if cell]
        lines += [*_wrap(heading, width, "", HANGING), *paired(named, width)]
    return lines


def standard_width() -> int | None:
    """Of standard output."""
    return width_of(sys.stdout)


def _wrap(text: str, width: int, first: str, rest: str) -> list[str]:
    return wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
