"""What is read: token ids from a seed. What they mean costs nothing, so no tokenizer is asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from famcli.models.stream import StreamModel

DRAWN = 1 << 16
"""Token ids that are drawn; they repeat."""


class Tokens:
    """A stream of token ids without end, the same for the same seed and vocabulary."""

    def __init__(self, model: StreamModel[Any], seed: int) -> None:
        self.device = model.device
        self._drawn = np.random.default_rng(seed).integers(model.vocab_size, size=DRAWN, dtype=np.int64)

    def at(self, start: int, count: int) -> Tensor:
        """Those from ``start`` on, on the model's device: [1, count]."""
        ids = self._drawn[np.arange(start, start + count) % DRAWN]
        return torch.from_numpy(ids[None]).to(self.device)
