"""A memory for famcli: the mean of all blocks so far, a few slots of it, beside block sliding window attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from famcli.errors import UserError
from famcli.models.memories.base import Block, Part, setting
from famcli.models.memories.window import Window

if TYPE_CHECKING:
    from torch import Tensor

    from famcli.models.memories.network import KeysValues, LayerView, Place, Shape, State


@dataclass(frozen=True)
class RunningMean(Window):
    """Each block is cut into ``mean_slots`` stretches; slot i is the mean over the i-th stretch of every block so far.

    State of a layer besides that of ``Window``: ``mean_keys`` and ``mean_values`` [b, g, n, k]. It has no weights.
    """

    name = "running-mean"
    summary = "the mean of all blocks so far in a few slots, beside the last blocks"

    mean_slots: int = setting(16, "n: slots that hold the mean of all blocks so far; block_size is a multiple of it")

    def check(self, config: Shape) -> None:
        super().check(config)
        if self.mean_slots < 1 or config.block_size % self.mean_slots:
            raise UserError(f"model field 'mean_slots' must divide block_size ({config.block_size})")

    def describe(self, config: Shape) -> str:
        return f"{super().describe(config)}, n {self.mean_slots}"

    def receptive_field(self, config: Shape) -> int | None:
        return None  # the mean has something of every block

    def state_values(self, config: Shape) -> int:
        return super().state_values(config) + 2 * self.mean_slots * config.kv_heads * config.head_width

    def start(self, config: Shape, batch: int, like: Tensor) -> State:
        shape = (batch, config.kv_heads, self.mean_slots, config.head_width)
        means = {name: like.new_zeros(shape) for name in ("mean_keys", "mean_values")}
        return {**super().start(config, batch, like), **means}

    def parts(self, config: Shape, blocks: int) -> tuple[Part, ...]:
        return (*super().parts(config, blocks), Part(self.mean_slots if blocks else 0))

    def slots(self, state: State, parts: Sequence[Part]) -> list[KeysValues]:
        count = parts[-1].count  # none before the first block is complete: then the means are of nothing
        means = (state["mean_keys"][:, :, :count], state["mean_values"][:, :, :count])
        return [*super().slots(state, parts[:-1]), means]

    def forgets(self, config: Shape, blocks: int) -> bool:
        return False

    def write(self, block: Block, state: State, layer: LayerView, at: Place) -> State:
        """The mean over one block more. Its keys stand where the block before the one being read stands."""
        changed = super().write(block, state, layer, at)
        for name, new in (("mean_keys", at.moved(block.keys, -at.span)), ("mean_values", block.values)):
            mean_of_block = new.unflatten(2, (self.mean_slots, -1)).mean(dim=3)
            changed[name] = state[name] + (mean_of_block - state[name]) / (at.blocks + 1)
        return changed
