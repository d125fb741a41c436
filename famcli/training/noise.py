"""Noise on a memory: what is stored must be found again from near it."""

from __future__ import annotations

import torch
from torch import Tensor


def with_noise(fam: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """``fam`` [b, f, d] with Gaussian noise of deviation ``scale`` relative to each latent's root mean square."""
    spread = fam.detach().square().mean(dim=-1, keepdim=True).sqrt()
    return fam + scale * spread * torch.randn(fam.shape, generator=generator)
