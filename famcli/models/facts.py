"""What is known of a decoder from its config alone, without PyTorch: all that a run's record and name say of it."""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass
from typing import Any

from famcli.files import source_sha256
from famcli.models.config import ModelConfig, default_of
from famcli.models.shapes import weight_shapes


class ToldByConfig:
    """The part of a ``StreamModel`` that follows from ``config``; see there."""

    config: ModelConfig

    @property
    def receptive_field(self) -> int | None:
        return self.config.receptive_field

    @property
    def longest_text(self) -> int | None:
        """What full attention was trained on, where that is known. Blocks read texts of any length."""
        return self.config.trained_context if self.config.memory.whole else None

    @property
    def description(self) -> dict[str, Any]:
        """The whole config. Where ``weights`` is ``float`` it is left out, as older records have no such field."""
        return {k: v for k, v in self.config.as_mapping().items() if (k, v) != ("weights", "float")}

    @property
    def identity(self) -> dict[str, Any]:
        """What the config sets: a switch that is added later leaves the names of older runs as they are.

        And the source of the memory, where another package brings it.
        """
        defaults = default_of(self.config.attention)
        own = {name: value for name, value in self.description.items() if value != defaults.get(name, MISSING)}
        source = source_sha256(type(self.config.memory))
        return own if source is None else {**own, "memory_source_sha256": source}


@dataclass(frozen=True)
class DecoderFacts(ToldByConfig):
    """``StreamFacts`` of a decoder that was not made, whose memory says its ``weight_shapes``."""

    config: ModelConfig

    @property
    def parameters_count(self) -> int:
        return sum(map(math.prod, (weight_shapes(self.config) or {}).values()))
