"""``famcli compare``: runs side by side, and whether their differences are more than chance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from famcli.cli import completing
from famcli.cli.interrupts import leave_in_order
from famcli.cli.options import held, output, profile
from famcli.cli.saying import say_document, tell
from famcli.errors import UserError

if TYPE_CHECKING:
    from famcli.compare.cells import By


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("selected", metavar="[RUN_OR_MODEL]...", nargs=-1, shell_complete=completing.runs)
@click.option(
    "--baseline",
    metavar="RUN_OR_MODEL",
    shell_complete=completing.runs,
    help="What the others are compared with, sample by sample.",
)
@click.option(
    "--by",
    type=click.Choice(["length", "language", "answer_type", "document"]),
    help="Group the samples of each task, by its first metric.",
)
@click.option("--per-sample", is_flag=True, help="List the samples that changed sides; needs --baseline.")
@click.option("--reference", metavar="NAME", help="Add published figures, set apart: paper is TransformerFAM's.")
@click.option("--force", is_flag=True, help="Compare runs that are not comparable; the table is marked.")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["table", "markdown", "csv", "latex", "json", "html"]),
    default="table",
    show_default=True,
    help="How it is written to standard output.",
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also draw what is remembered against length, of PassKey accuracy, to this .svg file.",
)
@held
@profile
@output
def command(
    *,
    selected: tuple[str, ...],
    baseline: str | None,
    by: By | None,
    per_sample: bool,
    reference: str | None,
    force: bool,
    format_name: str,
    plot: Path | None,
    held: float,
    profiled: Path | None,
    output: Path,
) -> None:
    """Set the newest runs side by side: to what length each model remembers, its scores, and what they cost.

    RUN_OR_MODEL is a model as it was given to `famcli eval`, a run id or the beginning of one, a run's directory, or a
    directory of runs. Without any, all models with finished runs are shown.

    With --baseline each score has its difference to the baseline's on the samples that both answered, with a 95 %
    interval and a p-value that is corrected for the number of differences in the table. Runs of another task version,
    prompt, data, limit or truncation are not compared.
    """
    from famcli.compare.named import compare_named
    from famcli.profiling.record import load_profile
    from famcli.reports.formats import FORMATS, has_defused
    from famcli.reports.naming import with_short_names

    if per_sample and baseline is None:
        raise UserError("--per-sample needs a model to compare with", "add --baseline RUN_OR_MODEL")
    comparison, _ = compare_named(
        selected, output, baseline, by=by, force=force, per_sample=per_sample, reference=reference, held=held
    )
    if profiled is not None:
        comparison = replace(comparison, profile=load_profile(profiled))
    shown = with_short_names(comparison)
    if plot:
        from famcli.reports.plots.recall import plot_recall

        leave_in_order()
        plot_recall(shown, plot)
    if format_name == "table":
        from famcli.cli.tables import show, show_lines
        from famcli.reports.answer import answer_lines
        from famcli.reports.layout import grids
        from famcli.reports.remembered import answer_grids

        show(opening := answer_grids(shown))
        show_lines(["", *answer_lines(shown)] if opening else answer_lines(shown))
        show(grids(shown))
    else:
        # Programs read names in full, which do not depend on what stands beside them.
        document = FORMATS[format_name](comparison if format_name in ("csv", "json") else shown)
        say_document(document)
        if format_name == "csv" and has_defused(document):
            tell("note: cells that a spreadsheet would run begin with an apostrophe")
    if format_name in ("table", "csv"):
        from famcli.reports.layout import remarks

        for remark in remarks(shown if format_name == "table" else comparison):
            tell(remark)
