"""Which keys the tokens of a block may look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from famcli.models.memories.base import Part

QUERY_RUN = 256
"""Queries that attend together. A run is given no key beyond its last token, which spares half of the work."""


@dataclass(frozen=True)
class Mask:
    """What a run of queries may look at.

    Attributes:
        seen: [.., queries, keys] true where a query may look, over no more keys than the run sees.
        always: the first so many keys, which all of the queries see.
    """

    seen: Tensor
    always: int = 0

    @classmethod
    def of(cls, seen: Tensor) -> Mask:
        """A mask [queries, keys] that is used many times."""
        return cls(seen, int(seen.all(dim=0).cumprod(dim=0).sum()))

    @property
    def queries(self) -> int:
        """Queries of the run."""
        return self.seen.shape[-2]

    def on(self, device: torch.device) -> Mask:
        """The same on another device."""
        return Mask(self.seen.to(device), self.always)

    def narrowed(self, visible: Tensor) -> Mask:
        """Without the keys that are not ``visible`` [b, m] to a row, of the first m."""
        rows = F.pad(visible, (0, self.seen.shape[-1] - visible.shape[1]), value=True)
        return Mask(self.seen & rows[:, None, None])

    def of_row(self, row: int) -> Mask:
        """That of one of the rows."""
        return self if self.seen.dim() == 2 else Mask(self.seen[row])

    def hide(self, scores: Tensor) -> None:
        """Changes ``scores`` [.., h, queries, keys] so that no query looks at what it may not."""
        scores[..., self.always :].masked_fill_(~self.seen[..., self.always :], float("-inf"))


def block_masks(
    parts: Sequence[Part], offset: int, count: int, *, window: int | None, device: torch.device
) -> list[Mask] | None:
    """Tokens see the keys before them: those of the memory, and their own block up to themselves (Algorithm 1).

    Args:
        parts: keys of the memory, which stand before those of the block.
        offset: tokens of the block before these.
        count: tokens.
        window: newest tokens, its own included, that a token sees in a local layer; ``None`` in the others.
        device: of the masks.

    Returns:
        A mask for each run of ``QUERY_RUN`` queries; ``None`` for a single token that sees all.
    """
    last = offset + count - 1
    oldest = min((part.first for part in parts if part.first is not None), default=0)
    if window is not None and last - oldest < window:
        window = None
    hidden = any(offset < part.seen_from for part in parts)
    if count == 1 and window is None and not hidden:
        return None
    never_hidden = last + 1  # as near as any token
    positions = [torch.full((part.count,), never_hidden) if part.first is None else _along(part) for part in parts]
    places = torch.cat((*positions, torch.arange(last + 1))).to(device)
    seen_from = torch.cat([torch.full((part.count,), part.seen_from) for part in parts] or [torch.arange(0)]).to(device)
    before = len(seen_from)
    masks = []
    for run in torch.arange(offset, offset + count, device=device).split(QUERY_RUN):
        keys = torch.arange(before + int(run[-1]) + 1, device=device)
        mask = keys <= before + run[:, None]
        if window is not None:
            mask &= run[:, None] - places[: len(keys)] < window
        if hidden:
            mask[:, :before] &= run[:, None] >= seen_from
        masks.append(Mask.of(mask))
    return masks


def _along(part: Part) -> Tensor:
    """Positions of the keys of a part that are tokens of the text."""
    assert part.first is not None
    return torch.arange(part.first, part.first + part.count)
