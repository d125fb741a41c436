"""Models as the Hugging Face hub keeps them: their config and tensor names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from famcli.errors import UserError
from famcli.models.config import ModelConfig

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": "head"},
    "gemma3_text": {"qk_norm": "head", "norm_placement": "both", "activation": "gelu"},
    "olmo2": {"qk_norm": "width", "norm_placement": "post"},
}
"""By ``model_type``, the switches of ``ModelConfig`` that the type alone decides."""

_REQUIRED = {
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "ffn_width": "intermediate_size",
}
# What a file leaves out takes the defaults of transformers, with which it was written. ``None``: as many as heads, or
# the width divided by them.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "num_key_value_heads": {"mistral": 8, "qwen2": 32, "qwen3": 32, "gemma3_text": 4},
    "head_dim": {"qwen3": 128, "gemma3_text": 256},
    "rms_norm_eps": {"olmo2": 1e-5},
    "rope_theta": {"gemma3_text": 1e6},
    "tie_word_embeddings": {"gemma3_text": True},
}
_LOCAL = ("mistral", "qwen2", "qwen3", "gemma3_text")  # other families may carry the field and ignore it
_ROPE_TYPES = ("default", "linear", "llama3")
_ACTIVATIONS = {"silu": "silu", "gelu": "gelu_pytorch_tanh"}
_TENSORS = (
    (r"model\.embed_tokens\.weight", "embedding.weight"),
    (r"model\.layers\.(\d+)\.self_attn\.([qkvo]_proj\.(?:weight|bias))", r"layers.\1.attention.\2"),
    (r"model\.layers\.(\d+)\.self_attn\.([qk]_norm)\.weight", r"layers.\1.attention.\2.weight"),
    (r"model\.layers\.(\d+)\.mlp\.((?:gate|up|down)_proj)\.weight", r"layers.\1.ffn.\2.weight"),
    (r"model\.norm\.weight", "norm.weight"),
    (r"lm_head\.weight", "head.weight"),
)
# One name means two things: what Llama calls "post attention" stands before the feed-forward.
_NORMS = {
    "pre": {"input": "attention_norm", "post_attention": "ffn_norm"},
    "post": {"post_attention": "attention_out_norm", "post_feedforward": "ffn_out_norm"},
    "both": {
        "input": "attention_norm",
        "post_attention": "attention_out_norm",
        "pre_feedforward": "ffn_norm",
        "post_feedforward": "ffn_out_norm",
    },
}
_NORM = re.compile(r"model\.layers\.(\d+)\.(\w+)_layernorm\.weight")
_IGNORED = re.compile(
    r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq"  # old versions of transformers; follows from rope_theta
    r"|(model\.)?(vision_tower|multi_modal_projector)\..*"  # beside the text model of Gemma 3
)
_TEXT_MODEL = re.compile(r"^(language_model\.model|model\.language_model)\.")


def decoder_config(fields: Mapping[str, Any], file: Path) -> ModelConfig:
    """The ``ModelConfig`` of a Hugging Face ``config.json``; its attention is ``full``, as the weights were trained.

    Args:
        fields: the content of the file.
        file: where it came from, for errors.

    Raises:
        UserError: a field is missing or asks for something ``Decoder`` does not do.
    """
    fields = _text_part(fields)
    kind = fields.get("model_type")
    if kind not in FAMILIES:
        raise UserError(
            f"{file}: field 'model_type' is '{kind}', a family of models famcli does not read",
            f"it reads {', '.join(FAMILIES)}",
        )
    for name in _REQUIRED.values():
        if name not in fields:
            raise UserError(f"{file} lacks the field '{name}'")
        if not isinstance(fields[name], int) or fields[name] < 1:
            raise UserError(f"{file}: field '{name}' must be a whole number of at least 1, not '{fields[name]}'")
    _refuse_unsupported(fields, file)

    def given(name: str, default: Any = None) -> Any:
        value = fields.get(name)
        return _DEFAULTS.get(name, {}).get(kind, default) if value is None else value

    heads = fields["num_attention_heads"]
    return ModelConfig.from_mapping(
        {
            **{ours: fields[theirs] for ours, theirs in _REQUIRED.items()},
            **FAMILIES[kind],
            "attention": "full",
            "kv_heads": given("num_key_value_heads", heads),
            "head_width": given("head_dim", fields["hidden_size"] // heads),
            "norm_eps": given("rms_norm_eps", 1e-6),
            "tie_embeddings": given("tie_word_embeddings", False),
            "trained_context": fields.get("max_position_embeddings"),
            **_rope(fields, given("rope_theta", 10000.0), file),
            **_local_layers(fields, file),
            **(_gemma(fields) if kind == "gemma3_text" else {}),
        },
        str(file),
    )


def norm_offset(fields: Mapping[str, Any]) -> float:
    """What is added to the norm weights of a checkpoint: Gemma keeps them as differences from 1."""
    return 1.0 if str(fields.get("model_type")).startswith("gemma") else 0.0


def _text_part(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of the language model; those of Gemma 3 with vision are a part of the file."""
    text = fields.get("text_config")
    if fields.get("model_type") == "gemma3" and isinstance(text, Mapping):
        return {"tie_word_embeddings": fields.get("tie_word_embeddings"), **text, "model_type": "gemma3_text"}
    return fields


def _gemma(fields: Mapping[str, Any]) -> dict[str, Any]:
    scalar = fields.get("query_pre_attn_scalar") or 256
    return {"embedding_scale": fields["hidden_size"] ** 0.5, "attention_scale": scalar**-0.5}


def _rope(fields: Mapping[str, Any], theta: float, file: Path) -> dict[str, Any]:
    """Bases and scaling of RoPE, from the one field of transformers 5 or the several of earlier versions."""
    for name in ("rope_parameters", "rope_scaling"):
        if not isinstance(fields.get(name) or {}, Mapping):
            raise UserError(f"{file}: field '{name}' must be an object, not '{fields[name]}'")
    rope = fields.get("rope_parameters") or {}
    where = "rope_parameters" if rope else "rope_scaling"
    local = fields.get("rope_local_base_freq") or (10000.0 if fields["model_type"] == "gemma3_text" else None)
    if "full_attention" in rope:
        local = (rope.get("sliding_attention") or {}).get("rope_theta", local)
        rope = rope["full_attention"]
    rope = {"rope_theta": theta, **(rope or fields.get("rope_scaling") or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in _ROPE_TYPES:
        raise _unsupported(file, where, kind, _ROPE_TYPES)
    scaling: dict[str, Any] = {"rope_theta": rope["rope_theta"], "rope_local_theta": local}
    if kind == "default":
        return scaling
    scaling |= {"rope_scaling": kind, "rope_factor": rope.get("factor")}
    if kind == "llama3":
        original = rope.get("original_max_position_embeddings") or fields.get("max_position_embeddings")
        scaling |= {
            "rope_low_frequency": rope.get("low_freq_factor"),
            "rope_high_frequency": rope.get("high_freq_factor"),
            "rope_original_context": original,
        }
    absent = [name for name, value in scaling.items() if value is None and name != "rope_local_theta"]
    if absent:
        raise UserError(f"{file}: field '{where}' of type '{kind}' is incomplete")
    return scaling


def _local_layers(fields: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Which layers see a sliding window only."""
    kind, window, layers = fields["model_type"], fields.get("sliding_window"), fields["num_hidden_layers"]
    if kind not in _LOCAL or not window or (kind.startswith("qwen") and not fields.get("use_sliding_window")):
        return {}
    if kind == "mistral":
        return {"local_window": window}
    types = fields.get("layer_types")
    if types is None and kind.startswith("qwen"):
        first = fields.get("max_window_layers", 28)
        types = ["full_attention"] * min(first, layers) + ["sliding_attention"] * max(0, layers - first)
    every = fields.get("sliding_window_pattern", fields.get("_sliding_window_pattern", 6))
    if types is not None:
        every = types.index("full_attention") + 1 if "full_attention" in types else 0
        regular = ["full_attention" if every and (i + 1) % every == 0 else "sliding_attention" for i in range(layers)]
        if types != regular:
            raise UserError(
                f"{file}: field 'layer_types' is irregular; "
                "famcli reads layers of one type, or full layers at one interval"
            )
    return {} if every == 1 else {"local_window": window, "global_every": every}


def _refuse_unsupported(fields: Mapping[str, Any], file: Path) -> None:
    gemma = fields["model_type"] == "gemma3_text"
    activation = "hidden_activation" if gemma else "hidden_act"
    expected = _ACTIVATIONS[FAMILIES[fields["model_type"]].get("activation", "silu")]
    for name, allowed in (
        (activation, expected),
        ("attention_bias", False),
        ("mlp_bias", False),
        ("use_bidirectional_attention", False),
        ("attn_logit_softcapping", None),
        ("final_logit_softcapping", None),
        ("quantization_config", None),
    ):
        value = fields.get(name, allowed)
        if value != allowed and not (value is None and allowed is False):
            raise _unsupported(file, name, value, (allowed,))


def _unsupported(file: Path, name: str, value: Any, allowed: Sequence[Any]) -> UserError:
    choices = " or ".join(f"'{choice}'" for choice in allowed)
    return UserError(f"{file}: field '{name}' is '{value}'; famcli reads {choices}")


def decoder_name(tensor: str, config: ModelConfig) -> str | None:
    """The ``Decoder.state_dict()`` name of a Hugging Face tensor; ``None`` for what carries nothing.

    Raises:
        KeyError: the tensor is none of a decoder of ``config``.
    """
    if _IGNORED.fullmatch(tensor):
        return None
    tensor = _TEXT_MODEL.sub("model.", tensor).removeprefix("language_model.")
    if norm := _NORM.fullmatch(tensor):
        return f"layers.{norm[1]}.{_NORMS[config.norm_placement][norm[2]]}.weight"
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
