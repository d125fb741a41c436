"""How much memory a model takes, by arithmetic from its config: nothing is loaded, and PyTorch is not imported."""

from __future__ import annotations

import json
from pathlib import Path

from famcli.models.config import ModelConfig


def state_values(config: ModelConfig) -> int:
    """Numbers that the state of one stream holds before it has read anything; see ``StreamState``.

    None where the memory is the ``whole`` text, whose state grows, see ``state_values_per_token``. All others keep this
    size. Flags of a byte a stream are left out.
    """
    if config.memory.whole:
        return 0
    open_block = (1 + config.memory.echoes) * config.block_size * (2 * config.kv_heads * config.head_width)
    inputs = config.block_size * config.memory.noted_width(config) if config.memory.needs_inputs else 0
    return config.layers * (open_block + inputs + config.memory.state_values(config))


def state_values_per_token(config: ModelConfig) -> int:
    """Numbers by which the state of a stream grows with each token that is read."""
    return 2 * config.layers * config.kv_heads * config.head_width if config.memory.whole else 0


def stored_parameters(file: Path) -> int:
    """Weights in a safetensors file, by the header it begins with: its length in 8 bytes, then JSON."""
    with file.open("rb") as opened:
        header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    total = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            size = 1
            for length in tensor["shape"]:
                size *= length
            total += size
    return total
