"""What the tokens of a block, and the FAM, may attend to.

Shapes: ``b`` batch, ``t`` tokens read at once, ``d`` width, ``h`` heads, ``k`` head width, ``n`` keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from famcli.models.config import ModelConfig

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines [t, k] that turn queries or keys to their positions."""


class RotaryTable:
    """RoPE rotations for the positions -``reach`` .. (in-block offsets are 0 .. B-1, everything older is negative).

    Positions are relative to the block being read: with rotary queries and keys only differences matter, and an
    endless stream never meets a position it was not built for.
    """

    def __init__(self, head_width: int, theta: float, reach: int, length: int) -> None:
        self.frequencies = theta ** (-torch.arange(0, head_width, 2, dtype=torch.float64, device="cpu") / head_width)
        self.reach = reach
        self._grow(length)

    def _grow(self, length: int) -> None:
        self.length = length
        positions = torch.arange(-self.reach, length, dtype=torch.float64, device="cpu")
        angles = torch.outer(positions, self.frequencies).repeat(1, 2)
        self._cast: dict[tuple[torch.device, torch.dtype], Rotation] = {}
        self._cos, self._sin = angles.cos(), angles.sin()

    def at(self, start: int, count: int, like: Tensor) -> Rotation:
        """Rotations of positions ``start`` .. ``start + count - 1`` in the device and dtype of ``like``."""
        if start + count > self.length:
            self._grow(max(start + count, 2 * self.length))
        key = (like.device, like.dtype)
        if key not in self._cast:
            self._cast[key] = (self._cos.to(*key), self._sin.to(*key))
        cos, sin = self._cast[key]
        rows = slice(start + self.reach, start + self.reach + count)
        return cos[rows], sin[rows]


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turns ``x`` [b, h, t, k] by RoPE, first half against second half as Llama checkpoints pair them."""
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


@dataclass(frozen=True)
class Geometry:
    """Where ``count`` tokens, all of one block, stand; worked out once and shared by every layer.

    Attributes:
        offset: tokens of the block read before these.
        filled: tokens held in the memory segments.
        completes: these tokens finish the block.
        tokens: rotation of the tokens.
        fam_keys: rotation of the FAM as keys, the last F positions of the block before.
        fam_queries: rotation of the FAM as queries, see ``ModelConfig.fam_query_position``.
        step_back: rotation by -B, what a block's keys take when they become memory.
        masks: what the tokens may look at, see ``block_masks``.
    """

    offset: int
    count: int
    filled: int
    completes: bool
    tokens: Rotation
    fam_keys: Rotation
    fam_queries: Rotation
    step_back: Rotation
    masks: list[Tensor] | None


QUERY_RUN = 256
"""Queries that attend together. A run is given no key beyond its last token, which spares half of the work."""


def block_masks(before: int, count: int, device: torch.device) -> list[Tensor] | None:
    """Tokens see every key before them: memory, FAM, and their own block up to themselves (section 2.1, Algorithm 1).

    Args:
        before: keys older than the first of the tokens.
        count: tokens.
        device: of the masks.

    Returns:
        A mask [queries, keys] for each run of ``QUERY_RUN`` queries, true where a token may look, over no more keys
        than the run sees; ``None`` for a single token, which sees all.
    """
    if count == 1:
        return None
    runs = torch.arange(before, before + count, device=device).split(QUERY_RUN)
    return [torch.arange(int(run[-1]) + 1, device=device) <= run[:, None] for run in runs]


class Attention(nn.Module):
    """One attention's projections, shared by tokens and FAM (section 2.2: no projections of its own)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = config.heads, config.kv_heads, config.head_width
        self.q_proj = nn.Linear(config.width, self.heads * self.head_width, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.width, self.kv_heads * self.head_width, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.width, self.kv_heads * self.head_width, bias=config.qkv_bias)
        self.o_proj = nn.Linear(self.heads * self.head_width, config.width, bias=False)

    def queries(self, x: Tensor, rotation: Rotation) -> Tensor:
        """[b, t, d] -> [b, h, t, k]."""
        return rotate(self._split(self.q_proj(x), self.heads), rotation)

    def keys_values(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        """[b, t, d] -> twice [b, h_kv, t, k]."""
        return rotate(self._split(self.k_proj(x), self.kv_heads), rotation), self._split(self.v_proj(x), self.kv_heads)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, masks: list[Tensor] | None = None) -> Tensor:
        """One softmax over the keys a query sees: q [b, h, t, k], k and v [b, h_kv, n, k] -> [b, t, d].

        All of them without ``masks``, which are as ``block_masks`` makes them.
        """
        if masks is None:
            mixed = self._mix(q, k, v, None)
        else:
            runs = zip(q.split(QUERY_RUN, dim=2), masks, strict=True)
            seen = [(run, mask, slice(0, mask.shape[1])) for run, mask in runs]
            mixed = torch.cat([self._mix(run, k[:, :, keys], v[:, :, keys], mask) for run, mask, keys in seen], dim=2)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=self.kv_heads != self.heads)

    def _split(self, x: Tensor, heads: int) -> Tensor:
        return x.unflatten(-1, (heads, self.head_width)).transpose(1, 2)
