"""A comparison that a program or a notebook can show: as text, as a table of HTML, as a picture, in any format."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from famcli.compare.cells import By
from famcli.compare.comparison import Comparison
from famcli.compare.named import compare_named
from famcli.display import visible
from famcli.errors import unknown_name
from famcli.evaluation.record import RunRecord
from famcli.reports.answer import answer_lines
from famcli.reports.formats import FORMATS, html_tables, to_rich
from famcli.reports.grid import Grid
from famcli.reports.layout import grids, remarks
from famcli.reports.naming import with_short_names
from famcli.reports.plots.recall import recall_svg
from famcli.reports.remembered import answer_grids

_WIDTH = 1_000
"""Characters of a line: figures are not folded."""


class Picture(str):
    """The text of an SVG file; a notebook shows the picture."""

    def _repr_svg_(self) -> str:
        return self


@dataclass(frozen=True)
class ShownComparison(Comparison):
    """A comparison, see ``Comparison`` for its rows. ``print`` shows the tables, and so does the cell of a notebook."""

    def __str__(self) -> str:
        shown = with_short_names(self)
        opening, answer = _tables(answer_grids(shown)), answer_lines(shown)
        parts = [opening, [*map(visible, answer)], [*_tables(grids(shown)), *map(visible, remarks(shown))]]
        return "\n\n".join("\n".join(lines) for lines in parts if lines)

    def _repr_html_(self) -> str:
        return html_tables(with_short_names(self))

    def render(self, format: str) -> str:
        """The text of ``markdown``, ``csv``, ``latex``, ``json`` or ``html``, as ``famcli compare --format`` prints it.

        Raises:
            UserError: there is no such format.
        """
        if format not in FORMATS:
            raise unknown_name("format", format, FORMATS)
        # Programs read names in full, which do not depend on what stands beside them.
        return FORMATS[format](self if format in ("csv", "json") else with_short_names(self))

    def curves(self) -> Picture:
        """PassKey accuracy against length, a panel a position, a line a model.

        Raises:
            UserError: no run is of PassKey.
        """
        return Picture(recall_svg(self))


def _tables(shown: Sequence[Grid]) -> list[str]:
    """The lines of tables, with an empty one between two."""
    from rich.console import Console

    out = Console(file=io.StringIO(), width=_WIDTH, highlight=False)
    for number, grid in enumerate(shown):
        if number:
            out.print()
        out.print(to_rich(grid))
    assert isinstance(out.file, io.StringIO)
    return [line.rstrip() for line in out.file.getvalue().splitlines()]


def compare_runs(
    runs: Sequence[str | Path | RunRecord],
    baseline: str | Path | RunRecord | None,
    output: Path,
    *,
    by: By | None,
    force: bool,
    held: float,
) -> ShownComparison:
    """See ``famcli.compare``."""
    if by is not None and by not in (groups := get_args(By)):
        raise unknown_name("group", str(by), groups)
    against = None if baseline is None else _name(baseline)
    found, _ = compare_named([_name(run) for run in runs], output, against, by=by, force=force, held=held)
    return ShownComparison(**vars(found))


def _name(run: str | Path | RunRecord) -> str:
    return str(run.path if isinstance(run, RunRecord) else run)
