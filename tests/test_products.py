"""What reading takes by arithmetic is what PyTorch counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from made_memories import HOOKS
from small_models import KINDS, random_tokens, small_config, small_decoder
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from famcli.models import masks, products
from famcli.models.config import ModelConfig
from famcli.models.memories import gated_delta
from famcli.models.products import chunk, decoding_bytes, known, reading, whole_chunks

MORE = {
    "fam-rank": small_config("fam", fam_rank=3, sinks=1, fam_ffn=False, memory_segments=2),
    "fam-rank-ffn": small_config("fam", fam_rank=2, memory_segments=0),
    "gated": small_config("gated_fam", memory_segments=1, fam_length=4),
    **{
        f"infini-{rule}": small_config("infini", infini_rule=rule, memory_segments=m)
        for rule, m in (("linear", 0), ("delta", 2))
    },
    **{f"rmt-n{n}": small_config("rmt", rmt_length=3, rmt_summaries=n, memory_segments=n) for n in (0, 2)},
    **{f"titans-{v}": small_config("titans", matrix_place=v, matrix_heads=h) for v, h in (("mag", 1), ("mal", 2))},
    "titans-network": small_config("titans", titans_depth=3, titans_hidden=2, matrix_heads=2),
    "titans-mac": small_config("titans", matrix_place="mac", memory_segments=1),
    "gated_delta": small_config("gated_delta", matrix_heads=2),
    "gated_delta-within": small_config("gated_delta", delta_reads="within", matrix_heads=2),
    "landmark": small_config("landmark", landmark_blocks=3),
    "persistent": small_config("persistent", persistent_length=3, memory_segments=1),
    "fam-gate": small_config("fam", fam_gate="fixed", fam_rank=2),
    "armt": small_config("armt", armt_length=3, armt_features=4),
    "local": small_config("bswa", local_window=3, global_every=2),
    "untied": small_config("fam", tie_embeddings=False),
}


def counted(config: ModelConfig, tokens: int) -> int:
    """PyTorch's count of operations, of attention written out as products."""
    decoder = small_decoder(config, torch.float32).requires_grad_(False)
    text, (before, _) = random_tokens(config, 1, tokens), whole_chunks(tokens, config.block_size)
    state = decoder.start(1)
    # The counter knows no kernel of processors.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        for piece in text[:, :before].split(config.block_size, dim=1):
            if piece.shape[1]:
                state = decoder.prefill(piece, state)
        if tokens - 1 > before:
            state = decoder.prefill(text[:, before : tokens - 1], state)
        latents, state = decoder.read(text[:, -1:], state)
        decoder.logits(latents[:, -1])
    return int(counter.get_total_flops())


@pytest.mark.parametrize("kind", [*KINDS, *MORE])
def test_reading_takes_what_pytorch_counts(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (masks, products):
        monkeypatch.setattr(module, "QUERY_RUN", 3)
    monkeypatch.setattr(gated_delta, "PIECE", 3)
    config = {**KINDS, **MORE}[kind]
    assert known(config)
    for tokens in (1, 5, 8, 23):
        assert reading(config, tokens).operations == counted(config, tokens), tokens


def test_a_million_tokens_are_counted_at_once() -> None:
    """In proportion, once the memory is full; by block as one by one."""
    config = small_config("fam", sinks=1)
    one, two = (reading(config, n).operations for n in (1 << 20, 1 << 21))
    whole = sum(chunk(config, at, 4, output=False).operations for at in range(1 << 20, 1 << 21, 4))
    assert two - one == whole


@pytest.mark.usefixtures("made_memories")
@pytest.mark.parametrize("name", HOOKS)
def test_a_memory_that_does_work_of_its_own_is_not_known(name: str) -> None:
    """It may multiply what it likes, and does not say so."""
    assert known(small_config(name)) == (name == "bare")


@pytest.mark.parametrize("kind", ["full", "bswa-M1", "fam-M1"])
def test_decoding_meets_each_weight_and_each_key_it_sees(kind: str) -> None:
    config = KINDS[kind]
    decoder = small_decoder(config)
    weights = sum(w.numel() for name, w in decoder.named_parameters() if w.dim() == 2 and "fam_embedding" not in name)
    state = decoder.start(1)
    state = decoder.prefill(random_tokens(config, 1, 22), state)
    seen = {"full": 22, "bswa-M1": 4 + 2, "fam-M1": 4 + 2 + 2}[kind]
    keys = config.layers * 2 * config.kv_heads * config.head_width * seen
    assert decoding_bytes(config, 22, 4) == 4 * (weights + keys)
    assert decoding_bytes(replace(config, weights="int8"), 22, 2) == weights + 2 * keys
