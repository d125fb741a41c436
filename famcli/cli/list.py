"""``famcli list``: what there is to evaluate, and what was evaluated."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from famcli.cli.options import as_json, output

JSON = dict[str, Any]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """List models, tasks or runs."""


@command.command()
@as_json
def models(json_output: bool) -> None:
    """Presets for --model. Directories and hub ids in the local cache work as well."""
    from famcli.models.registry import Preset, bundled_directory, list_presets

    def describe(preset: Preset) -> JSON:
        config = dataclasses.asdict(preset.config) if preset.config else _bundled_config(bundled_directory(preset.name))
        return {
            "name": preset.name,
            "summary": preset.summary,
            "licence": preset.licence,
            "base": preset.base,
            "download": preset.download if preset.base else None,
            "parameters": preset.parameters,
            "model": config,
        }

    described = [describe(preset) for preset in list_presets()]
    if json_output:
        return click.echo(json.dumps({"models": described}))
    rows = [
        [
            entry["name"],
            "bundled" if entry["base"] is None else entry["base"],
            f"{entry['parameters'] / 1e9:.1f}B" if entry["parameters"] else "",
            _attention(entry["model"]),
            entry["licence"],
        ]
        for entry in described
    ]
    _print_table(["model", "weights", "parameters", "attention", "licence"], rows)
    click.echo("override any field: --model fam-tiny,memory_segments=0,block_size=256")


@command.command()
@as_json
def tasks(json_output: bool) -> None:
    """Tasks for --task, with their options for -o."""
    from famcli.cli.options import list_suites
    from famcli.task import available_tasks

    described: list[JSON] = [
        {
            "name": name,
            "version": task.version,
            "summary": task.summary,
            "metrics": [metric.name for metric in task.metrics],
            "paper": [metric.name for metric in task.metrics if metric.paper],
            "data": _data(task),
            "options": [help._asdict() for help in task.option_help()],
        }
        for name, task in available_tasks().items()
    ]
    suites = [{"name": suite.name, "summary": suite.summary} for suite in list_suites()]
    if json_output:
        return click.echo(json.dumps({"tasks": described, "suites": suites}))
    for entry in described:
        click.echo(f"{entry['name']} (version {entry['version']}): {entry['summary']}")
        papers = [f"{name} (the paper's)" if name in entry["paper"] else name for name in entry["metrics"]]
        click.echo(f"  metrics: {', '.join(papers)}")
        if data := entry["data"]:
            repo = f"{data['repo']}, " if data["repo"] else ""
            click.echo(f"  data: {repo}{data['licence']}; {data['citation']}")
        for option in entry["options"]:
            click.echo(f"  -o {option['name']}={option['default']}\n      {option['help']}")
    click.echo("\nsuites, for --suite:")
    for suite in suites:
        click.echo(f"  {suite['name']}: {suite['summary']}")


@command.command()
@output
@as_json
def runs(output: Path, json_output: bool) -> None:
    """Run records, newest first."""
    from famcli.evaluation.record import load_records
    from famcli.reports.tables import format_metric

    records = load_records(output)
    if json_output:
        described = [
            {
                "run_id": record.run_id,
                "status": record.status,
                "model": record.model["name"],
                "task": record.task["name"],
                "options": record.task["options"],
                "started": record.started,
                "path": str(record.path / "run.json"),
                "metrics": {name: dataclasses.asdict(metric) for name, metric in record.metrics.items()},
            }
            for record in records
        ]
        return click.echo(json.dumps({"runs": described}))
    if not records:
        return click.echo(f"no runs in {output}; make one with: famcli eval --task passkey --model fam-tiny")
    rows = []
    for record in records:
        headline = next(iter(record.metrics.items()), None)
        score = f"{headline[0]} {format_metric(headline[1])}" if headline else ""
        rows.append([record.run_id, record.status, record.model["name"], record.task["name"], score, record.started])
    _print_table(["run", "status", "model", "task", "score", "started"], rows)


def _data(task: type[Any]) -> JSON | None:
    """Where a task's data lies on the hub, its licence and whom to cite; ``None`` for a task without.

    A task whose data is not on the hub may say licence and citation itself.
    """
    hub = getattr(task, "hub", None)
    told = hub if dataclasses.is_dataclass(hub) else task
    found = {name: getattr(told, name, None) for name in ("repo", "revision", "licence", "citation")}
    return found if found["citation"] else None


def _bundled_config(directory: Path) -> JSON | None:
    """The model fields of a bundled ``config.json``, read without torch; ``None`` where it is not there."""
    file = directory / "config.json"
    if not file.exists():
        return None
    fields: JSON = json.loads(file.read_text(encoding="utf-8"))["model"]
    return fields


def _attention(config: JSON | None) -> str:
    if config is None:
        return ""
    shape = f"{config['attention']}, B {config['block_size']}, M {config['memory_segments']}"
    return f"{shape}, F {config['fam_length']}" if config["attention"] == "fam" else shape


def _print_table(header: list[str], rows: list[list[str]]) -> None:
    """Aligned columns, never cut: a listing may be piped on."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in [header, *rows]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
