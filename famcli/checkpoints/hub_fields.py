"""The fields of ``config.json``: what each is where it is left out, and which of them change nothing.

A field that is neither applied (``huggingface.py``) nor listed here is refused by its name: it may be what makes the
model another one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from famcli.errors import UserError, printable
from famcli.fields import LARGEST

logger = logging.getLogger(__name__)

_COMMON: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
_QWEN: dict[str, Any] = {
    "vocab_size": 151936,
    "intermediate_size": 22016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {**_COMMON, "vocab_size": 32000},
    "mistral": {
        **_COMMON,
        "vocab_size": 32000,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
    "qwen2": {**_COMMON, **_QWEN},
    "qwen3": {**_COMMON, **_QWEN, "head_dim": 128},
    "gemma3_text": {
        "vocab_size": 262208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "rope_local_base_freq": 10000.0,
        "tie_word_embeddings": True,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
    },
    "olmo2": {**_COMMON, "vocab_size": 50304, "rms_norm_eps": 1e-5},
}
"""By family, what the config classes of transformers take for a field that a file leaves out."""

_OF_HEADS = ("num_key_value_heads", "head_dim")
"""Where ``null`` says: as many as heads, or the width divided by them. Left out, a family may mean a number."""
_SWITCHES = ("tie_word_embeddings", "use_sliding_window")
_DECIMALS = ("rms_norm_eps", "rope_theta", "rope_local_base_freq", "query_pre_attn_scalar")
_WITHOUT_NULL = {"qwen3": ("head_dim",), "gemma3_text": _OF_HEADS}

APPLIED = frozenset(
    {
        *(name for fields in DEFAULTS.values() for name in fields),
        *("model_type", "bos_token_id", "eos_token_id", "layer_types", "_sliding_window_pattern"),
        *("rope_parameters", "rope_scaling"),
    }
)
"""What ``huggingface.py`` and the tokenizer read."""

SETTLED: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "use_bidirectional_attention": (False,),
    "attn_logit_softcapping": (),
    "final_logit_softcapping": (),
    "quantization_config": (),
    "compression_config": (),
    "per_layer_config": (),
    "is_causal": (True,),
    "partial_rotary_factor": (1, 1.0),
    "rope_interleaved": (False,),
    "use_mrope": (False,),
    "qk_layernorm": (False,),
    "clip_qkv": (),
    "pruned_heads": ({},),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "tie_encoder_decoder": (False,),
    "use_parallel_residual": (False,),
}
"""Fields of which one value, or ``null``, says what the decoder does; any other is refused."""

_OWN_BIAS = {"qwen2": ("attention_bias",), "mistral": ("attention_bias",)}
"""Where transformers does not read a field of ``SETTLED``: the family itself decides."""

HARMLESS = frozenset(
    {
        # of files and classes
        *("architectures", "auto_map", "transformers_version", "torch_dtype", "dtype", "name_or_path", "model_name"),
        *("tokenizer_class", "transformers.js_config", "is_llama_config", "unsloth_version", "unsloth_fixed"),
        *("max_sequence_length", "model_max_length", "max_seq_len", "seq_length", "original_max_position_embeddings"),
        # of training
        *("initializer_range", "initializer_factor", "attention_dropout", "hidden_dropout", "hidden_dropout_prob"),
        *("attention_probs_dropout_prob", "resid_pdrop", "embd_pdrop", "attn_pdrop", "resid_dropout", "dropout"),
        *("classifier_dropout", "classifier_dropout_prob", "gradient_checkpointing", "use_gradient_checkpointing"),
        # of how it is computed
        *("use_cache", "cache_implementation", "pretraining_tp", "attn_implementation", "use_flash_attn"),
        *("use_flash_attention", "use_flash_attention_2", "use_bfloat16", "chunk_size_feed_forward", "torchscript"),
        *("return_dict", "output_attentions", "output_hidden_states", "use_return_dict", "tf_legacy_loss"),
        *("cross_attention_hidden_size", "is_decoder", "dual_chunk_attention_config", "tie_last_hidden_states"),
        # of other tokens than the first and the last
        *("pad_token_id", "unk_token_id", "sep_token_id", "cls_token_id", "mask_token_id", "decoder_start_token_id"),
        # of other heads
        *("id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "task_specific_params", "prefix"),
        # of sampling: answers are greedy
        *("max_length", "min_length", "max_new_tokens", "do_sample", "early_stopping", "num_beams", "num_beam_groups"),
        *("diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty"),
        *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences"),
        *("output_scores", "return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id"),
        *("remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens"),
        *("epsilon_cutoff", "eta_cutoff", "encoder_repetition_penalty", "num_assistant_tokens", "target_lookbehind"),
        *("num_assistant_tokens_schedule", "assistant_confidence_threshold", "assistant_lookbehind"),
        # of Gemma 3's pictures
        *("text_config", "vision_config", "mm_tokens_per_image", "image_token_index", "boi_token_index"),
        *("eoi_token_index", "image_token_id", "boi_token_id", "eoi_token_id"),
        # of another family, read by that one alone
        *("sliding_window", "use_sliding_window", "max_window_layers", "layer_types", "hidden_act"),
    }
)
"""Fields that change no logits of a decoder, as old and new versions of transformers and other programs write them."""

_IN_ROPE = {
    *("rope_type", "type", "rope_theta", "factor", "low_freq_factor", "high_freq_factor"),
    "original_max_position_embeddings",
}


def check_known(fields: Mapping[str, Any], kind: str, file: Path) -> None:
    """Makes sure that every field is applied, harmless, or has the one value that the decoder has.

    Raises:
        UserError: names the one that is not.
    """
    for name, value in fields.items():
        if value is None or name in HARMLESS or name in _OWN_BIAS.get(kind, ()):
            continue
        if name in SETTLED:
            if value not in SETTLED[name]:
                raise unsupported(file, name, value, SETTLED[name] or ("none",))
        elif name not in APPLIED and not name.startswith("_"):  # those are notes of a program to itself
            raise _unknown(file, name)


def check_rope(rope: Mapping[str, Any], where: str, file: Path) -> None:
    """``check_known`` for what scales RoPE; ``where`` is its field."""
    for name, value in rope.items():
        if name == "partial_rotary_factor" and value in (None, *SETTLED[name]):
            continue
        if name not in _IN_ROPE and value is not None:
            raise _unknown(file, f"{where}.{name}")


def value_of(fields: Mapping[str, Any], name: str, kind: str, file: Path) -> Any:
    """A field, or its default in the family; ``None`` for a number that follows from the heads.

    Raises:
        UserError: it is not of its type, or ``null`` where that says nothing.
    """
    default = DEFAULTS[kind].get(name)
    value = fields.get(name, default)
    if value is None:
        of_none = (*_OF_HEADS, "sliding_window")
        if name in fields and (name not in of_none or name in _WITHOUT_NULL.get(kind, ())):
            raise UserError(f"{file}: field '{name}' is null", f"leave it out for {default}")
        return None
    if name in _SWITCHES:
        must, right = "true or false", isinstance(value, bool)
    elif name in ("hidden_act", "hidden_activation"):
        must, right = "text", isinstance(value, str)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        must, right = "a number", False
    elif name in _DECIMALS:
        must, right = "a number above 0", 0 < value < LARGEST
    else:
        least = 0 if name == "max_window_layers" else 1
        must, right = f"a whole number of at least {least}", isinstance(value, int) and least <= value < 1 << 63
    if not right:
        raise UserError(f"{file}: field '{name}' must be {must}, not {printable(repr(value))}")
    return value


def settle(file: Path, statements: Mapping[str, Any]) -> Any:
    """What a file says in several places: the first that is there counts, as in transformers; another is named."""
    said = {name: value for name, value in statements.items() if value is not None}
    first = next(iter(said), None)
    for name, value in said.items():
        if value != said[first or name]:
            logger.warning(
                "warning: %s: field '%s' is %s, and '%s' is %s; the first one counts, as in transformers",
                *(file, first, printable(str(said[first or name])), name, printable(str(value))),
            )
    return said[first] if first else None


def unsupported(file: Path, name: str, value: Any, allowed: Sequence[Any]) -> UserError:
    """For a field whose value is none of those the decoder does."""
    choices = " or ".join(f"'{choice}'" for choice in allowed)
    return UserError(f"{file}: field '{name}' is '{printable(str(value))}'; famcli reads {choices}")


def _unknown(file: Path, name: str) -> UserError:
    return UserError(
        f"{file}: field '{printable(name)}' is none that famcli knows, and may change what the model computes",
        "where it changes nothing, delete it from the file",
    )
