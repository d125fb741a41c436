"""Sinks against transformers: a Llama that reads the whole text at once, with one explicit mask.

No cache there, and nothing that knows of sinks: where a block no longer sees the beginning of the text, the first
tokens stand in the text once more, just before the oldest key that the block sees.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hub_models import save_hub_model
from small_models import distance, random_tokens, read_in_chunks
from torch import Tensor
from transformers.models.llama import modeling_llama

from famcli.checkpoints.decoders import load_decoder
from famcli.checkpoints.opening import open_checkpoint
from famcli.models.decoder import Decoder

HEAD_WIDTH, THETA = 8, 10000.0


class _Doubled:
    """``torch`` for the file of transformers' Llama: what it computes in float32, whatever the weights, is float64."""

    float = float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@pytest.fixture
def llama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A Llama in float64 to the last digit; famcli's copy is in ``tmp_path``."""
    model = save_hub_model(tmp_path, rope_parameters={"rope_type": "default", "rope_theta": THETA}).double()
    model.set_attn_implementation("eager")
    monkeypatch.setattr(modeling_llama, "torch", _Doubled())
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    steps = torch.arange(0, HEAD_WIDTH, 2, dtype=torch.float64)
    model.model.rotary_emb.inv_freq = THETA ** (-steps / HEAD_WIDTH)
    return model


def with_copies(length: int, size: int, segments: int, sinks: int) -> tuple[Tensor, Tensor, Tensor]:
    """The text with its copies of the first tokens: place in the text and position of each, and who sees whom."""
    places, positions, blocks, copies = [], [], [], []
    for block in range(-(-length // size)):
        if block > segments:
            oldest = (block - segments) * size
            places += range(sinks)
            positions += range(oldest - sinks, oldest)
            blocks += [block] * sinks
            copies += [True] * sinks
        own = range(block * size, min(length, (block + 1) * size))
        places += own
        positions += own
        blocks += [block] * len(own)
        copies += [False] * len(own)
    place, of_block, copy = torch.tensor(places), torch.tensor(blocks), torch.tensor(copies)
    past = of_block[:, None] - of_block[None, :]
    among_copies = copy[:, None] & copy & (past == 0) & (place[:, None] >= place)
    of_copies = ~copy[:, None] & copy & (past == 0)
    of_tokens = ~copy[:, None] & ~copy & (past <= segments) & (place[:, None] >= place)
    return torch.stack([place, torch.tensor(positions)]), ~copy, among_copies | of_copies | of_tokens


def expected_logits(llama: Any, tokens: Tensor, size: int, segments: int, sinks: int) -> Tensor:
    (place, position), real, sees = with_copies(tokens.shape[1], size, segments, sinks)
    mask = torch.zeros(sees.shape, dtype=torch.float64).masked_fill(~sees, float("-inf"))
    positions = position.expand(len(tokens), -1)
    with torch.no_grad():
        found = llama(
            tokens[:, place],
            attention_mask=mask.expand(len(tokens), 1, -1, -1),
            position_ids=positions,
            use_cache=False,
        )
    return found.logits[:, real]


def load(directory: Path, **memory: Any) -> Decoder:
    checkpoint = open_checkpoint(directory)
    config = checkpoint.config.override({"attention": "bswa", **memory}, "test")
    return load_decoder(checkpoint, config, torch.device("cpu"), torch.float64)


def logits(decoder: Decoder, tokens: Tensor, sizes: list[int]) -> Tensor:
    with torch.no_grad():
        return decoder.logits(read_in_chunks(decoder, tokens, sizes)[0])


@pytest.mark.parametrize(
    ("size", "segments", "sinks"),
    [(4, 0, 1), (4, 0, 4), (4, 1, 2), (5, 2, 1), (3, 1, 3), (8, 2, 4), (6, 3, 5), (1, 3, 1), (1, 0, 1), (4, 2, 0)],
)
def test_logits_are_those_of_a_text_whose_first_tokens_come_again(
    tmp_path: Path, llama: Any, size: int, segments: int, sinks: int
) -> None:
    decoder = load(tmp_path, block_size=size, memory_segments=segments, sinks=sinks)
    length = 7 * size + size // 2
    tokens = random_tokens(decoder.config, 2, length)
    expected = expected_logits(llama, tokens, size, segments, sinks)
    assert expected.std() > 0.2
    for sizes in ([length], [1] * length, [size] * 7 + [size // 2] * (size > 1), [length // 3, length - length // 3]):
        assert distance(logits(decoder, tokens, sizes), expected) < 1e-9


def test_sinks_change_what_comes_after_the_window_and_nothing_else(tmp_path: Path, llama: Any) -> None:
    """Where the window still begins with them they are seen once, not twice."""
    tokens = random_tokens(load(tmp_path).config, 2, 30)
    memory = {"block_size": 4, "memory_segments": 2}
    without, with_sinks = (logits(load(tmp_path, **memory, sinks=n), tokens, [30]) for n in (0, 2))
    assert torch.equal(without[:, :12], with_sinks[:, :12])
    assert ((without - with_sinks)[:, 12:].abs().amax(dim=(0, 2)) > 1e-3).all()


def test_sinks_stand_just_before_the_window(tmp_path: Path, llama: Any) -> None:
    """The check can tell: at the positions that they had in the text they would give something else."""
    tokens = random_tokens(load(tmp_path).config, 1, 30)
    (place, _), real, sees = with_copies(30, 4, 1, 2)
    mask = torch.zeros(sees.shape, dtype=torch.float64).masked_fill(~sees, float("-inf"))
    with torch.no_grad():
        elsewhere = llama(tokens[:, place], attention_mask=mask[None, None], position_ids=place[None], use_cache=False)
    expected = expected_logits(llama, tokens, 4, 1, 2)
    assert distance(elsewhere.logits[:, real], expected) > 1e-3


def test_the_first_tokens_alone_are_remembered(tmp_path: Path, llama: Any) -> None:
    """However far back: of the tokens before the window the sinks alone count for a model of one block a layer."""
    decoder = load(tmp_path, block_size=4, memory_segments=0, sinks=2)
    tokens = random_tokens(decoder.config, 1, 30)
    before = logits(decoder, tokens, [30])
    for place in range(8):
        changed = tokens.clone()
        changed[0, place] = (changed[0, place] + 1) % 50
        after = logits(decoder, changed, [30])
        assert (distance(after[:, -2:], before[:, -2:]) > 1e-6) == (place < 2), place
