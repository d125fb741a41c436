"""Low-rank matrices of a memory's own, added to a layer's projections where the memory passes through them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LowRank(nn.Module):
    """``up`` [out, r] times ``down`` [r, in]; ``up`` begins at zero, so that it changes nothing."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, inputs) * inputs**-0.5)
        self.up = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.down), self.up)


class Added(nn.Module):
    """A projection of the layer and what a memory adds to it."""

    def __init__(self, projection: nn.Module, own: nn.Module) -> None:
        super().__init__()
        self.projection, self.own = projection, own

    @property
    def weight(self) -> Any:
        """That of the projection, whose device and dtype it has."""
        return self.projection.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(x) + self.own(x)


def with_own(layer: Any, own: Mapping[str, nn.Module]) -> Any:
    """``layer`` with ``own`` matrices added, by names such as ``attention.q_proj``; the layer itself stays as it is."""
    view = _copied(layer)
    for name, matrix in own.items():
        part, _, projection = name.partition(".")
        if getattr(view, part) is getattr(layer, part):
            setattr(view, part, _copied(getattr(layer, part)))
        setattr(getattr(view, part), projection, Added(getattr(getattr(layer, part), projection), matrix))
    return view


def _copied(module: Any) -> Any:
    """A module with the same parts, whose parts can be replaced without changing the first."""
    view = copy.copy(module)
    view.__dict__["_modules"] = dict(module._modules)
    return view
