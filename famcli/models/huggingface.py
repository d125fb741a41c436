"""Models of Llama or Mistral layout as the Hugging Face hub keeps them: their config, tensor names and tokenizer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from famcli.errors import UserError
from famcli.models.config import ModelConfig

MODEL_TYPES = ("llama", "mistral")

_FIELDS = {
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "ffn_width": "intermediate_size",
}
_TENSORS = (
    (r"model\.embed_tokens\.weight", "embedding.weight"),
    (r"model\.layers\.(\d+)\.input_layernorm\.weight", r"layers.\1.attention_norm.weight"),
    (r"model\.layers\.(\d+)\.self_attn\.([qkvo]_proj)\.weight", r"layers.\1.attention.\2.weight"),
    (r"model\.layers\.(\d+)\.post_attention_layernorm\.weight", r"layers.\1.ffn_norm.weight"),
    (r"model\.layers\.(\d+)\.mlp\.((?:gate|up|down)_proj)\.weight", r"layers.\1.ffn.\2.weight"),
    (r"model\.norm\.weight", "norm.weight"),
    (r"lm_head\.weight", "head.weight"),
)
# Written by old versions of transformers; the frequencies follow from rope_theta.
_IGNORED = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")


def decoder_config(fields: Mapping[str, Any], file: Path) -> ModelConfig:
    """The ``ModelConfig`` of a Hugging Face ``config.json``; its attention is ``full``, as the weights were trained.

    Args:
        fields: the content of the file.
        file: where it came from, for errors.

    Raises:
        UserError: a field is missing or asks for something ``Decoder`` does not do.
    """
    for name in _FIELDS.values():
        if name not in fields:
            raise UserError(f"{file} lacks the field '{name}'")
        if not isinstance(fields[name], int) or fields[name] < 1:
            raise UserError(f"{file}: field '{name}' must be a whole number of at least 1, not '{fields[name]}'")
    _refuse_unsupported(fields, file)
    shape = {ours: fields[theirs] for ours, theirs in _FIELDS.items()}
    rope = fields.get("rope_parameters") or {}
    heads = fields["num_attention_heads"]
    # What a file leaves out takes the defaults of transformers, with which it was written.
    kv_heads = fields.get("num_key_value_heads") or (8 if fields["model_type"] == "mistral" else heads)
    return ModelConfig.from_mapping(
        {
            **shape,
            "attention": "full",
            "kv_heads": kv_heads,
            "head_width": fields.get("head_dim") or fields["hidden_size"] // heads,
            "rope_theta": rope.get("rope_theta", fields.get("rope_theta", 10000.0)),
            "norm_eps": fields.get("rms_norm_eps", 1e-6),
            "tie_embeddings": fields.get("tie_word_embeddings", False),
            # Full attention does what a sliding window was trained to as far as the window reaches.
            "trained_context": fields.get("sliding_window") or fields.get("max_position_embeddings"),
        },
        str(file),
    )


def _refuse_unsupported(fields: Mapping[str, Any], file: Path) -> None:
    rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    supported: dict[str, tuple[Any, Any]] = {
        "model_type": (fields.get("model_type"), MODEL_TYPES),
        "hidden_act": (fields.get("hidden_act", "silu"), ("silu",)),
        "attention_bias": (fields.get("attention_bias", False), (False,)),
        "mlp_bias": (fields.get("mlp_bias", False), (False,)),
        "rope_parameters" if "rope_parameters" in fields else "rope_scaling": (rope_type, ("default",)),
        "quantization_config": (fields.get("quantization_config"), (None,)),
    }
    for name, (value, allowed) in supported.items():
        if value not in allowed:
            expected = " or ".join(f"'{choice}'" for choice in allowed)
            raise UserError(f"{file}: field '{name}' is '{value}'; famcli reads {expected}")


def decoder_name(tensor: str) -> str | None:
    """The ``Decoder.state_dict()`` name of a Hugging Face tensor; ``None`` for what carries nothing.

    Raises:
        KeyError: the tensor is none of a Llama or Mistral layout.
    """
    if _IGNORED.fullmatch(tensor):
        return None
    for pattern, name in _TENSORS:
        match = re.fullmatch(pattern, tensor)
        if match:
            return match.expand(name)
    raise KeyError(tensor)


def cached_directory(hub_id: str) -> Path | None:
    """The newest complete snapshot of ``hub_id`` in the local hub cache; the network is not asked."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(hub_id, "config.json")
    except HFValidationError:
        return None
    return Path(config).parent if isinstance(config, str) else None


class HubTokenizer:
    """A ``tokenizer.json`` as a ``Tokenizer``."""

    def __init__(self, file: Path, fields: Mapping[str, Any]) -> None:
        """Reads ``file``.

        Args:
            file: the tokenizer.
            fields: of ``config.json``, which says what begins and ends a text (``bos_token_id``, ``eos_token_id``).

        Raises:
            UserError: the file is missing or is not a tokenizer.
        """
        import tokenizers

        self.end_of_text = _token_id(fields, "eos_token_id")
        begin = _token_id(fields, "bos_token_id")
        self.text_start = self.end_of_text if begin is None else begin
        try:
            self.definition = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"cannot read the tokenizer {file}: {error}", "famcli reads tokenizers saved as tokenizer.json"
            ) from error
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(self.definition)
        except Exception as error:  # tokenizers raises bare Exception
            raise UserError(f"{file} is not a tokenizer: {error}") from error
        self.name = f"hub-{hashlib.sha256(self.definition.encode()).hexdigest()[:16]}"
        self.vocab_size: int = self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text


def _token_id(fields: Mapping[str, Any], name: str) -> int | None:
    """A special token of ``config.json``; of several that end a text the first, none where it is left open."""
    value = fields.get(name)
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, int) else None
