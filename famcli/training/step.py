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
from famcli.training.recipe import Phase, Recipe

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


def read_and_ask(
    model: Decoder, batch: Batch, recipe: Recipe, phase: Phase, step: int, tally: Tally
) -> tuple[Losses, StreamState]:
    """Reads the next blocks of every row; at random places in each block, asks the rows that have seen their key.

    A question is asked in a side branch: the state is forked, so neither question nor answer enters the stream, and one
    sequence teaches recall at every distance.
    """
    rng = np.random.default_rng((recipe.seed, 2, step))
    noise = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    size, keys = phase.block_size, phase.mixture.keys
    tokens = batch.tokens(size * phase.blocks + 1)
    state = batch.start(model)
    recall, text, filler, changed = _Mean(), _Mean(), _Mean(), _Mean()
    memory = [layer.fam.detach() for layer in state.layers]
    lost: set[int] = set()
    read = 0
    for block in range(phase.blocks):
        first = max(0, batch.first_askable() - block * size)
        places = sorted(int(p) for p in rng.integers(first, size, phase.questions)) if first < size else []
        for start, stop in pairwise((0, *places, size)):
            low, high = block * size + start, block * size + stop
            if high > low:
                latents, state = model.read(tokens[:, low:high], state)
                losses = _next_token_losses(model, latents, tokens[:, low + 1 : high + 1])
                filler.add(losses[:keys])
                text.add(losses[keys:])
                read += losses.numel()
            rows = batch.askable(high) if stop < size else []
            if rows:
                lost, asked = _ask(model, batch, rows, state, recall, tally, recipe, high, size)
                read += asked
        if not model.config.fam_slots:
            continue
        holding = batch.askable(block * size) if phase.retention else []
        for layer, before in zip(state.layers, memory, strict=True):
            if holding:
                scale = before[holding].square().mean(dim=-1, keepdim=True)
                changed.add((layer.fam[holding] - before[holding]).square() / scale)
        memory = [layer.fam.detach() for layer in state.layers]
        if phase.fam_noise:
            model.set_fam(state, [_with_noise(layer.fam, phase.fam_noise, noise) for layer in state.layers])
    total = (
        recipe.recall_loss_weight * recall.value()
        + recipe.text_loss_weight * text.value()
        + recipe.filler_loss_weight * filler.value()
        + phase.retention * changed.value()
    )
    assert isinstance(total, Tensor)
    return Losses(total, recall.item(), text.item(), filler.item(), changed.item(), read, lost), state


def _ask(
    model: Decoder, batch: Batch, rows: list[int], state: StreamState, recall: _Mean, tally: Tally, recipe: Recipe,
    ahead: int, size: int,
) -> tuple[set[int], int]:  # fmt: skip
    """Asks ``rows``; gives those that have lost their key, and the number of tokens read for it."""
    questions = [batch.question(row) for row in rows]
    text = torch.from_numpy(np.stack([q.text for q in questions]))
    answer = torch.from_numpy(np.stack([q.answer for q in questions]))
    latents, _ = model.read(torch.cat((text, answer[:, :-1]), dim=1), state.index(rows))
    logits = model.logits(latents[:, -answer.shape[1] :])
    losses = F.cross_entropy(logits.flatten(0, 1), answer.flatten(), reduction="none").view(answer.shape)
    recall.add(losses)
    right = (logits.argmax(-1) == answer).all(dim=1).tolist()
    lost = set()
    for row, question, ok, loss in zip(rows, questions, right, losses.mean(dim=1).tolist(), strict=True):
        tally.add((batch.rows[row].offset + ahead) // size - question.known_from // size, ok)
        if loss > recipe.forget_above:
            lost.add(row)
    return lost, text.numel() + answer.numel()


def _next_token_losses(model: Decoder, latents: Tensor, following: Tensor) -> Tensor:
    """[b, t] nats."""
    logits = model.logits(latents)
    return F.cross_entropy(logits.flatten(0, 1), following.flatten(), reduction="none").view(following.shape)


def _with_noise(fam: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    spread = fam.detach().square().mean(dim=-1, keepdim=True).sqrt()
    return fam + scale * spread * torch.randn(fam.shape, generator=generator)
