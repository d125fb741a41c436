"""Layers on several devices: the processor, and PyTorch's ``meta``, which computes nothing and refuses to be mixed."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from small_models import distance, random_tokens, small_config, small_decoder

from famcli.checkpoints.placement import PlacedDecoder, place_layers
from famcli.errors import UserError
from famcli.models.config import ModelConfig
from famcli.models.decoder import Decoder

CPU, META = torch.device("cpu"), torch.device("meta")
GPUS = [torch.device("cuda", 0), torch.device("cuda", 1)]


def use(decoder: Decoder, tokens: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """All that an evaluation does with a decoder."""
    with torch.no_grad():
        state = decoder.prefill(tokens[:, :11], decoder.start(len(tokens)))
        latents, state = decoder.read(tokens[[0, 1, 0], 11:], state.index([0, 1, 0]).fork())
        return decoder.logits(latents), state


def spread(kind: type[Decoder], config: ModelConfig) -> Decoder:
    """All but the first layer, and what comes after the last one, on ``meta``: nothing can come back from there."""
    decoder = kind(config)
    weights = decoder.state_dict()
    there = {name: weight.to(META) for name, weight in weights.items() if re.match(r"layers\.[12]\.|norm|head", name)}
    decoder.load_state_dict({**weights, **there}, assign=True)
    return decoder


@pytest.mark.parametrize("attention", ["full", "bswa", "fam"])
def test_no_two_devices_meet(attention: str) -> None:
    config = small_config(attention, local_window=3, global_every=2, tie_embeddings=False)
    decoder = spread(PlacedDecoder, config)
    logits, state = use(decoder, random_tokens(config, 2, 30))
    assert (logits.device, logits.shape) == (META, (3, 19, 40))
    for layer, device in zip(state.layers, (CPU, META, META), strict=True):
        assert {tensor.device for tensor in layer.values()} == {device}
    if attention == "fam":
        decoder.carry(state, [torch.zeros(3, 2, 12) for _ in range(3)])
        decoder.update_again(state)
        assert state.layers[2]["fam"].device == META
    assert all(tensor.isfinite().all() for tensor in state.layers[0].values())


@pytest.mark.parametrize("attention", ["full", "bswa", "fam"])
def test_devices_that_meet_would_tell(attention: str) -> None:
    config = small_config(attention, tie_embeddings=False)
    with pytest.raises((RuntimeError, NotImplementedError), match=r"device|meta"):
        use(spread(Decoder, config), random_tokens(config, 2, 30))


@pytest.mark.parametrize("attention", ["full", "bswa", "fam"])
def test_placed_layers_compute_as_others_do(attention: str) -> None:
    decoder = small_decoder(small_config(attention))
    placed = PlacedDecoder(decoder.config).double()
    placed.load_state_dict(decoder.state_dict())
    tokens = random_tokens(decoder.config, 2, 30)
    assert distance(use(placed, tokens)[0], use(decoder, tokens)[0]) == 0


def test_layers_go_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first device holds the embeddings besides its layers; the processor takes what no GPU can."""
    config = small_config("fam", layers=8)
    decoder = Decoder(config)
    layer = sum(weight.numel() * 4 for weight in decoder.layers[0].parameters())
    rest = sum(weight.numel() * 4 for weight in decoder.parameters()) - 8 * layer
    room: dict[Any, int] = {0: rest + 4 * layer + 100, 1: 3 * layer + 100, "cpu": 10**9}
    monkeypatch.setattr("accelerate.utils.get_max_memory", lambda: dict(room))
    devices = place_layers(config, GPUS[0], torch.float32)
    order = [[*GPUS, CPU].index(device) for device in devices]
    assert order == sorted(order)
    assert set(order) == {0, 1, 2}
    assert (order.count(0), order.count(1)) <= (4, 3)
    assert set(place_layers(config, GPUS[0], torch.bfloat16)) == {GPUS[0]}
    room["cpu"] = 0
    with pytest.raises(UserError, match=r"takes 0\.0 GiB, more than all devices have"):
        place_layers(config, GPUS[0], torch.float32)


def test_all_layers_stay_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.utils.get_max_memory", lambda: {"cpu": 10**9})
    assert place_layers(small_config("fam"), CPU, torch.float32) == [CPU] * 3
