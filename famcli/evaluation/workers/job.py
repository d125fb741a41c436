"""What workers are told, and what they say."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from famcli.evaluation.drawing import Drawing
from famcli.evaluation.plan import Group, Planned
from famcli.evaluation.prompts import Context
from famcli.seams import SpecialTokens
from famcli.task import Task

if TYPE_CHECKING:
    from famcli.checkpoints.sources import LoadedModel


@dataclass(frozen=True)
class Asked:
    """What is asked in a run, see ``famcli.evaluation.answering.Answering``; ``model`` may be an outline."""

    model: LoadedModel
    task: Task
    context: Context | None
    special: SpecialTokens
    thinking: int | None
    drawing: Drawing | None


@dataclass(frozen=True)
class Job:
    """What a worker needs besides the samples; sent to it once.

    Attributes:
        spec: of the model, as after ``--model``.
        device, dtype: as for ``torch``.
        device_map: spread the layers over what the worker has.
        weights_sha256: of the driver's weights; a worker that finds others is refused.
        task, context, special, thinking, drawing: see ``Asked``.
        directory: of the run. A worker whose disk does not have it keeps no states.
        prepare: called before anything else, for plugins that the user named.
    """

    spec: str
    device: str
    dtype: str
    device_map: bool
    weights_sha256: str
    task: Task
    context: Context | None
    special: SpecialTokens
    thinking: int | None
    drawing: Drawing | None
    directory: Path
    prepare: Callable[[], Any] | None


@dataclass(frozen=True)
class Unit:
    """What is sent at once: the samples about one document, or a batch of samples that stand alone or have a header.

    Attributes:
        group: the samples.
        name: a hash, the same in every run of the same samples.
        what: for a person.
    """

    group: Group
    name: str
    what: str

    @classmethod
    def of(cls, group: Group) -> Unit:
        """The unit of a group."""
        members = [p for batch in group.batches for p in batch]
        document = members[0].sample.document if group.shared_tokens else None
        named = f"document {document}" if document is not None else f"sample {members[0].sample.id}"
        ids = "\0".join(p.sample.id for p in members)
        key = ids if document is None else f"{document}\0{group.shared_tokens}"
        more = f" and {len(members) - 1} more" if document is None and len(members) > 1 else ""
        return cls(group, hashlib.sha256(key.encode()).hexdigest()[:32], named + more)

    def rest(self, done: Collection[str]) -> Unit | None:
        """What is left of it after the samples ``done``; ``None`` for nothing."""
        pending = [[p for p in batch if p.sample.id not in done] for batch in self.group.batches]
        left = [batch for batch in pending if batch]
        if not left:
            return None
        begun = self.group.begun or left != self.group.batches
        return Unit(Group(self.group.shared_tokens, left, begun), self.name, self.what)

    @property
    def samples(self) -> list[Planned]:
        return [p for batch in self.group.batches for p in batch]


@dataclass(frozen=True)
class Failure:
    """Something the task or the model did not allow.

    Attributes:
        message, hint: of a ``UserError``.
        sample: the id of the sample that the task failed on; ``None`` where all is lost.
    """

    message: str
    hint: str | None
    sample: str | None = None


@dataclass(frozen=True)
class About:
    """What a worker says of itself when it has loaded the model."""

    weights_sha256: str
    device: str


def units(groups: Sequence[Group]) -> list[Unit]:
    """What the workers get, the longest first: whoever is given the longest document last makes all others wait.

    Batches of samples that stand alone are units of their own, and so are those behind one header, which is short: each
    worker reads it. They are those of a run without workers, so that answers round alike.
    """
    found = []
    for group in groups:
        whole = group.shared_tokens and not group.header
        parts = [group] if whole else [Group(group.shared_tokens, [batch], group.begun) for batch in group.batches]
        found += [Unit.of(part) for part in parts]
    return sorted(found, key=lambda unit: -unit.group.tokens)
