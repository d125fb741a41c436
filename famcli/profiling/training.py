"""The memory that forward and backward take over a number of blocks, through which gradients flow back."""

from __future__ import annotations

import torch

from famcli.checkpoints.sources import LoadedModel
from famcli.machine.peak import PeakMemory
from famcli.profiling.tokens import Tokens
from famcli.training.reading import read_block, token_losses


def training_peak(model: LoadedModel, blocks: int, seed: int) -> int:
    """Bytes at most, see ``PeakMemory``, of one row's forward and backward.

    Every weight gets a gradient, the loss is that of every token, nothing is computed twice to save memory, and there
    is no optimizer.

    Raises:
        UserError: it is no decoder of famcli, or its weights are rounded.
    """
    decoder = model.decoder
    decoder.config.refuse_rounded("trained")
    decoder.requires_grad_(True)
    size, tokens = decoder.config.block_size, Tokens(decoder, seed)
    with PeakMemory(model.device) as counting:
        state, losses = decoder.start(1), []
        for block in range(blocks):
            text = tokens.at(block * size, size + 1)
            latents, state, _ = read_block(decoder, text[:, :-1], state, [], keep=True)
            losses.append(token_losses(decoder, latents[0], text[0, 1:])[0].sum())
        torch.stack(losses).sum().backward()
        return counting.bytes
