"""What a memory begins with is worked out once, and anew when the weights have changed."""

from __future__ import annotations

import pytest
import torch

from famcli.models.config import ModelConfig
from famcli.models.decoder import Decoder
from famcli.models.state import StreamState

SHAPE = {"vocab_size": 64, "width": 32, "layers": 3, "heads": 2, "kv_heads": 1, "head_width": 16, "ffn_width": 48}
MEMORIES = [
    {"attention": "fam", "fam_length": 4, "memory_segments": 1, "sinks": 1},
    {"attention": "rmt", "rmt_length": 3},
]


def model(memory: dict[str, object]) -> Decoder:
    decoder = Decoder(ModelConfig.from_mapping({**SHAPE, "block_size": 8, **memory}, "test")).double()
    decoder.initialise(0)
    return decoder.eval()


def passes(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one each time the memory's beginning passes the network."""
    found, begin = list[int](), type(decoder.config.memory).begin

    def counted(memory: object, view: Decoder, states: list[dict[str, torch.Tensor]]) -> None:
        found.append(len(states))
        begin(memory, view, states)  # type: ignore[arg-type]

    monkeypatch.setattr(type(decoder.config.memory), "begin", counted)
    return found


def assert_same(one: StreamState, other: StreamState) -> None:
    for mine, theirs in zip(one.layers, other.layers, strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine:
            torch.testing.assert_close(mine[name].detach(), theirs[name].detach(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_kept_beginning_is_the_memorys_own(memory: dict[str, object], batch: int) -> None:
    decoder = model(memory)
    own = decoder.start(batch)  # with a gradient nothing is kept
    with torch.no_grad():
        for _ in range(2):
            assert_same(decoder.start(batch), own)


@pytest.mark.parametrize("memory", MEMORIES)
def test_the_second_start_passes_nothing_through_the_layers(
    memory: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = model(memory)
    found = passes(decoder, monkeypatch)
    with torch.no_grad():
        decoder.start(1)
        decoder.start(5)
    assert len(found) == 1


@pytest.mark.parametrize("change", ["in place", "loaded", "replaced", "block size", "position offset"])
def test_what_changed_is_noticed(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, other = model(MEMORIES[0]), model(MEMORIES[0])
    with torch.no_grad():
        decoder.start(1)
        for one in (decoder, other):
            weight = one.layers[0].ffn.up_proj.weight
            if change == "in place":
                weight.mul_(2)
            elif change == "loaded":
                one.load_state_dict({name: 2 * weight for name, weight in one.state_dict().items()}, assign=True)
            elif change == "replaced":
                one.layers[0].ffn.up_proj.weight = torch.nn.Parameter(2 * weight)
            elif change == "block size":
                one.reconfigure(one.config.override({"block_size": 16, "fam_length": 4}, "test"))
            else:
                one.position_offset = 7
        found = passes(decoder, monkeypatch)
        assert_same(decoder.start(2), other.start(2))
    assert len(found) == 2


def test_an_outline_without_values_begins_too() -> None:
    with torch.no_grad():
        assert model(MEMORIES[0]).to("meta").start(2).layers[0]["fam"].shape == (2, 4, 32)


def test_training_keeps_nothing() -> None:
    decoder = model(MEMORIES[0])
    with torch.no_grad():
        decoder.start(1)
    loss = sum(layer["fam"].sum() for layer in decoder.start(1).layers)
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    gradient = decoder.get_parameter("fam_embedding").grad
    assert gradient is not None and gradient.abs().sum() > 0


def test_streams_do_not_share_what_they_began_with() -> None:
    decoder = model(MEMORIES[0])
    with torch.no_grad():
        first, again = decoder.start(1), decoder.start(1)
        for tensor in first.layers[0].values():
            tensor.fill_(1)
        assert_same(decoder.start(1), again)
