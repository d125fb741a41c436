"""Names and shapes of a decoder's weights, by arithmetic from its config: PyTorch is not imported."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from famcli.models.config import ModelConfig
from famcli.models.memories.base import Memory

Shapes = Mapping[str, tuple[int, ...]]


@lru_cache(maxsize=16)
def weight_shapes(config: ModelConfig) -> Shapes | None:
    """Of ``Decoder.state_dict()``, in its order. Weights are taken as they are stored, before any are rounded.

    ``None`` where the memory has weights in the layers and does not say their shapes.
    """
    memory, width = config.memory, config.width
    if not _tells(memory):
        return None
    shapes: dict[str, tuple[int, ...]] = {name: (rows, width) for name, rows in memory.embeddings(config).items()}
    shapes["embedding.weight"] = (config.vocab_size, width)
    network = _layer(config)
    for number in range(config.layers):
        own = {f"memory.{name}": shape for name, shape in memory.layer_shapes(config, number).items()}
        shapes |= {f"layers.{number}.{name}": shape for name, shape in (network | own).items()}
    shapes["norm.weight"] = (width,)
    if not config.tie_embeddings:
        shapes["head.weight"] = (config.vocab_size, width)
    return shapes


def _tells(memory: Memory) -> bool:
    """Whether ``layer_shapes`` says what ``layer_module`` makes: a class that overrides the latter alone does not."""
    order = type(memory).__mro__
    told, made = (next(i for i, kind in enumerate(order) if name in vars(kind)) for name in _TOLD_AND_MADE)
    return told <= made


_TOLD_AND_MADE = ("layer_shapes", "layer_module")


def _layer(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Of one layer without its memory, in the order of ``Layer``'s modules."""
    width, ffn = config.width, config.ffn_width
    before, after = config.norm_placement != "post", config.norm_placement != "pre"
    return {
        **({"attention_norm.weight": (width,)} if before else {}),
        **_attention(config),
        **({"attention_out_norm.weight": (width,)} if after else {}),
        **({"ffn_norm.weight": (width,)} if before else {}),
        "ffn.gate_proj.weight": (ffn, width),
        "ffn.up_proj.weight": (ffn, width),
        "ffn.down_proj.weight": (width, ffn),
        **({"ffn_out_norm.weight": (width,)} if after else {}),
    }


def _attention(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    heads = {"q": config.heads, "k": config.kv_heads, "v": config.kv_heads}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, count in heads.items():
        shapes[f"attention.{name}_proj.weight"] = (count * config.head_width, config.width)
        if config.qkv_bias:
            shapes[f"attention.{name}_proj.bias"] = (count * config.head_width,)
    shapes["attention.o_proj.weight"] = (config.width, config.heads * config.head_width)
    if config.qk_norm != "none":
        of_all = config.qk_norm == "width"
        for name in ("q", "k"):
            shapes[f"attention.{name}_norm.weight"] = (config.head_width * (heads[name] if of_all else 1),)
    return shapes
