"""Reads a block with its side branches and scores what was predicted, in memory that neither blocks nor words fill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from famcli.models.decoder import Decoder
from famcli.models.state import StreamState
from famcli.training.sources import Asking, Question

LOGITS_AT_ONCE = 1 << 24
"""Most entries of logits that are kept for the gradient; where there are more, a part at a time is computed again."""


@dataclass(frozen=True)
class Asked:
    """Questions of one kind at one place of a block, read as one batch of side branches.

    Attributes:
        kind: the mean that the losses of the answers count into.
        rows: [n] the rows asked, by their places in the state; a row may be asked several questions.
        questions: [n]
        tokens: [n, t] question and answer without its last token, filled up with zeros, which nothing earlier sees.
        predicting: [n, a] place in ``tokens`` from which each token of the answer is predicted.
        answers: [n, a] the tokens of the answers, -1 where one is shorter than the longest.
    """

    kind: Asking
    rows: list[int]
    questions: list[Question]
    tokens: Tensor
    predicting: Tensor
    answers: Tensor

    @classmethod
    def of(cls, kind: Asking, rows: list[int], questions: list[Question], device: torch.device) -> Asked:
        """Puts questions of any lengths, one for each of ``rows``, into one batch."""
        longest = max(len(q.answer) for q in questions)
        tokens = np.zeros((len(rows), max(len(q.text) + len(q.answer) for q in questions) - 1), np.int64)
        answers = np.full((len(rows), longest), -1, np.int64)
        predicting = np.zeros((len(rows), longest), np.int64)
        for i, q in enumerate(questions):
            read = len(q.text) + len(q.answer) - 1
            tokens[i, :read] = np.concatenate((q.text, q.answer[:-1]))
            answers[i, : len(q.answer)] = q.answer
            predicting[i, : len(q.answer)] = np.arange(len(q.text) - 1, read)
        batch = (torch.from_numpy(part).to(device) for part in (tokens, predicting, answers))
        return cls(kind, rows, questions, *batch)

    def read(self, model: Decoder, state: StreamState) -> Tensor:
        """Latents [n, a, d] from which the answers are predicted; ``state``, of these rows alone, is used up."""
        latents, _ = model.read(self.tokens, state)
        return latents.gather(1, self.predicting[:, :, None].expand(-1, -1, latents.shape[2]))

    def score(self, model: Decoder, latents: Tensor) -> tuple[Tensor, list[float], list[bool]]:
        """The loss of every token of the answers [tokens], the mean loss of each answer, and whether it is right."""
        there = self.answers >= 0
        losses, right = token_losses(model, latents[there], self.answers[there])
        sizes = there.sum(dim=1).tolist()
        means = [part.mean().item() for part in losses.detach().split(sizes)]
        return losses, means, [bool(part.all()) for part in right.split(sizes)]

    def of_rows(self, chosen: list[bool]) -> Tensor:
        """Which of the losses of ``score`` are of the answers ``chosen``: [tokens] bool."""
        sizes = (self.answers >= 0).sum(dim=1)
        return torch.tensor(chosen, device=sizes.device).repeat_interleave(sizes)


Cut = tuple[int, list[Asked]]
"""A place where a block is read in parts, and what is asked there."""


def read_block(
    model: Decoder, tokens: Tensor, state: StreamState, cuts: Sequence[Cut], keep: bool
) -> tuple[Tensor, StreamState, list[Tensor]]:
    """Reads one block and, in side branches, the questions at places in it.

    A question is asked of a copy of the state: neither it nor its answer enters the row.

    Args:
        model: the decoder.
        tokens: [b, t] the block.
        state: at the block's beginning; used up.
        cuts: in the order of their places.
        keep: keep what the gradient needs; otherwise the block is read again for it.

    Returns:
        The latents of the block [b, t, d], the state after it, and for each ``Asked`` its latents [n, a, d].
    """

    def read(tokens: Tensor, state: StreamState) -> tuple[Tensor, StreamState, list[Tensor]]:
        latents, answers = [], []
        for (start, asked), (stop, _) in pairwise(((0, []), *cuts, (tokens.shape[1], []))):
            answers += [a.read(model, state.index(a.rows)) for a in asked]
            if stop > start:
                part, state = model.read(tokens[:, start:stop], state)
                latents.append(part)
        return torch.cat(latents, dim=1), state, answers

    if keep or not torch.is_grad_enabled():
        return read(tokens, state)
    if not model.config.memory.whole:
        _forget_block(state)
    result: tuple[Tensor, StreamState, list[Tensor]] = checkpoint(read, tokens, state, use_reentrant=False)
    return result


def _forget_block(state: StreamState) -> None:
    """Frees the keys and values of the finished block in ``state``, which the next block would write over."""
    for layer in state.layers:
        for name in {"block_keys", "block_values", "echo_keys", "echo_values"} & layer.keys():
            layer[name] = layer[name].new_zeros(()).expand(layer[name].shape)


def token_losses(model: Decoder, latents: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each target in nats, and whether it is the likeliest token: latents [n, d], targets [n] -> [n]."""

    def losses(latents: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = model.logits(latents)
        return F.cross_entropy(logits, targets, reduction="none"), logits.argmax(-1) == targets

    at_once = max(1, LOGITS_AT_ONCE // model.config.vocab_size)
    if len(targets) <= at_once:
        return losses(latents, targets)
    parts = zip(latents.split(at_once), targets.split(at_once), strict=True)
    scored = [checkpoint(losses, *part, use_reentrant=False) for part in parts]
    return torch.cat([nats for nats, _ in scored]), torch.cat([right for _, right in scored])
