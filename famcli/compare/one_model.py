"""Which names of models mean one model: a directory is one, however its path is written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from famcli.evaluation.record import RunRecord, spelled

Likeness = tuple[Any, ...]


def likeness(record: RunRecord) -> Likeness:
    """What the runs of one model have in common, ``./mine`` and ``/models/mine`` of the same weights among them.

    A name that a user gave with ``--as`` is a model of its own.
    """
    name, model = record.model["name"], record.model
    if record.spec != name:
        return (name, record.spec)
    config = json.dumps(model["config"], sort_keys=True)
    return (*spelled(name), model["weights_sha256"], model["tokenizer"], config)


def names_of(records: Iterable[RunRecord]) -> dict[Likeness, set[str]]:
    """The names of each model, as they were typed."""
    found: dict[Likeness, set[str]] = {}
    for record in records:
        found.setdefault(likeness(record), set()).add(record.model["name"])
    return found


def runs_of_model(name: str, records: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs of the model that was given this name, under all of its names."""
    names = names_of(records)
    return [record for record in records if name in names[likeness(record)]]


def runs_of_path(name: str, records: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs of the model of a directory whose path was never written like this; none where it may be of several."""
    if "/" not in name:
        return []
    found = [r for r in records if r.spec == r.model["name"] and spelled(r.spec) == spelled(name)]
    return found if len({likeness(record) for record in found}) == 1 else []


def shortest(names: Iterable[str]) -> str:
    """The name that stands for all names of a model."""
    return min(names, key=lambda name: (len(name), name))
