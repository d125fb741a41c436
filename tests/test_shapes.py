"""What is known of a decoder without PyTorch is what the decoder that is made has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from made_memories import Added
from small_models import small_config
from test_memories import VARIANTS

from famcli.checkpoints.checkpoint import memory_weights
from famcli.models.config import ModelConfig
from famcli.models.empty import empty_decoder
from famcli.models.facts import DecoderFacts
from famcli.models.memories.gated_fam import GatedFam
from famcli.models.shapes import weight_shapes

NETWORKS: dict[str, dict[str, Any]] = {
    "tied": {"tie_embeddings": True, "qkv_bias": True},
    "untied": {"tie_embeddings": False, "norm_placement": "post"},
    "width": {"qk_norm": "width", "norm_placement": "both"},
    "head": {"qk_norm": "head", "weights": "int8"},
}
SAID = {
    name: fields
    for name, fields in VARIANTS.items()
    if name.split("-")[0] in ("full", "bswa", "fam", "rmt", "landmark")
}
SAID |= {"gated_fam": {"fam_length": 3}, "fam-rank-gate": {"fam_rank": 2, "fam_gate": "fixed"}}


def config_of(name: str, **fields: Any) -> ModelConfig:
    return small_config(name.split("-")[0], **SAID[name], **fields)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", SAID)
def test_shapes_are_those_of_the_decoder_that_is_made(name: str, network: str) -> None:
    config = config_of(name, **NETWORKS[network])
    made = empty_decoder(replace(config, weights="float")).state_dict()
    assert list((weight_shapes(config) or {}).items()) == [(name, tuple(weight.shape)) for name, weight in made.items()]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", SAID)
def test_facts_are_those_of_the_decoder_that_is_made(name: str, network: str) -> None:
    config = config_of(name, **NETWORKS[network])
    facts, made = DecoderFacts(config), empty_decoder(config)
    for fact in ("receptive_field", "longest_text", "parameters_count", "description", "identity"):
        assert getattr(facts, fact) == getattr(made, fact), fact


@pytest.mark.usefixtures("made_memories")
def test_a_memory_that_does_not_say_its_shapes_is_asked_for_its_module() -> None:
    """Be it one that extends a memory that says its own."""

    class Other(GatedFam):
        layer_module = Added.layer_module

    assert weight_shapes(small_config("infini")) is None
    assert len(memory_weights(small_config("infini"))) == 3
    silent = small_config("gated_fam", fam_length=3)
    object.__setattr__(silent, "memory", Other(fam_length=3))
    assert weight_shapes(silent) is None
    assert memory_weights(silent).keys() == {f"layers.{number}.memory.weight" for number in range(3)}
