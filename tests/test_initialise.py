"""Random weights to train from."""

from __future__ import annotations

import pytest
import torch
from small_models import random_tokens, small_config
from torch import Tensor

from famcli.models.decoder import Decoder


class TestInitialise:
    def test_depends_on_the_seed_alone(self) -> None:
        decoders = [Decoder(small_config("fam")) for _ in range(3)]
        for decoder, seed in zip(decoders, (7, 7, 8), strict=True):
            decoder.initialise(seed)
        first, same, other = (decoder.state_dict() for decoder in decoders)
        assert all(torch.equal(first[name], same[name]) for name in first)
        assert all(torch.equal(first[name], other[name]) == (first[name].dim() == 1) for name in first)

    def test_keeps_scales_and_shrinks_what_enters_the_residual_stream_by_depth(self) -> None:
        decoder = Decoder(small_config("fam", width=96, ffn_width=192, vocab_size=200, fam_length=4, layers=8))
        decoder.initialise(0)
        for name, weight in decoder.state_dict().items():
            if "embedding" in name:
                assert weight.std().item() == pytest.approx(0.02, rel=0.2), name
            elif weight.dim() == 2:
                halves = 4 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1
                assert weight.std().item() == pytest.approx(weight.shape[1] ** -0.5 / halves, rel=0.2), name
            else:
                assert (weight == 1).all(), name

    def test_first_heads_look_back_by_position(self) -> None:
        config = small_config("bswa", qkv_bias=True, head_width=32, block_size=40, memory_segments=0)
        decoder = Decoder(config)
        decoder.initialise(0)
        tokens, place = random_tokens(config, 1, 40), 30
        for head in range(config.kv_heads - 1):
            looks = first_layer_attention(decoder, tokens, head * 2, place)
            assert int(looks.argmax()) == place - (head + 1)


def first_layer_attention(decoder: Decoder, tokens: Tensor, head: int, place: int) -> Tensor:
    """Scores of a query over the keys at its place and before, by the definition of RoPE as complex numbers."""
    layer, width = decoder.layers[0], decoder.config.head_width
    x = layer.attention_norm(decoder.embedding(tokens))[0, : place + 1]
    turns = torch.outer(torch.arange(place + 1.0), 10000.0 ** (-torch.arange(0, width, 2) / width))

    def turned(projected: Tensor, part: int) -> Tensor:
        pairs = projected[:, part * width : (part + 1) * width].unflatten(-1, (2, -1))
        return torch.polar(torch.ones_like(turns), turns) * torch.complex(pairs[:, 0], pairs[:, 1])

    queries = turned(layer.attention.q_proj(x), head)
    keys = turned(layer.attention.k_proj(x), head * decoder.config.kv_heads // decoder.config.heads)
    return (keys * queries[place].conj()).real.sum(-1)
