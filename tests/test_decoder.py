"""The decoder against the slow reference of ``reference.py``, and against what the paper says must hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import (
    KINDS,
    distance,
    double_weights,
    mark_fam,
    marked_fam,
    random_tokens,
    read_in_chunks,
    small_config,
    small_decoder,
)
from torch import Tensor

from famcli.models import attention, masks
from famcli.models.config import ModelConfig
from famcli.models.decoder import Decoder
from famcli.models.memories.base import Part

each_kind = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)

MEMORY_FIELDS = {"full": [], "bswa": ["memory_segments"], "fam": ["memory_segments", "fam_length"]}
LENGTH = 22  # five blocks of four and half a block
PARTITIONS = {
    "at-once": [22],
    "token-by-token": [1] * 22,
    "whole-blocks": [4] * 5 + [2],
    "threes": [3] * 7 + [1],
    "across-blocks": [5, 9, 1, 7],
    "ending-with-a-block": [2, 6, 4, 8, 2],
}
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def reference_of(decoder: Decoder, tokens: Tensor, **options: Any) -> reference.Reading:
    return reference.read(decoder.config, double_weights(decoder), tokens, **options)


def relative_distance(found: Tensor, expected: Tensor) -> float:
    return distance(found, expected) / expected.abs().max().item()


def layer_outputs(decoder: Decoder, tokens: Tensor, sizes: list[int]) -> Tensor:
    """What every layer gives: [layers, b, n, d]."""
    seen: list[list[Tensor]] = [[] for _ in decoder.layers]
    hooks = [
        layer.register_forward_hook(lambda _module, _inputs, output, kept=kept: kept.append(output))
        for layer, kept in zip(decoder.layers, seen, strict=True)
    ]
    read_in_chunks(decoder, tokens, sizes)
    for hook in hooks:
        hook.remove()
    return torch.stack([torch.cat(kept, dim=1) for kept in seen])


def with_token_changed(tokens: Tensor, place: int) -> Tensor:
    changed = tokens.clone()
    changed[:, place] = (changed[:, place] + 1) % 40
    return changed


class TestChunkInvariance:
    @pytest.mark.parametrize("few", [0, 3], ids=["kernel", "written-out"])
    @each_kind
    @torch.no_grad()
    def test_long_blocks_attend_in_runs(self, config: ModelConfig, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(masks, "QUERY_RUN", 3)
        monkeypatch.setattr(attention, "FEW", few)
        config = replace(config, block_size=10)
        decoder, tokens = small_decoder(config), random_tokens(config, 2, 37)
        latents, _ = read_in_chunks(decoder, tokens, [5, 32])
        assert distance(latents, reference_of(decoder, tokens).latents) < 1e-10

    @pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
    @pytest.mark.parametrize("sizes", PARTITIONS.values(), ids=PARTITIONS)
    @each_kind
    @torch.no_grad()
    def test_any_chunking_equals_the_reference(self, config: ModelConfig, sizes: list[int], dtype: torch.dtype) -> None:
        decoder, tokens = small_decoder(config, dtype), random_tokens(config, 2, LENGTH)
        expected = reference_of(decoder, tokens)
        latents, state = read_in_chunks(decoder, tokens, sizes)
        assert latents.dtype == dtype
        assert distance(latents, expected.latents) <= TOLERANCE[dtype]
        assert state.tokens_read == LENGTH
        # Logits and FAM are not normed: they are compared relative to their size, about ten.
        assert relative_distance(decoder.logits(latents), expected.logits) <= TOLERANCE[dtype]
        for layer, fams in zip(state.layers, expected.fams, strict=True):
            assert not fams or relative_distance(layer["fam"], fams[-1]) <= TOLERANCE[dtype]

    @pytest.mark.parametrize("sizes", PARTITIONS.values(), ids=PARTITIONS)
    @each_kind
    @torch.no_grad()
    def test_skipped_positions_in_any_chunking(self, config: ModelConfig, sizes: list[int]) -> None:
        decoder, tokens = small_decoder(config), random_tokens(config, 2, LENGTH)
        near = decoder.read(tokens, decoder.start(2))[0]
        decoder.skipped = attention.SkippedPositions(torch.tensor([2, 3, 700, 705]), 1000)
        expected = reference_of(decoder, tokens, skipped=decoder.skipped)
        latents, state = read_in_chunks(decoder, tokens, sizes)
        assert distance(latents, expected.latents) <= 1e-10
        for layer, fams in zip(state.layers, expected.fams, strict=True):
            assert not fams or relative_distance(layer["fam"], fams[-1]) <= 1e-10
        assert (distance(latents, near) <= 1e-10) == (config.attention == "full")
        decoder.skipped = attention.SkippedPositions(torch.arange(4), 4)
        assert distance(decoder.read(tokens, decoder.start(2))[0], near) <= 1e-12

    @each_kind
    @torch.no_grad()
    def test_prefill_then_read_equals_the_reference(self, config: ModelConfig) -> None:
        decoder, tokens = small_decoder(config), random_tokens(config, 2, LENGTH)
        expected = reference_of(decoder, tokens).latents
        for cut in range(1, LENGTH):
            state = decoder.start(2)
            for part in tokens[:, :cut].split((3, LENGTH)[cut % 2], dim=1):
                state = decoder.prefill(part, state)
            latents, _ = decoder.read(tokens[:, cut:], state)
            assert distance(latents, expected[:, cut:]) <= 1e-10, cut

    @pytest.mark.parametrize("position", ["current", "previous"])
    @pytest.mark.parametrize("norm", ["none", "rms"])
    @pytest.mark.parametrize("ffn", [True, False])
    @pytest.mark.parametrize("tied", [True, False])
    @torch.no_grad()
    def test_every_switch_of_the_fam(self, position: Any, norm: Any, ffn: bool, tied: bool) -> None:
        switches = {"fam_query_position": position, "fam_norm": norm, "fam_ffn": ffn, "tie_embeddings": tied}
        switches["fam_scale"] = 2.5
        decoder = small_decoder(small_config("fam", **switches))
        tokens = random_tokens(decoder.config, 2, LENGTH)
        expected = reference_of(decoder, tokens)
        for sizes in (PARTITIONS["at-once"], PARTITIONS["across-blocks"]):
            latents, _ = read_in_chunks(decoder, tokens, sizes)
            assert distance(latents, expected.latents) <= 1e-10
            assert distance(decoder.logits(latents), expected.logits) <= 1e-10

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(st.data())
    @torch.no_grad()
    def test_any_shape_in_any_chunking(self, data: st.DataObject) -> None:
        kv_heads, group, block = (data.draw(st.integers(1, top)) for top in (2, 3, 6))
        attention = data.draw(st.sampled_from(["full", "bswa", "fam"]))
        memory = {"memory_segments": data.draw(st.integers(0, 4)), "fam_length": data.draw(st.integers(1, block))}
        config = small_config(
            attention,
            **{name: value for name, value in memory.items() if name in MEMORY_FIELDS[attention]},
            vocab_size=17,
            width=data.draw(st.integers(3, 9)),
            layers=data.draw(st.integers(1, 3)),
            heads=kv_heads * group,
            kv_heads=kv_heads,
            head_width=2 * data.draw(st.integers(1, 4)),
            ffn_width=data.draw(st.integers(1, 12)),
            block_size=block,
            rope_theta=data.draw(st.sampled_from([100.0, 10000.0])),
            norm_eps=data.draw(st.sampled_from([1e-6, 1e-2])),
        )
        sizes = data.draw(st.lists(st.integers(1, 2 * block + 1), min_size=1, max_size=7))
        decoder, tokens = small_decoder(config), random_tokens(config, 2, sum(sizes))
        latents, _ = read_in_chunks(decoder, tokens, sizes)
        assert distance(latents, reference_of(decoder, tokens).latents) <= 1e-10


class TestWhoSeesWhom:
    @pytest.mark.parametrize("sizes", [[11], [1] * 11, [3, 7, 1]], ids=["at-once", "token-by-token", "odd"])
    @each_kind
    @torch.no_grad()
    def test_a_token_changes_nothing_before_it_in_any_layer(self, config: ModelConfig, sizes: list[int]) -> None:
        decoder, tokens = small_decoder(config, torch.float32), random_tokens(config, 2, 11)
        before = layer_outputs(decoder, tokens, sizes)
        for place in range(11):
            after = layer_outputs(decoder, with_token_changed(tokens, place), sizes)
            assert torch.equal(after[:, :, :place], before[:, :, :place]), place
            assert (after[:, :, place] != before[:, :, place]).any(-1).all(), place

    @each_kind
    @torch.no_grad()
    def test_one_layer_sees_exactly_its_window(self, config: ModelConfig) -> None:
        """Section 2.1: all of the last M blocks and the own causal prefix; sinks and FAM hand on what was before."""
        decoder = small_decoder(replace(config, layers=1))
        tokens = random_tokens(config, 1, LENGTH)
        before = layer_outputs(decoder, tokens, [LENGTH])[0, 0]
        for place in range(LENGTH):
            after = layer_outputs(decoder, with_token_changed(tokens, place), [LENGTH])[0, 0]
            seen = (after != before).any(-1).tolist()
            bounded = config.attention == "bswa" and place >= config.memory.sinks
            reach = config.memory.memory_segments if bounded else LENGTH
            assert seen == [place <= i and i // 4 - place // 4 <= reach for i in range(LENGTH)], place

    @torch.no_grad()
    def test_the_fam_does_not_see_memory_segments(self) -> None:
        """Algorithm 2: so the lowest layer's FAM, whose inputs are token embeddings, is the same for every M."""
        fams = []
        for segments in (0, 1, 3):
            decoder = small_decoder(small_config("fam", memory_segments=segments))
            _, state = read_in_chunks(decoder, random_tokens(decoder.config, 2, 20), [20])
            fams.append([layer["fam"] for layer in state.layers])
        assert torch.equal(fams[0][0], fams[1][0]) and torch.equal(fams[0][0], fams[2][0])
        assert distance(fams[0][1], fams[1][1]) > 1e-3  # but higher up the inputs differ

    @pytest.mark.parametrize(("layers", "segments"), [(1, 1), (2, 1), (3, 1), (2, 2), (3, 0)])
    @torch.no_grad()
    def test_nothing_beyond_the_receptive_field(self, layers: int, segments: int) -> None:
        config = small_config("bswa", layers=layers, memory_segments=segments)
        decoder, tokens = small_decoder(config), random_tokens(config, 1, 40)
        assert config.receptive_field is not None
        before, _ = read_in_chunks(decoder, tokens, [40])
        last_outside = 39 - config.receptive_field
        outside, _ = read_in_chunks(decoder, with_token_changed(tokens, last_outside), [40])
        inside, _ = read_in_chunks(decoder, with_token_changed(tokens, last_outside + 1), [40])
        assert torch.equal(outside[:, -1], before[:, -1])
        assert distance(inside[:, -1], before[:, -1]) > 1e-9

    @pytest.mark.parametrize(
        ("attention", "fields"),
        [
            ("full", {"layers": 2, "local_window": 5}),
            ("bswa", {"layers": 2, "local_window": 5, "memory_segments": 3}),
            ("bswa", {"layers": 3, "local_window": 3, "global_every": 2}),
            ("bswa", {"layers": 3, "local_window": 2, "global_every": 3, "memory_segments": 2}),
            ("bswa", {"layers": 2, "local_window": 6, "memory_segments": 0}),
        ],
    )
    @torch.no_grad()
    def test_the_receptive_field_of_local_layers(self, attention: str, fields: dict[str, Any]) -> None:
        """No token of a block sees farther, and one of them sees as far."""
        config = small_config(attention, **fields)
        decoder, tokens, field = small_decoder(config), random_tokens(config, 1, 44), config.receptive_field
        assert field is not None and field <= 36
        before, _ = read_in_chunks(decoder, tokens, [44])
        reached = False
        for place in range(40, 44):
            for seen in (False, True):
                after, _ = read_in_chunks(decoder, with_token_changed(tokens, place - field + seen), [44])
                changed = not torch.equal(after[:, place], before[:, place])
                assert seen or not changed
                reached |= changed
        assert reached

    @pytest.mark.parametrize("fields", [{}, {"local_window": 5, "global_every": 3}])
    def test_full_attention_in_one_layer_sees_everything(self, fields: dict[str, Any]) -> None:
        assert small_config("full", **fields).receptive_field is None

    @torch.no_grad()
    def test_bswa_whose_memory_covers_the_text_is_full_attention(self) -> None:
        bswa, full = small_decoder(small_config("bswa", memory_segments=5)), small_decoder(small_config("full"))
        tokens = random_tokens(bswa.config, 2, LENGTH)
        for sizes in PARTITIONS.values():
            assert distance(read_in_chunks(bswa, tokens, sizes)[0], read_in_chunks(full, tokens, sizes)[0]) <= 1e-10

    @pytest.mark.parametrize("segments", [0, 1, 3])
    @torch.no_grad()
    def test_fam_with_fam_masked_out_is_bswa(self, segments: int) -> None:
        """The weights themselves mask the FAM, see ``mark_fam``."""
        fam = small_decoder(small_config("fam", memory_segments=segments))
        weights = fam.state_dict()
        mark_fam(weights, hidden=False)
        bswa = Decoder(small_config("bswa", memory_segments=segments)).double()
        bswa.load_state_dict({name: weight for name, weight in weights.items() if name != "fam_embedding"})
        given_fam, tokens = marked_fam(), random_tokens(fam.config, 2, LENGTH)
        expected, _ = read_in_chunks(bswa, tokens, [LENGTH])
        shown, _ = read_in_chunks(fam, tokens, [LENGTH], given_fam)
        mark_fam(weights, hidden=True)
        masked, _ = read_in_chunks(fam, tokens, [LENGTH], given_fam)
        assert distance(shown, expected) > 1e-2
        assert distance(masked, expected) <= 1e-10
        hidden = reference_of(fam, tokens, fam=given_fam, hide_fam=True)
        assert distance(masked, hidden.latents) <= 1e-10

    @each_kind
    @torch.no_grad()
    def test_rows_of_a_batch_are_strangers(self, config: ModelConfig) -> None:
        decoder, tokens = small_decoder(config), random_tokens(config, 3, LENGTH)
        together, _ = read_in_chunks(decoder, tokens, PARTITIONS["threes"])
        for row in range(3):
            alone, _ = read_in_chunks(decoder, tokens[row : row + 1], PARTITIONS["threes"])
            assert distance(together[row : row + 1], alone) <= 1e-12


class TestPositions:
    @torch.no_grad()
    def test_bswa_does_not_know_how_far_it_has_read(self) -> None:
        config = small_config("bswa", layers=2, memory_segments=2)
        decoder, tail = small_decoder(config), random_tokens(config, 1, 20, seed=1)
        ends = []
        for blocks in (0, 1, 2, 7, 500):
            text = torch.cat([random_tokens(config, 1, blocks * 4, seed=blocks), tail], dim=1)
            state = decoder.start(1)
            if blocks:
                state = decoder.prefill(text[:, : blocks * 4], state)
            ends.append(decoder.read(tail, state)[0][:, -4:])
        assert all(distance(end, ends[0]) <= 1e-10 for end in ends[1:])

    @torch.no_grad()
    def test_a_fam_means_the_same_anywhere_in_a_stream(self) -> None:
        decoder = small_decoder(small_config("fam", memory_segments=0))
        tokens = random_tokens(decoder.config, 2, 12)
        _, early = read_in_chunks(decoder, tokens, [12])
        late = replace(early.fork(), tokens_read=4_000_000)
        assert torch.equal(decoder.read(tokens, early)[0], decoder.read(tokens, late)[0])


class TestStatePassing:
    @pytest.mark.parametrize("norm", ["none", "rms"])
    @torch.no_grad()
    def test_a_given_fam_is_carried_into_its_first_update(self, norm: str) -> None:
        """Appendix B.2.3: unlike the learned initial FAM it holds context, so the first update keeps the residual."""
        decoder = small_decoder(small_config("fam", fam_norm=norm))
        first, second = random_tokens(decoder.config, 2, 12), random_tokens(decoder.config, 2, LENGTH, seed=1)
        fam = [layer["fam"] for layer in read_in_chunks(decoder, first, [12])[1].layers]
        expected = reference_of(decoder, second, fam=fam).latents
        for sizes in PARTITIONS.values():
            assert distance(read_in_chunks(decoder, second, sizes, fam)[0], expected) <= 1e-10

    @torch.no_grad()
    def test_without_memory_segments_the_fam_is_all_that_is_carried(self) -> None:
        decoder = small_decoder(small_config("fam", memory_segments=0))
        tokens = random_tokens(decoder.config, 2, 32)
        whole, _ = read_in_chunks(decoder, tokens, [32])
        _, half = read_in_chunks(decoder, tokens[:, :12], [12])
        rest, _ = read_in_chunks(decoder, tokens[:, 12:], [20], [layer["fam"] for layer in half.layers])
        assert distance(rest, whole[:, 12:]) <= 1e-10

    @torch.no_grad()
    def test_fresh_and_carried_rows_mix_in_one_batch(self) -> None:
        decoder = small_decoder(small_config("fam"))
        tokens = random_tokens(decoder.config, 2, LENGTH)
        fam = [layer["fam"] for layer in read_in_chunks(decoder, tokens, [LENGTH])[1].layers]
        initial = [layer["fam"] for layer in decoder.start(2).layers]
        state = decoder.start(2)
        assert all(torch.equal(i, f) for i, f in zip(initial, decoder.carried(state), strict=True))
        decoder.carry(state, fam, torch.tensor([False, True]))
        mixed, _ = decoder.read(tokens, state)
        assert distance(mixed[:1], reference_of(decoder, tokens[:1]).latents) <= 1e-10
        assert distance(mixed[1:], reference_of(decoder, tokens[1:], fam=[f[1:] for f in fam]).latents) <= 1e-10


class TestPlainProducts:
    """Attention that is written out, against PyTorch's kernel in float64 over the same keys in one row."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("count", [1, 5, 40])
    @pytest.mark.parametrize("shown", [None, 0.5, 1.0])
    @torch.no_grad()
    def test_equal_the_kernel(
        self, dtype: torch.dtype, count: int, shown: float | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(attention, "FEW", 8)
        monkeypatch.setattr(masks, "QUERY_RUN", 16)
        own = attention.Attention(small_config("bswa", heads=6, kv_heads=2, head_width=8))
        generator = torch.Generator().manual_seed(count)

        def drawn(heads: int, length: int) -> Tensor:
            """As if it were the beginning of a longer buffer."""
            return torch.randn(2, heads, length + 3, 8, generator=generator).to(dtype)[:, :, :length]

        parts = (Part(3, seen_from=2), Part(20, first=-20), Part(0))
        lengths = [*(part.count for part in parts), 7 + count]
        seen = [(drawn(2, length), drawn(2, length)) for length in lengths]
        made = masks.block_masks(parts, 7, count, window=15, device=torch.device("cpu"))
        visible = None if shown is None else torch.rand(2, 23, generator=generator) < shown
        queries = drawn(6, count)
        found = own.heads_of(queries, seen, made, visible)
        places = torch.cat((torch.full((3,), 1000), torch.arange(-20, 7 + count)))
        at = torch.arange(7, 7 + count)[:, None]
        allowed = ((places <= at) & (at - places < 15) | (places == 1000))[None, None]
        if visible is not None:
            allowed = allowed & torch.nn.functional.pad(visible, (0, 7 + count), value=True)[:, None, None]
        keys, values = (torch.cat(tensors, dim=2).double() for tensors in zip(*seen, strict=True))
        expected = torch.nn.functional.scaled_dot_product_attention(
            queries.double(), keys, values, attn_mask=allowed, enable_gqa=True
        )
        assert found.dtype == dtype
        assert distance(found, expected) < {torch.float32: 1e-5, torch.bfloat16: 0.04}[dtype]
