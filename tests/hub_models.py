"""Random models of transformers, saved as the hub keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokenizers
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

KINDS = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "gemma3_text": (Gemma3TextConfig, Gemma3ForCausalLM),
    "olmo2": (Olmo2Config, Olmo2ForCausalLM),
}


def save_word_tokenizer(file: Path) -> None:
    words = {word: i for i, word in enumerate(["the", "pass", "key", "is", "[UNK]"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(file))


def save_hub_model(directory: Path, kind: str = "llama", shard: str = "1GB", **fields: Any) -> Any:
    """A model of three layers whose weights are lively enough that every mistake shows; norms away from one."""
    config_class, model_class = KINDS[kind]
    shape = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "head_dim": 8}
    rest = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2, "pad_token_id": 0}
    torch.manual_seed(0)
    model = model_class(config_class(**{**shape, **rest, **fields})).eval()
    for name, weight in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(
                weight, -0.5 if kind == "gemma3_text" else 0.5, 0.5 if kind == "gemma3_text" else 1.5
            )
        elif name.endswith("bias"):
            torch.nn.init.normal_(weight)
    model.save_pretrained(directory, max_shard_size=shard)
    save_word_tokenizer(directory / "tokenizer.json")
    return model
