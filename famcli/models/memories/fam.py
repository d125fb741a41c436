"""Feedback attention memory: each layer feeds its own latents back from block to block (arXiv 2404.09173, 2.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from famcli.errors import UserError
from famcli.models.memories.base import Block, Products, setting
from famcli.models.memories.slots import Slots

if TYPE_CHECKING:
    from torch import Tensor, nn

    from famcli.models.memories.network import DecoderView, KeysValues, LayerView, Place, Shape, State


_OF_ATTENTION = ("q", "k", "v", "o")


@dataclass(frozen=True)
class Fam(Slots):
    """F latents a layer that each block's tokens see, and that see the block when it is complete (Algorithm 2).

    State of a layer besides that of ``Slots``, whose keys and values are its own: ``fam`` [b, F, d]; ``fam_initial``
    [b], true while it is still the learned initial one, which holds no context.
    """

    name = "fam"
    summary = "feedback attention memory: latents that each block reads and rewrites, beside the last blocks"
    carried: ClassVar[tuple[str, ...]] = ("fam",)

    fam_query_position: Literal["current", "previous"] = setting(
        "current",
        "RoPE position of the FAM's queries while they compress a block: the last F of that block, or of the block "
        "before, which its keys take. The paper leaves it open (Algorithm 2 against appendix B.2.1)",
    )
    fam_norm: Literal["none", "rms"] = setting(
        "none", "rms: the FAM gets the root mean square fam_scale after every update; none: the paper's bare residual"
    )
    fam_scale: float = setting(
        1.0, "with fam_norm rms: the larger against what an update adds, the more slowly the FAM changes"
    )
    fam_ffn: bool = setting(True, "pass the FAM through the layer's feed-forward, as the paper does (appendix C.1)")
    fam_keep_initial: bool = setting(
        False,
        "the first update keeps the residual of the initial FAM. The paper drops it, since the initial FAM holds no "
        "context (appendix B.1); a pretrained model that is not trained yet needs it",
    )

    fam_null_sink: bool = setting(
        False,
        "the FAM's queries see the sinks with values of zero, so that a latent that looks nowhere else stays as it is; "
        "tokens see them as they are",
    )
    fam_rank: int = setting(
        0,
        "r: rank of matrices of the FAM's own, added to the layer's projections where the FAM passes and nowhere else, "
        "so that tokens are read as the base reads them; 0: none, as in the paper",
    )

    fam_gate: Literal["none", "fixed"] = setting(
        "none",
        "fixed: a learned gate a channel weighs what a latent was against what attention gives, in place of the "
        "residual (Block-Recurrent Transformer, arXiv 2203.07852); none: the paper's residual",
    )

    def check(self, config: Shape) -> None:
        super().check(config)
        if not 0 <= self.fam_rank <= config.width:
            raise UserError(f"model field 'fam_rank' must be from 0 to the width ({config.width}), not {self.fam_rank}")
        if not 0 < self.fam_scale < float("inf"):
            raise UserError(f"model field 'fam_scale' must be above 0, not {self.fam_scale}")

    def state_values(self, config: Shape) -> int:
        return super().state_values(config) + self.fam_length * config.width

    def embeddings(self, config: Shape) -> Mapping[str, int]:
        return {"fam_embedding": self.fam_length}

    def layer_module(self, config: Shape, number: int) -> nn.Module | None:
        """Its own matrices: of attention, and of the feed-forward where the FAM passes it; and the gate.

        The gate begins at three quarters of what a latent was.
        """
        if not self.fam_rank and self.fam_gate == "none":
            return None
        import torch
        from torch.nn import ModuleDict, Parameter, ParameterDict

        from famcli.models.memories.low_rank import LowRank

        own = ModuleDict({name: LowRank(*size, self.fam_rank) for name, size in self._own_sizes(config).items()})
        if self.fam_gate == "fixed":
            own["residual"] = ParameterDict({"gate": Parameter(torch.ones(config.width))})
        return own

    def layer_shapes(self, config: Shape, number: int) -> Mapping[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for name, (inputs, outputs) in self._own_sizes(config).items():
            shapes |= {f"{name}.down": (self.fam_rank, inputs), f"{name}.up": (outputs, self.fam_rank)}
        return shapes | ({"residual.gate": (config.width,)} if self.fam_gate == "fixed" else {})

    def _own_sizes(self, config: Shape) -> dict[str, tuple[int, int]]:
        """What its own matrices take and give, by name; none without a ``fam_rank``."""
        if not self.fam_rank:
            return {}
        width, ffn = config.width, config.ffn_width
        heads, kv_heads = config.heads * config.head_width, config.kv_heads * config.head_width
        sizes = {"q": (width, heads), "k": (width, kv_heads), "v": (width, kv_heads), "o": (heads, width)}
        if self.fam_ffn:
            sizes |= {"gate": (width, ffn), "up": (width, ffn), "down": (ffn, width)}
        return sizes

    def write_products(self, config: Shape, blocks: int) -> Products:
        """The queries, what they see, and the FAM's new keys and values."""
        width, heads, keys = config.width, config.heads * config.head_width, config.kv_heads * config.head_width
        rank, own = self.fam_rank, self.fam_rank * (width + heads)  # of its matrices for queries, and for the output
        a_latent = 2 * (width * heads + own)
        if self.fam_ffn:
            a_latent += 3 * (width * config.ffn_width + rank * (width + config.ffn_width))
        kept = 2 * (width * keys + rank * (width + keys))
        seen = (self.sinks if blocks else 0) + self.fam_length + config.block_size
        return Products(self.fam_length * (a_latent + kept), 2 * self.fam_length * heads * seen)

    def start(self, config: Shape, batch: int, like: Tensor) -> State:
        initial = like.new_ones(batch).bool()
        return {**super().start(config, batch, like), "fam_initial": initial}

    def begin(self, decoder: DecoderView, states: Sequence[State]) -> None:
        """The summary embeddings are forwarded up the layers on their own, so that each layer's initial FAM has that
        layer's kind of latents (appendix B.1)."""
        latents = decoder.embed_memory("fam_embedding")
        for number, state in enumerate(states):
            batch = len(state["fam_initial"])
            layer, at = decoder.layer(number), decoder.place(number)
            layer.restore(state, {"fam": latents.expand(batch, -1, -1), "fam_initial": state["fam_initial"]}, at)
            if number + 1 < len(states):
                latents = self._own(layer).alone(latents, at, -self.fam_length)

    def write(self, block: Block, state: State, layer: LayerView, at: Place) -> State:
        return {**super().write(block, state, layer, at), **self._update(block, state, layer, at, 1)}

    def write_again(self, block: Block, state: State, layer: LayerView, at: Place, stride: float = 1) -> State:
        """The FAM updated once more by ``block``; a ``stride`` above 1 only with ``fam_norm: rms``.

        What is added then weighs so many times as much against what is carried, which is near so many updates as long
        as it is well below ``fam_scale``.
        """
        assert stride == 1 or self.fam_norm == "rms"
        return self._update(block, state, layer, at, stride)

    def longest_stride(self) -> float:
        return max(1.0, self.fam_scale / 2) if self.fam_norm == "rms" else 1

    def restore(self, state: State, carried: State, layer: LayerView, at: Place) -> State:
        kept = self._set(carried["fam"], layer, at)
        return {**kept, "fam_initial": carried.get("fam_initial", _none(state["fam_initial"]))}

    def _own(self, layer: LayerView) -> LayerView:
        """The layer as the FAM passes it."""
        if not self.fam_rank:
            return layer
        from famcli.models.memories.low_rank import with_own

        matrices = {name: matrix for name, matrix in layer.memory.items() if name != "residual"}
        parts = {name: f"{'attention' if name in _OF_ATTENTION else 'ffn'}.{name}_proj" for name in matrices}
        return cast("LayerView", with_own(layer, {parts[name]: matrix for name, matrix in matrices.items()}))

    def _set(self, fam: Tensor, layer: LayerView, at: Place) -> State:
        layer = self._own(layer)
        keys, values = layer.attention.keys_values(layer.attention_norm(fam), at.turn(-self.fam_length, fam.shape[1]))
        return {"fam": fam, "fam_keys": keys, "fam_values": values}

    def _values(self, block: Block, at: Place) -> Tensor:
        """The block's values as the FAM's queries see them; the first block has the sinks among its tokens."""
        if not self.fam_null_sink or at.blocks:
            return block.values
        values = block.values.clone()
        values[:, :, : self.sinks] = 0
        return values

    def seen(self, block: Block, state: State, at: Place) -> list[KeysValues]:
        """What the FAM's queries see at the end of a block: [sinks; previous FAM; block]."""
        seen = [(state["fam_keys"], state["fam_values"]), (block.keys, self._values(block, at))]
        if self.sinks and at.blocks:
            values = state["sink_values"]
            seen.insert(0, (state["sink_keys"], values.new_zeros(values.shape) if self.fam_null_sink else values))
        return seen

    def _queries(self, latents: Tensor, layer: LayerView, at: Place) -> Tensor:
        """Queries [b, h, n, k] of the last ``latents`` [b, n, d] at the end of a block."""
        own, count = self._own(layer), latents.shape[1]
        start = (at.span if self.fam_query_position == "current" else 0) - count
        return own.attention.queries(own.attention_norm(latents), at.turn(start, count))

    def _update(self, block: Block, state: State, layer: LayerView, at: Place, stride: float) -> State:
        from torch.nn.functional import rms_norm

        fam, initial, own = state["fam"], state["fam_initial"], self._own(layer)
        attended = own.attention.attend(self._queries(fam, layer, at), self.seen(block, state, at))
        carried = (fam if self.fam_keep_initial else fam.masked_fill(initial[:, None, None], 0)) / stride
        if self.fam_gate == "fixed":
            gate = layer.memory["residual"]["gate"].sigmoid().to(fam.dtype)
            carried = gate * carried + (1 - gate) * own.attention_out_norm(attended)
            attended = attended.new_zeros(attended.shape)
        fam = own.residual(carried, attended) if self.fam_ffn else carried + own.attention_out_norm(attended)
        if self.fam_norm == "rms":
            fam = self.fam_scale * rms_norm(fam, fam.shape[-1:])
        return {**self._set(fam, layer, at), "fam_initial": _none(initial)}


def _none(rows: Tensor) -> Tensor:
    """[b] bool, false for all."""
    return rows.new_zeros(rows.shape)
