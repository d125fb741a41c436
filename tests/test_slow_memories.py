"""Memories of the literature against their slow forms, and what they are before anybody has trained them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from slow_matrices import SlowDelta, SlowDeltaWithin, SlowTitans
from slow_memories import SlowArmt, SlowInfini, SlowLandmark, SlowMemory, SlowPersistent, SlowRmt
from small_models import (
    distance,
    double_weights,
    random_tokens,
    read_in_chunks,
    segments_of,
    small_config,
    small_decoder,
)

from famcli.checkpoints.checkpoint import memory_weights
from famcli.errors import UserError
from famcli.models.attention import SkippedPositions
from famcli.models.decoder import Decoder

CASES: dict[str, tuple[type[SlowMemory], dict[str, Any]]] = {
    **{
        f"infini-{rule}-{gate}-M{m}": (SlowInfini, {"infini_rule": rule, "infini_gate": gate, "memory_segments": m})
        for rule in ("linear", "delta")
        for gate in ("tanh", "sigmoid")
        for m in (0, 2)
    },
    **{
        f"rmt-M{m}-n{n}": (SlowRmt, {"rmt_length": 3, "rmt_summaries": n, "memory_segments": m})
        for m in (0, 2)
        for n in (0, 2)
    },
    **{f"armt-M{m}": (SlowArmt, {"armt_length": 3, "armt_features": 4, "memory_segments": m}) for m in (0, 2)},
    **{
        f"titans-{v}-M{m}": (SlowTitans, {"matrix_place": v, "matrix_heads": h, "memory_segments": m})
        for v, h, m in (("mag", 2, 0), ("mal", 1, 0), ("mag", 1, 2))
    },
    **{
        f"titans-{v}-x{d}": (SlowTitans, {"matrix_place": v, "matrix_heads": h, "titans_depth": d, "titans_hidden": 2})
        for v, h, d in (("mag", 2, 2), ("mal", 1, 3))
    },
    **{
        f"titans-mac-M{m}": (SlowTitans, {"matrix_place": "mac", "memory_segments": m, "titans_depth": d})
        for m, d in ((0, 1), (2, 2))
    },
    **{
        f"landmark-K{blocks}-k{top}": (SlowLandmark, {"landmark_blocks": blocks, "landmark_top": top})
        for blocks, top in ((3, 1), (2, 2), (4, 2))
    },
    **{f"persistent-M{m}": (SlowPersistent, {"persistent_length": 3, "memory_segments": m}) for m in (0, 2)},
    **{
        f"gated_delta-{v}-M{m}": (SlowDelta, {"matrix_place": v, "matrix_heads": h, "memory_segments": m})
        for v, h, m in (("mag", 2, 0), ("mal", 1, 2), ("mac", 2, 0))
    },
    **{
        f"gated_delta-within-M{m}": (
            SlowDeltaWithin,
            {"delta_reads": "within", "matrix_heads": h, "memory_segments": m},
        )
        for h, m in ((2, 0), (1, 2))
    },
}


@pytest.mark.parametrize("case", ["bswa-M0", "bswa-M2", *CASES])
@torch.no_grad()
def test_any_chunking_equals_the_slow_form(case: str) -> None:
    kind, fields = CASES.get(case, (SlowMemory, {"memory_segments": int(case[-1])}))
    config = small_config(case.partition("-")[0], **fields)
    decoder = small_decoder(config)
    tokens = random_tokens(config, 2, 22)
    expected = kind(config, double_weights(decoder)).read(tokens)
    for sizes in ([22], [1] * 22, [5, 9, 1, 7]):
        latents, _ = read_in_chunks(decoder, tokens, sizes)
        assert distance(latents, expected) <= 1e-9


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_positions_may_begin_anywhere_and_skip(case: str) -> None:
    """As training draws them: only differences count, and chunks stay exact where tokens stand apart."""
    config = small_config(case.partition("-")[0], **CASES[case][1])
    decoder, tokens = small_decoder(config), random_tokens(config, 2, 22)
    expected, _ = read_in_chunks(decoder, tokens, [22])
    decoder.position_offset = 9
    assert distance(read_in_chunks(decoder, tokens, [7, 15])[0], expected) <= 1e-10
    decoder.skipped = SkippedPositions(torch.tensor([0, 3, 4, 9]), 11)
    apart, _ = read_in_chunks(decoder, tokens, [22])
    assert distance(apart, expected) > 1e-3
    assert distance(read_in_chunks(decoder, tokens, [3, 9, 10])[0], apart) <= 1e-10


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_the_slow_form(case: str) -> None:
    """Through all blocks: what is learned late in a text reaches what was written early."""
    kind, fields = CASES[case]
    config = small_config(case.partition("-")[0], **fields)
    decoder, tokens = small_decoder(config), random_tokens(config, 1, 22)
    weights = {name: w.requires_grad_() for name, w in double_weights(decoder).items()}
    slow = kind(config, weights).read(tokens)[:, -6:]
    probe = torch.randn(slow.shape, generator=torch.Generator().manual_seed(3)).double()
    expected = torch.autograd.grad((slow * probe).sum(), list(weights.values()))
    latents, _ = read_in_chunks(decoder, tokens, [22])
    own = [decoder.get_parameter(name) for name in weights]
    for name, one, other in zip(
        weights, torch.autograd.grad((latents[:, -6:] * probe).sum(), own), expected, strict=True
    ):
        assert distance(one, other) <= 1e-8 * max(1, other.abs().max().item()), name


NEUTRAL: list[dict[str, Any]] = [
    {"attention": "infini"},
    {"attention": "infini", "infini_rule": "delta"},
    {"attention": "armt"},
    {"attention": "titans"},
    {"attention": "titans", "matrix_place": "mal"},
    {"attention": "titans", "titans_depth": 2},
    {"attention": "gated_delta"},
    {"attention": "gated_delta", "delta_reads": "within"},
]


@pytest.mark.parametrize("segments", [0, 2])
@pytest.mark.parametrize("fields", NEUTRAL, ids=str)
@torch.no_grad()
def test_an_untrained_memory_changes_nothing(fields: dict[str, Any], segments: int) -> None:
    """What is built on a pretrained model reads as the model does, and its memory can learn from there."""
    bswa = small_decoder(small_config("bswa", memory_segments=segments))
    untrained = Decoder(small_config(memory_segments=segments, **fields)).double()
    untrained.initialise(0)
    untrained.load_state_dict(bswa.state_dict(), strict=False)
    tokens = random_tokens(bswa.config, 2, 30)
    for sizes in ([30], [1] * 30, [7, 23]):
        found, expected = (read_in_chunks(decoder, tokens, sizes)[0] for decoder in (untrained, bswa))
        assert distance(found, expected) <= 1e-12


@pytest.mark.parametrize(
    ("attention", "fields", "message"),
    [
        ("titans", {"titans_depth": 0}, "'titans_depth' must be between 1 and 8, not 0"),
        ("titans", {"titans_depth": 2, "titans_hidden": 0}, "'titans_hidden' must be at least 1, not 0"),
        ("titans", {"titans_hidden": 2}, "'titans_hidden' is 2, and with titans_depth=1 the memory is a matrix"),
        ("gated_delta", {"delta_reads": "within", "matrix_place": "mac"}, "is within, .*, not as matrix_place=mac"),
        ("landmark", {"landmark_blocks": 0}, "'landmark_blocks' must be at least 1, not 0"),
        ("landmark", {"landmark_top": 9}, r"'landmark_top' must be at most landmark_blocks \(8\), not 9"),
    ],
)
def test_fields_that_do_not_fit_are_refused_by_name(attention: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        small_config(attention, **fields)


@pytest.mark.parametrize("attention", ["titans", "gated_delta"])
@torch.no_grad()
def test_in_context_a_memory_is_seen_once_it_has_something(attention: str) -> None:
    """Its keys take a share of the softmax even where they say nothing, but not before anything was written."""
    bswa = small_decoder(small_config("bswa", memory_segments=1))
    memory = Decoder(small_config(attention, memory_segments=1, matrix_place="mac")).double()
    memory.initialise(0)
    memory.load_state_dict(bswa.state_dict(), strict=False)
    tokens = random_tokens(bswa.config, 2, 10)
    for sizes in ([10], [3, 4, 3]):
        found, expected = (read_in_chunks(decoder, tokens, sizes)[0] for decoder in (memory, bswa))
        assert distance(found[:, :4], expected[:, :4]) <= 1e-12
        assert distance(found[:, 4:5], expected[:, 4:5]) > 1e-3


@pytest.mark.parametrize("blocks", [1, 2])
@torch.no_grad()
def test_landmarks_reach_as_far_as_is_said_and_no_farther(blocks: int) -> None:
    config = small_config("landmark", landmark_blocks=blocks, landmark_top=blocks)
    decoder, tokens = small_decoder(config), random_tokens(config, 1, 32)
    field, before = config.receptive_field, read_in_chunks(decoder, tokens, [32])[0][:, -1]
    assert field is not None
    for back in (field - 1, field):
        changed = tokens.clone()
        changed[0, 31 - back] = (changed[0, 31 - back] + 1) % config.vocab_size
        after = read_in_chunks(decoder, changed, [32])[0][:, -1]
        assert torch.equal(after, before) == (back == field)


@torch.no_grad()
def test_within_its_block_a_token_reads_what_the_recurrence_says_however_long_a_chunk_is() -> None:
    """Chunks of several pieces, each of which is solved at once."""
    config = small_config("gated_delta", delta_reads="within", block_size=150)
    decoder, tokens = small_decoder(config), random_tokens(config, 1, 330)
    expected = SlowDeltaWithin(config, double_weights(decoder)).read(tokens)
    for sizes in ([330], [1] * 330, [65, 128, 137]):
        assert distance(read_in_chunks(decoder, tokens, sizes)[0], expected) <= 1e-9


def trained(attention: str, **fields: Any) -> tuple[list[float], Decoder, Decoder]:
    """Losses of a token that a block was full of, asked once the block is over and no segment has it.

    And the model before and after.
    """
    config = small_config(attention, **segments_of(attention, 0), width=16, **fields)
    decoder, begun = Decoder(config), Decoder(config)
    decoder.initialise(1)
    begun.load_state_dict(decoder.state_dict())
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.01)
    losses = []
    for step in range(80):
        told = random_tokens(config, 32, 1, seed=step)
        text = torch.cat((told.expand(-1, 4), torch.zeros_like(told)), dim=1)
        latents, _ = decoder.read(text, decoder.start(len(text)))
        loss = torch.nn.functional.cross_entropy(decoder.logits(latents[:, -1]), told[:, 0])
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses, begun, decoder


LEARNS: list[dict[str, Any]] = [
    {"attention": "infini"},
    {"attention": "infini", "infini_rule": "delta"},
    {"attention": "rmt", "rmt_length": 2},
    {"attention": "rmt", "rmt_length": 2, "rmt_summaries": 2},
    {"attention": "armt", "armt_length": 2, "armt_features": 8},
    {"attention": "titans"},
    {"attention": "titans", "matrix_place": "mal", "matrix_heads": 2},
    {"attention": "titans", "titans_depth": 2},
    {"attention": "titans", "matrix_place": "mac"},
    {"attention": "landmark"},
    {"attention": "gated_delta"},
    {"attention": "gated_delta", "delta_reads": "within"},
]


@pytest.mark.parametrize("fields", LEARNS, ids=str)
def test_a_short_training_lowers_the_loss(fields: dict[str, Any]) -> None:
    losses, begun, decoder = trained(**fields)
    assert sum(losses[-5:]) / 5 < losses[0] - 1.5
    for name in memory_weights(decoder.config):
        assert not torch.equal(decoder.get_parameter(name), begun.get_parameter(name)), name


def test_without_a_memory_the_same_training_learns_nothing() -> None:
    losses, _, _ = trained("bswa")
    assert min(losses[5:]) > 3.3  # log 40 is 3.7


@pytest.mark.parametrize("depth", [1, 2, 3])
@torch.no_grad()
def test_titans_never_diverges_however_often_a_block_comes(depth: int) -> None:
    """Steps as large as they can be, on a block whose keys are all alike, and networks that are steep."""
    config = small_config("titans", block_size=16, titans_depth=depth)
    decoder = small_decoder(config)
    for name, weight in decoder.named_parameters():
        weight.mul_(3 if ".start." in name else 1)
    for layer in decoder.layers:
        layer.memory["rates"].weight.zero_()
        layer.memory["rates"].bias.copy_(torch.tensor([-9.0, 0.0, 9.0]))
    state = decoder.start(1)
    tokens = torch.full((1, 16), 7)
    for part in (tokens[:, :9], tokens[:, 9:]):
        state = decoder.prefill(part, state)
    once = [layer["matrices"].norm() for layer in state.layers]
    for _ in range(100):
        decoder.update_again(state)
    for layer, size in zip(state.layers, once, strict=True):
        assert layer["matrices"].norm() < 3 * size


@pytest.mark.parametrize(
    ("attention", "fields", "rates"),
    [
        ("gated_delta", {}, [9.0, 0.0]),
        ("gated_delta", {"delta_reads": "within"}, [9.0, 0.0]),
        ("titans", {}, [9.0, -9.0, 0.0]),
        ("titans", {"titans_depth": 2}, [9.0, -9.0, 0.0]),
    ],
)
def test_what_forgets_all_has_gradients(attention: str, fields: dict[str, Any], rates: list[float]) -> None:
    """Products of a whole block's rates are beyond the least and the largest number, one way and the other."""
    config = small_config(attention, block_size=128, **fields)
    decoder = small_decoder(config)
    for layer in decoder.layers:
        layer.memory["rates"].bias.data.copy_(torch.tensor(rates))
    tokens = random_tokens(config, 1, 256)
    latents, _ = decoder.read(tokens, decoder.start(1))
    latents.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in decoder.parameters())


SUMS = {
    "gated_delta": ["matrices"],
    "infini": ["infini_table"],
    "armt": ["armt_table"],
    "titans": ["matrices", "matrix_momentum"],
}


SIXTEEN_BITS: list[dict[str, Any]] = [
    *({"attention": name} for name in (*SUMS, "rmt", "landmark")),
    {"attention": "titans", "titans_depth": 2},
    {"attention": "titans", "matrix_place": "mac"},
    {"attention": "gated_delta", "delta_reads": "within"},
]


@pytest.mark.parametrize("fields", SIXTEEN_BITS, ids=str)
@torch.no_grad()
def test_sums_stay_precise_in_sixteen_bits(fields: dict[str, Any]) -> None:
    """In a model of bfloat16, and in one that autocast computes in it."""
    config = small_config(**fields)
    for dtype in (torch.bfloat16, torch.float32):
        decoder = small_decoder(config, dtype)
        tokens = random_tokens(config, 2, 22)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.float32):
            latents, after_one = decoder.read(tokens[:, :4], decoder.start(2))
            state = after_one.fork()
            latents = torch.cat((latents, decoder.read(tokens[:, 4:], after_one)[0]), dim=1)
        assert latents.isfinite().all() and latents.dtype == dtype
        for layer in state.layers:
            for name in SUMS.get(config.attention, []):
                assert layer[name].dtype == torch.float32
                rounded = layer[name].bfloat16().float()
                assert not torch.equal(layer[name], rounded), "computed in sixteen bits"
