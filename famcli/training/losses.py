"""The loss that a step minimises, and the recall that the log shows."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from famcli.training.recipe import Phase, Recipe
from famcli.training.team import ALONE, Team

Loss = Literal["recall", "rehearsal", "text", "filler", "retention", "waiting", "drift", "answer", "segment"]
"""Means that make up a step's loss: of keys; of keys after a rehearsal; of the next tokens of plain text and of
rows with questions; of what a block, waiting for a key, and a single update change; of answers about documents; of
repeated segments."""

KINDS: tuple[Loss, ...] = get_args(Loss)

AGE_BUCKETS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
"""FAM updates since the key was read, the lower end of each bucket."""


@dataclass
class Tally:
    """Sums over the questions for keys of some steps, by FAM updates since the key (``AGE_BUCKETS``)."""

    asked: list[int] = field(default_factory=lambda: [0] * len(AGE_BUCKETS))
    recalled: list[int] = field(default_factory=lambda: [0] * len(AGE_BUCKETS))

    def add(self, age: int, recalled: bool) -> None:
        bucket = sum(age >= low for low in AGE_BUCKETS) - 1
        self.asked[bucket] += 1
        self.recalled[bucket] += recalled

    def of_all(self, team: Team) -> Tally:
        """The sums over all processes."""
        summed = [int(number) for number in team.sums([*self.asked, *self.recalled])]
        return Tally(summed[: len(self.asked)], summed[len(self.asked) :])

    def rates(self) -> list[float | None]:
        return [r / n if n else None for r, n in zip(self.recalled, self.asked, strict=True)]


class Losses:
    """The means of one step while they come together: sums of what arrives, by kind.

    Kinds that weigh nothing are not computed.
    """

    def __init__(self, recipe: Recipe, phase: Phase) -> None:
        self.weights: dict[Loss, float] = {
            "recall": recipe.recall_loss_weight,
            "rehearsal": phase.rehearsal_weight,
            "text": recipe.text_loss_weight,
            "filler": recipe.filler_loss_weight,
            "retention": phase.retention,
            "waiting": phase.waiting_weight,
            "drift": phase.drift,
            "answer": recipe.answer_loss_weight,
            "segment": recipe.segment_loss_weight,
        }
        self._sums: dict[Loss, Tensor] = {}
        self._counts: dict[Loss, int] = {}

    def add(self, kind: Loss, losses: Tensor) -> None:
        """Takes the losses of single tokens, or changes of single numbers, of any shape."""
        if losses.numel():
            self._sums[kind] = self._sums[kind] + losses.sum() if kind in self._sums else losses.sum()
            self._counts[kind] = self._counts.get(kind, 0) + losses.numel()

    @property
    def counts(self) -> dict[Loss, int]:
        """How much every kind's mean is taken over."""
        return {kind: self._counts.get(kind, 0) for kind in KINDS}

    def among(self, counts: Mapping[Loss, int]) -> Losses:
        """These sums as a part of the means over ``counts``, those of all processes."""
        part = copy(self)
        part._counts = {kind: count for kind, count in counts.items() if count}
        return part

    @property
    def teaches(self) -> bool:
        """Some process has something to learn from the step."""
        return bool(self._counts)

    def total(self) -> Tensor | None:
        """The weighted sum of the means, which is minimised, or this process's part of it; ``None`` for nothing."""
        parts = [self.weights[kind] * self._sums[kind] / self._counts[kind] for kind in self._sums]
        return torch.stack(parts).sum() if parts else None

    def means(self, team: Team = ALONE) -> dict[Loss, float | None]:
        """Every kind's mean over all processes, ``None`` where the step had none of it."""
        sums = team.sums([self._sums[kind].item() if kind in self._sums else 0.0 for kind in KINDS])
        return {k: total / self._counts[k] if k in self._counts else None for k, total in zip(KINDS, sums, strict=True)}
