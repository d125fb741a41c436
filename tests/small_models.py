"""Models small enough to read a text in milliseconds, with weights lively enough that every mistake shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from famcli.models.config import ModelConfig
from famcli.models.decoder import Decoder
from famcli.models.state import StreamState


def small_config(attention: str, **fields: Any) -> ModelConfig:
    """Three layers, two groups of two heads, blocks of four tokens, two latents of FAM."""
    shape = {"vocab_size": 40, "width": 12, "layers": 3, "heads": 4, "kv_heads": 2, "head_width": 6, "ffn_width": 20}
    memory = {"bswa": {"memory_segments": 1}, "fam": {"memory_segments": 1, "fam_length": 2}}.get(attention, {})
    return ModelConfig.from_mapping({**shape, "block_size": 4, **memory, "attention": attention, **fields}, "test")


KINDS = {
    "full": small_config("full"),
    **{f"bswa-M{m}": small_config("bswa", memory_segments=m) for m in (0, 1, 3)},
    **{f"fam-M{m}": small_config("fam", memory_segments=m) for m in (0, 1, 3)},
    "bswa-M1-N3": small_config("bswa", memory_segments=1, sinks=3),
    **{f"fam-M{m}-N{n}": small_config("fam", memory_segments=m, sinks=n) for m, n in ((0, 4), (2, 1))},
}


def segments_of(attention: str, count: int) -> dict[str, int]:
    """The field that gives a memory ``count`` segments; full attention and landmarks have none."""
    return {} if attention in ("full", "landmark") else {"memory_segments": count}


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


def mark_fam(weights: Mapping[str, Tensor], hidden: bool) -> None:
    """Lets weights tell the FAM from tokens and, where it is to be ``hidden``, mask it.

    Coordinate 0 is positive in every token, coordinate 1 in the FAM alone, and no layer writes to either; the slowest
    pair of each head multiplies the two: a score of -10^6 or so, whose softmax weight is exactly zero. A FAM that is
    given keeps its mark, see ``marked``, through the residual, where the learned initial one would lose it in the
    first update.
    """
    weights["embedding.weight"][:, :2] = torch.tensor([1.0, 0.0])
    slowest = slice(2, None, 6)  # with three pairs a head: coordinate 2 of 6, and its partner 5
    for name, weight in weights.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight[:2] = 0
        for projection, mark, strength in (("q_proj", 0, 1e6), ("k_proj", 1, -1.0 if hidden else 0.0)):
            if name.endswith(f"{projection}.weight"):
                weight[2::6], weight[5::6] = 0, 0
                weight[slowest, mark] = strength


def marked_fam(layers: int = 3, batch: int = 2) -> list[Tensor]:
    """A FAM of two latents for every layer that ``mark_fam`` can hide."""
    generator = torch.Generator().manual_seed(1)
    fam = list(torch.randn(layers, batch, 2, 12, generator=generator, dtype=torch.float64))
    for latents in fam:
        latents[..., :2] = torch.tensor([0.0, 1.0])
    return fam


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
