"""Persistent memory: learned keys and values in every layer's softmax (Sukhbaatar et al., arXiv 1907.01470).

Nothing passes from block to block but the window: it is the control of a memory with as many slots, which is seen in
the same way and cannot know the text. In the paper these slots replace the feed-forward, and values begin at random;
here the feed-forward stays, and values begin at zero. The slots stand where those of FAM do, at the F positions before
the block; the paper has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from famcli.errors import UserError
from famcli.models.memories.base import Part, setting
from famcli.models.memories.bswa import Bswa

if TYPE_CHECKING:
    from torch import nn

    from famcli.models.memories.network import KeysValues, LayerView, Place, Shape


@dataclass(frozen=True)
class Persistent(Bswa):
    """Slots of weights, beside memory segments and sinks; a key-value head and a layer has its own."""

    name = "persistent"
    summary = "learned keys and values beside the last blocks: a control, which knows nothing of the text"

    persistent_length: int = setting(64, "F: learned keys and values a key-value head")

    def check(self, config: Shape) -> None:
        super().check(config)
        if self.persistent_length < 1:
            raise UserError(f"model field 'persistent_length' must be at least 1, not {self.persistent_length}")

    def describe(self, config: Shape) -> str:
        return f"{super().describe(config)}, F {self.persistent_length}"

    def reach(self, config: Shape) -> int:
        return max(super().reach(config), self.persistent_length)

    def layer_module(self, config: Shape, number: int) -> nn.Module | None:
        import torch
        from torch import nn

        shape = (config.kv_heads, self.persistent_length, config.head_width)
        keys, values = torch.randn(shape) * config.head_width**-0.5, torch.zeros(shape)
        return nn.ParameterDict({"slot_keys": nn.Parameter(keys), "slot_values": nn.Parameter(values)})

    def parts(self, config: Shape, blocks: int) -> tuple[Part, ...]:
        return (*super().parts(config, blocks), Part(self.persistent_length))

    def learned_slots(self, layer: LayerView, batch: int, at: Place) -> list[KeysValues]:
        keys, values = (layer.memory[name].expand(batch, -1, -1, -1) for name in ("slot_keys", "slot_values"))
        return [(at.moved_to(keys, -self.persistent_length), values)]
