"""Infini-attention: a table of all that left the window, read beside attention (Munkhdalai et al., arXiv 2404.07143).

Where this departs from the paper. The paper's gate begins at one half, which halves the attention of a model that was
trained without it; the default gate here adds nothing at first. Key-value heads that several query heads share have
one table. The paper keeps no segments: with some, a block is written when it leaves them, so that nothing counts twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from famcli.models.memories.base import Block, Products, setting
from famcli.models.memories.window import Window

if TYPE_CHECKING:
    from torch import Tensor, nn

    from famcli.models.memories.network import KeysValues, LayerView, Place, Shape, State


@dataclass(frozen=True)
class Infini(Window):
    """A table a key-value head, under keys that are not turned to any position; each query head has a gate.

    State of a layer besides that of ``Window``: ``infini_table`` [b, g, k, k + 1], in float32 at least. Its last column
    is the paper's ``z``.
    """

    name = "infini"
    summary = "Infini-attention: a table of all older blocks, read by linear attention and added through a gate"
    mixes = True
    carried: ClassVar[tuple[str, ...]] = ("infini_table",)

    memory_segments: int = setting(0, "M: past blocks whose keys and values stay visible; the table has older ones")
    infini_rule: Literal["linear", "delta"] = setting(
        "linear", "delta: what the table has under a key already is taken off its value before it is written"
    )
    infini_gate: Literal["tanh", "sigmoid"] = setting(
        "tanh",
        "how a head reads the table, by a weight c that begins at 0: tanh adds tanh(c) of it to attention; sigmoid is "
        "the paper's, sigmoid(c) of it and the rest of attention, which halves an untrained model's attention",
    )

    def describe(self, config: Shape) -> str:
        return super().describe(config) + (", delta" if self.infini_rule == "delta" else "")

    def state_values(self, config: Shape) -> int:
        table = config.kv_heads * config.head_width * (config.head_width + 1)
        return super().state_values(config) + table

    def layer_module(self, config: Shape, number: int) -> nn.Module | None:
        import torch
        from torch import nn

        return nn.ParameterDict({"gate": nn.Parameter(torch.zeros(config.heads))})

    def write_products(self, config: Shape, blocks: int) -> Products:
        """The block that is written, and with the delta rule what is read before."""
        if blocks < self.memory_segments:
            return Products()
        table = config.kv_heads * config.head_width * (config.head_width + 1)
        return Products(attention=table * config.block_size * (2 if self.infini_rule == "delta" else 1))

    def mix_products(self, config: Shape) -> Products:
        return Products(attention=config.heads * config.head_width * (config.head_width + 1))

    def start(self, config: Shape, batch: int, like: Tensor) -> State:
        from famcli.models.memories.table import precise

        table = like.new_zeros(batch, config.kv_heads, config.head_width, config.head_width + 1)
        return {**super().start(config, batch, like), "infini_table": precise(table)}

    def mix(self, attended: Tensor, queries: Tensor, state: State, layer: LayerView) -> Tensor:
        from famcli.models.memories.table import looked_up, mean_of

        table, gate = state["infini_table"], layer.memory["gate"][:, None, None].to(attended.dtype)
        grouped = _features(queries).unflatten(1, (table.shape[1], -1))
        found = mean_of(looked_up(grouped.flatten(2, 3), table))
        found = found.unflatten(2, grouped.shape[2:4]).flatten(1, 2).to(attended.dtype)
        if self.infini_gate == "sigmoid":
            return gate.sigmoid() * found + (1 - gate.sigmoid()) * attended
        return attended + gate.tanh() * found

    def write(self, block: Block, state: State, layer: LayerView, at: Place) -> State:
        changed = super().write(block, state, layer, at)
        if at.blocks < self.memory_segments:  # it leaves later
            return changed
        return {**changed, "infini_table": self._with(self._leaving(block, state, at), state, at)}

    def write_again(self, block: Block, state: State, layer: LayerView, at: Place, stride: float = 1) -> State:
        """The block itself: what leaves when it comes again and again."""
        return {"infini_table": self._with((block.keys, block.values), state, at)}

    def _leaving(self, block: Block, state: State, at: Place) -> KeysValues:
        """Keys, turned to positions from 0 on, and values of the block that is written."""
        if not self.memory_segments:
            return block.keys, block.values
        oldest = slice(0, block.keys.shape[2])
        keys = at.moved(state["memory_keys"][:, :, oldest], self.memory_segments * at.span)
        return keys, state["memory_values"][:, :, oldest]

    def _with(self, written: KeysValues, state: State, at: Place) -> Tensor:
        """The table with a block more, all of it against the table as it was."""
        from famcli.models.memories.table import looked_up, mean_of, precise, stored, with_ones

        table, values = state["infini_table"], precise(written[1])
        features = _features(at.turned_back(written[0]))
        if self.infini_rule == "delta":
            values = values - mean_of(looked_up(features, table))
        return table + stored(features, with_ones(values))


def _features(x: Tensor) -> Tensor:
    """ELU + 1 of keys or queries, in float32 at least."""
    from torch.nn.functional import elu

    from famcli.models.memories.table import precise

    return elu(precise(x)) + 1
