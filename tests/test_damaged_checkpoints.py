"""Any field of a checkpoint's files may be anything: the file is named, and nothing is read wrongly in silence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from damages import FILES, VALUES, places, replaced
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from test_damage import put

from famcli.checkpoints.registry import find_model
from famcli.errors import UserError
from famcli.evaluation.prompts import special_tokens_of

EXAMPLES = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
CPU = torch.device("cpu")
WIDTH, LAYERS, WORDS = 8, 2, ["the", "pass", "key", "is", "[UNK]", "<s>", "</s>"]
SHAPE = {
    "vocab_size": len(WORDS),
    "hidden_size": WIDTH,
    "intermediate_size": 12,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "bos_token_id": 5,
    "eos_token_id": [6],
    "torch_dtype": "float32",
    "quantization_config": None,
    "architectures": ["X"],
}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
GEMMA_ROPE = {
    "full_attention": {"rope_type": "linear", "rope_theta": 700.0, "factor": 3.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
HUB: dict[str, dict[str, Any]] = {
    "llama": {
        **SHAPE,
        "hidden_act": "silu",
        "attention_bias": False,
        "rope_theta": 5e5,
        "rope_scaling": {**LLAMA3, "original_max_position_embeddings": 32},
    },
    "qwen3": {
        **SHAPE,
        "hidden_act": "silu",
        "use_sliding_window": True,
        "sliding_window": 8,
        "max_window_layers": 1,
        "layer_types": ["full_attention", "sliding_attention"],
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    },
    "gemma3_text": {
        **SHAPE,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 4,
        "sliding_window": 8,
        "sliding_window_pattern": 2,
        "rope_parameters": GEMMA_ROPE,
    },
}
SPECIAL = {"content": "<s>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
TOKENIZER_CONFIG = {
    "bos_token": SPECIAL,
    "eos_token": "</s>",
    "unk_token": None,
    "model_max_length": 10**30,
    "added_tokens_decoder": {"5": {**SPECIAL, "special": True}},
    "chat_template": [
        {"name": "default", "template": "{{ bos_token }}{% for m in messages %}{{ m['content'] }} {% endfor %}"},
        {"name": "tools", "template": "x"},
    ],
}


def save_tokenizer(file: Path) -> None:
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([tokenizers.AddedToken("<s>"), tokenizers.AddedToken("</s>")])
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 5)])
    tokenizer.save(str(file))


def hub_tensors(kind: str) -> dict[str, torch.Tensor]:
    norms = ["input", "post_attention"] + ["pre_feedforward", "post_feedforward"] * kind.startswith("gemma")
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (len(WORDS), WIDTH),
        "model.norm.weight": (WIDTH,),
    }
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        shapes |= {f"{at}.{norm}_layernorm.weight": (WIDTH,) for norm in norms}
        shapes |= {f"{at}.mlp.{name}_proj.weight": (12, WIDTH) for name in ("gate", "up")}
        shapes |= {f"{at}.mlp.down_proj.weight": (WIDTH, 12), f"{at}.self_attn.o_proj.weight": (WIDTH, 8)}
        shapes |= {f"{at}.self_attn.{name}_proj.weight": (rows, WIDTH) for name, rows in (("q", 8), ("k", 4), ("v", 4))}
        if kind != "llama":
            shapes |= {f"{at}.self_attn.{name}_norm.weight": (4,) for name in "qk"}
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def save_hub(directory: Path, kind: str) -> None:
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"model_type": kind, **HUB[kind]}))
    (directory / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))
    (directory / "special_tokens_map.json").write_text(json.dumps({"bos_token": SPECIAL, "eos_token": "</s>"}))
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [6, 4], "temperature": 0.6}))
    save_tokenizer(directory / "tokenizer.json")
    tensors = hub_tensors(kind)
    save_file(tensors, directory / "part.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(tensors, "part.safetensors")}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def save_own(directory: Path) -> None:
    from small_models import small_config, small_decoder

    from famcli.checkpoints.decoders import save_checkpoint
    from famcli.checkpoints.hub_tokenizer import HubTokenizer

    config = small_config("fam", vocab_size=len(WORDS))
    save_tokenizer(directory.with_name("tokenizer.json"))
    tokenizer = HubTokenizer.from_file(directory.with_name("tokenizer.json"), {"bos_token_id": 5, "eos_token_id": 6})
    trained = {"recipe": "x", "steps": 3, "base": None}
    save_checkpoint(small_decoder(config, torch.float32), tokenizer, directory, {"trained": trained})


def save_adapter(directory: Path) -> None:
    """Of ``base`` beside it: a LoRA, and the weights of a FAM."""
    save_hub(directory.with_name("base"), "llama")
    directory.mkdir()
    target = "base_model.model.model.layers.0.self_attn.q_proj"
    pair = {f"{target}.lora_A.weight": torch.ones(2, WIDTH), f"{target}.lora_B.weight": torch.ones(8, 2)}
    save_file(pair, directory / "adapter_model.safetensors")
    save_file({"fam_embedding": torch.ones(3, WIDTH)}, directory / "fam.safetensors")
    adapter = {
        "peft_type": "LORA",
        "base_model_name_or_path": str(directory.with_name("base")),
        "r": 2,
        "lora_alpha": 4,
        "alpha_pattern": {"q_proj": 8, r".*\.1\..*": 2},
        "rank_pattern": {},
        "use_rslora": False,
        "bias": "none",
        "target_modules": ["q_proj"],
        "init_lora_weights": True,
        "modules_to_save": None,
        "fan_in_fan_out": False,
    }
    (directory / "adapter_config.json").write_text(json.dumps(adapter))
    own = {
        "format": "famcli-adapter",
        "base": str(directory.with_name("base")),
        "base_sha256": None,
        "model": {"attention": "fam", "block_size": 16, "memory_segments": 1, "fam_length": 3},
        "trained": {"recipe": "x"},
    }
    (directory / "famcli.json").write_text(json.dumps(own))


SAVE: dict[str, Callable[[Path], None]] = {
    **{kind: lambda path, kind=kind: save_hub(path, kind) for kind in HUB},  # type: ignore[misc]
    "own": save_own,
    "adapter": save_adapter,
}
BESIDE = ("tokenizer.json", "tokenizer_config.json")
CASES = [
    *((kind, "config.json") for kind in (*HUB, "own")),
    *(("llama", name) for name in (*BESIDE, "special_tokens_map.json", "generation_config.json")),
    ("llama", "model.safetensors.index.json"),
    ("own", "tokenizer.json"),
    ("adapter", "adapter_config.json"),
    ("adapter", "famcli.json"),
]


def use(path: Path) -> None:
    """All that is done with a model's settings before it reads a text, and a first token."""
    source = find_model(str(path))
    tokenizer = source.tokenizer
    assert all(isinstance(i, int) for i in tokenizer.answer_ends)
    if tokenizer.chat_template:
        special_tokens_of(tokenizer, True, {})
    special_tokens_of(tokenizer, False, {})
    tokenizer.decode(tokenizer.encode("the pass key"))
    model = source.load(CPU, torch.float32)
    json.dumps(dict(model.stream.description))
    with torch.no_grad():
        latents, _ = model.stream.read(torch.zeros(1, 3, dtype=torch.long), model.stream.start(1))
        model.stream.logits(latents)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_any_field_may_be_anything(kind: str, name: str, tmp_path: Path) -> None:
    model = tmp_path / "model"
    SAVE[kind](model)
    use(model)
    file = model / name
    whole = json.loads(file.read_text())

    @EXAMPLES
    @given(st.sampled_from(list(places(whole))), st.just(...) | VALUES)
    def damage(place: Any, value: Any) -> None:
        file.write_text(json.dumps(replaced(whole, place, value)))
        try:
            use(model)
        except UserError as error:
            assert str(tmp_path) in error.message or "chat template" in error.message, error.message
            assert error.message.isprintable(), error.message

    damage()


@pytest.mark.parametrize(("kind", "name"), [case for case in CASES if case[0] in ("llama", "own", "adapter")])
@pytest.mark.parametrize("damaged", [kind for kind in FILES if kind != "a circle"])
def test_whatever_stands_in_the_place_of_a_file_is_named(kind: str, name: str, damaged: str, tmp_path: Path) -> None:
    model = tmp_path / "model"
    SAVE[kind](model)
    put(model / name, FILES[damaged], damaged)
    loose = ("huge decimal", "Infinity", "half of a character")  # other programs may write them
    if damaged in loose and name not in ("tokenizer.json", "famcli.json"):
        try:
            use(model)
        except UserError as error:
            assert str(model) in error.message
    else:
        with pytest.raises(UserError, match=str(model / name)):
            use(model)


GGUF_VALUES = st.sampled_from(
    [
        True,
        False,
        0,
        1,
        2,
        2**31,
        0.0,
        -1.0,
        1e30,
        float("nan"),
        float("inf"),
        "",
        "x",
        "\x1b",
        [1],
        [1, 2],
        ["x"],
        [0.5],
        ...,
    ]
)


def gguf_fields() -> dict[str, Any]:
    letters = ["<end>", *(chr(i) for i in range(33, 127)), "ab"]
    return {
        "general.type": "model",
        "llama.embedding_length": WIDTH,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": 12,
        "llama.context_length": 64,
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.attention.key_length": 4,
        "llama.attention.value_length": 4,
        "llama.attention.sliding_window": 64,
        "llama.rope.dimension_count": 4,
        "llama.rope.freq_base": 1e4,
        "llama.rope.scaling.type": "linear",
        "llama.rope.scaling.factor": 2.0,
        "llama.expert_count": 0,
        "split.count": 1,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": letters,
        "tokenizer.ggml.token_type": [3, *([1] * (len(letters) - 1))],
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": "{{ messages[0]['content'] }}",
    }


def save_gguf(file: Path, fields: dict[str, Any]) -> None:
    import gguf

    writer = gguf.GGUFWriter(file, "llama")
    kinds = {bool: "bool", int: "uint32", float: "float32", str: "string", list: "array"}
    for name, value in fields.items():
        if value is not ...:
            getattr(writer, f"add_{kinds[type(value)]}")(name, value)
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (96, WIDTH), "output_norm.weight": (WIDTH,)}
    for layer in range(LAYERS):
        at = f"blk.{layer}"
        shapes |= {f"{at}.{name}_norm.weight": (WIDTH,) for name in ("attn", "ffn")}
        shapes |= {
            f"{at}.attn_{name}.weight": (rows, 8) for name, rows in (("q", 8), ("k", 4), ("v", 4), ("output", 8))
        }
        shapes |= {f"{at}.ffn_{name}.weight": (12, WIDTH) for name in ("gate", "up")}
        shapes |= {f"{at}.ffn_down.weight": (WIDTH, 12)}
    for name, shape in shapes.items():
        writer.add_tensor(name, torch.ones(shape).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_any_field_of_a_gguf_file_may_be_anything(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    save_gguf(file, gguf_fields())
    use(file)

    @settings(EXAMPLES, max_examples=40)
    @given(st.sampled_from(sorted(gguf_fields())), GGUF_VALUES)
    def damage(name: str, value: Any) -> None:
        save_gguf(file, {**gguf_fields(), name: value})
        try:
            use(file)
        except UserError as error:
            assert str(file) in error.message or "chat template" in error.message, error.message
            assert error.message.isprintable(), error.message

    damage()
