"""Weights that a directory holds twice, or under one name of two: transformers is the oracle, and famcli says so."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_models import save_hub_model
from safetensors.torch import load_file, save_file
from small_models import distance, random_tokens, small_config, small_decoder
from transformers import AutoModelForCausalLM

from famcli.checkpoints.decoders import load_decoder, save_checkpoint
from famcli.checkpoints.opening import open_checkpoint
from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError

Tensors = dict[str, torch.Tensor]
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def same_as_transformers(directory: Path) -> bool:
    theirs = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    checkpoint = open_checkpoint(directory)
    decoder = load_decoder(checkpoint, checkpoint.config, torch.device("cpu"), torch.float32)
    tokens = random_tokens(checkpoint.config, 2, 12)
    with torch.no_grad():
        ours = decoder.logits(decoder.read(tokens, decoder.start(2))[0])
        return distance(ours, theirs(tokens).logits) < 1e-4


def edit(directory: Path, change: Callable[[Tensors], Tensors], **fields: Any) -> None:
    weights = load_file(directory / "model.safetensors")
    save_file(change(weights), directory / "model.safetensors", {"format": "pt"})
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, **fields}))


def renamed(weights: Tensors) -> Tensors:
    return {HEAD if name == EMBEDDING else name: tensor for name, tensor in weights.items()}


def copied(weights: Tensors) -> Tensors:
    return {**weights, HEAD: weights[EMBEDDING].clone()}


def wider(weights: Tensors) -> Tensors:
    """The same values, one of them in more bits."""
    halves = {name: tensor.bfloat16() for name, tensor in weights.items()}
    return {**halves, HEAD: halves[EMBEDDING].float()}


def changed_in_the_last_row(weights: Tensors) -> Tensors:
    head = weights[EMBEDDING].clone()
    head[-1, -1] += 9
    return {**weights, HEAD: head}


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3_text"])
@pytest.mark.parametrize(
    ("change", "tied", "warned"),
    [(renamed, True, False), (copied, True, False), (wider, True, False), (changed_in_the_last_row, False, True)],
)
def test_a_head_of_a_tied_model_is_read_as_transformers_reads_it(
    tmp_path: Path,
    kind: str,
    change: Callable[[Tensors], Tensors],
    tied: bool,
    warned: bool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("famcli.checkpoints.weights._VALUES_AT_ONCE", 100)
    save_hub_model(tmp_path, kind, tie_word_embeddings=True)
    edit(tmp_path, change)
    with caplog.at_level(logging.WARNING, "famcli"):
        assert open_checkpoint(tmp_path).config.tie_embeddings is tied
    assert [HEAD in line and EMBEDDING in line for line in caplog.messages] == [True] * warned
    assert same_as_transformers(tmp_path)


def test_a_head_that_nobody_wrote_is_not_drawn(tmp_path: Path) -> None:
    """Where transformers only warns."""
    save_hub_model(tmp_path, tie_word_embeddings=True)
    edit(tmp_path, lambda weights: weights, tie_word_embeddings=False)
    with pytest.raises(UserError, match=r"lacks the tensor 'head\.weight'"):
        open_checkpoint(tmp_path)


def other_weights(directory: Path) -> Tensors:
    return {name: tensor + 0.5 for name, tensor in load_file(directory / "model.safetensors").items()}


@pytest.mark.parametrize(
    ("beside", "read"),
    [
        ("model.safetensors.index.json", "model.safetensors"),
        ("consolidated.safetensors", "model.safetensors"),
        ("model-00001-of-00002.safetensors", "model.safetensors"),
        ("model.Q8_0.gguf", "model.safetensors"),
        ("pytorch_model.bin", "model.safetensors"),
        ("consolidated.00.safetensors", "model.safetensors.index.json"),
    ],
)
def test_of_several_sets_of_weights_that_of_transformers_is_read_and_all_are_named(
    tmp_path: Path, beside: str, read: str, caplog: pytest.LogCaptureFixture
) -> None:
    save_hub_model(tmp_path / "whole")
    save_hub_model(tmp_path, shard="1GB" if read == "model.safetensors" else "20KB")
    others = other_weights(tmp_path / "whole")
    if beside.endswith("index.json"):
        save_file(others, tmp_path / "a.safetensors", {"format": "pt"})
        (tmp_path / beside).write_text(json.dumps({"weight_map": dict.fromkeys(others, "a.safetensors")}))
    else:
        save_file(others, tmp_path / beside, {"format": "pt"})
    with caplog.at_level(logging.WARNING, "famcli"):
        open_checkpoint(tmp_path)
    (line,) = caplog.messages
    assert f"famcli reads {read}, as transformers does, and not" in line and beside in line
    assert same_as_transformers(tmp_path)


def test_one_set_of_weights_is_read_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_hub_model(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    index = {"weight_map": dict.fromkeys(weights, "model.safetensors")}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file(weights, tmp_path / "adapter_model.safetensors")
    save_checkpoint(small_decoder(small_config("fam", vocab_size=257)), ByteTokenizer(), tmp_path / "own")
    save_file(weights, tmp_path / "own" / "checkpoint.safetensors")
    with caplog.at_level(logging.WARNING, "famcli"):
        open_checkpoint(tmp_path)
        open_checkpoint(tmp_path / "own")
    assert not caplog.messages


@pytest.mark.parametrize("name", [EMBEDDING, f"language_model.{EMBEDDING}"])
def test_a_tensor_that_is_there_twice_is_named_with_both_places(tmp_path: Path, name: str) -> None:
    save_hub_model(tmp_path, shard="20KB")
    first, *_, last = sorted(tmp_path.glob("*.safetensors"))
    for file in (first, last):
        save_file({**load_file(file), name: torch.zeros(50, 32)}, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"is there twice: .*\.safetensors has '(language_model.)?model"):
        open_checkpoint(tmp_path)


HUGE = 10**12


@pytest.mark.parametrize(
    "fields",
    [
        {"num_hidden_layers": 10_000},
        {"num_hidden_layers": HUGE},
        {"hidden_size": HUGE},
        {"vocab_size": HUGE},
        {"intermediate_size": HUGE},
        {"num_attention_heads": HUGE},
        {"num_attention_heads": HUGE, "num_key_value_heads": HUGE, "head_dim": HUGE},
        {"head_dim": HUGE},
        {"vocab_size": 2**63 - 1, "hidden_size": 2**62},
        {"vocab_size": 10**40},
    ],
    ids=str,
)
def test_numbers_that_the_file_cannot_hold_cost_nothing(
    tmp_path: Path, fields: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No decoder is made of them, not even one without memory."""
    save_hub_model(tmp_path)
    edit(tmp_path, lambda weights: weights, **fields)

    def refuse(*_: Any) -> None:
        raise AssertionError("a decoder was made")

    monkeypatch.setattr("famcli.models.empty.empty_decoder", refuse)
    with pytest.raises(UserError) as caught:
        open_checkpoint(tmp_path)
    assert str(tmp_path) in caught.value.message
