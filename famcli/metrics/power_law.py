"""How a cost grows with size: cost = scale x size^exponent, with an interval on the exponent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from famcli.metrics.paired import LEVEL, student_quantile

FEWEST = 3
"""Sizes: through two there is always a power law, and nothing says how far off it is."""


@dataclass(frozen=True)
class PowerLaw:
    """``cost = scale x size^exponent``.

    Attributes:
        scale: the cost of size 1.
        exponent: 1 where the cost is in proportion to the size.
        low, high: its interval, see ``LEVEL``.
        sizes: how many were fitted.
    """

    scale: float
    exponent: float
    low: float
    high: float
    sizes: int


def fit_power_law(sizes: Sequence[float], shared: Sequence[float], own: Sequence[float]) -> PowerLaw | None:
    """Fits costs that were measured along one stream.

    The cost of a size is what it shares with all larger ones, and what is its own. Costs that share most of what they
    are made of are wrong together, and an interval that took them for independent would be too narrow. So it is the
    stretches of the stream between two sizes, and the own parts, that are taken as independent, each off by the same
    unknown share: generalised least squares of log cost on log size, with that covariance to first order, and an
    interval by Student's t with two degrees of freedom less than sizes.

    Args:
        sizes: rising, above 0.
        shared: cost of the stream up to where each size's own part begins; never falling, from 0 on.
        own: cost of each size's own part; the two together are above 0.

    Returns:
        The power law; ``None`` for fewer than ``FEWEST`` sizes.
    """
    if len(sizes) < FEWEST:
        return None
    along, alone = np.asarray(shared, np.float64), np.asarray(own, np.float64)
    cost = along + alone
    stretches = np.cumsum(np.diff(along, prepend=0.0) ** 2)
    covariance = np.minimum.outer(stretches, stretches) + np.diag(alone**2)
    covariance /= np.outer(cost, cost)
    covariance += np.eye(len(cost)) * 1e-9 * np.trace(covariance) / len(cost)  # a stretch may have cost nothing
    root = np.linalg.cholesky(covariance)
    logs = np.log(np.asarray(sizes, np.float64))
    design = np.linalg.solve(root, np.column_stack((np.ones_like(logs), logs)))
    wanted = np.linalg.solve(root, np.log(cost))
    inverse = np.linalg.inv(design.T @ design)
    (level, exponent) = inverse @ design.T @ wanted
    freedom = len(sizes) - 2
    left = wanted - design @ (level, exponent)
    half = student_quantile((1 + LEVEL) / 2, freedom) * math.sqrt(inverse[1, 1] * float(left @ left) / freedom)
    return PowerLaw(math.exp(level), float(exponent), float(exponent - half), float(exponent + half), len(sizes))
