"""Networks whose weights are what a memory holds: what they make of keys, and how each key would teach them.

A head's network is matrices one after another with SiLU between them; a single matrix is the linear case. The weights
of ``b`` rows and ``n`` heads lie in one tensor [b, n, k, w], matrix after matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, cat
from torch.nn.functional import silu

from famcli.models.memories.table import multiplied


def matrices_of(weights: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """The matrices [b, n, *shape] that ``weights`` [b, n, k, w] hold."""
    parts = weights.flatten(2).split([rows * columns for rows, columns in shapes], dim=2)
    return [part.unflatten(2, shape) for part, shape in zip(parts, shapes, strict=True)]


def answers(keys: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """What the networks make of ``keys`` [b, n, t, k]: [b, n, t, k]."""
    for matrix in matrices[:-1]:
        keys = silu(multiplied(keys, matrix))
    return multiplied(keys, matrices[-1])


def lessons(keys: Tensor, values: Tensor, matrices: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """How each token would change each matrix [b, n, i, o], by half of the squared error of its answer.

    Returns:
        For each matrix what enters it [b, n, t, i] and the error behind it [b, n, t, o]. The gradient of a token is
        their outer product.
    """
    entered, sums = [keys], []
    for matrix in matrices[:-1]:
        sums.append(multiplied(entered[-1], matrix))
        entered.append(silu(sums[-1]))
    errors = [multiplied(entered[-1], matrices[-1]) - values]
    for matrix, total in zip(reversed(matrices[1:]), reversed(sums), strict=True):
        share = total.sigmoid()
        errors.append(multiplied(errors[-1], matrix.mT) * share * (1 + total * (1 - share)))
    return list(zip(entered, reversed(errors), strict=True))


def steepness(taught: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """[b, n, t] the square of a token's gradient over that of its error, at least 1.

    A step of 1 that is divided by it takes the error of that token to 0, to first order, and not beyond. For a matrix
    and keys of length 1 it is 1.
    """
    squares = [entered.square().sum(-1) * error.square().sum(-1) for entered, error in taught]
    last = taught[-1][1].square().sum(-1)
    return (sum(squares[1:], start=squares[0]) / last.clamp(min=1e-30)).clamp(min=1)


def gradient(taught: Sequence[tuple[Tensor, Tensor]], counts: Tensor, like: Tensor) -> Tensor:
    """All tokens' gradients, each as often as ``counts`` [b, n, t] says, in the shape of the weights ``like``."""
    sums = [multiplied(entered.mT, error * counts[..., None]) for entered, error in taught]
    return cat([one.flatten(2) for one in sums], dim=2).view_as(like)
