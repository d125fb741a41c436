"""The gated FAM: what it writes, when, and who sees it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_models import distance, small_config, small_decoder
from torch import Tensor

from famcli.errors import UserError
from famcli.models.decoder import Decoder
from famcli.models.memories import gated_fam
from famcli.models.memories.gated_fam import GatedFam

SHAPE: dict[str, Any] = {"block_size": 8, "memory_segments": 1, "fam_length": 6, "fam_group": 2, "fam_rank": 2}


def lively(**changes: Any) -> Decoder:
    return small_decoder(small_config("gated_fam", **{**SHAPE, **changes}))


def set_gate(monkeypatch: pytest.MonkeyPatch, level: float) -> None:
    monkeypatch.setattr(gated_fam, "OPENS", level)
    monkeypatch.setattr(gated_fam, "TAKES", level)


def tokens_of(blocks: int, rows: int = 2) -> Tensor:
    return torch.randint(0, 30, (rows, 8 * blocks + 3), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_a_gate_that_stays_shut_reads_as_bswa(monkeypatch: pytest.MonkeyPatch) -> None:
    set_gate(monkeypatch, 1.1)
    gated, tokens = lively(), tokens_of(4)
    plain = small_decoder(small_config("bswa", block_size=8, memory_segments=1, sinks=1))
    plain.load_state_dict({name: w for name, w in gated.state_dict().items() if name in plain.state_dict()})
    read, state = gated.read(tokens, gated.start(2))
    expected, _ = plain.read(tokens, plain.start(2))
    assert distance(read, expected) <= 1e-10
    assert not any(layer["fam_filled"].any() for layer in state.layers)


@torch.no_grad()
def test_what_is_not_filled_is_not_seen() -> None:
    model, tokens = lively(), tokens_of(3)
    state = model.prefill(tokens[:, :24], model.start(2))
    for layer in state.layers:
        layer["fam_filled"] = torch.tensor([[True, False] * 3, [False] * 6])
    changed = state.fork()
    for layer in changed.layers:
        for name in ("fam", "fam_keys", "fam_values"):
            seen = layer["fam_filled"][..., None] if name == "fam" else layer["fam_filled"][:, None, :, None]
            layer[name] = torch.where(seen, layer[name], layer[name] + 3)
    (one, after_one), (other, after_other) = (model.read(tokens[:, 24:], some) for some in (state, changed))
    assert torch.equal(one, other)
    tail = torch.zeros(2, 5, dtype=torch.int64)  # the end of the block: the FAM's own queries look
    (_, after_one), (_, after_other) = (model.read(tail, some) for some in (after_one, after_other))
    for left, right in zip(after_one.layers, after_other.layers, strict=True):
        assert torch.equal(left["fam_filled"], right["fam_filled"])
        assert torch.equal(left["fam"][left["fam_filled"]], right["fam"][right["fam_filled"]])


@torch.no_grad()
@pytest.mark.parametrize("ffn", [True, False])
def test_a_group_is_what_its_queries_find_head_by_head(monkeypatch: pytest.MonkeyPatch, ffn: bool) -> None:
    """Written out in loops, from the projections alone, for the second block of a stream whose first opened."""
    set_gate(monkeypatch, -0.1)
    model, tokens = lively(fam_ffn=ffn), tokens_of(2, rows=1)[:, :16]
    state = model.prefill(tokens[:, :8], model.start(1))
    for number, layer in enumerate(state.layers):
        assert layer["fam_filled"].tolist() == [[False] * 4 + [True] * 2], number
    before = [dict(layer) for layer in state.layers]
    middle = model.prefill(tokens[:, 8:12], state)
    after = model.prefill(tokens[:, 12:], middle)
    for number, (old, new) in enumerate(zip(before, after.layers, strict=True)):
        layer, at = model.layer(number), model.whole_block(number, 1)
        own = model.config.memory._own(layer)  # type: ignore[attr-defined]
        empty = old["fam_empty"]
        q = own.attention.queries(own.attention_norm(empty), at.turn(8 - 2, 2))
        group = layer.attention.heads // layer.attention.kv_heads
        heads = torch.zeros_like(q)
        for head in range(layer.attention.heads):
            g = head // group
            keys = torch.cat((old["sink_keys"][0, g], old["fam_keys"][0, g, 4:], new["block_keys"][0, g]))
            values = torch.cat((0 * old["sink_values"][0, g], old["fam_values"][0, g, 4:], new["block_values"][0, g]))
            for i in range(2):
                scores = torch.stack([q[0, head, i] @ key for key in keys]) / q.shape[-1] ** 0.5
                heads[0, head, i] = (scores.softmax(0)[:, None] * values).sum(0)
        x = empty + own.attention.o_proj(heads.transpose(1, 2).flatten(2))
        expected = x + own.ffn(own.ffn_norm(x)) if ffn else x
        assert distance(new["fam"][:, 4:], expected) <= 1e-10
        assert torch.equal(new["fam"][:, 2:4], old["fam"][:, 4:])
        assert new["fam_filled"].tolist() == [[False] * 2 + [True] * 4]
        keys, values = own.attention.keys_values(own.attention_norm(new["fam"]), at.turn(-6, 6))
        assert distance(new["fam_keys"], keys) <= 1e-12 and distance(new["fam_values"], values) <= 1e-12


@torch.no_grad()
def test_rows_open_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A level that parts the rows: what a row holds and reads does not depend on the row beside it."""
    model, tokens = lively(), tokens_of(6, rows=12)
    shares, gate = [], GatedFam.gate

    def watched(found: Tensor) -> tuple[Tensor, Tensor]:
        shares.append(found.float().mean(dim=(0, 2)))
        return gate(found)

    with monkeypatch.context() as patched:
        patched.setattr(GatedFam, "gate", staticmethod(watched))
        model.read(tokens, model.start(12))
    set_gate(monkeypatch, -0.1)
    monkeypatch.setattr(gated_fam, "OPENS", float(shares[0].median()))
    together, state = model.read(tokens, model.start(12))
    first, *others = [layer["fam_filled"] for layer in state.layers]
    assert all(torch.equal(first, other) for other in others), "all layers write, or none"
    assert first.sum(1).min() < first.sum(1).max()
    for row in range(12):
        alone, _ = model.read(tokens[row : row + 1], model.start(1))
        assert distance(alone, together[row : row + 1]) <= 1e-10


@torch.no_grad()
def test_a_full_memory_drops_its_oldest_group(monkeypatch: pytest.MonkeyPatch) -> None:
    set_gate(monkeypatch, -0.1)
    model, tokens = lively(), tokens_of(5, rows=1)[:, :40]
    state, seen = model.start(1), []
    for block in tokens.split(8, dim=1):
        state = model.prefill(block, state)
        seen.append(state.layers[0]["fam"][:, -2:].clone())
    assert torch.equal(state.layers[0]["fam"], torch.cat(seen[-3:], dim=1))
    assert state.layers[0]["fam_filled"].all()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"fam_group": 4}, "must divide fam_length"),
        ({"fam_group": 0}, "must divide fam_length"),
        ({"sinks": 0}, "'sinks' must be at least 1"),
        ({"fam_null_sink": False}, "'fam_null_sink' must be true"),
        ({"fam_keep_initial": False}, "'fam_keep_initial' must be true"),
    ],
)
def test_what_a_gate_needs_is_said(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        lively(**fields)
