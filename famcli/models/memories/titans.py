"""Titans: weights that learn the text while it is read, here a matrix (Behrouz et al., arXiv 2501.00663).

Each token is a key and a value, and the memory takes a step of gradient descent, with momentum and decay, on the error
of what it has under the key. Gradients are those at the weights of the block's beginning (section 3.2), so a block is
written at once, in closed form. A token reads what the blocks before its own have written, and nothing of its own.

Where this departs from the paper. The memory is a matrix, the paper's linear case, and not a network of two layers; it
begins at zero. What is read is added, through a projection that begins at zero, where the paper multiplies two branches
(MAG), so that a pretrained model reads as before. There are no convolutions, no persistent tokens, and no norm and gate
on what is read. The error is half of its square, and the steps of a block are scaled so that they never add up to more
than 1: keys have length 1, so a block cannot overshoot, however long it is and however alike its keys are. The third
variant, MAC, is left out: as it is published, a token sees what the future of its own segment has written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from famcli.errors import UserError
from famcli.models.memories.base import Block, Products, setting
from famcli.models.memories.window import Window

if TYPE_CHECKING:
    from torch import Tensor, nn

    from famcli.models.memories.network import LayerView, Place, Shape, State


@dataclass(frozen=True)
class Titans(Window):
    """A matrix a head of the memory's own, with its momentum.

    State of a layer besides that of ``Window``, in float32 at least: ``titans_weights`` and ``titans_momentum``
    [b, n, k, k].
    """

    name = "titans"
    summary = "Titans with matrices: weights that each block teaches by gradient descent, with momentum and decay"
    needs_inputs = True
    carried: ClassVar[tuple[str, ...]] = ("titans_weights", "titans_momentum")

    memory_segments: int = setting(0, "M: past blocks whose keys and values stay visible, all of them")
    titans_heads: int = setting(1, "n: matrices in a layer, each as wide as a head of attention")
    titans_variant: Literal["mag", "mal"] = setting(
        "mag", "mag: the memory stands beside attention; mal: before it, and attention sees what was read"
    )

    def check(self, config: Shape) -> None:
        super().check(config)
        if self.titans_heads < 1:
            raise UserError(f"model field 'titans_heads' must be at least 1, not {self.titans_heads}")

    def describe(self, config: Shape) -> str:
        return f"{super().describe(config)}, {self.titans_variant}, n {self.titans_heads}"

    def state_values(self, config: Shape) -> int:
        return super().state_values(config) + 2 * self.titans_heads * config.head_width**2

    def layer_module(self, config: Shape, number: int) -> nn.Module | None:
        """Rates begin where a block forgets some fifth of what there was, whatever its size."""
        import math

        import torch
        from torch import nn

        heads, width, inner = self.titans_heads, config.width, self.titans_heads * config.head_width
        into = {name: nn.Linear(width, inner, bias=False) for name in ("query", "key", "value")}
        out, rates = nn.Linear(inner, width, bias=False), nn.Linear(width, 3 * heads)
        nn.init.zeros_(out.weight)
        with torch.no_grad():
            rates.bias.copy_(torch.tensor([-math.log(4 * config.block_size), 0.0, 0.0]).repeat_interleave(heads))
        return nn.ModuleDict({**into, "out": out, "rates": rates})

    def write_products(self, config: Shape, blocks: int) -> Products:
        """Keys, values and rates; errors, two weighted gradients, and how much each token counts."""
        heads, inner = self.titans_heads, self.titans_heads * config.head_width
        dense = config.width * (2 * inner + 3 * heads)
        return Products(dense, heads * config.block_size + 3 * inner * config.head_width) * config.block_size

    def _read_products(self, config: Shape) -> Products:
        inner = self.titans_heads * config.head_width
        return Products(2 * config.width * inner, inner * config.head_width)

    def before_products(self, config: Shape) -> Products:
        return self._read_products(config) if self.titans_variant == "mal" else Products()

    def mix_products(self, config: Shape) -> Products:
        return self._read_products(config) if self.titans_variant == "mag" else Products()

    def start(self, config: Shape, batch: int, like: Tensor) -> State:
        from famcli.models.memories.table import precise

        empty = precise(like.new_zeros(batch, self.titans_heads, config.head_width, config.head_width))
        own = {"titans_weights": empty, "titans_momentum": empty.clone()}
        return {**super().start(config, batch, like), **own}

    def before(self, x: Tensor, state: State, layer: LayerView) -> Tensor:
        return x + self._read(layer.attention_norm(x), state, layer) if self.titans_variant == "mal" else x

    def beside(self, attended: Tensor, inputs: Tensor, state: State, layer: LayerView) -> Tensor:
        return attended + self._read(inputs, state, layer) if self.titans_variant == "mag" else attended

    def _read(self, inputs: Tensor, state: State, layer: LayerView) -> Tensor:
        from famcli.models.memories.table import multiplied

        queries = _unit(self._heads(layer.memory["query"](inputs)))
        found = multiplied(queries, state["titans_weights"]).transpose(1, 2).flatten(2)
        read: Tensor = layer.memory["out"](found.to(inputs.dtype))
        return read

    def write(self, block: Block, state: State, layer: LayerView, at: Place) -> State:
        return {**super().write(block, state, layer, at), **self.write_again(block, state, layer, at)}

    def write_again(self, block: Block, state: State, layer: LayerView, at: Place, stride: float = 1) -> State:
        """What the block teaches; a ``stride`` has no meaning here."""
        from famcli.models.memories.table import multiplied

        assert block.inputs is not None
        own: Any = layer.memory
        keys, values = _unit(self._heads(own["key"](block.inputs))), self._heads(own["value"](block.inputs))
        moves = _Moves(own["rates"](block.inputs))
        weights, momentum = state["titans_weights"], state["titans_momentum"]
        errors = multiplied(keys, weights) - values
        towards, on = (multiplied(keys.mT, errors * counts[..., None]) for counts in (moves.now, moves.later))
        return {
            "titans_weights": moves.kept * weights + moves.gone_on * momentum - towards,
            "titans_momentum": moves.left * momentum - on,
        }

    def _heads(self, x: Tensor) -> Tensor:
        """SiLU of [b, t, n k] -> [b, n, t, k], in float32 at least."""
        from torch.nn.functional import silu

        from famcli.models.memories.table import precise

        return silu(precise(x)).unflatten(-1, (self.titans_heads, -1)).transpose(1, 2)


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

    def __init__(self, rates: Tensor) -> None:
        """Args:
        rates: [b, t, 3 n] alpha, eta and theta before their sigmoid.
        """
        import torch
        from torch.nn.functional import logsigmoid

        from famcli.models.memories.table import multiplied, precise

        alpha, eta, theta = precise(rates).transpose(1, 2).chunk(3, dim=1)
        keeps, goes_on = logsigmoid(-alpha).cumsum(-1), logsigmoid(eta).cumsum(-1)
        decayed = (keeps[..., -1:] - keeps).exp()  # from each token to the end
        tokens = rates.shape[1]
        earlier = torch.ones(tokens, tokens, dtype=torch.bool, device=rates.device).tril(-1)
        pushes = (goes_on[..., None, :] - goes_on[..., :, None]).masked_fill(earlier, float("-inf")).exp()
        counts = multiplied(pushes, decayed[..., None])[..., 0]
        step = theta.sigmoid()
        step = step / (step * counts).sum(-1, keepdim=True).clamp(min=1)
        self.kept = keeps[..., -1, None, None].exp()
        self.left = goes_on[..., -1, None, None].exp()
        self.gone_on = (goes_on[..., 0].exp() * counts[..., 0])[..., None, None]
        self.now = step * counts
        self.later = step * (goes_on[..., -1:] - goes_on).exp()


def _unit(x: Tensor) -> Tensor:
    from torch.nn.functional import normalize

    return normalize(x, dim=-1)
