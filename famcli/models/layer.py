"""One layer of the decoder: what a block's tokens attend to, what follows, and when the memory is written.

Shapes: ``b`` batch, ``t`` time, ``d`` width, ``n`` latents.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from famcli.models.attention import Attention, Geometry, joined, rotate
from famcli.models.config import ModelConfig
from famcli.models.int8 import linear
from famcli.models.memories.base import Block
from famcli.models.state import LayerState


class FeedForward(nn.Module):
    """A gated feed-forward (SwiGLU or GeGLU), shared by tokens and FAM."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = linear(config, config.width, config.ffn_width)
        self.up_proj = linear(config, config.width, config.ffn_width)
        self.down_proj = linear(config, config.ffn_width, config.width)
        self.tanh_gelu = config.activation == "gelu"

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate_proj(x)
        gate = F.gelu(gate, approximate="tanh") if self.tanh_gelu else F.silu(gate)
        return self.down_proj(gate * self.up_proj(x))


class Layer(nn.Module):
    """One decoder layer: attention over [the memory's keys; own causal prefix], then the feed-forward.

    When a block is complete its memory is written. ``memory`` holds the memory's weights, where it has any.
    """

    def __init__(self, config: ModelConfig, number: int) -> None:
        super().__init__()
        self.config, self.local = config, config.is_local(number)
        before, after = config.norm_placement != "post", config.norm_placement != "pre"
        self.attention_norm = self._norm(config, before)
        self.attention = Attention(config)
        self.attention_out_norm = self._norm(config, after)
        self.ffn_norm = self._norm(config, before)
        self.ffn = FeedForward(config)
        self.ffn_out_norm = self._norm(config, after)
        self.memory = config.memory.layer_module(config, number)

    @staticmethod
    def _norm(config: ModelConfig, wanted: bool) -> nn.Module:
        return nn.RMSNorm(config.width, eps=config.norm_eps) if wanted else nn.Identity()

    def forward(self, x: Tensor, state: LayerState, at: Geometry, output: bool) -> Tensor | None:
        """Reads tokens of one block into ``state`` (changed in place) and gives their latents.

        Args:
            x: [b, t, d] latents of the layer below; with the memory's extra positions last where a block completes.
            state: what this layer carries.
            at: where the tokens stand.
            output: ``False`` where nobody needs the latents: then only what the state needs is computed.

        Returns:
            [b, t, d], or ``None`` without ``output``.
        """
        memory = self.config.memory
        x = memory.before(x, state, self)
        normed = self.attention_norm(x)
        keys, values = self.attention.keys_values(normed, at.tokens)
        block = self._own_block(state, keys[:, :, : at.count], values[:, :, : at.count], at)
        echoed = self._echoed(normed, state, at)
        wanted = output or x.shape[1] > at.count
        attended = latents = inputs = None
        if wanted or memory.notes_attended:
            after = [(keys[:, :, at.count :], values[:, :, at.count :])] if x.shape[1] > at.count else []
            learned = memory.learned_slots(self, len(x), at)
            slots = memory.slots(state, at.parts[: len(at.parts) - len(learned) - len(echoed)])
            attended = self._attend(normed, [*slots, *learned, *echoed, block, *after], state, at)
        if memory.needs_inputs:
            source = attended if attended is not None and memory.notes_attended else normed
            inputs = self._own_inputs(state, memory.noted(source[:, : at.count], self), at)
        found, changed = memory.along(normed[:, : at.count], state, self, wanted)
        if attended is not None and wanted:
            attended = memory.beside(attended, normed, state, self)
            latents = self.residual(x, attended if found is None else attended + found)
        state |= changed
        if at.completes:
            extra = latents[:, at.count :] if latents is not None else None
            state |= memory.write(Block(*block, inputs, extra, keys[:, :, at.count :]), state, self, at)
        return latents

    def _attend(self, normed: Tensor, seen: list[tuple[Tensor, Tensor]], state: LayerState, at: Geometry) -> Tensor:
        memory = self.config.memory
        if memory.attends:
            return self.attention.project(self._attend_as_memory(normed, seen, state, at))
        visible = memory.visible(state, at.parts)
        if not memory.mixes:
            return self.attention.attend(self.attention.queries(normed, at.tokens), seen, at.masks, visible)
        plain = self.attention.queries(normed, None)
        heads = self.attention.heads_of(rotate(plain, at.tokens), seen, at.masks, visible)
        return self.attention.project(memory.mix(heads, plain, state, self))

    def _attend_as_memory(
        self, normed: Tensor, seen: list[tuple[Tensor, Tensor]], state: LayerState, at: Geometry
    ) -> Tensor:
        """What ``Memory.attend`` makes of each run of queries: [b, h, t, k]."""
        memory, queries = self.config.memory, self.attention.queries(normed, at.tokens)
        keys, values = joined(seen)
        if at.masks is None:
            return memory.attend(queries, (keys, values), None, state, self)
        heads = []
        for run, mask in zip(queries.split([mask.queries for mask in at.masks], dim=2), at.masks, strict=True):
            own = slice(0, mask.seen.shape[1])
            heads.append(memory.attend(run, (keys[:, :, own], values[:, :, own]), mask.seen, state, self))
        return torch.cat(heads, dim=2)

    def alone(self, x: Tensor, at: Geometry, start: int, visible: Tensor | None = None) -> Tensor:
        """Latents one layer up that attend to one another alone, all to all: [b, n, d] -> same.

        They stand at the positions from ``start`` on, counted from the block's beginning; ``visible`` [b, n] says which
        of them are attended to, where not all.
        """
        normed, rotation = self.attention_norm(x), at.turn(start, x.shape[1])
        seen = [self.attention.keys_values(normed, rotation)]
        attended = self.attention.attend(self.attention.queries(normed, rotation), seen, visible=visible)
        return self.residual(x, attended)

    def write_again(self, state: LayerState, at: Geometry, stride: float) -> None:
        """See ``Decoder.update_again``."""
        block = Block(state["block_keys"], state["block_values"], state.get("block_inputs"))
        state |= self.config.memory.write_again(block, state, self, at, stride)

    def restore(self, state: LayerState, carried: LayerState, at: Geometry) -> None:
        """See ``Decoder.carry``."""
        state |= self.config.memory.restore(state, carried, self, at)

    def residual(self, x: Tensor, attended: Tensor) -> Tensor:
        """Both residuals of the layer: what attention gave [b, t, d] added to ``x``, then the feed-forward."""
        x = x + self.attention_out_norm(attended)
        return x + self.ffn_out_norm(self.ffn(self.ffn_norm(x)))

    def _echoed(self, normed: Tensor, state: LayerState, at: Geometry) -> list[tuple[Tensor, Tensor]]:
        """The second keys and values of the block's tokens, where the memory has any."""
        memory, cos, sin = self.config.memory, *(turned[: at.count] for turned in at.tokens)
        if not memory.echoes:
            return []
        new = self.attention.keys_values(memory.echo(normed[:, : at.count], state, self), (cos, sin))
        return [self._own_block(state, *new, at, "echo")]

    def _own_block(
        self, state: LayerState, keys: Tensor, values: Tensor, at: Geometry, name: str = "block"
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of the block up to and including the new tokens; what is unfinished is kept in ``state``."""
        if at.completes and not at.offset:
            return keys, values
        names = (f"{name}_keys", f"{name}_values")
        if self.config.memory.whole:
            for one, new in zip(names, (keys, values), strict=True):
                state[one] = torch.cat((state[one], new), dim=2)
            return state[names[0]], state[names[1]]
        end = at.offset + at.count
        for one, new in zip(names, (keys, values), strict=True):
            if torch.is_grad_enabled():  # the buffer's older contents may be part of a graph
                state[one] = state[one].clone()
            state[one][:, :, at.offset : end] = new
        return state[names[0]][:, :, :end], state[names[1]][:, :, :end]

    def _own_inputs(self, state: LayerState, noted: Tensor, at: Geometry) -> Tensor | None:
        """As ``_own_block``, of what is noted of the inputs; ``None`` until the block is complete."""
        if not at.completes or at.offset:
            if torch.is_grad_enabled():
                state["block_inputs"] = state["block_inputs"].clone()
            state["block_inputs"][:, at.offset : at.offset + at.count] = noted
            noted = state["block_inputs"]
        return noted if at.completes else None
