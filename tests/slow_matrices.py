"""The oracle of the memories that queries of their own read, ``titans`` and ``gated_delta``; see ``slow_memories``."""

from __future__ import annotations

from itertools import pairwise, product

import torch
from slow_memories import Read, SlowMemory
from torch import Tensor


class SlowMatrices(SlowMemory):
    """Matrices that queries of their own read."""

    def begin(self, batch: int) -> None:
        places = list(product(range(self.config.layers), range(batch), range(self.memory.matrix_heads)))
        width = self.config.head_width
        self.written = False
        self.W = {place: torch.zeros(width, width).double() for place in places}

    def before(self, layer: int, x: Tensor) -> Tensor:
        if self.memory.matrix_place != "mal":
            return x
        return x + self._read(layer, self.normed(x, f"layers.{layer}.attention_norm.weight"))

    def echo(self, layer: int, inputs: Tensor) -> Tensor | None:
        return self._read(layer, inputs) if self.memory.matrix_place == "mac" and self.written else None

    def beside(self, layer: int, attended: Tensor, inputs: Tensor) -> Tensor:
        read = {"mag": inputs, "mal": None, "mac": attended}[self.memory.matrix_place]
        return attended if read is None else attended + self._read(layer, read)

    def finish(self, blocks: list[list[Read]]) -> None:
        self.written = True
        for layer, read in enumerate(blocks[-1]):
            inputs = read.attended if self.memory.matrix_place == "mac" else read.inputs
            for row, head in product(range(len(inputs)), range(self.memory.matrix_heads)):
                self.write(layer, row, head, inputs[row])

    def write(self, layer: int, row: int, head: int, inputs: Tensor) -> None:
        """A block of a row into a head, from what it is made of [t, d]."""
        raise NotImplementedError

    def _read(self, layer: int, inputs: Tensor) -> Tensor:
        rows = []
        for row in range(len(inputs)):
            heads = range(self.memory.matrix_heads)
            found = [self._found(layer, row, head, self._of(layer, "query", inputs[row], head)) for head in heads]
            rows.append(torch.cat(found, dim=-1) @ self.own(layer, "out.weight").T)
        return torch.stack(rows)

    def _found(self, layer: int, row: int, head: int, query: Tensor) -> Tensor:
        return query @ self.W[layer, row, head]

    def _part(self, layer: int, name: str, inputs: Tensor, head: int) -> Tensor:
        width = self.config.head_width
        return inputs @ self.own(layer, f"{name}.weight")[head * width : (head + 1) * width].T

    def _of(self, layer: int, name: str, inputs: Tensor, head: int) -> Tensor:
        x = self._silu(self._part(layer, name, inputs, head))
        return x / x.square().sum(-1, keepdim=True).sqrt()

    def _silu(self, x: Tensor) -> Tensor:
        return x / (1 + (-x).exp())

    def _rates(self, layer: int, inputs: Tensor, head: int, count: int) -> list[Tensor]:
        rates = inputs @ self.own(layer, "rates.weight").T + self.own(layer, "rates.bias")
        return [1 / (1 + (-rates[:, i * self.memory.matrix_heads + head]).exp()) for i in range(count)]


class SlowTitans(SlowMatrices):
    """arXiv 2501.00663, equations 11 to 14, token by token, with gradients at the block's first weights.

    Beside the paper: half of the squared error, steps that no block takes beyond 1 all together, and for a network
    decay to its learned weights and steps divided by the square of the gradient over that of the error.
    """

    def begin(self, batch: int) -> None:
        self.written = False
        width, between = self.config.head_width, self.memory.titans_hidden * self.config.head_width
        widths = [width, *[between] * (self.memory.titans_depth - 1), width]
        places = list(product(range(self.config.layers), range(batch), range(self.memory.matrix_heads)))
        self.moved, self.S = (
            {place: [torch.zeros(i, o).double() for i, o in pairwise(widths)] for place in places} for _ in range(2)
        )

    def _found(self, layer: int, row: int, head: int, query: Tensor) -> Tensor:
        return self._answer(self._now(layer, row, head), query)

    def _now(self, layer: int, row: int, head: int) -> list[Tensor]:
        moved = self.moved[layer, row, head]
        if len(moved) == 1:
            return moved
        return [self.own(layer, f"start.{i}")[head] + one for i, one in enumerate(moved)]

    def _answer(self, network: list[Tensor], x: Tensor) -> Tensor:
        for matrix in network[:-1]:
            x = self._silu(x @ matrix)
        return x @ network[-1]

    def write(self, layer: int, row: int, head: int, inputs: Tensor) -> None:
        keys, values = self._of(layer, "key", inputs, head), self._silu(self._part(layer, "value", inputs, head))
        alpha, eta, theta = self._rates(layer, inputs, head, 3)
        far, pushed = torch.zeros(()).double(), torch.zeros(()).double()
        for t in range(len(inputs)):  # how far the block goes where every token pushes alike
            pushed = eta[t] * pushed + theta[t]
            far = (1 - alpha[t]) * far + pushed
        theta = theta / far if far > 1 else theta
        first, moved, S = self._now(layer, row, head), self.moved[layer, row, head], self.S[layer, row, head]
        for t in range(len(inputs)):
            gradient = self._gradient(first, keys[t], values[t])
            S = [eta[t] * s - theta[t] * g for s, g in zip(S, gradient, strict=True)]
            moved = [(1 - alpha[t]) * w + s for w, s in zip(moved, S, strict=True)]
        self.moved[layer, row, head], self.S[layer, row, head] = moved, S

    def _gradient(self, network: list[Tensor], key: Tensor, value: Tensor) -> list[Tensor]:
        """By PyTorch."""

        def wrong(weights: list[Tensor]) -> Tensor:
            return (self._answer(weights, key) - value).square().sum() / 2

        found = torch.func.grad(wrong)(network)
        if len(network) == 1:
            return list(found)
        steep = sum(one.square().sum() for one in found) / (2 * wrong(network))
        return [one / steep if steep > 1 else one for one in found]


class SlowDelta(SlowMatrices):
    """arXiv 2412.06464, equation 10, token by token; a block's tokens read what the block before left."""

    def write(self, layer: int, row: int, head: int, inputs: Tensor) -> None:
        keys, values = self._of(layer, "key", inputs, head), self._silu(self._part(layer, "value", inputs, head))
        forgotten, beta = self._rates(layer, inputs, head, 2)
        for t in range(len(inputs)):
            erased = torch.eye(len(keys[t])).double() - beta[t] * torch.outer(keys[t], keys[t])
            kept = (1 - forgotten[t]) * erased @ self.W[layer, row, head]
            self.W[layer, row, head] = kept + beta[t] * torch.outer(keys[t], values[t])


class SlowDeltaWithin(SlowDelta):
    """The same, and a token reads when it has written: o = q S."""

    def beside(self, layer: int, attended: Tensor, inputs: Tensor) -> Tensor:
        found = []
        for t in range(inputs.shape[1]):
            token = inputs[:, t : t + 1]
            for row, head in product(range(len(inputs)), range(self.memory.matrix_heads)):
                self.write(layer, row, head, token[row])
            found.append(self._read(layer, token))
        return attended + torch.cat(found, dim=1)

    def finish(self, blocks: list[list[Read]]) -> None:
        """All is written."""
