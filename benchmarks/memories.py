"""What each memory costs and how exact it is, beside block sliding window attention: one table.

    python benchmarks/memories.py [--blocks 8] [--repeats 3] [--output memories.json]

One thread, one stream, random weights, those of the memories among them, four layers of the shape of SmolLM2-135M, one
memory segment; all models in turns in one process. Seconds are those of the processor, so that other work beside
changes little: medians over the repeats.

``exact``: largest difference of latents in float64 between a text read at once and in five odd chunkings, on a small
model; latents have a root mean square of about 1. ``state``: bytes of one stream in float32. ``counted``: operations of
a block by famcli's arithmetic, and ``measured`` what PyTorch's own counter finds. ``over bswa``: of those.
``tokens/s x bswa``: reading speed over that of bswa; the memories' work by elements is in it, and in no count.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from famcli.files import write_text
from famcli.models.config import ModelConfig
from famcli.models.decoder import Decoder
from famcli.models.products import chunk

SHAPE: dict[str, Any] = {"vocab_size": 1024, "heads": 9, "kv_heads": 3, "head_width": 64, "ffn_width": 1536}
LARGE = ModelConfig(**SHAPE, width=576, layers=4, attention="bswa", block_size=512)
SMALL = ModelConfig(64, 32, 3, 4, 2, 8, 64, attention="bswa", block_size=16)
MEMORIES: dict[str, dict[str, Any]] = {
    "bswa": {"attention": "bswa"},
    "fam": {"attention": "fam"},
    "gated_fam": {"attention": "gated_fam", "sinks": 0},
    "persistent": {"attention": "persistent"},
    "infini": {"attention": "infini"},
    "infini delta": {"attention": "infini", "infini_rule": "delta"},
    "rmt m 16": {"attention": "rmt"},
    "rmt m 16 n 4": {"attention": "rmt", "rmt_summaries": 4},
    "armt": {"attention": "armt"},
    "gated_delta": {"attention": "gated_delta"},
    "gated_delta within": {"attention": "gated_delta", "delta_reads": "within"},
    "titans mag": {"attention": "titans"},
    "titans mal": {"attention": "titans", "matrix_place": "mal"},
    "landmark K 4": {"attention": "landmark", "landmark_blocks": 4},
    "titans mac": {"attention": "titans", "matrix_place": "mac"},
    "titans network": {"attention": "titans", "titans_depth": 2},
}
CHUNKINGS = ([1] * 200, [15] * 13, [17] * 11, [3, 16, 33, 1, 64, 5, 78], [48] * 4)


def model_of(name: str, shape: ModelConfig) -> Decoder:
    """Random weights that keep variances, those of the memory too: what begins at nothing would show nothing."""
    segments = {} if MEMORIES[name]["attention"] == "landmark" else {"memory_segments": 1}
    fields = {**segments, **MEMORIES[name]}
    if shape is SMALL and MEMORIES[name]["attention"] in ("fam", "gated_fam"):
        fields["fam_length"] = 8
    decoder = Decoder(shape.override(fields, name)).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for weight in decoder.state_dict().values():
        if weight.dim() == 1:
            weight.uniform_(0.5, 1.5, generator=generator)
        else:
            weight.normal_(0, weight.shape[-1] ** -0.5, generator=generator)
    return decoder


def exactness(name: str) -> float:
    """Of latents, in float64."""
    decoder = model_of(name, SMALL).double()
    tokens = torch.randint(SMALL.vocab_size, (2, 200), generator=torch.Generator().manual_seed(1))
    whole = decoder.read(tokens, decoder.start(2))[0]
    worst = 0.0
    for sizes in CHUNKINGS:
        state, place = decoder.start(2), 0
        for size in sizes:
            latents, state = decoder.read(tokens[:, place : place + size], state)
            worst = max(worst, (latents - whole[:, place : place + size]).abs().max().item())
            place += size
    return worst


def measured(decoder: Decoder) -> int:
    """Operations of the sixth block, as PyTorch counts them."""
    size = decoder.config.block_size
    state = decoder.start(1)
    with sdpa_kernel(SDPBackend.MATH):
        for _ in range(5):
            state = decoder.prefill(torch.zeros(1, size, dtype=torch.int64), state)
        with FlopCounterMode(display=False) as counter:
            decoder.read(torch.zeros(1, size, dtype=torch.int64), state)
    return int(counter.get_total_flops())


def seconds(decoder: Decoder, blocks: int) -> float:
    """Of the processor, to read a text of so many blocks after two others."""
    size, generator = decoder.config.block_size, torch.Generator().manual_seed(2)
    tokens = torch.randint(decoder.vocab_size, (1, (blocks + 2) * size), generator=generator)
    state = decoder.read(tokens[:, : 2 * size], decoder.start(1))[1]
    begun = time.process_time()
    for block in tokens[:, 2 * size :].split(size, dim=1):
        state = decoder.read(block, state)[1]
    return time.process_time() - begun


def row(name: str, taken: list[float], blocks: int) -> dict[str, Any]:
    decoder = model_of(name, LARGE)
    size = LARGE.block_size
    return {
        "memory": name,
        "exact": exactness(name),
        "state_bytes": decoder.start(1).nbytes,
        "counted": chunk(decoder.config, 5 * size, size, output=True).operations,
        "measured": measured(decoder),
        "tokens_per_second": blocks * size / median(taken),
    }


def main() -> None:
    summary = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--blocks", type=int, default=8, help="blocks that are read for one time")
    parser.add_argument("--repeats", type=int, default=3, help="times that each model reads, in turns")
    parser.add_argument("--output", type=Path, help="also write the table as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with torch.no_grad():
        models = {name: model_of(name, LARGE) for name in MEMORIES}
        taken: dict[str, list[float]] = {name: [] for name in MEMORIES}
        for _ in range(args.repeats):
            for name, decoder in models.items():
                taken[name].append(seconds(decoder, args.blocks))
        rows = [row(name, taken[name], args.blocks) for name in MEMORIES]
    bswa = rows[0]
    print(
        "| memory | exact | state | counted | measured | over bswa | tokens/s x bswa |\n|---|---|---|---|---|---|---|"
    )
    for one in rows:
        over, speed = (one[key] / bswa[key] for key in ("counted", "tokens_per_second"))
        counts = " | ".join(f"{one[key] / 1e9:.2f} GFLOP" for key in ("counted", "measured"))
        state = f"{one['state_bytes'] / 2**20:.2f} MiB"
        print(f"| {one['memory']} | {one['exact']:.0e} | {state} | {counts} | {over - 1:+.1%} | {speed:.2f} |")
    if args.output:
        write_text(args.output, json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
