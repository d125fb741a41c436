"""One optimiser step's loss: dense questions along streams that are read block by block."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from famcli.models.decoder import Decoder
from famcli.models.state import StreamState
from famcli.training.batch import Batch
from famcli.training.noise import with_noise
from famcli.training.recipe import Phase, Recipe
from famcli.training.rehearsal import draw_updates, rehearse

AGE_BUCKETS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)
"""FAM updates since the key was read, the lower end of each bucket."""


@dataclass
class Tally:
    """Sums over the questions of some steps, by FAM updates since the key (``AGE_BUCKETS``)."""

    asked: list[int] = field(default_factory=lambda: [0] * len(AGE_BUCKETS))
    recalled: list[int] = field(default_factory=lambda: [0] * len(AGE_BUCKETS))

    def add(self, age: int, recalled: bool) -> None:
        bucket = sum(age >= low for low in AGE_BUCKETS) - 1
        self.asked[bucket] += 1
        self.recalled[bucket] += recalled

    def rates(self) -> list[float | None]:
        return [r / n if n else None for r, n in zip(self.recalled, self.asked, strict=True)]


@dataclass
class Losses:
    """Means in nats a token, ``None`` where a step had none of the kind; ``total`` is what is minimised."""

    total: Tensor
    recall: float | None
    rehearsal: float | None
    text: float | None
    filler: float | None
    changed: float | None
    tokens: int
    lost: set[int]


class _Mean:
    """A mean of sums that arrive one by one."""

    def __init__(self) -> None:
        self.sum: Tensor | float = 0.0
        self.count = 0

    def add(self, losses: Tensor) -> None:
        self.sum = self.sum + losses.sum()
        self.count += losses.numel()

    def value(self) -> Tensor | float:
        return self.sum / max(1, self.count)

    def item(self) -> float | None:
        return float(torch.as_tensor(self.value()).detach()) if self.count else None


REHEARSED_ROWS = 6
"""Most streams that are rehearsed in a step: gradient through hundreds of updates takes gigabytes."""

CARRY_AGED = 0.5
"""Probability that a rehearsed FAM is what the streams go on with."""


def read_and_ask(
    model: Decoder, batch: Batch, recipe: Recipe, phase: Phase, step: int, tally: Tally
) -> tuple[Losses, StreamState]:
    """Reads the next blocks of every row; at random places in each block, asks the rows that have seen their key.

    A question is asked in a side branch: the state is forked, so neither question nor answer enters the stream, and one
    sequence teaches recall at every distance.
    """
    return _Step(model, batch, recipe, phase, step, tally).run()


class _Step:
    """The losses of one step while they come together."""

    def __init__(self, model: Decoder, batch: Batch, recipe: Recipe, phase: Phase, step: int, tally: Tally) -> None:
        self.model, self.batch, self.recipe, self.phase, self.tally = model, batch, recipe, phase, tally
        self.rng = np.random.default_rng((recipe.seed, 2, step))
        self.noise = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        self.tokens = batch.tokens(phase.block_size * phase.blocks + 1)
        self.recall, self.rehearsal, self.changed = _Mean(), _Mean(), _Mean()
        self.text, self.filler = _Mean(), _Mean()
        self.lost: set[int] = set()
        self.read = 0

    def run(self) -> tuple[Losses, StreamState]:
        recipe, phase = self.recipe, self.phase
        state = self.batch.start(self.model)
        memory = [layer.fam.detach() for layer in state.layers]
        for block in range(phase.blocks):
            state = self._read_block(block, state)
            if self.model.config.fam_slots:
                self._keep(block, memory, state)
                memory = [layer.fam.detach() for layer in state.layers]
                if phase.fam_noise:
                    noisy = [with_noise(layer.fam, phase.fam_noise, self.noise) for layer in state.layers]
                    self.model.set_fam(state, noisy)
        if self.model.config.fam_slots:
            if phase.rehearsal:
                self._rehearse(state)
            if phase.waiting:
                self._wait(state)
        total = (
            recipe.recall_loss_weight * self.recall.value()
            + phase.rehearsal_weight * self.rehearsal.value()
            + recipe.text_loss_weight * self.text.value()
            + recipe.filler_loss_weight * self.filler.value()
            + phase.retention * self.changed.value()
        )
        assert isinstance(total, Tensor)
        return self._losses(total), state

    def _losses(self, total: Tensor) -> Losses:
        return Losses(
            total=total,
            recall=self.recall.item(),
            rehearsal=self.rehearsal.item(),
            text=self.text.item(),
            filler=self.filler.item(),
            changed=self.changed.item(),
            tokens=self.read,
            lost=self.lost,
        )

    def _read_block(self, block: int, state: StreamState) -> StreamState:
        size, keys = self.phase.block_size, self.phase.mixture.keys
        for start, stop in pairwise((0, *self._places(block), size)):
            low, high = block * size + start, block * size + stop
            if high > low:
                latents, state = self.model.read(self.tokens[:, low:high], state)
                losses = _next_token_losses(self.model, latents, self.tokens[:, low + 1 : high + 1])
                self.filler.add(losses[:keys])
                self.text.add(losses[keys:])
                self.read += losses.numel()
            rows = self.batch.askable(high) if stop < size else []
            if rows:
                self.lost = self._ask(rows, state.index(rows), self.recall, high)
        return state

    def _places(self, block: int) -> list[int]:
        """Where in a block questions are asked."""
        size = self.phase.block_size
        first = max(0, self.batch.first_askable() - block * size)
        places = sorted(int(p) for p in self.rng.integers(first, size, self.phase.questions)) if first < size else []
        if (self.phase.rehearsal or self.phase.waiting) and block + 1 == self.phase.blocks and not any(places):
            places = [size // 2]  # a block read in several parts leaves its keys and values in the state
        return places

    def _keep(self, block: int, memory: list[Tensor], state: StreamState) -> None:
        """What the block changed in the FAM of streams whose key was read before it."""
        holding = self.batch.askable(block * self.phase.block_size) if self.phase.retention else []
        for layer, before in zip(state.layers, memory, strict=True):
            if holding:
                scale = before[holding].square().mean(dim=-1, keepdim=True)
                self.changed.add((layer.fam[holding] - before[holding]).square() / scale)

    def _rehearse(self, state: StreamState) -> None:
        """Asks the streams whose key was read before the last block twice more, each time after many updates."""
        size, read = self.phase.block_size, self.phase.block_size * self.phase.blocks
        rows = self.batch.askable(read - size)
        if not rows:
            return
        rows = sorted(self.rng.permutation(rows)[:REHEARSED_ROWS].tolist())
        aged, updates = state.index(rows), draw_updates(self.rng, self.phase.rehearsal)
        for some, after in ((updates // 2, updates // 2), (updates - updates // 2, updates)):
            rehearse(self.model, aged, some, self.phase.fam_noise, self.noise)
            lost = self._ask(rows, aged.fork(), self.rehearsal, read + after * size)
        if self.rng.random() < CARRY_AGED:
            self.batch.age(rows, aged.layers, updates * size)
            self.lost = (self.lost - set(rows)) | lost

    @torch.no_grad()
    def _wait(self, state: StreamState) -> None:
        """Ages the FAM of streams whose key is still to come."""
        rows = self.batch.waiting(self.phase.block_size * self.phase.blocks)
        if rows:
            aged = state.index(rows)
            updates = draw_updates(self.rng, self.phase.waiting)
            rehearse(self.model, aged, updates, self.phase.fam_noise, self.noise)
            self.batch.age(rows, aged.layers, 0)

    def _ask(self, rows: list[int], state: StreamState, into: _Mean, ahead: int) -> set[int]:
        """Asks ``rows``, whose ``state`` is used up; gives those that have lost their key.

        Args:
            rows: of the batch.
            state: theirs alone.
            into: takes the losses of the answers.
            ahead: tokens read since the step began, those that an aged FAM stands for included.
        """
        questions = [self.batch.question(row) for row in rows]
        text = torch.from_numpy(np.stack([q.text for q in questions]))
        answer = torch.from_numpy(np.stack([q.answer for q in questions]))
        latents, _ = self.model.read(torch.cat((text, answer[:, :-1]), dim=1), state)
        logits = self.model.logits(latents[:, -answer.shape[1] :])
        losses = F.cross_entropy(logits.flatten(0, 1), answer.flatten(), reduction="none").view(answer.shape)
        into.add(losses)
        self.read += text.numel() + answer.numel()
        right = (logits.argmax(-1) == answer).all(dim=1).tolist()
        lost, size = set(), self.phase.block_size
        for row, question, ok, loss in zip(rows, questions, right, losses.mean(dim=1).tolist(), strict=True):
            self.tally.add((self.batch.rows[row].offset + ahead) // size - question.known_from // size, ok)
            if loss > self.recipe.forget_above:
                lost.add(row)
        return lost


def _next_token_losses(model: Decoder, latents: Tensor, following: Tensor) -> Tensor:
    """[b, t] nats."""
    logits = model.logits(latents)
    return F.cross_entropy(logits.flatten(0, 1), following.flatten(), reduction="none").view(following.shape)
