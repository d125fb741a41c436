"""``famcli merge``: one run from all of its shards."""

from __future__ import annotations

from pathlib import Path

import click

from famcli.cli.options import as_json, output
from famcli.cli.saying import say, say_json


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(exists=True, path_type=Path))
@output
@as_json
def command(runs: tuple[Path, ...], output: Path, json_output: bool) -> None:
    """Merge the shards of a run: the directories that famcli eval --shard 1/N to N/N wrote. They stay as they are.

    \b
    famcli merge results/*-1of2 results/*-2of2
    """
    from famcli.evaluation.record import load_record
    from famcli.evaluation.shards import merge

    record = merge([load_record(run) for run in runs], output)
    if json_output:
        return say_json({"run_id": record.run_id, "path": str(record.path / "run.json"), "samples": record.samples})
    say(f"{record.path}: {record.samples:,} samples of {len(runs)} shards")
