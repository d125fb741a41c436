"""The decoder: reads tokens in any chunking and carries a state of fixed size (TransformerFAM, arXiv 2404.09173).

Shapes: ``b`` batch, ``t`` time, ``d`` width, ``h`` heads, ``k`` head width, ``s`` memory length, ``f`` FAM length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from famcli.models.attention import (
    Attention,
    Geometry,
    RotaryTable,
    SkippedPositions,
    block_masks,
    rope_frequencies,
    rotate,
)
from famcli.models.config import ModelConfig
from famcli.models.state import LayerState, StreamState


class FeedForward(nn.Module):
    """A gated feed-forward (SwiGLU or GeGLU), shared by tokens and FAM."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.ffn_width, bias=False)
        self.up_proj = nn.Linear(config.width, config.ffn_width, bias=False)
        self.down_proj = nn.Linear(config.ffn_width, config.width, bias=False)
        self.tanh_gelu = config.activation == "gelu"

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate_proj(x)
        gate = F.gelu(gate, approximate="tanh") if self.tanh_gelu else F.silu(gate)
        return self.down_proj(gate * self.up_proj(x))


class Layer(nn.Module):
    """One decoder layer: block attention over [memory segments; FAM; own causal prefix], then the FAM's own update."""

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

    @staticmethod
    def _norm(config: ModelConfig, wanted: bool) -> nn.Module:
        return nn.RMSNorm(config.width, eps=config.norm_eps) if wanted else nn.Identity()

    def forward(self, x: Tensor, state: LayerState, fresh: Tensor, at: Geometry, output: bool) -> Tensor | None:
        """Reads tokens of one block into ``state`` (changed in place) and gives their latents.

        Args:
            x: [b, t, d] latents of the layer below.
            state: this layer's memory.
            fresh: [b], see ``StreamState``.
            at: where the tokens stand.
            output: ``False`` where nobody needs the latents: then only what the state needs is computed.

        Returns:
            [b, t, d], or ``None`` without ``output``.
        """
        normed = self.attention_norm(x)
        keys, values = self.attention.keys_values(normed, at.tokens)
        block_keys, block_values = self._own_block(state, keys, values, at)
        latents = None
        if output:
            recent = slice(state.memory_keys.shape[2] - at.filled, None)
            latents = self._residual(
                x,
                self.attention.attend(
                    self.attention.queries(normed, at.tokens),
                    torch.cat((state.memory_keys[:, :, recent], state.fam_keys, block_keys), dim=2),
                    torch.cat((state.memory_values[:, :, recent], state.fam_values, block_values), dim=2),
                    at.masks,
                ),
            )
        if at.completes:
            if self.config.fam_slots:
                self.set_fam(state, self._update_fam(state, fresh, block_keys, block_values, at), at)
            self._shift_memory(state, block_keys, block_values, at)
        return latents

    def initial_fam(self, x: Tensor, at: Geometry) -> Tensor:
        """The summary embeddings one layer up, attending to one another alone: [b, f, d] -> same (appendix B.1)."""
        normed = self.attention_norm(x)
        keys, values = self.attention.keys_values(normed, at.fam_keys)
        return self._residual(x, self.attention.attend(self.attention.queries(normed, at.fam_keys), keys, values))

    def update_again(self, state: LayerState, fresh: Tensor, at: Geometry, stride: float) -> None:
        """See ``Decoder.update_again``."""
        self.set_fam(state, self._update_fam(state, fresh, state.block_keys, state.block_values, at, stride), at)

    def set_fam(self, state: LayerState, fam: Tensor, at: Geometry) -> None:
        """Puts ``fam`` [b, f, d] in place, with its keys and values for the block to come."""
        state.fam = fam
        state.fam_keys, state.fam_values = self.attention.keys_values(self.attention_norm(fam), at.fam_keys)

    def _residual(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.attention_out_norm(attended)
        return x + self.ffn_out_norm(self.ffn(self.ffn_norm(x)))

    def _own_block(self, state: LayerState, keys: Tensor, values: Tensor, at: Geometry) -> tuple[Tensor, Tensor]:
        """Keys and values of the block up to and including the new tokens; what is unfinished is kept in ``state``."""
        end = at.offset + at.count
        if at.completes and not at.offset:
            return keys, values
        if self.config.attention == "full":
            state.block_keys = torch.cat((state.block_keys, keys), dim=2)
            state.block_values = torch.cat((state.block_values, values), dim=2)
            return state.block_keys, state.block_values
        if torch.is_grad_enabled():  # the buffer's older contents may be part of a graph
            state.block_keys, state.block_values = state.block_keys.clone(), state.block_values.clone()
        state.block_keys[:, :, at.offset : end] = keys
        state.block_values[:, :, at.offset : end] = values
        return state.block_keys[:, :, :end], state.block_values[:, :, :end]

    def _update_fam(
        self, state: LayerState, fresh: Tensor, keys: Tensor, values: Tensor, at: Geometry, stride: float = 1
    ) -> Tensor:
        """Algorithm 2: FAM queries see [previous FAM; whole block], which has ``keys`` and ``values``."""
        attended = self.attention.attend(
            self.attention.queries(self.attention_norm(state.fam), at.fam_queries),
            torch.cat((state.fam_keys, keys), dim=2),
            torch.cat((state.fam_values, values), dim=2),
        )
        carried = state.fam.masked_fill(fresh[:, None, None], 0) / stride
        fam = self._residual(carried, attended) if self.config.fam_ffn else carried + self.attention_out_norm(attended)
        if self.config.fam_norm == "none":
            return fam
        return self.config.fam_scale * F.rms_norm(fam, fam.shape[-1:])

    def _shift_memory(self, state: LayerState, block_keys: Tensor, block_values: Tensor, at: Geometry) -> None:
        """Makes the finished block the newest memory segment; the oldest one drops out."""
        length = self.config.memory_length
        if not length:
            return
        keys = rotate(torch.cat((state.memory_keys, block_keys), dim=2)[:, :, -length:], at.step_back)
        values = torch.cat((state.memory_values, block_values), dim=2)[:, :, -length:].contiguous()
        if self.config.stop_gradient:
            keys, values = keys.detach(), values.detach()
        state.memory_keys, state.memory_values = keys, values


class Decoder(nn.Module):
    """A decoder whose blocks attend as ``config.attention`` says.

    A model reads a stream: ``start`` a state, ``read`` tokens in any chunking, turn the latents that are needed into
    ``logits``. Any chunking gives the same latents.

    Attributes:
        position_offset: added to every position. Rotary attention knows only differences of positions, so it changes
            nothing but rounding; the paper draws it at random in training (appendix B.2.2).
        skipped: where the tokens of a block stand, if not one after another; for training, see ``SkippedPositions``.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(Layer(config, number) for number in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.head = None if config.tie_embeddings else nn.Linear(config.width, config.vocab_size, bias=False)
        self.fam_embedding = nn.Parameter(torch.empty(config.fam_slots, config.width)) if config.fam_slots else None
        self.position_offset = 0
        self.skipped: SkippedPositions | None = None
        self._prepare()

    def reconfigure(self, config: ModelConfig) -> None:
        """Goes on under a config that differs in what the weights know nothing of, such as ``block_size``.

        States of the old one may no longer fit.
        """
        if config != self.config:
            self.config = config
            for layer in self._stack:
                layer.config = config
            self._prepare()

    @property
    def _stack(self) -> list[Layer]:
        return cast(list[Layer], list(self.layers))

    def _prepare(self) -> None:
        config = self.config
        reach = max(config.memory_length, config.block_size)
        self._rotary = {
            local: RotaryTable(rope_frequencies(config, local), reach, config.block_size)
            for local in {layer.local for layer in self._stack}
        }
        self._masks: dict[bool, tuple[tuple[object, ...], list[Tensor] | None]] = {}

    def initialise(self, seed: int) -> None:
        """Draws all weights anew.

        Embeddings, the FAM's among them, are normal with deviation 0.02; matrices keep the scale of what they read, and
        those into the residual stream are scaled down by depth. With ``qkv_bias`` all heads of the first layer but one
        begin as position heads, see ``_look_back``.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if name.endswith("norm.weight"):
                nn.init.ones_(weight)
            elif weight.dim() == 1:
                nn.init.zeros_(weight)
            elif "embedding" in name:
                nn.init.normal_(weight, std=0.02, generator=generator)
            else:
                into_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                depth = 2 * self.config.layers if into_residual else 1
                nn.init.normal_(weight, std=(weight.shape[1] * depth) ** -0.5, generator=generator)
        if self.config.qkv_bias:
            for head in range(self.config.kv_heads - 1):
                self._look_back(head, tokens=head + 1)

    @torch.no_grad()
    def _look_back(self, head: int, tokens: int) -> None:
        """Makes a first-layer key/value head look ``tokens`` back, whatever stands there.

        Copying needs to know what came just before each token. From plain random weights such heads are slow to form;
        with them as a place to start from, copying is learned in some two hundred steps.
        """
        attention = self._stack[0].attention
        width, group = self.config.head_width, self.config.heads // self.config.kv_heads
        angles = -tokens * self._rotary[self._stack[0].local].frequencies
        towards, ahead = (
            torch.cat((angles.cos(), angles.sin())),
            torch.cat((torch.ones_like(angles), torch.zeros_like(angles))),
        )
        keys = slice(head * width, (head + 1) * width)
        queries = slice(head * group * width, (head + 1) * group * width)
        attention.k_proj.bias[keys] = 5 * ahead.to(attention.k_proj.weight.dtype)
        attention.q_proj.bias[queries] = 5 * towards.to(attention.q_proj.weight.dtype).repeat(group)
        attention.k_proj.weight[keys] *= 0.3
        attention.q_proj.weight[queries] *= 0.3

    def start(self, batch: int, fam: Sequence[Tensor] | None = None) -> StreamState:
        """A state that has read nothing.

        Args:
            batch: number of streams.
            fam: one [b, f, d] a layer to begin with instead of the learned initial FAM (random state passing,
                appendix B.2.3).
        """
        config = self.config
        like = self.embedding.weight
        length = 0 if config.attention == "full" else config.block_size

        def empty(tokens: int) -> Tensor:
            return like.new_zeros(batch, config.kv_heads, tokens, config.head_width)

        layers = [
            LayerState(
                memory_keys=empty(config.memory_length),
                memory_values=empty(config.memory_length),
                block_keys=empty(length),
                block_values=empty(length),
                fam=like.new_zeros(batch, 0, config.width),
                fam_keys=empty(0),
                fam_values=empty(0),
            )
            for _ in range(config.layers)
        ]
        fresh = torch.ones(batch, dtype=torch.bool, device=like.device)
        state = StreamState(layers, 0, fresh)
        if self.fam_embedding is not None:
            initial = self._initial_fam(batch)
            self.set_fam(state, initial if fam is None else fam)
            state.fresh = fresh if fam is None else ~fresh
        return state

    def set_fam(self, state: StreamState, fam: Sequence[Tensor]) -> None:
        """Replaces the FAM of every layer, one [b, f, d] each, in ``state``."""
        at = self._geometries(0, 1)
        for layer, layer_state, latents in zip(self._stack, state.layers, fam, strict=True):
            layer.set_fam(layer_state, latents, at[layer.local])

    def update_again(self, state: StreamState, stride: float = 1) -> None:
        """Updates the FAM of every layer once more by the block just finished, in ``state``.

        A layer's FAM depends on its last value and on that layer's keys and values of a block alone, so what a block of
        filler does to a memory can be repeated without reading it again. Only the last part of a block that was read
        in several leaves them in the state.

        Args:
            state: changed in place.
            stride: stand for so many updates at once, about: what is added weighs so many times as much against what
                is carried. Only with ``fam_norm: rms``, and well below ``fam_scale``.
        """
        assert stride == 1 or self.config.fam_norm == "rms"
        at = self._geometries(0, self.config.block_size)
        for layer, layer_state in zip(self._stack, state.layers, strict=True):
            layer.update_again(layer_state, state.fresh, at[layer.local], stride)

    def read(self, tokens: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """Reads on.

        Args:
            tokens: [b, t] int64, t at least 1, crossing block boundaries as it may.
            state: where the streams stand; consumed (see ``StreamState``).

        Returns:
            The top latents [b, t, d], normed, and the state after the tokens.
        """
        latents = []
        for chunk in self._within_blocks(tokens, state):
            x, state = self._read_within_block(chunk, state, output=True)
            assert x is not None
            latents.append(x)
        return self.norm(torch.cat(latents, dim=1)), state

    def prefill(self, tokens: Tensor, state: StreamState) -> StreamState:
        """As ``read``, but computes only what the state needs.

        That spares the top layer's attention and feed-forward, and under BSWA without memory segments, which keeps
        nothing of a block that is over, all of a block that these tokens finish.
        """
        for chunk in self._within_blocks(tokens, state):
            _, state = self._read_within_block(chunk, state, output=False)
        return state

    def logits(self, latents: Tensor) -> Tensor:
        """[..., d] from ``read`` -> [..., vocabulary]; ask only for the positions that are needed."""
        return F.linear(latents, self.embedding.weight) if self.head is None else self.head(latents)

    def _within_blocks(self, tokens: Tensor, state: StreamState) -> Sequence[Tensor]:
        """``tokens`` cut where blocks end."""
        if self.config.attention == "full":
            return [tokens]
        first = self.config.block_size - state.tokens_read % self.config.block_size
        return [c for c in (tokens[:, :first], *tokens[:, first:].split(self.config.block_size, dim=1)) if c.shape[1]]

    def _read_within_block(self, tokens: Tensor, state: StreamState, output: bool) -> tuple[Tensor | None, StreamState]:
        geometries = self._geometries(state.tokens_read, tokens.shape[1])
        completes = next(iter(geometries.values())).completes
        if completes and not output and not self.config.memory_length and not self.config.fam_slots:
            read = state.tokens_read + tokens.shape[1]
            return None, replace(state, tokens_read=read, fresh=torch.zeros_like(state.fresh))
        x = self._scaled(self.embedding(tokens))
        layers = [replace(layer) for layer in state.layers]
        for i, layer in enumerate(self._stack):
            x = layer(x, layers[i], state.fresh, geometries[layer.local], output or i + 1 < len(layers))
        fresh = torch.zeros_like(state.fresh) if completes else state.fresh
        return x, StreamState(layers, state.tokens_read + tokens.shape[1], fresh)

    def _scaled(self, embeddings: Tensor) -> Tensor:
        scale = self.config.embedding_scale
        # Rounded to the weights' precision first, as the checkpoints that need it were trained.
        return embeddings if scale == 1 else embeddings * embeddings.new_tensor(scale)

    def _initial_fam(self, batch: int) -> list[Tensor]:
        """One initial FAM a layer: the summary embeddings forwarded up the layers on their own (appendix B.1)."""
        assert self.fam_embedding is not None
        at = self._geometries(0, 1)
        fams = [self._scaled(self.fam_embedding[None])]
        for layer in self._stack[:-1]:
            fams.append(layer.initial_fam(fams[-1], at[layer.local]))
        return [fam.expand(batch, -1, -1) for fam in fams]

    def _geometries(self, tokens_read: int, count: int) -> dict[bool, Geometry]:
        """Where the next ``count`` tokens stand, for layers that are local and those that are not."""
        return {local: self._geometry(tokens_read, count, local) for local in self._rotary}

    def _geometry(self, tokens_read: int, count: int, local: bool) -> Geometry:
        config, like, rotary = self.config, self.embedding.weight, self._rotary[local]
        size, slots = config.block_size, config.fam_slots
        whole = config.attention == "full"
        offset = tokens_read if whole else tokens_read % size
        filled = 0 if whole else min(config.memory_length, tokens_read // size * size)
        place, span = self.position_offset, size
        tokens = rotary.at(place + offset, count, like)
        if self.skipped and not whole:
            span = self.skipped.span
            tokens = rotary.of(place + self.skipped.tokens[offset : offset + count], like)
        query_start = span - slots if config.fam_query_position == "current" else -slots
        return Geometry(
            offset=offset,
            count=count,
            filled=filled,
            completes=not whole and offset + count == size,
            tokens=tokens,
            fam_keys=rotary.at(place - slots, slots, like),
            fam_queries=rotary.at(place + query_start, slots, like),
            step_back=rotary.at(-size, 1, like) if span == size else rotary.of(torch.tensor([-span]), like),
            masks=self._block_masks(local, filled, offset, count, like.device),
        )

    def _block_masks(
        self, local: bool, filled: int, offset: int, count: int, device: torch.device
    ) -> list[Tensor] | None:
        """The masks of whole blocks repeat from block to block, so the last ones are kept."""
        key = (filled, offset, count, device)
        if local not in self._masks or self._masks[local][0] != key:
            window = self.config.local_window if local else None
            masks = block_masks(filled, self.config.fam_slots, offset, count, window, device)
            self._masks[local] = (key, masks)
        return self._masks[local][1]
