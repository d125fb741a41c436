"""Keys and values of blocks as the model reads them, recorded once: what the FAM's updates see of a text.

A layer's FAM depends on a text through that layer's keys and values alone, and tokens are read by the frozen base. So
blocks are read once, and a step of training only updates FAMs.

What the tokens see of a FAM is recorded with them: nothing until a key was told, and then what the FAM should hold, the
keys and values of what was told.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from famcli.errors import UserError
from famcli.files import save_tensors
from famcli.models.attention import Geometry, rotate
from famcli.models.decoder import Decoder
from famcli.models.memories.gated_fam import GatedFam
from famcli.models.state import StreamState
from famcli.training.recorded.recipe import Streams
from famcli.training.recorded.texts import BLOCKS, TOLD, Text, Texts


@dataclass(frozen=True)
class Recordings:
    """Texts of ``BLOCKS`` blocks as they were read. Shapes: ``l`` layers, ``n`` texts, ``a`` slots of a group.

    Attributes:
        block_size: B
        texts: [n]
        blocks: [l, n BLOCKS, 2 g, B, k] keys and values of the blocks, text after text.
        sinks: [l, n, 2 g, 1, k] of the sinks as later blocks see them.
        targets: [l, n, 2 g, a, k] of what the slots are to hold, keys turned to the positions of the last group; zeros
            where a key is shorter, and where none is told.
    """

    block_size: int
    texts: list[Text]
    blocks: Tensor
    sinks: Tensor
    targets: Tensor

    def save(self, path: Path) -> None:
        """Writes the recordings, whole or not at all."""
        about = {"block_size": str(self.block_size), "texts": json.dumps([vars(text) for text in self.texts])}
        save_tensors({name: getattr(self, name) for name in ("blocks", "sinks", "targets")}, path, about)

    @classmethod
    def load(cls, path: Path) -> Recordings:
        """Reads what ``save`` wrote; raises ``UserError`` where it is damaged."""
        try:
            return cls._load(path)
        except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
            raise UserError(
                f"{path} is damaged: {error}", "delete the file, and type the same command with --resume"
            ) from error

    @classmethod
    def _load(cls, path: Path) -> Recordings:
        with safe_open(path, framework="pt") as file:
            about = file.metadata()
            tensors = [file.get_tensor(name) for name in ("blocks", "sinks", "targets")]
        return cls(int(about["block_size"]), [Text(**fields) for fields in json.loads(about["texts"])], *tensors)

    @cached_property
    def spreads(self) -> Tensor:
        """[l, 2] variance of the targets around their mean, of keys and of values."""
        told = self.targets.abs().sum((2, 4)) > 0
        return torch.tensor(
            [
                [part.transpose(1, 2)[there].float().var(dim=0).mean().item() for part in layer.chunk(2, dim=1)]
                for layer, there in zip(self.targets, told, strict=True)
            ]
        )

    def told(self, *where: str) -> Tensor:
        """[m] numbers of the texts that tell their key ``where``."""
        return torch.tensor([i for i, text in enumerate(self.texts) if text.told in where])


def record(model: Decoder, texts: Texts, streams: Streams, seed: int, stored: torch.dtype | None = None) -> Recordings:
    """Reads texts and keeps what their blocks' tokens have for keys and values.

    Args:
        model: of the block size of ``streams``.
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
        _Reading(model, drawn[i : i + streams.at_once]).run(stored or model.embedding.weight.dtype)
        for i in range(0, len(drawn), streams.at_once)
    ]
    blocks, sinks, targets = (torch.cat(some, dim=1) for some in zip(*parts, strict=True))
    return Recordings(streams.block_size, drawn, blocks, sinks, targets)


class _Reading:
    """A batch of texts while they are read."""

    def __init__(self, model: Decoder, texts: list[Text]) -> None:
        self.model, self.texts = model, texts
        memory, config = model.config.memory, model.config
        assert isinstance(memory, GatedFam)
        self.group = memory.fam_group
        size = (len(texts), 2 * config.kv_heads, self.group, config.head_width)
        self.targets = [model.embedding.weight.new_zeros(size) for _ in range(config.layers)]

    @torch.no_grad()
    def run(self, stored: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        model, size = self.model, self.model.config.block_size
        state = model.start(len(self.texts))
        tokens = torch.tensor([text.ids for text in self.texts])
        read: list[list[Tensor]] = []
        for block in range(BLOCKS):
            middle = (block * size) + size // 2
            state = model.prefill(tokens[:, block * size : middle], state)
            state = model.prefill(tokens[:, middle : (block + 1) * size], state)  # in parts: they stay in the state
            read.append([_joined(layer, "block").to(stored) for layer in state.layers])
            self._find_targets(block, state)
            self._teach(block, state)
        blocks = torch.stack([torch.stack(some, dim=1).flatten(0, 1) for some in zip(*read, strict=True)])
        sinks = torch.stack([_joined(layer, "sink").to(stored) for layer in state.layers])
        return blocks, sinks, torch.stack(self.targets).to(stored)

    def _find_targets(self, block: int, state: StreamState) -> None:
        """Takes the keys and values of what is to be held where it first stands, if that is in this block."""
        size = self.model.config.block_size
        found = [
            (row, j, first - block * size)
            for row, text in enumerate(self.texts)
            for j, (first, *_) in enumerate(text.places)
            if first // size == block
        ]
        if not found:
            return
        rows, slots, places = torch.tensor(found).T
        for number, layer in enumerate(state.layers):
            keys, values = layer["block_keys"][rows, :, places], layer["block_values"][rows, :, places]
            turned = _turned(self.model.place(number), keys, slots - self.group - places)
            self.targets[number][rows, :, slots] = torch.cat((turned, values), dim=1).to(self.targets[number])

    def _teach(self, block: int, state: StreamState) -> None:
        """Puts the FAM in ``state`` to what it should be after ``block``."""
        size, group = self.model.config.block_size, self.group
        held = torch.tensor(
            [
                [j < len(text.places) and text.places[j][0] < (block + 1) * size for j in range(group)]
                for text in self.texts
            ]
        )
        for number, layer in enumerate(state.layers):
            keys, values = self.targets[number].chunk(2, dim=1)
            filled = torch.zeros_like(layer["fam_filled"])
            filled[:, -group:] = held
            layer["fam_filled"] = filled
            for name, target in (("fam_keys", keys), ("fam_values", values)):
                layer[name] = torch.cat((layer[name][:, :, :-group], target.to(layer[name])), dim=2)


def _turned(at: Geometry, keys: Tensor, by: Tensor) -> Tensor:
    """Keys [m, g, k] that were turned to their positions, each turned ``by`` [m] positions further."""
    cos, sin = at.rotary.of(by, at.like)
    return rotate(keys, (cos[:, None], sin[:, None]))


def _joined(layer: dict[str, Tensor], name: str) -> Tensor:
    """Keys and values of a part of the state: [b, 2 g, n, k]."""
    return torch.cat((layer[f"{name}_keys"], layer[f"{name}_values"]), dim=1)
