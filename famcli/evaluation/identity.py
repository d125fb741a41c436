"""A run before it runs: its record, and the name that what determines the answers gives it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from famcli.errors import UserError
from famcli.evaluation.asking import Limits, named
from famcli.evaluation.cost import cost
from famcli.evaluation.prompts import Side
from famcli.evaluation.record import (
    SCHEMA_VERSION,
    ContextFields,
    DataFields,
    ModelFields,
    RunRecord,
    TaskFields,
    load_record,
    spelled,
)
from famcli.evaluation.recorded_model import config_of
from famcli.files import content_sha256, source_sha256, user_path
from famcli.seams import SpecialTokens, has_seams
from famcli.task import Task

if TYPE_CHECKING:
    from famcli.checkpoints.sources import KnownModel
    from famcli.checkpoints.tokenizer import Tokenizer
    from famcli.evaluation.shards import Shard
    from famcli.models.stream import StreamFacts


def new_record(
    model: KnownModel,
    task: Task,
    results: Path,
    seed: int,
    limits: Limits,
    context: ContextFields,
    *,
    shard: Shard | None = None,
) -> RunRecord:
    """The record of a run that has not begun; the arguments are those of ``famcli.evaluation.runner.evaluate``."""
    facts = model.facts
    record = RunRecord(
        path=results,
        run_id="",
        schema_version=SCHEMA_VERSION,
        status="running",
        model=ModelFields(
            name=model.name,
            config=dict(facts.description),
            weights_sha256=model.weights_sha256,
            tokenizer=model.tokenizer.name,
            parameters=facts.parameters_count,
            receptive_field=facts.receptive_field,
            fam=model.untrained_memory,
        ),
        task=_task_fields(task),
        seed=seed,
        limit=limits.samples,
        context=context,
        device=model.place,
        dtype=model.precision,
        environment={"python": "", "torch": "", "famcli": "", "git_commit": None, "platform": ""},
        metrics={},
        cells=[],
        cost=cost([]),
        started=now(),
        finished=None,
        limit_documents=limits.documents,
    )
    if model.spec != model.name:
        record.model["spec"] = model.spec
    longest = facts.longest_text
    if longest is not None and facts.receptive_field is None and config_of(record) is None:
        record.model["longest_text"] = longest
    run_id = _run_id(record, facts, model.tokenizer)
    if shard:
        record.shard = shard.fields(run_id, task)
        run_id = f"{run_id}-{shard.index}of{shard.of}"
        return replace(record, run_id=run_id, path=results / run_id)
    return _already_there(replace(record, run_id=run_id, path=results / run_id))


def _already_there(record: RunRecord) -> RunRecord:
    """The run, under the name that it has where the path of its model was written otherwise."""
    model, digest = record.model, record.run_id[-_DIGITS:]
    if record.path.exists() or record.spec != model["name"]:
        return record
    for directory in sorted(record.path.parent.glob(f"*-{digest}")):
        try:
            other = load_record(directory)
        except UserError:  # left to those who need it
            continue
        same = other.spec == other.model["name"] and spelled(other.spec) == spelled(record.spec)
        if same and other.run_id == directory.name:
            return replace(record, run_id=other.run_id, path=directory, model={**model, "name": other.model["name"]})
    return record


_DIGITS = 12
"""Of the hash in a run id."""


def context_fields(
    tokenizer: Tokenizer,
    max_context: int | None,
    truncate: Side | None,
    special: SpecialTokens,
    chat: bool,
    thinking: int | None = None,
) -> ContextFields:
    """What the record says of prompts; a model without special tokens or a chat template has the bound alone."""
    fields = ContextFields(max_context=max_context, truncate=truncate)
    if len(special):
        fields |= {"before": list(special.before), "after": list(special.after)}
    if chat and tokenizer.chat_template:
        fields["chat_template_sha256"] = tokenizer.chat_template.sha256
    if special.arguments:
        fields["chat_template_args"] = dict(special.arguments)
    if special.system is not None:
        fields["system_prompt"] = special.system
    if thinking:
        fields["thinking"] = thinking
    return fields


def now() -> str:
    """ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _task_fields(task: Task) -> TaskFields:
    with named(task, f"task {task.name}: its options cannot be recorded", function=task.recorded_options):
        options = json.loads(json.dumps(task.recorded_options()))
    described = TaskFields(
        name=task.name,
        version=task.version,
        options=options,
        template_sha256=hashlib.sha256(task.template.encode()).hexdigest(),
        data=cast(DataFields | None, _data(task)),
        metrics={
            metric.name: {"paper": metric.paper, "higher_is_better": metric.higher_is_better, "mean": metric.mean}
            for metric in task.metrics
        },
    )
    if source := source_sha256(type(task)):
        described["source_sha256"] = source
    # Through JSON, so that a record is the same whether it was just made or read from its file.
    same: TaskFields = json.loads(json.dumps(described))
    return same


def _data(task: Task) -> dict[str, Any] | None:
    """What the task says of its data. Where it says nothing and its option ``data`` is a path: what lies there."""
    with named(task, f"task {task.name}: where its data comes from cannot be had", function=task.provenance):
        if data := task.provenance():
            found: dict[str, Any] = json.loads(json.dumps(dict(data)))
            return found
    typed = getattr(task.options, "data", None)
    if not isinstance(typed, str | Path) or not str(typed):
        return None
    path = user_path(str(typed))
    return {"source": "path", "name": path.name, "sha256": content_sha256(path)} if path.exists() else None


def _run_id(record: RunRecord, facts: StreamFacts, tokenizer: Tokenizer) -> str:
    """Task and model, to be readable, and 12 hex digits over all that determines the answers."""
    task: dict[str, Any] = {**record.task}
    if data := record.task["data"]:  # the same content elsewhere is the same run
        task["data"] = data["sha256"]
        told = {"data", *data}  # an option that the data's facts name as well is a path to a part of it
        task["options"] = {name: value for name, value in record.task["options"].items() if name not in told}
    determined: dict[str, Any] = {
        "schema_version": record.schema_version,
        "config": facts.identity,
        "weights_sha256": record.model["weights_sha256"],
        "tokenizer": [tokenizer.name, tokenizer.text_start, sorted(tokenizer.answer_ends)],
        "task": task,
        "seed": record.seed,
        "limit": record.limit,
        "context": record.context,
        "device": record.device.partition(":")[0],
        "dtype": record.dtype,
    }
    if record.limit_documents:  # a run without it has the name it had before there was one
        determined["limit_documents"] = record.limit_documents
    if has_seams(tokenizer):  # runs whose texts were cut one by one have other names
        determined["seams"] = "joined"
    if source := source_sha256(type(facts)):
        determined["model_source_sha256"] = source
    canonical = json.dumps(determined, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:_DIGITS]
    return f"{readable_name(record.task['name'], record.model['name'])}-{digest}"


def readable_name(task: str, model: str) -> str:
    """What run ids begin with, before the hash."""
    readable = re.sub("[^A-Za-z0-9_.]+", "-", f"{task}-{model.rstrip('/')}")
    return readable[:80].strip("-.")
