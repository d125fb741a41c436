"""Fields of ``config.json``: what is left out is what transformers takes, what is not known is refused by name."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from hub_models import KINDS
from transformers import AutoConfig, Gemma3Config, GenerationConfig

from famcli.checkpoints.hub_fields import APPLIED, DEFAULTS, SETTLED
from famcli.checkpoints.huggingface import decoder_config
from famcli.errors import UserError
from famcli.models.config import ModelConfig

SHAPE = {
    "vocab_size": 50,
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 7,
    "num_attention_heads": 32,
}
BASE: dict[str, dict[str, Any]] = {
    kind: {"model_type": kind, **SHAPE, "num_key_value_heads": 2, "head_dim": 8, "eos_token_id": 3} for kind in KINDS
}
HUB: dict[str, dict[str, Any]] = {
    "llama-3.1": {
        **{"architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0},
        **{"bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "hidden_act": "silu"},
        **{"initializer_range": 0.02, "max_position_embeddings": 131072, "mlp_bias": False, "model_type": "llama"},
        **{"pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "tie_word_embeddings": False},
        "rope_scaling": {
            **{"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_type": "llama3"},
            "original_max_position_embeddings": 8192,
        },
        **{"torch_dtype": "bfloat16", "transformers_version": "4.42.3", "use_cache": True},
    },
    "llama-1": {
        **{"architectures": ["LLaMAForCausalLM"], "bos_token_id": 0, "eos_token_id": 1, "hidden_act": "silu"},
        **{"initializer_range": 0.02, "max_sequence_length": 2048, "model_type": "llama", "pad_token_id": -1},
        **{"rms_norm_eps": 1e-06, "torch_dtype": "float16", "transformers_version": "4.27.0.dev0", "use_cache": True},
    },
    "smollm2": {
        **{"model_type": "llama", "is_llama_config": True, "rope_interleaved": False, "rope_scaling": None},
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
    },
    "mistral-0.1": {
        **{"model_type": "mistral", "sliding_window": 4096, "rope_theta": 10000.0, "hidden_act": "silu"},
        **{"max_position_embeddings": 32768, "torch_dtype": "bfloat16"},
    },
    "mistral-nemo": {"model_type": "mistral", "head_dim": 128, "sliding_window": None, "rope_theta": 1000000.0},
    "qwen2.5-math": {
        **{"model_type": "qwen2", "max_window_layers": 21, "sliding_window": 4096, "use_mrope": False},
        **{"use_sliding_window": False, "tie_word_embeddings": True, "attention_dropout": 0.0},
    },
    "qwen2.5-1m": {"model_type": "qwen2", "dual_chunk_attention_config": {"chunk_size": 262144, "local_size": 8192}},
    "qwen3": {
        **{"model_type": "qwen3", "attention_bias": False, "head_dim": 128, "max_window_layers": 36},
        **{"rope_scaling": None, "sliding_window": None, "use_sliding_window": False},
    },
    "gemma3-1b": {
        **{"model_type": "gemma3_text", "_sliding_window_pattern": 6, "sliding_window_pattern": 6},
        **{"attn_logit_softcapping": None, "final_logit_softcapping": None, "cache_implementation": "hybrid"},
        **{"hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 256, "rope_local_base_freq": 10000},
        **{"rope_scaling": None, "sliding_window": 512, "use_bidirectional_attention": False},
    },
    "olmo2": {"model_type": "olmo2", "attention_bias": False, "rms_norm_eps": 1e-06, "rope_theta": 500000},
    "unsloth": {"model_type": "llama", "unsloth_fixed": True, "unsloth_version": "2025.1.5", "_name_or_path": "x"},
}


def ours(fields: dict[str, Any]) -> ModelConfig:
    return decoder_config(fields, Path("config.json"))


def theirs(fields: dict[str, Any], directory: Path) -> dict[str, Any]:
    """The fields as transformers fills them in."""
    (directory / "config.json").write_text(json.dumps(fields))
    filled: dict[str, Any] = AutoConfig.from_pretrained(directory).to_dict()
    return filled


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_are_those_of_transformers(kind: str) -> None:
    config = KINDS[kind][0]()
    own = {**config.to_dict(), "rope_theta": 1e4, "sliding_window_pattern": 6}
    if kind == "gemma3_text":
        own |= {"rope_theta": config.default_theta["global"], "rope_local_base_freq": config.default_theta["local"]}
    for name, value in DEFAULTS[kind].items():
        if name == "sliding_window" and kind.startswith("qwen"):
            assert KINDS[kind][0](use_sliding_window=True).sliding_window == value
        elif value is not None:
            assert own[name] == value, name


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in KINDS for name in [*DEFAULTS[kind], "eos_token_id"]]
)
def test_a_field_that_is_left_out_is_what_transformers_takes(tmp_path: Path, kind: str, name: str) -> None:
    fields = {field: value for field, value in BASE[kind].items() if field != name}
    assert ours(fields) == ours(theirs(fields, tmp_path))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "olmo2"])
def test_null_is_not_left_out(tmp_path: Path, kind: str) -> None:
    fields = {**BASE[kind], "num_key_value_heads": None}
    assert ours(fields).kv_heads == theirs(fields, tmp_path)["num_key_value_heads"] == 32
    fields = {**BASE[kind], "rms_norm_eps": None}
    with pytest.raises(UserError, match="'rms_norm_eps' is null"):
        ours(fields)


@pytest.mark.parametrize("name", HUB)
def test_real_files_are_read(name: str) -> None:
    fields = {**SHAPE, **HUB[name]}
    if name == "llama-3.1":
        assert ours(fields).rope_scaling == "llama3"
    assert ours(fields).vocab_size == 50


@pytest.mark.parametrize("kind", [*KINDS, "gemma3"])
def test_every_field_of_a_config_class_is_known(kind: str) -> None:
    sampling = dict.fromkeys(GenerationConfig._get_default_generation_params(), 1)
    read = ("eos_token_id", "bos_token_id", "use_cache")
    written = (Gemma3Config() if kind == "gemma3" else KINDS[kind][0]()).to_dict()
    config = ours({**{n: v for n, v in sampling.items() if n not in read}, **written})
    assert config.width == DEFAULTS["gemma3_text" if kind == "gemma3" else kind]["hidden_size"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"logits_scaling": 8.0}, "'logits_scaling' is none that famcli knows"),
        ({"embedding_multiplier": 12}, "'embedding_multiplier' is none"),
        ({"attention_multiplier": 0.1}, "'attention_multiplier' is none"),
        ({"transformers_weights": "other.safetensors"}, "'transformers_weights' is none"),
        ({"num_local_experts": 8}, "'num_local_experts' is none"),
        ({"is_causal": False}, "'is_causal' is 'False'"),
        ({"partial_rotary_factor": 0.5}, "'partial_rotary_factor' is '0.5'"),
        ({"final_logit_softcapping": 30.0}, "'final_logit_softcapping' is '30.0'"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0, "beta": 1}}, r"'rope_scaling\.beta' is none"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, r"'rope_parameters\.partial_rotary_factor' is none"),
        ({"num_hidden_layers": 10**9}, "'num_hidden_layers' is 1000000000"),
        ({"vocab_size": True}, "'vocab_size' must be a number, not True"),
        ({"vocab_size": 50.0}, "'vocab_size' must be a whole number of at least 1"),
        ({"rms_norm_eps": float("nan")}, "'rms_norm_eps' must be a number above 0, not nan"),
        ({"tie_word_embeddings": "no"}, "'tie_word_embeddings' must be true or false"),
    ],
)
def test_what_may_change_the_result_is_refused_by_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ours({**BASE["llama"], **fields})
    part = {"model_type": "gemma3", "text_config": {**BASE["gemma3_text"], **fields}}
    if not re.search("rope|tie", str(fields)):
        with pytest.raises(UserError, match=message):
            ours(part)


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("qwen2", {"layer_types": ["sliding_attention"] * 7}, "'use_sliding_window' is false"),
        ("qwen3", {"layer_types": ["full_attention"] * 6}, "for each of 7 layers"),
        ("gemma3_text", {"layer_types": ["chunked_attention"] * 7}, "must name one of full_attention and sliding"),
        ("gemma3_text", {"sliding_window": None}, "'sliding_window' is null"),
        ("gemma3_text", {"sliding_window_pattern": 0}, "'sliding_window_pattern' must be a whole number"),
        ("gemma3_text", {"sliding_window_pattern": 3, "_sliding_window_pattern": 2}, "'_sliding_window_pattern' 2"),
        ("gemma3_text", {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "of Gemma 3 must hold"),
        ("gemma3_text", {"head_dim": None}, "'head_dim' is null"),
        ("mistral", {"sliding_window": 0}, "'sliding_window' must be a whole number of at least 1, not 0"),
    ],
)
def test_windows_that_say_nothing_are_refused(kind: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ours({**BASE[kind], **fields})


LINEAR = {"rope_type": "linear", "factor": 2.0}


@pytest.mark.parametrize(
    ("kind", "fields", "warned"),
    [
        ("llama", {"rope_theta": 5e5, "rope_parameters": {"rope_theta": 1e5}}, r"'rope_parameters\.rope_theta'"),
        ("llama", {"rope_scaling": LINEAR, "rope_parameters": {"rope_theta": 1e5}}, "'rope_scaling' is"),
        ("llama", {"rope_scaling": {**LINEAR, "type": "default"}}, r"'rope_scaling\.rope_type' is linear"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 7.0}, None),
        ("llama", {"rope_scaling": {"factor": 2.0}}, None),
        ("gemma3_text", {"rope_scaling": LINEAR, "rope_theta": 7.0, "rope_local_base_freq": 5.0}, None),
        ("gemma3_text", {"rope_scaling": LINEAR, "rope_parameters": {"full_attention": {"rope_theta": 9.0}}}, None),
    ],
)
def test_rope_that_is_said_twice_is_that_of_transformers_and_named(
    tmp_path: Path, kind: str, fields: dict[str, Any], warned: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "famcli"):
        config = ours({**BASE[kind], **fields})
    assert bool(caplog.messages) == bool(warned)
    if warned:
        assert re.search(warned, caplog.text)
    assert config == ours(theirs({**BASE[kind], **fields}, tmp_path))


@pytest.mark.parametrize(("outer", "inner", "tied"), [(None, None, True), (False, None, False), (None, False, True)])
def test_gemma_with_vision_is_tied_as_its_file_says(outer: Any, inner: Any, tied: bool) -> None:
    fields = {"model_type": "gemma3", "text_config": {**BASE["gemma3_text"], "tie_word_embeddings": inner}}
    assert ours({**fields, "tie_word_embeddings": outer}).tie_embeddings is tied
    assert ours(fields if outer is None else {**fields, "tie_word_embeddings": outer}).tie_embeddings is tied


ODD: tuple[Any, ...] = (
    None,
    "x",
    -1,
    0,
    1.5,
    True,
    [],
    {},
    float("inf"),
    float("nan"),
    10**30,
    [[]],
    {"a": []},
    "\ud800",
)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind == "llama" else pytest.mark.slow) for kind in (*KINDS, "gemma3")]
)
def test_a_value_of_any_type_is_read_or_named(kind: str) -> None:
    base = BASE.get(kind) or {"model_type": kind, "text_config": BASE["gemma3_text"]}
    refused = 0
    for name in (*APPLIED, *SETTLED, "text_config"):
        for value in (
            *ODD,
            *({name: value} for name in ("rope_type", "rope_theta", "full_attention") for value in ODD),
        ):
            for fields in ({**base, name: value}, {**base, "text_config": {**BASE["gemma3_text"], name: value}}):
                try:
                    ours(fields)
                except UserError as error:
                    refused += 1
                    assert error.message.startswith("config.json"), error.message
    assert refused > 500
