"""``famcli eval``: every given model on every given task."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from famcli.cli.options import SuiteEntry, as_json, find_suite, output, parse_options
from famcli.errors import UserError, unknown_name

if TYPE_CHECKING:
    from rich.console import Console

    from famcli.evaluation.prompts import Side
    from famcli.evaluation.record import RunRecord
    from famcli.models.registry import ModelSource
    from famcli.task import Task


@dataclass(frozen=True)
class RunSettings:
    """What all runs of one command share; see the options of ``command``."""

    device: str
    dtype: str
    batch_size: int | None
    limit: int | None
    max_context: int | None
    truncate: Side | None
    seed: int
    results: Path
    fresh: bool


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--model", "models", multiple=True, metavar="MODEL[,FIELD=VALUE...]", help="See: famcli list models.")
@click.option("--task", "tasks", multiple=True, metavar="TASK", help="See: famcli list tasks.")
@click.option("--suite", "suites", multiple=True, metavar="SUITE", help="Several tasks with their options.")
@click.option(
    "-o", "options", multiple=True, metavar="KEY=VALUE", help="An option of the tasks, e.g. -o lengths=1k,64k."
)
@click.option(
    "--data",
    "data",
    multiple=True,
    metavar="[TASK=]SOURCE",
    help="Of tasks with data: files or directories, sample (built in), or hub (downloads).",
)
@click.option("--device", type=click.Choice(["auto", "cuda", "mps", "cpu"]), default="auto", show_default=True)
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="auto: bfloat16 on CUDA for weights stored in 16 bits, float32 otherwise.",
)
@click.option("--batch-size", type=click.IntRange(min=1), help="Samples read together; it changes no answer.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many samples of each task.")
@click.option("--max-context", type=click.IntRange(min=1), help="Most tokens of a prompt with its answer.")
@click.option(
    "--truncate", type=click.Choice(["left", "right", "middle"]), help="Part of a document beyond --max-context to cut."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--fresh", is_flag=True, help="Start over where there is such a run already.")
@output
@as_json
def command(
    models: tuple[str, ...],
    tasks: tuple[str, ...],
    suites: tuple[str, ...],
    options: tuple[str, ...],
    json_output: bool,
    output: Path,
    data: tuple[str, ...],
    device: str,
    dtype: str,
    batch_size: int | None,
    limit: int | None,
    max_context: int | None,
    truncate: Side | None,
    seed: int,
    fresh: bool,
) -> None:
    """Evaluate every model on every task. The same command continues a broken run and shows a finished one at once.

    \b
    famcli eval --task passkey --model fam-tiny --model bswa-tiny -o lengths=1k,64k
    famcli eval --suite passkey --model ./my-checkpoint,attention=bswa
    famcli eval --task quality --task pg19 --model fam-tiny --data sample
    """
    entries = [SuiteEntry(task, {}) for task in tasks]
    entries += [entry for suite in suites for entry in find_suite(suite).entries]
    if not models:
        raise UserError("no model given", "for example: famcli eval --task passkey --model fam-tiny")
    if not entries:
        raise UserError("no task given", f"for example: famcli eval --task passkey --model {models[0]}")
    settings = RunSettings(device, dtype, batch_size, limit, max_context, truncate, seed, output, fresh)
    # Everything is checked before anything runs: a typo must not come to light after hours, nor leave files behind.
    chosen = _load_tasks(entries, parse_options(options), data)
    records = _run_all(_check_models(models, chosen, settings), chosen, settings)
    if json_output:
        click.echo(json.dumps({"runs": [_summary(record) for record in records]}, ensure_ascii=False))
    else:
        _print_records(records)


def _load_tasks(entries: list[SuiteEntry], given: dict[str, str], data: tuple[str, ...]) -> list[Task]:
    """The tasks; an option typed on the command line goes to every task that has it, and at least one must.

    ``data`` is one of these options with a name of its own, for one task or for all; tasks that need none do without.
    """
    from famcli.task import load_task

    def accepted(task: Task) -> set[str]:
        return {help.name for help in task.option_help()}

    bare = [load_task(entry.task, {}) for entry in entries]
    for name in given:
        if not any(name in accepted(task) for task in bare):
            known = set().union(*map(accepted, bare))
            raise unknown_name(f"option of task {', '.join(sorted({task.name for task in bare}))}:", name, known)
    sources = _sources(data, {task.name: "data" in accepted(task) for task in bare})
    if sources and "data" in given:
        raise UserError("the data is given twice", "leave out either --data or -o data=")

    def options(entry: SuiteEntry, task: Task) -> dict[str, str]:
        typed = {name: value for name, value in given.items() if name in accepted(task)}
        source = sources.get(task.name, sources.get(""))
        return entry.options | typed | ({"data": source} if source and "data" in accepted(task) else {})

    return [load_task(entry.task, options(entry, task)) for entry, task in zip(entries, bare, strict=True)]


def _sources(data: tuple[str, ...], takes_data: dict[str, bool]) -> dict[str, str]:
    """What ``--data`` says by task, ``""`` for all others.

    Raises:
        UserError: a task has two sources, or none takes data.
    """
    sources: dict[str, str] = {}
    for text in data:
        name, equals, source = text.partition("=")
        name, source = (name, source) if equals and name in takes_data else ("", text)
        if not (takes_data[name] if name else any(takes_data.values())):
            names = name or ", ".join(sorted(takes_data))
            raise UserError(f"--data is given, but no task here takes data: {names}", "leave out --data")
        if name in sources:
            raise UserError(f"the data {f'of {name} ' if name else ''}is given twice: {sources[name]} and {source}")
        sources[name] = source
    return sources


def _check_models(specs: tuple[str, ...], tasks: list[Task], settings: RunSettings) -> list[ModelSource]:
    from famcli.models.registry import find_model, pick_device

    pick_device(settings.device)
    sources = [find_model(spec) for spec in dict.fromkeys(specs)]
    for source in sources:
        for task in tasks:
            try:
                _check_samples(source, task, settings)
            except UserError as error:
                if len(tasks) == 1 or f"task {task.name}" in error.message:
                    raise
                # A file may be fine for one task and wrong for another.
                raise UserError(f"task {task.name}: {error.message}", error.hint) from error
    return sources


def _check_samples(source: ModelSource, task: Task, settings: RunSettings) -> None:
    """Draws the samples, and where the context is bounded measures them against it."""
    from famcli.evaluation.plan import measure
    from famcli.evaluation.runner import context_of

    samples = task.samples(source.checkpoint.tokenizer, settings.seed, settings.limit)
    context = context_of(source.config, settings.max_context, settings.truncate)
    if context:
        measure(samples, source.checkpoint.tokenizer, context)


def _run_all(sources: list[ModelSource], tasks: list[Task], settings: RunSettings) -> list[RunRecord]:
    """Model by model, so that only one is in memory."""
    from famcli.cli.progress import make_progress
    from famcli.evaluation.runner import evaluate
    from famcli.models.registry import pick_device, pick_dtype

    device = pick_device(settings.device)
    records = []
    for source in sources:
        if source.untrained_fam:
            click.echo(
                f"warning: {source.name}: its weights have learned no FAM; its FAM embeddings are random, "
                "so train it before judging its memory",
                err=True,
            )
        model = source.load(device, pick_dtype(settings.dtype, device, source.checkpoint))
        for task in tasks:
            record = evaluate(
                model,
                task,
                results=settings.results,
                seed=settings.seed,
                limit=settings.limit,
                max_context=settings.max_context,
                truncate=settings.truncate,
                batch_size=settings.batch_size,
                fresh=settings.fresh,
                progress=make_progress(f"{source.name} on {task.name}"),
            )
            records.append(record)
        del model
    return records


def _summary(record: RunRecord) -> dict[str, object]:
    return {
        "run_id": record.run_id,
        "model": record.model["name"],
        "task": record.task["name"],
        "path": str(record.path / "run.json"),
        "metrics": {name: dataclasses.asdict(metric) for name, metric in record.metrics.items()},
        "cells": record.cells,
    }


def _print_records(records: list[RunRecord]) -> None:
    from rich.console import Console

    # Output that is piped on must not be folded to the width of a terminal that is not there.
    console = Console(width=None if sys.stdout.isatty() else 400, highlight=False)
    for record in records:
        _print_record(record, console)


def _print_record(record: RunRecord, console: Console) -> None:
    """One run: its scores, and the headline metric as a grid of lengths where its cells have one."""
    from rich.markup import escape
    from rich.table import Table

    from famcli.reports.tables import format_field, format_metric, format_settings, shown_scores

    console.print(f"\n[bold]{escape(record.model['name'])}[/bold] on {record.task['name']}")
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("receptive field:", format_field(record.model["receptive_field"]))
    for name, metric in record.metrics.items():
        table.add_row(name, f"{format_metric(metric)} (n={metric.n})")
    if len(record.cells) > 1:
        for name, settings, score in shown_scores(record):
            if not settings:
                continue
            table.add_row(f"{name}, {format_settings(settings)}", f"{format_metric(score)} (n={score.n})")
    cost = record.cost
    table.add_row("speed", f"{cost['tokens_per_second']:,.0f} tokens/s, {cost['tokens_read']:,} tokens read")
    if cost["tokens_read_alone"] > cost["tokens_read"]:
        times = cost["tokens_read_alone"] / cost["tokens_read"]
        table.add_row(
            "asked one by one", f"{cost['tokens_read_alone']:,} tokens would be read, {times:.1f} times as many"
        )
    if cost["tokens_cut"]:
        table.add_row("cut", f"{cost['tokens_cut']:,} tokens of documents, {record.context['truncate']}")
    table.add_row("peak memory", f"{cost['peak_memory_bytes'] / 2**20:,.0f} MiB")
    table.add_row("run record", escape(str(record.path / "run.json")))
    console.print(table)
