"""A part of a run's documents as a run of its own, for machines that cannot talk to each other; and the whole again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from famcli.claim import claim
from famcli.errors import UserError, printable
from famcli.evaluation.aggregate import aggregate
from famcli.evaluation.journal import JOURNAL_NAME, Entry, read_entries
from famcli.evaluation.record import RECORD_NAME, RunRecord, ShardFields
from famcli.files import write_text
from famcli.task import MetricSpec, Sample, Task


@dataclass(frozen=True)
class Shard:
    """Every ``of``-th document, from the ``index``-th on, counted from 1.

    Raises:
        UserError: ``index`` is not from 1 to ``of``.
    """

    index: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.of:
            raise UserError(f"there is no shard {self.index} of {self.of}", "for example: --shard 1/4")

    def places(self, samples: Sequence[Sample]) -> dict[str, int]:
        """Where its samples stand among ``samples``, counted from 0, by their ids; one that stands alone is a document.

        Raises:
            UserError: it has none.
        """
        documents: dict[tuple[bool, str], int] = {}
        names = [(s.document is None, s.id if s.document is None else s.document) for s in samples]
        for name in names:
            documents.setdefault(name, len(documents))
        if self.index > len(documents):
            raise UserError(
                f"shard {self.index} of {self.of} is empty: there are {len(documents)} documents",
                f"at most --shard I/{len(documents)}",
            )
        return {
            sample.id: at
            for at, (sample, name) in enumerate(zip(samples, names, strict=True))
            if documents[name] % self.of == self.index - 1
        }

    def fields(self, run_id: str, task: Task) -> ShardFields:
        """What its record says of it before it is drawn; ``run_id`` is that of the whole run."""
        complete = [metric.name for metric in task.metrics if metric.complete]
        return ShardFields(index=self.index, of=self.of, run_id=run_id, places={}, complete=complete)


def merge(shards: Sequence[RunRecord], results: Path) -> RunRecord:
    """The whole run from all of its shards, in ``results/<run-id>``, as one machine would have left it.

    Args:
        shards: their records, in any order.
        results: where runs are kept.

    Raises:
        UserError: they are not the finished shards of one run, each there once, or the run is there already.
    """
    parts = _checked(shards)
    first, first_fields = parts[0]
    entries: dict[int, Entry] = {}
    for record, fields in parts:
        entries |= _placed(record, fields)
    run_id = first_fields["run_id"]
    path = results / run_id
    if os.path.lexists(path / RECORD_NAME):
        raise UserError(f"{path} is there already", "remove it, or give another --output")
    whole = replace(
        first,
        path=path,
        run_id=run_id,
        shard=None,
        started=min(record.started for record, _ in parts),
        finished=max(record.finished or "" for record, _ in parts),
        skipped=[one for record, _ in parts for one in record.skipped],
    )
    ordered = [entries[at] for at in sorted(entries)]
    aggregate(whole, _metrics(first, first_fields), ordered)
    with claim(path, within=results):
        lines = "".join(entry.to_line().decode() for entry in ordered)
        write_text(path / JOURNAL_NAME, lines, within=results)
        whole.save()
    return whole


def _checked(shards: Sequence[RunRecord]) -> list[tuple[RunRecord, ShardFields]]:
    """The shards in their order."""
    parts: list[tuple[RunRecord, ShardFields]] = []
    for record in shards:
        if record.shard is None:
            raise UserError(f"{record.path} is a whole run, not a shard", "shards are runs of famcli eval --shard I/N")
        if record.status != "finished":
            raise UserError(f"{record.path} is not finished", "repeat its command: it goes on")
        parts.append((record, record.shard))
    if not parts:
        raise UserError("no shards are given", "for example: famcli merge results/RUN-*of4")
    parts.sort(key=lambda part: part[1]["index"])
    first = parts[0][1]
    for record, fields in parts:
        if (fields["run_id"], fields["of"]) != (first["run_id"], first["of"]):
            raise UserError(f"{record.path} is a shard of another run than {parts[0][0].path}")
    found = [fields["index"] for _, fields in parts]
    missing = sorted(set(range(1, first["of"] + 1)) - set(found))
    if missing:
        raise UserError(
            f"of {first['of']} shards of {first['run_id']} these are missing: {', '.join(map(str, missing))}",
            f"name them too, or run them: famcli eval ... --shard {missing[0]}/{first['of']}",
        )
    if len(found) > len(set(found)):
        raise UserError(f"a shard of {first['run_id']} is given twice: {next(n for n in found if found.count(n) > 1)}")
    return parts


def _placed(record: RunRecord, fields: ShardFields) -> dict[int, Entry]:
    """The samples of a shard by their places in the whole run."""
    entries = read_entries(record.path / JOURNAL_NAME)
    for id in entries.keys() - fields["places"].keys():
        raise UserError(f"{record.path}: sample {printable(id)} is not one of this shard")
    if len(entries) != record.samples:
        raise UserError(
            f"{record.path} has {len(entries)} samples, and its record counts {record.samples}",
            "repeat its command: it asks again what is missing",
        )
    return {fields["places"][id]: entry for id, entry in entries.items()}


def _metrics(record: RunRecord, fields: ShardFields) -> list[MetricSpec]:
    """The metrics as the record tells of them."""
    return [
        MetricSpec(name, mean=told["mean"], complete=name in fields["complete"])
        for name, told in record.task["metrics"].items()
    ]
