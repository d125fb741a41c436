"""What a layer makes of a token for the gate of a FAM that keeps tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TokenScore(nn.Linear):
    """A query [g k] that all key heads of a token are multiplied with, and a bias; they begin as nothing."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 1)

    def reset_parameters(self) -> None:
        """Zeros: an untrained gate keeps no token."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, keys: Tensor) -> Tensor:
        """Keys [b, g, n, k], not turned to any position -> [b, n], in float32 at least: 30 layers are added."""
        precise = torch.promote_types(keys.dtype, torch.float32)
        rows = keys.transpose(1, 2).flatten(2).to(precise)
        return F.linear(rows, self.weight.to(precise), self.bias.to(precise))[..., 0]
