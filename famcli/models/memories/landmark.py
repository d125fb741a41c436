"""Landmark attention: a token looks for the past blocks that matter to it, and reads those (Mohtashami and Jaggi,
arXiv 2305.16300).

A learned token, the landmark, is read after each block. Its key stands for the block: it joins the softmax of later
tokens, and the share that it gets is handed on to the tokens of its block, by a softmax among them. Each token and head
takes the ``landmark_top`` landmarks with the highest scores and leaves the others alone.

Where this departs from the paper. There all blocks stay, and the state grows; here it is the last ``landmark_blocks``,
and the oldest leaves. There the newest of the blocks that are read keep their place, and the older ones share one; here
all of them stand at the place of the block before. Landmarks are chosen in training too, where the paper takes all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from famcli.errors import UserError
from famcli.models.memories.base import Block, Memory, Products, setting

if TYPE_CHECKING:
    from torch import Tensor

    from famcli.models.memories.network import KeysValues, LayerView, Place, Shape, State

RECENT = 1e-3
"""What a landmark is ahead of the one before it when they are compared. Blocks that begin alike score alike, and in the
first layer all do: without it rounding would choose, and another chunking choose otherwise."""


@dataclass(frozen=True)
class Landmark(Memory):
    """The last K blocks, of which a token reads k in each head.

    State of a layer, oldest block first and filled from the end: ``kept_keys`` and ``kept_values`` [b, g, K, B, k] of
    the blocks' tokens, the keys turned to -B-1 .. -2; ``landmark_keys`` [b, g, K, k], turned to -1, zeros where no
    block is.
    """

    name = "landmark"
    summary = "landmark attention: each token finds those of the last blocks that matter to it, and reads them whole"
    attends = True
    carried: ClassVar[tuple[str, ...]] = ("kept_keys", "kept_values", "landmark_keys")

    landmark_blocks: int = setting(8, "K: past blocks that are kept, the oldest leaves")
    landmark_top: int = setting(2, "k: kept blocks that a token reads in each head, by the scores of landmarks")

    def check(self, config: Shape) -> None:
        for name in ("landmark_blocks", "landmark_top"):
            if getattr(self, name) < 1:
                raise UserError(f"model field '{name}' must be at least 1, not {getattr(self, name)}")
        if self.landmark_top > self.landmark_blocks:
            raise UserError(
                f"model field 'landmark_top' must be at most landmark_blocks ({self.landmark_blocks}), "
                f"not {self.landmark_top}"
            )

    def describe(self, config: Shape) -> str:
        return f"{super().describe(config)}, K {self.landmark_blocks}, k {self.landmark_top}"

    def window(self, config: Shape) -> int | None:
        """The blocks that are read and its own."""
        return (self.landmark_top + 1) * config.block_size

    def receptive_field(self, config: Shape) -> int | None:
        """Through stacked layers, each of which may choose its oldest block."""
        return (config.layers * self.landmark_blocks + 1) * config.block_size

    def state_values(self, config: Shape) -> int:
        a_block = (2 * config.block_size + 1) * config.kv_heads * config.head_width
        return self.landmark_blocks * a_block

    def reach(self, config: Shape) -> int:
        return config.block_size + 1

    def embeddings(self, config: Shape) -> Mapping[str, int]:
        return {"landmark_embedding": 1}

    def extra(self, config: Shape) -> str | None:
        return "landmark_embedding"

    def write_products(self, config: Shape, blocks: int) -> Products:
        """None: keys and values are kept as they are."""
        return Products()

    def mix_products(self, config: Shape) -> Products:
        """Scores of all landmarks, scores and values of all kept tokens: what is not chosen is hidden."""
        return Products(attention=config.heads * config.head_width * self.landmark_blocks * (1 + 2 * config.block_size))

    def start(self, config: Shape, batch: int, like: Tensor) -> State:
        blocks, heads, width = self.landmark_blocks, config.kv_heads, config.head_width
        keys, values = (like.new_zeros(batch, heads, blocks, config.block_size, width) for _ in range(2))
        landmarks = like.new_zeros(batch, heads, blocks, width)
        return {"kept_keys": keys, "kept_values": values, "landmark_keys": landmarks}

    def attend(self, queries: Tensor, own: KeysValues, seen: Tensor | None, state: State, layer: LayerView) -> Tensor:
        """One softmax over the block so far and the landmarks, another within each block that a landmark stands for."""
        from torch import cat

        keys, values = own
        blocks, size = state["kept_keys"].shape[2:4]
        q = layer.attention.scaled(queries).unflatten(1, (keys.shape[1], -1))
        grouped = q.flatten(2, 3)

        def scores(of: Tensor) -> Tensor:
            return (grouped @ of.to(grouped.dtype).mT).unflatten(2, q.shape[2:4])

        near = scores(keys) if seen is None else scores(keys).masked_fill(~seen, float("-inf"))
        filled = state["landmark_keys"].detach().ne(0).any(dim=-1).any(dim=1)
        landmarks = self._chosen(scores(state["landmark_keys"]), filled)
        shares = cat((landmarks, near), dim=-1).softmax(dim=-1)
        within = scores(state["kept_keys"].flatten(2, 3)).unflatten(-1, (blocks, size)).softmax(dim=-1)
        far = (within * shares[..., :blocks, None]).flatten(-2)
        pairs = ((far, state["kept_values"].flatten(2, 3)), (shares[..., blocks:], values))
        found = [share.flatten(2, 3).to(grouped.dtype) @ value.to(grouped.dtype) for share, value in pairs]
        return (found[0] + found[1]).unflatten(2, q.shape[2:4]).flatten(1, 2)

    def _chosen(self, scores: Tensor, filled: Tensor) -> Tensor:
        """``scores`` [b, g, h / g, t, K] of landmarks, minus infinity for all but the highest of those that are
        ``filled`` [b, K]."""
        from torch import arange

        from famcli.models.memories.table import precise

        hidden = scores.masked_fill(~filled[:, None, None, None], float("-inf"))
        ranked = precise(hidden.detach()) + RECENT * arange(hidden.shape[-1], device=hidden.device)
        best = ranked.topk(self.landmark_top, dim=-1).indices
        others = hidden.new_ones(hidden.shape).bool().scatter(-1, best, value=False)
        return hidden.masked_fill(others, float("-inf"))

    def write(self, block: Block, state: State, layer: LayerView, at: Place) -> State:
        """The finished block becomes the newest, the oldest one drops out."""
        from torch import cat

        assert block.extra_keys is not None

        def pushed(name: str, new: Tensor) -> Tensor:
            return cat((state[name][:, :, 1:], new.unsqueeze(2)), dim=2)

        back = -(at.span + 1)
        return {
            "kept_keys": pushed("kept_keys", at.moved(block.keys, back)),
            "kept_values": pushed("kept_values", block.values),
            "landmark_keys": pushed("landmark_keys", at.moved(block.extra_keys, back)[:, :, 0]),
        }
