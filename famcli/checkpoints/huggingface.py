"""Models as the Hugging Face hub keeps them: their config and tensor names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from famcli.checkpoints.hub_fields import check_known, check_rope, settle, unsupported, value_of
from famcli.errors import UserError, printable
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
MOST_LAYERS = 1 << 14
"""Before anything is made for every layer; how many there are, the tensors say."""
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
    whole, fields = fields, _text_part(fields)
    kind = fields.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise UserError(
            f"{file}: field 'model_type' is '{printable(str(kind))}', a family of models famcli does not read",
            f"it reads {', '.join(FAMILIES)}",
        )
    for part in (whole, fields):
        check_known(part, kind, file)

    def given(name: str) -> Any:
        return value_of(fields, name, kind, file)

    if given("num_hidden_layers") > MOST_LAYERS:
        raise UserError(f"{file}: field 'num_hidden_layers' is {given('num_hidden_layers')}: no model has so many")
    activation = "hidden_activation" if kind == "gemma3_text" else "hidden_act"
    expected = _ACTIVATIONS[FAMILIES[kind].get("activation", "silu")]
    if given(activation) != expected:
        raise unsupported(file, activation, given(activation), (expected,))
    width, heads = given("hidden_size"), given("num_attention_heads")
    kv_heads, head_width = given("num_key_value_heads"), given("head_dim")
    return ModelConfig.from_mapping(
        {
            **{ours: given(theirs) for ours, theirs in _REQUIRED.items()},
            **FAMILIES[kind],
            "attention": "full",
            "kv_heads": heads if kv_heads is None else kv_heads,
            "head_width": width // heads if head_width is None else head_width,
            "norm_eps": given("rms_norm_eps"),
            "tie_embeddings": given("tie_word_embeddings"),
            "trained_context": given("max_position_embeddings"),
            **_rope(fields, given, file),
            **_local_layers(fields, given, file),
            **(_gemma(given) if kind == "gemma3_text" else {}),
        },
        str(file),
    )


def norm_offset(fields: Mapping[str, Any]) -> float:
    """What is added to the norm weights of a checkpoint: Gemma keeps them as differences from 1."""
    return 1.0 if str(fields.get("model_type")).startswith("gemma") else 0.0


def token_fields(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where a config names special tokens: in the file, or in its part of the language model."""
    return {**_text_part(fields), **{name: value for name, value in fields.items() if value is not None}}


def _text_part(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of the language model; those of Gemma 3 with vision are a part of the file.

    Whether its embeddings are tied says the file itself: transformers does not look into the part.
    """
    text = fields.get("text_config")
    if fields.get("model_type") != "gemma3" or not isinstance(text, Mapping):
        return fields
    tied = {name: fields[name] for name in ("tie_word_embeddings",) if fields.get(name) is not None}
    return {
        **{name: text[name] for name in text if name not in ("tie_word_embeddings",)},
        **tied,
        "model_type": "gemma3_text",
    }


def _gemma(given: Callable[[str], Any]) -> dict[str, Any]:
    return {"embedding_scale": given("hidden_size") ** 0.5, "attention_scale": given("query_pre_attn_scalar") ** -0.5}


def _rope(fields: Mapping[str, Any], given: Callable[[str], Any], file: Path) -> dict[str, Any]:
    """Bases and scaling of RoPE, from the one field of transformers 5 or the several of earlier versions."""
    for name in ("rope_parameters", "rope_scaling"):
        if not isinstance(fields.get(name) or {}, Mapping):
            raise UserError(f"{file}: field '{name}' must be an object, not '{printable(str(fields[name]))}'")
    older, newer = fields.get("rope_scaling") or {}, fields.get("rope_parameters") or {}
    local = None
    if fields["model_type"] == "gemma3_text":
        where, newer, local = _gemma_rope(newer, given, file)
        if older:
            where, newer = "rope_scaling", {**newer, **older}
    elif older:
        settle(file, {"rope_scaling": older, "rope_parameters": newer or older})
        where, newer = "rope_scaling", older
    else:
        where = "rope_parameters"
    rope = newer
    check_rope(rope, where, file)
    theta = settle(file, {f"{where}.rope_theta": rope.get("rope_theta"), "rope_theta": fields.get("rope_theta")})
    kind = settle(file, {f"{where}.{name}": rope.get(name) for name in ("rope_type", "type")}) or "default"
    if kind not in _ROPE_TYPES:
        raise unsupported(file, where, kind, _ROPE_TYPES)
    scaling: dict[str, Any] = {"rope_theta": given("rope_theta") if theta is None else theta, "rope_local_theta": local}
    if kind == "default":
        return scaling
    scaling |= {"rope_scaling": kind, "rope_factor": rope.get("factor")}
    if kind == "llama3":
        scaling |= {
            "rope_low_frequency": rope.get("low_freq_factor"),
            "rope_high_frequency": rope.get("high_freq_factor"),
            "rope_original_context": rope.get("original_max_position_embeddings") or given("max_position_embeddings"),
        }
    absent = [name for name, value in scaling.items() if value is None and name != "rope_local_theta"]
    if absent:
        raise UserError(f"{file}: field '{where}' of type '{printable(str(kind))}' is incomplete")
    return scaling


def _gemma_rope(
    parts: Mapping[str, Any], given: Callable[[str], Any], file: Path
) -> tuple[str, Mapping[str, Any], float]:
    """The place and content of what holds for full layers, and the base of local ones."""
    for name, part in parts.items():
        if name not in ("full_attention", "sliding_attention") or not isinstance(part or {}, Mapping):
            raise UserError(
                f"{file}: field 'rope_parameters' of Gemma 3 must hold 'full_attention' and 'sliding_attention', "
                f"not '{printable(name)}'"
            )
    where, local = "rope_parameters.sliding_attention", parts.get("sliding_attention") or {}
    check_rope(local, where, file)
    if (kind := local.get("rope_type", local.get("type", "default"))) != "default":
        raise unsupported(file, where, kind, ("default",))
    theta = local.get("rope_theta", given("rope_local_base_freq"))
    return "rope_parameters.full_attention", parts.get("full_attention") or {}, theta


def _local_layers(fields: Mapping[str, Any], given: Callable[[str], Any], file: Path) -> dict[str, Any]:
    """Which layers see a sliding window only."""
    kind, layers = fields["model_type"], given("num_hidden_layers")
    if kind not in _LOCAL:
        return {}
    types = fields.get("layer_types")
    windowless = kind.startswith("qwen") and not given("use_sliding_window")
    window = None if windowless else given("sliding_window")
    if kind == "mistral":
        return {} if window is None else {"local_window": window}
    if types is None and kind == "gemma3_text":
        every = given("sliding_window_pattern")
        if (other := fields.get("_sliding_window_pattern", every)) != every:
            shown = printable(str(other))
            raise UserError(
                f"{file}: field 'sliding_window_pattern' is {every} and '_sliding_window_pattern' {shown}; "
                "famcli reads one interval"
            )
        types = ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(layers)]
    elif types is None:
        first = layers if window is None else given("max_window_layers")
        types = ["full_attention" if i < first else "sliding_attention" for i in range(layers)]
    known = {"full_attention", "sliding_attention"}
    if not isinstance(types, list) or len(types) != layers or not all(name in known for name in map(str, types)):
        raise UserError(
            f"{file}: field 'layer_types' must name one of {' and '.join(sorted(known))} for each of {layers} layers"
        )
    local = [name == "sliding_attention" for name in types]
    if window is None and any(local):
        raise UserError(
            f"{file}: field 'layer_types' has sliding_attention, and there is no window: field 'sliding_window' is "
            "null" + (", or 'use_sliding_window' is false" if kind.startswith("qwen") else "")
        )
    return local_layers(window, local)


def local_layers(window: int | None, local: Sequence[bool]) -> dict[str, Any]:
    """The fields of ``ModelConfig`` for a window in the layers that are ``local``."""
    if not any(local):
        return {}
    every = local.index(False) + 1 if False in local else 0
    if list(local) == [not every or (i + 1) % every != 0 for i in range(len(local))]:
        return {"local_window": window, "global_every": every}
    return {"local_window": window, "local_layers": "".join("l" if one else "g" for one in local)}


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


def complete_directory(hub_id: str) -> Path | None:
    """``cached_directory`` that holds weights; an interrupted download counts as none."""
    directory = cached_directory(hub_id)
    if directory and not any(directory.glob("*.safetensors")) and not any(directory.glob("*.bin")):
        return None
    return directory


def is_hub_id(name: str) -> bool:
    """Whether a name may be that of a model on the hub."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) is not None and not name.endswith(".gguf")
