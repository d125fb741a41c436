"""Answers a batch of requests: prompts are streamed in chunks, answers decoded greedily."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from famcli.models.decoder import Decoder
from famcli.models.state import StreamState
from famcli.models.tokenizer import Tokenizer
from famcli.task import Generate, Generated, Prompt


@dataclass(frozen=True)
class Answer:
    """What a request gave.

    Attributes:
        generated: the answer.
        prompt_sha256: of the prompt's token ids as little-endian 64-bit integers.
        prompt_tokens: number of tokens in the prompt.
        state_bytes: memory of this one stream's state when the prompt has been read.
    """

    generated: Generated
    prompt_sha256: str
    prompt_tokens: int
    state_bytes: int


class PromptTokens:
    """The token ids of a prompt, handed out in chunks: its segments are never joined."""

    def __init__(self, prompt: Prompt, tokenizer: Tokenizer) -> None:
        self.parts: list[NDArray[np.int64]] = [
            np.asarray(tokenizer.encode(segment) if isinstance(segment, str) else segment, dtype=np.int64)
            for segment in prompt.segments
        ]
        self.ends = np.cumsum([len(part) for part in self.parts])
        self._hash = hashlib.sha256()

    def __len__(self) -> int:
        return int(self.ends[-1]) if self.parts else 0

    def take(self, start: int, stop: int) -> NDArray[np.int64]:
        """Token ids ``start`` .. ``stop - 1``; call it once for every token, in order, as it feeds ``sha256``."""
        taken = []
        for part, end in zip(self.parts, self.ends, strict=True):
            first = end - len(part)
            if first < stop and start < end:
                taken.append(part[max(start - first, 0) : stop - first])
        ids = np.concatenate(taken)
        self._hash.update(ids.astype("<i8").tobytes())
        return ids

    @property
    def sha256(self) -> str:
        """Hex digest of all that was taken."""
        return self._hash.hexdigest()


@torch.no_grad()  # not inference mode: what the decoder keeps from here on must stay usable in training
def generate(
    decoder: Decoder, tokenizer: Tokenizer, requests: Sequence[Generate], advance: Callable[[int], None]
) -> list[Answer]:
    """Answers requests whose prompts are equally long, as one batch.

    Greedy decoding: the most likely token of the tokenizer's vocabulary, of equals the lowest id, until the budget, a
    stop string or the tokenizer's ``end_of_text``, if it has one. Memory does not grow with the prompt.

    Args:
        decoder: the model; inputs go to the device of its weights.
        tokenizer: the model's.
        requests: one a row.
        advance: told the number of prompt tokens after each chunk.

    Raises:
        ValueError: the prompts differ in length, or are empty.
    """
    prompts = [PromptTokens(request.prompt, tokenizer) for request in requests]
    length = len(prompts[0])
    if not length or any(len(prompt) != length for prompt in prompts):
        raise ValueError(f"a batch needs prompts of one length, not {sorted({len(p) for p in prompts})} tokens")
    state = decoder.start(len(requests))
    for tokens in _chunks(prompts, length - 1, decoder):
        state = decoder.prefill(tokens, state)
        advance(tokens.numel())
    last = _stack(prompts, length - 1, length, decoder)
    advance(len(requests))
    size = state.nbytes // len(requests)
    rows = _decode(decoder, tokenizer, requests, last, state)
    return [Answer(row.generated(), prompt.sha256, length, size) for row, prompt in zip(rows, prompts, strict=True)]


def _chunks(prompts: Sequence[PromptTokens], length: int, decoder: Decoder) -> Iterator[Tensor]:
    """The first ``length`` tokens of all prompts [b, t], a block at a time."""
    size = decoder.config.block_size
    for start in range(0, length, size):
        yield _stack(prompts, start, min(start + size, length), decoder)


def _stack(prompts: Sequence[PromptTokens], start: int, stop: int, decoder: Decoder) -> Tensor:
    ids = np.stack([prompt.take(start, stop) for prompt in prompts])
    return torch.from_numpy(ids).to(decoder.embedding.weight.device)


def _decode(
    decoder: Decoder, tokenizer: Tokenizer, requests: Sequence[Generate], tokens: Tensor, state: StreamState
) -> list[_Row]:
    """Decodes after ``tokens`` [b, 1]. Rows that are done are read on beside the others: rows do not meet."""
    rows = [_Row(request, tokenizer) for request in requests]
    while True:
        latents, state = decoder.read(tokens, state)
        scores = decoder.logits(latents[:, -1])[:, : tokenizer.vocab_size]
        chosen = scores.argmax(dim=-1)
        for row, token in zip(rows, chosen.tolist(), strict=True):
            row.add(token)
        if all(row.done for row in rows):
            return rows
        tokens = chosen[:, None]


class _Row:
    """The answer of one stream while it grows."""

    def __init__(self, request: Generate, tokenizer: Tokenizer) -> None:
        self.request = request
        self.tokenizer = tokenizer
        self.end_of_text: int | None = getattr(tokenizer, "end_of_text", None)
        self.ids: list[int] = []
        self.done = False

    def add(self, token: int) -> None:
        if self.done:
            return
        if token == self.end_of_text:
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
