"""The gated FAM: which tokens it keeps, as what, and who sees them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_models import distance, random_tokens, small_config, small_decoder
from torch import Tensor

from famcli.errors import UserError
from famcli.models.attention import SkippedPositions
from famcli.models.decoder import Decoder
from famcli.models.memories.bswa import Bswa
from famcli.models.memories.gated_fam import GatedFam

SHAPE: dict[str, Any] = {"block_size": 8, "memory_segments": 1, "fam_length": 6, "fam_before": 1, "fam_after": 0}


def lively(**changes: Any) -> Decoder:
    """Gates that find about a sixth of the tokens worth keeping."""
    model = small_decoder(small_config("gated_fam", **{**SHAPE, **changes}))
    for number in range(model.config.layers):
        model.get_parameter(f"layers.{number}.memory.bias").data.fill_(-0.4)
        model.get_parameter(f"layers.{number}.memory.weight").data.mul_(0.5)
    return model


def tokens_of(blocks: int, rows: int = 2) -> Tensor:
    return torch.randint(0, 30, (rows, 8 * blocks + 3), generator=torch.Generator().manual_seed(1))


def plain_one(model: Decoder) -> Decoder:
    plain = small_decoder(small_config("bswa", block_size=8, memory_segments=1, sinks=1))
    plain.load_state_dict({name: w for name, w in model.state_dict().items() if name in plain.state_dict()})
    return plain


@torch.no_grad()
def test_an_untrained_gate_keeps_nothing_and_reads_as_bswa(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose sinks stand as far away: the slots are between them and the segments."""
    monkeypatch.setattr(Bswa, "sink_distance", lambda self, at: at.span + 6)
    monkeypatch.setattr(Bswa, "reach", lambda self, config: 15)
    plain, tokens = plain_one(lively()), tokens_of(4)
    gated = Decoder(small_config("gated_fam", **SHAPE)).double()
    gated.load_state_dict(plain.state_dict(), strict=False)
    read, state = gated.read(tokens, gated.start(2))
    assert distance(read, plain.read(tokens, plain.start(2))[0]) <= 1e-10
    assert not any(layer["fam_filled"].any() for layer in state.layers)


@torch.no_grad()
@pytest.mark.parametrize("after", [0, 2])
def test_what_is_kept_is_written_out_in_loops(after: int) -> None:
    """Layer by layer and token by token, from the embeddings on: keys that are turned to one place alone, their scores,
    what stands around them, and where they end up."""
    model, tokens = lively(fam_after=after), tokens_of(5, rows=3)[:, :40]
    state, found = model.start(3), 0
    held: list[list[tuple[list[Tensor], list[Tensor]]]] = [[], [], []]
    for block in tokens.split(8, dim=1):
        state = model.prefill(block[:, :4], state)
        state = model.prefill(block[:, 4:], state)
        for row in range(3):
            per_token = []
            for place in range(8):
                score, keys, values = 0.0, [], []
                for number, layer in enumerate(state.layers):
                    back = model.place(number).moved(layer["block_keys"][row : row + 1, :, place : place + 1], -place)
                    keys.append(back[0, :, 0])
                    values.append(layer["block_values"][row, :, place].clone())
                    gate = model.layer(number).memory
                    score += float((gate.weight[0] * keys[-1].flatten()).sum() + gate.bias[0])  # type: ignore[union-attr]
                per_token.append((score > 0, keys, values))
            for place in range(8):
                if any(worth for worth, *_ in per_token[max(0, place - after) : place + 2]):
                    held[row].append(per_token[place][1:])
                    found += 1
            newest = held[row][-6:]
            for number, layer in enumerate(state.layers):
                assert layer["fam_filled"][row].tolist() == [False] * (6 - len(newest)) + [True] * len(newest)
                for slot, (keys, values) in enumerate(newest, start=6 - len(newest)):
                    turned = model.place(number).moved(keys[number][None, :, None], slot - 6 - 8)
                    assert distance(layer["fam_keys"][row, :, slot], turned[0, :, 0]) <= 1e-10
                    assert torch.equal(layer["fam_values"][row, :, slot], values[number])
    assert 10 < found < 3 * 40 - 10
    assert any(len(some) > 6 for some in held), "the oldest dropped out"


@torch.no_grad()
def test_what_is_not_filled_is_not_seen() -> None:
    model, tokens = lively(), tokens_of(3)
    state = model.prefill(tokens[:, :24], model.start(2))
    for layer in state.layers:
        layer["fam_filled"] = torch.tensor([[False] * 3 + [True] * 3, [False] * 6])
    changed = state.fork()
    for layer in changed.layers:
        for name in ("fam_unturned", "fam_keys", "fam_values"):
            layer[name] = torch.where(layer["fam_filled"][:, None, :, None], layer[name], layer[name] + 3)
    (one, after_one), (other, after_other) = (model.read(tokens[:, 24:], some) for some in (state, changed))
    assert torch.equal(one, other)
    tail = torch.zeros(2, 5, dtype=torch.int64)  # the end of the block
    (_, after_one), (_, after_other) = (model.read(tail, some) for some in (after_one, after_other))
    for left, right in zip(after_one.layers, after_other.layers, strict=True):
        assert torch.equal(left["fam_filled"], right["fam_filled"])
        seen = left["fam_filled"][:, None, :, None]
        assert torch.equal(left["fam_keys"] * seen, right["fam_keys"] * seen)


@torch.no_grad()
def test_a_kept_token_is_seen_as_if_it_stood_right_before_the_block() -> None:
    """All of the first block is kept, and nothing else is in sight: the second one reads on as full attention does."""
    model = lively(block_size=6, memory_segments=0, sinks=0)
    model.get_parameter("layers.0.memory.bias").data.fill_(1e6)
    full = small_decoder(small_config("full"))
    full.load_state_dict({name: w for name, w in model.state_dict().items() if name in full.state_dict()})
    tokens = tokens_of(2)[:, :12]
    (read, _), (expected, _) = (some.read(tokens, some.start(2)) for some in (model, full))
    assert distance(read, expected) <= 1e-10


@torch.no_grad()
def test_positions_that_are_skipped_move_segments_and_sinks_and_no_key_of_a_slot() -> None:
    """A gate sees keys that are turned to no position; slots stand before a segment of the block's whole span."""
    model = lively(memory_segments=1, sinks=2)
    tokens = tokens_of(3)[:, :24]
    places = torch.tensor([0, 1, 2, 3, 10, 11, 12, 13])
    model.skipped = SkippedPositions(places, 20)
    state = model.prefill(tokens, model.start(2))
    assert all(layer["fam_filled"].any() for layer in state.layers)
    for number, layer in enumerate(state.layers):
        at = model.place(number)
        turned = at.moved_to(layer["fam_unturned"], -(20 + 6))
        assert distance(layer["fam_keys"], turned) <= 1e-10
    # The first layer's keys are those of the embeddings, wherever the tokens stand.
    model.skipped = None
    plain = model.prefill(tokens, model.start(2))
    attention, norm = model.layer(0).attention, model.layer(0).attention_norm
    embedded = attention.keys_values(norm(model.embedding(tokens)), model.place(0).turn(0, 1))[0]
    for held in (state, plain):
        layer = held.layers[0]
        for row, slot in layer["fam_filled"].nonzero().tolist():
            apart = (embedded[row] - layer["fam_unturned"][row, :, slot, None]).abs().amax(dim=(0, 2))
            assert apart.min() <= 1e-10


@torch.no_grad()
def test_rows_keep_alone() -> None:
    """What a row keeps and reads does not depend on the row beside it."""
    model, tokens = lively(), tokens_of(6, rows=12)
    together, state = model.read(tokens, model.start(12))
    first, *others = [layer["fam_filled"] for layer in state.layers]
    assert all(torch.equal(first, other) for other in others), "all layers keep the same tokens"
    for row in range(12):
        alone, _ = model.read(tokens[row : row + 1], model.start(1))
        assert distance(alone, together[row : row + 1]) <= 1e-10


@torch.no_grad()
def test_a_block_that_comes_again_is_kept_again() -> None:
    model = lively()
    tokens = random_tokens(model.config, 2, 8)
    twice = model.prefill(tokens[:, 4:], model.prefill(tokens[:, :4], model.start(2)))
    once = [int(layer["fam_filled"].sum()) for layer in twice.layers]
    model.update_again(twice)
    assert [int(layer["fam_filled"].sum()) for layer in twice.layers] == [2 * some for some in once]
    assert not any(name in layer for layer in twice.layers for name in ("fam_new", "fam_scores"))


def test_the_tokens_around_are_those_of_the_fields() -> None:
    worth = torch.zeros(2, 12).bool()
    worth[0, [0, 11]] = True
    worth[1, 5] = True
    kept = GatedFam(fam_before=3, fam_after=2).around(worth)
    assert kept[0].nonzero()[:, 0].tolist() == [0, 1, 2, 8, 9, 10, 11]
    assert kept[1].nonzero()[:, 0].tolist() == [2, 3, 4, 5, 6, 7]
    assert GatedFam(fam_before=2**31, fam_after=2**31).around(worth).all(), "no more than there are in the block"


@pytest.mark.parametrize("name", ["fam_before", "fam_after"])
def test_tokens_around_are_not_below_none(name: str) -> None:
    with pytest.raises(UserError, match=f"'{name}' must be at least 0, not -1"):
        lively(**{name: -1})
