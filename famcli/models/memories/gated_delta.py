"""The rule of Gated DeltaNet: what a key leads to is forgotten before it is written (Yang et al., arXiv 2412.06464).

Token by token, S = a (1 - b k k') S + b k v'. Many tokens are written at once, as in the paper's section 3.3: what each
adds is the solution of a triangular system, since it depends on what the tokens before it have added.

``delta_reads=within`` is the paper's form: a token reads what all tokens up to itself have written, those of its own
block too. By default a token reads the matrices as the block before left them, and what its own block says is left to
attention.

Where this departs from the paper. There the layer stands in the place of attention, here beside it, and what is read is
added. There are no convolutions, and no norm and gate on what is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from famcli.errors import UserError
from famcli.models.memories.base import Block, Products, setting
from famcli.models.memories.matrices import Matrices

if TYPE_CHECKING:
    from torch import Tensor

    from famcli.models.memories.network import LayerView, Place, Shape, State

PIECE = 64
"""Tokens that are solved for at once where a token reads its own block: the system grows with their square."""


@dataclass(frozen=True)
class GatedDelta(Matrices):
    """Matrices that are rewritten key by key. Rates are what is forgotten, 1 - a, and b."""

    name = "gated_delta"
    summary = "Gated DeltaNet's rule: matrices in which each token replaces what its key led to"
    rates = 2
    carried: ClassVar[tuple[str, ...]] = ("matrices",)

    delta_reads: Literal["before", "within"] = setting(
        "before",
        "before: a token reads what the blocks before its own have written; within: what all tokens up to itself have "
        "(the paper's)",
    )

    @property
    def within(self) -> bool:
        """Each token writes as it is read, and no block does."""
        return self.delta_reads == "within"

    def check(self, config: Shape) -> None:
        super().check(config)
        if self.within and self.matrix_place != "mag":
            raise UserError(
                f"model field 'delta_reads' is within, and what is read then stands beside attention, not as "
                f"matrix_place={self.matrix_place} has it",
                "drop matrix_place, or drop delta_reads",
            )

    def describe(self, config: Shape) -> str:
        return super().describe(config) + (", within" if self.within else "")

    def noted_width(self, config: Shape) -> int:
        return 0 if self.within else super().noted_width(config)

    def mix_products(self, config: Shape) -> Products:
        return Products() if self.within else super().mix_products(config)

    def write_products(self, config: Shape, blocks: int) -> Products:
        """What keys lead to, products of all keys, and what is added. The triangular system is no product, and is not
        counted."""
        return Products() if self.within else self._written_products(config, config.block_size)

    def _written_products(self, config: Shape, tokens: int) -> Products:
        return Products(attention=self.inner(config) * (2 * config.head_width + tokens)) * tokens

    def along_products(self, config: Shape, tokens: int, output: bool) -> Products:
        """As a block is written, a piece at a time; reading the matrices, and what the piece adds to them."""
        if not self.within:
            return Products()
        inner, total = self.inner(config), Products(config.width * super().noted_width(config)) * tokens
        if output:
            total += Products(2 * config.width * inner, inner * config.head_width) * tokens
        for first in range(0, tokens, PIECE):
            piece = min(PIECE, tokens - first)
            total += self._written_products(config, piece)
            total += Products(attention=2 * inner * piece * piece) if output else Products()
        return total

    def beside(self, attended: Tensor, inputs: Tensor, state: State, layer: LayerView) -> Tensor:
        return attended if self.within else super().beside(attended, inputs, state, layer)

    def noted(self, inputs: Tensor, layer: LayerView) -> Tensor:
        return inputs[..., :0] if self.within else super().noted(inputs, layer)

    def along(self, inputs: Tensor, state: State, layer: LayerView, output: bool) -> tuple[Tensor | None, State]:
        from torch import cat

        if not self.within:
            return None, {}
        matrices, found = state["matrices"], []
        for piece in inputs.split(PIECE, dim=1):
            written = _Written(*self.told(super().noted(piece, layer)), matrices)
            if output:
                found.append(written.read(self.queries(piece, layer)))
            matrices = written.after()
        return self.brought(cat(found, dim=2), inputs, layer) if output else None, {"matrices": matrices}

    def write(self, block: Block, state: State, layer: LayerView, at: Place) -> State:
        return {**super().write(block, state, layer, at), **self.write_again(block, state, layer, at)}

    def write_again(self, block: Block, state: State, layer: LayerView, at: Place, stride: float = 1) -> State:
        """What the block replaces; a ``stride`` has no meaning here."""
        if self.within:
            return {}
        return {"matrices": _Written(*self.told(block.inputs), state["matrices"]).after()}


class _Written:
    """What tokens write one after another, all of them at once.

    After token t the matrices are what is ``kept`` of those before, and k u' of each token up to t, decayed since.
    """

    def __init__(self, keys: Tensor, values: Tensor, rates: tuple[Tensor, ...], before: Tensor) -> None:
        """Args:
        keys, values: [b, n, t, k] of the tokens.
        rates: [b, n, t] what each forgets and how much it writes, before their sigmoid.
        before: [b, n, k, k] the matrices.
        """
        import torch
        from torch.nn.functional import logsigmoid

        from famcli.models.memories.table import multiplied

        forgotten, written = rates
        self.keys, self.before = keys, before
        self.kept, share = logsigmoid(-forgotten).cumsum(-1), written.sigmoid()[..., None]
        later = torch.ones(self.kept.shape[-1], self.kept.shape[-1], dtype=torch.bool, device=keys.device).triu(1)
        self.since = (self.kept[..., :, None] - self.kept[..., None, :]).masked_fill(later, float("-inf")).exp()
        met = (share * self.since * multiplied(keys, keys.mT)).tril(-1)  # of what earlier tokens added, when one comes
        wanted = share * (values - self.kept[..., None].exp() * multiplied(keys, before))
        self.added = torch.linalg.solve_triangular(met, wanted, upper=False, unitriangular=True)

    def after(self) -> Tensor:
        """The matrices when all tokens have written."""
        from famcli.models.memories.table import multiplied

        left = (self.kept[..., -1:] - self.kept).exp()[..., None]
        return self.kept[..., -1, None, None].exp() * self.before + multiplied(self.keys.mT, left * self.added)

    def read(self, queries: Tensor) -> Tensor:
        """What each token's query finds [b, n, t, k] once that token has written."""
        from famcli.models.memories.table import multiplied

        own = multiplied(self.since * multiplied(queries, self.keys.mT), self.added)
        return self.kept[..., None].exp() * multiplied(queries, self.before) + own
