"""Adapters: PEFT itself is the oracle of what is merged, and nothing but a plain LoRA gets through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_files import save_as_gguf
from hub_models import save_hub_model
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from small_models import distance, random_tokens

from famcli.checkpoints.registry import find_model, load_model
from famcli.errors import UserError
from famcli.models.decoder import Decoder

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FAM = {"attention": "fam", "block_size": 8, "memory_segments": 1, "fam_length": 4}


def save_adapter(base: Any, directory: Path, **settings: Any) -> Any:
    """A random LoRA on a model of transformers, saved by PEFT; returns the model with it."""
    config = LoraConfig(**{"r": 4, "lora_alpha": 12, "target_modules": TARGETS, **settings})
    model = get_peft_model(base, config)
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(directory)
    return model.eval()


def save_fam(directory: Path, base: str, length: int = 4, width: int = 32, **own: Any) -> torch.Tensor:
    """What ``famcli train`` adds to an adapter."""
    fam = torch.randn(length, width)
    save_file({"fam_embedding": fam}, directory / "fam.safetensors")
    content = {"format": "famcli-adapter", "base": base, "model": FAM, "trained": {}, **own}
    (directory / "famcli.json").write_text(json.dumps(content))
    return fam


def logits(decoder: Decoder, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return decoder.logits(decoder.read(tokens, decoder.start(len(tokens)))[0])


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3_text", "olmo2"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True, "target_modules": ["q_proj", "down_proj"]},
        {
            "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.up_proj": 6},
            "alpha_pattern": {"v_proj": 40, "mlp.up_proj": 3},
        },
    ],
    ids=["plain", "rslora", "patterns"],
)
def test_logits_are_those_of_peft(tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    base = save_hub_model(tmp_path / "base", kind)
    without = load_model(str(tmp_path / "base"), "cpu").decoder
    model = save_adapter(base, tmp_path / "adapter", **settings)
    decoder = load_model(f"{tmp_path / 'base'},adapter={tmp_path / 'adapter'}", "cpu").decoder
    tokens = random_tokens(decoder.config, 2, 30)
    assert distance(logits(decoder, tokens), logits(without, tokens)) > 0.1
    with torch.no_grad():
        expected = model.merge_and_unload().double()(tokens).logits
    assert distance(logits(decoder.double(), tokens), expected) < 1e-5


def test_adapter_on_a_gguf_file_is_that_on_the_model_it_was_made_of(tmp_path: Path) -> None:
    """The rows of Q and K lie in another order there."""
    base = save_hub_model(tmp_path / "base")
    save_as_gguf(base, tmp_path / "base.gguf", "llama")
    save_adapter(base, tmp_path / "adapter")
    decoders = [
        load_model(f"{tmp_path / name},adapter={tmp_path / 'adapter'}", "cpu").decoder for name in ("base", "base.gguf")
    ]
    for name, weight in decoders[0].state_dict().items():
        assert torch.equal(decoders[1].state_dict()[name], weight), name


def test_own_adapter_brings_its_fam_and_its_attention(tmp_path: Path) -> None:
    save_adapter(save_hub_model(tmp_path / "base"), tmp_path / "adapter")
    fam = save_fam(tmp_path / "adapter", str(tmp_path / "base"))
    model = load_model(str(tmp_path / "adapter"), "cpu")
    config = model.decoder.config
    assert (config.attention, config.block_size) == ("fam", 8)
    assert (config.memory.memory_segments, config.memory.fam_length) == (1, 4)
    assert model.decoder.fam_embedding is not None
    assert torch.equal(model.decoder.fam_embedding, fam)
    assert not model.untrained_memory
    changed = find_model(f"{tmp_path / 'base'},adapter={tmp_path / 'adapter'},memory_segments=2,attention=fam")
    assert (changed.config.memory.memory_segments, changed.config.block_size) == (2, 8)
    assert not changed.untrained_memory
    with pytest.raises(UserError, match=r"'fam_length' is 2, but .* with 4"):
        find_model(f"{tmp_path / 'adapter'},fam_length=2")


def test_base_named_with_overrides_keeps_them_where_the_adapter_says_nothing(tmp_path: Path) -> None:
    save_adapter(save_hub_model(tmp_path / "base"), tmp_path / "adapter")
    save_fam(tmp_path / "adapter", f"{tmp_path / 'base'},fam_scale=2,block_size=16")
    config = find_model(f"{tmp_path / 'adapter'},fam_norm=rms").config
    assert (config.memory.fam_scale, config.block_size, config.memory.fam_norm) == (2.0, 8, "rms")


def test_foreign_adapter_with_a_fam_nobody_trained_says_so(tmp_path: Path) -> None:
    save_adapter(save_hub_model(tmp_path / "base"), tmp_path / "adapter")
    spec = f"{tmp_path / 'base'},adapter={tmp_path / 'adapter'},attention=fam,block_size=8,fam_length=4"
    assert find_model(spec).untrained_memory


def test_weights_hash_covers_base_and_adapter(tmp_path: Path) -> None:
    save_adapter(save_hub_model(tmp_path / "base"), tmp_path / "adapter")
    save_fam(tmp_path / "adapter", str(tmp_path / "base"))
    digests = {
        find_model(spec).checkpoint.weights_sha256() for spec in (str(tmp_path / "base"), str(tmp_path / "adapter"))
    }
    for file in ("adapter/adapter_model.safetensors", "adapter/fam.safetensors", "base/model.safetensors"):
        tensors = load_file(tmp_path / file)
        save_file({name: tensor + 1 for name, tensor in tensors.items()}, tmp_path / file, {"format": "pt"})
        digests.add(find_model(str(tmp_path / "adapter")).checkpoint.weights_sha256())
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "lora_alpha": 13}))
    digests.add(find_model(str(tmp_path / "adapter")).checkpoint.weights_sha256())
    assert len(digests) == 6
    moved = tmp_path / "a" / "adapter"
    moved.parent.mkdir()
    (tmp_path / "adapter").rename(moved)
    assert find_model(str(moved)).checkpoint.weights_sha256() in digests, (
        "the same files elsewhere are the same weights"
    )


def test_adapter_of_other_weights_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_adapter(save_hub_model(tmp_path / "base"), tmp_path / "adapter")
    right = find_model(str(tmp_path / "base")).checkpoint.weights_sha256()
    save_fam(tmp_path / "adapter", str(tmp_path / "base"), base_sha256=right)
    load_model(str(tmp_path / "adapter"), "cpu")
    assert not caplog.messages
    save_fam(tmp_path / "adapter", str(tmp_path / "base"), base_sha256="0" * 64)
    load_model(str(tmp_path / "adapter"), "cpu")
    assert "its adapter was trained on other weights" in caplog.text


def test_base_that_is_not_there_says_what_to_type(tmp_path: Path) -> None:
    save_adapter(save_hub_model(tmp_path / "base"), tmp_path / "adapter")
    save_fam(tmp_path / "adapter", "./somewhere/else")
    with pytest.raises(UserError, match=r"the base of .*adapter: no directory '\./somewhere/else'") as caught:
        find_model(str(tmp_path / "adapter"))
    assert f"--model BASE,adapter={tmp_path / 'adapter'}" in (caught.value.hint or "")
    (tmp_path / "adapter" / "famcli.json").unlink()
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": None}))
    with pytest.raises(UserError, match="does not name its base"):
        find_model(str(tmp_path / "adapter"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peft_type": "IA3"}, "'peft_type' is \"IA3\""),
        ({"use_dora": True}, "'use_dora' is true"),
        ({"bias": "all"}, "'bias' is \"all\""),
        ({"fan_in_fan_out": True}, "'fan_in_fan_out' is true"),
        ({"modules_to_save": ["lm_head"]}, "'modules_to_save' is"),
        ({"trainable_token_indices": [3]}, "'trainable_token_indices' is"),
        ({"init_lora_weights": "pissa_niter_4"}, "'init_lora_weights' is 'pissa_niter_4'"),
    ],
)
def test_other_adapters_are_refused_by_name(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    save_adapter(save_hub_model(tmp_path / "base"), tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **fields}))
    with pytest.raises(UserError, match=message) as caught:
        find_model(f"{tmp_path / 'base'},adapter={tmp_path / 'adapter'}")
    assert str(config) in caught.value.message


def test_pickled_adapters_are_refused(tmp_path: Path) -> None:
    save_adapter(save_hub_model(tmp_path / "base"), tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").rename(tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(UserError, match=r"adapter_model\.bin can run code"):
        find_model(f"{tmp_path / 'base'},adapter={tmp_path / 'adapter'}")


def test_adapters_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    save_adapter(save_hub_model(tmp_path / "base"), tmp_path / "adapter")
    spec = f"{tmp_path / 'base'},adapter={tmp_path / 'adapter'}"
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "q_proj.lora_A" in name)
    for changed, message in (
        ({**tensors, name: torch.zeros(4, 31)}, r"adds \[32, 4\] x \[4, 31\] to \[32, 32\]"),
        ({k: v for k, v in tensors.items() if k != name}, "has only one of lora_A and lora_B"),
        ({**tensors, name.replace("layers.0", "layers.7"): tensors[name].clone()}, "has no tensor 'model.layers.7"),
        (
            {**tensors, "base_model.model.lm_head.weight": torch.zeros(2, 2)},
            "unexpected tensor 'base_model.model.lm_head",
        ),
    ):
        save_file(changed, file)
        with pytest.raises(UserError, match=message):
            find_model(spec)
    with pytest.raises(UserError, match=r"adapter_config\.json is missing"):
        find_model(f"{tmp_path / 'base'},adapter={tmp_path / 'base'}")


def test_peft_reads_an_own_adapter_as_well(tmp_path: Path) -> None:
    """The files beside PEFT's own do not disturb it."""
    base = save_hub_model(tmp_path / "base")
    expected = save_adapter(base, tmp_path / "adapter").merge_and_unload().state_dict()
    save_fam(tmp_path / "adapter", str(tmp_path / "base"))
    again = PeftModel.from_pretrained(save_hub_model(tmp_path / "base"), tmp_path / "adapter").merge_and_unload()
    assert all(torch.allclose(weight, expected[name]) for name, weight in again.state_dict().items())
