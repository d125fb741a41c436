"""Keys and values of past tokens that stay visible: memory segments, and sinks.

Every memory that keeps them extends ``Window``. Segments: all of the last M blocks (arXiv 2404.09173, section 2.1).
Sinks: the first tokens of the stream, once the segments no longer hold them (StreamingLLM, arXiv 2309.17453): heads of
many pretrained models that look for nothing look there, and the model is crippled where they cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from famcli.errors import UserError
from famcli.models.memories.base import Block, Memory, Part, Products, setting

if TYPE_CHECKING:
    from torch import Tensor

    from famcli.models.memories.network import KeysValues, LayerView, Place, Shape, State


@dataclass(frozen=True)
class Window(Memory):
    """Memory segments and sinks.

    State of a layer: ``memory_keys`` and ``memory_values`` [b, g, S, k], the last S tokens of complete blocks, oldest
    first and filled from the end, keys turned to -S .. -1; ``sink_keys`` and ``sink_values`` [b, g, N, k], keys turned
    to the N positions before all others, see ``sink_distance``.
    """

    memory_segments: int = setting(3, "M: past blocks whose keys and values stay visible, all of them")
    stop_gradient: bool = setting(False, "cut the gradient into memory segments and sinks (the paper's M1_SG)")
    sinks: int = setting(0, "N: first tokens of a stream whose keys and values stay visible in every block")

    def check(self, config: Shape) -> None:
        for name in ("memory_segments", "sinks"):
            if getattr(self, name) < 0:
                raise UserError(f"model field '{name}' must be at least 0, not {getattr(self, name)}")
        if self.sinks > config.block_size:
            raise UserError(f"model field 'sinks' must be at most block_size ({config.block_size}), not {self.sinks}")

    def describe(self, config: Shape) -> str:
        sinks = f", N {self.sinks}" if self.sinks else ""
        return f"{self.name}, B {config.block_size}, M {self.memory_segments}{sinks}"

    def memory_length(self, config: Shape) -> int:
        """``S``: tokens held in memory segments once they are full."""
        return self.memory_segments * config.block_size

    def window(self, config: Shape) -> int | None:
        """``(M + 1) x B``, and the sinks."""
        return self.memory_length(config) + config.block_size + self.sinks

    def state_values(self, config: Shape) -> int:
        return 2 * (self.memory_length(config) + self.sinks) * config.kv_heads * config.head_width

    def reach(self, config: Shape) -> int:
        return self.memory_length(config) + self.sinks

    def write_products(self, config: Shape, blocks: int) -> Products:
        """None: keys and values are kept as they are."""
        return Products()

    def start(self, config: Shape, batch: int, like: Tensor) -> State:
        def empty(tokens: int) -> Tensor:
            return like.new_zeros(batch, config.kv_heads, tokens, config.head_width)

        length = self.memory_length(config)
        sinks = {name: empty(self.sinks) for name in ("sink_keys", "sink_values") if self.sinks}
        return {"memory_keys": empty(length), "memory_values": empty(length), **sinks}

    def parts(self, config: Shape, blocks: int) -> tuple[Part, ...]:
        """[sinks; segments]: the sinks from the block on whose segments no longer hold them."""
        filled = min(self.memory_segments, blocks) * config.block_size
        segments = (Part(filled, first=-filled),)
        return (Part(self.sinks), *segments) if self.sinks and blocks > self.memory_segments else segments

    def slots(self, state: State, parts: Sequence[Part]) -> list[KeysValues]:
        *sinks, segments = parts
        recent = slice(state["memory_keys"].shape[2] - segments.count, None)
        kept = (state["memory_keys"][:, :, recent], state["memory_values"][:, :, recent])
        return [*((state["sink_keys"], state["sink_values"]) for _ in sinks), kept]

    def sink_distance(self, at: Place) -> int:
        """Positions before a block that other keys of the memory take; the sinks stand before them."""
        return self.memory_segments * at.span

    def write(self, block: Block, state: State, layer: LayerView, at: Place) -> State:
        """The finished block becomes the newest segment, the oldest one drops out; the first block leaves its sinks."""
        from torch import cat

        changed: State = {}
        length = state["memory_keys"].shape[2]
        if length:
            keys = cat((state["memory_keys"], block.keys), dim=2)[:, :, -length:]
            values = cat((state["memory_values"], block.values), dim=2)[:, :, -length:].contiguous()
            changed |= {"memory_keys": at.moved(keys, -at.span), "memory_values": values}
        if self.sinks and not at.blocks:
            back = -(self.sink_distance(at) + self.sinks)
            changed["sink_keys"] = at.first_moved(block.keys[:, :, : self.sinks], back)
            changed["sink_values"] = block.values[:, :, : self.sinks].clone()
        if self.stop_gradient:
            changed = {name: tensor.detach() for name, tensor in changed.items()}
        return changed
