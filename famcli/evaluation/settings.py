"""How runs are asked, whatever the model and the task; and what follows from it before anything is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from famcli.errors import UserError, unknown_name
from famcli.evaluation.asking import Limits, OnError, Skips, ask_or_skip, samples_of
from famcli.evaluation.drawing import Drawing, Sampling
from famcli.evaluation.identity import context_fields, new_record
from famcli.evaluation.plan import Planned, measure
from famcli.evaluation.prompts import Context, Side, special_tokens_of
from famcli.evaluation.record import LeftOut, RunRecord, left_out_words
from famcli.evaluation.shards import Shard
from famcli.seams import FramedEncoder, SpecialTokens
from famcli.task import Generate, Sample, Task

if TYPE_CHECKING:
    from famcli.checkpoints.sources import KnownModel
    from famcli.checkpoints.tokenizer import Tokenizer
    from famcli.evaluation.choice import ChosenTask

SIDES = ("left", "right", "middle")
ON_ERROR = ("stop", "skip")


@dataclass(frozen=True)
class Drawn:
    """What a task asks a model.

    Attributes:
        samples: all of the task's, or of the shard's.
        planned: those that fit, measured.
        left_out: those that do not fit.
        places: of a shard's samples in the whole run.
    """

    samples: list[Sample]
    planned: list[Planned]
    left_out: list[LeftOut]
    places: dict[str, int]


@dataclass(frozen=True)
class Settings:
    """The arguments of ``famcli.evaluation.runner.evaluate`` besides model, task and progress; see there.

    Raises:
        UserError: a value does not fit.
    """

    results: Path
    seed: int = 0
    limit: int | None = None
    limit_documents: int | None = None
    max_context: int | None = None
    truncate: Side | None = None
    chat_template: bool = False
    chat_arguments: Mapping[str, Any] | None = None
    system_prompt: str | None = None
    sampling: Sampling | None = None
    thinking: int | None = None
    leaves_out: bool = False
    batch_size: int | None = None
    fresh: bool = False
    on_error: OnError = "stop"
    keep_prompts: bool = False
    shard: Shard | None = None

    def __post_init__(self) -> None:
        for name, number in (
            ("limit", self.limit),
            ("limit of documents", self.limit_documents),
            ("batch size", self.batch_size),
            ("max context", self.max_context),
        ):
            if not isinstance(number, int | None) or isinstance(number, bool):
                raise UserError(f"{name} must be a whole number, not {number!r}")
            if number is not None and number < 1:
                raise UserError(f"the {name} must be at least 1, not {number}")
        if self.truncate is not None and self.truncate not in SIDES:
            raise unknown_name("side to truncate", str(self.truncate), SIDES)
        if self.on_error not in ON_ERROR:
            raise unknown_name("value of on_error", str(self.on_error), ON_ERROR)

    def of(self, chosen: ChosenTask) -> Settings:
        """These, with what bounds one task."""
        return replace(self, limit=chosen.limit, limit_documents=chosen.limit_documents, leaves_out=chosen.leaves_out)

    @property
    def limits(self) -> Limits:
        """How many samples are taken."""
        return Limits(self.limit, self.limit_documents)

    @property
    def leaves_misfits_out(self) -> bool:
        """A bound that was typed is a length that was asked for: nothing beyond it is left out."""
        return self.leaves_out and self.max_context is None

    def context(self, longest: int | None) -> Context | None:
        """The bound on prompts, thoughts and answers that these and a model's ``longest_text`` make.

        Raises:
            UserError: something is to be cut, and nothing says at what length.
        """
        bound = longest if self.max_context is None else self.max_context
        if bound is None:
            if self.truncate:
                raise UserError(
                    "--truncate needs the length to cut at: this model reads texts of any length", "add --max-context N"
                )
            return None
        return Context(bound, self.truncate, self.thinking or 0)

    def special(self, tokenizer: Tokenizer) -> SpecialTokens:
        """What stands around every prompt; raises ``UserError`` where there is no such chat template."""
        return special_tokens_of(tokenizer, self.chat_template, self.chat_arguments, self.system_prompt)

    def record(self, model: KnownModel, task: Task) -> RunRecord:
        """Of the run that has not begun."""
        bounds = self.max_context, self.truncate
        special = self.special(model.tokenizer)
        context = context_fields(model.tokenizer, *bounds, special, self.chat_template, self.thinking)
        if self.sampling:
            context["sampling"] = self.sampling.fields
        return new_record(model, task, self.results, self.seed, self.limits, context, shard=self.shard)

    def samples(self, task: Task, tokenizer: Tokenizer) -> list[Sample]:
        """All of the task's.

        Raises:
            UserError: as ``samples_of``, or answers are to be drawn and none is generated.
        """
        found = samples_of(task, FramedEncoder(tokenizer, self.special(tokenizer)), self.seed, self.limits)
        if self.sampling and not any(isinstance(ask_or_skip(task, Skips("skip"), one), Generate) for one in found):
            raise UserError(
                f"task {task.name} generates no answers, and --temperature says how they are drawn",
                "leave out --temperature",
            )
        return found

    def drawing(self, rows: int) -> Drawing | None:
        """What is drawn, at most ``rows`` answers at once; ``None`` where tokens are the most likely ones."""
        return Drawing(self.sampling, self.seed, rows) if self.sampling else None

    def draw(
        self,
        task: Task,
        tokenizer: Tokenizer,
        longest: int | None,
        skips: Skips,
        left_out: Callable[[str], None] = lambda message: None,
    ) -> Drawn:
        """The task's samples and what each takes; ``left_out`` is told of what does not fit.

        Raises:
            UserError: as ``samples_of`` and ``measure``, or the task fails on all samples.
        """
        samples = self.samples(task, tokenizer)
        misfits: list[LeftOut] = []
        planned = measure(
            samples,
            tokenizer,
            self.context(longest),
            self.special(tokenizer),
            left_out=misfits.append,
            ask=partial(ask_or_skip, task, skips),
            leaves_out=self.leaves_misfits_out,
        )
        if not planned:
            raise skips.all_failed(task)
        places: dict[str, int] = {}
        if self.shard:
            places = self.shard.places(samples)
            samples = [sample for sample in samples if sample.id in places]
            planned = [p for p in planned if p.sample.id in places]
        if misfits:
            left_out(f"{left_out_words(misfits)} left out: {misfits[0]['why']}")
        return Drawn(samples, planned, misfits, places)
