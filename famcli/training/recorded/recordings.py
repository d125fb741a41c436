"""Keys of blocks as the model reads them, recorded once: all that the gate of a FAM sees of a text.

Tokens are read by the frozen base, whatever the gate. So blocks are read once, and a step of training only scores them.
What the gate should keep is in sight of the blocks after it, as it is where a trained gate has kept it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from famcli.errors import UserError
from famcli.files import save_tensors
from famcli.models.decoder import Decoder
from famcli.models.memories.base import Block
from famcli.models.memories.gated_fam import GatedFam
from famcli.models.state import StreamState
from famcli.training.recorded.recipe import Streams
from famcli.training.recorded.texts import BLOCKS, TOLD, Text, Texts


@dataclass(frozen=True)
class Recordings:
    """Texts of ``BLOCKS`` blocks as they were read. Shapes: ``l`` layers, ``n`` texts.

    Attributes:
        block_size: B
        texts: [n]
        keys: [l, n BLOCKS, g, B, k] of the blocks, text after text, not turned to their positions.
    """

    block_size: int
    texts: list[Text]
    keys: Tensor

    def save(self, path: Path) -> None:
        """Writes the recordings, whole or not at all."""
        about = {"block_size": str(self.block_size), "texts": json.dumps([vars(text) for text in self.texts])}
        save_tensors({"keys": self.keys}, path, about)

    @classmethod
    def load(cls, path: Path) -> Recordings:
        """Reads what ``save`` wrote; raises ``UserError`` where it is damaged."""
        try:
            return cls._load(path)
        except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
            raise UserError(
                f"{path} is damaged: {error}", "delete the file, and type the same command again"
            ) from error

    @classmethod
    def _load(cls, path: Path) -> Recordings:
        with safe_open(path, framework="pt") as file:
            about = file.metadata()
            keys = file.get_tensor("keys")
        return cls(int(about["block_size"]), [Text(**fields) for fields in json.loads(about["texts"])], keys)

    def worth(self) -> Tensor:
        """[n BLOCKS, B] which tokens are worth keeping: those of a key."""
        return worth_of(self.texts, self.block_size).flatten(0, 1)


def worth_of(texts: list[Text], block_size: int) -> Tensor:
    """[n, BLOCKS, B] which tokens are of a key."""
    worth = torch.zeros(len(texts), BLOCKS * block_size, dtype=torch.bool)
    for row, text in enumerate(texts):
        worth[row, [place for place in text.places if place < worth.shape[1]]] = True
    return worth.unflatten(1, (BLOCKS, block_size))


def record(model: Decoder, texts: Texts, streams: Streams, seed: int, stored: torch.dtype | None = None) -> Recordings:
    """Reads texts and keeps what their blocks' tokens have for keys.

    Args:
        model: of the block size of ``streams``, with a gate that keeps nothing yet.
        texts: draws them.
        streams: how many.
        seed: draws the texts.
        stored: dtype of the recordings; that of the weights where it is left out.

    Raises:
        UserError: the texts are too few for every way of telling a key, or do not fit their blocks.
    """
    rng = np.random.default_rng((seed, streams.block_size))
    drawn = [texts.draw(rng, streams.block_size) for _ in range(streams.streams)]
    if missing := set(TOLD) - {text.told for text in drawn}:
        raise UserError(
            f"of {streams.streams} texts of {streams.block_size}-token blocks none tells its key '{min(missing)}'",
            "give the recordings more streams, 40 or more",
        )
    parts = [
        _read(model, drawn[i : i + streams.at_once], stored or model.embedding.weight.dtype)
        for i in range(0, len(drawn), streams.at_once)
    ]
    return Recordings(streams.block_size, drawn, torch.cat(parts, dim=1))


@torch.no_grad()
def _read(model: Decoder, texts: list[Text], stored: torch.dtype) -> Tensor:
    """[l, n BLOCKS, g, B, k] the keys of a batch of texts."""
    size, memory = model.config.block_size, model.config.memory
    assert isinstance(memory, GatedFam)
    worth = worth_of(texts, size)
    state = model.start(len(texts))
    tokens = torch.tensor([text.ids for text in texts], device=model.device)
    read: list[list[Tensor]] = []
    for block, ids in enumerate(tokens.split(size, dim=1)):
        for part in ids.tensor_split(2, dim=1):  # in parts: their keys stay in the state
            state = model.prefill(part, state)
        read.append(_keep(model, memory, state, worth[:, block], stored))
    return torch.stack([torch.stack(some, dim=1).flatten(0, 1) for some in zip(*read, strict=True)])


def _keep(model: Decoder, memory: GatedFam, state: StreamState, worth: Tensor, stored: torch.dtype) -> list[Tensor]:
    """Keeps what is ``worth`` it of the block just read, in ``state``; gives the block's keys in each layer."""
    keys = []
    for number, layer in enumerate(state.layers):
        at = model.whole_block(number, 1)
        layer |= memory.write_again(Block(layer["block_keys"], layer["block_values"]), layer, model.layer(number), at)
        keys.append(layer["fam_new"].chunk(2, dim=1)[0].to("cpu", stored))
    memory.keep(model, state.layers, memory.around(worth).to(model.device))
    return keys
