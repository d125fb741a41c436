"""Models small enough to read a text in milliseconds, with weights lively enough that every mistake shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from famcli.models.config import ModelConfig
from famcli.models.decoder import Decoder
from famcli.models.state import StreamState


def small_config(attention: str, **fields: Any) -> ModelConfig:
    """Three layers, two groups of two heads, blocks of four tokens, two latents of FAM."""
    shape = {"vocab_size": 40, "width": 12, "layers": 3, "heads": 4, "kv_heads": 2, "head_width": 6, "ffn_width": 20}
    memory = {"full": {}, "bswa": {"memory_segments": 1}, "fam": {"memory_segments": 1, "fam_length": 2}}[attention]
    return ModelConfig.from_mapping({**shape, "block_size": 4, **memory, "attention": attention, **fields}, "test")


KINDS = {
    "full": small_config("full"),
    **{f"bswa-M{m}": small_config("bswa", memory_segments=m) for m in (0, 1, 3)},
    **{f"fam-M{m}": small_config("fam", memory_segments=m) for m in (0, 1, 3)},
}


def segments_of(attention: str, count: int) -> dict[str, int]:
    """The field that gives a memory ``count`` segments; full attention has none."""
    return {} if attention == "full" else {"memory_segments": count}


def small_decoder(config: ModelConfig, dtype: torch.dtype = torch.float64, seed: int = 0) -> Decoder:
    """Random weights that keep variances, so that attention is far from uniform; norms away from one."""
    decoder = Decoder(config).double()
    generator = torch.Generator().manual_seed(seed)
    for name, weight in decoder.state_dict().items():
        if weight.dim() == 1:
            weight.uniform_(0.5, 1.5, generator=generator)
        else:
            weight.normal_(0, 1 if "embedding" in name else weight.shape[1] ** -0.5, generator=generator)
    return decoder.to(dtype)


def double_weights(decoder: Decoder) -> dict[str, Tensor]:
    """The weights as the reference takes them; leaves of their own, so that gradients can be asked for."""
    return {name: weight.detach().double().clone() for name, weight in decoder.state_dict().items()}


def random_tokens(config: ModelConfig, batch: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(config.vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))


def read_in_chunks(
    decoder: Decoder, tokens: Tensor, sizes: Iterable[int], carried: Sequence[Tensor] | None = None
) -> tuple[Tensor, StreamState]:
    """Reads ``tokens`` in chunks of the given sizes, which add up to its length."""
    state = decoder.start(len(tokens), carried)
    latents = []
    for chunk in tokens.split(list(sizes), dim=1):
        chunk_latents, state = decoder.read(chunk, state)
        latents.append(chunk_latents)
    return torch.cat(latents, dim=1), state


def distance(left: Tensor, right: Tensor) -> float:
    """Largest absolute difference of two tensors of one shape."""
    assert left.shape == right.shape
    return (left.double() - right.double()).abs().max().item()
