"""Random models of transformers of families that famcli's own decoder does not read, saved as the hub keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokenizers
import torch
from hub_models import save_hub_model, save_word_tokenizer
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

SMALL = {"vocab_size": 50, "initializer_range": 0.3, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
ATTENTION = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
SHAPES: dict[str, dict[str, Any]] = {
    "mamba2": {
        **{"hidden_size": 16, "num_hidden_layers": 2, "head_dim": 8, "num_heads": 4, "expand": 2},
        **{"state_size": 6, "n_groups": 1, "chunk_size": 4, "conv_kernel": 4},
    },
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "jamba": {
        **{**ATTENTION, "num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 1},
        **{"mamba_d_state": 4, "mamba_d_conv": 3, "mamba_expand": 1, "mamba_dt_rank": 4},
    },
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "gemma2": {
        **{**ATTENTION, "num_hidden_layers": 3, "head_dim": 8, "sliding_window": 7, "final_logit_softcapping": 2.0}
    },
    "openai-gpt": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "bert": {**ATTENTION, "num_hidden_layers": 2},
    "opt": {
        **{**ATTENTION, "num_hidden_layers": 2, "ffn_dim": 48, "word_embed_proj_dim": 32},
        **{"max_position_embeddings": 600},
    },
}
"""By ``model_type``; those with a state, with both, with a window, and without any cache."""


def save_any_model(directory: Path, kind: str, **fields: Any) -> Any:
    """A model whose weights are lively enough that every mistake shows."""
    if kind not in SHAPES:
        return save_hub_model(directory, kind, **fields)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**{**SMALL, **SHAPES[kind], **fields})).eval()
    model.save_pretrained(directory)
    save_word_tokenizer(directory / "tokenizer.json")
    return model


def save_byte_tokenizer(file: Path) -> None:
    """A token a byte, and two that begin and end a text."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, "</s>": 1} | {letter: i for i, letter in enumerate(alphabet, 2)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(file))
