"""An associative table: what was stored under features that are not negative, and how much was.

A table [..., n, c] is a sum of features [n] times rows of values [c]. The last of the values says how much is stored,
1 at first, and what is read is divided by it: a mean of values, weighted by how alike the features are. So far that is
linear attention (Katharopoulos et al., arXiv 2006.16236).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def precise(x: Tensor) -> Tensor:
    """In float32 at least: sums over a whole text outgrow 16 bits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def multiplied(left: Tensor, right: Tensor) -> Tensor:
    """A product in the precision of its factors, whatever autocast says."""
    kind = left.device.type
    with torch.autocast(kind if torch.amp.is_autocast_available(kind) else "cpu", enabled=False):
        return left @ right


def looked_up(features: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """What is stored under ``features`` [..., t, n], not divided yet [..., t, c - 1], and how much [..., t, 1]."""
    found = multiplied(features, table)
    return found[..., :-1], found[..., -1:]


def mean_of(found: tuple[Tensor, Tensor]) -> Tensor:
    """What ``looked_up`` found, divided; zeros where nothing is stored."""
    total, weight = found
    return total / torch.where(weight > 0, weight, 1)


def stored(features: Tensor, values: Tensor) -> Tensor:
    """What ``values`` [..., t, c] under ``features`` [..., t, n] add to a table."""
    return multiplied(features.mT, values)


def with_ones(values: Tensor) -> Tensor:
    """[..., t, c - 1] -> [..., t, c]: each counts once."""
    return F.pad(values, (0, 1), value=1.0)
