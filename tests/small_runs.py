"""What runs are tested with: tokenizers that do not exist, decoders that answer by a rule, and a small real model."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from small_models import small_config, small_decoder
from torch import Tensor

from famcli.checkpoints.sources import LoadedModel
from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.evaluation.record import RunRecord
from famcli.task import Prompt


class WordTokenizer:
    """Words, spaces with the word that follows, and runs of one digit repeated: keys differ in their token counts."""

    name = "words"
    end_of_text: int | None = 0
    answer_ends = frozenset({0})
    text_start: int | None = 0
    prompt_start: tuple[int, ...] = ()
    chat_template = None
    seams = True

    def __init__(self) -> None:
        self.pieces = ["<end>"]
        self.calls = 0

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    def encode(self, text: str) -> list[int]:
        self.calls += 1
        return [self._id(match.group()) for match in re.finditer(r" ?[A-Za-z]+|([0-9])\1*|\s|.", text)]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.pieces[i] for i in ids if i)

    def _id(self, piece: str) -> int:
        if piece not in self.pieces:
            self.pieces.append(piece)
        return self.pieces.index(piece)


def prompt_ids(prompt: Prompt, tokenizer: Any) -> list[int]:
    """All token ids of a prompt."""
    return [
        int(token)
        for segment in prompt.segments
        for token in (tokenizer.encode(segment) if isinstance(segment, str) else segment)
    ]


class RuleDecoder:
    """Behaves like a ``Decoder`` whose next byte is ``rule(bytes read so far)``."""

    config = small_config("fam", vocab_size=257, block_size=64)

    def __init__(self, rule: Callable[[bytes], int]) -> None:
        self.rule = rule
        self.chunk_size, self.vocab_size, self.device = 64, 257, torch.device("cpu")
        self.receptive_field = self.longest_text = None
        self.parameters_count = 0
        self.description = self.identity = self.config.as_mapping()

    def state_bytes(self, tokens: int) -> int:
        return 8

    def start(self, batch: int) -> Any:
        return SimpleNamespace(texts=[b""] * batch, nbytes=8 * batch, tokens_read=0)

    def prefill(self, tokens: Tensor, state: Any) -> Any:
        texts = [text + bytes(row) for text, row in zip(state.texts, tokens.tolist(), strict=True)]
        return SimpleNamespace(texts=texts, nbytes=state.nbytes, tokens_read=state.tokens_read + tokens.shape[1])

    def read(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        tokens = tokens.clamp(max=255)
        state = self.prefill(tokens, state)
        latents = torch.zeros(len(tokens), tokens.shape[1], 257)
        for row, text in enumerate(state.texts):
            latents[row, -1, self.rule(text)] = 1.0
        return latents, state

    def logits(self, latents: Tensor) -> Tensor:
        return latents


def loaded(decoder: Any, name: str = "small") -> LoadedModel:
    """``decoder`` over bytes, as the registry would hand it out."""
    return LoadedModel(
        name=name,
        stream=decoder,
        tokenizer=ByteTokenizer(),
        weights_sha256="0" * 64,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def small_model(**fields: Any) -> LoadedModel:
    """A random decoder over bytes: it answers nonsense, a different one for every prompt."""
    config = small_config(**{"attention": "fam", "vocab_size": 257, "block_size": 32, **fields})
    decoder = small_decoder(config, torch.float32).eval()
    for name, weight in decoder.state_dict().items():
        if "q_proj" in name or "v_proj" in name:  # sharp attention: a few digits in hundreds of bytes must matter
            weight.mul_(4)
    return loaded(decoder)


def without_times(record: RunRecord) -> dict[str, Any]:
    """All of a record that must not depend on how the run was executed."""
    values = dict(vars(record))
    for name in ("path", "started", "finished"):
        del values[name]
    timed = ("seconds", "tokens_per_second", "seconds_to_first_answer", "peak_memory_bytes")
    return {**values, "cost": {name: value for name, value in record.cost.items() if name not in timed}}


def journal_without_times(path: Path) -> list[dict[str, Any]]:
    """The lines of a journal by sample id, without what depends on how the run was executed."""
    import json

    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        del line["seconds"], line["first_answer_seconds"], line["peak_memory_bytes"]
    return sorted(lines, key=lambda line: str(line["id"]))
