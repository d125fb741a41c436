"""GGUF: what llama.cpp's converter makes of a model reads as the model did in transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf_files import TOKENIZER, save_as_gguf, smollm2, write_gguf
from hub_models import save_hub_model
from small_models import distance, random_tokens

from famcli.checkpoints.checkpoint import Checkpoint
from famcli.checkpoints.decoders import load_decoder
from famcli.checkpoints.opening import open_checkpoint
from famcli.checkpoints.registry import find_model, load_model
from famcli.errors import UserError
from famcli.models.decoder import Decoder

CPU = torch.device("cpu")
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}
GEMMA_ROPE = {
    "full_attention": {"rope_type": "linear", "rope_theta": 700.0, "factor": 3.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
GEMMA = {"sliding_window": 5, "query_pre_attn_scalar": 8, "rope_parameters": GEMMA_ROPE, "sliding_window_pattern": 2}
# name: (family, fields of transformers, fields of the file that a converter adds)
FILES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llama": ("llama", {}, {}),
    "llama-3.1": ("llama", {"rope_parameters": LLAMA3, "head_dim": 32}, {"rope.dimension_count": 32}),
    "llama-linear": ("llama", {"rope_parameters": LINEAR}, {}),
    "llama-tied": (
        "llama",
        {"tie_word_embeddings": True},
        {"attention.key_length": ..., "attention.value_length": ...},
    ),
    "mistral": ("mistral", {"sliding_window": None}, {}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}, {}),
    "qwen3": ("qwen3", {"head_dim": 12}, {}),
    "gemma3": ("gemma3_text", GEMMA, {"attention.sliding_window_pattern": 2}),
    "gemma3-listed": ("gemma3_text", GEMMA, {"attention.sliding_window_pattern": [True, False, True]}),
    "gemma3-alike": (
        "gemma3_text",
        {**GEMMA, "sliding_window_pattern": 6, "num_hidden_layers": 7},
        {"rope.freq_base_swa": 1e4},
    ),
    "olmo2": ("olmo2", {}, {}),
    "linear-without-type": ("llama", {"rope_parameters": LINEAR}, {"rope.scaling.type": ...}),
    "linear-by-its-old-name": (
        "llama",
        {"rope_parameters": LINEAR},
        {"rope.scaling.type": ..., "rope.scaling.factor": ..., "rope.scale_linear": 2.0},
    ),
    "linear-under-both-names": ("qwen2", {"rope_parameters": LINEAR}, {"rope.scale_linear": 3.0}),
    "a-factor-of-no-scaling": ("llama", {}, {"rope.scaling.type": "none", "rope.scaling.factor": 4.0}),
    "a-factor-of-nothing": ("llama", {}, {"rope.scaling.factor": 0.0}),
    "no-base": ("llama", {}, {"rope.freq_base": ...}),
    "gemma3-mixed": (
        "gemma3_text",
        {**GEMMA, "layer_types": ["full_attention", "sliding_attention", "full_attention"]},
        {"attention.sliding_window_pattern": [False, True, False]},
    ),
    "gemma3-all-local": (
        "gemma3_text",
        {**GEMMA, "layer_types": ["sliding_attention"] * 3},
        {"attention.sliding_window_pattern": 0},
    ),
    "notes": (
        "llama",
        {},
        {"vocab_size": 50, "rope.scaling.finetuned": False, "attention.causal": True, "logit_scale": 1.0},
    ),
}


def load(path: Path) -> tuple[Checkpoint, Decoder]:
    checkpoint = open_checkpoint(path)
    return checkpoint, load_decoder(checkpoint, checkpoint.config, CPU, torch.float32)


def logits(decoder: Decoder, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return decoder.logits(decoder.read(tokens, decoder.start(len(tokens)))[0])


@pytest.mark.parametrize(("kind", "fields", "added"), FILES.values(), ids=FILES)
def test_logits_are_those_of_transformers(
    tmp_path: Path, kind: str, fields: dict[str, Any], added: dict[str, Any]
) -> None:
    model = save_hub_model(tmp_path / "hub", kind, **fields)
    save_as_gguf(model, tmp_path / "model.gguf", kind, **added)
    checkpoint, decoder = load(tmp_path / "model.gguf")
    assert checkpoint.config == open_checkpoint(tmp_path / "hub").config
    tokens = random_tokens(checkpoint.config, 2, 40)
    with torch.no_grad():
        expected = model(tokens).logits
    assert expected.std() > 0.2
    assert distance(logits(decoder, tokens), expected) < 1e-4


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("pattern", [None, 4, [True, True, True, False, True], [False, True, False, True, True]])
def test_olmo_3_is_written_as_olmo_2_with_windows(tmp_path: Path, scaled: bool, pattern: Any) -> None:
    """Its local layers are not scaled."""
    from transformers import Olmo3Config, Olmo3ForCausalLM

    local = pattern if isinstance(pattern, list) else [True, True, True, False, True]
    plain = {"rope_type": "default", "rope_theta": 500.0}
    torch.manual_seed(0)
    config = Olmo3Config(
        **{"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 5, "sliding_window": 5},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2, "pad_token_id": 0},
        layer_types=["sliding_attention" if one else "full_attention" for one in local],
        rope_parameters={"full_attention": dict(LINEAR if scaled else plain), "sliding_attention": dict(plain)},
    )
    model = Olmo3ForCausalLM(config).eval()
    model.config.head_dim = 8
    windows = {"attention.sliding_window": 5, "attention.sliding_window_pattern": ... if pattern is None else pattern}
    save_as_gguf(model, tmp_path / "model.gguf", "olmo2", **windows)
    checkpoint, decoder = load(tmp_path / "model.gguf")
    assert (checkpoint.config.rope_scaling, checkpoint.config.rope_theta) == ("linear" if scaled else "none", 500.0)
    tokens = random_tokens(checkpoint.config, 2, 40)
    with torch.no_grad():
        expected = model(tokens).logits
    assert expected.std() > 0.2
    assert distance(logits(decoder, tokens), expected) < 1e-4


def test_gemma_without_a_window_has_no_local_layer(tmp_path: Path) -> None:
    model = save_hub_model(tmp_path / "hub", "gemma3_text", **{**GEMMA, "layer_types": ["full_attention"] * 3})
    save_as_gguf(model, tmp_path / "model.gguf", "gemma3_text", **{"attention.sliding_window": ...})
    checkpoint, decoder = load(tmp_path / "model.gguf")
    tokens = random_tokens(checkpoint.config, 2, 40)
    with torch.no_grad():
        assert distance(logits(decoder, tokens), model(tokens).logits) < 1e-4


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0"])
def test_quantised_weights_are_what_their_package_makes_of_them(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Matrices are read some rows at a time; the head interleaving is undone after that."""
    monkeypatch.setattr("famcli.checkpoints.gguf._VALUES_AT_ONCE", 1000)
    quantisation = gguf.GGMLQuantizationType[kind]
    model = save_hub_model(tmp_path / "hub", hidden_size=64, intermediate_size=96)
    save_as_gguf(model, tmp_path / "model.gguf", "llama", quantisation)
    checkpoint, decoder = load(tmp_path / "model.gguf")
    assert checkpoint.half_precision
    for ours, theirs in (
        ("embedding", "model.embed_tokens"),
        ("layers.1.attention.k_proj", "model.layers.1.self_attn.k_proj"),
    ):
        weight = model.state_dict()[f"{theirs}.weight"].numpy()
        expected = gguf.dequantize(gguf.quantize(weight, quantisation), quantisation)
        assert np.array_equal(decoder.state_dict()[f"{ours}.weight"].numpy(), expected)


def test_any_attention_and_any_precision(tmp_path: Path) -> None:
    save_as_gguf(save_hub_model(tmp_path / "hub"), tmp_path / "model.gguf", "llama")
    spec = f"{tmp_path / 'model.gguf'},attention=fam,block_size=8,fam_length=4"
    model = load_model(spec, "cpu", "bfloat16")
    assert (model.decoder.config.attention, model.decoder.config.memory.fam_length) == ("fam", 4)
    assert model.untrained_memory
    assert {weight.dtype for weight in model.decoder.parameters()} == {torch.bfloat16}
    assert load_model(str(tmp_path / "model.gguf"), "cpu").weights_sha256 == model.weights_sha256


def test_directory_of_one_file_is_that_file(tmp_path: Path) -> None:
    model = save_hub_model(tmp_path / "hub")
    (tmp_path / "files").mkdir()
    save_as_gguf(model, tmp_path / "files" / "a.gguf", "llama")
    assert find_model(str(tmp_path / "files")).checkpoint.path == tmp_path / "files" / "a.gguf"
    save_as_gguf(model, tmp_path / "files" / "b.gguf", "llama")
    with pytest.raises(UserError, match="holds 2 GGUF files") as caught:
        find_model(str(tmp_path / "files"))
    assert "a.gguf" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expert_count": 8}, r"'llama\.expert_count' is 8"),
        ({"rope.scaling.type": "yarn"}, r"'llama\.rope\.scaling\.type' is 'yarn'"),
        ({"rope.dimension_count": 4}, r"'llama\.rope\.dimension_count' is 4 and not the width of heads, 8"),
        ({"embedding_length": ...}, r"lacks the field 'llama\.embedding_length'"),
        ({"feed_forward_length": [48, 48, 32]}, r"several values in the field 'llama\.feed_forward_length'"),
        ({"feed_forward_length": 64}, r"'blk\.0\.ffn_\w+\.weight' is \[\d+, \d+\], expected"),
        ({"block_count": 2}, r"unexpected tensor 'blk\.2\."),
        ({"block_count": 4}, r"lacks the tensor 'layers\.3\."),
        ({"block_count": 2**31}, r"'llama\.block_count' is 2147483648, and the file holds \d+ tensors"),
        ({"block_count": "three"}, r"has no number in the field 'llama\.block_count'"),
        ({"embedding_length": 2**31}, r"'token_embd\.weight' is \[50, 32\], expected \[50, 2147483648\]"),
        ({"attention.head_count": 2**31, "attention.head_count_kv": 2**31}, r"'blk\.0\.attn_q\.weight' is"),
        ({"attention.scale": 0.1}, r"'llama\.attention\.scale' is none that famcli knows"),
        ({"logit_scale": 0.5}, r"'llama\.logit_scale' is 0\.5"),
        ({"final_logit_softcapping": 30.0}, r"'llama\.final_logit_softcapping' is 30\.0"),
        ({"rope.scaling.attn_factor": 1.2}, r"'llama\.rope\.scaling\.attn_factor' is 1\.2"),
        ({"rope.scaling.yarn_ext_factor": 1.0}, r"'llama\.rope\.scaling\.yarn_ext_factor' is none"),
        ({"rope.dimension_sections": [1, 1]}, r"'llama\.rope\.dimension_sections' is none"),
        ({"attention.causal": False}, r"'llama\.attention\.causal' is False"),
        ({"attention.sliding_window": 16}, r"'llama\.attention\.sliding_window' is none"),
    ],
)
def test_what_cannot_be_read_rightly_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    save_as_gguf(save_hub_model(tmp_path / "hub"), tmp_path / "model.gguf", "llama", **changes)
    with pytest.raises(UserError, match=message):
        open_checkpoint(tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("gemma3_text", {"attention.sliding_window_pattern": [True, False]}, "is of 2 layers, and the model has 3"),
        ("gemma3_text", {"attention.sliding_window_pattern": "every"}, "must be a whole number or a list, not every"),
        ("olmo2", {"attention.sliding_window": 5, "rope.freq_base_swa": 7.0}, r"'olmo2\.rope\.freq_base_swa' is 7\.0"),
    ],
)
def test_windows_that_cannot_be_read_rightly_are_refused(
    tmp_path: Path, kind: str, changes: dict[str, Any], message: str
) -> None:
    save_as_gguf(save_hub_model(tmp_path / "hub", kind), tmp_path / "model.gguf", kind, **changes)
    with pytest.raises(UserError, match=message):
        open_checkpoint(tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("general.name", "x", True),
        ("general.base_model.0.name", "x", True),
        ("general.type", "model", True),
        ("general.type", "adapter", False),
        ("quantize.imatrix.file", "x", True),
        ("mradermacher.quantized_at", "x", True),
        ("tokenizer.chat_template.tool_use", "x", True),
        ("tokenizer.ggml.fim_pre_token_id", 3, True),
        ("tokenizer.ggml.add_eos_token", False, True),
        ("tokenizer.ggml.add_eos_token", True, False),
        ("tokenizer.ggml.precompiled_charsmap", [1, 2], False),
        ("tokenizer.ggml.fold_case", True, False),
        ("llama.attention.sliding_window", 2048, True),
    ],
)
def test_a_field_is_known_or_refused_by_name(tmp_path: Path, field: str, value: Any, allowed: bool) -> None:
    model = save_hub_model(tmp_path / "hub")
    save_as_gguf(model, tmp_path / "model.gguf", "llama")
    read = gguf.GGUFReader(tmp_path / "model.gguf")
    skipped = ("GGUF.", "general.architecture")
    fields = {name: part.contents() for name, part in read.fields.items() if not name.startswith(skipped)}
    tensors = {tensor.name: tensor.data for tensor in read.tensors}
    write_gguf(tmp_path / "again.gguf", "llama", {**fields, field: value}, tensors)
    if allowed:
        assert open_checkpoint(tmp_path / "again.gguf").config == open_checkpoint(tmp_path / "model.gguf").config
    else:
        with pytest.raises(UserError, match=f"'{field}' is"):
            open_checkpoint(tmp_path / "again.gguf")


def test_no_field_of_llama_cpp_is_both_applied_and_harmless() -> None:
    from famcli.checkpoints.gguf_fields import APPLIED, HARMLESS, OF_WINDOWS, SETTLED

    lists = [APPLIED, OF_WINDOWS, HARMLESS, set(SETTLED)]
    assert sum(map(len, lists)) == len(set().union(*lists))


def test_rope_that_is_not_scaled_as_in_llama_3_is_refused(tmp_path: Path) -> None:
    scaling = {**LLAMA3, "original_max_position_embeddings": 4096}
    model = save_hub_model(tmp_path / "hub", rope_parameters=scaling, head_dim=32)
    save_as_gguf(model, tmp_path / "model.gguf", "llama")
    with pytest.raises(UserError, match=r"'rope_freqs\.weight' scales RoPE otherwise"):
        open_checkpoint(tmp_path / "model.gguf")


def test_other_architectures_and_parts_are_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "other.gguf", "falcon", TOKENIZER, {})
    with pytest.raises(UserError, match="'falcon'") as caught:
        open_checkpoint(tmp_path / "other.gguf")
    assert caught.value.hint == "it reads llama, qwen2, qwen3, gemma3, olmo2"
    write_gguf(tmp_path / "part.gguf", "llama", {**TOKENIZER, "split.count": 3}, {})
    with pytest.raises(UserError, match=r"part\.gguf is one of 3 parts"):
        open_checkpoint(tmp_path / "part.gguf")


def test_other_files_are_no_gguf(tmp_path: Path) -> None:
    (tmp_path / "notes.gguf").write_text("notes")
    with pytest.raises(UserError, match=r"notes\.gguf is not a GGUF file"):
        open_checkpoint(tmp_path / "notes.gguf")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.5, 0.9, 0.999])
def test_damaged_files_are_named(tmp_path: Path, share: float) -> None:
    file = tmp_path / "model.gguf"
    save_as_gguf(save_hub_model(tmp_path / "hub"), file, "llama")
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"model\.gguf is not a whole GGUF file"):
        open_checkpoint(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file '.*none\.gguf'"):
        find_model(str(tmp_path / "none.gguf"))


def test_smollm2_answers_as_it_should() -> None:
    """Greedy, as transformers and llama.cpp do."""
    model = load_model(str(smollm2()), "cpu")
    assert sum(weight.numel() for weight in model.decoder.parameters()) == 134_515_008
    tokens = torch.tensor([model.tokenizer.encode("The capital of France is")])
    assert model.tokenizer.decode(logits(model.decoder, tokens)[0, -1].argmax(-1, keepdim=True).tolist()) == " Paris"
    with torch.no_grad():
        latents, state = model.decoder.read(tokens, model.decoder.start(1))
        answer = []
        for _ in range(2):
            answer.append(int(model.decoder.logits(latents[0, -1]).argmax()))
            latents, state = model.decoder.read(torch.tensor([answer[-1:]]), state)
    assert model.tokenizer.decode(answer) == " Paris."


@pytest.mark.slow
def test_smollm2_is_what_transformers_reads() -> None:
    """Weights bit for bit, and the perplexity of a text."""
    from transformers import AutoModelForCausalLM

    file = smollm2()
    theirs = AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name, dtype=torch.float32).eval()
    ours = load_model(str(file), "cpu")
    weights = theirs.state_dict()
    assert torch.equal(ours.decoder.embedding.weight, weights["model.embed_tokens.weight"])
    for i in range(30):
        for name in ("q", "k", "v", "o"):
            mine = ours.decoder.state_dict()[f"layers.{i}.attention.{name}_proj.weight"]
            assert torch.equal(mine, weights[f"model.layers.{i}.self_attn.{name}_proj.weight"])
    text = (Path(__file__).parent.parent / "LICENSE").read_text(encoding="utf-8")
    tokens = torch.tensor([ours.tokenizer.encode(text)])
    with torch.no_grad():
        expected = theirs(tokens).logits
    found = logits(ours.decoder, tokens)
    losses = [
        torch.nn.functional.cross_entropy(scores[0, :-1], tokens[0, 1:]).exp().item() for scores in (found, expected)
    ]
    assert tokens.shape[1] > 1000
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
