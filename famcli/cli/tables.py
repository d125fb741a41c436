"""Tables on a terminal whose figures are never folded, and the sentences above them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from famcli.cli.folding import blocks
from famcli.cli.options import PIPED_WIDTH, console
from famcli.cli.saying import say, say_heading, say_lines
from famcli.display import visible
from famcli.reports.grid import Grid

if TYPE_CHECKING:
    from rich.table import Table


def show_lines(lines: Sequence[str]) -> None:
    """Prints sentences and an empty line below them."""
    for line in [*lines, *([""] if lines else [])]:
        say(line)


def show(grids: Sequence[Grid]) -> None:
    """Prints the grids below each other; those that are too wide are parted where they then fit, or become blocks."""
    from famcli.reports.formats import to_rich

    shown = [part for grid in grids for part in grid.parted(lambda part: _width(to_rich(part)), console().width)]
    for i, grid in enumerate(shown):
        if i:
            say_lines([""])
        table = to_rich(grid)
        if fits(table):
            console().print(table)
            continue
        if grid.title:
            say_heading(grid.title)
        show_blocks(grid.header, grid.cells, grid.words)


def show_blocks(header: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> None:
    """A table that does not fit: a block a row, its first ``words`` cells as the heading."""
    cells = [[visible(cell) for cell in row] for row in rows]
    say_lines(blocks([visible(title) for title in header], cells, words, console().width))


def fits(table: Table) -> bool:
    """Whether no cell of the table would be folded."""
    return _width(table) <= console().width


def _width(table: Table) -> int:
    """Characters of its widest line."""
    from rich.console import Console

    return Console(width=PIPED_WIDTH).measure(table).maximum
