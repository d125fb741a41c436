"""The one description of a decoder: its shape, and what it carries from block to block."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

from famcli.errors import UserError, unknown_name
from famcli.fields import parse_value
from famcli.models.memories import memory_entry_points, memory_kind, owners_of
from famcli.models.memories.base import Memory

_POSITIVE = (
    "rope_theta",
    "rope_local_theta",
    "rope_factor",
    "rope_low_frequency",
    "rope_high_frequency",
    "norm_eps",
    "embedding_scale",
    "attention_scale",
)


LONGEST_REACH = 1 << 22
"""Most positions whose rotations are made, a gigabyte or two of them: whoever asks for more has mistyped."""


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
        attention: the memory that attention reads, by name: ``full``, ``bswa``, ``fam`` or one of another package.
        block_size: ``B``, tokens in a block; under ``full`` attention, which has no blocks, tokens to read at once.
        memory: the fields of that memory, see its class in ``famcli/models/memories``.
        rope_theta: base of the RoPE wavelengths; ``rope_local_theta`` that of local layers, where it differs.
        rope_scaling: how the wavelengths of a longer context were made: ``linear`` divides all frequencies by
            ``rope_factor``, ``llama3`` only the slow ones, by the four fields named ``rope_*`` after it. Local layers
            with a base of their own are not scaled.
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
        global_every: with ``local_window`` and n here, layers n, 2n, ... are not local; 0 where all are.
        local_layers: in place of ``global_every``, a letter a layer: ``l`` where it is local, ``g`` where it is not.
        trained_context: longest text in tokens that ``full`` attention was trained on, where known.
        weights: ``float``, in the dtype of the computation; or ``int8``, matrices and token embeddings rounded to 8
            bits a value with a scale a row, see ``int8.py``. Norms, biases and the memory's own weights are not.
    """

    vocab_size: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    ffn_width: int
    attention: str = "fam"
    block_size: int = 1024
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
    local_layers: str | None = None
    tie_embeddings: bool = True
    trained_context: int | None = None
    weights: Literal["float", "int8"] = "float"
    memory: Memory = None  # type: ignore[assignment]  # that of ``attention`` with its defaults

    def __post_init__(self) -> None:
        if self.memory is None:
            object.__setattr__(self, "memory", memory_kind(self.attention)())
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
        if self.global_every < 0:
            raise UserError(f"model field 'global_every' must be at least 0, not {self.global_every}")
        if self.local_layers is not None and (
            set(self.local_layers) - {"l", "g"} or self.layers != len(self.local_layers)
        ):
            raise UserError(
                f"model field 'local_layers' must be {self.layers} letters 'l' or 'g', not {self.local_layers}"
            )
        if self.rope_low_frequency >= self.rope_high_frequency:
            raise UserError("model field 'rope_low_frequency' must be below rope_high_frequency")
        if self.heads % self.kv_heads:
            raise UserError(f"model field 'kv_heads' must divide heads: {self.heads} heads, {self.kv_heads} kv_heads")
        if self.head_width % 2:
            raise UserError(f"model field 'head_width' must be even, not {self.head_width}")
        if self.memory.name != self.attention:
            raise UserError(f"model field 'attention' is {self.attention}, and its memory is {self.memory.name}")
        self.memory.check(self)
        if (reach := max(self.memory.reach(self), self.block_size)) > LONGEST_REACH:
            raise UserError(
                f"model field 'block_size' is {self.block_size}, and a block would look back at {reach:,} tokens; "
                f"famcli makes tables for at most {LONGEST_REACH:,}"
            )

    def is_local(self, layer: int) -> bool:
        """Layer number ``layer``, counted from 0, sees ``local_window`` tokens and no more."""
        if self.local_layers is not None:
            return self.local_window is not None and self.local_layers[layer] == "l"
        return self.local_window is not None and not (self.global_every and (layer + 1) % self.global_every == 0)

    def refuse_rounded(self, what: str) -> None:
        """Raises ``UserError`` where weights are rounded: they cannot be ``what``, for instance ``trained``."""
        if self.weights != "float":
            raise UserError(f"weights={self.weights} are rounded, and cannot be {what}", "leave the field weights out")

    @property
    def window(self) -> int | None:
        """Most tokens one layer sees directly; ``None`` for full attention."""
        return self.memory.window(self)

    @property
    def receptive_field(self) -> int | None:
        """Tokens that can influence an output; ``None`` where that is unbounded."""
        return self.memory.receptive_field(self)

    def as_mapping(self) -> dict[str, Any]:
        """All fields by name, those of the memory among them; ``from_mapping`` reads it back."""
        own = {name: getattr(self, name) for name in _own_fields()}
        return {**own, **dataclasses.asdict(self.memory)}

    @classmethod
    def from_mapping(cls, fields: Mapping[str, Any], where: str) -> ModelConfig:
        """Builds a config from YAML, JSON or command-line values.

        Args:
            fields: field name to value; numbers may be strings.
            where: what the error names as the place, for instance ``model preset 'fam-tiny'``.

        Raises:
            UserError: a field is unknown, missing, or not of its type.
        """
        attention = fields.get("attention", "fam")
        try:
            kind = memory_kind(attention)
        except UserError as error:
            raise UserError(f"{where}: {error.message}", error.hint) from None
        own, of_memory = _own_fields(), _hints(kind)
        if clash := sorted(own.keys() & of_memory.keys()):
            raise UserError(f"memory '{kind.name}' has a field '{clash[0]}', which is one of the network's")
        values: dict[str, Any] = {}
        memory: dict[str, Any] = {}
        for name, value in fields.items():
            if name in own:
                values[name] = parse_value(value, own[name], name, where, text=True)
            elif name in of_memory:
                memory[name] = parse_value(value, of_memory[name], name, where, text=True)
            else:
                raise _unknown(name, kind, where)
        required = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING]
        missing = [f"'{name}'" for name in required if name not in values]
        if missing:
            raise UserError(f"{where} lacks the field{'s' * (len(missing) > 1)} {', '.join(missing)}")
        try:
            return cls(**values, memory=kind(**memory))
        except UserError as error:
            raise UserError(f"{where}: {error.message}", error.hint) from None

    def override(self, fields: Mapping[str, Any], where: str) -> ModelConfig:
        """A copy with some fields replaced; raises as ``from_mapping`` does.

        Another ``attention`` keeps those fields of this memory that it has as well.
        """
        kept = self.as_mapping()
        if fields.get("attention", self.attention) != self.attention:
            try:
                known = {**_own_fields(), **_hints(memory_kind(fields["attention"]))}
            except UserError as error:
                raise UserError(f"{where}: {error.message}", error.hint) from None
            kept = {name: value for name, value in kept.items() if name in known}
        return ModelConfig.from_mapping({**kept, **fields}, where)

    def with_memory_of(self, other: ModelConfig) -> ModelConfig:
        """The same network with the attention, block size and memory of ``other``."""
        return dataclasses.replace(self, attention=other.attention, block_size=other.block_size, memory=other.memory)


def default_of(attention: str) -> Mapping[str, Any]:
    """What each field is where nothing sets it; fields that have no default are left out."""
    fields = [*dataclasses.fields(ModelConfig), *dataclasses.fields(memory_kind(attention))]
    return {f.name: f.default for f in fields if f.default is not dataclasses.MISSING and f.name != "memory"}


def check_value(name: str, value: str, where: str) -> None:
    """Makes sure that ``value`` is of the type of the field ``name``, of whichever memory.

    Raises:
        UserError: there is no such field, or it is not.
    """
    hints: dict[str, Any] = {}
    for memory in reversed(memory_entry_points()):
        hints |= _hints(memory_kind(memory))
    hints |= _own_fields()
    if name not in hints:
        raise unknown_name("model field", name, hints)
    parse_value(value, hints[name], name, where, text=True)


def _own_fields() -> dict[str, Any]:
    """The fields of ``ModelConfig`` but ``memory``, and their types."""
    return {name: hint for name, hint in _hints(ModelConfig).items() if name != "memory"}


def _hints(kind: type) -> dict[str, Any]:
    """The dataclass fields of ``kind`` and their types."""
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind)}


def _unknown(name: str, kind: type[Memory], where: str) -> UserError:
    """For a field that neither the network nor its memory has."""
    if owners := owners_of(name):
        return UserError(
            f"{where}: field '{name}' belongs to attention {' and '.join(owners)}, and attention is {kind.name}",
            f"drop it, or add attention={owners[0]}",
        )
    return unknown_name(f"field in {where}:", name, {**_own_fields(), **_hints(kind)})
