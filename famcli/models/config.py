"""The one description of a decoder: its shape, and what a block may attend to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

from famcli.errors import UserError, unknown_name
from famcli.fields import parse_value, read_fields

AttentionKind = Literal["full", "bswa", "fam"]

_POSITIVE = (
    "rope_theta",
    "rope_local_theta",
    "rope_factor",
    "rope_low_frequency",
    "rope_high_frequency",
    "norm_eps",
    "fam_scale",
    "embedding_scale",
    "attention_scale",
)


@dataclass(frozen=True)
class ModelConfig:
    """Shape and attention of a decoder (pre-RMSNorm, SwiGLU, RoPE, grouped-query heads).

    Attributes:
        vocab_size: number of token ids.
        width: ``d``, the width of the residual stream.
        layers: number of decoder layers.
        heads: query heads; ``kv_heads`` key/value heads divide them.
        head_width: ``k``, even because RoPE turns pairs.
        ffn_width: inner width of the SwiGLU feed-forward.
        attention: ``full`` (causal over everything), ``bswa`` (arXiv 2404.09173, section 2.1) or ``fam`` (section 2.2).
        block_size: ``B``, tokens in a block; the stride of BSWA.
        memory_segments: ``M``, past blocks whose keys and values stay visible, all of them.
        fam_length: ``F``, latents of feedback attention memory in each layer (only ``fam``).
        stop_gradient: cut the gradient into memory segments (the paper's ``M1_SG``). The FAM always carries gradient.
        fam_query_position: RoPE position of the FAM queries while they compress a block: ``current`` is the last F
            positions of that block, ``previous`` the last F of the block before, which are also those of the FAM's
            keys. The paper leaves it open (Algorithm 2 against appendix B.2.1).
        fam_norm: ``rms`` brings the FAM to the root mean square ``fam_scale`` after every update, without weights;
            ``none`` is the paper's bare residual.
        fam_scale: the larger it is against what attention and feed-forward add, the more slowly the FAM changes.
        fam_ffn: pass the FAM through the layer's feed-forward, as the paper does (appendix C.1).
        rope_theta: base of the RoPE wavelengths; ``rope_local_theta`` that of local layers, where it differs.
        rope_scaling: how the wavelengths of a longer context were made: ``linear`` divides all frequencies by
            ``rope_factor``, ``llama3`` only the slow ones, by the four fields named ``rope_*`` after it. Local layers
            are not scaled.
        norm_eps: added under the root of every norm.
        norm_placement: of the RMS norms around attention and feed-forward: ``pre`` before each (Llama), ``post`` after
            each (OLMo 2), or ``both`` (Gemma 3).
        qk_norm: RMS norm of queries and keys: of each ``head`` (Qwen3, Gemma 3) or over the whole ``width`` (OLMo 2).
        qkv_bias: biases on queries, keys and values, as Qwen2 has them: with them attention can go by position alone.
        activation: of the feed-forward's gate: ``silu``, or ``gelu`` in its tanh form (Gemma 3).
        embedding_scale: what token embeddings, the FAM's among them, are multiplied by (Gemma 3).
        attention_scale: what scores are multiplied by; ``none`` is one over the root of ``head_width``.
        local_window: tokens, its own included, that a token sees in local layers; ``none`` where no layer is local. The
            FAM is seen in every layer: it is no token of the text.
        global_every: with ``local_window``, every so many-th layer is not local; 0 where all are.
        trained_context: longest text in tokens that ``full`` attention was trained on, where known.
    """

    vocab_size: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    ffn_width: int
    attention: AttentionKind = "fam"
    block_size: int = 1024
    memory_segments: int = 3
    fam_length: int = 64
    stop_gradient: bool = False
    fam_query_position: Literal["current", "previous"] = "current"
    fam_norm: Literal["none", "rms"] = "none"
    fam_scale: float = 1.0
    fam_ffn: bool = True
    rope_theta: float = 10000.0
    rope_local_theta: float | None = None
    rope_scaling: Literal["none", "linear", "llama3"] = "none"
    rope_factor: float = 1.0
    rope_low_frequency: float = 1.0
    rope_high_frequency: float = 4.0
    rope_original_context: int = 8192
    norm_eps: float = 1e-5
    norm_placement: Literal["pre", "post", "both"] = "pre"
    qk_norm: Literal["none", "head", "width"] = "none"
    qkv_bias: bool = False
    activation: Literal["silu", "gelu"] = "silu"
    embedding_scale: float = 1.0
    attention_scale: float | None = None
    local_window: int | None = None
    global_every: int = 0
    tie_embeddings: bool = True
    trained_context: int | None = None

    def __post_init__(self) -> None:
        for name in ("vocab_size", "width", "layers", "heads", "kv_heads", "head_width", "ffn_width", "block_size"):
            if getattr(self, name) < 1:
                raise UserError(f"model field '{name}' must be at least 1, not {getattr(self, name)}")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"model field '{name}' must be above 0, not {value}")
        for name in ("trained_context", "local_window", "rope_original_context"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"model field '{name}' must be at least 1, not {getattr(self, name)}")
        for name in ("memory_segments", "global_every"):
            if getattr(self, name) < 0:
                raise UserError(f"model field '{name}' must be at least 0, not {getattr(self, name)}")
        if self.rope_low_frequency >= self.rope_high_frequency:
            raise UserError("model field 'rope_low_frequency' must be below rope_high_frequency")
        if self.heads % self.kv_heads:
            raise UserError(f"model field 'kv_heads' must divide heads: {self.heads} heads, {self.kv_heads} kv_heads")
        if self.head_width % 2:
            raise UserError(f"model field 'head_width' must be even, not {self.head_width}")
        if self.attention == "fam" and not 1 <= self.fam_length <= self.block_size:
            raise UserError(
                f"model field 'fam_length' must be between 1 and block_size ({self.block_size}), not {self.fam_length}"
            )

    @property
    def memory_length(self) -> int:
        """``S``: tokens held in memory segments once they are full."""
        return 0 if self.attention == "full" else self.memory_segments * self.block_size

    @property
    def fam_slots(self) -> int:
        """Latents of FAM in each layer: ``fam_length``, or 0 where the attention has none."""
        return self.fam_length if self.attention == "fam" else 0

    def is_local(self, layer: int) -> bool:
        """Layer number ``layer``, counted from 0, sees ``local_window`` tokens and no more."""
        return self.local_window is not None and not (self.global_every and (layer + 1) % self.global_every == 0)

    @property
    def window(self) -> int | None:
        """Most tokens one layer sees directly, ``(M + 1) x B``; ``None`` for full attention."""
        return None if self.attention == "full" else self.memory_length + self.block_size

    @property
    def receptive_field(self) -> int | None:
        """Tokens that can influence an output through stacked windows, ``layers x M x B`` and the own block.

        Layers with a ``local_window`` reach no farther than that. ``None`` where it is unbounded: full attention, and
        FAM, which carries information from block to block.
        """
        local = [self.is_local(layer) for layer in range(self.layers)]
        if self.attention == "fam" or (self.attention == "full" and not all(local)):
            return None
        # Full attention looks the same from every token; in blocks the last one reaches farthest, but for local layers.
        ends = range(self.block_size) if self.attention == "bswa" and any(local) else [self.block_size - 1]
        return max(end - self._first_seen(end, local) + 1 for end in ends)

    def _first_seen(self, place: int, local: Sequence[bool]) -> int:
        """The first token, below 0 in earlier blocks, that can influence the output at ``place`` of block 0."""
        for narrow in reversed(local):
            own_block = place // self.block_size * self.block_size
            reach = [own_block - self.memory_length] if self.attention == "bswa" else []
            if narrow and self.local_window is not None:
                reach.append(place - self.local_window + 1)
            place = max(reach)
        return place

    @classmethod
    def from_mapping(cls, fields: Mapping[str, Any], where: str) -> ModelConfig:
        """Builds a config from YAML, JSON or command-line values.

        Args:
            fields: field name to value; numbers may be strings.
            where: what the error names as the place, for instance ``model preset 'fam-tiny'``.

        Raises:
            UserError: a field is unknown, missing, or not of its type.
        """
        return read_fields(cls, fields, where, text=True)

    def override(self, fields: Mapping[str, Any], where: str) -> ModelConfig:
        """A copy with some fields replaced; raises as ``from_mapping`` does."""
        return ModelConfig.from_mapping({**dataclasses.asdict(self), **fields}, where)


def check_value(name: str, value: str, where: str) -> None:
    """Makes sure that ``value`` is of the type of the field ``name``.

    Raises:
        UserError: there is no such field, or it is not.
    """
    hints = get_type_hints(ModelConfig)
    if name not in hints:
        raise unknown_name("model field", name, hints)
    parse_value(value, hints[name], name, where, text=True)
