"""What ``famcli list memories --model`` says of each memory: against what its models hold and PyTorch counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import random_tokens, small_config
from test_memories import flags
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from famcli.checkpoints.memory_costs import memory_costs
from famcli.cli.main import main
from famcli.models.config import ModelConfig
from famcli.models.decoder import Decoder
from famcli.models.memories import memory_entry_points

OWN_MEMORIES = {
    *("armt", "bswa", "fam", "full", "gated_delta", "gated_fam", "infini", "landmark", "persistent", "rmt", "titans"),
}


def model_with(name: str, config: ModelConfig) -> Decoder:
    """As the listing describes it: the window of the model's memory, and defaults."""
    fields = memory_entry_points()[name][0].load().__dataclass_fields__
    window = {field: getattr(config.memory, field) for field in ("memory_segments", "sinks") if field in fields}
    return Decoder(config.override({"attention": name, **window}, "test"))


def operations_of_a_block(decoder: Decoder) -> int:
    """PyTorch's count for the sixth block, latents of all of its tokens wanted."""
    size = decoder.config.block_size
    tokens = random_tokens(decoder.config, 1, 6 * size)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        state = decoder.prefill(tokens[:, : 5 * size], decoder.start(1))
        with FlopCounterMode(display=False) as counter:
            decoder.read(tokens[:, 5 * size :], state)
    return int(counter.get_total_flops())


def test_figures_are_those_of_the_models() -> None:
    config = small_config("bswa", memory_segments=2, sinks=1, block_size=64)
    costs = {cost.name: cost for cost in memory_costs(config, pytest.fail) if cost.name in OWN_MEMORIES}
    assert costs.keys() == OWN_MEMORIES
    without = sum(weight.numel() for weight in Decoder(config).parameters())
    bswa = operations_of_a_block(Decoder(config))
    for name, cost in costs.items():
        decoder = model_with(name, config)
        assert cost.parameters == sum(weight.numel() for weight in decoder.parameters()) - without, name
        assert cost.own == (name == "bswa") and cost.described.startswith(name)
        if name == "full":
            assert (cost.state_bytes, cost.block_operations, cost.over_bswa) == (None, None, None)
            continue
        state = decoder.start(1)
        assert cost.state_bytes == state.nbytes - flags(state), name
        found = operations_of_a_block(decoder)
        assert cost.block_operations == found and cost.over_bswa == pytest.approx(found / bswa - 1), name


def listed(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert main(["list", "memories", "--json", *args]) == 0
    return {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["memories"]}


def test_a_preset_is_listed_whether_or_not_its_weights_are_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a weight was read")

    monkeypatch.setattr("famcli.checkpoints.weights.SafeTensor.read", refuse)
    costs = listed(capsys, "--model", "fam-24b")
    assert costs["infini"]["state_bytes"] > costs["bswa"]["state_bytes"] > 10**9
    full = listed(capsys, "--model", "full-135m")  # has no window of its own
    assert "M 3, m" in full["rmt"]["described"] and "M 3, F" in full["gated_fam"]["described"]
    small = listed(capsys, "--model", "fam-tiny,attention=armt,armt_length=3")
    assert small["armt"]["own"] and "m 3" in small["armt"]["described"]
    assert main(["list", "memories", "--model", "fam-tiny"]) == 0
    out = capsys.readouterr().out
    assert "unbounded" in out and "a token" in out and "fam, B 4096, M 0, F 16 (the model's own)" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model", "fam-tiny,armt_length=3"], "belongs to attention armt, and attention is fam"),
        (["--model", "fam-tinny"], "did you mean fam-tiny"),
        (["--plugin", "examples/model-own", "--model", "copycat"], "is a model of another package"),
    ],
)
def test_what_cannot_be_listed_is_said(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    assert main(["list", "memories", *args]) == 2
    assert message in capsys.readouterr().err


def test_the_docs_show_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "memories", "--model", "fam-135m"]) == 0
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    shown = (Path(__file__).parents[1] / "docs" / "memories.md").read_text().split("```\nmemory ")[1].split("\n```")[0]
    assert f"memory {shown}".splitlines() == printed[: len(OWN_MEMORIES) + 1]
