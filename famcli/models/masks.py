"""Which keys the tokens of a block may look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

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
        seen: [queries, keys] true where a query may look, over no more keys than the run sees.
        always: the first so many keys, which all of the queries see.
        visible: [b, m] which of the first m keys the queries of each row may see besides; ``None``: all.
    """

    seen: Tensor
    always: int = 0
    visible: Tensor | None = None

    @classmethod
    def of(cls, seen: Tensor) -> Mask:
        """A mask [queries, keys] that is used many times."""
        return cls(seen, int(seen.all(dim=0).cumprod(dim=0).sum()))

    @property
    def queries(self) -> int:
        """Queries of the run."""
        return self.seen.shape[0]

    @property
    def allowed(self) -> Tensor:
        """All in one: [queries, keys], or [b, 1, queries, keys] where rows differ."""
        if self.visible is None:
            return self.seen
        rows = F.pad(self.visible, (0, self.seen.shape[1] - self.visible.shape[1]), value=True)
        return self.seen & rows[:, None, None]

    @cached_property
    def _hidden(self) -> Tensor:
        return ~self.seen[:, self.always :]

    def on(self, device: torch.device) -> Mask:
        """The same on another device."""
        return Mask(self.seen.to(device), self.always, None if self.visible is None else self.visible.to(device))

    def narrowed(self, visible: Tensor) -> Mask:
        """Without the keys that are not ``visible`` [b, m] to a row, of the first m."""
        return replace(self, visible=visible)

    def of_row(self, row: int) -> tuple[Mask, int, int]:
        """That of one of the rows, without the keys from ``first`` to before ``end``, none of which the row may see.

        Slots are filled from their end, so these are all that it may not see: a slot that is empty costs nothing.
        """
        if self.visible is None or self.visible[row].all():
            return replace(self, visible=None), 0, 0
        seen, visible = self.seen, self.visible[row]
        first = int((~visible).byte().argmax())
        end = first + int(F.pad(visible[first:], (0, 1), value=True).byte().argmax())
        others = torch.cat((visible[:first], visible[end:]))[None]
        rest = None if others.all() else others
        if end <= self.always:  # up to there all columns are alike
            return Mask(seen[:, end - first :], self.always - end + first, rest), first, end
        return Mask(torch.cat((seen[:, :first], seen[:, end:]), dim=1), min(first, self.always), rest), first, end

    def hide(self, scores: Tensor) -> None:
        """Changes ``scores`` [b, h, queries, keys] so that no query looks at what it may not."""
        scores[..., self.always :].masked_fill_(self._hidden, float("-inf"))
        if self.visible is not None:
            rows = self.visible[:, None, None]
            scores[..., : rows.shape[-1]].masked_fill_(~rows, float("-inf"))


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
    hidden = any(offset < part.seen_from or (part.echo and count > 1) for part in parts)
    if count == 1 and window is None and not hidden:
        return None
    never_hidden = last + 1  # as near as any token
    positions = [torch.full((part.count,), never_hidden) if part.first is None else _along(part) for part in parts]
    places = torch.cat((*positions, torch.arange(last + 1))).to(device)
    seen_from = torch.cat([_seen_from(part) for part in parts] or [torch.arange(0)]).to(device)
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


def _seen_from(part: Part) -> Tensor:
    """The first token of the block that sees each key of a part."""
    return torch.arange(part.count) if part.echo else torch.full((part.count,), part.seen_from)


def _along(part: Part) -> Tensor:
    """Positions of the keys of a part that are tokens of the text."""
    assert part.first is not None
    return torch.arange(part.first, part.first + part.count)
