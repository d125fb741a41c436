"""Ages a memory without reading: the last block's keys and values update the FAM again and again.

What is to be learned is counted in updates, and a block costs as many tokens as it is long. A layer's FAM depends on
the tokens only through that layer's keys and values; for filler these are nearly the same from block to block. An
update by those of the last block costs what F tokens cost, a fraction F / B of reading another, and gradient flows
through all of them. Where the FAM keeps much of itself (``fam_scale``), many small updates come to the same as few
large ones (``Decoder.update_again``, ``stride``): two thousand are rehearsed by sixty-four.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from famcli.models.decoder import Decoder
from famcli.models.state import StreamState

CARRY_AGED = 0.5
"""Probability that a rehearsed FAM is what the rows go on with."""

FEWEST = 16
"""As many updates as this are never taken together."""

LONGEST_STRIDE = 32
"""Most updates taken together; as a share of ``fam_scale`` it is still small enough that recall is the same."""


@dataclass(frozen=True)
class Noise:
    """Normal noise, drawn for all rows of a batch: what a row gets does not depend on which process reads it.

    Attributes:
        generator: on the CPU.
        rows: of the batch.
        places: those of them that a state here holds.
    """

    generator: torch.Generator
    rows: int
    places: list[int]

    def like(self, tensor: Tensor) -> Tensor:
        """Noise for a tensor of the state, [places, ...]."""
        return torch.randn((self.rows, *tensor.shape[1:]), generator=self.generator)[self.places].to(tensor)


def draw_updates(rng: np.random.Generator, most: int, fewest: int = 1) -> int:
    """A number of updates from ``fewest`` to ``most``, its logarithm uniform."""
    return round(math.exp(rng.uniform(math.log(fewest), math.log(most))))


def rehearse(model: Decoder, state: StreamState, updates: int, scale: float = 0.0, noise: Noise | None = None) -> None:
    """Ages the FAM in ``state``, which must stand at the end of a block that was read in several parts.

    Args:
        model: the decoder.
        state: changed in place.
        updates: how often the FAM is updated.
        scale: deviation of the noise after each, relative to the FAM's root mean square.
        noise: where ``scale`` is not 0.
    """
    for stride in strides(model, updates):
        model.update_again(state, stride)
        if scale:
            assert noise is not None
            add_noise(model, state, scale * stride**0.5, noise)


def strides(model: Decoder, updates: int) -> list[float]:
    """How many updates are taken at once, in turn: they add up to ``updates``."""
    longest = min(LONGEST_STRIDE, model.config.memory.longest_stride())
    count = min(updates, max(FEWEST, math.ceil(updates / max(1, longest))))
    return [updates / count] * count if updates else []


def add_noise(model: Decoder, state: StreamState, scale: float, noise: Noise) -> None:
    """Gaussian noise on the FAM in ``state``: what is stored must be found again from near it.

    Args:
        model: the decoder.
        state: changed in place.
        scale: deviation relative to the root mean square of each latent.
        noise: what is added.
    """
    model.carry(state, [_with_noise(memory, scale, noise) for memory in model.carried(state)])


def _with_noise(fam: Tensor, scale: float, noise: Noise) -> Tensor:
    spread = fam.detach().square().mean(dim=-1, keepdim=True).sqrt()
    return fam + scale * spread * noise.like(fam)
