"""From what a user types to a model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_checkpoint import save_hub_model, save_small

from famcli.checkpoints import registry
from famcli.checkpoints.adapters import open_adapter
from famcli.checkpoints.checkpoint import memory_weights
from famcli.checkpoints.decoders import save_checkpoint
from famcli.checkpoints.opening import open_checkpoint
from famcli.checkpoints.registry import (
    bundled_directory,
    find_model,
    list_presets,
    load_model,
    pick_device,
    pick_dtype,
    split_spec,
)
from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.checkpoints.weights import list_safetensors
from famcli.errors import UserError
from famcli.models.config import ModelConfig
from famcli.models.decoder import Decoder


@pytest.fixture
def empty_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache of the test's own, and a current directory with nothing in it."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return cache


def put_in_cache(cache: Path, hub_id: str) -> Path:
    """The place of a snapshot of ``hub_id``, where the hub's own client would look for it."""
    folder = cache / f"models--{hub_id.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc123")
    return folder / "snapshots" / "abc123"


def test_the_presets_are_those_of_the_paper_and_the_bundled_ones() -> None:
    presets = {preset.name: preset for preset in list_presets()}
    sizes = ("tiny", "135m", "1b", "8b", "24b")
    assert set(presets) == {f"{kind}-{size}" for kind in ("fam", "bswa") for size in sizes} | {"full-135m"}
    for name, preset in presets.items():
        assert preset.licence == "Apache-2.0"
        if name.endswith("-tiny"):
            assert preset.base is None
            continue
        config = preset.config
        assert config is not None
        memory = (512, 1) if name.endswith("-135m") else (1024, 3)
        attention = "gated_fam" if name == "fam-135m" else name.split("-")[0]
        assert (config.attention, config.block_size) == (attention, memory[0])
        segments = None if name.startswith("full") else memory[1]
        assert getattr(config.memory, "memory_segments", None) == segments
        latents = 128 if name == "fam-135m" else 64
        assert getattr(config.memory, "fam_length", 0) == (latents if name.startswith("fam") else 0)
        sinks = 32 if name.endswith("-135m") else 1
        assert getattr(config.memory, "sinks", None) == (None if name.startswith("full") else sinks)
        with torch.device("meta"):
            weights = sum(weight.numel() for weight in Decoder(config).parameters())
        assert preset.parameters == weights


def test_both_presets_of_a_size_differ_in_attention_alone() -> None:
    presets = {preset.name: preset for preset in list_presets()}
    for size in ("135m", "1b", "8b", "24b"):
        fam, bswa = presets[f"fam-{size}"], presets[f"bswa-{size}"]
        assert fam.base == bswa.base
        assert fam.config is not None
        assert fam.config.override({"attention": "bswa"}, "test") == bswa.config


def test_directory_loads_with_its_own_attention_and_full_precision(tmp_path: Path) -> None:
    decoder = save_small(tmp_path)
    model = load_model(str(tmp_path), "cpu")
    assert model.name == str(tmp_path)
    assert model.decoder.config == decoder.config
    assert (model.dtype, model.device.type, model.untrained_memory) == (torch.float32, "cpu", None)
    assert not model.decoder.training


def test_overrides_replace_fields_and_stay_in_the_name(tmp_path: Path) -> None:
    save_small(tmp_path)
    spec = f"{tmp_path},memory_segments=0, block_size=256"
    model = load_model(spec, "cpu")
    assert (model.decoder.config.memory.memory_segments, model.decoder.config.block_size) == (0, 256)
    assert model.name == spec


@pytest.mark.parametrize(
    ("overrides", "message", "hint"),
    [
        ("width=64", "'width' is 64, but .* with 12", None),
        ("fam_length=4", "'fam_length' is 4, but .* with 2", None),
        ("memory_segment=1", "unknown field .* 'memory_segment'", "memory_segments"),
        ("block_size=4k", "'block_size' must be a whole number, not '4k'", "in digits: 4096"),
        ("block_size=big", "'block_size' must be a whole number, not 'big'", None),
        ("block_size", "'block_size' is not FIELD=VALUE", "for example"),
        ("memory_segments=-1", "'memory_segments' must be at least 0", None),
    ],
)
def test_overrides_that_do_not_fit_say_why(tmp_path: Path, overrides: str, message: str, hint: str | None) -> None:
    save_small(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        find_model(f"{tmp_path},{overrides}")
    if hint:
        assert hint in (caught.value.hint or "")


def test_fam_that_was_never_learned_is_told(tmp_path: Path) -> None:
    save_small(tmp_path, "bswa")
    assert not find_model(str(tmp_path)).untrained_memory
    assert find_model(f"{tmp_path},attention=fam,fam_length=2").untrained_memory


@given(
    name=st.from_regex(r"[\w./-]+", fullmatch=True),
    overrides=st.dictionaries(st.from_regex(r"[a-z_]+", fullmatch=True), st.from_regex(r"[\w.]*", fullmatch=True)),
)
def test_specs_split_into_what_they_were_joined_from(name: str, overrides: dict[str, str]) -> None:
    spec = ",".join([name, *(f"{field}={value}" for field, value in overrides.items())])
    assert split_spec(spec) == (name, overrides)


@pytest.mark.usefixtures("empty_hub_cache")
@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        ("fam-tny", "unknown model 'fam-tny'", "fam-tiny"),
        ("", "unknown model ''", "fam-tiny"),
        ("~nobody-of-that-name/model", "'~nobody-of-that-name/model' cannot be a path", ""),
        ("fam-tiny,adapter=~nobody-of-that-name/x", "'~nobody-of-that-name/x' cannot be a path", ""),
        ("x" * 300, "cannot be a path: File name too long", ""),
        ("./nowhere", "no directory './nowhere'", "famcli list models"),
        ("someone/something", "no directory 'someone/something'", "hf download someone/something"),
        ("fam-1b", "weights of 'fam-1b' are not on this machine", "hf download HuggingFaceTB/SmolLM2-1.7B"),
        ("bswa-24b,block_size=512", "weights of 'bswa-24b'", "hf download unsloth/Mistral-Small-24B-Base-2501"),
    ],
)
def test_models_that_are_not_there_say_what_to_type(spec: str, message: str, hint: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        find_model(spec)
    assert hint in (caught.value.hint or "")


def test_hub_models_are_found_in_the_local_cache(empty_hub_cache: Path) -> None:
    snapshot = put_in_cache(empty_hub_cache, "someone/something")
    save_hub_model(snapshot)
    model = find_model("someone/something,attention=bswa,block_size=16")
    assert model.checkpoint.path == snapshot
    assert (model.config.attention, model.config.block_size) == ("bswa", 16)
    assert find_model("someone/something").config.attention == "full"


def test_interrupted_download_counts_as_none(empty_hub_cache: Path) -> None:
    snapshot = put_in_cache(empty_hub_cache, "someone/something")
    save_hub_model(snapshot)
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no model of that name in the local hub cache"):
        find_model("someone/something")


def small_preset(monkeypatch: pytest.MonkeyPatch, config: ModelConfig) -> None:
    preset = registry.Preset("fam-small", "small", "Apache-2.0", "someone/small", None, None, config)
    monkeypatch.setattr(registry, "list_presets", lambda: [preset])


def test_preset_takes_its_base_from_models_first(empty_hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = put_in_cache(empty_hub_cache, "someone/small")
    save_hub_model(cached, rms_norm_eps=1e-3)
    shape: dict[str, Any] = {"attention": "fam", "block_size": 32, "memory_segments": 1, "fam_length": 4}
    small_preset(monkeypatch, open_checkpoint(cached).config.override({**shape, "norm_eps": 1e-5}, "test"))
    model = find_model("fam-small,memory_segments=2")
    assert model.checkpoint.path == cached
    assert (model.config.attention, model.config.block_size, model.config.memory.memory_segments) == ("fam", 32, 2)
    assert model.config.norm_eps == 1e-3, "what the weights were trained with counts, not what the preset says"
    assert model.untrained_memory
    shutil.copytree(cached, Path("models/small"))
    assert find_model("fam-small").checkpoint.path == Path("models/small")


def test_preset_whose_base_has_another_shape_names_the_field(
    empty_hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = put_in_cache(empty_hub_cache, "someone/small")
    save_hub_model(cached)
    small_preset(monkeypatch, open_checkpoint(cached).config.override({"layers": 5}, "test"))
    with pytest.raises(UserError, match=r"'layers' is 5, but .* with 3"):
        find_model("fam-small")


def test_devices_and_dtypes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_small(tmp_path)
    full = open_checkpoint(tmp_path)
    decoder = load_model(str(tmp_path), "cpu").decoder
    save_checkpoint(decoder, ByteTokenizer(), tmp_path / "half", dtype=torch.bfloat16)
    half = open_checkpoint(tmp_path / "half")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    with pytest.raises(UserError, match="device 'cuda' is not available here"):
        pick_device("cuda")
    with pytest.raises(UserError, match="unknown device 'gpu'"):
        pick_device("gpu")
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert pick_device("auto") == torch.device("mps")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert pick_device("auto") == torch.device("cuda")
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert half.half_precision
    assert pick_dtype("auto", cpu, half) == torch.float32
    assert pick_dtype("auto", cuda, full) == torch.float32
    assert pick_dtype("auto", cuda, half) == torch.bfloat16
    assert pick_dtype("bfloat16", cpu, full) == torch.bfloat16
    with pytest.raises(UserError, match="unknown dtype 'float16'"):
        pick_dtype("float16", cpu, full)


def test_a_bundled_adapter_is_that_of_its_preset() -> None:
    presets = {preset.name: preset for preset in list_presets()}
    config = presets["fam-135m"].config
    assert config is not None
    directory = bundled_directory("fam-135m")
    adapter = open_adapter(directory)
    assert adapter.base == "full-135m"
    ours = config.as_mapping()
    assert {name: ours[name] for name in adapter.fields} == adapter.fields
    stored = {tensor.name: tensor.shape for tensor in list_safetensors(directory / "fam.safetensors")}
    assert stored == dict(memory_weights(config))
    assert sum(file.stat().st_size for file in directory.iterdir()) <= 12_000_000
