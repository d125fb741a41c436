"""What a run would be, before a model is in memory: its name, what is left to read, and what such runs cost before."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from famcli.errors import UserError
from famcli.evaluation.asking import Skips
from famcli.evaluation.cost import known_cost
from famcli.evaluation.finished import finished_run
from famcli.evaluation.journal import JOURNAL_NAME, read_entries
from famcli.evaluation.plan import Group, plan
from famcli.evaluation.record import RECORD_NAME, LeftOut, RunRecord, load_record
from famcli.evaluation.settings import Settings
from famcli.evaluation.stream import STATE_NAME
from famcli.models.stream import computed
from famcli.task import Task

if TYPE_CHECKING:
    from famcli.checkpoints.sources import LoadedModel, Source
    from famcli.models.stream import StreamModel

LEAST_SECONDS = 1.0
"""Shorter runs say nothing of longer ones."""

AS_LONG = 0.99
"""From this share of its tokens on, a text counts as long as another: samples drawn anew differ by a few tokens."""


@dataclass(frozen=True)
class Before:
    """What earlier runs of this model on this task cost, on this platform, with states at least as large.

    Attributes:
        runs: how many.
        seconds: the least and the most that what is left would take at the speeds of these runs.
        memory_bytes: the memory that one of them took: of those with texts as long as these the one with the shortest,
            where there is none the one with the longest. ``None`` where no run says how long its texts are.
        memory_tokens: the longest text of that run, with its options.
    """

    runs: int
    seconds: tuple[float, float]
    memory_bytes: int | None
    memory_tokens: int | None


@dataclass(frozen=True)
class Preview:
    """A run that has not been started.

    Attributes:
        model, task: names.
        run_id: ``None`` where it is known only once the model is built, as of one that another package brings.
        status: ``new``, ``interrupted``, ``running`` or ``finished``: what there is of it; ``None`` without a run id.
        samples, answered: that it has in all, and that are answered already.
        longest: tokens of its longest text, with its options.
        tokens: left to read, exactly, each document once.
        computed: how many of them are computed; ``None`` without a run id.
        cut_samples, cut_tokens: samples of whose documents something is cut; tokens that are, as a run counts them.
        left_out: what does not fit.
        before: ``None`` where no such run was measured.
        kept: something of a run that was broken off is there: answers, or the state of a text.
    """

    model: str
    task: str
    run_id: str | None
    status: str | None
    samples: int
    answered: int
    longest: int
    tokens: int
    computed: int | None
    cut_samples: int
    cut_tokens: int
    left_out: list[LeftOut]
    before: Before | None
    kept: bool = False

    @property
    def memory_of_shorter(self) -> bool:
        """Whether the memory is that of a run with shorter texts alone, which may take less."""
        tokens = self.before.memory_tokens if self.before else None
        return tokens is not None and not _as_long(tokens, self.longest)


@dataclass(frozen=True)
class Previews:
    """Previews runs of one model.

    Attributes:
        source: the model.
        outline: the same without its weights, see ``Source.outline``; ``None`` where it has none.
        records: the finished runs that are there.
    """

    source: Source
    outline: LoadedModel | None
    records: Sequence[RunRecord]

    def of(self, task: Task, settings: Settings) -> Preview:
        """What ``evaluate`` would do; nothing is written.

        Raises:
            UserError: as ``evaluate`` would before it reads anything, or a file of the run is damaged.
        """
        record = settings.record(self.outline, task) if self.outline else None
        status, done = _standing(record.path, settings) if record else (None, frozenset[str]())
        drawn = settings.draw(task, self.source.tokenizer, self.source.longest_text, Skips(settings.on_error))
        if status == "finished":
            done = frozenset(p.sample.id for p in drawn.planned)
        groups = plan(drawn.planned, 1, done)
        work = _computed(groups, self.outline.stream) if self.outline else None
        longest = max(p.prompt_tokens + p.option_tokens for p in drawn.planned)
        return Preview(
            model=self.source.name,
            task=task.name,
            run_id=record.run_id if record else None,
            status=status,
            samples=len(drawn.planned),
            answered=len(done),
            longest=longest,
            tokens=sum(group.tokens for group in groups),
            computed=work,
            cut_samples=sum(p.cut_tokens > 0 for p in drawn.planned),
            cut_tokens=sum(p.cut_tokens for p in drawn.planned),
            left_out=drawn.left_out,
            before=self._before(record, longest, work) if record and work is not None else None,
            kept=bool(done) or (record is not None and status != "new" and (record.path / STATE_NAME).exists()),
        )

    def _before(self, record: RunRecord, longest: int, work: int) -> Before | None:
        assert self.outline is not None
        state = self.outline.stream.state_bytes(longest)
        rates, memory = list[float](), list[tuple[int, int]]()
        for earlier in self.records:
            cost = known_cost(earlier)
            long_enough = cost["state_bytes"] >= state and cost["seconds"] >= LEAST_SECONDS
            if long_enough and cost["tokens_computed"] and _alike(earlier, record):
                rates.append(cost["tokens_computed"] / cost["seconds"])
                if (tokens := _longest(earlier)) is not None:
                    memory.append((tokens, cost["peak_memory_bytes"]))
        if not rates:
            return None
        tokens, taken = _nearest(memory, longest) if memory else (None, None)
        return Before(len(rates), (work / max(rates), work / min(rates)), taken, tokens)


def _nearest(memory: Collection[tuple[int, int]], longest: int) -> tuple[int, int]:
    """Of (tokens of the longest text, bytes): the one to judge by, see ``Before``."""
    enough = [one for one in memory if _as_long(one[0], longest)]
    tokens = min(enough)[0] if enough else max(memory)[0]
    return tokens, max(taken for found, taken in memory if found == tokens)


def _as_long(tokens: int, longest: int) -> bool:
    return tokens >= AS_LONG * longest


def _longest(record: RunRecord) -> int | None:
    """Tokens of the longest text of a run, with its options; ``None`` where its samples cannot be read."""
    try:
        entries = read_entries(record.path / JOURNAL_NAME).values()
    except (UserError, OSError):
        return None
    return max((entry.prompt_tokens + entry.option_tokens for entry in entries), default=None)


def _standing(directory: Path, settings: Settings) -> tuple[str, frozenset[str]]:
    """What there is of a run, and the samples that are answered."""
    if settings.fresh or not os.path.lexists(directory / RECORD_NAME):
        return "new", frozenset()
    if finished_run(directory, settings.on_error):
        return "finished", frozenset()
    journal = directory / JOURNAL_NAME
    done = frozenset(read_entries(journal)) if os.path.lexists(journal) else frozenset[str]()
    standing = load_record(directory).standing
    return "interrupted" if standing == "finished" else standing, done  # a finished one lacks samples


def _alike(earlier: RunRecord, record: RunRecord) -> bool:
    """A finished run of the same model on the same task, on what is, as far as a record says, this machine."""
    return (
        earlier.status == "finished"
        and earlier.environment["platform"] == platform.platform()
        and (earlier.device, earlier.dtype) == (record.device, record.dtype)
        and earlier.task["name"] == record.task["name"]
        and earlier.model["weights_sha256"] == record.model["weights_sha256"]
        and earlier.model["config"] == record.model["config"]
    )


def _computed(groups: Collection[Group], model: StreamModel[Any]) -> int:
    """Of the tokens that are read, those that the model does not skip."""
    total = 0
    for group in groups:
        total += computed(model, 0, group.shared_tokens)
        for p in (p for batch in group.batches for p in batch):
            own = p.prompt_tokens - p.shared_tokens
            if p.document_tokens == p.prompt_tokens:  # every token of a text by itself is predicted
                total += own
            elif own:  # the last one is always computed: the answer follows from it
                total += computed(model, p.shared_tokens, own - 1) + 1
            total += p.option_tokens
    return total
