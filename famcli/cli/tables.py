"""Tables on a terminal whose figures are never folded."""

from __future__ import annotations

from collections.abc import Sequence

from famcli.cli.options import PIPED_WIDTH, console
from famcli.reports.grid import Grid


def show(grids: Sequence[Grid]) -> None:
    """Prints the grids below each other; those that are too wide are parted where they may be."""
    from rich.console import Console

    from famcli.reports.formats import to_rich

    screen = console()  # figures must not be folded to any width
    wide = Console(width=PIPED_WIDTH)
    shown = []
    for grid in grids:
        fits = wide.measure(to_rich(grid)).maximum <= screen.width
        shown += [grid] if fits else grid.parted()
    for i, grid in enumerate(shown):
        table = to_rich(grid)
        screen.width = max(screen.width, wide.measure(table).maximum)
        if i:
            screen.print()
        screen.print(table)
