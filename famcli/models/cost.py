"""How much memory a model takes, reckoned from its config: nothing is loaded, and PyTorch is not imported."""

from __future__ import annotations

import json
from pathlib import Path

from famcli.models.config import ModelConfig


def state_values(config: ModelConfig) -> int:
    """Numbers that the state of one stream holds before it has read anything; see ``StreamState``.

    Under ``full`` attention that is none: its state grows, see ``state_values_per_token``. All others keep this size.
    """
    if config.attention == "full":
        return 0
    tokens = config.memory_length + config.block_size + config.fam_slots
    keys_values = 2 * tokens * config.kv_heads * config.head_width
    return config.layers * (keys_values + config.fam_slots * config.width)


def state_values_per_token(config: ModelConfig) -> int:
    """Numbers by which the state of a stream grows with each token that is read."""
    return 2 * config.layers * config.kv_heads * config.head_width if config.attention == "full" else 0


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
