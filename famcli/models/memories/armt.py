"""Associative recurrent memory transformer: a table in every layer, written by the delta rule from memory tokens that
are read after each block, and added to the layer's input (Rodkin et al., arXiv 2407.04841).

As in the authors' code: the memory tokens are learned and the same for every block, and nothing but the table passes
on; the matrix of values begins at zero, so that a pretrained model reads as before; gamma is from 0 to 1 and has no
gradient; what is read is divided by its weight and 1e-5. Departures: the memory tokens stand at the positions that
follow the block, since rotary models have no table of positions; gamma is worked out without these 1e-5 above the
fraction and with them below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from famcli.errors import UserError
from famcli.models.memories.base import Block, Products, setting
from famcli.models.memories.window import Window

if TYPE_CHECKING:
    from torch import Tensor, nn

    from famcli.models.memories.network import LayerView, Place, Shape, State

ROLLS = 3
"""``nu`` of the feature map, DPFP-3: each feature is a product of two, at most so many places apart."""

EPSILON = 1e-5


@dataclass(frozen=True)
class Armt(Window):
    """A table a layer, of 6 ``armt_features`` rows.

    State of a layer besides that of ``Window``: ``armt_table`` [b, 6 e, d + 1], in float32 at least; its last column is
    the paper's ``z``.
    """

    name = "armt"
    summary = "associative memory: a table a layer, rewritten from memory tokens and added to the layer's input"
    carried: ClassVar[tuple[str, ...]] = ("armt_table",)

    memory_segments: int = setting(0, "M: past blocks whose keys and values stay visible, all of them")
    armt_length: int = setting(10, "m: memory tokens that are read after each block")
    armt_features: int = setting(64, "e: width of the table's keys and queries; their features are six times as many")

    def check(self, config: Shape) -> None:
        super().check(config)
        for name, least in (("armt_length", 1), ("armt_features", 2)):
            if getattr(self, name) < least:
                raise UserError(f"model field '{name}' must be at least {least}, not {getattr(self, name)}")

    def describe(self, config: Shape) -> str:
        return f"{super().describe(config)}, m {self.armt_length}, e {self.armt_features}"

    def _table(self, config: Shape) -> tuple[int, int]:
        return 2 * ROLLS * self.armt_features, config.width + 1

    def state_values(self, config: Shape) -> int:
        rows, columns = self._table(config)
        return super().state_values(config) + rows * columns

    def embeddings(self, config: Shape) -> Mapping[str, int]:
        return {"armt_embedding": self.armt_length}

    def extra(self, config: Shape) -> str | None:
        return "armt_embedding"

    def layer_module(self, config: Shape, number: int) -> nn.Module | None:
        from torch import nn

        width, features = config.width, self.armt_features
        value = nn.Linear(width, width, bias=False)
        nn.init.zeros_(value.weight)
        keys = {name: nn.Linear(width, features, bias=False) for name in ("query", "key")}
        return nn.ModuleDict({**keys, "value": value, "rate": nn.Linear(width, 1)})

    def write_products(self, config: Shape, blocks: int) -> Products:
        """Keys, values and rates of the memory tokens; what the table has of them, and what it gets."""
        rows, columns = self._table(config)
        dense = config.width * (self.armt_features + config.width + 1)
        return Products(dense, 2 * rows * columns) * self.armt_length

    def before_products(self, config: Shape) -> Products:
        rows, columns = self._table(config)
        return Products(config.width * self.armt_features, rows * columns)

    def start(self, config: Shape, batch: int, like: Tensor) -> State:
        from famcli.models.memories.table import precise

        table = precise(like.new_zeros(batch, *self._table(config)))
        return {**super().start(config, batch, like), "armt_table": table}

    def before(self, x: Tensor, state: State, layer: LayerView) -> Tensor:
        from famcli.models.memories.table import looked_up

        total, weight = looked_up(_features(layer.memory["query"](x)), state["armt_table"])
        return x + (total / (weight + EPSILON)).to(x.dtype)

    def write(self, block: Block, state: State, layer: LayerView, at: Place) -> State:
        assert block.extra is not None
        table = _rewritten(state["armt_table"], block.extra, layer.memory)
        return {**super().write(block, state, layer, at), "armt_table": table}


def _features(x: Tensor) -> Tensor:
    """DPFP-3 [..., e] -> [..., 6 e], in float32 at least."""
    from torch import cat

    from famcli.models.memories.table import precise

    x = precise(x)
    both = cat((x.relu(), (-x).relu()), dim=-1)
    return cat([both * both.roll(roll, dims=-1) for roll in range(1, ROLLS + 1)], dim=-1)


def _rewritten(table: Tensor, latents: Tensor, own: nn.ModuleDict) -> Tensor:
    """The table once ``latents`` [b, m, d] are written, each against the table as it was."""
    from torch import cat

    from famcli.models.memories.table import looked_up, precise, stored

    features, values = _features(own["key"](latents)), precise(own["value"](latents))
    rate = precise(own["rate"](latents)).sigmoid()
    total, weight = looked_up(features, table)
    new = (1 - weight / (features.square().sum(-1, keepdim=True) + EPSILON)).clamp(0, 1).detach()
    return table + stored(features, cat((rate * (values - total / (weight + EPSILON)), new), dim=-1))
