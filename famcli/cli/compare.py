"""``famcli compare``: the newest runs side by side."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from famcli.cli.options import output
from famcli.errors import UserError, unknown_name

if TYPE_CHECKING:
    from famcli.evaluation.record import RunRecord


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("selected", metavar="[RUN_OR_MODEL]...", nargs=-1)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["table", "markdown", "csv", "json"]),
    default="table",
    show_default=True,
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also draw PassKey accuracy against length to this .svg or .png file (needs the extra 'plots').",
)
@output
def command(selected: tuple[str, ...], format_name: str, plot: Path | None, output: Path) -> None:
    """Set the newest runs side by side: models as columns, tasks and PassKey lengths as rows.

    RUN_OR_MODEL is a run id or the beginning of one, a run's directory, or a model as it was given to `famcli eval`.
    Without any, all models with finished runs are shown.
    """
    from famcli.evaluation.record import load_records
    from famcli.reports.tables import FORMATS, compare, to_rich

    records = load_records(output)
    if selected:
        chosen = {record.path.resolve(): record for name in selected for record in _select(name, records, output)}
        records = sorted(chosen.values(), key=lambda record: record.finished or "", reverse=True)
    comparison = compare(records)
    if not comparison.rows:
        raise UserError(f"no finished runs in {output}", "make one with: famcli eval --task passkey --model fam-tiny")
    if plot:
        from famcli.reports.plots import plot_passkey

        plot_passkey(comparison, plot)
    if format_name != "table":
        click.echo(FORMATS[format_name](comparison), nl=False)
    else:
        from rich.console import Console

        # A table that is piped on must not be folded to the width of a terminal that is not there.
        Console(width=None if sys.stdout.isatty() else 400, highlight=False).print(to_rich(comparison))
    if format_name in ("table", "csv"):
        for note in comparison.notes:
            click.echo(note, err=True)


def _select(name: str, records: list[RunRecord], results: Path) -> list[RunRecord]:
    """The finished runs that ``name`` means.

    Raises:
        UserError: it means none, or only a run that is not finished.
    """
    from famcli.evaluation.record import load_record

    found = [record for record in records if name == record.model["name"]]
    found = found or [record for record in records if record.run_id == name]
    found = found or [record for record in records if record.run_id.startswith(name)]
    path = Path(name)
    if not found and ((path / "run.json").exists() or path.suffix == ".json"):
        found = [load_record(path)]
    if not found:
        known = {record.model["name"] for record in records} | {record.run_id for record in records}
        if not known:
            raise UserError(f"no runs in {results}", "make one with: famcli eval --task passkey --model fam-tiny")
        raise unknown_name("run or model", name, known)
    finished = [record for record in found if record.status == "finished"]
    if not finished:
        raise UserError(f"the run {found[0].run_id} is not finished", "repeat its `famcli eval` command: it goes on")
    return finished
