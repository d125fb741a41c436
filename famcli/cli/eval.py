"""``famcli eval``: every given model on every given task."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from famcli.cli.options import as_json, console
from famcli.cli.running import RunSettings, TaskChoice, check_model, load, run, run_options, task_options
from famcli.cli.saying import plain, say_json
from famcli.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from famcli.checkpoints.sources import Source
    from famcli.evaluation.record import RunRecord
    from famcli.task import Task


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--model", "models", multiple=True, metavar="MODEL[,FIELD=VALUE...]", help="See: famcli list models.")
@click.option(
    "--adapter",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="A LoRA adapter to merge into the model, as PEFT or famcli train wrote it: short for MODEL,adapter=DIR.",
)
@task_options
@run_options
@as_json
def command(
    models: tuple[str, ...],
    adapter: str | None,
    chosen: TaskChoice,
    settings: RunSettings,
    json_output: bool,
) -> None:
    """Evaluate every model on every task. The same command continues a broken run and shows a finished one at once.

    \b
    famcli eval --task passkey --model fam-tiny --model bswa-tiny -o lengths=1k,64k
    famcli eval --suite passkey --model ./my-checkpoint,attention=bswa
    famcli eval --task quality --task pg19 --model fam-tiny --data sample
    """
    if not models:
        raise UserError("no model given", "for example: famcli eval --task passkey --model fam-tiny")
    # Everything is checked before anything runs: a typo must not come to light after hours, nor leave files behind.
    tasks = chosen.load(f"famcli eval --task passkey --model {models[0]}")
    sources = [check_model(spec, tasks, settings) for spec in dict.fromkeys(_with_adapter(models, adapter))]
    records = _run_all(sources, tasks, settings)
    if json_output:
        say_json({"runs": [_summary(record) for record in records]})
    else:
        _print_records(records)


def _with_adapter(models: tuple[str, ...], adapter: str | None) -> tuple[str, ...]:
    """The models with ``--adapter``, which belongs to one."""
    if adapter is None:
        return models
    if len(models) > 1:
        raise UserError(
            f"--adapter is given with {len(models)} models", f"say which: --model {models[0]},adapter={adapter}"
        )
    name, *fields = models[0].split(",")
    return (",".join([name, f"adapter={adapter}", *fields]),)


def _run_all(sources: list[Source], tasks: list[Task], settings: RunSettings) -> list[RunRecord]:
    """Model by model, so that only one is in memory."""
    records = []
    for source in sources:
        model = load(source, settings)
        records += [run(model, task, settings) for task in tasks]
        del model
    return records


def _summary(record: RunRecord) -> dict[str, object]:
    from famcli.evaluation.cost import known_cost

    return {
        "run_id": record.run_id,
        "model": record.model["name"],
        "task": record.task["name"],
        "path": str(record.path / "run.json"),
        "metrics": {name: dataclasses.asdict(metric) for name, metric in record.metrics.items()},
        "cells": record.cells,
        "cost": known_cost(record),
        **({"skipped": record.skipped} if record.skipped else {}),
    }


def _print_records(records: list[RunRecord]) -> None:
    screen = console()
    for record in records:
        _print_record(record, screen)


def _print_record(record: RunRecord, screen: Console) -> None:
    """One run: its scores, and the headline metric as a grid of lengths where its cells have one."""
    from rich.table import Table
    from rich.text import Text

    from famcli.compare.cells import Setting, format_settings, shown_scores
    from famcli.compare.measure import scored
    from famcli.compare.notes import score_notes
    from famcli.evaluation.record import skipped_words
    from famcli.reports.cost import speed_words
    from famcli.reports.numbers import format_field, format_score

    untrained = f" ({fam})" if (fam := record.model.get("fam")) else ""
    screen.print()
    screen.print(Text.assemble(plain(record.model["name"], "bold"), plain(f"{untrained} on {record.task['name']}")))
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # a path that is cut cannot be copied

    def add(name: str, value: str) -> None:
        table.add_row(plain(name), plain(value))

    add("receptive field:", format_field(record.model["receptive_field"]))
    scores = [(name, dict[str, Setting](), metric) for name, metric in record.metrics.items()]
    if len(record.cells) > 1:
        scores += [found for found in shown_scores(record) if found[1]]
    told = scored(record, scores)
    for one in told:
        name = ", ".join(filter(None, (one.metric, format_settings(one.settings))))
        add(name, f"{format_score(one.score, one.interval, one.too_few)} (n={one.score.n})")
    for words in score_notes(told):
        add("interval", words)
    cost = record.cost
    add("speed", speed_words(record))
    if cost["tokens_read_alone"] > cost["tokens_read"]:
        times = cost["tokens_read_alone"] / cost["tokens_read"]
        add("asked one by one", f"{cost['tokens_read_alone']:,} tokens would be read, {times:.1f} times as many")
    if cost["tokens_cut"]:
        add("cut", f"{cost['tokens_cut']:,} tokens of documents, {record.context['truncate']}")
    for name, what in (("answers_empty", "empty answers"), ("answers_cut", "cut at the budget")):
        if count := cost.get(name):
            add(what, f"{count} of {record.samples} answers")
    if record.skipped:
        add("skipped", skipped_words(record))
    add("peak memory", f"{cost['peak_memory_bytes'] / 2**20:,.0f} MiB")
    add("run record", str(record.path / "run.json"))
    screen.print(table)
