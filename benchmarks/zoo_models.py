"""The models of ``benchmarks/zoo.py``, and what they are asked."""

from __future__ import annotations

from typing import Any

from famcli.models.config import ModelConfig

BLOCK = 16
SHAPE: dict[str, Any] = {
    **{"vocab_size": 257, "width": 128, "layers": 3, "heads": 4, "kv_heads": 4, "head_width": 32, "ffn_width": 256},
    **{"qkv_bias": True, "tie_embeddings": True, "block_size": BLOCK},
}
MEMORIES: dict[str, dict[str, Any]] = {
    "none": {"attention": "bswa"},
    "window": {"attention": "bswa", "memory_segments": 1},
    "persistent": {"attention": "persistent", "persistent_length": 11},
    "fam": {"attention": "fam", "fam_length": 11, "fam_norm": "rms", "fam_scale": 4.0},
    "fam-paper": {"attention": "fam", "fam_length": 11},
    "fam-gate": {"attention": "fam", "fam_length": 11, "fam_gate": "fixed"},
    "infini": {"attention": "infini"},
    "infini-delta": {"attention": "infini", "infini_rule": "delta"},
    "rmt": {"attention": "rmt", "rmt_length": 11},
    "rmt-last-4": {"attention": "rmt", "rmt_length": 3, "rmt_summaries": 4},
    "landmark": {"attention": "landmark", "landmark_blocks": 1, "landmark_top": 1},
    "armt": {"attention": "armt", "armt_length": 4, "armt_features": 5},
    "gated-delta": {"attention": "gated_delta", "matrix_heads": 4},
    "gated-delta-within": {"attention": "gated_delta", "matrix_heads": 4, "delta_reads": "within"},
    "titans": {"attention": "titans", "matrix_heads": 2},
    "titans-mal": {"attention": "titans", "matrix_heads": 2, "matrix_place": "mal"},
    "titans-mac": {"attention": "titans", "matrix_heads": 2, "matrix_place": "mac"},
    "titans-network": {"attention": "titans", "titans_depth": 2, "titans_hidden": 1},
    "full": {"attention": "full"},
}
ASKED: dict[str, dict[str, Any]] = {
    "remember": {"pairs": [1, 2, 4, 8, 16], "queries": 16, "trials": 12, "key_symbols": 1, "block": BLOCK},
    "rewrite": {"pairs": [8, 16, 64], "queries": 8, "trials": 12, "key_symbols": 1, "block": BLOCK},
}


def config_of(name: str) -> ModelConfig:
    """The model with a memory; no segments unless it says so."""
    segments = {} if name in ("full", "landmark") else {"memory_segments": 0}
    return ModelConfig.from_mapping({**SHAPE, **segments, **MEMORIES[name]}, name)


def state_values(name: str) -> int | None:
    """Numbers that a layer carries beside the open block; ``None`` where they grow."""
    config = config_of(name)
    return None if config.attention == "full" else config.memory.state_values(config)
