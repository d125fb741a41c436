"""Rounded weights: how far they are off, that a model of them is one model in any chunking, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from small_models import distance, double_weights, random_tokens, read_in_chunks, small_config, small_decoder
from torch import Tensor, nn

from famcli.checkpoints.decoders import load_decoder, save_checkpoint
from famcli.checkpoints.opening import open_checkpoint
from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.cli.main import main
from famcli.errors import UserError
from famcli.evaluation.record import load_records
from famcli.models import int8
from famcli.models.config import ModelConfig
from famcli.models.decoder import Decoder

CPU = torch.device("cpu")
WIDE = {"vocab_size": 257, "width": 32, "head_width": 8, "ffn_width": 64}
PARTITIONS = {"token-by-token": [1] * 44, "at-once": [44], "blocks": [20, 20, 4], "both": [30, 1, 1, 1, 11]}


def wide_config(attention: str, **fields: Any) -> ModelConfig:
    return small_config(attention, **{**WIDE, "block_size": 20, **fields})


def rounded_decoder(config: ModelConfig, weights: dict[str, Tensor]) -> Decoder:
    """The decoder that keeps ``weights`` in 8 bits."""
    with torch.device("meta"):
        decoder = Decoder(replace(config, weights="int8")).to(torch.bfloat16)
    wanted, state = decoder.state_dict().keys(), dict[str, Tensor]()
    for name, weight in weights.items():
        kept = int8.is_rounded(name, wanted)
        state |= int8.as_kept(name, weight.float()) if kept else {name: weight.bfloat16()}
    decoder.load_state_dict(state, assign=True)
    return decoder.eval()


def double_values(decoder: Decoder) -> dict[str, Tensor]:
    """The rounded weights as the reference takes them, without another rounding."""
    state = {name: tensor.double() for name, tensor in decoder.state_dict().items()}
    scales = {name: state.pop(name) for name in list(state) if name.endswith("_scale")}
    return {name: t * scales[f"{name}_scale"][:, None] if f"{name}_scale" in scales else t for name, t in state.items()}


def root_mean_square(left: Tensor, right: Tensor) -> float:
    """Of their difference."""
    return (left.double() - right.double()).square().mean().sqrt().item()


# The rounding


@given(seed=st.integers(0, 2**32), exponent=st.integers(-30, 30), width=st.integers(1, 70))
@settings(max_examples=60, deadline=None)
def test_no_value_is_off_by_more_than_half_a_step_of_its_row(seed: int, exponent: int, width: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(9, width, generator=generator) * 2.0**exponent
    weight[0] = 0
    weight[1] *= 1e-3  # every row has a scale of its own
    before = weight.clone()
    numbers, scale = int8.rounded(weight)
    assert (numbers.dtype, scale.dtype) == (torch.int8, torch.bfloat16)
    assert torch.equal(weight, before)
    step = scale.double()[:, None]
    assert ((numbers.double() * step - weight.double()).abs() <= step * (0.5 + 1e-6)).all()
    # A step is the largest value over 127, rounded to bfloat16: none is wider than it must be.
    widest = weight.double().abs().amax(dim=1) / 127
    assert ((scale.double() - widest).abs() <= widest * 2**-8 + 1e-37).all()
    assert numbers[0].count_nonzero() == 0


@pytest.mark.parametrize("rows", [1, 5, int8.FEW_ROWS, int8.FEW_ROWS + 1])
@pytest.mark.parametrize("shape", [(3, 32), (64, 576), (5, 1), (9, 65)])
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_products_are_those_of_the_rounded_matrix(rows: int, shape: tuple[int, int], bias: bool) -> None:
    """Of any number of rows, to the rounding of bfloat16, against float64."""
    generator = torch.Generator().manual_seed(rows)
    layer = int8.Int8Linear(shape[1], shape[0], bias)
    numbers, scale = int8.rounded(torch.randn(shape, generator=generator))
    state = {"weight": numbers, "weight_scale": scale}
    if bias:
        state["bias"] = torch.randn(shape[0], generator=generator).bfloat16()
    layer.load_state_dict(state, assign=True)
    x = torch.randn(2, rows, shape[1], generator=generator).bfloat16()[:1]
    matrix, added = numbers.double() * scale.double()[:, None], state["bias"].double() if bias else torch.zeros(1)
    product, found = x.double() @ matrix.T, layer(x)
    assert (found.dtype, found.shape) == (torch.bfloat16, (1, rows, shape[0]))
    # Rounded three times at most: the sum, the sum times scale, and with the bias.
    bound = 3 * 2**-8 * (product.abs() + added.abs()) + 1e-5 * (x.double().abs() @ matrix.abs().T)
    assert ((found.double() - product - added).abs() <= bound).all()


# The model


@pytest.mark.parametrize("sizes", PARTITIONS.values(), ids=PARTITIONS)
@pytest.mark.parametrize("fields", [{}, {"tie_embeddings": False, "qkv_bias": True, "embedding_scale": 3.0}], ids=str)
@pytest.mark.parametrize("attention", ["full", "bswa", "fam"])
@torch.no_grad()
def test_one_model_in_any_chunking(
    attention: str, fields: dict[str, Any], sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading and decoding are as near to the rounded weights in float64 as bfloat16 is, and far from plain ones."""
    monkeypatch.setattr(int8, "LARGEST", 7)  # steps so wide that the plain weights are another model
    config = wide_config(attention, **fields)
    plain, tokens = small_decoder(config), random_tokens(config, 2, 44)
    decoder = rounded_decoder(config, double_weights(plain))
    found, _ = read_in_chunks(decoder, tokens, sizes)
    far, _ = read_in_chunks(plain, tokens, [44])
    unrounded = plain.logits(far)
    plain.load_state_dict(double_values(decoder))
    near, _ = read_in_chunks(plain, tokens, [44])
    assert 15 * root_mean_square(found, near) < root_mean_square(found, far)
    logits = decoder.logits(found)
    assert 15 * root_mean_square(logits, plain.logits(near)) < root_mean_square(logits, unrounded)
    assert found.dtype == torch.bfloat16


def test_a_name_of_its_own_and_old_names_stay() -> None:
    plain, rounded = (Decoder(wide_config("bswa", weights=weights)).identity for weights in ("float", "int8"))
    assert "weights" not in plain
    assert rounded == {**plain, "weights": "int8"}


# What is loaded


def saved(directory: Path, **fields: Any) -> Decoder:
    decoder = small_decoder(wide_config("bswa", **fields), torch.float32)
    save_checkpoint(decoder, ByteTokenizer(), directory)
    return decoder


@pytest.mark.parametrize("tie", [True, False])
def test_matrices_are_rounded_from_what_is_stored(tie: bool, tmp_path: Path) -> None:
    """Not from that in bfloat16: two roundings are worse than one."""
    decoder = saved(tmp_path, tie_embeddings=tie)
    checkpoint = open_checkpoint(tmp_path)
    config = checkpoint.config.override({"weights": "int8"}, "test")
    loaded = load_decoder(checkpoint, config, CPU, torch.bfloat16)
    state = loaded.state_dict()
    for name, weight in decoder.state_dict().items():
        if weight.dim() == 2:
            step = state[f"{name}_scale"].double()[:, None]
            assert ((state[name].double() * step - weight.double()).abs() <= step * (0.5 + 1e-6)).all()
        else:
            assert torch.equal(state[name], weight.bfloat16())
    assert loaded.parameters_count == decoder.parameters_count
    held = sum(tensor.nbytes for tensor in state.values())
    assert held < 0.6 * 2 * decoder.parameters_count
    assert not any(weight.requires_grad for name, weight in loaded.named_parameters() if weight.dim() == 2)


def test_a_memory_that_nobody_trained_begins_near_that_of_the_plain_model(tmp_path: Path) -> None:
    saved(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    fam = checkpoint.config.override({"attention": "fam", "fam_length": 4}, "test")
    plain = load_decoder(checkpoint, fam, CPU, torch.float32)
    loaded = load_decoder(checkpoint, fam.override({"weights": "int8"}, "test"), CPU, torch.bfloat16)
    assert distance(loaded.get_parameter("fam_embedding"), plain.get_parameter("fam_embedding")) < 0.05


def test_what_the_checkpoint_says_of_itself_counts(tmp_path: Path) -> None:
    """A directory may ask for rounded weights, stored plain; the command line may take it back."""
    saved(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(file.read_text().replace('"weights": "float"', '"weights": "int8"'))
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.config.weights == "int8"
    assert load_decoder(checkpoint, checkpoint.config, CPU, torch.bfloat16).config.weights == "int8"
    plain = checkpoint.config.override({"weights": "float"}, "test")
    assert isinstance(load_decoder(checkpoint, plain, CPU, torch.float32).embedding, nn.Embedding)


# On the command line


def evaluated(*args: str) -> int:
    return main(["eval", "--task", "passkey", "-o", "lengths=400", "-o", "trials=1", "--device", "cpu", *args])


def test_a_run_says_what_its_weights_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(Path("model"))
    assert evaluated("--model", "model", "--model", "model,weights=int8", "--dtype", "bfloat16") == 0
    plain, rounded = sorted(load_records(Path("results")), key=lambda run: len(run.model["name"]))
    assert rounded.model["config"] == {**plain.model["config"], "weights": "int8"}
    assert "weights" not in plain.model["config"]  # or runs before and after there was the field would be of two models
    assert plain.model["weights_sha256"] == rounded.model["weights_sha256"]
    assert plain.run_id[-12:] != rounded.run_id[-12:]


def test_a_wrong_dtype_is_said_before_the_first_model_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(Path("model"))
    assert evaluated("--model", "model", "--model", "model,weights=int8") == 2
    error = capsys.readouterr().err
    assert "weights=int8 computes in bfloat16, and the dtype is float32" in error and "add --dtype bfloat16" in error
    assert not Path("results").exists()


# Refusals


@pytest.mark.parametrize(
    ("device", "dtype", "message"),
    [
        ("cuda", torch.bfloat16, "for processors, and the device is cuda"),
        ("mps", torch.bfloat16, "for processors, and the device is mps"),
        ("cpu", torch.float32, "computes in bfloat16, and the dtype is float32"),
    ],
)
def test_other_places_are_refused_by_name(device: str, dtype: torch.dtype, message: str) -> None:
    config = wide_config("bswa")
    int8.check_place(config, torch.device(device), dtype)
    with pytest.raises(UserError, match=message):
        int8.check_place(replace(config, weights="int8"), torch.device(device), dtype)


def test_a_pytorch_without_the_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = wide_config("bswa", weights="int8")
    int8.check_place(config, CPU, torch.bfloat16)
    monkeypatch.delattr(torch, "_weight_int8pack_mm")
    with pytest.raises(UserError, match="a kernel that this PyTorch"):
        int8.check_place(config, CPU, torch.bfloat16)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(value: float, tmp_path: Path) -> None:
    saved(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    tensors["layers.1.ffn.up_proj.weight"][3, 2] = value
    save_file(tensors, file, {"format": "pt"})
    checkpoint = open_checkpoint(tmp_path)
    config = checkpoint.config.override({"weights": "int8"}, "test")
    with pytest.raises(UserError, match=r"model\.safetensors: tensor 'layers\.1\.ffn\.up_proj\.weight' has values"):
        load_decoder(checkpoint, config, CPU, torch.bfloat16)


def test_rounded_weights_are_not_saved_or_spread(tmp_path: Path) -> None:
    saved(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    config = checkpoint.config.override({"weights": "int8"}, "test")
    with pytest.raises(UserError, match="cannot be spread over devices"):
        load_decoder(checkpoint, config, CPU, torch.bfloat16, [CPU] * config.layers)
    with pytest.raises(UserError, match="cannot be saved"):
        save_checkpoint(load_decoder(checkpoint, config, CPU, torch.bfloat16), ByteTokenizer(), tmp_path / "again")
    assert not (tmp_path / "again").exists()
