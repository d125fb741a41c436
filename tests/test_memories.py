"""What every memory keeps, whoever wrote it: the same for any chunking, nothing of what comes later, constant size."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from made_memories import HOOKS, MADE, install
from small_models import distance, mark_fam, marked_fam, random_tokens, read_in_chunks, small_config, small_decoder
from test_placement import spread, use
from test_state import storage_bytes
from torch import Tensor

from famcli.checkpoints.checkpoint import memory_weights
from famcli.checkpoints.placement import PlacedDecoder
from famcli.errors import UserError
from famcli.models.config import ModelConfig
from famcli.models.cost import state_values, state_values_per_token
from famcli.models.decoder import Decoder
from famcli.models.memories import ENTRY_POINT_GROUP, memory_entry_points, memory_kind
from famcli.models.memories.gated_fam import GatedFam
from famcli.models.memories.rmt import Rmt
from famcli.models.state import StreamState

pytestmark = pytest.mark.usefixtures("made_memories")

VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    **{f"bswa-M{m}-N{n}": {"memory_segments": m, "sinks": n} for m in (0, 1, 3) for n in (0, 1, 3)},
    "bswa-M1-N4": {"memory_segments": 1, "sinks": 4},
    "bswa-cut": {"memory_segments": 2, "sinks": 1, "stop_gradient": True},
    **{f"fam-M{m}-N{n}": {"memory_segments": m, "sinks": n} for m in (0, 2) for n in (0, 2)},
    "fam-rms": {"fam_norm": "rms", "fam_scale": 2.5},
    "fam-keep": {"fam_keep_initial": True, "sinks": 1},
    "fam-rank": {"fam_rank": 2, "memory_segments": 0, "sinks": 1},
    "fam-rank-null-sink": {"fam_rank": 2, "fam_ffn": False, "fam_null_sink": True, "sinks": 2},
    **{name: {} for name in HOOKS},
    "mixed-M0": {"memory_segments": 0},
    "infini-M2": {"memory_segments": 2},
    "infini-paper": {"infini_gate": "sigmoid", "infini_rule": "delta"},
    "rmt": {"rmt_length": 3},
    "rmt-M2-N2-n2": {"rmt_length": 3, "rmt_summaries": 2, "memory_segments": 2, "sinks": 2},
    "armt-M2": {"armt_length": 3, "armt_features": 8, "memory_segments": 2},
    "titans-mag": {"memory_segments": 2},
    "titans-mal": {"matrix_place": "mal", "matrix_heads": 2},
    "titans-mac": {"matrix_place": "mac", "memory_segments": 1, "sinks": 1},
    "titans-network": {"titans_depth": 2, "titans_hidden": 2, "matrix_heads": 2},
    "gated_delta-mag": {"matrix_heads": 2},
    "gated_delta-within": {"delta_reads": "within", "matrix_heads": 2, "memory_segments": 1},
    "landmark": {"landmark_blocks": 3, "landmark_top": 2},
    "landmark-K1": {"landmark_blocks": 1, "landmark_top": 1},
    "persistent-M2-N1": {"persistent_length": 3, "memory_segments": 2, "sinks": 1},
    "fam-gate": {"fam_gate": "fixed", "memory_segments": 2},
}
KNOWN = {"full", "bswa", "fam", "infini", "rmt", "armt", "titans", "persistent", "gated_delta", "landmark"}
# those of other packages that are installed here, as they are by default
VARIANTS |= {name: {"block_size": 64} for name in memory_entry_points() if name not in KNOWN}
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


@pytest.fixture(params=VARIANTS)
def config(request: pytest.FixtureRequest) -> ModelConfig:
    name = request.param if request.param in memory_entry_points() else request.param.partition("-")[0]
    return small_config(name, **VARIANTS[request.param])


def text(config: ModelConfig, batch: int = 2) -> Tensor:
    """Five blocks and half a block."""
    return random_tokens(config, batch, 5 * config.block_size + config.block_size // 2)


def chunkings(config: ModelConfig, length: int) -> dict[str, list[int]]:
    size = config.block_size
    odd, rest = divmod(length, size - 1)
    chunkings = {
        "whole-blocks": [size] * (length // size) + [length % size],
        "odd": [size - 1] * odd + [rest],
        "across-blocks": [size + 1, 2 * size + 1, 1, length - 3 * size - 3],
        "token-by-token": [1] * length,
    }
    return {name: [count for count in sizes if count] for name, sizes in chunkings.items()}


def latents_of(decoder: Decoder, tokens: Tensor, sizes: list[int] | None = None) -> Tensor:
    return read_in_chunks(decoder, tokens, sizes or [tokens.shape[1]])[0]


def with_token_changed(tokens: Tensor, place: int, config: ModelConfig) -> Tensor:
    changed = tokens.clone()
    changed[:, place] = (changed[:, place] + 1) % config.vocab_size
    return changed


def layer_outputs(decoder: Decoder, tokens: Tensor, sizes: list[int]) -> Tensor:
    """What every layer gives for the tokens, what it gives for the memory's extra positions left out."""
    seen: list[list[Tensor]] = [[] for _ in decoder.layers]
    hooks = [
        layer.register_forward_hook(lambda _, given, output, kept=kept: kept.append(output[:, : given[2].count]))
        for layer, kept in zip(decoder.layers, seen, strict=True)
    ]
    latents_of(decoder, tokens, sizes)
    for hook in hooks:
        hook.remove()
    return torch.stack([torch.cat(kept, dim=1) for kept in seen])


class TestChunkInvariance:
    @pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
    @torch.no_grad()
    def test_any_chunking_gives_the_same_latents(self, config: ModelConfig, dtype: torch.dtype) -> None:
        decoder, tokens = small_decoder(config, dtype), text(config)
        expected = latents_of(decoder, tokens)
        for name, sizes in chunkings(config, tokens.shape[1]).items():
            assert distance(latents_of(decoder, tokens, sizes), expected) <= TOLERANCE[dtype], name

    @torch.no_grad()
    def test_what_was_prefilled_is_as_what_was_read(self, config: ModelConfig) -> None:
        decoder, tokens = small_decoder(config), text(config)
        expected, length = latents_of(decoder, tokens), tokens.shape[1]
        for cut in range(1, length, 1 + config.block_size // 8):
            state = decoder.start(2)
            for part in tokens[:, :cut].split((3, length)[cut % 2], dim=1):
                state = decoder.prefill(part, state)
            assert distance(decoder.read(tokens[:, cut:], state)[0], expected[:, cut:]) <= 1e-10, cut

    @torch.no_grad()
    def test_local_layers_chunk_as_any(self, config: ModelConfig) -> None:
        config = config.override({"local_window": 3, "global_every": 2, "rope_local_theta": 40.0}, "test")
        decoder, tokens = small_decoder(config), text(config)
        expected = latents_of(decoder, tokens)
        for sizes in chunkings(config, tokens.shape[1]).values():
            assert distance(latents_of(decoder, tokens, sizes), expected) <= 1e-10


class TestCausality:
    @torch.no_grad()
    def test_a_token_changes_nothing_before_it_in_any_layer(self, config: ModelConfig) -> None:
        decoder, tokens = small_decoder(config, torch.float32), text(config)
        length, size = tokens.shape[1], config.block_size
        for sizes in ([length], chunkings(config, length)["odd"]):
            before = layer_outputs(decoder, tokens, sizes)
            for place in range(0, length, 1 + size // 8):
                after = layer_outputs(decoder, with_token_changed(tokens, place, config), sizes)
                assert torch.equal(after[:, :, :place], before[:, :, :place]), place
                assert (after[:, :, place] != before[:, :, place]).any(-1).all(), place

    @torch.no_grad()
    def test_what_has_no_bound_is_never_forgotten_at_once(self, config: ModelConfig) -> None:
        """The first tokens still count in the last block where the memory says that nothing bounds them."""
        decoder, tokens = small_decoder(config), text(config)
        before = latents_of(decoder, tokens)[:, -1]
        after = latents_of(decoder, with_token_changed(tokens, config.block_size - 1, config))[:, -1]
        field = config.receptive_field
        if field is None:
            assert distance(after, before) > 1e-9
        elif field <= 4 * config.block_size and not getattr(config.memory, "sinks", 0):
            assert torch.equal(after, before)

    @torch.no_grad()
    def test_rows_of_a_batch_are_strangers(self, config: ModelConfig) -> None:
        decoder, tokens = small_decoder(config), text(config, batch=3)
        sizes = chunkings(config, tokens.shape[1])["odd"]
        together = latents_of(decoder, tokens, sizes)
        for row in range(3):
            assert distance(together[row : row + 1], latents_of(decoder, tokens[row : row + 1], sizes)) <= 1e-12


def with_weights_of(decoder: Decoder, config: ModelConfig) -> Decoder:
    """The decoder of another memory with the same weights, those of its own memory left out."""
    other = Decoder(config).double()
    wanted = other.state_dict().keys()
    other.load_state_dict({name: weight for name, weight in decoder.state_dict().items() if name in wanted})
    return other


class TestAnEmptyMemory:
    """What a memory adds is all that it changes: without it, its model is one of plain BSWA.

    Bit for bit, or within rounding where keys that nobody sees stand in one softmax or matrix with the others.
    """

    @pytest.mark.parametrize(
        ("attention", "fields"),
        [
            ("bare", {}),
            ("added", {"scale": 0.0}),
            *(("mixed", {"scale": 0.0, "memory_segments": m, "sinks": n}) for m in (0, 2) for n in (0, 3)),
            ("pooled", {"means": 0}),
            ("extra", {"shown": False}),
        ],
    )
    @torch.no_grad()
    def test_is_bswa(self, attention: str, fields: dict[str, Any]) -> None:
        decoder = small_decoder(small_config(attention, **fields))
        window = {name: fields.get(name, 0) for name in ("memory_segments", "sinks")}
        bswa, tokens = with_weights_of(decoder, small_config("bswa", **window)), text(decoder.config)
        for sizes in ([tokens.shape[1]], *chunkings(decoder.config, tokens.shape[1]).values()):
            found, expected = latents_of(decoder, tokens, sizes), latents_of(bswa, tokens, sizes)
            assert torch.equal(found, expected) or (attention == "extra" and distance(found, expected) <= 1e-12)

    @pytest.mark.parametrize("segments", [0, 1, 3])
    @torch.no_grad()
    def test_of_no_sinks_is_that_of_sinks_still_in_the_window(self, segments: int) -> None:
        decoders = [small_decoder(small_config("bswa", memory_segments=segments, sinks=n)) for n in (0, 3)]
        assert not any(name.startswith("sink") for name in decoders[0].start(1).layers[0])
        tokens, seen = text(decoders[0].config), 4 * (segments + 1)
        without, with_sinks = (latents_of(decoder, tokens) for decoder in decoders)
        assert torch.equal(without[:, :seen], with_sinks[:, :seen])
        assert distance(without[:, seen:], with_sinks[:, seen:]) > 1e-3

    @torch.no_grad()
    def test_within_a_block_is_full_attention(self) -> None:
        bswa = small_decoder(small_config("bswa", block_size=30, memory_segments=2, sinks=5))
        full, tokens = with_weights_of(bswa, small_config("full")), random_tokens(bswa.config, 2, 30)
        assert torch.equal(latents_of(bswa, tokens), latents_of(full, tokens))

    @pytest.mark.parametrize("norm", ["none", "rms"])
    @pytest.mark.parametrize(
        ("segments", "sinks"), [(0, 0), (2, 0), (2, 2)]
    )  # without segments the sinks precede the FAM
    @torch.no_grad()
    def test_where_the_fam_is_masked_is_bswa(self, segments: int, sinks: int, norm: str) -> None:
        window = {"memory_segments": segments, "sinks": sinks}
        fam = small_decoder(small_config("fam", fam_norm=norm, **window))
        mark_fam(fam.state_dict(), hidden=False)
        bswa, tokens = with_weights_of(fam, small_config("bswa", **window)), text(fam.config)
        assert distance(read_in_chunks(fam, tokens, [22], marked_fam())[0], latents_of(bswa, tokens)) > 1e-2
        mark_fam(fam.state_dict(), hidden=True)
        bswa = with_weights_of(fam, bswa.config)
        for sizes in ([22], *chunkings(fam.config, 22).values()):
            masked, _ = read_in_chunks(fam, tokens, sizes, marked_fam())
            assert distance(masked, latents_of(bswa, tokens, sizes)) <= 1e-12


def gradients(decoder: Decoder, tokens: Tensor, sizes: list[int]) -> dict[str, Tensor]:
    """Of a random projection of the last latents, for each weight."""
    last = latents_of(decoder, tokens, sizes)[:, -decoder.config.block_size // 2 :]
    probe = torch.randn(last.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weights = dict(decoder.named_parameters())
    found = torch.autograd.grad((last * probe).sum(), list(weights.values()), allow_unused=True)
    return {name: w.new_zeros(w.shape) if g is None else g for (name, w), g in zip(weights.items(), found, strict=True)}


class TestGradients:
    def test_are_the_same_for_any_chunking(self, config: ModelConfig) -> None:
        decoder, tokens = small_decoder(config), text(config)
        expected = gradients(decoder, tokens, [tokens.shape[1]])
        for sizes in chunkings(config, tokens.shape[1]).values():
            found = gradients(decoder, tokens, sizes)
            for name, gradient in expected.items():
                assert distance(found[name], gradient) <= 1e-9 * max(1, gradient.abs().max().item()), name

    def test_reach_every_weight_of_the_memory(self, config: ModelConfig) -> None:
        decoder, tokens = small_decoder(config), text(config)
        found = gradients(decoder, tokens, [tokens.shape[1]])
        for name in () if config.memory.chooses else memory_weights(config):
            assert (
                (found[name].flatten(1) if found[name].dim() > 1 else found[name][:, None])
                .abs()
                .amax(1)
                .gt(1e-12)
                .all()
            )
        assert all(gradient.isfinite().all() for gradient in found.values())


def flags(state: StreamState) -> int:
    return sum(tensor.nbytes for layer in state.layers for tensor in layer.values() if tensor.dtype == torch.bool)


class TestState:
    @torch.no_grad()
    def test_has_a_constant_size_that_the_config_tells(self, config: ModelConfig) -> None:
        decoder = small_decoder(config, torch.float32)
        state, size = decoder.start(2), config.block_size
        begun, taken = state.nbytes, []
        tokens = random_tokens(config, 2, 20 * size + 1)
        for part in (*tokens[:, : 20 * size].split(size, dim=1), tokens[:, -1:]):
            state = decoder.read(part, state)[1]
            values = state_values(config) + state.tokens_read * state_values_per_token(config)
            assert state.nbytes - flags(state) == 2 * 4 * values
            taken.append(storage_bytes(state))
        if not config.memory.whole:
            assert state.nbytes == begun
            assert max(taken) == taken[10]

    @torch.no_grad()
    def test_goes_on_exactly_once_saved_forked_or_indexed(self, config: ModelConfig, tmp_path: Path) -> None:
        decoder, tokens = small_decoder(config), text(config)
        size = config.block_size
        for place in (1, size, 3 * size, 3 * size + size // 2):
            state = decoder.read(tokens[:, :place], decoder.start(2))[1]
            state.save(tmp_path / "state.safetensors")
            swapped, forked = state.index([1, 0, 1]), state.fork()
            others = [StreamState.load(tmp_path / "state.safetensors"), forked, state.index([0, 1])]
            expected = decoder.read(tokens[:, place:], state)[0]
            for other in others:
                kept = other.fork()
                assert torch.equal(decoder.read(tokens[:, place:], other)[0], expected)
                assert torch.equal(decoder.read(tokens[:, place:], kept)[0], expected)
            again = decoder.read(tokens[[1, 0, 1], place:], swapped)[0]
            assert distance(again, expected[[1, 0, 1]]) <= 1e-12

    @torch.no_grad()
    def test_takes_back_what_it_carried(self, config: ModelConfig) -> None:
        """All rows of it, or some."""
        decoder, tokens = small_decoder(config), text(config)
        place = 3 * config.block_size
        ends = [decoder.read(rows[:, :place], decoder.start(2))[1] for rows in (tokens, tokens.flip(1))]
        first, second = (decoder.carried(end) for end in ends)
        assert len(first) == config.layers * len(config.memory.carried)
        expected = decoder.read(tokens[:, place:], ends[0].fork())[0]
        decoder.carry(ends[0], second, torch.tensor([False, True]))
        mixed = decoder.read(tokens[:, place:], ends[0].fork())[0]
        assert distance(mixed[:1], expected[:1]) <= 1e-12
        assert (distance(mixed[1:], expected[1:]) > 1e-9) == bool(config.memory.carried)
        decoder.carry(ends[0], first)
        assert distance(decoder.read(tokens[:, place:], ends[0])[0], expected) <= 1e-12

    @torch.no_grad()
    def test_of_layers_elsewhere_is_the_same(self, config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
        decoder = small_decoder(config)
        placed = PlacedDecoder(config).double()
        placed.load_state_dict(decoder.state_dict())
        tokens = random_tokens(config, 2, 12 + 5 * config.block_size)
        assert distance(use(placed, tokens)[0], use(decoder, tokens)[0]) == 0
        # nothing comes back from the stand-in for a device, so the layer that is not there decides alone
        monkeypatch.setattr(GatedFam, "score", staticmethod(lambda states: states[0]["fam_scores"]))
        monkeypatch.setattr(Rmt, "made_of_block", staticmethod(lambda _, states: states[0]["rmt_new"]))
        away = spread(PlacedDecoder, replace(config, tie_embeddings=False))
        for name, weight in away.named_parameters():
            if ".memory.bias" in name and weight.device.type == "cpu":
                weight.fill_(1e3)  # a gate that keeps all
        for state in (use(away, tokens)[1], away.start(3)):
            away.carry(state, away.carried(state), torch.tensor([True, False, True]))
            away.update_again(state)
            devices = [{tensor.device.type for tensor in layer.values()} for layer in state.layers]
            assert devices == [{"cpu"}, {"meta"}, {"meta"}]


class TestRegistration:
    def test_a_field_of_another_memory_is_refused(self, config: ModelConfig) -> None:
        own = config.as_mapping()
        for name in memory_entry_points():
            for field, value in vars(memory_kind(name)()).items():
                if field not in own:
                    with pytest.raises(UserError, match=f"'{field}' belongs to attention .*{name}") as caught:
                        config.override({field: value}, "test")
                    assert "attention=" in (caught.value.hint or "")

    def test_a_memory_of_another_package_is_as_any(self) -> None:
        assert {"full", "bswa", "fam", *HOOKS} <= memory_entry_points().keys()
        config = small_config("fam", memory_segments=2).override({"attention": "mixed", "scale": "0.5"}, "test")
        assert (config.memory.memory_segments, config.memory.scale) == (2, 0.5)
        assert ModelConfig.from_mapping(config.as_mapping(), "test") == config
        assert config.memory.describe(config) == "mixed, B 4, M 2"
        with pytest.raises(
            UserError, match=r"unknown memory 'mixd'.* must be one of added, armt, bare, bswa,"
        ) as caught:
            small_config("mixd")
        assert "mixed" in (caught.value.hint or "")

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("made_memories:Mixd", r"memory 'odd' \(made_memories:Mixd\) cannot be imported: .*Mixd"),
            ("no_such_package:Mixed", "cannot be imported: No module named 'no_such_package'"),
            ("made_memories:Mixed", "made_memories:Mixed calls itself 'mixed'"),
            ("made_memories:setting", r"is no @dataclass\(frozen=True\) that extends Memory"),
            ("famcli.models.state:StreamState", r"is no @dataclass\(frozen=True\) that extends Memory"),
        ],
    )
    def test_a_broken_memory_is_named_and_hides_no_other(
        self, value: str, message: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install(monkeypatch, EntryPoint("odd", value, ENTRY_POINT_GROUP))
        with pytest.raises(UserError, match=message):
            small_config("odd")
        with pytest.raises(
            UserError, match="'fam_length' belongs to attention fam and gated_fam, and attention is bswa"
        ):
            small_config("bswa", fam_length=2)

    def test_two_packages_cannot_give_one_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, MADE[0], MADE[0], EntryPoint("fam", "made_memories:Mixed", ENTRY_POINT_GROUP))
        with pytest.raises(UserError, match=r"two packages install a memory 'fam': .* made_memories:Mixed") as caught:
            small_config("fam")
        assert caught.value.hint == "uninstall one of them"
        assert small_config("bswa").memory.name == "bswa"
