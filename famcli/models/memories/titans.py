"""Titans: weights that learn the text while it is read, here a matrix (Behrouz et al., arXiv 2501.00663).

Each token is a key and a value, and the memory takes a step of gradient descent, with momentum and decay, on the error
of what it has under the key. Gradients are those at the weights of the block's beginning (section 3.2), so a block is
written at once, in closed form. A token reads what the blocks before its own have written, and nothing of its own.

Where this departs from the paper. The memory is a matrix, the paper's linear case, and not a network of two layers; it
begins at zero. What is read is added, where the paper multiplies two branches (MAG). There are no convolutions, no
persistent tokens, and no norm and gate on what is read. The error is half of its square, and the steps of a block are
scaled so that they never add up to more than 1: keys have length 1, so a block cannot overshoot, however long it is and
however alike its keys are. The third variant, MAC, is left out: as it is published, a token sees what the future of its
own segment has written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from famcli.models.memories.base import Block, Products
from famcli.models.memories.matrices import Matrices

if TYPE_CHECKING:
    from torch import Tensor

    from famcli.models.memories.network import LayerView, Place, Shape, State


@dataclass(frozen=True)
class Titans(Matrices):
    """Matrices with momentum: ``matrix_momentum`` [b, n, k, k] beside ``matrices``. Rates are alpha, eta and theta."""

    name = "titans"
    summary = "Titans with matrices: weights that each block teaches by gradient descent, with momentum and decay"
    rates = 3
    carried: ClassVar[tuple[str, ...]] = ("matrices", "matrix_momentum")

    def state_values(self, config: Shape) -> int:
        return super().state_values(config) + self.inner(config) * config.head_width

    def write_products(self, config: Shape, blocks: int) -> Products:
        """Errors, two weighted gradients, and how much each token counts."""
        a_token = self.matrix_heads * config.block_size + 3 * self.inner(config) * config.head_width
        return Products(attention=a_token) * config.block_size

    def start(self, config: Shape, batch: int, like: Tensor) -> State:
        return {**super().start(config, batch, like), "matrix_momentum": self.empty(config, batch, like)}

    def write(self, block: Block, state: State, layer: LayerView, at: Place) -> State:
        return {**super().write(block, state, layer, at), **self.write_again(block, state, layer, at)}

    def write_again(self, block: Block, state: State, layer: LayerView, at: Place, stride: float = 1) -> State:
        """What the block teaches; a ``stride`` has no meaning here."""
        from famcli.models.memories.table import multiplied

        keys, values, rates = self.told(block)
        moves = _Moves(*rates)
        weights, momentum = state["matrices"], state["matrix_momentum"]
        errors = multiplied(keys, weights) - values
        towards, on = (multiplied(keys.mT, errors * counts[..., None]) for counts in (moves.now, moves.later))
        return {
            "matrices": moves.kept * weights + moves.gone_on * momentum - towards,
            "matrix_momentum": moves.left * momentum - on,
        }


class _Moves:
    """How much of the old weights and momentum a block leaves, and how much each of its tokens counts.

    Per token, S = eta S - theta g and W = (1 - alpha) W + S with gradients g at the first weights are two linear
    recurrences, here unrolled. Of b rows, n heads and t tokens:

    Attributes:
        kept: [b, n, 1, 1] of the old weights in the new ones.
        gone_on: [b, n, 1, 1] of the old momentum in the new weights.
        left: [b, n, 1, 1] of the old momentum in the new one.
        now: [b, n, t] of a token's gradient in the new weights.
        later: [b, n, t] of it in the new momentum.
    """

    def __init__(self, alpha: Tensor, eta: Tensor, theta: Tensor) -> None:
        """Args:
        alpha, eta, theta: [b, n, t] the rates before their sigmoid.
        """
        import torch
        from torch.nn.functional import logsigmoid

        from famcli.models.memories.table import multiplied

        keeps, goes_on = logsigmoid(-alpha).cumsum(-1), logsigmoid(eta).cumsum(-1)
        decayed = (keeps[..., -1:] - keeps).exp()  # from each token to the end
        tokens = alpha.shape[-1]
        earlier = torch.ones(tokens, tokens, dtype=torch.bool, device=alpha.device).tril(-1)
        pushes = (goes_on[..., None, :] - goes_on[..., :, None]).masked_fill(earlier, float("-inf")).exp()
        counts = multiplied(pushes, decayed[..., None])[..., 0]
        step = theta.sigmoid()
        step = step / (step * counts).sum(-1, keepdim=True).clamp(min=1)
        self.kept = keeps[..., -1, None, None].exp()
        self.left = goes_on[..., -1, None, None].exp()
        self.gone_on = (goes_on[..., 0].exp() * counts[..., 0])[..., None, None]
        self.now = step * counts
        self.later = step * (goes_on[..., -1:] - goes_on).exp()
