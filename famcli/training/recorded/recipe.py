"""A recipe that trains the FAM's own weights alone, on recorded blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from famcli.errors import UserError
from famcli.models.config import ModelConfig
from famcli.models.memories.gated_fam import GatedFam


def _check_least(part: object, *names: str) -> None:
    for name in names:
        if (value := getattr(part, name)) < 1:
            raise UserError(f"{name} must be at least 1, not {value}")


@dataclass(frozen=True)
class Telling:
    """How a key is told and asked for; ``{key}`` stands for the key, ``{name}`` for a person's name."""

    line: str
    question: str

    def __post_init__(self) -> None:
        for text in (self.line, self.question):
            try:
                text.format(key="1", name="Ada")
            except (LookupError, ValueError, AttributeError) as error:
                raise UserError(f"'{text}' cannot be filled in: {error}", "it may have {key} and {name}") from None
        if "{key}" not in self.line:
            raise UserError(f"the line '{self.line}' tells no {{key}}")
        if "{key}" in self.question:
            raise UserError(f"the question '{self.question}' has the {{key}} in it", "end it where the key follows")


@dataclass(frozen=True)
class Fillers:
    """Shares of what stands around the keys: the sentences of PassKey, random sentences over and over, plain text."""

    classic: float = 0.4
    sentences: float = 0.1
    text: float = 0.5

    def __post_init__(self) -> None:
        if not self.classic + self.sentences + self.text:
            raise UserError("nothing stands around the keys", "give classic, sentences or text a share")


@dataclass(frozen=True)
class Streams:
    """Texts whose blocks are recorded.

    Attributes:
        block_size: tokens of a block.
        streams: how many; each has two blocks.
        at_once: streams that are read together.
    """

    block_size: int
    streams: int
    at_once: int = 16

    def __post_init__(self) -> None:
        _check_least(self, "block_size", "streams", "at_once")


@dataclass(frozen=True, kw_only=True)
class RecordedPhase:
    """A stretch of steps.

    Attributes:
        steps: optimiser steps.
        block_sizes: of the recordings that the steps are drawn from.
        rows: streams of a step.
        learning_rate: at the first step; ``final_learning_rate`` at the last, along a half cosine.
        final_learning_rate: see ``learning_rate``.
        keys: most keys that a stream is told.
        others: blocks of a step that tell nothing.
        answers: share of the steps in which a key is asked for.
        attention: weight of what the slots attend to where a key is told.
        rest: weight of the attention to the sink of slots that have nothing to read.
        text: weight of the next tokens of plain text, in the steps that ask for no key. It is read with keys in sight,
            and with what other blocks would write: neither should be in the way.
    """

    steps: int
    block_sizes: tuple[int, ...]
    rows: int = 32
    learning_rate: float
    final_learning_rate: float | None = None
    keys: int = 1
    others: int = 1
    answers: float = 0.5
    attention: float = 0.3
    rest: float = 0.3
    text: float = 0.0

    def __post_init__(self) -> None:
        _check_least(self, "rows", "keys", "others")


@dataclass(frozen=True, kw_only=True)
class RecordedRecipe:
    """See the classes of its parts.

    Attributes:
        model: what ``--model`` takes, where that is left out: the base with its FAM. Whatever memory segments it has,
            it is trained without: what passes from block to block passes through the FAM.
        recordings: of which texts.
        phases: one after the other.
        tellings: ways of telling a key, drawn alike; the words of the task PassKey come besides, as often as
            ``passkey`` says.
        passkey: share of the keys told in the words of PassKey.
        key_digits: fewest and most digits of a key.
        recurring: share of the keys that are made of two digits alone; those that come again are the ones mistaken.
        lead_slots: the first slots of a group take the tokens before the key, one each.
        answer_slots: those after them take the tokens of the key.
        keys_weight: of how well the keys of these slots match, against their values.
        clip: largest norm of the gradient.
        skip_above: a step whose gradient has a larger norm changes nothing.
        warmup: steps over which the rate of a phase rises from 0.
        autocast: see ``Recipe``.
    """

    seed: int
    model: str
    recordings: tuple[Streams, ...]
    phases: tuple[RecordedPhase, ...]
    tellings: tuple[Telling, ...]
    passkey: float = 0.4
    key_digits: tuple[int, ...] = (5, 5)
    recurring: float = 0.0
    fillers: Fillers = Fillers()
    lead_slots: int = 3
    answer_slots: int = 5
    keys_weight: float = 0.5
    clip: float = 1.0
    skip_above: float = math.inf
    warmup: int = 10
    checkpoint_every: int = 25
    log_every: int = 5
    autocast: Literal["none", "bfloat16"] = "bfloat16"

    def __post_init__(self) -> None:
        _check_least(self, "answer_slots", "checkpoint_every", "log_every")
        for name in ("passkey", "recurring"):
            if not 0 <= (share := getattr(self, name)) <= 1:
                raise UserError(f"{name} must be from 0 to 1, not {share:g}")
        if len(self.key_digits) != 2 or not 1 <= self.key_digits[0] <= self.key_digits[1] <= self.answer_slots:
            raise UserError(
                f"key_digits must be two numbers from 1 to answer_slots ({self.answer_slots}), not {self.key_digits}",
                "for example [4, 5]",
            )
        sizes = {some.block_size for some in self.recordings}
        for i, phase in enumerate(self.phases):
            if missing := set(phase.block_sizes) - sizes:
                raise UserError(f"phases[{i}] wants blocks of {min(missing)} tokens, which recordings do not have")

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    def check(self, config: ModelConfig) -> GatedFam:
        """The FAM of a model; raises ``UserError`` where it has no weights of its own, or other groups."""
        memory, slots = config.memory, self.lead_slots + self.answer_slots
        if not isinstance(memory, GatedFam) or not memory.fam_rank:
            raise UserError(
                "recordings train a gated FAM's own matrices, which this model lacks",
                f"give it some: --model NAME,attention=gated_fam,fam_rank=16,fam_ffn=false,fam_group={slots},"
                f"fam_length={4 * slots}",
            )
        if memory.sinks != 1:
            raise UserError("slots that have nothing to read look at a sink: the model needs one", "sinks=1")
        if memory.fam_group != slots:
            raise UserError(
                f"lead_slots and answer_slots are {slots}, and the model has a fam_group of {memory.fam_group}",
                f"fam_group={slots}, and a fam_length that it divides",
            )
        groups = memory.fam_length // memory.fam_group
        if (most := max(phase.keys for phase in self.phases)) > groups:
            raise UserError(
                f"a phase tells {most} keys, and the model has {groups} groups", f"keys: {groups}, or fewer"
            )
        return memory

    def phase_at(self, step: int) -> tuple[int, int]:
        """The number of the phase and the steps done in it."""
        for number, phase in enumerate(self.phases):
            if step < phase.steps:
                return number, step
            step -= phase.steps
        raise IndexError(step)

    def learning_rate(self, step: int) -> float:
        number, done = self.phase_at(step)
        phase = self.phases[number]
        first = phase.learning_rate
        last = first if phase.final_learning_rate is None else phase.final_learning_rate
        rate = last + (first - last) * (1 + math.cos(math.pi * done / phase.steps)) / 2
        return rate * min(1.0, (done + 1) / max(1, self.warmup))
