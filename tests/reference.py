"""The independent oracle: a slow float64 reading of a whole text at once, with one explicit mask a layer.

Written from arXiv 2404.09173 (Algorithms 1 and 2, appendix B) and the names of the weights alone. No stream, no cache,
no relative positions: tokens stand at 0, 1, ..., and the FAM that block ``t`` sees at the ``F`` positions before it.
Shapes: b batch, h heads, t time, s keys, d width, k head width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from famcli.models.attention import SkippedPositions
from famcli.models.config import ModelConfig

# What torch.nn.functional.rms_norm adds where no eps is given.
MACHINE_EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Reading:
    """What the reference computed for a text of n tokens in ceil(n / B) blocks.

    Attributes:
        latents: [b, n, d], top latents after the last norm.
        logits: [b, n, vocabulary].
        layers: one [b, n, d] a layer, its output.
        fams: one list a layer; ``fams[l][u]`` [b, F, d] is the FAM of layer l after u updates.
    """

    latents: Tensor
    logits: Tensor
    layers: list[Tensor]
    fams: list[list[Tensor]]


def read(
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    tokens: Tensor,
    fam: Sequence[Tensor] | None = None,
    hide_fam: bool = False,
    skipped: SkippedPositions | None = None,
) -> Reading:
    """Reads ``tokens`` [b, n] in one go.

    Args:
        config: shape and attention.
        weights: a decoder's ``state_dict``, in float64.
        fam: one [b, F, d] a layer in place of the learned initial FAM.
        hide_fam: mask the FAM out of what tokens see.
        skipped: where the tokens of a block stand, if not one after another.
    """
    latents = weights["embedding.weight"][tokens]
    assert latents.dtype == torch.float64
    prompt = weights["fam_embedding"].expand(len(tokens), -1, -1) if config.attention == "fam" else None
    layers, fams = [], []
    for number in range(config.layers):
        prefix = f"layers.{number}."
        layer = _Layer(
            config, skipped, {name[len(prefix) :]: w for name, w in weights.items() if name.startswith(prefix)}
        )
        first = prompt if fam is None else fam[number]
        latents, layer_fams = layer.read(latents, first, carries_context=fam is not None, hide_fam=hide_fam)
        layers.append(latents)
        fams.append(layer_fams)
        if prompt is not None:
            prompt = layer.of_fam.read_prompt(prompt)
    latents = _rms_norm(latents, weights["norm.weight"], config.norm_eps)
    head = weights["embedding.weight" if config.tie_embeddings else "head.weight"]
    return Reading(latents, torch.einsum("btd,vd->btv", latents, head), layers, fams)


class _Layer:
    """One pre-norm decoder layer; ``weights`` carry names inside the layer."""

    def __init__(self, config: ModelConfig, skipped: SkippedPositions | None, weights: Mapping[str, Tensor]) -> None:
        self.config, self.skipped = config, skipped
        self.memory: Any = config.memory
        self.weights = weights
        self.of_fam = self if "memory.q.up" not in weights else _Layer(config, skipped, _merged(weights))

    def read(
        self, inputs: Tensor, first: Tensor | None, carries_context: bool, hide_fam: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """Algorithm 1 (``first`` is None) or 2 over a whole text: its outputs and the FAM after every update."""
        config, length = self.config, inputs.shape[1]
        order = torch.arange(length)
        blocks = torch.zeros_like(order) if config.attention == "full" else order // config.block_size
        positions, span = order, config.block_size
        if self.skipped and config.attention != "full":
            span = self.skipped.span
            positions = blocks * span + self.skipped.tokens[order % config.block_size]
        keys, values = [self._keys(inputs, positions)], [self._values(inputs)]
        segments = 0 if config.attention == "full" else self.memory.memory_segments
        sinks = 0 if config.attention == "full" else self.memory.sinks
        # The first tokens again for every block but the first, just before the oldest key of its window.
        later = torch.arange(1, int(blocks[-1]) + 1).repeat_interleave(sinks)
        copies = torch.arange(sinks).repeat(int(blocks[-1]))
        before = max(segments * span, self.memory.fam_length if config.attention == "fam" else 0)
        keys.append(self._keys(inputs[:, copies], later * span - before - sinks + copies))
        values.append(self._values(inputs[:, copies]))
        fams = [] if first is None else [first]
        if first is not None:
            for block in range(int(blocks[-1]) + 1):
                place = torch.arange(-self.memory.fam_length, 0) + block * span
                keys.append(self.of_fam._keys(fams[-1], place))
                values.append(self.of_fam._values(fams[-1]))
                if (block + 1) * config.block_size > length:
                    break  # an unfinished block updates nothing
                moved = place + span if self.memory.fam_query_position == "current" else place
                sees = torch.cat([blocks == block, later == block, self._of_block(len(keys) - 2) == block])
                shown = (
                    values if not self.memory.fam_null_sink else [self._nulled(values[0]), values[1] * 0, *values[2:]]
                )
                attended = self.of_fam._attend(fams[-1], moved, keys, shown, sees.expand(self.memory.fam_length, -1))
                residual = fams[-1] if block > 0 or carries_context else torch.zeros_like(fams[-1])
                fams.append(self.of_fam._finish_fam(self._added(residual, attended)))
        past = blocks[:, None] - blocks[None, :]
        causal = order[:, None] >= order[None, :]
        sees_tokens = causal & (past <= segments)
        sees_copies = (blocks[:, None] == later) & (later > segments)
        sees_fam = blocks[:, None] == self._of_block(len(keys) - 2)[None, :]
        sees_fam &= order[:, None] >= sinks  # so that sinks are what the model knows without a FAM
        if hide_fam:
            sees_fam = torch.zeros_like(sees_fam)
        mask = torch.cat([sees_tokens, sees_copies, sees_fam], dim=1)
        stops = config.attention != "full" and self.memory.stop_gradient
        cut = torch.cat([(past > 0) & stops, sees_copies & stops, torch.zeros_like(sees_fam)], dim=1)
        attended = self._attend(inputs, positions, keys, values, mask, cut) + inputs
        return attended + self._feed_forward(attended), fams

    def read_prompt(self, prompt: Tensor) -> Tensor:
        """The initial FAM's way through the layer: it attends to itself alone, in full (appendix B.1)."""
        length = prompt.shape[1]
        place = torch.arange(-length, 0)
        everything = torch.ones(length, length, dtype=torch.bool)
        keys, values = [self._keys(prompt, place)], [self._values(prompt)]
        attended = self._attend(prompt, place, keys, values, everything) + prompt
        return attended + self._feed_forward(attended)

    def _nulled(self, values: Tensor) -> Tensor:
        """Values of the tokens, those of the sinks zero."""
        return torch.cat([values[:, :, : self.memory.sinks] * 0, values[:, :, self.memory.sinks :]], dim=2)

    def _of_block(self, count: int) -> Tensor:
        """For each latent of ``count`` FAMs in a row, the block that sees it."""
        return torch.arange(count).repeat_interleave(self.memory.fam_length if count else 0)

    def _added(self, residual: Tensor, attended: Tensor) -> Tensor:
        """The residual, or the fixed gate of arXiv 2203.07852: c g + z (1 - g)."""
        if self.memory.fam_gate == "none":
            return attended + residual
        gate = 1 / (1 + (-self.weights["memory.residual.gate"]).exp())
        return residual * gate + attended * (1 - gate)

    def _finish_fam(self, fam: Tensor) -> Tensor:
        if self.memory.fam_ffn:
            fam = fam + self._feed_forward(fam)
        if self.memory.fam_norm == "rms":
            fam = self.memory.fam_scale * fam / (fam.square().mean(-1, keepdim=True) + MACHINE_EPS).sqrt()
        return fam

    def _attend(
        self,
        inputs: Tensor,
        positions: Tensor,
        keys: list[Tensor],
        values: list[Tensor],
        mask: Tensor,
        cut: Tensor | None = None,
    ) -> Tensor:
        """Softmax attention [b, t, d] to the keys that ``mask`` [t, s] allows; those of ``cut`` get no gradient."""
        queries = _rotate(self._heads(inputs, "q_proj", self.config.heads), positions, self.config.rope_theta)
        group = self.config.heads // self.config.kv_heads
        key, value = (torch.cat(parts, dim=2).repeat_interleave(group, dim=1) for parts in (keys, values))
        cut = torch.zeros_like(mask) if cut is None else cut
        scores = torch.einsum("bhtk,bhsk->bhts", queries, key)
        scores = torch.where(cut, torch.einsum("bhtk,bhsk->bhts", queries, key.detach()), scores)
        scores = (scores / self.config.head_width**0.5).masked_fill(~mask, float("-inf"))
        weights = (scores - scores.amax(-1, keepdim=True).detach()).exp()
        weights = weights / weights.sum(-1, keepdim=True)
        heads = torch.einsum("bhts,bhsk->bhtk", weights * ~cut, value)
        heads = heads + torch.einsum("bhts,bhsk->bhtk", weights * cut, value.detach())
        joined = heads.transpose(1, 2).flatten(2)
        return torch.einsum("bti,di->btd", joined, self.weights["attention.o_proj.weight"])

    def _keys(self, inputs: Tensor, positions: Tensor) -> Tensor:
        return _rotate(self._heads(inputs, "k_proj", self.config.kv_heads), positions, self.config.rope_theta)

    def _values(self, inputs: Tensor) -> Tensor:
        return self._heads(inputs, "v_proj", self.config.kv_heads)

    def _heads(self, inputs: Tensor, name: str, heads: int) -> Tensor:
        """The pre-normed inputs projected: [b, heads, t, k]."""
        normed = _rms_norm(inputs, self.weights["attention_norm.weight"], self.config.norm_eps)
        projected = torch.einsum("btd,id->bti", normed, self.weights[f"attention.{name}.weight"])
        return projected.unflatten(-1, (heads, self.config.head_width)).transpose(1, 2)

    def _feed_forward(self, inputs: Tensor) -> Tensor:
        """SwiGLU of the pre-normed inputs, without the residual."""
        normed = _rms_norm(inputs, self.weights["ffn_norm.weight"], self.config.norm_eps)
        gate, up = (
            torch.einsum("btd,id->bti", normed, self.weights[f"ffn.{name}.weight"]) for name in ("gate_proj", "up_proj")
        )
        return torch.einsum("bti,di->btd", gate / (1 + (-gate).exp()) * up, self.weights["ffn.down_proj.weight"])


def _merged(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A layer's weights as its FAM has them, with its own matrices added."""
    merged = {name: weight for name, weight in weights.items() if not name.startswith("memory.")}
    for name in weights:
        if name.endswith(".up") and name.startswith("memory."):
            matrix = name.split(".")[1]
            part = "attention" if matrix in "qkvo" else "ffn"
            product = torch.einsum("or,ri->oi", weights[name], weights[f"memory.{matrix}.down"])
            merged[f"{part}.{matrix}_proj.weight"] = merged[f"{part}.{matrix}_proj.weight"] + product
    return merged


def _rms_norm(inputs: Tensor, weight: Tensor, eps: float) -> Tensor:
    return inputs / (inputs.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def _rotate(heads: Tensor, positions: Tensor, theta: float) -> Tensor:
    """RoPE [b, h, t, k]: coordinates (i, i + k / 2) turn by position x theta^(-2 i / k), as Llama checkpoints do."""
    half = heads.shape[-1] // 2
    frequencies = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = positions[:, None].double() * frequencies
    left, right = heads[..., :half], heads[..., half:]
    return torch.cat(
        [left * angles.cos() - right * angles.sin(), right * angles.cos() + left * angles.sin()],
        dim=-1,
    )
