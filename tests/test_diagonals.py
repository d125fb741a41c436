"""Reading along diagonals, layers of several blocks in one step, is reading in the plain order."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import random_tokens, small_config, small_decoder

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
from diagonals import Diagonals, difference

CONFIGS: dict[str, dict[str, Any]] = {
    "bswa-M0": {"memory_segments": 0},
    "bswa-M2-N1": {"memory_segments": 2, "sinks": 1},
    "bswa-biased": {"qkv_bias": True, "qk_norm": "head", "norm_placement": "both"},
    "fam-M1": {"memory_segments": 1},
    "fam-M0-N2": {"memory_segments": 0, "sinks": 2},
    "fam-gemma": {"fam_norm": "rms", "norm_placement": "post", "activation": "gelu"},
}


@pytest.mark.parametrize("blocks", [1, 2, 7])
@pytest.mark.parametrize("name", CONFIGS)
def test_both_orders_give_the_same_latents_and_memory(name: str, blocks: int) -> None:
    """Fewer blocks than there are layers, and more."""
    decoder = small_decoder(small_config(name.split("-")[0], **CONFIGS[name]))
    tokens = random_tokens(decoder.config, 2, blocks * decoder.config.block_size)
    with torch.no_grad():
        assert difference(decoder, tokens) < 1e-12


def test_the_order_is_that_of_diagonals() -> None:
    """Three layers and four blocks take six steps, and each layer of a step is another block's."""
    decoder = small_decoder(small_config("bswa", memory_segments=0))
    steps: list[tuple[int, list[int]]] = []

    class Counted(Diagonals):
        def _step(self, inputs: Any, states: Any, step: int, layers: range, batch: int) -> Any:
            steps.append((step, list(layers)))
            return super()._step(inputs, states, step, layers, batch)

    with torch.no_grad():
        Counted(decoder).read(random_tokens(decoder.config, 1, 16), decoder.start(1))
    assert steps == [(0, [0]), (1, [0, 1]), (2, [0, 1, 2]), (3, [0, 1, 2]), (4, [1, 2]), (5, [2])]


def test_weights_that_no_grouped_product_is_known_for_are_refused() -> None:
    decoder = small_decoder(small_config("infini"))
    with pytest.raises(TypeError, match="ParameterDict"):
        Diagonals(decoder)
