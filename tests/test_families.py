"""Families of pretrained models: transformers is the oracle, on small random checkpoints saved by it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_models import save_hub_model
from small_models import distance, random_tokens, read_in_chunks, segments_of, small_config, small_decoder

from famcli.checkpoints.decoders import load_decoder
from famcli.checkpoints.opening import open_checkpoint
from famcli.errors import UserError
from famcli.models.decoder import Decoder

CPU = torch.device("cpu")
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 300.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
GEMMA_ROPE = {
    "full_attention": {"rope_type": "linear", "rope_theta": 700.0, "factor": 3.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-3.1": ("llama", {"rope_parameters": LLAMA3, "max_position_embeddings": 64}),
    "llama-linear": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}}),
    "llama-tied": ("llama", {"tie_word_embeddings": True}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral-0.1": ("mistral", {"sliding_window": 7}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2-sliding": ("qwen2", {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 0}),
    "qwen3": ("qwen3", {"head_dim": 12}),
    "qwen3-mixed": (
        "qwen3",
        {
            "use_sliding_window": True,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention", "full_attention"],
        },
    ),
    "qwen2-last-layers": ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    "gemma3-mixed": (
        "gemma3_text",
        {"sliding_window": 5, "layer_types": ["full_attention", "sliding_attention", "full_attention"]},
    ),
    "mistral-scaled": (
        "mistral",
        {"sliding_window": 7, "rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}},
    ),
    "gemma3": ("gemma3_text", {"sliding_window": 5, "sliding_window_pattern": 2, "query_pre_attn_scalar": 11}),
    "gemma3-rope": ("gemma3_text", {"sliding_window": 9, "sliding_window_pattern": 3, "rope_parameters": GEMMA_ROPE}),
    "olmo2": ("olmo2", {"num_key_value_heads": 4}),
    "olmo2-grouped": ("olmo2", {}),
}
LENGTH = 40
each_family = pytest.mark.parametrize(("kind", "fields"), FAMILIES.values(), ids=FAMILIES)


def load(directory: Path, **overrides: Any) -> Decoder:
    checkpoint = open_checkpoint(directory)
    return load_decoder(checkpoint, checkpoint.config.override(overrides, "test"), CPU, torch.float32)


def logits(decoder: Decoder, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return decoder.logits(decoder.read(tokens, decoder.start(len(tokens)))[0])


@each_family
@pytest.mark.parametrize("overrides", [{}, {"attention": "bswa", "block_size": 8, "memory_segments": 4}], ids=str)
def test_logits_are_those_of_transformers(
    tmp_path: Path, kind: str, fields: dict[str, Any], overrides: dict[str, Any]
) -> None:
    """Under full attention, and under BSWA whose window covers the text."""
    model = save_hub_model(tmp_path, kind, **fields)
    decoder = load(tmp_path, **overrides)
    tokens = random_tokens(decoder.config, 2, LENGTH)
    with torch.no_grad():
        expected = model(tokens).logits
    assert expected.std() > 0.2
    assert distance(logits(decoder, tokens), expected) < 1e-4


@each_family
def test_greedy_generation_is_that_of_transformers(tmp_path: Path, kind: str, fields: dict[str, Any]) -> None:
    model = save_hub_model(tmp_path, kind, **fields)
    decoder = load(tmp_path)
    tokens = random_tokens(decoder.config, 1, 12)
    expected = model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=20, do_sample=False)
    expected = expected[0, 12:].tolist()
    generated: list[int] = []
    with torch.no_grad():
        latents, state = decoder.read(tokens, decoder.start(1))
        for _ in expected:
            generated.append(int(decoder.logits(latents[0, -1]).argmax()))
            latents, state = decoder.read(torch.tensor([generated[-1:]]), state)
    assert generated == expected


@each_family
def test_a_family_becomes_a_fam_model(tmp_path: Path, kind: str, fields: dict[str, Any]) -> None:
    """Any chunking gives the same latents, and what was long ago still counts."""
    save_hub_model(tmp_path, kind, **fields)
    decoder = load(tmp_path, attention="fam", block_size=8, memory_segments=1, fam_length=4).double()
    tokens = random_tokens(decoder.config, 1, LENGTH)
    with torch.no_grad():
        whole, _ = read_in_chunks(decoder, tokens, [LENGTH])
        parts, _ = read_in_chunks(decoder, tokens, [3, 9, 1, 27])
        assert distance(whole, parts) < 1e-10
        changed = tokens.clone()
        changed[0, 0] = (changed[0, 0] + 1) % decoder.config.vocab_size
        other, _ = read_in_chunks(decoder, changed, [LENGTH])
    assert distance(whole[:, -1], other[:, -1]) > 1e-9


@pytest.mark.parametrize("attention", ["full", "bswa", "fam"])
def test_local_layers_chunk_as_any(attention: str) -> None:
    config = small_config(attention, local_window=3, global_every=2, rope_local_theta=40.0, **segments_of(attention, 2))
    decoder, tokens = small_decoder(config), random_tokens(config, 2, 22)
    with torch.no_grad():
        whole, _ = read_in_chunks(decoder, tokens, [22])
        single, _ = read_in_chunks(decoder, tokens, [1] * 22)
        seen, _ = read_in_chunks(small_decoder(replace(config, local_window=99)), tokens, [22])
    assert distance(whole, single) < 1e-10
    assert distance(whole[:, :3], seen[:, :3]) < 1e-10
    assert distance(whole[:, 3:], seen[:, 3:]) > 1e-3


@pytest.mark.parametrize("attention", ["bswa", "fam"])
def test_an_offset_of_all_positions_changes_nothing(attention: str) -> None:
    """Rotary attention knows differences only: the paper's random position offset is without effect."""
    config = small_config(attention, memory_segments=1)
    decoder, tokens = small_decoder(config), random_tokens(config, 2, 30)
    with torch.no_grad():
        plain, _ = decoder.read(tokens, decoder.start(2))
        decoder.position_offset = 12345
        moved, _ = decoder.read(tokens, decoder.start(2))
    assert distance(plain, moved) < 1e-9
    assert not torch.equal(plain, moved)


def test_gemma_with_vision_is_read_as_its_text_model(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = save_hub_model(tmp_path, "gemma3_text", sliding_window=5)
    weights = load_file(tmp_path / "model.safetensors")
    moved = {f"language_model.{name}": tensor for name, tensor in weights.items()}
    save_file({**moved, "vision_tower.a.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    text = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text}))
    decoder = load(tmp_path)
    tokens = random_tokens(decoder.config, 1, 20)
    with torch.no_grad():
        assert distance(logits(decoder, tokens), model(tokens).logits) < 1e-4


def test_a_window_that_the_family_does_not_have_is_ignored(tmp_path: Path) -> None:
    """As a model that was of another family before may carry it."""
    model = save_hub_model(tmp_path, "llama", sliding_window=4)
    decoder = load(tmp_path)
    tokens = random_tokens(decoder.config, 2, LENGTH)
    with torch.no_grad():
        assert distance(logits(decoder, tokens), model(tokens, use_cache=False).logits) < 1e-4


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("gemma3_text", {"final_logit_softcapping": 30.0}, "'final_logit_softcapping' is '30.0'"),
        ("qwen3", {"attention_bias": True}, "'attention_bias' is 'True'"),
        ("llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 2.0}}, "is incomplete"),
        (
            "llama",
            {"rope_parameters": None, "rope_scaling": "linear"},
            "'rope_scaling' must be an object",
        ),
    ],
)
def test_what_cannot_be_read_rightly_is_refused(
    tmp_path: Path, kind: str, fields: dict[str, Any], message: str
) -> None:
    save_hub_model(tmp_path, kind)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    with pytest.raises(UserError, match=message):
        open_checkpoint(tmp_path)


def test_other_families_are_refused_with_the_list_of_those_that_are_read(tmp_path: Path) -> None:
    save_hub_model(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_type": "gpt_neox"}))
    with pytest.raises(UserError, match="'gpt_neox'") as caught:
        open_checkpoint(tmp_path)
    assert caught.value.hint == "it reads llama, mistral, qwen2, qwen3, gemma3_text, olmo2"
