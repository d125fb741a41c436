"""Sign flips of clusters: a test of a difference, and the interval that is the same test turned round.

A cluster's difference, weighted, is as likely with the other sign, were the two models alike. So a part of the clusters
is flipped, in all ways or in many random ones; the p-value is the share of flips that leave a sum as far from 0. Were
the true difference ``d`` and not 0, the same would hold of the differences less ``d``, and a flip reaches as far
exactly where ``d`` lies between the mean of the flipped clusters and that of the others. The interval holds each ``d``
that is not rejected: its ends are order statistics of these means, and it holds 0 exactly where the p-value says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ENUMERATED_CLUSTERS = 16
"""Most clusters for which all flips are tried, 2 ** 15 ways; beyond, ``SIGN_DRAWS`` random ones."""
SIGN_DRAWS = 9_999


@dataclass(frozen=True)
class Flips:
    """What came of the flips.

    Attributes:
        p_value: two-sided.
        low, high: the interval; infinite where there are too few clusters to reject anything.
    """

    p_value: float
    low: float
    high: float


def flip(sums: Floats, weights: Floats, seed: int, alpha: float) -> Flips:
    """Tests ``sums.sum() / weights.sum()``.

    All flips of the clusters that differ are tried where there are up to ``ENUMERATED_CLUSTERS`` of them: the others
    do not move the p-value, and are flipped at random where there are more in all.

    Args:
        sums: [clusters] what the differences of each cluster add up to, weighted.
        weights: [clusters] above 0.
        seed: of what is drawn.
        alpha: 1 less the level of the interval.
    """
    order = np.argsort(sums == 0, kind="stable")
    s, w = sums[order], weights[order]
    differing = int((s != 0).sum())
    rng = np.random.default_rng(seed)
    if len(s) <= ENUMERATED_CLUSTERS:
        flipped = [_all(column) for column in (s, w)]
    elif differing <= ENUMERATED_CLUSTERS:
        times = -(-(SIGN_DRAWS + 1) // (1 << max(0, differing - 1)))
        flipped = [np.repeat(_all(column[:differing]), times) for column in (s, w)]
        flipped[1] = flipped[1] + _drawn([w[differing:]], len(flipped[1]), rng)[0]
    else:
        flipped = [np.append(0.0, column) for column in _drawn([s, w], SIGN_DRAWS, rng)]
    return _turned_round((flipped[0], flipped[1]), s, w, alpha)


def _turned_round(flipped: tuple[Floats, Floats], s: Floats, w: Floats, alpha: float) -> Flips:
    """From the sums and weights of the flipped clusters, [flips] each."""
    flipped_sums, flipped_weights = flipped
    total, whole, count = float(s.sum()), float(w.sum()), len(flipped_sums)
    # Rounding must not make a sum larger than itself in another order.
    reaches = np.abs(total - 2 * flipped_sums) >= abs(total) - 1e-9 * float(np.abs(s).sum())
    p_value = float(reaches.mean())
    rest = whole - flipped_weights
    nothing = (flipped_weights <= 1e-9 * whole) | (rest <= 1e-9 * whole)
    ours = flipped_sums / np.where(nothing, 1.0, flipped_weights)
    theirs = (total - flipped_sums) / np.where(nothing, 1.0, rest)
    low, high = np.minimum(ours, theirs), np.maximum(ours, theirs)
    low, high = np.where(reaches, np.minimum(low, 0.0), low), np.where(reaches, np.maximum(high, 0.0), high)
    low, high = np.where(nothing, -math.inf, low), np.where(nothing, math.inf, high)
    needed = max(1, math.ceil(alpha * count))  # so many flips that hold d do not reject it
    needed += (needed / count < alpha) - (needed > 1 and (needed - 1) / count >= alpha)
    place = needed - 1
    return Flips(
        p_value,
        float(np.partition(low, place)[place]),
        float(-np.partition(-high, place)[place]),
    )


def _all(column: Floats) -> Floats:
    """What the flipped clusters add up to in each way to flip some but not the first: the others are its mirror."""
    added = np.zeros(1)
    for value in column[1:]:
        added = np.concatenate((added, added + value))
    return added


def _drawn(columns: list[Floats], draws: int, rng: np.random.Generator) -> list[Floats]:
    """What random subsets add up to, [draws] of each column, the subsets the same for all."""
    groups = -(-len(columns[0]) // 8)
    added = [np.zeros(draws) for _ in columns]
    # Eight flips are a random byte: [256] holds what each choice of the eight adds up to.
    chosen = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float64)
    padded = [np.append(column, np.zeros(8 * groups - len(column))).reshape(groups, 8) for column in columns]
    for group in range(groups):
        bytes_ = rng.integers(0, 256, draws, dtype=np.uint8)
        for total, column in zip(added, padded, strict=True):
            total += (chosen @ column[group])[bytes_]
    return added
