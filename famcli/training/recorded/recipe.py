"""A recipe that trains the FAM's own weights alone, on recorded blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from famcli.errors import UserError
from famcli.models.config import ModelConfig
from famcli.models.memories.fam import Fam


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
        rows: keys of a step; fewer where there are many updates, see ``rows_updates``.
        rows_updates: most rows times updates.
        learning_rate: at the first step; ``final_learning_rate`` at the last, along a half cosine.
        final_learning_rate: see ``learning_rate``.
        updates: most updates before the block that tells the key, and after it, at the phase's end; they grow to it
            from those of the phase before, geometrically, over the first half.
        answers: share of the steps in which the key is asked for.
        attention: weight of what the answer's slots attend to where the key is told.
        rest: weight of the attention to the sink of slots that have nothing to read.
        drift: weight of the logarithm of what an update changes in a FAM that should stay as it is.
        text: weight of the next tokens of plain text, read with the FAM in sight: it should not be in the way.
        record: record the blocks anew at the phase's beginning, read with the FAM as it is by then.
    """

    steps: int
    block_sizes: tuple[int, ...]
    rows: int = 32
    rows_updates: int = 192
    learning_rate: float
    final_learning_rate: float | None = None
    updates: int = 1
    answers: float = 0.5
    attention: float = 0.3
    rest: float = 0.3
    drift: float = 0.0
    text: float = 0.0
    record: bool = False

    def __post_init__(self) -> None:
        _check_least(self, "rows", "updates")


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
        answer_slots: the last so many slots of the FAM take the tokens of an answer, one each.
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
    fillers: Fillers = Fillers()
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
        if self.passkey > 1:
            raise UserError(f"passkey must be from 0 to 1, not {self.passkey:g}")
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

    def check(self, config: ModelConfig) -> Fam:
        """The FAM of a model; raises ``UserError`` where it has no weights of its own, or is too small."""
        memory = config.memory
        if not isinstance(memory, Fam) or not memory.fam_rank:
            raise UserError(
                "recordings train the FAM's own matrices, which this model lacks",
                "give it some: --model NAME,attention=fam,fam_rank=16,fam_ffn=false",
            )
        if memory.sinks != 1:
            raise UserError("slots that have nothing to read look at a sink: the model needs one", "sinks=1")
        if self.answer_slots > memory.fam_length:
            raise UserError(f"answer_slots must be at most the fam_length of {memory.fam_length}")
        return memory

    def phase_at(self, step: int) -> tuple[int, int]:
        """The number of the phase and the steps done in it."""
        for number, phase in enumerate(self.phases):
            if step < phase.steps:
                return number, step
            step -= phase.steps
        raise IndexError(step)

    def updates_at(self, step: int) -> int:
        """Most updates on either side of the key at ``step``."""
        number, done = self.phase_at(step)
        phase, before = self.phases[number], self.phases[number - 1].updates if number else 1
        share = min(1.0, 2 * done / phase.steps)
        return max(1, round(before * (phase.updates / before) ** share))

    def learning_rate(self, step: int) -> float:
        number, done = self.phase_at(step)
        phase = self.phases[number]
        first = phase.learning_rate
        last = first if phase.final_learning_rate is None else phase.final_learning_rate
        rate = last + (first - last) * (1 + math.cos(math.pi * done / phase.steps)) / 2
        return rate * min(1.0, (done + 1) / max(1, self.warmup))

    @staticmethod
    def step_rows(phase: RecordedPhase, updates: int) -> int:
        """Rows of a step of so many updates."""
        return min(phase.rows, max(4, phase.rows_updates // updates))
