"""A recipe that trains the gate of a FAM alone, on recorded keys."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from famcli.errors import UserError
from famcli.models.config import ModelConfig
from famcli.models.memories.gated_fam import GatedFam

MOST = 1 << 24
"""Of whatever is counted; what is above is mistyped, and would fill the memory."""
MOST_DIGITS = 64


def _check_counts(part: object, *names: str) -> None:
    for name in names:
        if not 1 <= (value := getattr(part, name)) <= MOST:
            raise UserError(f"{name} must be from 1 to {MOST:,}, not {value:,}")


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
        rows: blocks that a step looks at.
    """

    block_size: int
    streams: int
    at_once: int = 16
    rows: int = 32

    def __post_init__(self) -> None:
        _check_counts(self, "block_size", "streams", "at_once", "rows")
        if (tokens := self.at_once * self.block_size) > MOST:
            raise UserError(f"at_once streams have blocks of {tokens:,} tokens together", f"at most {MOST:,}")


@dataclass(frozen=True, kw_only=True)
class RecordedRecipe:
    """See the classes of its parts.

    Attributes:
        model: what ``--model`` takes, where that is left out: the base with its FAM. Whatever memory segments it has,
            it is recorded without: what passes from block to block passes through the FAM.
        recordings: of which texts.
        steps: optimiser steps, each on blocks of all recordings.
        learning_rate: at the first step; it falls to nothing along a half cosine.
        keep_from: a token is kept where it is part of a key with this probability or a greater one. A token too many
            costs a slot, and one too few may cost a key.
        tellings: lines that tell a ``{key}``, of a person's ``{name}`` if they like, drawn alike; the line of the task
            PassKey comes besides, as often as ``passkey`` says.
        passkey: share of the keys told in the words of PassKey.
        key_digits: fewest and most digits of a key.
        recurring: share of the keys that are made of two digits alone.
        autocast: what blocks are read in, see ``Recipe``.
    """

    seed: int
    model: str
    recordings: tuple[Streams, ...]
    steps: int
    learning_rate: float
    tellings: tuple[str, ...]
    keep_from: float = 0.5
    passkey: float = 0.4
    key_digits: tuple[int, ...] = (5, 5)
    recurring: float = 0.0
    fillers: Fillers = Fillers()
    checkpoint_every: int = 25
    log_every: int = 5
    autocast: Literal["none", "bfloat16"] = "bfloat16"

    def __post_init__(self) -> None:
        _check_counts(self, "steps", "checkpoint_every", "log_every")
        if not 0 < self.learning_rate < math.inf:
            raise UserError(f"learning_rate must be above 0, not {self.learning_rate:g}")
        if not 0 < self.keep_from < 1:
            raise UserError(f"keep_from must be above 0 and below 1, not {self.keep_from:g}")
        for name in ("passkey", "recurring"):
            if not 0 <= (share := getattr(self, name)) <= 1:
                raise UserError(f"{name} must be from 0 to 1, not {share:g}")
        if len(self.key_digits) != 2 or not 1 <= self.key_digits[0] <= self.key_digits[1] <= MOST_DIGITS:
            raise UserError(
                f"key_digits must be two numbers from 1 to {MOST_DIGITS}, not {self.key_digits}",
                "for example key_digits: [4, 5]",
            )
        for line in self.tellings:
            _check_telling(line)

    def check(self, config: ModelConfig) -> GatedFam:
        """The FAM of a model; raises ``UserError`` where it is no gated one."""
        if not isinstance(config.memory, GatedFam):
            raise UserError(
                "recordings train the gate of a FAM, which this model lacks",
                "give it one: --model NAME,attention=gated_fam",
            )
        return config.memory

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self.learning_rate * (1 + math.cos(math.pi * step / self.steps)) / 2


def _check_telling(line: str) -> None:
    try:
        line.format(key="1", name="Ada")
    except (LookupError, ValueError, AttributeError) as error:
        raise UserError(f"'{line}' cannot be filled in: {error}", "it may have {key} and {name}") from None
    if "{key}" not in line:
        raise UserError(f"the line '{line}' tells no {{key}}")
