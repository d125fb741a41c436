"""Slots of a memory: F keys and values a layer that a block's tokens see, beside segments and sinks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from famcli.errors import UserError
from famcli.models.memories.base import Part, setting
from famcli.models.memories.window import Window

if TYPE_CHECKING:
    from famcli.models.memories.network import KeysValues, Place, Shape, State


@dataclass(frozen=True)
class Slots(Window):
    """What both feedback attention memories share.

    State of a layer besides that of ``Window``: ``fam_keys`` and ``fam_values`` [b, g, F, k], as the block being read
    sees them, by default at the positions -F .. -1.
    """

    untrained = "no FAM adapter"

    fam_length: int = setting(64, "F: latents of feedback attention memory in each layer, or tokens that it keeps")

    def check(self, config: Shape) -> None:
        super().check(config)
        if not 1 <= self.fam_length <= config.block_size:
            raise UserError(
                f"model field 'fam_length' must be between 1 and block_size ({config.block_size}), "
                f"not {self.fam_length}"
            )

    def describe(self, config: Shape) -> str:
        return f"{super().describe(config)}, F {self.fam_length}"

    def state_values(self, config: Shape) -> int:
        return super().state_values(config) + self.fam_length * 2 * config.kv_heads * config.head_width

    def reach(self, config: Shape) -> int:
        return max(self.memory_length(config), self.fam_length) + self.sinks

    def parts(self, config: Shape, blocks: int) -> tuple[Part, ...]:
        """[sinks; segments; FAM]. A stream's sinks see no FAM, so that they are what the pretrained model knows."""
        fam = Part(self.fam_length, seen_from=0 if blocks else self.sinks)
        return (*super().parts(config, blocks), fam)

    def slots(self, state: State, parts: Sequence[Part]) -> list[KeysValues]:
        return [*super().slots(state, parts[:-1]), (state["fam_keys"], state["fam_values"])]

    def sink_distance(self, at: Place) -> int:
        """Its own keys stand before the block too."""
        return max(super().sink_distance(at), self.fam_length)
