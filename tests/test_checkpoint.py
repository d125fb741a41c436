"""Checkpoints: what is saved is what is loaded, transformers is the oracle, and nothing broken gets through."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from hub_models import save_hub_model, save_word_tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from small_models import distance, random_tokens, small_config, small_decoder

from famcli.checkpoints.checkpoint import check_fits
from famcli.checkpoints.decoders import load_decoder, save_checkpoint
from famcli.checkpoints.hub_tokenizer import HubTokenizer
from famcli.checkpoints.opening import open_checkpoint
from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError
from famcli.models.config import ModelConfig
from famcli.models.decoder import Decoder

CPU = torch.device("cpu")


def save_small(directory: Path, attention: str = "fam", **fields: Any) -> Decoder:
    decoder = small_decoder(small_config(attention, **{"vocab_size": 257, **fields}), torch.float32)
    save_checkpoint(decoder, ByteTokenizer(), directory, {"recipe": "none"})
    return decoder


def edit_config(directory: Path, **fields: Any) -> None:
    """Changes fields of ``config.json``; ``...`` removes one."""
    file = directory / "config.json"
    content = {**json.loads(file.read_text()), **fields}
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not ...}))


@pytest.mark.parametrize("attention", ["full", "bswa", "fam"])
@pytest.mark.parametrize("tie", [True, False])
def test_saved_decoder_loads_bit_for_bit(tmp_path: Path, attention: str, tie: bool) -> None:
    decoder = save_small(tmp_path / "model", attention, tie_embeddings=tie)
    checkpoint = open_checkpoint(tmp_path / "model")
    loaded = load_decoder(checkpoint, checkpoint.config, CPU, torch.float32)
    assert checkpoint.config == decoder.config
    assert isinstance(checkpoint.tokenizer, ByteTokenizer)
    assert loaded.state_dict().keys() == decoder.state_dict().keys()
    for name, weight in decoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)


def test_loaded_decoder_can_be_trained_and_its_file_replaced(tmp_path: Path) -> None:
    save_small(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    decoder = load_decoder(checkpoint, checkpoint.config, CPU, torch.float32)
    before = {name: weight.clone() for name, weight in decoder.state_dict().items()}
    (tmp_path / "model.safetensors").write_bytes(b"\0" * (tmp_path / "model.safetensors").stat().st_size)
    assert all(torch.equal(weight, before[name]) for name, weight in decoder.state_dict().items())
    assert all(weight.requires_grad for weight in decoder.parameters())


def test_weights_are_stored_in_the_asked_precision_and_loaded_in_any(tmp_path: Path) -> None:
    decoder = small_decoder(small_config("fam", vocab_size=257), torch.float32)
    save_checkpoint(decoder, ByteTokenizer(), tmp_path, dtype=torch.bfloat16)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.half_precision
    loaded = load_decoder(checkpoint, checkpoint.config, CPU, torch.float32)
    for name, weight in decoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight.bfloat16().float())


def test_extra_entries_stay_beside_the_model(tmp_path: Path) -> None:
    save_small(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["recipe"] == "none"


def test_failed_save_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_small(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(UserError, match=r"cannot write .*model\.safetensors: disk full"):
        save_small(tmp_path, block_size=8)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_weights_hash_is_that_of_the_file(tmp_path: Path) -> None:
    save_small(tmp_path)
    digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    assert open_checkpoint(tmp_path).weights_sha256() == digest


def test_weights_hash_of_shards_sees_every_one(tmp_path: Path) -> None:
    save_hub_model(tmp_path, shard="20KB")
    digests = {open_checkpoint(tmp_path).weights_sha256()}
    for shard in sorted(tmp_path.glob("*.safetensors")):
        tensors = load_file(shard)
        save_file({name: tensor + 1 for name, tensor in tensors.items()}, shard, {"format": "pt"})
        digests.add(open_checkpoint(tmp_path).weights_sha256())
    assert len(digests) == 1 + len(list(tmp_path.glob("*.safetensors")))


@pytest.mark.parametrize("kind", ["llama", "mistral"])
@pytest.mark.parametrize("tie", [True, False])
def test_hub_model_reads_as_transformers_does(tmp_path: Path, kind: str, tie: bool) -> None:
    theta = {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}
    fields = {"tie_word_embeddings": tie, "rms_norm_eps": 1e-3, "head_dim": 12, **theta}
    model = save_hub_model(tmp_path, kind, "20KB", **fields)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    checkpoint = open_checkpoint(tmp_path)
    decoder = load_decoder(checkpoint, checkpoint.config, CPU, torch.float32)
    tokens = random_tokens(checkpoint.config, 2, 40)
    with torch.no_grad():
        latents, _ = decoder.read(tokens, decoder.start(2))
        expected = model(tokens).logits
    assert expected.abs().max() > 0.5
    assert distance(decoder.logits(latents), expected) < 1e-4


def test_older_hub_configs_keep_their_rope_theta_and_defaults(tmp_path: Path) -> None:
    save_hub_model(tmp_path, num_key_value_heads=4)
    edit_config(tmp_path, rope_parameters=..., rope_theta=1234.0, head_dim=..., num_key_value_heads=...)
    config = open_checkpoint(tmp_path).config
    assert (config.rope_theta, config.head_width, config.kv_heads) == (1234.0, 8, 4)


def test_hub_model_takes_any_attention(tmp_path: Path) -> None:
    """A BSWA that covers the text equals full attention; a FAM the weights never learned is drawn, always alike."""
    save_hub_model(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    tokens = random_tokens(checkpoint.config, 1, 30)

    def read(**fields: Any) -> torch.Tensor:
        decoder = load_decoder(checkpoint, checkpoint.config.override(fields, "test"), CPU, torch.float32)
        with torch.no_grad():
            return decoder.read(tokens, decoder.start(1))[0]

    wide = {"attention": "bswa", "block_size": 8, "memory_segments": 4}
    assert distance(read(**wide), read()) < 1e-4
    fam = {"attention": "fam", "block_size": 8, "fam_length": 4}
    assert torch.equal(read(**fam), read(**fam))
    assert distance(read(**fam), read()) > 1e-3


def test_untrained_fam_is_drawn_like_token_embeddings(tmp_path: Path) -> None:
    save_small(tmp_path, "bswa", block_size=256)
    checkpoint = open_checkpoint(tmp_path)
    config = checkpoint.config.override({"attention": "fam", "fam_length": 256}, "test")
    decoder = load_decoder(checkpoint, config, CPU, torch.float32)
    assert checkpoint.lacks_memory(config) == ["fam_embedding"]
    assert checkpoint.lacks_memory(checkpoint.config) == []
    table, fam = decoder.embedding.weight, decoder.fam_embedding
    assert fam is not None
    assert distance(fam.mean(0), table.mean(0)) < 0.3
    assert distance(fam.std(0) / table.std(0), torch.ones(12)) < 0.2


def test_hub_tokenizer_survives_a_save(tmp_path: Path) -> None:
    save_word_tokenizer(tmp_path / "tokenizer.json")
    tokenizer = HubTokenizer.from_file(tmp_path / "tokenizer.json", {"bos_token_id": 4, "eos_token_id": [3, 2]})
    assert (tokenizer.text_start, tokenizer.end_of_text) == (4, 3)
    assert tokenizer.encode("the pass key") == [0, 1, 2]
    assert tokenizer.decode([2, 3]) == "key is"
    decoder = small_decoder(small_config("fam", vocab_size=tokenizer.vocab_size), torch.float32)
    save_checkpoint(decoder, tokenizer, tmp_path / "model")
    again = open_checkpoint(tmp_path / "model").tokenizer
    assert (again.name, again.vocab_size, again.encode("is")) == (tokenizer.name, 5, [3])
    assert (again.text_start, again.end_of_text) == (4, 3)


def test_the_highest_id_of_a_hub_tokenizer_counts() -> None:
    words = tokenizers.models.WordLevel({"the": 0, "[UNK]": 1, "is": 7}, unk_token="[UNK]")
    assert HubTokenizer(tokenizers.Tokenizer(words).to_str(), {}).vocab_size == 8


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated_weights_are_refused_by_name(tmp_path: Path, share: float) -> None:
    file = tmp_path / "model.safetensors"
    save_small(tmp_path)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"model\.safetensors is not a whole safetensors file"):
        open_checkpoint(tmp_path)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.ckpt"])
def test_pickles_are_refused_and_never_opened(tmp_path: Path, name: str) -> None:
    save_hub_model(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    (tmp_path / "model" / name).write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    for given_path in (tmp_path / "model", tmp_path / "model" / name):
        with pytest.raises(UserError, match=f"{name} is not a safetensors file"):
            open_checkpoint(given_path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": ...}, r"embed_tokens\.weight' is \[50, 32\], expected \[50, 4096\]"),
        ({"num_attention_heads": "four"}, r"config\.json: field 'num_attention_heads'"),
        ({"num_attention_heads": 0}, r"config\.json: field 'num_attention_heads'"),
        ({"model_type": "gpt2"}, r"config\.json: field 'model_type' is 'gpt2'"),
        ({"attention_bias": True}, r"config\.json: field 'attention_bias'"),
        ({"hidden_act": "gelu"}, r"config\.json: field 'hidden_act'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, r"config\.json: field 'rope_parameters'"),
        ({"rope_parameters": ..., "rope_scaling": {"type": "linear"}}, r"config\.json: field 'rope_scaling'"),
        ({"quantization_config": {"bits": 4}}, r"config\.json: field 'quantization_config'"),
        ({"intermediate_size": 64}, r"mlp\.\w+_proj\.weight' is \[\d+, \d+\], expected \[\d+, \d+\]"),
        ({"num_hidden_layers": 4}, r"lacks the tensor 'layers\.3\."),
        ({"num_hidden_layers": 2}, r"unexpected tensor 'model\.layers\.2\."),
        ({"model_type": ...}, r"config\.json has neither the field 'format'"),
    ],
)
def test_hub_config_that_cannot_be_read_is_named(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    save_hub_model(tmp_path)
    edit_config(tmp_path, **fields)
    with pytest.raises(UserError, match=message):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": ...}, r"config\.json lacks the field 'model'"),
        ({"model": "big"}, r"config\.json: field 'model' must be a mapping of fields, not 'big'"),
        ({"tokenizer": ...}, r"config\.json lacks the field 'tokenizer'"),
        ({"tokenizer": "words"}, r"config\.json: field 'tokenizer' must be one of bytes, tokenizer.json"),
        ({"format": "other"}, r"config\.json has neither the field 'format'"),
    ],
)
def test_own_config_that_cannot_be_read_is_named(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    save_small(tmp_path)
    edit_config(tmp_path, **fields)
    with pytest.raises(UserError, match=message):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("width", ..., "lacks the field 'width'"),
        ("widht", 12, "unknown field .*config.json, field 'model': 'widht'"),
        ("layers", "many", "'layers' must be a whole number"),
        ("attention", "linear", "'attention' must be one of"),
    ],
)
def test_wrong_model_fields_name_file_and_field(tmp_path: Path, field: str, value: Any, message: str) -> None:
    save_small(tmp_path)
    model = {**json.loads((tmp_path / "config.json").read_text())["model"], field: value}
    edit_config(tmp_path, model={name: value for name, value in model.items() if value is not ...})
    with pytest.raises(UserError, match=message) as caught:
        open_checkpoint(tmp_path)
    assert str(tmp_path / "config.json") in caught.value.message


@pytest.mark.parametrize("content", ["", "{", "[]", "\udcff"])
def test_config_that_is_no_json_object_is_named(tmp_path: Path, content: str) -> None:
    save_small(tmp_path)
    (tmp_path / "config.json").write_text(content, errors="surrogateescape")
    with pytest.raises(UserError, match=r"config\.json (is not valid JSON|must hold a JSON object)"):
        open_checkpoint(tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json is missing"):
        open_checkpoint(tmp_path)
    save_hub_model(tmp_path, shard="20KB")
    shard = sorted(tmp_path.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(UserError, match=f"{shard.name} is missing"):
        open_checkpoint(tmp_path)


def test_index_cannot_lead_out_of_the_directory(tmp_path: Path) -> None:
    save_hub_model(tmp_path, shard="20KB")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "../secret.safetensors"}}))
    with pytest.raises(UserError, match=r"'weight_map' names '\.\./secret"):
        open_checkpoint(tmp_path)


def test_tensors_too_many_and_too_few_are_named(tmp_path: Path) -> None:
    save_small(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "layers.0.gate.weight": torch.zeros(1)}, file)
    with pytest.raises(UserError, match=r"unexpected tensor 'layers\.0\.gate\.weight'"):
        open_checkpoint(tmp_path)
    del tensors["norm.weight"]
    save_file(tensors, file)
    with pytest.raises(UserError, match=r"lacks the tensor 'norm\.weight' \[12\]"):
        open_checkpoint(tmp_path)


def test_config_that_does_not_fit_the_weights_names_field_and_both_values(tmp_path: Path) -> None:
    save_small(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    wrong: dict[str, Any] = {"width": 24, "layers": 2, "kv_heads": 4, "heads": 2, "head_width": 12, "ffn_width": 8}
    for field, value in {**wrong, "vocab_size": 100, "tie_embeddings": False}.items():
        trained = getattr(checkpoint.config, field)
        with pytest.raises(UserError, match=rf"'{field}' is {value}, but .* with {trained}"):
            check_fits(checkpoint, checkpoint.config.override({field: value}, "test"))
    for length in (1, 3):
        with pytest.raises(UserError, match=rf"'fam_length' is {length}, but .* with 2"):
            check_fits(checkpoint, checkpoint.config.override({"fam_length": length}, "test"))


def test_decoder_made_on_the_meta_device_rotates_like_any_other() -> None:
    """Loading builds decoders without memory; what is no weight must be real all the same."""
    config: ModelConfig = small_config("fam")
    decoder = small_decoder(config, torch.float32)
    with torch.device("meta"):
        other = Decoder(config)
    other.load_state_dict(decoder.state_dict(), assign=True)
    tokens = random_tokens(config, 1, 11)
    with torch.no_grad():
        assert torch.equal(other.read(tokens, other.start(1))[0], decoder.read(tokens, decoder.start(1))[0])
