"""Answers a batch of requests: prompts are streamed in chunks, answers decoded greedily or options weighed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from famcli.errors import UserError
from famcli.evaluation.prompts import PromptTokens
from famcli.evaluation.stream import Prefix, to_device
from famcli.task import Choose, Chosen, Generate, Generated

if TYPE_CHECKING:
    from famcli.checkpoints.tokenizer import Tokenizer
    from famcli.models.stream import State, StreamModel


@dataclass(frozen=True)
class Reply:
    """An answer, and what it was given to.

    Attributes:
        answer: it.
        prompt_sha256: of the prompt's token ids as little-endian 64-bit integers.
        prompt_tokens: number of tokens in the prompt.
        state_bytes: memory of this one stream's state when the prompt has been read.
    """

    answer: Generated | Chosen
    prompt_sha256: str
    prompt_tokens: int
    state_bytes: int


@torch.no_grad()  # not inference mode: what the decoder keeps from here on must stay usable in training
def answer_batch(
    model: StreamModel[Any],
    tokenizer: Tokenizer,
    requests: Sequence[Generate | Choose],
    prompts: Sequence[PromptTokens],
    prefix: Prefix | None,
    advance: Callable[[int], None],
) -> list[Reply]:
    """Answers requests of one kind whose prompts are equally long, as one batch.

    Generation is greedy: the most likely token of the tokenizer's vocabulary, of equals the lowest id, until the
    budget, a stop string or one of the tokenizer's ``answer_ends``. Memory does not grow with the prompt.

    Args:
        model: the model; inputs go to its device.
        tokenizer: the model's.
        requests: one a row.
        prompts: one a row; what follows the ``prefix``.
        prefix: a document that all prompts begin with, and that has been read.
        advance: called with the number of tokens after each chunk.

    Raises:
        UserError: the tokenizer gives tokens that the model lacks, or the model gives no numbers.
        ValueError: the prompts differ in length, or are empty, or the requests are of both kinds.
    """
    length, rows, before = len(prompts[0]), len(requests), prefix.tokens if prefix else 0
    if not length or any(len(prompt) != length for prompt in prompts):
        raise ValueError(f"a batch needs prompts of one length, not {sorted({len(p) for p in prompts})} tokens")
    state = prefix.state.index([0] * rows) if prefix else model.start(rows)
    for start, stop in _chunks(before, length - 1, model.chunk_size):
        tokens = _stack(prompts, start, stop, model)
        state = model.prefill(tokens, state)
        advance(tokens.numel())
    last = _stack(prompts, length - 1, length, model)
    advance(rows)
    size = state.nbytes // rows
    generate = [request for request in requests if isinstance(request, Generate)]
    choose = [request for request in requests if isinstance(request, Choose)]
    if generate and choose:
        raise ValueError("a batch needs requests of one kind")
    answers: list[Generated | Chosen] = []
    if generate:
        answers += _decode(model, tokenizer, generate, last, state)
    else:
        answers += _weigh(model, [prompt.options for prompt in prompts], last, state, advance)
    return [
        Reply(answer, prompt.sha256, before + length, size) for answer, prompt in zip(answers, prompts, strict=True)
    ]


def _chunks(before: int, length: int, block_size: int) -> list[tuple[int, int]]:
    """Bounds of the chunks of ``length`` tokens that follow ``before`` others, cut where blocks end."""
    bounds = [0, *range(-before % block_size or block_size, length, block_size), length]
    return [(start, stop) for start, stop in pairwise(bounds) if start < stop]


def _stack(prompts: Sequence[PromptTokens], start: int, stop: int, model: StreamModel[Any]) -> Tensor:
    return to_device(np.stack([prompt.take(start, stop) for prompt in prompts]), model)


def _decode(
    model: StreamModel[Any], tokenizer: Tokenizer, requests: Sequence[Generate], tokens: Tensor, state: State
) -> list[Generated]:
    """Decodes after ``tokens`` [b, 1]. Rows that are done are read on beside the others: rows do not meet."""
    growing = [_GrowingAnswer(request, tokenizer) for request in requests]
    while True:
        latents, state = model.read(tokens, state)
        scores = _numbers(model.logits(latents[:, -1]))[:, : tokenizer.vocab_size]
        chosen = scores.argmax(dim=-1)
        for answer, token in zip(growing, chosen.tolist(), strict=True):
            answer.add(token)
        if all(answer.done for answer in growing):
            return [answer.generated() for answer in growing]
        tokens = chosen[:, None]


def _weigh(
    model: StreamModel[Any],
    options: Sequence[Sequence[Sequence[int]]],
    tokens: Tensor,
    state: State,
    advance: Callable[[int], None],
) -> list[Chosen]:
    """Log-likelihoods of each row's options after ``tokens`` [b, 1]; options of one length are read together."""
    latents, state = model.read(tokens, state)
    first = _numbers(model.logits(latents[:, -1])).float().log_softmax(-1)
    found: dict[tuple[int, int], float] = {}
    by_length: dict[int, list[tuple[int, int]]] = {}
    for row, choices in enumerate(options):
        for i, option in enumerate(choices):
            by_length.setdefault(len(option), []).append((row, i))
    for pairs in by_length.values():
        for start in range(0, len(pairs), len(options)):
            some = pairs[start : start + len(options)]
            ids = torch.tensor([options[row][i] for row, i in some], device=first.device)
            values = _option_likelihoods(model, ids, first[[row for row, _ in some]], state, [row for row, _ in some])
            found.update(zip(some, values, strict=True))
            advance(ids.numel())
    return [
        Chosen(tuple(found[row, i] for i in range(len(choices))), tuple(map(len, choices)))
        for row, choices in enumerate(options)
    ]


def _option_likelihoods(
    model: StreamModel[Any], ids: Tensor, first: Tensor, state: State, rows: list[int]
) -> list[float]:
    """Sums over the tokens of options ``ids`` [n, t], read on from ``rows`` of ``state``; ``first`` [n, v] is known."""
    likelihoods = first.gather(1, ids[:, :1])
    if ids.shape[1] > 1:
        latents, _ = model.read(ids[:, :-1], state.index(rows))
        later = _numbers(model.logits(latents)).float().log_softmax(-1)
        likelihoods = torch.cat((likelihoods, later.gather(2, ids[:, 1:, None])[..., 0]), dim=1)
    sums: list[float] = likelihoods.double().sum(1).tolist()
    return sums


def _numbers(logits: Tensor) -> Tensor:
    """Logits as they are; a broken model must not pass for one that forgets everything.

    Raises:
        UserError: some are not numbers.
    """
    if bool(logits.isnan().any()):
        raise UserError(
            "the model gives NaN where it should give the likelihood of a token",
            "its weights are broken; or too large for --dtype bfloat16: try --dtype float32",
        )
    return logits


class _GrowingAnswer:
    """The answer of one stream while it grows."""

    def __init__(self, request: Generate, tokenizer: Tokenizer) -> None:
        self.request = request
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        self.done = False

    def add(self, token: int) -> None:
        if self.done:
            return
        if token in self.tokenizer.answer_ends:
            self.done = True
            return
        self.ids.append(token)
        self.done = len(self.ids) >= self.request.max_new_tokens or self._stop() is not None

    def generated(self) -> Generated:
        return Generated(self.tokenizer.decode(self.ids)[: self._stop()], tuple(self.ids))

    def _stop(self) -> int | None:
        """Where in the text the first stop string begins."""
        if not self.request.stop:
            return None
        text = self.tokenizer.decode(self.ids)
        places = [text.find(stop) for stop in self.request.stop]
        return min((place for place in places if place >= 0), default=None)
