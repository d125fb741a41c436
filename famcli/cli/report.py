"""``famcli report``: one HTML page about runs."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from famcli.cli import completing
from famcli.cli.interrupts import leave_in_order
from famcli.cli.options import held, output, profile
from famcli.cli.saying import say
from famcli.errors import UserError

PORT = 8600
"""Of ``--serve``, where none is given."""


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
@click.option(
    "--serve", is_flag=True, help="Instead of a file: show the page on this machine, with what runs add, until Ctrl-C."
)
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="Of --serve; 0 takes any.")
@held
@profile
@output
@click.pass_context
def command(
    ctx: click.Context,
    *,
    selected: tuple[str, ...],
    baseline: str | None,
    force: bool,
    file: Path,
    folder: Path | None,
    serve: bool,
    port: int,
    held: float,
    profiled: Path | None,
    output: Path,
) -> None:
    """Write one HTML page about runs: verdicts, plots, tables, cost, samples, and how to make the runs again.

    RUN_OR_MODEL is what it is for `famcli compare`, and so are the numbers. The page is complete in itself: it opens
    from disk and loads nothing. With --serve it is shown to a browser on this machine, runs under way included.

    \b
    famcli report --baseline bswa-tiny
    famcli report fam-tiny bswa-tiny --to fam.html
    famcli report --serve
    """
    from famcli.reports.html.asked import Asked, report_of

    _check_use(ctx, serve)
    asked = Asked(selected, output, baseline, force, held, profiled)
    if serve:
        from famcli.cli.serving import serve_report

        return serve_report(asked, port)
    from famcli.files import target_of, write_text
    from famcli.reports.plots.chart import write_charts

    report = report_of(asked)
    leave_in_order()
    write_text(file, report.page)
    for path in (file, *(write_charts(report.charts, folder) if folder else [])):
        if path.is_file() and target_of(path).replaceable:  # the page may have gone to standard output
            say(f"{path} ({path.stat().st_size / 1e6:.2f} MB)")
    return None


def _check_use(ctx: click.Context, serve: bool) -> None:
    """Raises ``UserError`` where an option is given that has no use here."""
    useless = {"file": "--to", "folder": "--plots"} if serve else {"port": "--port"}
    for name, option in useless.items():
        if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT:
            why = "--serve writes no file" if serve else "it is of --serve"
            raise UserError(f"{option} is given, and {why}", "leave out either of them" if serve else "add --serve")
