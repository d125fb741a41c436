from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from famcli.errors import UserError
from famcli.models.config import ModelConfig
from famcli.models.decoder import Decoder


def decoder(**fields: Any) -> Decoder:
    """One layer, blocks of 6 tokens, 2 slots."""
    shape = {"vocab_size": 40, "width": 12, "layers": 1, "heads": 2, "kv_heads": 1, "head_width": 6, "ffn_width": 20}
    memory: dict[str, Any] = {"attention": "running-mean", "block_size": 6, "memory_segments": 0}
    own = {"mean_slots": 2} if fields.get("attention") != "bswa" else {}
    model = Decoder(ModelConfig.from_mapping({**shape, **memory, **own, **fields}, "test")).double()
    model.initialise(seed=0)
    return model


def tokens(length: int) -> Tensor:
    return torch.randint(40, (2, length), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
@pytest.mark.parametrize("fields", [{}, {"memory_segments": 1}, {"memory_segments": 2, "sinks": 1}])
def test_any_chunking_gives_the_same_latents_and_a_state_of_one_size(fields: dict[str, int]) -> None:
    model, text = decoder(**fields), tokens(27)
    whole, _ = model.read(text, model.start(2))
    state, found = model.start(2), []
    for chunk in text.split([1, 5, 7, 2, 12], dim=1):
        latents, state = model.read(chunk, state)
        found.append(latents)
        assert state.nbytes == model.start(2).nbytes
    assert torch.allclose(torch.cat(found, dim=1), whole, atol=1e-10, rtol=0)


@torch.no_grad()
def test_a_slot_is_the_mean_over_its_stretch_of_every_block() -> None:
    model, text = decoder(), tokens(18)
    state = model.prefill(text, model.start(2))
    layer = model.layer(0)
    inputs = layer.attention_norm(model.embedding(text))
    values = layer.attention.v_proj(inputs)  # one head: [b, 18, 6]
    means = values.unflatten(1, (3, 2, 3)).mean(dim=(1, 3))
    assert torch.allclose(state.layers[0]["mean_values"][:, 0], means, atol=1e-12, rtol=0)


@torch.no_grad()
def test_the_first_block_is_that_of_bswa_and_later_ones_know_all_before() -> None:
    model, plain, text = decoder(), decoder(attention="bswa", memory_segments=0), tokens(18)
    other = text.clone()
    other[:, 0] = (text[:, 0] + 1) % 40
    found, bswa, changed = (m.read(t, m.start(2))[0] for m, t in ((model, text), (plain, text), (model, other)))
    assert torch.equal(found[:, :6], bswa[:, :6])
    assert not torch.allclose(found[:, 6:], bswa[:, 6:])
    assert not torch.allclose(found[:, -1], changed[:, -1], atol=1e-9)


def test_slots_that_do_not_fit_a_block_are_refused() -> None:
    with pytest.raises(UserError, match="'mean_slots' must divide block_size"):
        decoder(mean_slots=4)
