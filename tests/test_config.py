"""The model config: windows by hand, and errors a person can act on."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from small_models import small_config

from famcli.errors import UserError
from famcli.models.config import ModelConfig
from famcli.models.memories.fam import Fam
from famcli.models.memories.full import Full

SHAPE: dict[str, Any] = {
    "vocab_size": 256,
    "width": 128,
    "layers": 4,
    "heads": 4,
    "kv_heads": 2,
    "head_width": 32,
    "ffn_width": 256,
}


def refusal(fields: dict[str, Any], where: str = "preset.yaml") -> UserError:
    with pytest.raises(UserError) as caught:
        ModelConfig.from_mapping(fields, where)
    return caught.value


class TestWindows:
    @pytest.mark.parametrize(
        ("attention", "segments", "window", "field"),
        [
            ("full", 3, None, None),
            ("bswa", 0, 1024, 1024),
            ("bswa", 1, 2048, 5 * 1024),  # 4 layers of one past block each, and the own block
            ("bswa", 3, 4096, 13 * 1024),
            ("fam", 0, 1024, None),
            ("fam", 3, 4096, None),
        ],
    )
    def test_window_and_receptive_field(
        self, attention: str, segments: int, window: int | None, field: int | None
    ) -> None:
        fields = {} if attention == "full" else {"memory_segments": segments}
        config = ModelConfig.from_mapping({**SHAPE, "attention": attention, **fields}, "x")
        assert config.window == window
        assert config.receptive_field == field

    def test_the_default_window_is_the_papers(self) -> None:
        """Section 2.1: block 1024 and three segments show a token 3073 to 4096 keys; a FAM of 64."""
        config = ModelConfig(**SHAPE)
        assert (config.memory, config.window) == (Fam(memory_segments=3, fam_length=64), 4096)

    def test_the_papers_example_of_a_receptive_field(self) -> None:
        """Section 3.2: 18 layers with two segments reach 36k tokens back."""
        config = ModelConfig.from_mapping({**SHAPE, "layers": 18, "attention": "bswa", "memory_segments": 2}, "x")
        assert config.receptive_field == 36 * 1024 + 1024


class TestFromMapping:
    def test_strings_mean_what_yaml_values_mean(self) -> None:
        typed = {**SHAPE, "block_size": 256, "rope_theta": 5e5, "stop_gradient": True, "trained_context": 2048}
        spelled = {name: str(value) for name, value in typed.items()}
        assert ModelConfig.from_mapping(spelled, "x") == ModelConfig.from_mapping(typed, "x")
        memory = Fam(stop_gradient=typed.pop("stop_gradient"))
        assert ModelConfig.from_mapping({**typed, "stop_gradient": "true"}, "x") == ModelConfig(**typed, memory=memory)

    def test_what_as_mapping_gives_is_read_back(self) -> None:
        for attention in ("full", "bswa", "fam"):
            config = ModelConfig(**SHAPE, attention=attention, trained_context=99, norm_eps=1e-6)
            assert ModelConfig.from_mapping(config.as_mapping(), "x") == config
        assert "fam_length" in config.as_mapping() and "memory" not in config.as_mapping()

    def test_an_unknown_field_is_named_with_its_neighbours(self) -> None:
        error = refusal({**SHAPE, "memory_segment": 3})
        assert "memory_segment'" in error.message and "preset.yaml" in error.message
        assert error.hint is not None and "memory_segments" in error.hint

    def test_missing_fields_are_all_named(self) -> None:
        error = refusal({name: value for name, value in SHAPE.items() if name not in ("width", "heads")})
        assert "preset.yaml" in error.message
        assert "width" in error.message and "heads" in error.message and "kv_heads" not in error.message

    @pytest.mark.parametrize(
        ("field", "value", "allowed"),
        [
            ("attention", "flash", ["full", "bswa", "fam"]),
            ("attention", ["fam"], ["full", "bswa", "fam"]),
            ("fam_query_position", "next", ["current", "previous"]),
            ("fam_norm", True, ["none", "rms"]),
            ("stop_gradient", "yes", ["true", "false"]),
            ("fam_ffn", 1, ["true", "false"]),
            ("block_size", "1k", ["whole number"]),
            ("block_size", "2.5", ["whole number"]),
            ("layers", 2.5, ["whole number"]),
            ("layers", True, ["whole number"]),
            ("layers", None, ["whole number"]),
            ("layers", [4], ["whole number"]),
            ("rope_theta", "high", ["number"]),
            ("rope_theta", True, ["number"]),
            ("norm_eps", None, ["number"]),
            ("trained_context", "long", ["whole number", "none"]),
        ],
    )
    def test_a_wrong_type_names_place_field_value_and_what_is_allowed(
        self, field: str, value: Any, allowed: list[str]
    ) -> None:
        message = refusal({**SHAPE, field: value}).message
        assert "preset.yaml" in message and f"'{field}'" in message and str(value).lower() in message
        assert all(word in message for word in allowed)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("vocab_size", 0),
            ("layers", -1),
            ("block_size", 0),
            ("memory_segments", -1),
            ("kv_heads", 3),
            ("head_width", 33),
            ("fam_length", 0),
            ("fam_length", 1025),
        ],
    )
    def test_a_value_out_of_range_names_field_and_value(self, field: str, value: int) -> None:
        message = refusal({**SHAPE, field: value}).message
        assert f"'{field}'" in message and str(value).lower() in message

    @pytest.mark.parametrize(
        ("attention", "field", "owners"),
        [
            ("bswa", "fam_length", "fam"),
            ("full", "fam_norm", "fam"),
            ("full", "memory_segments", "armt and bswa and fam"),
        ],
    )
    def test_a_field_of_another_memory_is_refused_with_its_memory(
        self, attention: str, field: str, owners: str
    ) -> None:
        error = refusal({**SHAPE, "attention": attention, field: 4})
        assert f"'{field}' belongs to attention {owners}" in error.message and "preset.yaml" in error.message
        assert f"attention is {attention}" in error.message and error.hint is not None

    @pytest.mark.parametrize("value", [None, "none", "null"])
    def test_an_unknown_trained_context(self, value: str | None) -> None:
        assert ModelConfig.from_mapping({**SHAPE, "trained_context": value}, "x").trained_context is None

    @pytest.mark.parametrize(("value", "meant"), [("true", True), ("True", True), ("FALSE", False), (False, False)])
    def test_truth_values(self, value: str | bool, meant: bool) -> None:
        assert ModelConfig.from_mapping({**SHAPE, "qkv_bias": value}, "x").qkv_bias is meant


class TestOverride:
    def test_replaces_what_is_given_and_nothing_else(self) -> None:
        base = ModelConfig(**SHAPE)
        config = base.override({"memory_segments": "0", "block_size": "256"}, "fam-tiny")
        memory = dataclasses.replace(base.memory, memory_segments=0)
        assert config == dataclasses.replace(base, memory=memory, block_size=256)
        assert base.memory == Fam()

    def test_another_attention_keeps_what_both_memories_have(self) -> None:
        fam = ModelConfig.from_mapping({**SHAPE, "memory_segments": 1, "fam_length": 4, "sinks": 2}, "x")
        bswa = fam.override({"attention": "bswa"}, "x")
        assert bswa.as_mapping() == {
            name: value for name, value in {**fam.as_mapping(), "attention": "bswa"}.items() if "fam_" not in name
        }
        full = fam.override({"attention": "full"}, "x")
        assert (full.memory, full.block_size) == (Full(), 1024)

    def test_nothing_changes_nothing(self) -> None:
        config = ModelConfig(**SHAPE, trained_context=7)
        assert config.override({}, "fam-tiny") == config

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"blocksize": "256"}, ["blocksize", "fam-tiny"]),
            ({"block_size": "big"}, ["block_size", "big", "fam-tiny"]),
            ({"block_size": "32"}, ["fam_length", "32"]),  # the FAM of 64 no longer fits a block
            ({"heads": "3"}, ["kv_heads", "3"]),
        ],
    )
    def test_refuses_as_from_mapping_does(self, fields: dict[str, str], words: list[str]) -> None:
        with pytest.raises(UserError) as caught:
            ModelConfig(**SHAPE).override(fields, "fam-tiny")
        assert all(word in caught.value.message for word in words)


@pytest.mark.parametrize(
    "fields",
    [
        {"attention": "fam", "block_size": 10**12},
        {"attention": "full", "block_size": 10**9},
        {"attention": "bswa", "block_size": 2**22, "memory_segments": 2},
        {"attention": "bswa", "block_size": 8, "memory_segments": 10**15},
    ],
    ids=str,
)
def test_windows_that_no_machine_holds_are_refused_before_anything_is_made(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"would look back at [\d,]+ tokens; famcli makes tables for at most 4,194,304"):
        small_config(**fields)
    assert small_config("bswa", block_size=2**20, memory_segments=4).window == 5 * 2**20


@pytest.mark.parametrize("letters", ["l", "lgx", "lglg", ""])
def test_local_layers_are_a_letter_for_each_layer(letters: str) -> None:
    with pytest.raises(UserError, match="'local_layers' must be 3 letters 'l' or 'g'"):
        small_config("full", layers=3, local_window=5, local_layers=letters)
    config = small_config("full", layers=3, local_window=5, local_layers="lgg")
    assert [config.is_local(number) for number in range(3)] == [True, False, False]
