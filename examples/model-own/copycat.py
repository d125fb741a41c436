"""A model for famcli: it predicts the byte that followed the last time it read the same bytes as now.

It has no weights, and learns nothing but the text it reads. A table remembers, for the last 1, 3, 6 and 12 bytes, what
came next; the longest bytes that the table knows decide. The table has a fixed size, so the state does not grow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from famcli.checkpoints.sources import PluginSource
from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError
from famcli.fields import parse_value
from famcli.models.state import StreamState

VOCABULARY = ByteTokenizer.vocab_size
NOTHING = VOCABULARY  # stands before the text
HASH_BITS = 48


class Copycat:
    """A ``StreamModel``. Its state: ``recent`` [b, longest] the last tokens; ``table`` [b, lengths, slots] int64.

    An entry of the table stands at the place ``hash % slots`` of the tokens before it, and is
    ``hash // slots * VOCABULARY + next token``; -1 where there is none.
    """

    chunk_size = 4096
    vocab_size = VOCABULARY
    device = torch.device("cpu")
    receptive_field: int | None = None
    longest_text: int | None = None
    parameters_count = 0

    def __init__(self, longest: int, slots: int) -> None:
        self.longest, self.slots = longest, slots
        self.lengths = [longest]
        while self.lengths[0] > 1:
            self.lengths.insert(0, self.lengths[0] // 2)
        self.factors = np.array([pow(1_000_003, i, 2**HASH_BITS) for i in range(longest)], np.int64)
        self.description: Mapping[str, Any] = {"longest": longest, "slots": slots}
        self.identity = self.description

    def start(self, batch: int) -> StreamState:
        recent = torch.full((batch, self.longest), NOTHING)
        table = torch.full((batch, len(self.lengths), self.slots), -1)
        return StreamState([{"recent": recent, "table": table}], tokens_read=0)

    def prefill(self, tokens: Tensor, state: StreamState) -> StreamState:
        return self.read(tokens, state, output=False)[1]

    def read(self, tokens: Tensor, state: StreamState, output: bool = True) -> tuple[Tensor, StreamState]:
        """The latents are [b, t, 2]: the token predicted, and how many tokens before it the table knew."""
        layer = state.layers[0]
        text = torch.cat((layer["recent"], tokens), dim=1)
        found = torch.zeros(*tokens.shape, 2)
        for row, new in enumerate(tokens.numpy()):
            table, hashes = layer["table"][row].numpy(), self._hashes(text[row].numpy())
            steps = [slice(i, i + 1) for i in range(len(new))] if output else [slice(0, len(new))]
            for step in steps:
                for of_length, known in zip(hashes, table, strict=True):
                    known[of_length[step] % self.slots] = of_length[step] // self.slots * VOCABULARY + new[step]
                if output:
                    found[row, step.start] = torch.tensor(self._predict(hashes[:, step.stop], table))
        layer["recent"] = text[:, -self.longest :].clone()
        return found, StreamState([layer], state.tokens_read + tokens.shape[1])

    def logits(self, latents: Tensor) -> Tensor:
        """The longer the match, the surer: its odds are 4 to the power of its length, at most e to the 20."""
        token, length = latents[..., :1].long(), latents[..., 1:]
        sure = (length * np.log(4)).clamp(max=20)
        return torch.zeros(*latents.shape[:-1], VOCABULARY).scatter(-1, token, sure)

    def state_bytes(self, tokens: int) -> int:
        return self.start(1).nbytes

    def load_state(self, path: Path) -> tuple[StreamState, dict[str, str], dict[str, Tensor]]:
        state, texts, tensors = StreamState.load_with(path)
        if state.index([0]).nbytes != self.state_bytes(0):
            raise UserError(f"{path} is the state of another model")
        return state, texts, tensors

    def _hashes(self, text: NDArray[np.int64]) -> NDArray[np.int64]:
        """[lengths, t + 1] of what stands before each of the t new tokens of ``text`` [longest + t], and of its end."""
        windows = sliding_window_view(text, self.longest)
        sums = [(windows[:, -length:] + 1) @ self.factors[:length] for length in self.lengths]
        hashes: NDArray[np.int64] = np.stack(sums) % 2**HASH_BITS
        return hashes

    def _predict(self, hashes: NDArray[np.int64], table: NDArray[np.int64]) -> tuple[int, int]:
        for length, hash_, known in reversed(list(zip(self.lengths, hashes.tolist(), table, strict=True))):
            key, token = divmod(int(known[hash_ % self.slots]), VOCABULARY)
            if key == hash_ // self.slots:
                return token, length
        return 0, 0


def find(argument: str, fields: Mapping[str, str]) -> PluginSource:
    """``--model copycat:12,slots=65536``: the longest match in bytes, and entries of the table for each length."""
    where = "model copycat"
    if unknown := fields.keys() - {"slots"}:
        raise UserError(f"{where} has no field '{min(unknown)}'", "for example: --model copycat:12,slots=65536")
    longest = parse_value(argument or "12", int, "longest", where, text=True)
    slots = parse_value(fields.get("slots", "65536"), int, "slots", where, text=True)
    if longest < 1 or slots < 1:
        raise UserError(f"{where}: the longest match and slots must be at least 1")
    return PluginSource(
        tokenizer=ByteTokenizer(),
        build=lambda device, dtype: Copycat(longest, slots),
        weights_sha256=hashlib.sha256(b"no weights").hexdigest(),
    )
