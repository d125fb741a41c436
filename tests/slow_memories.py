"""The independent oracle of the memories beside FAM: float64, a block at a time, at absolute positions.

Written from the papers' formulas and the names of the weights alone. ``SlowMemory`` is a model without any memory; a
class a memory overrides what its paper changes. Formulas that go token by token are loops here.
Shapes: b batch, h heads, g key-value heads, t time, s keys, d width, k head width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from famcli.models.config import ModelConfig


@dataclass
class Read:
    """Of a layer and a block: keys not turned [b, g, t, k], values, and [b, t, d] normed inputs, what attention made of
    them, outputs."""

    keys: Tensor
    values: Tensor
    inputs: Tensor
    attended: Tensor
    outputs: Tensor


class SlowMemory:
    """Tokens see the last M blocks and their own up to themselves; subclasses add what a memory does."""

    def __init__(self, config: ModelConfig, weights: Mapping[str, Tensor]) -> None:
        self.config, self.weights = config, weights
        self.memory: Any = config.memory

    # What a memory overrides.

    def begin(self, batch: int) -> None:
        """Nothing was read."""

    def extra(self, batch: int) -> Tensor | None:
        """[b, m, d] what is read after the last token of a block."""
        return None

    def before(self, layer: int, x: Tensor) -> Tensor:
        return x

    def slots(self, layer: int, start: int) -> tuple[Tensor, Tensor] | None:
        """Keys, turned to their positions, and values that the block from position ``start`` on sees besides."""
        return None

    def echo(self, layer: int, inputs: Tensor) -> Tensor | None:
        """[b, t, d] what stands a second time where each token stands, seen from that token on."""
        return None

    def mixed(self, layer: int, heads: Tensor, queries: Tensor) -> Tensor:
        return heads

    def beside(self, layer: int, attended: Tensor, inputs: Tensor) -> Tensor:
        return attended

    def finish(self, blocks: list[list[Read]]) -> None:
        """A block is over; ``blocks`` has the layers of all blocks so far."""

    # The network.

    def read(self, tokens: Tensor) -> Tensor:
        """[b, n] -> top latents [b, n, d]."""
        self.begin(len(tokens))
        size, latents = self.config.block_size, []
        blocks: list[list[Read]] = []
        for number, block in enumerate(tokens.split(size, dim=1)):
            x, complete = self.weights["embedding.weight"][block], block.shape[1] == size
            if complete and (extra := self.extra(len(tokens))) is not None:
                x = torch.cat((x, extra), dim=1)
            layers: list[Read] = []
            for layer in range(self.config.layers):
                x = self._layer(layer, x, number, [past[layer] for past in blocks])
                layers.append(self._last)
            latents.append(x[:, : block.shape[1]])
            blocks.append(layers)
            if complete:
                self.finish(blocks)
        return self.normed(torch.cat(latents, dim=1), "norm.weight")

    def _layer(self, layer: int, x: Tensor, number: int, past: list[Read]) -> Tensor:
        size, segments = self.config.block_size, getattr(self.memory, "memory_segments", 0)
        x = self.before(layer, x)
        inputs = self.normed(x, f"layers.{layer}.attention_norm.weight")
        queries, keys, values = self.projected(layer, inputs)
        start, count = number * size, x.shape[1]
        place = start + torch.arange(count)
        seen_keys, seen_values, shown = [], [], []
        for back, block in enumerate(past[max(0, number - segments) :], start=max(0, number - segments)):
            seen_keys.append(self.turned(block.keys[:, :, :size], back * size + torch.arange(size)))
            seen_values.append(block.values[:, :, :size])
            shown.append(torch.ones(count, size, dtype=torch.bool))
        if (slots := self.slots(layer, start)) is not None:
            seen_keys.append(slots[0])
            seen_values.append(slots[1])
            shown.append(torch.ones(count, slots[0].shape[2], dtype=torch.bool))
        seen_keys.append(self.turned(keys, place))
        seen_values.append(values)
        shown.append(torch.ones(count, count, dtype=torch.bool).tril())
        if (echo := self.echo(layer, inputs)) is not None:
            _, second, value = self.projected(layer, echo)
            seen_keys.append(self.turned(second, place))
            seen_values.append(value)
            shown.append(torch.ones(count, count, dtype=torch.bool).tril())
        heads = self.softmax(self.turned(queries, place), seen_keys, seen_values, torch.cat(shown, dim=1))
        heads = self.mixed(layer, heads, queries)
        attended = self.joined(layer, heads)
        out = self.finished(layer, x, self.beside(layer, attended, inputs))
        self._last = Read(keys, values, inputs, attended, out)
        return out

    def alone(self, layer: int, x: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        """Latents that see one another and nothing else, from position ``start`` on: keys, values, outputs."""
        inputs = self.normed(x, f"layers.{layer}.attention_norm.weight")
        queries, keys, values = self.projected(layer, inputs)
        place = start + torch.arange(x.shape[1])
        keys = self.turned(keys, place)
        everything = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool)
        heads = self.softmax(self.turned(queries, place), [keys], [values], everything)
        return keys, values, self.finished(layer, x, self.joined(layer, heads))

    def projected(self, layer: int, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, not turned."""
        counts = {"q_proj": self.config.heads, "k_proj": self.config.kv_heads, "v_proj": self.config.kv_heads}
        found = []
        for name, heads in counts.items():
            projected = inputs @ self.weights[f"layers.{layer}.attention.{name}.weight"].T
            found.append(projected.unflatten(-1, (heads, self.config.head_width)).transpose(1, 2))
        return found[0], found[1], found[2]

    def softmax(self, queries: Tensor, keys: list[Tensor], values: list[Tensor], shown: Tensor) -> Tensor:
        group = self.config.heads // self.config.kv_heads
        alike = [[x.expand(len(queries), -1, -1, -1) for x in parts] for parts in (keys, values)]
        key, value = (torch.cat(parts, dim=2).repeat_interleave(group, dim=1) for parts in alike)
        scores = torch.einsum("bhtk,bhsk->bhts", queries, key) / self.config.head_width**0.5
        scores = scores.masked_fill(~shown, float("-inf"))
        shares = (scores - scores.amax(-1, keepdim=True)).exp()
        return torch.einsum("bhts,bhsk->bhtk", shares / shares.sum(-1, keepdim=True), value)

    def joined(self, layer: int, heads: Tensor) -> Tensor:
        return heads.transpose(1, 2).flatten(2) @ self.weights[f"layers.{layer}.attention.o_proj.weight"].T

    def finished(self, layer: int, x: Tensor, attended: Tensor) -> Tensor:
        x = x + attended
        inputs = self.normed(x, f"layers.{layer}.ffn_norm.weight")
        gate, up, down = (self.weights[f"layers.{layer}.ffn.{name}_proj.weight"] for name in ("gate", "up", "down"))
        gated = inputs @ gate.T
        return x + (gated / (1 + (-gated).exp()) * (inputs @ up.T)) @ down.T

    def normed(self, x: Tensor, name: str) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + self.config.norm_eps).sqrt() * self.weights[name]

    def turned(self, x: Tensor, positions: Tensor) -> Tensor:
        """RoPE [b, h, t, k]: coordinates (i, i + k / 2) turn by position x theta^(-2 i / k)."""
        half = x.shape[-1] // 2
        frequencies = self.config.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = positions[:, None].double() * frequencies
        left, right = x[..., :half], x[..., half:]
        turned = (left * angles.cos() - right * angles.sin(), right * angles.cos() + left * angles.sin())
        return torch.cat(turned, dim=-1)

    def own(self, layer: int, name: str) -> Tensor:
        """A weight of the memory in a layer."""
        return self.weights[f"layers.{layer}.memory.{name}"]


class SlowInfini(SlowMemory):
    """arXiv 2404.07143, equations 6 to 10: M and z apart, a query or a key at a time."""

    def begin(self, batch: int) -> None:
        width, places = self.config.head_width, (range(self.config.layers), range(batch), range(self.config.kv_heads))
        self.M = {place: torch.zeros(width, width).double() for place in product(*places)}
        self.z = {place: torch.zeros(width).double() for place in product(*places)}

    def mixed(self, layer: int, heads: Tensor, queries: Tensor) -> Tensor:
        gate, group = self.own(layer, "gate"), self.config.heads // self.config.kv_heads
        found = torch.stack(
            [
                torch.stack(
                    [
                        torch.stack([self._found(query, (layer, row, head // group)) for query in queries[row, head]])
                        for head in range(self.config.heads)
                    ]
                )
                for row in range(len(heads))
            ]
        )
        if self.memory.infini_gate == "tanh":
            return heads + gate.tanh()[:, None, None] * found
        share = (1 / (1 + (-gate).exp()))[:, None, None]
        return share * found + (1 - share) * heads

    def finish(self, blocks: list[list[Read]]) -> None:
        if len(blocks) <= self.memory.memory_segments:
            return
        for layer, read in enumerate(blocks[-1 - self.memory.memory_segments]):
            for row, head in product(range(len(read.keys)), range(self.config.kv_heads)):
                place = (layer, row, head)
                M, z = self.M[place], self.z[place]
                for key, value in zip(read.keys[row, head], read.values[row, head], strict=True):
                    if self.memory.infini_rule == "delta":
                        value = value - self._found(key, place)
                    M, z = M + torch.outer(self._sigma(key), value), z + self._sigma(key)
                self.M[place], self.z[place] = M, z

    def _found(self, x: Tensor, place: tuple[int, int, int]) -> Tensor:
        M, z = self.M[place], self.z[place]
        return (self._sigma(x) @ M) / (self._sigma(x) @ z) if z.any() else torch.zeros_like(x)

    def _sigma(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x + 1, x.clamp(max=0).exp())


class SlowPersistent(SlowMemory):
    """arXiv 1907.01470, 4.1: learned vectors join the softmax, here before the block."""

    def slots(self, layer: int, start: int) -> tuple[Tensor, Tensor]:
        place = start + torch.arange(-self.memory.persistent_length, 0)
        return self.turned(self.own(layer, "slot_keys")[None], place), self.own(layer, "slot_values")[None]


class SlowRmt(SlowMemory):
    """arXiv 2207.06881, 3: [memory; tokens; memory], and 2305.14788, 3.1, with a cap, where there are summaries."""

    def begin(self, batch: int) -> None:
        learned = self.weights["rmt_embedding"].expand(batch, -1, -1)
        self.shown = learned[:, :0] if self.memory.rmt_summaries else learned

    def extra(self, batch: int) -> Tensor:
        return self.weights["rmt_embedding"].expand(batch, -1, -1) if self.memory.rmt_summaries else self.shown

    def slots(self, layer: int, start: int) -> tuple[Tensor, Tensor] | None:
        if not self.shown.shape[1]:
            return None
        x, first = self.shown, start - self.memory.memory_segments * self.config.block_size - self.shown.shape[1]
        for below in range(layer):
            x = self.alone(below, x, first)[2]
        return self.alone(layer, x, first)[:2]

    def finish(self, blocks: list[list[Read]]) -> None:
        new = self.normed(blocks[-1][-1].outputs[:, self.config.block_size :], "norm.weight")
        kept = self.memory.rmt_length * (self.memory.rmt_summaries or 1)
        self.shown = torch.cat((self.shown, new), dim=1)[:, -kept:]


class SlowLandmark(SlowMemory):
    """arXiv 2305.16300, 3.1: a query at a time. Blocks that are read stand where the block before does."""

    def begin(self, batch: int) -> None:
        self.kept: list[list[Read]] = []

    def extra(self, batch: int) -> Tensor:
        return self.weights["landmark_embedding"].expand(batch, -1, -1)

    def before(self, layer: int, x: Tensor) -> Tensor:
        self.layer = layer
        return x

    def slots(self, layer: int, start: int) -> None:
        self.start = start

    def finish(self, blocks: list[list[Read]]) -> None:
        self.kept = blocks[-self.memory.landmark_blocks :]

    def softmax(self, queries: Tensor, keys: list[Tensor], values: list[Tensor], shown: Tensor) -> Tensor:
        group, size = self.config.heads // self.config.kv_heads, self.config.block_size
        place = self.start - size - 1 + torch.arange(size + 1)
        past = [(self.turned(read[self.layer].keys, place), read[self.layer].values) for read in self.kept]
        out = torch.zeros_like(queries)
        for row, head, t in product(*map(range, queries.shape[:3])):
            at = (row, head // group)
            q = queries[row, head, t] / self.config.head_width**0.5
            scores = [q @ k[at][size] for k, _ in past]
            best = sorted(range(len(past)), key=lambda i: -scores[i].item() - i / 1000)[: self.memory.landmark_top]
            ours = shown[t].nonzero()[:, 0]
            weights = [one.exp() for one in (*(scores[i] for i in best), *(q @ keys[0][at][j] for j in ours))]
            found = [self._within(q, past[i][0][at][:size], past[i][1][at][:size]) for i in best]
            found += [values[0][at][j] for j in ours]
            out[row, head, t] = sum(w * v for w, v in zip(weights, found, strict=True)) / sum(weights)
        return out

    def _within(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        weights = (keys @ q).exp()
        return weights @ values / weights.sum()


class SlowArmt(SlowMemory):
    """arXiv 2407.04841, equations 1 to 4, with what the authors' code adds: A and z apart, a memory token at a time."""

    def begin(self, batch: int) -> None:
        places = list(product(range(self.config.layers), range(batch)))
        features = 6 * self.memory.armt_features
        self.A = {place: torch.zeros(self.config.width, features).double() for place in places}
        self.z = {place: torch.zeros(features).double() for place in places}

    def extra(self, batch: int) -> Tensor:
        return self.weights["armt_embedding"].expand(batch, -1, -1)

    def before(self, layer: int, x: Tensor) -> Tensor:
        return torch.stack(
            [torch.stack([token + self._read(layer, row, "query", token) for token in x[row]]) for row in range(len(x))]
        )

    def finish(self, blocks: list[list[Read]]) -> None:
        after = {}
        for layer, read in enumerate(blocks[-1]):
            for row in range(len(read.outputs)):
                A, z = self.A[layer, row], self.z[layer, row]
                for token in read.outputs[row, self.config.block_size :]:
                    phi = self._phi(self.own(layer, "key.weight") @ token)
                    beta = 1 / (1 + (-(self.own(layer, "rate.weight") @ token + self.own(layer, "rate.bias"))).exp())
                    gamma = 1 - self.z[layer, row] @ phi / (phi @ phi + 1e-5)
                    gamma = min(max(gamma.item(), 0.0), 1.0)
                    value = self.own(layer, "value.weight") @ token
                    A = A + torch.outer(beta * (value - self._read(layer, row, "key", token)), phi)
                    z = z + gamma * phi
                after[layer, row] = (A, z)
        for place, (A, z) in after.items():
            self.A[place], self.z[place] = A, z

    def _read(self, layer: int, row: int, projection: str, token: Tensor) -> Tensor:
        phi = self._phi(self.own(layer, f"{projection}.weight") @ token)
        return self.A[layer, row] @ phi / (self.z[layer, row] @ phi + 1e-5)

    def _phi(self, x: Tensor) -> Tensor:
        both = [max_0(value) for value in (*x, *-x)]
        pairs = [both[i] * both[(i - roll) % len(both)] for roll in (1, 2, 3) for i in range(len(both))]
        return torch.stack(pairs)


def max_0(x: Tensor) -> Tensor:
    return x if x > 0 else x * 0
