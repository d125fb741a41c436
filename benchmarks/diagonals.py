"""Whether reading along diagonals is faster: layer l at block s together with layer l-1 at block s+1, and so on.

    python benchmarks/diagonals.py [--shapes smollm2,tiny] [--blocks 16,64,256,1024] [--threads 1,2] [--device cuda]
    python benchmarks/diagonals.py --dtype float64 --blocks 16 --repeats 1

A layer at a block needs the layer below at this block, and its own memory of the blocks before. So the layers of a
diagonal can be one step of grouped products (diagonal batching, Sivtsov et al., arXiv 2506.05229). That holds for
``bswa`` and ``fam``, and for no memory that looks at several layers at once.

Each setting reads one text twice, with the same random weights: in the plain order, as ``Decoder.read`` does it, and
along diagonals, with famcli's own layers whose matrices are stacked. Both must give the same latents and the same
memory, to 1e-5 of their size in float32 and 1e-12 in float64. Then they read in turns. ``ratio``: seconds of the plain
order over those along diagonals, the median over the turns, with the least and the most: of one thread those of the
processor, so that other work beside changes little, otherwise those of the clock. ``fastest``: the same of the fastest
turn of each. ``group``: the most layers in a step, which is all of the stack. A text has twice as many blocks, so a
step has two thirds of the stack on average. On a processor, stacks are shorter for longer blocks, which have work
enough as they are; a GPU gets all layers of the shape.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any, cast

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from famcli.files import write_text
from famcli.models.config import ModelConfig
from famcli.models.decoder import Decoder
from famcli.models.layer import Layer
from famcli.models.state import LayerState, StreamState

SHAPES = {
    "smollm2": {"width": 576, "layers": 30, "heads": 9, "kv_heads": 3, "head_width": 64, "ffn_width": 1536},
    "tiny": {"width": 128, "layers": 4, "heads": 4, "kv_heads": 4, "head_width": 32, "ffn_width": 256},
}
MEMORIES: dict[str, dict[str, Any]] = {
    "bswa": {"attention": "bswa", "memory_segments": 1, "sinks": 1},
    "fam": {"attention": "fam", "memory_segments": 1, "sinks": 1, "fam_length": 16},
}
VOCABULARY = 512
"""Token embeddings are looked up, the same way in both orders."""
MOST_AT_ONCE, LEAST_LAYERS = 1024, 3
"""Tokens in a step, where the stack can be shortened so far."""
MOST_TURNS, ENOUGH_SECONDS = 25, 10.0
"""Turns beyond ``--repeats`` where they are short."""
Order = Callable[[Tensor, StreamState], object]
CLOSE = {torch.float32: 1e-5, torch.float64: 1e-12}


class StackedLinear(nn.Module):
    """Matrices of several layers: inputs [n b, t, in], layer by layer -> [n b, t, out]."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(len(self.weight), -1, x.shape[-1])
        if self.bias is None:
            found = torch.bmm(rows, self.weight.mT)
        else:
            found = torch.baddbmm(self.bias[:, None], rows, self.weight.mT)
        return found.view(*x.shape[:-1], -1)


class StackedNorm(nn.Module):
    """RMS norms of several layers, as ``StackedLinear``."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = weight, eps

    def forward(self, x: Tensor) -> Tensor:
        normed = F.rms_norm(x, x.shape[-1:], None, self.eps)
        return (normed.reshape(len(self.weight), -1, x.shape[-1]) * self.weight[:, None]).view(x.shape)


def stacked(modules: Sequence[nn.Module]) -> nn.Module:
    """Modules of one kind as one, which passes the rows of a batch through one of them after the other."""
    first = modules[0]
    if isinstance(first, nn.Linear):
        biases = [cast(nn.Linear, module).bias for module in modules]
        weight = torch.stack([cast(nn.Linear, module).weight for module in modules])
        return StackedLinear(weight, None if biases[0] is None else torch.stack(biases))
    if isinstance(first, nn.RMSNorm):
        return StackedNorm(torch.stack([cast(nn.RMSNorm, module).weight for module in modules]), first.eps or 0.0)
    if any(True for _ in first.parameters(recurse=False)):
        raise TypeError(f"{type(first).__name__} has weights of its own, which no product along diagonals is known for")
    parts = {name: stacked([module.get_submodule(name) for module in modules]) for name, _ in first.named_children()}
    return _with_parts(first, parts)


def part_of(module: nn.Module, layers: slice) -> nn.Module:
    """Some of the layers that were ``stacked``; nothing is copied."""
    if isinstance(module, StackedLinear):
        return StackedLinear(module.weight[layers], None if module.bias is None else module.bias[layers])
    if isinstance(module, StackedNorm):
        return StackedNorm(module.weight[layers], module.eps)
    return _with_parts(module, {name: part_of(child, layers) for name, child in module.named_children()})


def _with_parts(module: nn.Module, parts: dict[str, nn.Module]) -> nn.Module:
    view = copy.copy(module)
    view.__dict__["_modules"] = {**module._modules, **parts}
    return view


class Diagonals:
    """Reads whole blocks as ``decoder`` does, the layers of a diagonal in one step."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self.count = decoder, decoder.config.layers
        self._all = stacked([decoder.layer(number) for number in range(self.count)])
        self._parts: dict[tuple[int, int], Layer] = {}

    def read(self, tokens: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """As ``Decoder.read`` of a stream that has read nothing: tokens [b, n B] -> latents [b, n B, d], and state."""
        embedded = self.decoder.embedding(tokens).split(self.decoder.config.block_size, dim=1)
        blocks, batch = len(embedded), len(tokens)
        states = {name: torch.cat([layer[name] for layer in state.layers]) for name in state.layers[0]}
        latents, below = list[Tensor](), embedded[0][:0]
        for step in range(blocks + self.count - 1):
            first, last = max(0, step - blocks + 1), min(self.count - 1, step)
            inputs = below if step >= blocks else torch.cat((embedded[step], below))
            found = self._step(inputs, states, step, range(first, last + 1), batch)
            below = found
            if last + 1 == self.count:  # the top layer's is what the text gives
                latents.append(found[-batch:])
                below = found[:-batch]
        per_layer = [{name: t[n * batch : (n + 1) * batch] for name, t in states.items()} for n in range(self.count)]
        return self.decoder.norm(torch.cat(latents, dim=1)), StreamState(per_layer, tokens.shape[1])

    def _step(self, inputs: Tensor, states: LayerState, step: int, layers: range, batch: int) -> Tensor:
        """One diagonal: inputs [n b, B, d] of ``layers`` -> their latents; ``states`` are changed in place."""
        found = []
        for blocks, run in groupby(layers, key=lambda number: self._alike(step - number)):
            alike = list(run)
            rows = slice((alike[0] - layers[0]) * batch, (alike[-1] + 1 - layers[0]) * batch)
            found.append(self._alike_step(inputs[rows], states, blocks, (alike[0], alike[-1] + 1), batch))
        return torch.cat(found) if len(found) > 1 else found[0]

    def _alike_step(self, inputs: Tensor, states: LayerState, blocks: int, span: tuple[int, int], batch: int) -> Tensor:
        """Layers from ``span[0]`` to before ``span[1]``, whose blocks see the same geometry."""
        if span not in self._parts:
            self._parts[span] = cast(Layer, part_of(self._all, slice(*span)))
        rows = slice(span[0] * batch, span[1] * batch)
        own = {name: tensor[rows] for name, tensor in states.items()}
        before = dict(own)
        at = self.decoder.whole_block(span[0], blocks)
        latents = self._parts[span](inputs, own, at, output=True)
        for name, tensor in own.items():
            if tensor is before[name]:
                continue
            if len(tensor) == len(states[name]):
                states[name] = tensor
            else:
                states[name][rows] = tensor
        return cast(Tensor, latents)

    def _alike(self, block: int) -> int:
        """The same for blocks that see equally many keys; a memory is full from one block on."""
        return min(block, getattr(self.decoder.config.memory, "memory_segments", 0) + 1)


def made(shape: dict[str, int], memory: dict[str, Any], block: int, dtype: torch.dtype) -> Decoder:
    """A decoder with random weights that keep the size of what they read."""
    fam = {"fam_length": min(block, memory["fam_length"])} if "fam_length" in memory else {}
    config = ModelConfig.from_mapping({"vocab_size": VOCABULARY, **shape, **memory, **fam, "block_size": block}, "here")
    decoder = Decoder(config).to(dtype).eval().requires_grad_(False)
    decoder.initialise(seed=0)
    return decoder


def difference(decoder: Decoder, tokens: Tensor) -> float:
    """The largest difference between both orders, latents and memory, over the largest value there."""
    state = decoder.start(len(tokens))
    latents, plain = decoder.read(tokens, state.fork())
    other, along = Diagonals(decoder).read(tokens, state)
    pairs = [(latents, other)]
    for one, two in zip(plain.layers, along.layers, strict=True):
        pairs += [(one[name], two[name]) for name in one if not name.startswith("block_")]  # buffers of an open block
    return max(_apart(one.double(), two.double()) for one, two in pairs if one.numel())


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / one.abs().max().clamp(1))


@dataclass(frozen=True)
class Setting:
    """What is measured: a shape with a memory, tokens in a block, threads (0 on a GPU)."""

    shape: str
    memory: str
    block: int
    threads: int


def measured(setting: Setting, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of both orders, in turns."""
    dtype, shape = getattr(torch, options.dtype), dict(SHAPES[setting.shape])
    if options.device == "cpu":
        shape["layers"] = min(shape["layers"], options.layers, max(LEAST_LAYERS, MOST_AT_ONCE // setting.block))
    if setting.threads:
        torch.set_num_threads(setting.threads)
    decoder = made(shape, MEMORIES[setting.memory], setting.block, dtype).to(options.device)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(VOCABULARY, (1, 2 * shape["layers"] * setting.block), generator=generator).to(options.device)
    with torch.no_grad():
        off = difference(decoder, tokens)
        if not off <= CLOSE[dtype]:  # no number is not close
            sys.exit(f"{setting}: the orders differ by {off:.1e}, more than {CLOSE[dtype]:.0e}")
        start, diagonals = decoder.start(1), Diagonals(decoder)
        orders: dict[str, Order] = {"plain": decoder.read, "along": diagonals.read}
        seconds: dict[str, list[float]] = {name: [] for name in orders}
        clock, begun = time.process_time if setting.threads == 1 else time.perf_counter, time.perf_counter()
        turn = 0
        while turn < options.repeats or (turn < MOST_TURNS and time.perf_counter() - begun < ENOUGH_SECONDS):
            for name in sorted(orders, reverse=bool(turn % 2)):
                seconds[name].append(taken(orders[name], tokens, start.fork(), clock))
            turn += 1
    return {
        **vars(setting),
        "layers": shape["layers"],
        "tokens": tokens.shape[1],
        "difference": off,
        "seconds": seconds,
    }


def taken(read: Order, tokens: Tensor, state: StreamState, clock: Callable[[], float]) -> float:
    if tokens.is_cuda:
        torch.cuda.synchronize()
    begun = clock()
    read(tokens, state)
    if tokens.is_cuda:
        torch.cuda.synchronize()
    return clock() - begun


def ratios(found: dict[str, Any]) -> list[float]:
    """Plain over along, turn by turn."""
    return [one / two for one, two in zip(found["seconds"]["plain"], found["seconds"]["along"], strict=True)]


def show(found: dict[str, Any]) -> None:
    every, plain = ratios(found), median(found["seconds"]["plain"])
    spread = f"{median(every):.2f} [{min(every):.2f}, {max(every):.2f}]"
    row = (found["shape"], found["memory"], found["block"], found["threads"] or "-", found["layers"])
    print("{:8} {:6} {:>6} {:>7} {:>6}".format(*row), end=" ")
    fastest = min(found["seconds"]["plain"]) / min(found["seconds"]["along"])
    print(f"{found['tokens'] / plain:10,.0f} {spread:>20} {fastest:8.2f} {found['difference']:7.0e}", flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--shapes", default=",".join(SHAPES))
    arguments.add_argument("--memories", default=",".join(MEMORIES))
    arguments.add_argument("--blocks", default="16,64,256,1024", help="tokens in a block")
    arguments.add_argument("--layers", type=int, default=8, help="most layers of a stack on a processor")
    arguments.add_argument("--threads", default="1,2", help="of the processor")
    arguments.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    arguments.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--output", type=Path, help="JSON file for all times")
    options = arguments.parse_args()
    threads = [0] if options.device == "cuda" else [int(count) for count in options.threads.split(",")]
    print(f"{'shape':8} {'memory':6} {'block':>6} {'threads':>7} {'group':>6} {'tokens/s':>10}", end=" ")
    print(f"{'ratio':>20} {'fastest':>8} {'differ':>7}")
    every = []
    for shape in options.shapes.split(","):
        for memory in options.memories.split(","):
            for block in map(int, options.blocks.split(",")):
                for count in threads:
                    every.append(measured(Setting(shape, memory, block, count), options))
                    show(every[-1])
    if options.output:
        machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
        if options.device == "cuda":
            machine["device"] = torch.cuda.get_device_name()
        told = {"machine": machine, "device": options.device, "dtype": options.dtype, "measured": every}
        write_text(options.output, json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
