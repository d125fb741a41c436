"""Which runs may be compared, and their samples side by side."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from famcli.compare.cells import cell_names
from famcli.errors import UserError, printable
from famcli.evaluation.journal import JOURNAL_NAME, Entry, read_entries
from famcli.evaluation.record import RunRecord

logger = logging.getLogger(__name__)

HOW_MANY = "trials"
"""The option of PassKey that says how many samples a cell has; the first ones are the same whatever it is."""


TOKENIZER = "tokenizer"
"""The fact that says in whose tokens lengths are counted."""


def samples_of(record: RunRecord) -> Mapping[str, Entry]:
    """The answered samples of a run by id; none where only its ``run.json`` is there.

    Raises:
        UserError: the file cannot be read, is damaged, or lacks samples of a finished run or scores of its task.
    """
    file = record.path / JOURNAL_NAME
    try:
        state = file.lstat() if file.is_symlink() and not file.exists() else file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    metrics = tuple((name, metric["mean"]) for name, metric in record.task["metrics"].items())
    found = _read(file, state.st_size, state.st_mtime_ns, metrics)
    if record.status == "finished" and len(found) < record.samples:
        raise UserError(
            f"{file} has {len(found)} samples, and its run had {record.samples}",
            "repeat its `famcli eval` command: the missing ones are asked again",
        )
    return found


@lru_cache(maxsize=64)
def _read(file: Path, size: int, modified: int, metrics: tuple[tuple[str, str], ...]) -> Mapping[str, Entry]:
    entries = read_entries(file)
    for entry in entries.values():
        check_scores(entry, dict(metrics), str(file))
    return entries


def check_scores(entry: Entry, means: Mapping[str, str], where: str) -> None:
    """Makes sure that a sample has a score by each of the metrics ``means``, one that can be averaged in this way.

    Raises:
        UserError: names the sample and the metric.
    """
    for name, mean in means.items():
        if name not in entry.scores:
            raise UserError(f"{where}: sample {printable(entry.id)} has no score by {printable(name)}")
        if mean == "geometric" and entry.scores[name] <= 0 and entry.weights.get(name, 1.0):
            raise UserError(
                f"{where}: sample {printable(entry.id)} has {entry.scores[name]:g} by {printable(name)}, whose mean is "
                "geometric: it must be above 0"
            )


def with_samples(records: Iterable[RunRecord]) -> list[RunRecord]:
    """The runs without those whose samples cannot be read, which are named in a warning."""
    whole = []
    for record in records:
        try:
            samples_of(record)
        except UserError as error:
            logger.warning("warning: %s; the run is left out", error.message)
        else:
            whole.append(record)
    return whole


def facts(record: RunRecord) -> dict[str, str]:
    """What runs must have in common to be compared, in words.

    An option that cells are named after (``lengths`` makes cells of one ``length`` each) is none of it: cells of one
    name are alike. Neither is how many samples they have, nor where the data lies and what it is a split of, only what
    it is. A bound on the context counts where something was cut, and ``comparable`` looks at each sample. The tokenizer
    counts where lengths are counted in tokens: in cells of one ``length``, and in texts that were cut. Models may each
    have a chat template of their own, but all or none of them.
    """
    task, settings = record.task, cell_names(record)
    cells = settings | {f"{name}s" for name in settings} | {"data", "split", HOW_MANY, *(task["data"] or {})}
    found = {
        "task": task["name"],
        "task version": str(task["version"]),
        "prompt template": task["template_sha256"][:8],
        "data": " ".join(data_of(record)).strip() or "none",
        **{name: json.dumps(value) for name, value in task["options"].items() if name not in cells},
        "seed": str(record.seed),
        "limit": str(record.limit or "none"),
        "limit of documents": str(record.limit_documents or "none"),
        **(_bound(record) if record.cost["tokens_cut"] else {}),
        "chat template": "yes" if "chat_template_sha256" in record.context else "no",
    }
    if system := record.context.get("system_prompt"):
        found["system prompt"] = hashlib.sha256(system.encode()).hexdigest()[:8]
    if sampling := record.context.get("sampling"):
        found["sampling"] = " ".join(f"{name} {value}" for name, value in sampling.items())
    if thinking := record.context.get("thinking"):
        found["thinking"] = str(thinking)
    if source := task.get("source_sha256"):
        found["task source"] = source[:8]
    if "length" in settings or record.cost["tokens_cut"]:
        found[TOKENIZER] = record.model["tokenizer"]
    return found


def _bound(record: RunRecord) -> dict[str, str]:
    """On the context, and what is cut there."""
    context = record.context
    return {"max context": str(context["max_context"] or "none"), "truncation": context["truncate"] or "none"}


def data_of(record: RunRecord) -> tuple[str, str]:
    """Name and short hash of a run's data, ``""`` for none."""
    data = record.task["data"] or {}
    name = data.get("name", "") if data.get("source") != "sample" else "sample"
    return name, data.get("sha256", "")[:6]


def comparable(record: RunRecord, baseline: RunRecord) -> list[str]:
    """What forbids to compare two runs, such as ``limit: 5, none`` (the record's first); empty where nothing does.

    Besides ``facts`` these are samples of one id that are not the same question, or of which not the same was cut.
    """
    left, right = facts(record), facts(baseline)
    # The name of the same data may be another, where it lies elsewhere.
    if data_of(record)[1] == data_of(baseline)[1]:
        left["data"] = right["data"]
    if TOKENIZER in left or TOKENIZER in right:
        left[TOKENIZER], right[TOKENIZER] = record.model["tokenizer"], baseline.model["tokenizer"]
    bounds = _bound(record).keys()
    found = differing(*({name: fact for name, fact in side.items() if name not in bounds} for side in (left, right)))
    found += _cuts(record, baseline)
    if not found:
        ours, theirs = samples_of(record), samples_of(baseline)
        other = [id for id in ours.keys() & theirs.keys() if _question(ours[id]) != _question(theirs[id])]
        if other:
            found.append(f"samples: {len(other)} of one id have other right answers, such as {min(other)}")
    return found


def differing(left: Mapping[str, str], right: Mapping[str, str]) -> list[str]:
    """What is not the same in both, such as ``limit: 5, none``."""
    values = {name: (left.get(name, "none"), right.get(name, "none")) for name in dict.fromkeys([*left, *right])}
    return [f"{name}: {ours}, {theirs}" for name, (ours, theirs) in values.items() if ours != theirs]


def fact_words(told: Sequence[Mapping[str, str]]) -> list[list[str]]:
    """Of each of ``facts`` what is not the same in all of its task, such as ``wording flight``; not what is none."""
    alike: dict[str, set[tuple[str, str]]] = {}
    for found in told:
        alike[found["task"]] = alike.get(found["task"], set(found.items())) & found.items()
    differing = [found.items() - alike[found["task"]] for found in told]
    return [
        [f"{name} " + value.strip('"') for name, value in found.items() if (name, value) in other and value != "none"]
        for found, other in zip(told, differing, strict=True)
    ]


def bound_differences(record: RunRecord, baseline: RunRecord) -> list[str]:
    """How the bounds on the context of two runs differ, whatever was cut."""
    return differing(_bound(record), _bound(baseline))


def cut_otherwise(record: RunRecord, baseline: RunRecord) -> list[str]:
    """Ids of the samples that both answered and of which not the same was cut."""
    if not record.cost["tokens_cut"] and not baseline.cost["tokens_cut"]:
        return []
    ours, theirs = samples_of(record), samples_of(baseline)
    alike = record.context["truncate"] == baseline.context["truncate"]
    return sorted(id for id in ours.keys() & theirs.keys() if not _cut_alike(ours[id], theirs[id], alike))


def _cut_alike(ours: Entry, theirs: Entry, same_part: bool) -> bool:
    if ours.cut_tokens != theirs.cut_tokens:
        return False
    return not ours.cut_tokens or same_part or ours.prompt_sha256 == theirs.prompt_sha256


def _cuts(record: RunRecord, baseline: RunRecord) -> list[str]:
    """What forbids to compare, as not the same was cut; a bound that the user gave to both is the same for both."""
    cut = record.cost["tokens_cut"] or baseline.cost["tokens_cut"]
    differences = bound_differences(record, baseline)
    if not cut or (not differences and record.context["max_context"] is not None):
        return []
    ours, theirs = samples_of(record), samples_of(baseline)
    if not ours or not theirs:
        return differences
    if not (other := cut_otherwise(record, baseline)):
        return []
    one = other[0]
    tokens = f"{one} {ours[one].cut_tokens:,}, {theirs[one].cut_tokens:,}"
    return [*differences, f"cut of {len(other)} of {len(ours.keys() & theirs.keys())} samples, in tokens: {tokens}"]


def _question(entry: Entry) -> tuple[str, str]:
    return entry.reference, json.dumps(entry.cell, sort_keys=True)
