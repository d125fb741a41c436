"""How fast models read and decode on a processor, and which share that is of what the processor gives.

    pip install transformers && python benchmarks/reading.py [--quick | --longest 4096] [--output reading.json]
    python benchmarks/reading.py --dtype bfloat16 --longest 32768 --models "transformers,gated_fam B512 M1 N32 F128"
    python benchmarks/reading.py --dtype bfloat16 --longest 512 \
        --models "transformers,gated_fam B512 M1 N32 F128,gated_fam B512 M1 N32 F128 int8"

One thread, one stream, random weights of the shape of SmolLM2-135M, all models in turns in one process. Seconds are
those of the processor, so that other work beside changes little: medians over the repeats, the least and the most in
brackets.

``read``: tokens/s of a text that is read from its beginning, in blocks as ``famcli eval`` does; transformers, where it
is installed, reads it at once and gives the logits of its last token. ``decode``: tokens/s, one by one with logits,
after a text of that length. ``x bswa``: time over that of the same model without its FAM. The gate of ``gated_fam`` has
random weights here and fills its slots, which costs more than plain text does. ``int8``: the same weights, rounded
(``weights=int8``); it reads in bfloat16 alone.

``of limit``: for ``read``, what the matrix products alone would take at the measured rate of such products, those of
attention for the keys that a token sees among them; for ``decode``, what it takes to multiply one row by every weight,
in 8 bits where the model keeps them so; over the time taken.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from famcli.files import write_text
from famcli.models import int8
from famcli.models.config import ModelConfig
from famcli.models.decoder import Decoder

SHAPE = ModelConfig(
    vocab_size=49152, width=576, layers=30, heads=9, kv_heads=3, head_width=64, ffn_width=1536, attention="full"
)
MODELS: dict[str, dict[str, Any]] = {
    "full": {},
    "bswa B1024 M3": {"attention": "bswa", "memory_segments": 3, "sinks": 1},
    "fam B1024 M3 F64": {"attention": "fam", "memory_segments": 3, "sinks": 1, "fam_length": 64},
    "fam B512 M1 F16": {"attention": "fam", "block_size": 512, "memory_segments": 1, "sinks": 1, "fam_length": 16},
    "bswa B512 M1 N32": {"attention": "bswa", "block_size": 512, "memory_segments": 1, "sinks": 32},
    "gated_fam B512 M1 N32 F128": {
        "attention": "gated_fam",
        "block_size": 512,
        "memory_segments": 1,
        "sinks": 32,
        "fam_length": 128,
    },
}
INT8 = "gated_fam B512 M1 N32 F128 int8"
MODELS[INT8] = {**MODELS["gated_fam B512 M1 N32 F128"], "weights": "int8"}
PAIRS = {"fam B1024 M3 F64": "bswa B1024 M3", "gated_fam B512 M1 N32 F128": "bswa B512 M1 N32"}
"""What a FAM is held against: the same without it."""
DENSE = "transformers"
STEPS = 8
"""Tokens that are decoded for one time."""


def seconds(work: Callable[..., object], *given: object) -> float:
    begun = time.process_time()
    work(*given)
    return time.process_time() - begun


def product_rate(dtype: torch.dtype) -> float:
    """Operations a second in matrix products of the model's shapes."""
    x, w = torch.randn(512, SHAPE.width).to(dtype), torch.randn(SHAPE.ffn_width, SHAPE.width).to(dtype)
    F.linear(x, w)
    return 20 * 2 * x.numel() * len(w) / seconds(lambda: [F.linear(x, w) for _ in range(20)])


def products(config: ModelConfig, length: int) -> float:
    """Operations of the matrix products that reading ``length`` tokens needs; the FAM's updates are part of them, its
    beginning, which is worked out once for a model, is not."""
    heads, kv_heads = config.heads * config.head_width, config.kv_heads * config.head_width
    weights = config.width * (2 * heads + 2 * kv_heads + 3 * config.ffn_width)
    size = length if config.memory.whole else config.block_size
    fam, sinks = getattr(config.memory, "fam_length", 0), getattr(config.memory, "sinks", 0)
    if not config.memory.extra(config):  # what is kept is copied, not computed
        fam = 0
    rows = pairs = 0
    for block in range(-(-length // size)):
        tokens = min(size, length - block * size)
        rows += tokens
        pairs += tokens * sum(part.count for part in config.memory.parts(config, block)) + tokens * (tokens + 1) // 2
        if fam and tokens == size:
            rows += fam
            pairs += fam * (fam + size + sinks)
    return 2.0 * config.layers * (rows * weights + pairs * 2 * heads)


class Ours:
    """A decoder, and where a text has left it."""

    def __init__(self, fields: Mapping[str, Any], weights: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        with torch.device("meta"):
            self.decoder = Decoder(SHAPE.override(fields, "benchmark")).eval()
        state, wanted = dict[str, Tensor](), self.decoder.state_dict().keys()
        for name, weight in self.decoder.named_parameters():
            drawn = weights.get(name, (torch.randn(weight.shape) * 0.02).to(dtype))
            state |= int8.as_kept(name, drawn.float()) if int8.is_rounded(name, wanted) else {name: drawn}
        self.decoder.load_state_dict(state, assign=True)

    def read(self, tokens: Tensor) -> None:
        self.state = self.decoder.start(1)
        for block in tokens.split(self.decoder.chunk_size, dim=1):
            self.state = self.decoder.prefill(block, self.state)

    def decode(self, tokens: Tensor) -> None:
        for token in tokens.split(1, dim=1):
            latents, self.state = self.decoder.read(token, self.state)
            self.decoder.logits(latents[:, -1])


class Dense:
    """The same network in transformers."""

    def __init__(self, dtype: torch.dtype) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=SHAPE.vocab_size,
            hidden_size=SHAPE.width,
            intermediate_size=SHAPE.ffn_width,
            num_hidden_layers=SHAPE.layers,
            num_attention_heads=SHAPE.heads,
            num_key_value_heads=SHAPE.kv_heads,
            max_position_embeddings=1 << 16,
            tie_word_embeddings=True,
        )
        self.model = LlamaForCausalLM(config).to(dtype).eval()

    def read(self, tokens: Tensor) -> None:
        self.cache = None
        self.cache = self.model(tokens, use_cache=True, logits_to_keep=1).past_key_values

    def decode(self, tokens: Tensor) -> None:
        for token in tokens.split(1, dim=1):
            self.model(token, past_key_values=self.cache, use_cache=True)


def every_weight(decoder: Decoder, dtype: torch.dtype) -> None:
    """Multiplies one row by every matrix of the network."""
    for module in decoder.modules():
        if type(module) in (nn.Linear, int8.Int8Linear):  # a memory may have some that read keys
            module(torch.zeros(1, module.in_features, dtype=dtype))
    decoder.logits(torch.zeros(1, SHAPE.width, dtype=dtype))


@torch.inference_mode(False)  # as famcli loads a model: what is made of its weights can be kept
@torch.no_grad()
def contestants(dtype: torch.dtype, wanted: Collection[str]) -> dict[str, Ours | Dense]:
    """Those ``wanted``, of one dtype; ours share their weights."""
    weights: dict[str, Tensor] = {}
    found: dict[str, Ours | Dense] = {}
    try:
        if DENSE in wanted:
            found[DENSE] = Dense(dtype)
    except ImportError:
        print("transformers is not installed and left out")
    for name, fields in MODELS.items():
        if name not in wanted or (name == INT8 and dtype != torch.bfloat16):
            continue
        ours = Ours(fields, weights, dtype)
        weights = weights or dict(ours.decoder.named_parameters())
        found[name] = ours
    return found


def measure(
    dtype: torch.dtype, wanted: Collection[str], read: Mapping[int, int], decode: Mapping[int, int]
) -> list[dict[str, Any]]:
    """All models, in turns.

    Args:
        dtype: of weights and state.
        wanted: names of the models.
        read: repeats by the length of the text that is read.
        decode: repeats by the length of the text before.
    """
    models = contestants(dtype, wanted)
    kinds = {model.decoder.config.weights: model.decoder for model in models.values() if isinstance(model, Ours)}
    found = []

    def add(what: str, length: int, tokens: int, times: Mapping[str, list[float]], limits: Mapping[str, float]) -> None:
        for name, taken in times.items():
            cell = {"dtype": str(dtype).removeprefix("torch."), "what": what, "length": length, "model": name}
            found.append({**cell, "tokens": tokens, "seconds": taken, "limit": limits[name]})

    for length, repeats in read.items():
        text, rates = torch.randint(SHAPE.vocab_size, (1, length)), [product_rate(dtype)]
        times: dict[str, list[float]] = {name: [] for name in models}
        for model in models.values():
            model.read(text[:, :64])
        for _ in range(repeats):
            for name, model in models.items():
                times[name].append(seconds(model.read, text))
            rates.append(product_rate(dtype))
        configs = {name: model.decoder.config if isinstance(model, Ours) else SHAPE for name, model in models.items()}
        limits = {name: products(config, length) / median(rates) for name, config in configs.items()}
        add("read", length, length, times, limits)
    for length, repeats in decode.items():
        text = torch.randint(SHAPE.vocab_size, (1, length))
        for model in models.values():
            model.read(text)
            model.decode(text[:, :1])
        times = {name: [] for name in models}
        once: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(repeats):
            for name, model in models.items():
                times[name].append(seconds(model.decode, text[:, :STEPS]))
            for kind, decoder in kinds.items():
                once[kind].append(seconds(every_weight, decoder, dtype))
        limits = {kind: STEPS * median(taken) for kind, taken in once.items()}
        plain = limits.get("float", next(iter(limits.values())))
        add("decode", length, STEPS, times, {name: limits["int8"] if name == INT8 else plain for name in models})
    return found


def shown(cell: Mapping[str, Any], cells: list[dict[str, Any]]) -> str:
    """A line of the table."""
    same = [other for other in cells if all(other[key] == cell[key] for key in ("dtype", "what", "length"))]
    speeds = sorted(cell["tokens"] / taken for taken in cell["seconds"])
    dense = [median(other["seconds"]) / median(cell["seconds"]) for other in same if other["model"] == DENSE]
    spread = f"{median(speeds):8,.1f} [{speeds[0]:,.1f}, {speeds[-1]:,.1f}]"
    share = cell["limit"] / median(cell["seconds"])
    plain = [other for other in same if other["model"] == PAIRS.get(cell["model"])]
    over = [median(cell["seconds"]) / median(other["seconds"]) for other in plain]
    ratios = [f"{some[0]:.2f}" if some else "-" for some in (dense, over)]
    place = f"{cell['dtype']:9} {cell['what']:7} {cell['length']:>6,}  {cell['model']:31}"
    return f"{place} {spread:30} {share:8.2f} {ratios[0]:>15} {ratios[1]:>7}"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="512 tokens read, and 600 before decoding")
    arguments.add_argument("--longest", type=int, default=16384, help="longest text read; 16384 takes half an hour")
    arguments.add_argument("--dtype", choices=("float32", "bfloat16"), help="one of them alone")
    arguments.add_argument("--output", type=Path, help="JSON file for all times")
    arguments.add_argument("--models", default=",".join([DENSE, *MODELS]), help="some of them, with commas between")
    options = arguments.parse_args()
    wanted = options.models.split(",")
    if unknown := [name for name in wanted if name not in (DENSE, *MODELS)]:
        arguments.error(f"no such model: {unknown[0]}; there are {', '.join([DENSE, *MODELS])}")
    if not set(wanted) & set(MODELS):
        arguments.error("name one of famcli's own models too")
    if set(wanted) & set(MODELS) == {INT8} and options.dtype != "bfloat16":
        arguments.error(f"{INT8} reads in bfloat16 alone: add --dtype bfloat16")
    torch.set_num_threads(1)
    read = {512: 3} if options.quick else {512: 9, 4096: 3, 16384: 1, 32768: 1}
    read = {length: repeats for length, repeats in read.items() if length <= options.longest}
    decode = {600: 3} if options.quick else {600: 7, 4000: 5}
    cells = []
    columns = f"{'tokens/s':30} {'of limit':>8} {'x transformers':>15} {'x bswa':>7}"
    print(f"{'dtype':9} {'what':7} {'length':>6}  {'model':31} {columns}")
    with torch.inference_mode():
        for dtype in [options.dtype] if options.dtype else ["float32", "bfloat16"]:
            found = measure(getattr(torch, dtype), wanted, read, decode)
            cells += found
            print("\n".join(shown(cell, found) for cell in found), flush=True)
    if options.output:
        machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
        write_text(options.output, json.dumps({"machine": machine, "cells": cells}, indent=1) + "\n")


if __name__ == "__main__":
    main()
