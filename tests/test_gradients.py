"""Gradients of the decoder: those of the slow reference, and where they reach and where they stop."""

from __future__ import annotations

import dataclasses

import pytest
import reference
import torch
from small_models import KINDS, distance, double_weights, read_in_chunks, small_config, small_decoder
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from famcli.models.config import ModelConfig

each_kind = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)


class TestGradients:
    """Of a loss on the fifth block; every token occurs once, so a row of the embedding's gradient is a token's own."""

    TOKENS = torch.arange(20)[None]
    SIZES = ([20], [4] * 5, [3] * 6 + [2])

    @pytest.mark.parametrize(
        "config",
        [
            small_config("full"),
            small_config("bswa", memory_segments=1),
            small_config("bswa", memory_segments=3),
            small_config("bswa", memory_segments=3, stop_gradient=True),
            small_config("fam", memory_segments=0),
            small_config("fam", memory_segments=0, fam_norm="rms"),
            small_config("fam", memory_segments=2),
            small_config("fam", memory_segments=1, sinks=2),
            small_config("bswa", memory_segments=1, sinks=2, stop_gradient=True),
            small_config("fam", memory_segments=2, stop_gradient=True),
        ],
        ids=lambda c: "-".join(str(value) for value in dataclasses.asdict(c.memory).values()) or c.attention,
    )
    def test_all_equal_the_gradients_of_the_reference(self, config: ModelConfig) -> None:
        decoder = small_decoder(config)
        weights = {name: weight.requires_grad_() for name, weight in double_weights(decoder).items()}
        expected = gradients(reference.read(config, weights, self.TOKENS).latents, weights)
        for sizes in self.SIZES:
            found = gradients(read_in_chunks(decoder, self.TOKENS, sizes)[0], dict(decoder.named_parameters()))
            for name, gradient in expected.items():
                assert distance(found[name], gradient) <= 1e-9, (sizes, name)

    def test_survive_checkpointing(self) -> None:
        """Reading a chunk a second time, from the state it was first read from, must not find later tokens there."""
        decoder = small_decoder(small_config("fam", memory_segments=2))
        state, latents = decoder.start(1), []
        for chunk in self.TOKENS.split(3, dim=1):
            read, state = checkpoint(decoder.read, chunk, state, use_reentrant=False)
            latents.append(read)
        found = gradients(torch.cat(latents, dim=1), dict(decoder.named_parameters()))
        for name, gradient in self.of_decoder(decoder.config).items():
            assert distance(found[name], gradient) <= 1e-9, name

    def test_reach_the_initial_fam_and_the_first_block_through_the_fam_alone(self) -> None:
        for stop_gradient in (False, True):
            config = small_config("fam", memory_segments=0, stop_gradient=stop_gradient)
            found = self.of_decoder(config)
            assert (found["fam_embedding"].abs().amax(-1) > 1e-6).all()
            assert reached_blocks(found) == [True] * 5

    def test_flow_into_memory_segments(self) -> None:
        assert reached_blocks(self.of_decoder(small_config("bswa", layers=1))) == [False, False, False, True, True]
        assert reached_blocks(self.of_decoder(small_config("bswa", layers=3))) == [False, True, True, True, True]

    @pytest.mark.parametrize("layers", [1, 3])
    def test_stop_at_memory_segments_on_request(self, layers: int) -> None:
        config = small_config("bswa", layers=layers, memory_segments=3, stop_gradient=True)
        assert reached_blocks(self.of_decoder(config)) == [False, False, False, False, True]

    @each_kind
    def test_stop_at_a_detached_state(self, config: ModelConfig) -> None:
        decoder = small_decoder(config)
        _, state = read_in_chunks(decoder, self.TOKENS[:, :14], [14])
        latents, _ = decoder.read(self.TOKENS[:, 14:], state.detach())
        found = gradients(latents, dict(decoder.named_parameters()))
        assert not found["embedding.weight"][:14].any()
        assert found["embedding.weight"][16:20].any(-1).all()

    def of_decoder(self, config: ModelConfig) -> dict[str, Tensor]:
        decoder = small_decoder(config)
        return gradients(read_in_chunks(decoder, self.TOKENS, [20])[0], dict(decoder.named_parameters()))


def gradients(latents: Tensor, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a random projection of the last four latents, with respect to each weight."""
    last = latents[:, -4:]
    probe = torch.randn(last.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = torch.autograd.grad((last * probe).sum(), list(weights.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(weights, found, strict=True))


def reached_blocks(found: dict[str, Tensor]) -> list[bool]:
    """Whether every token of a block got a gradient; asserts that the others got exactly none."""
    reached = found["embedding.weight"][:20].ne(0).any(-1).unflatten(0, (5, 4))
    assert torch.equal(reached.any(-1), reached.all(-1))
    return reached.all(-1).tolist()


def test_attention_that_is_written_out_is_that_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    from famcli.models import attention

    def read(explicit: int) -> list[torch.Tensor]:
        monkeypatch.setattr(attention, "EXPLICIT", explicit)
        model = small_decoder(small_config("fam", memory_segments=1, sinks=2))
        tokens = torch.arange(30).view(2, 15)
        latents, _ = model.read(tokens, model.start(2))
        latents.square().sum().backward()
        return [latents, *(p.grad for p in model.parameters() if p.grad is not None)]

    for kernel, explicit in zip(read(0), read(1 << 16), strict=True):
        assert distance(kernel, explicit) <= 1e-9 * (1 + kernel.abs().max())
