"""Titans: weights that learn the text while it is read (Behrouz et al., arXiv 2501.00663).

Each token is a key and a value, and the memory takes a step of gradient descent, with momentum and decay, on the error
of what it has under the key. Gradients are those at the weights of the block's beginning (section 3.2), so a block is
written at once, in closed form. A token reads what the blocks before its own have written, and nothing of its own.

The memory is a matrix that begins at zero, the paper's linear case, or a network of ``titans_depth`` layers. What a
network holds of the text is added to weights that are learned, the last layer's zeros at first.

Where this departs from the paper. Decay leads back to the learned weights of a network, and not to zero, where two
layers have no gradient and could never learn again. What is read is added, where the paper multiplies two branches
(MAG, and MAC behind attention). There are no convolutions, no persistent tokens, and no norm and gate on what is read.
The error is half of its square, and the steps of a block are scaled so that they never add up to more than 1: keys have
length 1, so a block cannot overshoot a matrix, however long it is and however alike its keys are. A network's steps are
divided by how steep its answer is besides, see ``steepness``.

In MAC, as it is published, a token sees what the future of its own segment has written: attention has no mask over
what is read for the segment, and the output is read from the memory that the whole segment has written. Here a token
sees what is read for itself and for the tokens before it, and all is read from the memory of the blocks before. A
memory in which nothing is written yet is not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from famcli.errors import UserError
from famcli.models.memories.base import Block, Products, setting
from famcli.models.memories.matrices import Matrices

if TYPE_CHECKING:
    from torch import Tensor, nn

    from famcli.models.memories.network import LayerView, Place, Shape, State

DEEPEST = 8
"""Most layers of a head's network; the paper has four at most."""


@dataclass(frozen=True)
class Titans(Matrices):
    """Weights with momentum: ``matrix_momentum`` [b, n, k, w] beside ``matrices``. Rates are alpha, eta and theta."""

    name = "titans"
    summary = "Titans: weights that each block teaches by gradient descent, with momentum and decay"
    rates = 3
    carried: ClassVar[tuple[str, ...]] = ("matrices", "matrix_momentum")

    titans_depth: int = setting(1, "layers of each head's network, SiLU between them; 1: a matrix")
    titans_hidden: int = setting(4, "width of such a network between its layers, in widths of a head")

    def check(self, config: Shape) -> None:
        super().check(config)
        if not 1 <= self.titans_depth <= DEEPEST:
            raise UserError(f"model field 'titans_depth' must be between 1 and {DEEPEST}, not {self.titans_depth}")
        if self.titans_hidden < 1:
            raise UserError(f"model field 'titans_hidden' must be at least 1, not {self.titans_hidden}")
        if self.titans_depth == 1 and self.titans_hidden != 4:
            raise UserError(
                f"model field 'titans_hidden' is {self.titans_hidden}, and with titans_depth=1 the memory is a matrix",
                "add titans_depth=2, or drop titans_hidden",
            )

    def describe(self, config: Shape) -> str:
        network = f", {self.titans_depth} layers x {self.titans_hidden}" if self.titans_depth > 1 else ""
        return super().describe(config) + network

    def shapes(self, width: int) -> list[tuple[int, int]]:
        hidden = [self.titans_hidden * width] * (self.titans_depth - 1)
        return list(pairwise([width, *hidden, width]))

    def state_values(self, config: Shape) -> int:
        return super().state_values(config) + self.weights(config)

    def layer_module(self, config: Shape, number: int) -> nn.Module | None:
        """Besides, what a network begins with: ``start``, of each of its layers [n, rows, columns]."""
        import torch
        from torch import nn

        module = super().layer_module(config, number)
        if isinstance(module, nn.ModuleDict) and self.titans_depth > 1:
            shapes = self.shapes(config.head_width)
            drawn = [torch.randn(self.matrix_heads, *shape) * shape[0] ** -0.5 for shape in shapes]
            module["start"] = nn.ParameterList([*drawn[:-1], torch.zeros_like(drawn[-1])])
        return module

    def write_products(self, config: Shape, blocks: int) -> Products:
        """Errors, brought down to the first layer, two weighted gradients, and how much each token counts."""
        rows, columns = self.shapes(config.head_width)[0]
        a_token = self.matrix_heads * (config.block_size - rows * columns) + 4 * self.weights(config)
        return Products(attention=a_token) * config.block_size

    def start(self, config: Shape, batch: int, like: Tensor) -> State:
        return {**super().start(config, batch, like), "matrix_momentum": self.empty(config, batch, like)}

    def write(self, block: Block, state: State, layer: LayerView, at: Place) -> State:
        return {**super().write(block, state, layer, at), **self.write_again(block, state, layer, at)}

    def write_again(self, block: Block, state: State, layer: LayerView, at: Place, stride: float = 1) -> State:
        """What the block teaches; a ``stride`` has no meaning here."""
        from famcli.models.memories.fast_weights import gradient, lessons, steepness

        keys, values, rates = self.told(block.inputs)
        moves = _Moves(*rates)
        weights, momentum = state["matrices"], state["matrix_momentum"]
        taught = lessons(keys, values, self._network(state, layer))
        now, later = moves.now, moves.later
        if self.titans_depth > 1:
            now, later = (counts / steepness(taught) for counts in (now, later))
        return {
            "matrices": moves.kept * weights + moves.gone_on * momentum - gradient(taught, now, weights),
            "matrix_momentum": moves.left * momentum - gradient(taught, later, weights),
        }

    def answered(self, queries: Tensor, state: State, layer: LayerView) -> Tensor:
        from famcli.models.memories.fast_weights import answers

        return answers(queries, self._network(state, layer))

    def _network(self, state: State, layer: LayerView) -> list[Tensor]:
        """The matrices of each head's network as they are now: [b, n, rows, columns] of every layer."""
        from famcli.models.memories.fast_weights import matrices_of

        matrices = matrices_of(state["matrices"], self.shapes(state["matrices"].shape[2]))
        if self.titans_depth == 1:
            return matrices
        return [learned.to(one) + one for learned, one in zip(layer.memory["start"], matrices, strict=True)]


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
