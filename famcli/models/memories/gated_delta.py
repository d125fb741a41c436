"""The rule of Gated DeltaNet for a block at a time: what a key leads to is forgotten before it is written (Yang et al.,
arXiv 2412.06464).

Token by token, S = a (1 - b k k') S + b k v'. A block is written at once, as in the paper's section 3.3: what each
token adds is the solution of a triangular system, since it depends on what the tokens before it have added.

Where this departs from the paper. There the layer stands in the place of attention, and a token reads what its own
block has written so far. Here attention has the own block, and a token reads the matrices as the block before left
them: so a block that is not complete writes nothing, and any chunking gives the same. What is read is added. There are
no convolutions, and no norm and gate on what is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from famcli.models.memories.base import Block, Products
from famcli.models.memories.matrices import Matrices

if TYPE_CHECKING:
    from famcli.models.memories.network import LayerView, Place, Shape, State


@dataclass(frozen=True)
class GatedDelta(Matrices):
    """Matrices that are rewritten key by key. Rates are what is forgotten, 1 - a, and b."""

    name = "gated_delta"
    summary = "Gated DeltaNet's rule: matrices in which each token of a block replaces what its key led to"
    rates = 2
    carried: ClassVar[tuple[str, ...]] = ("matrices",)

    def write_products(self, config: Shape, blocks: int) -> Products:
        """What keys lead to, products of all keys, and what is added. The triangular system is no product, and is not
        counted."""
        a_token = self.inner(config) * (2 * config.head_width + config.block_size)
        return Products(attention=a_token) * config.block_size

    def write(self, block: Block, state: State, layer: LayerView, at: Place) -> State:
        return {**super().write(block, state, layer, at), **self.write_again(block, state, layer, at)}

    def write_again(self, block: Block, state: State, layer: LayerView, at: Place, stride: float = 1) -> State:
        """What the block replaces; a ``stride`` has no meaning here."""
        import torch
        from torch.nn.functional import logsigmoid

        from famcli.models.memories.table import multiplied

        keys, values, (forgotten, written) = self.told(block)
        kept, share, before = logsigmoid(-forgotten).cumsum(-1), written.sigmoid()[..., None], state["matrices"]
        later = torch.ones(kept.shape[-1], kept.shape[-1], dtype=torch.bool, device=kept.device).triu()
        since = (kept[..., :, None] - kept[..., None, :]).masked_fill(later, float("-inf")).exp()
        met = share * since * multiplied(keys, keys.mT)  # of what earlier tokens added, when another comes
        wanted = share * (values - kept[..., None].exp() * multiplied(keys, before))
        added = torch.linalg.solve_triangular(met, wanted, upper=False, unitriangular=True)
        left = (kept[..., -1:] - kept).exp()[..., None]
        return {"matrices": kept[..., -1, None, None].exp() * before + multiplied(keys.mT, left * added)}
