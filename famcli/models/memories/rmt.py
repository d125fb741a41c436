"""Recurrent memory transformer: the top layer's outputs at memory tokens stand before the next block (Bulatov et al.,
arXiv 2207.06881), or the summaries of the last blocks do (AutoCompressors, Chevalier et al., arXiv 2305.14788).

A block is read as [memory; tokens; memory]. The first copy sees itself alone, so its keys and values in every layer
are worked out once, when the block before is complete. The second copy is read with the chunk that completes a block.

Where this departs from the papers. The second copy is causal within itself, as in the authors' code. With memory
segments the first copy stands before them. AutoCompressors keep the summaries of all blocks, and the state grows; here
it is the last n, and among the summaries attention is not causal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from famcli.errors import UserError
from famcli.models.memories.base import Block, Part, Products, setting
from famcli.models.memories.window import Window

if TYPE_CHECKING:
    from torch import Tensor

    from famcli.models.memories.network import DecoderView, KeysValues, LayerView, Place, Shape, State


@dataclass(frozen=True)
class Rmt(Window):
    """m memory tokens for the whole model, or the last n times m summaries.

    State of a layer besides that of ``Window``: ``rmt`` [b, r, d], the first copy as it enters the layer, zeros where a
    summary is still to come; ``rmt_keys`` and ``rmt_values`` [b, g, r, k] of it; and, between ``write`` and
    ``complete``, ``rmt_new`` [b, m, d], what the layer made of the second copy. The first layer's ``rmt`` is the
    memory; the others follow from it, and are kept so that training can hand them on.
    """

    name = "rmt"
    summary = "recurrent memory: the model's outputs at memory tokens stand before the next block"
    carried: ClassVar[tuple[str, ...]] = ("rmt",)

    memory_segments: int = setting(0, "M: past blocks whose keys and values stay visible, all of them")
    rmt_length: int = setting(16, "m: memory tokens of the model, or of one summary")
    rmt_summaries: int = setting(
        0,
        "n: the summaries of the last n blocks stay, each written anew from learned vectors (AutoCompressors); "
        "0: one memory, which every block rewrites",
    )

    def check(self, config: Shape) -> None:
        super().check(config)
        for name, least in (("rmt_length", 1), ("rmt_summaries", 0)):
            if getattr(self, name) < least:
                raise UserError(f"model field '{name}' must be at least {least}, not {getattr(self, name)}")

    def describe(self, config: Shape) -> str:
        summaries = f", n {self.rmt_summaries}" if self.rmt_summaries else ""
        return f"{super().describe(config)}, m {self.rmt_length}{summaries}"

    @property
    def rows(self) -> int:
        """``r``: vectors that stand before a block."""
        return self.rmt_length * max(1, self.rmt_summaries)

    def state_values(self, config: Shape) -> int:
        return super().state_values(config) + self.rows * (config.width + 2 * config.kv_heads * config.head_width)

    def reach(self, config: Shape) -> int:
        return self.memory_length(config) + self.rows + self.sinks

    def embeddings(self, config: Shape) -> Mapping[str, int]:
        return {"rmt_embedding": self.rmt_length}

    def extra(self, config: Shape) -> str | None:
        return "rmt_embedding"

    def write_products(self, config: Shape, blocks: int) -> Products:
        """None: the second copy is read as tokens are, and ``complete`` goes on from what came of it."""
        return Products()

    def complete_products(self, config: Shape, blocks: int) -> Products:
        """The first copy on its way up the layers; the last one needs keys and values alone."""
        width, heads, keys = config.width, config.heads * config.head_width, config.kv_heads * config.head_width
        shown, passed = 2 * width * keys, 2 * width * (heads + keys) + 3 * width * config.ffn_width
        dense = self.rows * (config.layers * shown + (config.layers - 1) * passed)
        return Products(dense, (config.layers - 1) * 2 * heads * self.rows**2)

    def start(self, config: Shape, batch: int, like: Tensor) -> State:
        slots = (batch, config.kv_heads, self.rows, config.head_width)
        own = {name: like.new_zeros(slots) for name in ("rmt_keys", "rmt_values")}
        return {**super().start(config, batch, like), **own, "rmt": like.new_zeros(batch, self.rows, config.width)}

    def begin(self, decoder: DecoderView, states: Sequence[State]) -> None:
        """The learned memory; of summaries there are none yet."""
        if not self.rmt_summaries:
            self._show(decoder, states, decoder.embed_memory("rmt_embedding").expand(len(states[0]["rmt"]), -1, -1))

    def parts(self, config: Shape, blocks: int) -> tuple[Part, ...]:
        return (*super().parts(config, blocks), Part(self.rows))

    def slots(self, state: State, parts: Sequence[Part]) -> list[KeysValues]:
        return [*super().slots(state, parts[:-1]), (state["rmt_keys"], state["rmt_values"])]

    def visible(self, state: State, parts: Sequence[Part]) -> Tensor | None:
        """The summaries that there are, and all that stands before them."""
        if not self.rmt_summaries:
            return None
        from torch.nn.functional import pad

        return pad(_filled(state["rmt"]), (sum(part.count for part in parts[:-1]), 0), value=True)

    def extra_inputs(self, learned: Tensor, states: Sequence[State]) -> Tensor:
        """Both copies are equal. A summary is written from the learned vectors."""
        return learned if self.rmt_summaries else states[0]["rmt"]

    def write(self, block: Block, state: State, layer: LayerView, at: Place) -> State:
        assert block.extra is not None
        return {**super().write(block, state, layer, at), "rmt_new": block.extra}

    def complete(self, decoder: DecoderView, states: Sequence[State]) -> None:
        """The top layer's outputs, normed, stand before the next block. A block that comes again leaves none."""
        if "rmt_new" not in states[-1]:
            return
        memory = self.made_of_block(decoder, states)
        for state in states:
            del state["rmt_new"]
        if self.rmt_summaries:
            from torch import cat

            memory = cat((states[0]["rmt"][:, self.rmt_length :], memory), dim=1)
        self._show(decoder, states, memory)

    @staticmethod
    def made_of_block(decoder: DecoderView, states: Sequence[State]) -> Tensor:
        """[b, m, d] what the model makes of a block."""
        made: Tensor = decoder.norm(states[-1]["rmt_new"])
        return made.to(states[0]["rmt"])

    def _show(self, decoder: DecoderView, states: Sequence[State], memory: Tensor) -> None:
        """Brings ``memory`` [b, r, d] up the layers, each vector where there is one, in place."""
        visible = _filled(memory) if self.rmt_summaries else None
        for number, state in enumerate(states):
            layer, at = decoder.layer(number), decoder.place(number)
            layer.restore(state, {"rmt": memory}, at)
            if number + 1 < len(states):
                memory = layer.alone(memory, at, -self.sink_distance(at), visible)
                if visible is not None:
                    visible = visible.to(memory.device)
                    memory = memory * visible[..., None]

    def restore(self, state: State, carried: State, layer: LayerView, at: Place) -> State:
        memory = carried["rmt"]
        turn = at.turn(-self.sink_distance(at), self.rows)
        keys, values = layer.attention.keys_values(layer.attention_norm(memory), turn)
        return {"rmt": memory, "rmt_keys": keys, "rmt_values": values}

    def sink_distance(self, at: Place) -> int:
        """The memory is of older text than the segments and stands before them, and the sinks before all."""
        return self.memory_segments * at.span + self.rows


def _filled(memory: Tensor) -> Tensor:
    """[b, r] true where there is a vector."""
    return memory.detach().ne(0).any(dim=-1)
