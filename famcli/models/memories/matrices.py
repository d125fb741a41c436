"""Matrices of a layer that are read with queries of the memory's own, beside attention, before it or in it.

What such memories differ in is how a block is written into them. What is read is added, through a projection that
begins at zero, so that a pretrained model reads as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from famcli.errors import UserError
from famcli.models.memories.base import Part, Products, setting
from famcli.models.memories.window import Window

if TYPE_CHECKING:
    from torch import Tensor, nn

    from famcli.models.memories.network import LayerView, Shape, State


@dataclass(frozen=True)
class Matrices(Window):
    """A matrix [k, k] for each head of the memory's own: keys of length 1 lead to values.

    State of a layer besides that of ``Window``: ``matrices`` [b, n, k, w], in float32 at least, zeros at first; w is k.

    Attributes:
        rates: numbers that each token sets for each head, from its inputs; the first of them forgets.
    """

    needs_inputs = True
    rates: ClassVar[int]

    memory_segments: int = setting(0, "M: past blocks whose keys and values stay visible, all of them")
    matrix_heads: int = setting(1, "n: matrices in a layer, each as wide as a head of attention")
    matrix_place: Literal["mag", "mal", "mac"] = setting(
        "mag",
        "mag: what is read stands beside attention; mal: before it, and attention sees what was read; mac: in it, as a "
        "second key and value of each token of the block, and once more behind it",
    )

    def check(self, config: Shape) -> None:
        super().check(config)
        if self.matrix_heads < 1:
            raise UserError(f"model field 'matrix_heads' must be at least 1, not {self.matrix_heads}")

    def describe(self, config: Shape) -> str:
        return f"{super().describe(config)}, {self.matrix_place}, n {self.matrix_heads}"

    def inner(self, config: Shape) -> int:
        """Width of all heads together."""
        return self.matrix_heads * config.head_width

    def shapes(self, width: int) -> list[tuple[int, int]]:
        """Rows and columns of what a head has in ``matrices``, for keys and values of this width."""
        return [(width, width)]

    def weights(self, config: Shape) -> int:
        """Numbers in the ``matrices`` of a layer."""
        return self.matrix_heads * sum(rows * columns for rows, columns in self.shapes(config.head_width))

    def state_values(self, config: Shape) -> int:
        return super().state_values(config) + self.weights(config)

    def layer_module(self, config: Shape, number: int) -> nn.Module | None:
        """Rates begin where a block forgets some fifth of what there was, whatever its size."""
        import math

        import torch
        from torch import nn

        heads, width, inner = self.matrix_heads, config.width, self.inner(config)
        into = {name: nn.Linear(width, inner, bias=False) for name in ("query", "key", "value")}
        out, rates = nn.Linear(inner, width, bias=False), nn.Linear(width, self.rates * heads)
        nn.init.zeros_(out.weight)
        begin = torch.tensor([-math.log(4 * config.block_size), *[0.0] * (self.rates - 1)])
        with torch.no_grad():
            rates.bias.copy_(begin.repeat_interleave(heads))
        return nn.ModuleDict({**into, "out": out, "rates": rates})

    def noted_width(self, config: Shape) -> int:
        return 2 * self.inner(config) + self.rates * self.matrix_heads

    def _read_products(self, config: Shape) -> Products:
        return Products(2 * config.width * self.inner(config), self.weights(config))

    def before_products(self, config: Shape) -> Products:
        noted = Products(config.width * self.noted_width(config))
        return noted if self.matrix_place == "mag" else noted + self._read_products(config)

    def mix_products(self, config: Shape) -> Products:
        return Products() if self.matrix_place == "mal" else self._read_products(config)

    def empty(self, config: Shape, batch: int, like: Tensor) -> Tensor:
        from famcli.models.memories.table import precise

        shape = (batch, self.matrix_heads, config.head_width, -1)
        return precise(like.new_zeros(batch, self.weights(config))).view(shape)

    def start(self, config: Shape, batch: int, like: Tensor) -> State:
        return {**super().start(config, batch, like), "matrices": self.empty(config, batch, like)}

    def before(self, x: Tensor, state: State, layer: LayerView) -> Tensor:
        return x + self._read(layer.attention_norm(x), state, layer) if self.matrix_place == "mal" else x

    def beside(self, attended: Tensor, inputs: Tensor, state: State, layer: LayerView) -> Tensor:
        if self.matrix_place == "mal":
            return attended
        return attended + self._read(attended if self.matrix_place == "mac" else inputs, state, layer)

    @property
    def echoes(self) -> bool:
        return self.matrix_place == "mac"

    @property
    def notes_attended(self) -> bool:
        return self.matrix_place == "mac"

    def echo(self, inputs: Tensor, state: State, layer: LayerView) -> Tensor:
        return self._read(inputs, state, layer)

    def visible(self, state: State, parts: Sequence[Part]) -> Tensor | None:
        """Nothing of a memory in which nothing is written yet."""
        if not self.echoes:
            return None
        from torch.nn.functional import pad

        written = state["matrices"].detach().flatten(1).ne(0).any(dim=1, keepdim=True)
        return pad(written.expand(-1, parts[-1].count), (sum(part.count for part in parts[:-1]), 0), value=True)

    def _read(self, inputs: Tensor, state: State, layer: LayerView) -> Tensor:
        return self.brought(self.answered(self.queries(inputs, layer), state, layer), inputs, layer)

    def queries(self, inputs: Tensor, layer: LayerView) -> Tensor:
        """[b, t, d] -> [b, n, t, k], each of length 1."""
        return _unit(self._heads(layer.memory["query"](inputs)))

    def brought(self, found: Tensor, inputs: Tensor, layer: LayerView) -> Tensor:
        """What ``inputs`` [b, t, d] found, [b, n, t, k], in the model's width."""
        read: Tensor = layer.memory["out"](found.transpose(1, 2).flatten(2).to(inputs.dtype))
        return read

    def answered(self, queries: Tensor, state: State, layer: LayerView) -> Tensor:
        """What the matrices have under ``queries`` [b, n, t, k]."""
        from famcli.models.memories.table import multiplied

        return multiplied(queries, state["matrices"])

    def noted(self, inputs: Tensor, layer: LayerView) -> Tensor:
        """Keys, values and rates as they are projected: less to keep than what they are made of."""
        from torch import cat

        return cat([layer.memory[name](inputs) for name in ("key", "value", "rates")], dim=-1)

    def told(self, noted: Tensor | None) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Keys and values [b, n, t, k] of what was ``noted`` [b, t, w]; its rates [b, n, t] before any squashing."""
        from famcli.models.memories.table import precise

        assert noted is not None
        rates = self.rates * self.matrix_heads
        inner = (noted.shape[-1] - rates) // 2
        keys, values, rest = noted.split((inner, inner, rates), dim=-1)
        each = precise(rest).transpose(1, 2).chunk(self.rates, dim=1)
        return _unit(self._heads(keys)), self._heads(values), each

    def _heads(self, x: Tensor) -> Tensor:
        """SiLU of [b, t, n k] -> [b, n, t, k], in float32 at least."""
        from torch.nn.functional import silu

        from famcli.models.memories.table import precise

        return silu(precise(x)).unflatten(-1, (self.matrix_heads, -1)).transpose(1, 2)


def _unit(x: Tensor) -> Tensor:
    from torch.nn.functional import normalize

    return normalize(x, dim=-1)
