"""What the tokens of a block may attend to, and where they stand.

Shapes: ``b`` batch, ``t`` tokens read at once, ``d`` width, ``h`` heads, ``g`` key-value heads,
``k`` head width, ``n`` keys.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from famcli.models.config import ModelConfig
from famcli.models.int8 import linear
from famcli.models.masks import Mask
from famcli.models.memories.base import Part

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines [t, k] that turn queries or keys to their positions."""


def rope_frequencies(config: ModelConfig, local: bool) -> Tensor:
    """RoPE's radians a token [k / 2], in float64; ``llama3`` scaling as in the Llama 3.1 release."""
    own = local and config.rope_local_theta is not None
    theta = config.rope_local_theta if own and config.rope_local_theta else config.rope_theta
    steps = torch.arange(0, config.head_width, 2, dtype=torch.float64, device="cpu")
    frequencies = theta ** (-steps / config.head_width)
    if own or config.rope_scaling == "none":
        return frequencies
    if config.rope_scaling == "linear":
        return frequencies / config.rope_factor
    turns = frequencies * config.rope_original_context / (2 * math.pi)
    low, high = config.rope_low_frequency, config.rope_high_frequency
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return frequencies * (kept + (1 - kept) / config.rope_factor)


class RotaryTable:
    """RoPE rotations for the positions -``reach`` .. (in-block offsets are 0 .. B-1, everything older is negative).

    Positions are relative to the block being read: with rotary queries and keys only differences matter, and an
    endless stream never meets a position it was not built for.
    """

    def __init__(self, frequencies: Tensor, reach: int, length: int) -> None:
        """Args:
        frequencies: [k / 2] radians a token, see ``rope_frequencies``.
        reach: largest negative position.
        length: positions from 0 on to begin with; more are made when they are asked for.
        """
        self.frequencies = frequencies
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

    def of(self, positions: Tensor, like: Tensor) -> Rotation:
        """Rotations of any ``positions`` [n], which no table is kept of."""
        angles = torch.outer(positions.to(self.frequencies), self.frequencies).repeat(1, 2)
        return angles.cos().to(like), angles.sin().to(like)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turns ``x`` [b, h, t, k] by RoPE, first half against second half as Llama checkpoints pair them."""
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    turned = x * cos + torch.cat((-second, first), dim=-1) * sin
    return turned.to(x.dtype)  # what autocast gave in half precision stays that


@dataclass(frozen=True)
class SkippedPositions:
    """Where the tokens of a block stand in training when positions between them are skipped (PoSE, arXiv 2309.10400).

    A short block then has the distances of a long one, at the price of the short one.

    Attributes:
        tokens: [block_size] int64, increasing, from 0 to below ``span``.
        span: positions of the whole block.
    """

    tokens: Tensor
    span: int


@dataclass(frozen=True)
class Geometry:
    """Where ``count`` tokens, all of one block, stand; worked out once and shared by every layer.

    Attributes:
        offset: tokens of the block read before these.
        count: tokens, without the memory's extra positions.
        blocks: blocks that are complete before this one.
        completes: these tokens finish the block.
        span: positions of a block; more than its tokens where positions are skipped.
        parts: keys that stand before those of the block's own tokens, see ``Memory.parts``.
        tokens: rotation of the tokens, and of the memory's extra positions after them.
        masks: what the tokens may look at, see ``block_masks``.
        origin: position of the block's beginning, see ``Decoder.position_offset``.
        rotary: rotations by position.
        skipped: where the tokens of a block stand, if not one after another.
        like: has the device and dtype of the rotations.
    """

    offset: int
    count: int
    blocks: int
    completes: bool
    span: int
    parts: tuple[Part, ...]
    tokens: Rotation
    masks: list[Mask] | None
    origin: int
    rotary: RotaryTable
    skipped: SkippedPositions | None
    like: Tensor

    def turn(self, start: int, count: int) -> Rotation:
        """Rotations of ``count`` positions from ``start`` on, counted from the block's beginning."""
        first = self.origin + start
        if first < -self.rotary.reach:  # where positions are skipped, a block spans more than the table knows
            return self.rotary.of(torch.arange(first, first + count), self.like)
        return self.rotary.at(first, count, self.like)

    def moved(self, keys: Tensor, by: int) -> Tensor:
        """Keys [b, g, n, k] that were turned to their positions, turned ``by`` positions further."""
        near = by >= -self.rotary.reach
        turned = self.rotary.at(by, 1, self.like) if near else self.rotary.of(torch.tensor([by]), self.like)
        return rotate(keys, turned)

    def moved_to(self, x: Tensor, start: int) -> Tensor:
        """Keys or queries [b, h, n, k] that are not turned yet, turned to stand one after another from ``start`` on."""
        return rotate(x, self.turn(start, x.shape[2]))

    def turned_back(self, keys: Tensor) -> Tensor:
        """Keys [b, g, B, k] of the whole block as they were when not turned to their positions yet."""
        cos, sin = self.turn(0, keys.shape[2])
        if self.skipped is not None:
            cos, sin = self.rotary.of(self.origin + self.skipped.tokens, self.like)
        return rotate(keys, (cos, -sin))

    def first_moved(self, keys: Tensor, start: int) -> Tensor:
        """Keys [b, g, n, k] of a block's first tokens, turned to stand one after another from ``start`` on."""
        if self.skipped is None:
            return self.moved(keys, start)
        by = torch.arange(start, start + keys.shape[2]) - self.skipped.tokens[: keys.shape[2]]
        return rotate(keys, self.rotary.of(by, self.like))

    def on(self, device: torch.device) -> Geometry:
        """The same for tensors on another device."""
        tokens = (self.tokens[0].to(device), self.tokens[1].to(device))
        masks = None if self.masks is None else [mask.on(device) for mask in self.masks]
        return replace(self, tokens=tokens, masks=masks, like=self.like.to(device))


EXPLICIT = 1 << 16
"""Most queries times keys whose attention is written out where a gradient is wanted: the backward of PyTorch's kernel
for processors takes as long for the few queries of a FAM or a question as for hundreds."""

FEW = 16
"""Most queries for which keys are left where they are: to copy them into one row takes longer than to look at them."""


def joined(seen: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Keys and values one after another."""
    if len(seen) == 1:
        return seen[0]
    keys, values = zip(*seen, strict=True)
    return torch.cat(keys, dim=2), torch.cat(values, dim=2)


def _without(x: Tensor, first: int, end: int) -> Tensor:
    """[g, n, k] with the keys from ``first`` to before ``end`` left out."""
    return torch.cat((x[:, :first], x[:, end:]), dim=1) if end > first else x


class Attention(nn.Module):
    """One attention's projections, shared by tokens and FAM (section 2.2: no projections of its own)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = config.heads, config.kv_heads, config.head_width
        self.scale = config.attention_scale
        self.q_proj = linear(config, config.width, self.heads * self.head_width, config.qkv_bias)
        self.k_proj = linear(config, config.width, self.kv_heads * self.head_width, config.qkv_bias)
        self.v_proj = linear(config, config.width, self.kv_heads * self.head_width, config.qkv_bias)
        self.o_proj = linear(config, self.heads * self.head_width, config.width)
        self.over_heads = config.qk_norm == "width"
        self.q_norm = self._norm(config, self.heads)
        self.k_norm = self._norm(config, self.kv_heads)

    def queries(self, x: Tensor, rotation: Rotation | None) -> Tensor:
        """[b, t, d] -> [b, h, t, k]; not turned to their positions without ``rotation``."""
        queries = self._normed(self.q_proj(x), self.heads, self.q_norm)
        return queries if rotation is None else rotate(queries, rotation)

    def keys_values(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        """[b, t, d] -> twice [b, g, t, k]."""
        keys = self._normed(self.k_proj(x), self.kv_heads, self.k_norm)
        return rotate(keys, rotation), self._split(self.v_proj(x), self.kv_heads)

    def attend(
        self,
        q: Tensor,
        seen: Sequence[tuple[Tensor, Tensor]],
        masks: list[Mask] | None = None,
        visible: Tensor | None = None,
    ) -> Tensor:
        """``heads_of`` brought back to the model's width: [b, t, d]."""
        return self.project(self.heads_of(q, seen, masks, visible))

    def project(self, heads: Tensor) -> Tensor:
        """[b, h, t, k] -> [b, t, d]."""
        return self.o_proj(heads.transpose(1, 2).flatten(2))

    def heads_of(
        self,
        q: Tensor,
        seen: Sequence[tuple[Tensor, Tensor]],
        masks: list[Mask] | None = None,
        visible: Tensor | None = None,
    ) -> Tensor:
        """One softmax over all the keys that a query sees: q [b, h, t, k] -> [b, h, t, k].

        Args:
            q: the queries.
            seen: keys and values [b, g, n, k], which stand one after another.
            masks: as ``block_masks`` makes them; ``None``: every key is seen.
            visible: [b, m] which of the first m keys the queries of each row see besides; ``None``: all.
        """
        seen = [pair for pair in seen if pair[0].shape[2]]
        if q.shape[2] > FEW or q.is_cuda or (masks and len(masks) > 1):
            seen = [joined(seen)]
        if visible is not None and q.shape[2] <= FEW and q.device.type == "cpu" and visible.all():
            visible = None  # to hide none takes a single token as long as its softmax
        if visible is not None:
            keys = sum(k.shape[2] for k, _ in seen)
            everything = Mask(visible.new_ones(q.shape[2], keys), always=keys)
            masks = [mask.narrowed(visible) for mask in masks or [everything]]
        if masks is None or len(masks) == 1:
            return self._mix(q, seen, masks[0] if masks else None)
        ((k, v),) = seen
        runs = []
        for run, mask in zip(q.split([mask.queries for mask in masks], dim=2), masks, strict=True):
            keys = mask.seen.shape[1]
            runs.append(self._mix(run, [(k[:, :, :keys], v[:, :, :keys])], mask))
        return torch.cat(runs, dim=2)

    def _mix(self, q: Tensor, seen: Sequence[tuple[Tensor, Tensor]], mask: Mask | None) -> Tensor:
        if self._written_out(q, sum(k.shape[2] for k, _ in seen)):
            return self._explicit(q, seen, mask)
        (k, v), grouped = joined(seen), self.kv_heads != self.heads
        if q.dtype == torch.bfloat16 and not (q.is_cuda or q.requires_grad):
            return self._head_by_head(q, k, v, mask)
        allowed = None if mask is None else mask.allowed
        return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, scale=self.scale, enable_gqa=grouped)

    @staticmethod
    def _written_out(q: Tensor, keys: int) -> bool:
        """So few queries that two plain products are faster than PyTorch's kernel."""
        return not q.is_cuda and (q.shape[2] * keys <= EXPLICIT if q.requires_grad else q.shape[2] <= FEW)

    def _explicit(self, q: Tensor, seen: Sequence[tuple[Tensor, Tensor]], mask: Mask | None) -> Tensor:
        """Attention in plain products; it keeps its probabilities for a gradient."""
        grouped = self._grouped(self.scaled(q))
        scores = [grouped @ k.to(q.dtype).mT for k, _ in seen]
        joined = torch.cat(scores, dim=-1) if len(scores) > 1 else scores[0]
        if mask is not None:
            mask.hide(self._ungrouped(joined))
        shares = joined.softmax(dim=-1).to(q.dtype).split([k.shape[2] for k, _ in seen], dim=-1)
        mixed = [share @ v.to(q.dtype) for share, (_, v) in zip(shares, seen, strict=True)]
        return self._ungrouped(sum(mixed[1:], start=mixed[0]))

    def _head_by_head(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask | None) -> Tensor:
        """Attention in plain products, for bfloat16, which PyTorch's kernel multiplies as slowly as float32.

        Products of one head take keys out of a longer row as they lie; those of several heads would copy them.
        """
        grouped, k, v = self._grouped(self.scaled(q)), k.to(q.dtype), v.to(q.dtype)
        attended = []
        for row in range(len(q)):
            own, first, end = (None, 0, 0) if mask is None else mask.of_row(row)
            keys, values = (_without(x[row], first, end) for x in (k, v))
            for head in range(self.kv_heads):
                scores = grouped[row, head] @ keys[head].mT
                if own is not None:
                    own.hide(scores.unflatten(0, (self.heads // self.kv_heads, -1))[None])
                attended.append(scores.softmax(dim=-1) @ values[head])
        return self._ungrouped(torch.stack(attended).unflatten(0, (len(q), -1)))

    def scaled(self, q: Tensor) -> Tensor:
        """Queries that need only be multiplied with keys to be scores."""
        return q * (self.scale or self.head_width**-0.5)

    def _grouped(self, x: Tensor) -> Tensor:
        """[b, h, t, n] -> [b, g, h / g t, n]: heads that share keys are multiplied together."""
        return x.unflatten(1, (self.kv_heads, -1)).flatten(2, 3)

    def _ungrouped(self, x: Tensor) -> Tensor:
        """A view [b, h, t, n] of what ``_grouped`` gave."""
        return x.unflatten(2, (self.heads // self.kv_heads, -1)).flatten(1, 2)

    @staticmethod
    def _norm(config: ModelConfig, heads: int) -> nn.RMSNorm | None:
        if config.qk_norm == "none":
            return None
        return nn.RMSNorm(config.head_width * (heads if config.qk_norm == "width" else 1), eps=config.norm_eps)

    def _normed(self, x: Tensor, heads: int, norm: nn.RMSNorm | None) -> Tensor:
        """[b, t, heads k] -> [b, heads, t, k], through ``qk_norm``."""
        if norm is None:
            return self._split(x, heads)
        return self._split(norm(x), heads) if self.over_heads else norm(self._split(x, heads))

    def _split(self, x: Tensor, heads: int) -> Tensor:
        return x.unflatten(-1, (heads, self.head_width)).transpose(1, 2)
