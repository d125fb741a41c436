"""Memories as another package might bring them, one for each hook of the protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from famcli.models import memories
from famcli.models.memories import ENTRY_POINT_GROUP, memory_entry_points
from famcli.models.memories.base import Memory, Part, setting
from famcli.models.memories.window import Window

HOOKS = ("bare", "added", "mixed", "pooled", "extra")
MADE = [EntryPoint(name, f"made_memories:{name.capitalize()}", ENTRY_POINT_GROUP) for name in HOOKS]


def install(monkeypatch: pytest.MonkeyPatch, *entries: EntryPoint) -> None:
    """As if packages with these entry points were installed."""
    found = list(entry_points(group=ENTRY_POINT_GROUP))
    monkeypatch.setattr(memories, "entry_points", lambda group: [*found, *entries])
    memory_entry_points.cache_clear()


@dataclass(frozen=True)
class Bare(Memory):
    """No hook at all."""

    name = "bare"
    summary = "nothing passes from block to block"

    def receptive_field(self, config: Any) -> int | None:
        return config.block_size


@dataclass(frozen=True)
class Added(Memory):
    """``before``: a running mean of the blocks' values is added to what a layer reads."""

    name = "added"
    summary = "a mean of values"
    carried = ("mean",)

    scale: float = setting(1.0, "what the mean is multiplied by")

    def state_values(self, config: Any) -> int:
        return config.kv_heads * config.head_width

    def layer_module(self, config: Any, number: int) -> nn.Module:
        return nn.Linear(config.kv_heads * config.head_width, config.width, bias=False)

    def start(self, config: Any, batch: int, like: Tensor) -> dict[str, Tensor]:
        return {"mean": like.new_zeros(batch, config.kv_heads * config.head_width)}

    def before(self, x: Tensor, state: Any, layer: Any) -> Tensor:
        return x + self.scale * layer.memory(state["mean"])[:, None]

    def write(self, block: Any, state: Any, layer: Any, at: Any) -> dict[str, Tensor]:
        return {"mean": (state["mean"] + block.values.mean(dim=2).flatten(1)) / 2}


@dataclass(frozen=True)
class Mixed(Window):
    """``mix``: beside its window a head reads a table of all keys and values, through a gate of its own."""

    name = "mixed"
    summary = "linear attention to all blocks"
    mixes = True
    carried = ("table", "total")

    scale: float = setting(1.0, "what is read from the table is multiplied by")

    def receptive_field(self, config: Any) -> int | None:
        return None

    def state_values(self, config: Any) -> int:
        return super().state_values(config) + config.kv_heads * (config.head_width + 1) * config.head_width

    def layer_module(self, config: Any, number: int) -> nn.Module:
        return nn.ParameterDict({"gate": nn.Parameter(torch.ones(config.heads))})

    def start(self, config: Any, batch: int, like: Tensor) -> dict[str, Tensor]:
        heads, width = config.kv_heads, config.head_width
        own = {"table": like.new_zeros(batch, heads, width, width), "total": like.new_zeros(batch, heads, width)}
        return {**super().start(config, batch, like), **own}

    def mix(self, attended: Tensor, queries: Tensor, state: Any, layer: Any) -> Tensor:
        group = attended.shape[1] // state["total"].shape[1]
        table, total = (state[name].repeat_interleave(group, dim=1) for name in self.carried)
        queries = F.elu(queries) + 1
        read = queries @ table / (1 + (queries * total[:, :, None]).sum(-1, keepdim=True))
        return attended + self.scale * layer.memory["gate"][:, None, None] * read

    def forgets(self, config: Any, blocks: int) -> bool:
        return False

    def write(self, block: Any, state: Any, layer: Any, at: Any) -> dict[str, Tensor]:
        keys = F.elu(block.keys) + 1
        own = {"table": state["table"] + keys.mT @ block.values, "total": state["total"] + keys.sum(dim=2)}
        return {**super().write(block, state, layer, at), **own}


@dataclass(frozen=True)
class _Latents(Memory):
    """Vectors that every block but the first sees."""

    carried = ("latents",)

    def count(self) -> int:
        raise NotImplementedError

    def state_values(self, config: Any) -> int:
        return self.count() * (config.width + 2 * config.kv_heads * config.head_width)

    def reach(self, config: Any) -> int:
        return self.count()

    def start(self, config: Any, batch: int, like: Tensor) -> dict[str, Tensor]:
        keys, values = (like.new_zeros(batch, config.kv_heads, self.count(), config.head_width) for _ in range(2))
        latents = like.new_zeros(batch, self.count(), config.width)
        return {"latents": latents, "latent_keys": keys, "latent_values": values}

    def parts(self, config: Any, blocks: int) -> tuple[Part, ...]:
        return (Part(self.count()),) if blocks else ()

    def slots(self, state: Any, parts: Sequence[Part]) -> list[tuple[Tensor, Tensor]]:
        return [(state["latent_keys"], state["latent_values"]) for _ in parts]

    def restore(self, state: Any, carried: Any, layer: Any, at: Any) -> dict[str, Tensor]:
        return self.see(carried["latents"], layer, at)

    def see(self, latents: Tensor, layer: Any, at: Any) -> dict[str, Tensor]:
        turn = at.turn(-self.count(), self.count())
        keys, values = layer.attention.keys_values(layer.attention_norm(latents), turn)
        return {"latents": latents, "latent_keys": keys, "latent_values": values}


@dataclass(frozen=True)
class Pooled(_Latents):
    """``needs_inputs``: learned means of what the layer read."""

    name = "pooled"
    summary = "means of the inputs"
    needs_inputs = True

    means: int = setting(2, "how many")

    def count(self) -> int:
        return self.means

    def layer_module(self, config: Any, number: int) -> nn.Module | None:
        return nn.Linear(config.width, self.means, bias=False) if self.means else None

    def write(self, block: Any, state: Any, layer: Any, at: Any) -> dict[str, Tensor]:
        if not self.means:
            return {}
        pooled = layer.memory(block.inputs).softmax(dim=1).mT @ block.inputs
        return self.see(pooled + state["latents"] / 2, layer, at)


@dataclass(frozen=True)
class Extra(_Latents):
    """``extra``: learned vectors are read after each block, and the next block sees what became of them."""

    name = "extra"
    summary = "summaries that are read after a block"

    pairs: int = setting(1, "half as many as there are")
    shown: bool = setting(True, "the next block sees them")

    def count(self) -> int:
        return 2 * self.pairs

    def embeddings(self, config: Any) -> Mapping[str, int]:
        return {"summary_embedding": self.count()}

    def extra(self, config: Any) -> str | None:
        return "summary_embedding"

    def parts(self, config: Any, blocks: int) -> tuple[Part, ...]:
        return super().parts(config, blocks) if self.shown else ()

    def write(self, block: Any, state: Any, layer: Any, at: Any) -> dict[str, Tensor]:
        return self.see(block.extra, layer, at)
