"""``famcli show``: the samples of a run, or one of them as the model saw it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from famcli.cli.options import as_json, output
from famcli.cli.saying import say, say_json, tell
from famcli.errors import UserError, printable, unknown_name

if TYPE_CHECKING:
    from famcli.evaluation.journal import Entry
    from famcli.evaluation.record import RunRecord


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("run")
@click.argument("sample", required=False, metavar="[ID]")
@click.option("--wrong", is_flag=True, help="List the samples alone whose first score is 0.")
@click.option("--full", is_flag=True, help="Leave nothing of the prompt out.")
@output
@as_json
def command(*, run: str, sample: str | None, wrong: bool, full: bool, output: Path, json_output: bool) -> None:
    """List the samples of a run, the worst first; or show one: its prompt, answer, reference, options and scores.

    RUN is a run id or its beginning, a run's directory, or a model: its only run, else its runs are listed. The run
    need not be finished. The whole prompt is there where the run was made with --keep-prompts.

    \b
    famcli show passkey-fam-tiny-0123456789ab --wrong
    famcli show passkey-fam-tiny-0123456789ab 1024/start/000
    """
    if sample is not None and wrong:
        raise UserError("both a sample and --wrong are given", "give either")
    if sample is None and full:
        raise UserError("--full is of one sample", f"famcli show {run} ID --full")
    found = _find(run, output)
    if len(found) > 1:
        if sample is not None or wrong:
            raise UserError(
                f"{printable(run)} has {len(found)} runs", f"say which; the newest: famcli show {found[0].run_id}"
            )
        return _list_runs(found, run, json_output)
    record = found[0]
    entries = _samples(record)
    if sample is None:
        _list(record, list(entries.values()), wrong, json_output)
    elif sample in entries:
        _show(record, entries[sample], full, json_output)
    else:
        raise unknown_name(f"sample of {record.run_id}:", sample, entries)
    return None


def _find(name: str, results: Path) -> list[RunRecord]:
    """The one run that a name means, or the runs of the model that it means, the newest first.

    Raises:
        UserError: there is none, or the beginning of a run id means several.
    """
    from famcli.compare.one_model import runs_of_model, runs_of_path
    from famcli.evaluation.record import RECORD_NAME, load_record, load_records

    path = Path(name)
    if path.name == RECORD_NAME or (path / RECORD_NAME).exists():
        return [load_record(path)]
    records = load_records(results)
    if of_model := runs_of_model(name, records) or runs_of_path(name, records):
        return of_model
    found = [record for record in records if record.run_id == name]
    found = found or [record for record in records if record.run_id.startswith(name)]
    if len(found) > 1:
        ids = ", ".join(record.run_id for record in found)
        raise UserError(f"'{printable(name)}' means {len(found)} runs: {ids}", "give more of the run id")
    if found:
        return found
    if not records:
        raise UserError(f"no runs in {results}", "make one with: famcli eval --task passkey --model fam-tiny")
    models = {record.model["name"] for record in records}
    raise unknown_name("run or model", name, models | {record.run_id for record in records})


def _list_runs(records: list[RunRecord], name: str, json_output: bool) -> None:
    from famcli.cli.run_table import run_values, show_runs

    if json_output:
        return say_json({"runs": [run_values(record) for record in records]})
    show_runs(records)
    tell(f"{printable(name)} has {len(records)} runs; the newest: famcli show {records[0].run_id}")
    return None


def _samples(record: RunRecord) -> dict[str, Entry]:
    from famcli.compare.pairing import samples_of

    found = dict(samples_of(record))
    if not found:
        raise UserError(
            f"the run {record.run_id} has no samples.jsonl, or nothing in it yet", "its run.json alone is there"
        )
    return found


def _list(record: RunRecord, entries: list[Entry], wrong: bool, json_output: bool) -> None:
    from famcli.reports.one_run import samples_grid, sorted_samples

    shown = sorted_samples(record, entries, wrong)
    if json_output:
        return say_json({"run_id": record.run_id, "samples": [dataclasses.asdict(entry) for entry in shown]})
    if shown:
        from famcli.cli.tables import show

        show([samples_grid(record, shown)])
    tell(f"{len(shown)} of {len(entries)} samples of {record.run_id}, which is {record.standing}")
    if shown:
        tell(f"one of them: famcli show {record.run_id} {shown[0].id}")
    return None


def _show(record: RunRecord, entry: Entry, full: bool, json_output: bool) -> None:
    from famcli.evaluation.kept_prompts import prompt_of
    from famcli.reports.one_run import sample_lines

    prompt = prompt_of(record.path, entry.id)
    if json_output:
        kept, document = prompt or (None, "")
        text = f"{kept.before}{document}{kept.after}" if kept else None
        return say_json({"run_id": record.run_id, "sample": dataclasses.asdict(entry), "prompt": text})
    for line in sample_lines(record, entry, prompt, full):
        say(line)
    return None
