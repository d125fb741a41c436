"""``famcli eval``: every given model on every given task."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from famcli.cli.choosing import TaskChoice, task_options
from famcli.cli.crews import CrewSettings, crew_options, hired, tell_crew
from famcli.cli.dry_run import dry_run as show_dry_run
from famcli.cli.naming import check_names, with_name
from famcli.cli.options import as_json, models_option
from famcli.cli.running import Checked, RunSettings, check_model, run_all, run_options
from famcli.cli.saying import say, say_json, tell
from famcli.errors import UserError

if TYPE_CHECKING:
    from famcli.evaluation.record import RunRecord
    from famcli.evaluation.workers.crew import Crew


def _shard(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """``2/4``."""
    if value is None:
        return None
    parts = value.split("/")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) < 8 for part in parts):
        raise UserError(f"--shard must be two whole numbers, I/N, not '{value}'", "for example: --shard 1/4")
    return int(parts[0]), int(parts[1])


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@models_option
@click.option(
    "--adapter",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="A LoRA adapter to merge into the model, as PEFT or famcli train wrote it: short for MODEL,adapter=DIR.",
)
@click.option(
    "--as",
    "name",
    metavar="NAME",
    help="What tables and folders call the model, in place of its spec: short for MODEL,name=NAME.",
)
@task_options
@run_options
@crew_options
@click.option(
    "--shard",
    callback=_shard,
    metavar="I/N",
    help="Ask about every N-th document alone, from the I-th on; famcli merge joins the N runs.",
)
@click.option(
    "--log",
    "trackers",
    multiple=True,
    type=click.Choice(["wandb", "mlflow", "tensorboard"]),
    help="Also tell this tracker of each finished run; may be repeated.",
)
@click.option(
    "--leave-out",
    is_flag=True,
    help="Leave out documents beyond the context that a model was trained on, as suites do.",
)
@click.option(
    "--open",
    "opens",
    is_flag=True,
    help="Afterwards write the report of all runs in --output to report.html there, and open it in the browser.",
)
@click.option("--dry-run", is_flag=True, help="Say what would run, and what such runs cost before; start nothing.")
@as_json
def command(
    *,
    models: tuple[str, ...],
    adapter: str | None,
    name: str | None,
    chosen: TaskChoice,
    settings: RunSettings,
    crew: CrewSettings,
    trackers: tuple[str, ...],
    leave_out: bool,
    opens: bool,
    dry_run: bool,
    json_output: bool,
) -> None:
    """Evaluate every model on every task. The same command continues a broken run and shows a finished one at once.

    \b
    famcli eval --task passkey -o lengths=1k,64k \\
        --model fam-tiny --model bswa-tiny
    famcli eval --suite passkey \\
        --model ./mine,attention=bswa --as mine-bswa
    famcli eval --task pg19 --model fam-tiny --data sample
    famcli eval --suite my-suite.yaml --dry-run
    """
    models = chosen.models(models)
    if not models:
        raise UserError("no model given", "for example: famcli eval --task passkey --model fam-tiny")
    if leave_out and settings.max_context is not None:
        raise UserError(
            "--leave-out goes by the context of the model, and --max-context says another", "give either of them"
        )
    if opens and dry_run:
        raise UserError("--dry-run starts nothing, and there is nothing to --open", "leave out either of them")
    # Everything is checked before anything runs: a typo must not come to light after hours, nor leave files behind.
    example = f"famcli eval --task passkey --model {models[0]}"
    tasks = chosen.load(example, leaves_out=True, all_leave_out=leave_out)
    specs = dict.fromkeys(with_name(_with_adapter(models, adapter), name))
    checked = [check_model(spec, tasks, settings) for spec in specs]
    check_names([one.source for one in checked], settings.output)
    if dry_run:
        return show_dry_run(checked, settings, json_output)
    log = _log_to(trackers, settings.output)
    with hired(crew, settings.device, bool(settings.device_map), settings.keep_prompts) as workers:
        records = _run_all(checked, settings, workers, log)
    left_out = [{"model": one.source.name, "task": task, "why": why} for one in checked for task, why in one.left_out]
    if json_output:
        say_json({"runs": [_summary(record) for record in records], **({"left_out": left_out} if left_out else {})})
    else:
        from famcli.cli.run_summary import print_runs

        print_runs(records)
        for one in left_out:
            say(f"left out: {one['model']} on {one['task']}: {one['why']}")
    if opens:
        from famcli.cli.serving import open_report

        open_report(settings.output)
    return None


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


def _run_all(
    checked: list[Checked], settings: RunSettings, crew: Crew | None, log: Callable[[RunRecord], None]
) -> list[RunRecord]:
    """Model by model, so that only one is in memory."""
    records = []
    for one in checked:
        for name, why in one.left_out:
            tell(f"warning: {one.source.name} on {name}: nothing of it fits, and it is left out: {why}")
        for record in run_all(one.source, one.tasks, settings, crew):
            records.append(record)
            if crew:
                tell_crew(record)
            log(record)
    return records


def _log_to(names: tuple[str, ...], output: Path) -> Callable[[RunRecord], None]:
    """What tells all trackers of a run. A tracker that fails costs a warning: the run is finished and kept.

    Raises:
        UserError: a tracker is not there.
    """
    if not names:
        return lambda record: None
    from famcli.reports.trackers import open_trackers

    trackers = open_trackers(names, output)

    def log(record: RunRecord) -> None:
        for name, tracker in trackers.items():
            try:
                tracker.log(record)
            except Exception as error:
                tell(f"warning: {record.run_id} is finished, but {name} was not told of it: {error!r}")

    return log


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
        **({"left_out": record.left_out} if record.left_out else {}),
    }
