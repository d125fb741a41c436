"""The command that makes a run again."""

from __future__ import annotations

import json
import shlex
from typing import Any

from famcli.evaluation.record import RunRecord


def rerun_command(record: RunRecord) -> str:
    """What to type; ``--fresh`` puts the old run aside, without it a finished run is only shown.

    ``--device-map`` and ``--batch-size``, which change no answer, are not in a record.
    """
    task, context = record.task, record.context
    model = record.model
    words = ["famcli", "eval", "--model", model.get("spec", model["name"])]
    words += ["--as", model["name"]] if "spec" in model else []
    words += ["--task", task["name"]]
    for name, value in task["options"].items():
        if name == "data":
            words += ["--data", str(value)] if value else []
        else:
            words += ["-o", f"{name}={_typed(value)}"]
    given: dict[str, Any] = {
        "--limit": record.limit,
        "--limit-documents": record.limit_documents,
        "--max-context": context["max_context"],
        "--truncate": context["truncate"],
        "--seed": record.seed or None,
        "--device": record.device.split(":")[0],
        "--dtype": record.dtype,
    }
    for name, value in given.items():
        words += [name, str(value)] if value is not None else []
    if "chat_template_sha256" in context:
        words.append("--chat-template")
    for name, value in context.get("chat_template_args", {}).items():
        words += ["--chat-template-arg", f"{name}={json.dumps(value)}"]
    if system := context.get("system_prompt"):
        words += ["--system-prompt", f"@{system}" if system.startswith("@") else system]
    if thinking := context.get("thinking"):
        words += ["--strip-thinking", str(thinking)]
    for name, value in context.get("sampling", {}).items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    words += ["--on-error", "skip"] if record.skipped else []
    words += ["--leave-out"] if record.left_out and context["max_context"] is None else []
    return shlex.join([*words, "--output", str(record.path.parent), "--fresh"])


def _typed(value: Any) -> str:
    """An option as a user types it."""
    if isinstance(value, list):
        return ",".join(_typed(part) for part in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def configuration(record: RunRecord) -> dict[str, Any]:
    """All of a record that says how it was made."""
    names = ("run_id", "schema_version", "model", "task", "seed", "limit", "context", "device", "dtype", "environment")
    found = {name: getattr(record, name) for name in names}
    if record.limit_documents:
        found["limit_documents"] = record.limit_documents
    return {**found, "started": record.started, "finished": record.finished}
