"""The weights of a memory, whoever wrote it: stored, found missing, refused where they do not fit, and trained."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub_models import save_hub_model
from small_models import distance, random_tokens, small_config
from test_checkpoint import save_small
from test_train_command import train
from test_training import CORPUS, TOKENIZER, recipe

from famcli.checkpoints.checkpoint import memory_weights
from famcli.checkpoints.decoders import load_decoder
from famcli.checkpoints.registry import find_model, load_model
from famcli.errors import UserError
from famcli.models.decoder import Decoder
from famcli.training.loop import Trainer, from_scratch
from famcli.training.losses import Tally
from famcli.training.material import Material
from famcli.training.optimizers import make_optimizers
from famcli.training.recipe import KeyPlaces, Optimizer

pytestmark = pytest.mark.usefixtures("made_memories")
CPU = torch.device("cpu")
OF_MATRICES = ("query.weight", "key.weight", "value.weight", "out.weight", "rates.weight", "rates.bias")
OF_ARMT = ("query.weight", "key.weight", "value.weight", "rate.weight", "rate.bias")
CONSTANT = {
    "mixed": ("gate",),
    "infini": ("gate",),
    "armt": ("value.weight",),
    "persistent": ("slot_values",),
    "titans": ("out.weight", "rates.bias"),
    "gated_delta": ("out.weight", "rates.bias"),
}
WEIGHTS = {
    "bswa": set(),
    "fam": {"fam_embedding"},
    "bare": set(),
    "added": {f"layers.{i}.memory.weight" for i in range(3)},
    "mixed": {f"layers.{i}.memory.gate" for i in range(3)},
    "pooled": {f"layers.{i}.memory.weight" for i in range(3)},
    "extra": {"summary_embedding"},
    "rmt": {"rmt_embedding"},
    "landmark": {"landmark_embedding"},
    "armt": {"armt_embedding", *(f"layers.{i}.memory.{name}" for i in range(3) for name in OF_ARMT)},
    "persistent": {f"layers.{i}.memory.{name}" for i in range(3) for name in ("slot_keys", "slot_values")},
    "titans": {f"layers.{i}.memory.{name}" for i in range(3) for name in OF_MATRICES},
    "gated_delta": {f"layers.{i}.memory.{name}" for i in range(3) for name in OF_MATRICES},
    "infini": {f"layers.{i}.memory.gate" for i in range(3)},
}
each_memory = pytest.mark.parametrize("attention", WEIGHTS)


@each_memory
def test_what_is_saved_is_what_is_loaded(tmp_path: Path, attention: str) -> None:
    decoder = save_small(tmp_path, attention)
    model = load_model(str(tmp_path), "cpu")
    assert memory_weights(model.decoder.config).keys() == WEIGHTS[attention]
    assert model.decoder.config == decoder.config and not model.untrained_memory
    for name, weight in decoder.state_dict().items():
        assert torch.equal(model.decoder.state_dict()[name], weight), name


@each_memory
def test_what_was_never_trained_is_told_and_drawn_always_alike(tmp_path: Path, attention: str) -> None:
    save_small(tmp_path, "full")
    source = find_model(f"{tmp_path},attention={attention}" + (",fam_length=2" if attention == "fam" else ""))
    assert set(source.checkpoint.lacks_memory(source.config)) == WEIGHTS[attention]
    assert bool(source.untrained_memory) == bool(WEIGHTS[attention])
    first, second = (load_decoder(source.checkpoint, source.config, CPU, torch.float32) for _ in range(2))
    for name, weight in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], weight) and weight.isfinite().all(), name


def test_a_model_reads_without_the_memory_that_its_weights_have(tmp_path: Path) -> None:
    save_small(tmp_path, "extra")
    tokens = random_tokens(small_config("bswa"), 2, 22)
    plain = load_model(f"{tmp_path},attention=bswa,memory_segments=0", "cpu").decoder
    unseen = load_model(f"{tmp_path},shown=false", "cpu").decoder
    with torch.no_grad():
        found, expected = (model.read(tokens, model.start(2))[0] for model in (plain, unseen))
    assert distance(found, expected) <= 1e-5


@pytest.mark.parametrize(
    ("attention", "override", "message"),
    [
        ("fam", "fam_length=1", "model field 'fam_length' is 1, but the weights were trained with 2; .*fam_embedding"),
        ("fam", "fam_length=3,sinks=3", "model field 'fam_length' is 3, but the weights were trained with 2"),
        ("extra", "pairs=2", r"the memory extra, B 4 does not fit: .* 'summary_embedding' \[2, 12\]; .*expected \[4"),
        ("pooled", "means=3", r"the memory pooled, B 4 does not fit: .* 'layers.0.memory.weight' \[2, 12\]"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, attention: str, override: str, message: str) -> None:
    """By the field, where one has the number of rows that are asked for."""
    save_small(tmp_path, attention)
    with pytest.raises(UserError, match=message):
        find_model(f"{tmp_path},{override}")


@each_memory
def test_training_reaches_the_memory_and_goes_on_after_a_kill(tmp_path: Path, attention: str) -> None:
    """What is carried goes from step to step, detached, and into the checkpoint."""
    shape: dict[str, Any] = {"vocab_size": 257, "qkv_bias": True}
    how = dataclasses.replace(recipe(state_passing=1.0, retention=0.1), model=small_config(attention, **shape))

    def trainer(directory: Path) -> Trainer:
        return Trainer(how, from_scratch(how), Material(TOKENIZER, CORPUS), directory)

    run = trainer(tmp_path / "a")
    before = {name: weight.detach().clone() for name, weight in run.model.named_parameters()}
    for _ in range(2):
        run._one_step(Tally())
    assert len(run.batch.memory) == 3 * len(how.config.memory.carried)
    assert not any(tensor.requires_grad for tensor in run.batch.memory)
    for name in WEIGHTS[attention]:
        assert not torch.equal(run.model.get_parameter(name), before[name]), name
    run.save()
    resumed = trainer(tmp_path / "a")
    resumed.resume()
    lines = [one._one_step(Tally())["loss"] for one in (run, resumed)]
    assert lines[0] == lines[1]
    for name, weight in run.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name


@pytest.mark.parametrize("name", ["muon", "adamw", "adafactor"])
def test_gates_and_embeddings_of_a_memory_have_a_rate_of_their_own(name: str) -> None:
    own = {
        "infini": {f"layers.{i}.memory.gate" for i in range(3)},
        "armt": {"armt_embedding", *(f"layers.{i}.memory.rate.bias" for i in range(3))},
        "fam": {"fam_embedding"},
    }
    how = Optimizer(name=name, fam_factor=7.0, weight_decay=0.1)  # type: ignore[arg-type]
    for attention, expected in own.items():
        model = Decoder(small_config(attention))
        groups = [group for optimizer in make_optimizers(model, how) for group in optimizer.param_groups]
        found = [group for group in groups if group["factor"] == 7.0]
        assert len(found) == 1 and found[0]["weight_decay"] == 0
        assert {id(p) for p in found[0]["params"]} == {id(model.get_parameter(weight)) for weight in expected}
        assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


@each_memory
def test_every_loss_of_a_step_takes_any_memory(tmp_path: Path, attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of ageing too, whether or not the memory can be written to once more without reading."""
    monkeypatch.setattr("famcli.training.step.LOST", 99.0)  # else untrained weights lose every key
    ageing: dict[str, Any] = {"rehearsal": 4, "drift": 1.0, "drift_updates": 9, "waiting": 9, "waiting_weight": 0.1}
    places = KeyPlaces(at_once=1, early=1, soon=0, later=0)
    how = recipe(state_passing=1.0, retention=0.1, blocks=9, key_places=places, **ageing)
    how = dataclasses.replace(how, model=small_config(attention, vocab_size=257))
    run = Trainer(how, from_scratch(how), Material(TOKENIZER, CORPUS), tmp_path)
    lines = [run._one_step(Tally()) for _ in range(3)]
    for name in ("retention", "rehearsal", "drift", "waiting"):
        told = [line[f"{name}_loss"] for line in lines if line[f"{name}_loss"] is not None]
        assert bool(told) == bool(how.config.memory.carried) and np.isfinite(told).all(), name


@each_memory
def test_an_adapter_brings_its_memory(tmp_path: Path, attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_hub_model(Path("base"))
    trained: list[Decoder] = []
    run = Trainer.run
    monkeypatch.setattr(Trainer, "run", lambda self, *args: trained.append(run(self, *args)) or trained[0])
    spec = f"base,attention={attention},block_size=16" + (",fam_length=3" if attention == "fam" else "")
    assert train("--model", spec, "--output", "out") == 0
    model, tokens = load_model("out", "cpu", "float32"), torch.randint(50, (2, 40))
    fields = trained[0].config.as_mapping()
    told = json.loads(Path("out/famcli.json").read_text())["model"]
    assert told == {name: fields[name] for name in ("attention", "block_size", *vars(trained[0].config.memory))}
    assert model.decoder.config == trained[0].config and not model.untrained_memory
    for name in WEIGHTS[attention]:
        assert torch.equal(model.decoder.get_parameter(name), trained[0].get_parameter(name)), name
    with torch.no_grad():
        found, expected = (decoder.read(tokens, decoder.start(2))[0] for decoder in (model.decoder, trained[0]))
    assert distance(found, expected) < 1e-4


@each_memory
def test_random_weights_depend_on_the_seed_alone(attention: str) -> None:
    """Those in the layers are what the memory's module draws."""
    decoders = [Decoder(small_config(attention)) for _ in range(3)]
    for decoder, seed in zip(decoders, (7, 7, 8), strict=True):
        decoder.initialise(seed)
    for name in WEIGHTS[attention]:
        first, same, other = (decoder.get_parameter(name) for decoder in decoders)
        assert first.isfinite().all() and torch.equal(first, same)
        assert torch.equal(first, other) == name.endswith(CONSTANT.get(attention, ())), name
    if attention == "mixed":
        assert all((decoders[0].get_parameter(name) == 1).all() for name in WEIGHTS[attention])
