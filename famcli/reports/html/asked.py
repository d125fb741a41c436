"""The page about the runs that a user asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from famcli.compare.named import compare_named
from famcli.compare.recall import HELD
from famcli.profiling.record import load_profile
from famcli.reports.grid import Grid
from famcli.reports.html.page import Report, build
from famcli.reports.naming import short_names, with_short_names


@dataclass(frozen=True)
class Asked:
    """Which runs, and how they are compared: see ``famcli.compare.named.compare_named``.

    Attributes:
        names: of runs and models; none means all.
        results: the directory of the run records.
        baseline, force, held: see there.
        profiled: what reading costs by length, a directory of ``famcli profile``.
    """

    names: tuple[str, ...]
    results: Path
    baseline: str | None = None
    force: bool = False
    held: float = HELD
    profiled: Path | None = None


def report_of(asked: Asked, under_way: Grid | None = None, every: float | None = None) -> Report:
    """The page, with a table of runs ``under_way`` where there is one; ``every``: see ``build``.

    Raises:
        UserError: as ``compare_named``, or the profile cannot be read.
    """
    comparison, selection = compare_named(
        asked.names, asked.results, asked.baseline, force=asked.force, held=asked.held
    )
    if asked.profiled is not None:
        comparison = replace(comparison, profile=load_profile(asked.profiled))
    names = short_names(comparison.names)
    return build(with_short_names(comparison), lambda record: names[selection.column(record)], under_way, every)
