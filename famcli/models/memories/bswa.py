"""Block sliding window attention: the last blocks stay visible, and nothing else passes (arXiv 2404.09173, 2.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from famcli.models.memories.base import first_seen
from famcli.models.memories.window import Window

if TYPE_CHECKING:
    from famcli.models.memories.network import Shape


@dataclass(frozen=True)
class Bswa(Window):
    """A token sees all of the last M blocks and its own block up to itself (Algorithm 1)."""

    name = "bswa"
    summary = "block sliding window attention: the last blocks stay visible, whole"

    def receptive_field(self, config: Shape) -> int | None:
        """Through stacked windows: ``layers x M x B`` and the own block, less where layers are local.

        The sinks are left out: they are the first tokens of a stream, however far back.
        """
        length = self.memory_length(config)
        local = any(config.is_local(number) for number in range(config.layers))
        ends = range(config.block_size) if local else [config.block_size - 1]  # the last one reaches farthest
        return max(end - first_seen(config, end, length) + 1 for end in ends)

    def forgets(self, config: Shape, blocks: int) -> bool:
        return not self.memory_segments and (not self.sinks or blocks > 0)
