"""Full causal attention: no blocks and nothing written; keys and values of the whole text stay, and the state grows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from famcli.models.memories.base import Memory, first_seen

if TYPE_CHECKING:
    from famcli.models.memories.network import Shape


@dataclass(frozen=True)
class Full(Memory):
    """Every token sees every token before it."""

    name = "full"
    summary = "causal attention over the whole text; the state grows with it"
    whole = True

    def describe(self, config: Shape) -> str:
        return self.name

    def receptive_field(self, config: Shape) -> int | None:
        """Bounded only where every layer sees a local window."""
        if not all(config.is_local(number) for number in range(config.layers)):
            return None
        last = config.block_size - 1  # any token: full attention looks the same from all of them
        return last - first_seen(config, last, None) + 1
