"""``famcli report``: one HTML page about runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from famcli.cli import completing
from famcli.cli.interrupts import leave_in_order
from famcli.cli.options import held, output, profile
from famcli.cli.saying import say


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("selected", metavar="[RUN_OR_MODEL]...", nargs=-1, shell_complete=completing.runs)
@click.option(
    "--baseline",
    metavar="RUN_OR_MODEL",
    shell_complete=completing.runs,
    help="What the others are compared with, sample by sample.",
)
@click.option("--force", is_flag=True, help="Compare runs that are not comparable; the page is marked.")
@click.option(
    "--to",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("report.html"),
    show_default=True,
    help="The page, replaced where it exists.",
)
@click.option(
    "--plots",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Also write each plot to DIR as an SVG file.",
)
@held
@profile
@output
def command(
    *,
    selected: tuple[str, ...],
    baseline: str | None,
    force: bool,
    file: Path,
    folder: Path | None,
    held: float,
    profiled: Path | None,
    output: Path,
) -> None:
    """Write one HTML page about runs: verdicts, plots, tables, cost, samples, and how to make the runs again.

    RUN_OR_MODEL is what it is for `famcli compare`, and so are the numbers. The page is complete in itself: it opens
    from disk and loads nothing.

    \b
    famcli report --baseline bswa-tiny
    famcli report fam-tiny bswa-tiny --to fam.html
    """
    from famcli.compare.named import compare_named
    from famcli.files import target_of, write_text
    from famcli.profiling.record import load_profile
    from famcli.reports.html.page import build
    from famcli.reports.naming import short_names, with_short_names
    from famcli.reports.plots.chart import write_charts

    comparison, selection = compare_named(selected, output, baseline, force=force, held=held)
    if profiled is not None:
        comparison = replace(comparison, profile=load_profile(profiled))
    names = short_names(comparison.names)
    report = build(with_short_names(comparison), lambda record: names[selection.column(record)])
    leave_in_order()
    write_text(file, report.page)
    for path in (file, *(write_charts(report.charts, folder) if folder else [])):
        if path.is_file() and target_of(path).replaceable:  # the page may have gone to standard output
            say(f"{path} ({path.stat().st_size / 1e6:.2f} MB)")
