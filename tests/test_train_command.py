"""``famcli train``: a base becomes an adapter that famcli and peft read alike; what is wrong is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hub_models import save_hub_model
from safetensors.torch import load_file
from small_models import distance
from test_checkpoint import save_small

from famcli.checkpoints.opening import open_checkpoint
from famcli.checkpoints.registry import load_model
from famcli.cli.main import main
from famcli.models.decoder import Decoder
from famcli.training.loop import Trainer

RECIPE: dict[str, Any] = {
    "seed": 1,
    "lora": {"rank": 2, "alpha": 8, "targets": ["q_proj", "o_proj", "gate_proj", "down_proj"]},
    "optimizer": {"warmup": 0},
    "phases": [{"steps": 3, "mixture": {"passkey": 2}, "blocks": 2, "learning_rate": 0.05}],
}
FAM = {
    "stop_gradient": False,
    "sinks": 0,
    "fam_query_position": "current",
    "fam_norm": "none",
    "fam_scale": 1.0,
    "fam_ffn": True,
    "fam_keep_initial": False,
    "fam_null_sink": False,
    "fam_gate": "none",
    "fam_rank": 0,
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_recipe(**changes: Any) -> str:
    fields = {name: value for name, value in {**RECIPE, **changes}.items() if value is not ...}
    Path("how.yaml").write_text(yaml.safe_dump(fields))
    return "how.yaml"


def train(*args: str, **changes: Any) -> int:
    return main(["train", "--recipe", write_recipe(**changes), "--device", "cpu", *args])


def test_peft_loads_the_adapter_into_the_hub_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import PeftModel

    hub = save_hub_model(Path("base"), "llama")
    trained: list[Decoder] = []
    run = Trainer.run
    monkeypatch.setattr(Trainer, "run", lambda self, *args: trained.append(run(self, *args)) or trained[0])
    assert train("--model", "base,attention=bswa,block_size=64,memory_segments=0", "--output", "out") == 0
    tokens = torch.randint(50, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        latents, _ = trained[0].read(tokens, trained[0].start(2))
        ours, plain = trained[0].logits(latents), hub(tokens).logits
        theirs = PeftModel.from_pretrained(hub, "out")(tokens).logits
    assert distance(ours, theirs) < 1e-4 < 1e-2 < distance(ours, plain)
    assert not Path("out/fam.safetensors").exists()


def test_adapter_says_what_it_was_trained_on(capsys: pytest.CaptureFixture[str]) -> None:
    """All fields of its memory among it: the base, which has full attention, has none of them."""
    save_hub_model(Path("base"), "qwen2")
    spec = "base,attention=fam,block_size=16,memory_segments=1,fam_length=3"
    assert train("--model", spec, "--output", "out") == 0
    assert "evaluate it: famcli eval --task passkey --model out" in capsys.readouterr().out
    about = json.loads(Path("out/famcli.json").read_text())
    assert about.pop("trained").keys() == {"recipe", "steps", "tokens", "seconds"}
    assert about == {
        "format": "famcli-adapter",
        "base": str(Path("base").resolve()),
        "base_sha256": open_checkpoint(Path("base")).weights_sha256(),
        "model": {"attention": "fam", "block_size": 16, **FAM, "memory_segments": 1, "fam_length": 3},
    }
    config = json.loads(Path("out/adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["bias"]) == ("LORA", 2, 8, "none")
    assert config["target_modules"] == ["down_proj", "gate_proj", "o_proj", "q_proj"]
    tensors = load_file("out/adapter_model.safetensors")
    names = [f"self_attn.{m}_proj" for m in "qo"] + [f"mlp.{m}_proj" for m in ("gate", "down")]
    places = [f"base_model.model.model.layers.{layer}.{name}" for layer in range(3) for name in names]
    assert tensors.keys() == {f"{place}.lora_{side}.weight" for place in places for side in "AB"}
    assert tensors["base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"].shape == (2, 48)
    assert load_file("out/fam.safetensors")["fam_embedding"].shape == (3, 32)


def test_famcli_loads_what_it_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    save_small(Path("base"), "full", block_size=16)
    trained: list[Decoder] = []
    run = Trainer.run
    monkeypatch.setattr(Trainer, "run", lambda self, *args: trained.append(run(self, *args)) or trained[0])
    assert train("--model", "base,attention=fam,fam_length=2", "--output", "out") == 0
    loaded = load_model("out", "cpu", "float32").decoder
    assert loaded.config == trained[0].config
    tokens = torch.randint(257, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = (model.read(tokens, model.start(2))[0] for model in (trained[0], loaded))
    assert distance(expected, found) < 1e-5


def test_all_weights_are_trained_without_lora() -> None:
    save_small(Path("base"), "bswa", block_size=16)
    phases = [{**RECIPE["phases"][0], "blocks": 3}]
    assert train("--model", "base,attention=fam,fam_length=2", lora=..., phases=phases) == 0
    before, after = load_file("base/model.safetensors"), load_file("models/how/model.safetensors")
    assert after.keys() - before.keys() == {"fam_embedding"}
    assert not [name for name in before if torch.equal(before[name], after[name])]
    assert load_model("models/how").decoder.config.attention == "fam"


def test_resumed_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    save_small(Path("base"), "fam", block_size=16)
    assert train("--model", "base", "--output", "whole", checkpoint_every=1) == 0
    whole = Path("whole/adapter_model.safetensors").read_bytes()
    assert train("--model", "base", "--output", "whole") == 2
    assert "add --resume, or take another --output" in capsys.readouterr().err
    assert train("--model", "base", "--output", "none", "--resume") == 2
    assert "leave --resume out to begin" in capsys.readouterr().err
    Path("whole/adapter_model.safetensors").unlink()
    assert train("--model", "base", "--output", "whole", "--resume") == 0
    assert "resumed at step 3 of 3" in capsys.readouterr().err
    assert Path("whole/adapter_model.safetensors").read_bytes() == whole
    save_small(Path("base"), "fam", block_size=16, ffn_width=22)
    assert train("--model", "base", "--output", "whole", "--resume") == 2
    assert "is no checkpoint of this recipe: it was trained from other weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "changes", "message", "hint"),
    [
        ([], {}, "how.yaml fine-tunes a model", "--model fam-tiny"),
        (["--model", "base"], {"model": {}}, "lacks the fields", ""),
        (["--model", "base"], {"model": "SHAPE", "lora": ...}, "and --model names a trained one", "drop --model"),
        ([], {"model": "SHAPE"}, "lora adapts trained weights", "drop 'lora'"),
        (["--model", "bas"], {}, "unknown model 'bas'", ""),
        (["--model", "base", "--output", "base"], {}, "base holds a model, which training would", "another --out"),
        (["--model", "base", "--output", "base/model.safetensors/x"], {}, "cannot write results", "another --output"),
        (["--model", "base,adapter=x"], {}, "has an adapter already", "base model"),
        (["--model", "base,weights=int8"], {}, "weights=int8 are rounded, and cannot be trained", "leave the field"),
        ([], {"model": {"weights": "int8"}, "lora": ...}, "weights=int8 are rounded, and cannot be trained", ""),
        (["--model", "base"], {"phases": [{"steps": 1, "mixture": {"qa": 1}, "blocks": 1, "learning_rate": 1}]},
         "mixes questions about documents in", "--qa FILE.jsonl"),
        (["--model", "base"], {"phases": [{"steps": 1, "mixture": {"text": 1}, "blocks": 1, "learning_rate": 1}]},
         "no .txt files in data/text", "make training-text"),
        (["--model", "base"], {"phases": [{**RECIPE["phases"][0], "block_size": 1}]}, "phases[0] does not fit", ""),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_the_way_out(
    args: list[str], changes: dict[str, Any], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save_small(Path("base"), "fam", block_size=16)
    if changes.get("model") in ("SHAPE", {"weights": "int8"}):
        shape = {"vocab_size": 257, "width": 8, "layers": 1, "heads": 1, "kv_heads": 1, "head_width": 4, "ffn_width": 8}
        changes = {**changes, "model": shape if changes["model"] == "SHAPE" else {**shape, **changes["model"]}}
    assert train(*args, **changes) == 2
    error = capsys.readouterr().err
    assert message in error and hint in error


def test_questions_that_no_step_would_reach_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    save_small(Path("base"), "fam", block_size=16)
    Path("qa.jsonl").write_text(json.dumps({"document": "word " * 9, "question": "Which?", "answer": "word"}))
    phase = {"steps": 1, "mixture": {"qa": 1}, "blocks": 2, "learning_rate": 0.1, "state_passing": 0}
    assert train("--model", "base", "--qa", "qa.jsonl", phases=[phase]) == 2
    assert "no document of qa.jsonl ends within the 32 tokens of a step" in capsys.readouterr().err
    assert train("--model", "base", "--qa", "qa.jsonl", phases=[{**phase, "blocks": 3}], log_every=1) == 0
    assert "answer " in capsys.readouterr().err
