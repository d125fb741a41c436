"""Matrices of the FAM's own: tokens are read without them, the FAM passes the layers with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import reference
import torch
from safetensors.torch import save_file
from small_models import distance, double_weights, random_tokens, read_in_chunks, small_config, small_decoder
from test_checkpoint import save_small

from famcli.checkpoints.registry import find_model, load_model
from famcli.errors import UserError


@pytest.mark.parametrize("null_sink", [True, False])
@pytest.mark.parametrize("ffn", [True, False])
@pytest.mark.parametrize(("segments", "sinks"), [(0, 0), (0, 2), (2, 1)])
@torch.no_grad()
def test_any_chunking_equals_the_reference(null_sink: bool, ffn: bool, segments: int, sinks: int) -> None:
    config = small_config(
        "fam", fam_rank=2, fam_null_sink=null_sink, fam_ffn=ffn, memory_segments=segments, sinks=sinks
    )
    decoder = small_decoder(config)
    tokens = random_tokens(config, 2, 22)
    expected = reference.read(config, double_weights(decoder), tokens)
    for sizes in ([22], [1] * 22, [5, 9, 1, 7]):
        latents, state = read_in_chunks(decoder, tokens, sizes)
        assert distance(latents, expected.latents) <= 1e-10
        for layer, fams in zip(state.layers, expected.fams, strict=True):
            assert distance(layer["fam"], fams[-1]) <= 1e-9 * fams[-1].abs().max()


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("ffn", [True, False])
@pytest.mark.parametrize("norm", ["none", "rms"])
@torch.no_grad()
def test_a_gate_in_place_of_the_residual_is_that_of_the_reference(rank: int, ffn: bool, norm: str) -> None:
    config = small_config("fam", fam_gate="fixed", fam_rank=rank, fam_ffn=ffn, fam_norm=norm, memory_segments=1)
    decoder, tokens = small_decoder(config), random_tokens(config, 2, 22)
    expected = reference.read(config, double_weights(decoder), tokens)
    for sizes in ([22], [1] * 22, [5, 9, 1, 7]):
        latents, _ = read_in_chunks(decoder, tokens, sizes)
        assert distance(latents, expected.latents) <= 1e-10


@torch.no_grad()
def test_matrices_of_zero_change_nothing_and_others_change_the_fam_alone() -> None:
    own, plain = small_decoder(small_config("fam", fam_rank=3)), small_decoder(small_config("fam"))
    weights = own.state_dict()
    plain.load_state_dict({name: weight for name, weight in weights.items() if ".memory." not in name})
    tokens = random_tokens(own.config, 2, 22)
    changed, _ = read_in_chunks(own, tokens, [22])
    for name, weight in weights.items():
        if name.endswith(".up"):
            weight.zero_()
    same, _ = read_in_chunks(own, tokens, [22])
    expected, _ = read_in_chunks(plain, tokens, [22])
    assert torch.equal(same, expected)
    assert distance(changed, expected) > 1e-3


def test_they_alone_are_an_adapter(tmp_path: Path) -> None:
    """Without LoRA of the base: its matrices stay as they are."""
    save_small(tmp_path / "base", "full")
    fields = {"attention": "fam", "memory_segments": 0, "fam_length": 2, "sinks": 1, "fam_rank": 2}
    shown = load_model(
        ",".join([str(tmp_path / "base"), *(f"{name}={value}" for name, value in fields.items())]), "cpu"
    )
    assert shown.untrained_memory == "no FAM adapter"
    memory = {name: weight for name, weight in shown.decoder.state_dict().items() if "memory" in name or "fam" in name}
    generator = torch.Generator().manual_seed(0)
    memory = {name: torch.randn(weight.shape, generator=generator) for name, weight in memory.items()}
    (tmp_path / "adapter").mkdir()
    save_file(memory, tmp_path / "adapter" / "fam.safetensors")
    about = {"format": "famcli-adapter", "base": str(tmp_path / "base"), "model": fields}
    (tmp_path / "adapter" / "famcli.json").write_text(json.dumps(about))
    model = load_model(str(tmp_path / "adapter"), "cpu")
    assert model.untrained_memory is None and model.weights_sha256 != shown.weights_sha256
    for name, weight in model.decoder.state_dict().items():
        assert torch.equal(weight, memory.get(name, shown.decoder.state_dict()[name])), name
    (tmp_path / "adapter" / "fam.safetensors").unlink()
    with pytest.raises(UserError, match=r"adapter_config\.json is missing"):
        find_model(str(tmp_path / "adapter"))


def test_a_negative_rank_is_refused() -> None:
    with pytest.raises(UserError, match=r"'fam_rank' must be from 0 to the width .12., not -1"):
        small_config("fam", fam_rank=-1)
