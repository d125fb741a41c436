"""``famcli list``: what there is to evaluate, and what was evaluated."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from famcli.cli import completing
from famcli.cli.options import as_json, output, plugin_option
from famcli.cli.saying import say, say_json, say_table, tell
from famcli.cli.sizes import short_count, size
from famcli.errors import UserError
from famcli.fields import read_json

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from famcli.checkpoints.registry import Preset
    from famcli.models.config import ModelConfig

JSON = dict[str, Any]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """List models, memories, tasks or runs."""


@command.command(short_help="Presets for --model, and what they need.")
@plugin_option
@as_json
def models(json_output: bool) -> None:
    """Presets for --model. Directories, GGUF files and hub ids in the local cache work as well."""
    from famcli.checkpoints.registry import list_presets
    from famcli.checkpoints.sources import is_own, model_entry_points

    described = [_describe(preset) for preset in list_presets()]
    entries = sorted(model_entry_points().items())
    others = [{"name": name, "from": entry.value} for name, entry in entries if not is_own(entry)]
    kinds = [_kind(entry) for _, entry in entries if is_own(entry)]
    if json_output:
        return say_json({"models": described, "kinds": kinds, "of_other_packages": others})
    header = ["model", "parameters", "weights bfloat16", "float32", "state float32", "attention", "licence", "weights"]
    say_table(header, [_row(entry) for entry in described])
    for base, here in {entry["base"]: entry["here"] for entry in described if entry["base"]}.items():
        if here:
            say(f"{base} is here: {here}")
    say("weights and the state of one stream in memory; a full attention's state grows with the text")
    missing: dict[str, list[str]] = {}
    for entry in described:
        if not entry["here"] and entry["downloads"]:
            missing.setdefault(" or ".join(entry["downloads"]), []).append(entry["name"])
    for commands, names in missing.items():
        say(f"to get {', '.join(names)}: {commands}")
    for kind in kinds:
        say(f"{kind['form']}: {kind['summary']}")
    if others:
        say(f"of other packages: {', '.join(entry['name'] for entry in others)}")
    say("override any field: --model fam-tiny,memory_segments=0,block_size=256; fields: famcli list memories")


def _kind(entry: EntryPoint) -> JSON:
    """Models of others that famcli reads by a word before the colon, as the function that finds them says it."""
    form, _, summary = (entry.load().__doc__ or "").strip().partition("\n")[0].partition(": ")
    return {"name": entry.name, "form": form, "summary": summary}


def _describe(preset: Preset) -> JSON:
    """A preset, what it takes and where it is; memory in bytes, of the weights and of one stream's state."""
    from famcli.checkpoints.registry import bundled_directory
    from famcli.models.cost import state_values, state_values_per_token, stored_parameters

    directory = bundled_directory(preset.name)
    config, parameters = preset.config, preset.parameters
    if config is None and (directory / "config.json").exists():
        config = _bundled_config(directory)
        parameters = stored_parameters(directory / "model.safetensors")
    here = preset.locate(ask_hub=_in_hub_cache(preset))
    return {
        "name": preset.name,
        "summary": preset.summary,
        "licence": preset.licence,
        "base": preset.base,
        "downloads": preset.downloads,
        "here": str(here) if here else None,
        "stored_bits": preset.stored_bits(here) if here else None,
        "parameters": parameters,
        "memory": {
            "weights_bfloat16": 2 * parameters,
            "weights_float32": 4 * parameters,
            "state_float32": 4 * state_values(config),
            "state_float32_per_token": 4 * state_values_per_token(config),
        }
        if parameters and config
        else None,
        "attention": config.memory.describe(config) if config else "",
        "model": config.as_mapping() if config else None,
    }


def _row(entry: JSON) -> list[str]:
    memory = entry["memory"]
    growing = memory and memory["state_float32_per_token"]
    return [
        entry["name"],
        short_count(entry["parameters"]) if entry["parameters"] else "",
        size(memory["weights_bfloat16"]) if memory else "",
        size(memory["weights_float32"]) if memory else "",
        f"{size(growing)} a token" if growing else size(memory["state_float32"]) if memory else "",
        entry["attention"],
        entry["licence"],
        _weights(entry),
    ]


def _weights(entry: JSON) -> str:
    """Which weights these are, and whether they are on this machine."""
    if entry["base"] is None:
        return "bundled" if entry["here"] else "missing"
    name = entry["base"].rpartition("/")[2]
    if not entry["here"]:
        return f"{name}, missing"
    return f"{name}, from {bits}-bit weights" if (bits := entry["stored_bits"]) else name


def _in_hub_cache(preset: Preset) -> bool:
    """The hub's cache has a folder for the base; its client, which takes long to import, knows what is in it."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    return preset.base is not None and (cache / f"models--{preset.base.replace('/', '--')}").is_dir()


@command.command(short_help="Memories for --model, with their fields, or what they take on a model.")
@click.option(
    "--model",
    metavar="MODEL[,FIELD=VALUE...]",
    shell_complete=completing.models,
    help="Say what each memory would take on this model.",
)
@plugin_option
@as_json
def memories(model: str | None, json_output: bool) -> None:
    """Memories for --model NAME,attention=MEMORY, with the fields each of them has.

    With --model: a table of what each takes on that model, with as many memory segments and sinks as it has. No
    weights are read.
    """
    from famcli.models.memories import memory_entry_points, memory_kind

    if model is not None:
        from famcli.cli.memory_table import say_memories_on

        return say_memories_on(model, json_output)

    described: list[JSON] = []
    for name in memory_entry_points():
        try:
            kind = memory_kind(name)
        except UserError as error:  # one broken package must not hide the others
            tell(f"left out: {error.message}")
            continue
        fields = [
            {"name": field.name, "default": field.default, "help": field.metadata.get("help", "")}
            for field in dataclasses.fields(kind)
        ]
        described.append({"name": name, "summary": kind.summary, "state_grows": kind.whole, "fields": fields})
    if json_output:
        return say_json({"memories": described})
    for entry in described:
        say(f"{entry['name']}: {entry['summary']}")
        for field in entry["fields"]:
            say(f"  {field['name']}={str(field['default']).lower()}")
            say(f"      {field['help']}")
    say("what each takes on a model: famcli list memories --model fam-tiny")


@command.command()
@plugin_option
@as_json
def tasks(json_output: bool) -> None:
    """Tasks for --task, with their options for -o."""
    from famcli.evaluation.suites import list_suites
    from famcli.task import available_tasks, task_families

    families = [{"form": form, "summary": summary} for form, summary in task_families().items()]
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
    suites = [
        {"name": suite.name, "summary": suite.summary, "file": str(suite.file) if suite.file else None}
        for suite in list_suites(tell)
    ]
    if json_output:
        return say_json({"tasks": described, "families": families, "suites": suites})
    for entry in described:
        say(f"{entry['name']} (version {entry['version']}): {entry['summary']}")
        papers = [f"{name} (the paper's)" if name in entry["paper"] else name for name in entry["metrics"]]
        say(f"  metrics: {', '.join(papers)}")
        if data := entry["data"]:
            repo = f"{data['repo']}, " if data["repo"] else ""
            say(f"  data: {repo}{data['licence']}; {data['citation']}")
        for option in entry["options"]:
            say(f"  -o {option['name']}={option['default']}")
            say(f"      {option['help']}")
    for family in families:
        say(f"{family['form']}: {family['summary']}")
    say()
    say("suites, for --suite:")
    for suite in suites:
        say(f"  {suite['name']}: {suite['summary']}" + (f" ({suite['file']})" if suite["file"] else ""))


@command.command()
@output
@as_json
def runs(output: Path, json_output: bool) -> None:
    """Run records, newest first."""
    from famcli.cli.run_table import run_values, show_runs
    from famcli.evaluation.record import load_records

    records = load_records(output)
    if json_output:
        return say_json({"runs": [run_values(record) for record in records]})
    if not records:
        return say(f"no runs in {output}; make one with: famcli eval --task passkey --model fam-tiny")
    return show_runs(records)


def _data(task: type[Any]) -> JSON | None:
    """Where a task's data lies on the hub, its licence and whom to cite; ``None`` for a task without.

    A task whose data is not on the hub may say licence and citation itself.
    """
    hub = getattr(task, "hub", None)
    source = hub if dataclasses.is_dataclass(hub) else task
    found = {name: getattr(source, name, None) for name in ("repo", "revision", "licence", "citation")}
    return found if found["citation"] else None


def _bundled_config(directory: Path) -> ModelConfig:
    """The model fields of a bundled ``config.json``."""
    from famcli.models.config import ModelConfig

    file = directory / "config.json"
    return ModelConfig.from_mapping(read_json(file).get("model", {}), f"{file}, field 'model'")
