"""Ages a memory without reading: the last block's keys and values update the FAM again and again.

What is to be learned is counted in updates, and a block costs as many tokens as it is long. A layer's FAM depends on
the tokens only through that layer's keys and values; for filler these are nearly the same from block to block. An
update by those of the last block costs what F tokens cost, a fraction F / B of reading another, and gradient flows
through all of them.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from famcli.models.decoder import Decoder
from famcli.models.state import StreamState
from famcli.training.noise import with_noise


def draw_updates(rng: np.random.Generator, most: int) -> int:
    """A number of updates from 1 to ``most``, its logarithm uniform."""
    return round(math.exp(rng.uniform(0, math.log(most))))


def rehearse(model: Decoder, state: StreamState, updates: int, noise: float, generator: torch.Generator) -> None:
    """Ages the FAM in ``state``, which must stand at the end of a block that was read in several parts.

    Args:
        model: the decoder.
        state: changed in place.
        updates: how often the FAM is updated.
        noise: deviation of the noise after each, relative to the FAM's root mean square.
        generator: draws the noise.
    """
    for _ in range(updates):
        model.update_again(state)
        if noise:
            model.set_fam(state, [with_noise(layer.fam, noise, generator) for layer in state.layers])
