"""The stream state: of one size for ever, and exact when it is forked, indexed, saved and loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from small_models import distance, random_tokens, small_config, small_decoder
from torch import Tensor

from famcli.errors import UserError
from famcli.models.config import ModelConfig
from famcli.models.state import StreamState

KINDS = {
    "full": small_config("full"),
    "bswa-M0": small_config("bswa", memory_segments=0),
    "bswa-M2": small_config("bswa", memory_segments=2),
    "fam-M0": small_config("fam", memory_segments=0),
    "fam-M2": small_config("fam", memory_segments=2),
}
each_kind = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
each_blocked_kind = pytest.mark.parametrize("config", list(KINDS.values())[1:], ids=list(KINDS)[1:])
# Nothing; inside the first block; at the end of one; inside a later one.
each_place = pytest.mark.parametrize("place", [0, 3, 8, 14])


@pytest.fixture(autouse=True)
def _inference() -> object:
    with torch.no_grad():
        yield


def storage_bytes(state: StreamState) -> int:
    """Bytes of memory the state keeps alive, whatever its tensors show of it."""
    tensors = [tensor for layer in state.layers for tensor in layer.values()]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def everything(state: StreamState) -> list[Tensor]:
    return [layer[name] for layer in state.layers for name in sorted(layer)]


def same(left: StreamState, right: StreamState) -> bool:
    """Bitwise, in every tensor, shape and dtype."""
    pairs = list(zip(everything(left), everything(right), strict=True))
    alike = all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)
    return alike and left.tokens_read == right.tokens_read


class TestSize:
    def test_is_the_same_after_10000_blocks_as_after_one(self) -> None:
        config = small_config("fam", layers=1, heads=2, kv_heads=1)
        decoder = small_decoder(config, torch.float32)
        state = decoder.start(1)
        sizes, held = {state.nbytes}, set()
        for blocks in (1, 9, 90, 900, 9000):
            state = decoder.prefill(random_tokens(config, 1, blocks * 4), state)
            sizes.add(state.nbytes)
            held.add(storage_bytes(state))
        assert state.tokens_read == 40_000
        assert len(sizes) == 1
        assert len(held) == 1
        assert all(tensor.isfinite().all() for tensor in everything(state))

    @each_blocked_kind
    def test_is_the_same_anywhere_in_a_block(self, config: ModelConfig) -> None:
        decoder, tokens = small_decoder(config), random_tokens(config, 2, 40)
        state = decoder.start(2)
        sizes, held = [state.nbytes], []
        for chunk in tokens.split([1, 2, 1, 4, 3, 5, 8, 1, 1, 1, 13], dim=1):
            state = decoder.prefill(chunk, state)
            sizes.append(state.nbytes)
            held.append(storage_bytes(state))
        assert len(set(sizes)) == 1
        assert max(held) <= 2 * sizes[0]

    @pytest.mark.parametrize(("attention", "latents"), [("bswa", 0), ("fam", 2)])
    def test_is_what_the_shape_says(self, attention: str, latents: int) -> None:
        """Two rows of three layers: 8 memory and 4 block tokens and the FAM, keys and values of 2 x 6 numbers each."""
        state = small_decoder(small_config(attention, memory_segments=2), torch.float32).start(2)
        numbers = 2 * 3 * ((2 * 4 + 4 + latents) * 2 * 2 * 6 + latents * 12)
        flags = 2 * 3 if attention == "fam" else 0  # a byte a row and layer: whether the FAM is the initial one
        assert state.nbytes == numbers * 4 + flags
        assert state.batch == 2

    @each_kind
    def test_tokens_read_counts_every_token_of_a_stream(self, config: ModelConfig) -> None:
        decoder, state = small_decoder(config), small_decoder(config).start(3)
        total = 0
        for size in (1, 4, 3, 9, 1):
            before = state.tokens_read
            _, state = decoder.read(random_tokens(config, 3, size), state)
            assert before == total
            total += size
            assert state.tokens_read == total
        assert decoder.prefill(random_tokens(config, 3, 7), state).tokens_read == total + 7


class TestForkAndIndex:
    @each_place
    @each_kind
    def test_a_fork_goes_its_own_way(self, config: ModelConfig, place: int) -> None:
        decoder = small_decoder(config)
        main, side = random_tokens(config, 2, 9, seed=1), random_tokens(config, 2, 9, seed=2)
        expected = [decoder.read(text, state_at(decoder, place))[0] for text in (main, side)]
        state = state_at(decoder, place)
        branch = state.fork()
        untouched = state.fork()
        found_side, _ = decoder.read(side, branch)
        assert same(state, untouched)
        found_main, _ = decoder.read(main, state)
        assert torch.equal(found_main, expected[0]) and torch.equal(found_side, expected[1])
        assert not torch.equal(expected[0], expected[1])

    @each_place
    @each_kind
    def test_an_index_takes_rows_in_order_and_again(self, config: ModelConfig, place: int) -> None:
        decoder = small_decoder(config)
        text, rows = random_tokens(config, 4, 9, seed=1), [1, 0, 1, 1]
        picked = state_at(decoder, place).index(rows)
        assert picked.batch == 4 and picked.tokens_read == place
        found, _ = decoder.read(text, picked)
        for row, source in enumerate(rows):
            alone = state_at(decoder, place).index(torch.tensor([source]))
            assert distance(found[row : row + 1], decoder.read(text[row : row + 1], alone)[0]) <= 1e-12
        both = state_at(decoder, place).index([0, 1])
        assert same(both, state_at(decoder, place))

    def test_an_index_keeps_which_rows_have_the_initial_fam(self) -> None:
        decoder = small_decoder(small_config("fam"))
        state = decoder.start(3)
        decoder.carry(state, decoder.carried(state), torch.tensor([False, True, True]))
        assert state.index([2, 0]).layers[1]["fam_initial"].tolist() == [False, True]

    def test_an_index_is_a_copy(self) -> None:
        decoder = small_decoder(small_config("fam"))
        state = state_at(decoder, 6)
        untouched = state.fork()
        decoder.read(random_tokens(decoder.config, 2, 1), state.index([0, 1]))
        assert same(state, untouched)


class TestSaveAndLoad:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
    @each_place
    @each_kind
    def test_a_loaded_state_goes_on_as_the_saved_one(
        self, config: ModelConfig, place: int, dtype: torch.dtype, tmp_path: Path
    ) -> None:
        decoder, text = small_decoder(config, dtype), random_tokens(config, 2, 9, seed=1)
        state = state_at(decoder, place)
        state.save(tmp_path / "state.safetensors")
        loaded = StreamState.load(tmp_path / "state.safetensors")
        assert same(loaded, state)
        assert loaded.nbytes == state.nbytes
        expected, after = decoder.read(text, state)
        found, loaded_after = decoder.read(text, loaded)
        assert torch.equal(found, expected)
        assert same(loaded_after, after)

    def test_saving_keeps_views_and_single_rows_apart(self, tmp_path: Path) -> None:
        """One row of one head: slices of a buffer are contiguous, and might be written as the whole buffer."""
        config = small_config("fam", heads=1, kv_heads=1, memory_segments=2)
        decoder = small_decoder(config)
        for place in (0, 5, 30):
            state = decoder.start(1)
            if place:
                state = decoder.prefill(random_tokens(config, 1, place), state)
            state.save(tmp_path / "state.safetensors")
            assert same(StreamState.load(tmp_path / "state.safetensors"), state)

    def test_a_state_with_gradient_is_saved_too(self, tmp_path: Path) -> None:
        decoder = small_decoder(small_config("fam"))
        with torch.enable_grad():
            state = state_at(decoder, 14)
            assert state.layers[0]["fam"].requires_grad
            state.save(tmp_path / "state.safetensors")
        assert same(StreamState.load(tmp_path / "state.safetensors"), state)

    @pytest.mark.parametrize(
        "other",
        [
            small_config("bswa", memory_segments=1),
            small_config("bswa", memory_segments=2, block_size=8),
            small_config("bswa", memory_segments=2, sinks=1),
            small_config("fam", memory_segments=2),
            small_config("full"),
        ],
        ids=lambda c: c.memory.describe(c),
    )
    def test_the_state_of_a_model_of_another_shape_is_refused(self, other: ModelConfig, tmp_path: Path) -> None:
        path = tmp_path / "state.safetensors"
        own = small_config("bswa", memory_segments=2)
        state_at(small_decoder(own), 14).save(path)
        assert small_decoder(own).load_state(path)[0].tokens_read == 14
        for decoder in (small_decoder(other), small_decoder(own, torch.bfloat16)):
            with pytest.raises(UserError, match="state of a model of another shape"):
                decoder.load_state(path)
        state_at(small_decoder(other), 14).save(path)
        assert small_decoder(other).load_state(path)[0].tokens_read == 14  # a state that grows, too

    def test_a_failed_save_leaves_the_old_file_and_no_other(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "state.safetensors"
        decoder = small_decoder(small_config("fam"))
        old = state_at(decoder, 3)
        old.save(path)

        def disk_full(_tensors: object, filename: Path, *_rest: object) -> None:
            Path(filename).write_bytes(b"half a fi")
            raise OSError("No space left on device")

        monkeypatch.setattr(safetensors.torch, "save_file", disk_full)
        with pytest.raises(UserError, match="No space left"):
            state_at(decoder, 8).save(path)
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
        assert same(StreamState.load(path), old)

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        check_refused(tmp_path / "nowhere.safetensors")

    def test_a_folder_is_refused(self, tmp_path: Path) -> None:
        check_refused(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\xff" * 64, b"\x02" + b"\0" * 7 + b"{}"])
    def test_what_is_not_a_state_is_refused(self, content: bytes, tmp_path: Path) -> None:
        path = tmp_path / "state.safetensors"
        path.write_bytes(content)
        check_refused(path)

    def test_a_cut_file_is_refused_wherever_it_ends(self, tmp_path: Path) -> None:
        path = tmp_path / "state.safetensors"
        state_at(small_decoder(small_config("fam")), 6).save(path)
        whole = path.read_bytes()
        for length in (4, 8, 100, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            check_refused(path)

    def test_a_file_of_other_tensors_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.safetensors"
        decoder = small_decoder(small_config("fam", tie_embeddings=False))
        safetensors.torch.save_file(decoder.state_dict(), path, {"tokens_read": "3"})
        check_refused(path)

    @pytest.mark.parametrize("lost", ["0.fam", "2.memory_keys", "1."])
    def test_a_state_that_lacks_something_is_refused(self, lost: str, tmp_path: Path) -> None:
        path = tmp_path / "state.safetensors"
        state_at(small_decoder(small_config("fam")), 6).save(path)
        tensors = {name: t for name, t in safetensors.torch.load_file(path).items() if not name.startswith(lost)}
        safetensors.torch.save_file(tensors, path, {"tokens_read": "6"})
        check_refused(path)

    @pytest.mark.parametrize("metadata", [None, {}, {"tokens_read": "many"}], ids=str)
    def test_a_state_that_does_not_know_how_far_it_read_is_refused(
        self, metadata: dict[str, str] | None, tmp_path: Path
    ) -> None:
        path = tmp_path / "state.safetensors"
        state_at(small_decoder(small_config("fam")), 6).save(path)
        safetensors.torch.save_file(safetensors.torch.load_file(path), path, metadata)
        check_refused(path)


def state_at(decoder, place: int) -> StreamState:  # type: ignore[no-untyped-def]
    """Two streams after ``place`` tokens, the same ones at each call."""
    state = decoder.start(2)
    return decoder.prefill(random_tokens(decoder.config, 2, place), state) if place else state


def check_refused(path: Path) -> None:
    with pytest.raises(UserError) as caught:
        StreamState.load(path)
    assert str(path) in caught.value.message


def test_names_are_those_of_the_model_that_carries_them(tmp_path: Path) -> None:
    state = StreamState([{"table": torch.arange(6).view(3, 2)}], tokens_read=5)
    assert state.batch == 3
    state.save(tmp_path / "state.safetensors")
    assert same(StreamState.load(tmp_path / "state.safetensors"), state)
