"""``famcli merge``: one run from all of its shards."""

from __future__ import annotations

from pathlib import Path

import click

from famcli.cli.options import as_json
from famcli.cli.saying import say, say_json
from famcli.errors import UserError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of the merged run.  [default: that of the shards]",
)
@as_json
def command(runs: tuple[Path, ...], output: Path | None, json_output: bool) -> None:
    """Merge the shards of a run: the directories that famcli eval --shard 1/N to N/N wrote. They stay as they are.

    \b
    famcli merge results/*-1of2 results/*-2of2
    """
    from famcli.evaluation.record import load_record
    from famcli.evaluation.shards import merge

    shards = [load_record(run) for run in runs]
    record = merge(shards, output or _folder_of([shard.path for shard in shards]))
    if json_output:
        return say_json({"run_id": record.run_id, "path": str(record.path / "run.json"), "samples": record.samples})
    say(f"{record.path}: {record.samples:,} samples of {len(runs)} shards")


def _folder_of(shards: list[Path]) -> Path:
    """Where all of them lie: there the command without ``--shard`` looks for the whole run."""
    folders = dict.fromkeys(shard.absolute().parent for shard in shards)
    if len(folders) > 1:
        raise UserError("the shards lie in several directories", f"say where the run goes: --output {shards[0].parent}")
    return shards[0].parent
