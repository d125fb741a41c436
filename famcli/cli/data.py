"""``famcli data``: fetch a task's data, say what one's own must be and check it, make questions of any text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from famcli.cli import completing
from famcli.cli.interrupts import leave_in_order
from famcli.cli.options import as_json, parse_options, plugin_option
from famcli.cli.saying import say, say_document, say_json
from famcli.display import visible
from famcli.errors import UserError

if TYPE_CHECKING:
    from famcli.checkpoints.tokenizer import Tokenizer
    from famcli.task import DataError, Request, Task

JSON = dict[str, Any]
EXIT_DOES_NOT_FIT = 1
SHOWN_MISFITS = 20


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Fetch, describe or check the data of tasks; make questions to train with."""


@command.command(short_help="Store the hub's data on this machine.")
@click.argument("tasks", nargs=-1, required=True, metavar="TASK...", shell_complete=completing.tasks)
@click.option("--split", help="Another split than the one the task evaluates on by default.")
@plugin_option
@as_json
def fetch(tasks: tuple[str, ...], split: str | None, json_output: bool) -> None:
    """Store the hub's data of tasks on this machine, for use without a network.

    \b
    famcli data fetch quality pg19
    famcli data fetch qasper --split test

    It is kept in ~/.cache/famcli/data, or where FAMCLI_DATA says. What is there already is checked, not fetched again.
    """
    from famcli.task import load_typed_task

    plugins = [load_typed_task(name, {}) for name in dict.fromkeys(tasks)]
    for task in plugins:
        _check_takes_data(task)
        if task.hub is None:
            task.fetch(split)  # raises, before anything is fetched
    fetched: list[JSON] = []
    leave_in_order()
    for task in plugins:
        found = task.fetch(split)
        if not json_output:
            say(
                f"{task.name}: {found['rows']:,} rows, {len(found['files'])} files, {found['bytes'] / 1e6:,.1f} MB of "
                f"{found['repo']} at {found['revision']} in {found['directory']}; licence: {found['licence']}"
            )
        fetched.append({"task": task.name, **found})
    if json_output:
        say_json({"fetched": fetched})


@command.command()
@click.argument("task", shell_complete=completing.tasks)
@click.option("--example", is_flag=True, help="Print the example alone, a line of JSONL.")
@plugin_option
@as_json
def schema(task: str, example: bool, json_output: bool) -> None:
    """Say which rows a task reads: the fields, their types, and an example that fits.

    \b
    famcli data schema quality
    famcli data schema quality --example > my-articles.jsonl
    """
    from famcli.task import load_typed_task

    plugin = load_typed_task(task, {})
    _check_takes_data(plugin)
    found = plugin.schema
    if found is None:
        raise UserError(f"task {task} does not say which rows it reads", f"famcli data check {task} --data PATH")
    line = json.dumps(found.example, ensure_ascii=False)
    if json_output:
        fields = [field._asdict() for field in found.fields]
        return say_json({"task": plugin.name, "fields": fields, "example": found.example, "also": found.also})
    if example:
        return say_document(f"{visible(line)}\n")  # a line of a file, which must not be folded
    say(
        f"a row of {plugin.name}, a line of JSONL (parquet, CSV where no field is a list, and zips of them are read "
        "too):"
    )
    width = max(len(field.name) for field in found.fields), max(len(field.type) for field in found.fields)
    for field in found.fields:
        free = "" if field.required else "; may be left out"
        say(f"  {field.name.ljust(width[0])}  {field.type.ljust(width[1])}  {field.help}{free}")
    if found.also:
        say(f"read as well: {found.also}")
    say_document(f"for example: {visible(line)}\n")
    say(f"does yours fit: famcli data check {task} --data PATH")


@command.command()
@click.argument("task", shell_complete=completing.tasks)
@click.option("--data", metavar="hub|sample|PATH", help="What to check; the fetched copy if not given.")
@click.option("-o", "options", multiple=True, metavar="KEY=VALUE", help="An option of the task.")
@click.option("--split", metavar="NAME", help="Of data with several splits: train, validation, test or all.")
@click.option(
    "--model",
    metavar="MODEL",
    shell_complete=completing.models,
    help="Count tokens of this model's tokenizer; bytes if not given.",
)
@plugin_option
@as_json
def check(
    *, task: str, data: str | None, options: tuple[str, ...], split: str | None, model: str | None, json_output: bool
) -> int:
    """Say what a task finds in data. The exit code is 1 where a row does not fit.

    \b
    famcli data check quality --data my-articles.jsonl
    """
    from famcli.task import DataError, load_typed_task

    given = parse_options(options)
    if split is not None and "split" in given:
        raise UserError("the split is given twice", "leave out either --split or -o split=")
    given |= {} if split is None else {"split": split}
    if data is not None and "data" in given:
        raise UserError("the data is given twice", "leave out either --data or -o data=")
    data = given.get("data", data)
    _check_takes_data(load_typed_task(task, {}))
    plugin = load_typed_task(task, {**given, "data": data} if data is not None else given)
    if split is not None:
        plugin.check_split()
    tokenizer = _tokenizer(model)
    found: JSON = {"task": plugin.name, "fits": True, "problem": None, "hint": None}
    try:
        found |= _survey_fields(plugin)
        found |= _survey_documents(plugin, tokenizer)
        if not found["samples"]:
            found |= {"fits": False, "problem": "there is nothing to ask in these rows"}
    except DataError as error:
        found |= {"fits": False, "problem": error.message, "hint": error.hint, **_all_misfits(plugin, error)}
    if json_output:
        say_json(found)
    else:
        _print_findings(found)
    return 0 if found["fits"] else EXIT_DOES_NOT_FIT


@command.command(short_help="Make questions to train with.")
@click.option(
    "--text",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("data/books"),
    show_default=True,
    help="Directory of .txt files.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("data/cloze.jsonl"),
    show_default=True,
    help="File to write.",
)
@click.option("--shortest", type=click.IntRange(min=100), default=2000, show_default=True, help="Characters a passage.")
@click.option("--longest", type=click.IntRange(min=100), default=16000, show_default=True, help="Characters a passage.")
@click.option("--questions", type=click.IntRange(min=1), default=4, show_default=True, help="Most about a passage.")
@click.option("--limit", type=click.IntRange(min=1), help="Passages to keep, drawn from all; all if not given.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of what is drawn.")
def cloze(
    *, text: Path, output: Path, shortest: int, longest: int, questions: int, limit: int | None, seed: int
) -> None:
    """Make questions for training from any text: which name or number is missing from a sentence?

    \b
    famcli data cloze --text data/books
    famcli train --recipe configs/recipes/lora.yaml \\
        --model MODEL,attention=fam \\
        --text data/books --qa data/cloze.jsonl
    """
    from famcli.training.cloze import write_clozes

    if longest < shortest:
        raise UserError(f"--longest ({longest}) is less than --shortest ({shortest})", f"--longest {8 * shortest}")
    leave_in_order()
    passages, asked = write_clozes(text, output, (shortest, longest), questions, limit or 0, seed)
    say(f"{asked:,} questions about {passages:,} passages in {output}")


def _all_misfits(task: Task, first: DataError) -> JSON:
    """The messages of the first misfits, and how many there are."""
    messages = [first.message, *(error.message for error in (*first.others, *task.misfits()))]
    messages = list(dict.fromkeys(messages))
    return {"misfits": messages[:SHOWN_MISFITS], "misfit_count": len(messages)}


def _check_takes_data(task: Task) -> None:
    if "data" not in {help.name for help in task.option_help()}:
        raise UserError(f"task {task.name} needs no data", f"just type: famcli eval --task {task.name}")


def _tokenizer(model: str | None) -> Tokenizer:
    if model is None:
        from famcli.checkpoints.tokenizer import ByteTokenizer

        return ByteTokenizer()
    from famcli.checkpoints.registry import find_model

    return find_model(model).tokenizer


def _survey_fields(task: Task) -> JSON:
    """Where the rows are from, and in how many of them each field is missing that others have."""
    data = task.data()
    if data is None:
        return {}
    present: Counter[str] = Counter()
    for row in data.rows:
        for name, filled in _filled(row.fields).items():
            present[name] += filled
    facts = data.facts()
    rows = facts["rows"]
    missing = {name: rows - count for name, count in sorted(present.items()) if count < rows}
    shown = {name: count for name, count in missing.items() if missing.get(_parent(name)) != count}
    return {"data": facts, "rows": rows, "missing": shown}


def _parent(name: str) -> str:
    """The field that holds this one: where it is missing, what it holds is missing too."""
    return name.rpartition(".")[0].removesuffix("[]")


def _filled(fields: Mapping[str, Any], prefix: str = "") -> dict[str, bool]:
    """Dotted names of all fields, and whether they are filled; a field of the objects of a list is, if all have it."""
    names: dict[str, bool] = {}
    for name, value in fields.items():
        names[prefix + name] = value is not None
        if isinstance(value, Mapping):
            names |= _filled(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            parts = [_filled(item, f"{prefix}{name}[].") for item in value]
            names |= {part: all(found.get(part) for found in parts) for found in parts for part in found}
    return names


def _survey_documents(task: Task, tokenizer: Tokenizer) -> JSON:
    """Number of samples and documents, and the longest document, as the task makes them of the rows."""
    from famcli.evaluation.asking import Limits, request_of, samples_of

    samples = samples_of(task, tokenizer, 0, Limits(), may_be_none=True)
    first = {sample.id if sample.document is None else sample.document: sample for sample in reversed(samples)}
    lengths = {name: _document_tokens(request_of(task, sample), tokenizer) for name, sample in first.items()}
    longest = max(lengths, key=lambda name: lengths[name], default=None)
    return {
        "samples": len(samples),
        "documents": len(lengths),
        "tokenizer": tokenizer.name,
        "longest_tokens": lengths[longest] if longest is not None else 0,
        "longest_document": longest,
    }


def _document_tokens(request: Request, tokenizer: Tokenizer) -> int:
    """Tokens of the request's document; of the whole prompt, where no part of it is the document."""
    from famcli.task import Read

    if isinstance(request, Read):
        return len(tokenizer.encode(request.text))
    prompt = request.prompt
    segments = prompt.segments if prompt.document is None else (prompt.segments[prompt.document],)
    return sum(len(tokenizer.encode(part) if isinstance(part, str) else part) for part in segments)


def _print_findings(found: JSON) -> None:
    if "data" in found:
        data = found["data"]
        at = f" at {data['revision']}" if data["revision"] else ""
        say(f"data       {data['source']} {data['name']}{at}, sha256 {data['sha256'][:12]}")
        say(f"rows       {found['rows']:,}")
    if found.get("documents"):
        say(f"samples    {found['samples']:,}")
        say(f"documents  {found['documents']:,}")
        say(f"longest    {found['longest_tokens']:,} tokens ({found['tokenizer']}): {found['longest_document']}")
    for name, rows in found.get("missing", {}).items():
        say(f"missing    {name}, or null, in {rows:,} of {found['rows']:,} rows")
    say("every row fits" if found["fits"] else f"does not fit: {found['problem']}")
    if (count := found.get("misfit_count", 0)) > 1:
        for message in found["misfits"][1:]:
            say(f"      and: {message}")
        say(f"in all     {count:,} do not fit" + (f"; shown are {SHOWN_MISFITS}" if count > SHOWN_MISFITS else ""))
    if found["hint"]:
        say(f"hint: {found['hint']}")
