"""What a memory begins every text with, worked out once for weights that stay as they are."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from itertools import chain
from typing import Protocol

import torch
from torch import Tensor, nn

from famcli.models.config import ModelConfig
from famcli.models.int8 import pattern
from famcli.models.memories.base import Memory
from famcli.models.memories.network import DecoderView
from famcli.models.state import LayerState


class Network(DecoderView, Protocol):
    """What a beginning depends on, see ``Decoder``."""

    config: ModelConfig
    position_offset: int
    training: bool
    embedding: nn.Embedding

    @property
    def device(self) -> torch.device: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def buffers(self) -> Iterator[Tensor]: ...


class Beginning:
    """Completes new states as ``Memory.begin`` does, and keeps what that gave: all streams of a model begin alike.

    A FAM's summary embeddings pass all layers at every start (appendix B.1), and so few rows take as long as some fifty
    tokens of the text. What is kept is used without a gradient and in evaluation mode alone. Weights that have changed
    are noticed by what PyTorch counts of writes into them; writes through ``.data`` are not counted.
    """

    def __init__(self) -> None:
        self._weights: list[tuple[weakref.ref[Tensor], int, int]] = []
        self._place: object = None
        self._kept: list[LayerState] | None = None

    def complete(self, decoder: Network, layers: list[LayerState], batch: int) -> None:
        """Completes what ``Memory.start`` gave for ``batch`` streams, in place."""
        memory = decoder.config.memory
        if type(memory).begin is Memory.begin:
            return
        if not self._may_keep(decoder):
            memory.begin(decoder, layers)
            return
        if self._kept is None or not self._still(decoder):
            self._kept = _begun(decoder)
            self._place = _place(decoder)
            self._weights = [(weakref.ref(weight), weight._version, weight.data_ptr()) for weight in _weights(decoder)]
        for layer, kept in zip(layers, self._kept, strict=True):
            layer |= {name: tensor.repeat(batch, *[1] * (tensor.dim() - 1)) for name, tensor in kept.items()}

    @staticmethod
    def _may_keep(decoder: Network) -> bool:
        if decoder.training or torch.is_grad_enabled() or decoder.device.type == "meta":  # an outline has no values
            return False
        counted = not any(weight.is_inference() for weight in _weights(decoder))
        return counted and not torch.is_autocast_enabled(decoder.device.type)

    def _still(self, decoder: Network) -> bool:
        """The weights and places are those of what is kept."""
        weights = _weights(decoder)
        return (
            self._place == _place(decoder)
            and len(weights) == len(self._weights)
            and all(
                known() is weight and (version, pointer) == (weight._version, weight.data_ptr())
                for weight, (known, version, pointer) in zip(weights, self._weights, strict=True)
            )
        )


def _weights(decoder: Network) -> list[Tensor]:
    return list(chain(decoder.parameters(), decoder.buffers()))


def _place(decoder: Network) -> object:
    return decoder.config, decoder.position_offset


def _begun(decoder: Network) -> list[LayerState]:
    """What ``Memory.begin`` changes in the state of each layer, for one stream."""
    config, memory, like = decoder.config, decoder.config.memory, pattern(decoder.embedding)
    plain = memory.start(config, 1, like)
    layers = [memory.start(config, 1, like) for _ in range(config.layers)]
    memory.begin(decoder, layers)
    return [{n: t for n, t in layer.items() if n not in plain or not _alike(t, plain[n])} for layer in layers]


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one.to(other.device), other)
