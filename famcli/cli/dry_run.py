"""``famcli eval --dry-run``: what would run, and what such runs cost before. Nothing is started or written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from famcli.cli.running import Checked, RunSettings
from famcli.cli.saying import say, say_json

if TYPE_CHECKING:
    from famcli.evaluation.preview import Preview

_MINUTE, _HOUR = 60, 3600


def dry_run(checked: Sequence[Checked], settings: RunSettings, json_output: bool) -> None:
    """Shows what ``famcli eval`` would do with these models.

    Raises:
        UserError: as the command itself would before it reads anything.
    """
    from famcli.evaluation.record import load_records

    records = [record for record in load_records(settings.output) if record.status == "finished"]
    previews: list[Preview] = []
    left_out: list[dict[str, str]] = []
    for one in checked:
        found = list(_previews(one, settings, records))
        previews += found
        left_out += [{"model": one.source.name, "task": name, "why": why} for name, why in one.left_out]
    if json_output:
        told = [dataclasses.asdict(preview) for preview in previews]
        return say_json({"dry_run": True, "runs": told, "left_out": left_out})
    for preview in previews:
        _print(preview)
    for none in left_out:
        say(f"{none['model']} on {none['task']}: nothing of it fits, and it is left out: {none['why']}")
    # A run that is asked for twice is done once.
    runs = {preview.run_id or number: preview for number, preview in enumerate(previews)}.values()
    tokens = sum(preview.tokens for preview in runs)
    open_runs = sum(preview.status != "finished" for preview in runs)
    say(f"in all: {open_runs} of {len(runs)} runs to do, {tokens:,} tokens to read. Nothing was started.")


def _previews(one: Checked, settings: RunSettings, records: Sequence[Any]) -> Iterator[Preview]:
    from famcli.checkpoints.registry import pick_device, pick_dtype
    from famcli.evaluation.preview import Previews

    device = pick_device(settings.device)
    outline = one.source.outline(device, pick_dtype(settings.dtype, device, one.source))
    previews = Previews(one.source, outline, records)
    for chosen in one.tasks:
        yield previews.of(chosen.task, settings.of_runs.of(chosen))


def _print(preview: Preview) -> None:
    from famcli.evaluation.record import left_out_words

    broken = "goes on with" if preview.kept else "nothing of it was kept, begins again:"
    words = {
        None: "the run id is known once the model is built",
        "new": f"new run {preview.run_id}",
        "finished": f"finished, would be shown at once: {preview.run_id}",
        "interrupted": f"{broken} {preview.run_id}",
        "running": f"another process is at work on {preview.run_id}",
    }
    say(f"{preview.model} on {preview.task}: {words[preview.status]}")
    done = f", {preview.answered:,} of them answered" if preview.answered else ""
    say(f"  samples   {preview.samples:,}{done}")
    skipped = preview.computed is not None and preview.computed < preview.tokens
    say(f"  to read   {preview.tokens:,} tokens" + (f", {preview.computed:,} computed" if skipped else ""))
    if preview.tokens:
        if before := preview.before:
            runs = "an earlier run" if before.runs == 1 else f"{before.runs} earlier runs"
            say(f"  time      {_range(*before.seconds)}, at the speed of {runs} of it on this machine")
            say(f"  memory    {_memory(preview)}")
        else:
            say("  time      unknown: no such run on this machine to judge by")
            say("  memory    unknown")
    if preview.cut_tokens:
        say(f"  cut       {preview.cut_tokens:,} tokens of documents, of {preview.cut_samples:,} samples")
    if preview.left_out:
        say(f"  left out  {left_out_words(preview.left_out)}")


def _memory(preview: Preview) -> str:
    """What the run to judge by took; where its texts are shorter, that they are."""
    from famcli.display import format_bytes

    before = preview.before
    if before is None or before.memory_bytes is None:
        return "unknown"
    words = f"{format_bytes(before.memory_bytes)} in an earlier run with texts to {before.memory_tokens:,} tokens"
    return f"{words}; here to {preview.longest:,}, which may take more" if preview.memory_of_shorter else words


def _range(least: float, most: float) -> str:
    low, high = _time(least), _time(most)
    return f"about {low}" if low == high else f"{low} to {high}"


def _time(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < 2 * _HOUR else f"{seconds / _HOUR:.1f} h"
