"""How sure a mean is, and a difference between two models that answered the same samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.95
WILSON, BONETT_PRICE, BOOTSTRAP = "Wilson", "Bonett-Price", "bootstrap by cluster"
MCNEMAR, SIGN_FLIP = "exact McNemar", "sign flips by cluster"

MOST_DRAWS, LEAST_DRAWS, RESAMPLED_CLUSTERS = 10_000, 2_000, 20_000_000
"""Resamples of a bootstrap: fewer where there are many clusters, whose means are nearly normal anyway."""

ENUMERATED_CLUSTERS = 16
"""Most clusters for which all signs are tried, 2 ** 15 ways; beyond, ``SIGN_DRAWS`` random ones."""
SIGN_DRAWS = 9_999


@dataclass(frozen=True)
class Interval:
    """A confidence interval, and how it was made."""

    low: float
    high: float
    method: str


@dataclass(frozen=True)
class PairedDifference:
    """Left minus right, over the samples that both answered.

    Attributes:
        value: difference of the two means.
        low, high: its confidence interval, ``None`` for a single cluster.
        p_value: two-sided, of the hypothesis that left and right could change places; ``None`` for a single
            cluster.
        wins, losses, ties: samples in which left is better than right, worse, and equal.
        n: samples, those of weight 0 left out.
        clusters: how many clusters they come in.
        method: how interval and p-value were made.
    """

    value: float
    low: float | None
    high: float | None
    p_value: float | None
    wins: int
    losses: int
    ties: int
    n: int
    clusters: int
    method: str


def paired_difference(
    left: Sequence[float],
    right: Sequence[float],
    weights: Sequence[float],
    clusters: Sequence[str],
    *,
    binary: bool,
    geometric: bool = False,
    higher_is_better: bool = True,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    seed: int = 0,
    level: float = LEVEL,
) -> PairedDifference | None:
    """Compares two models sample by sample.

    Right-or-wrong samples that stand alone and count the same have a closed interval (Bonett and Price 2012, with one
    made-up sample for either side: it does not shrink to a point where all samples agree) and the exact test of McNemar
    (1947). Everything else has the interval of ``interval``'s bootstrap, and a permutation test that swaps left and
    right in whole clusters, of which McNemar's is the special case: exact for up to ``ENUMERATED_CLUSTERS`` clusters
    that differ, else by chance with ``(k + 1) / (draws + 1)``. A geometric mean is tested by its logarithms; its
    difference is that of the means themselves.

    Args:
        left, right: scores of the same samples in the same order; positive for a geometric mean.
        weights: of the samples, at least 0; those of weight 0 do not count.
        clusters: the name of each sample's cluster; clusters are taken as independent.
        binary: scores are 0 or 1.
        geometric: the mean is a geometric one.
        higher_is_better: whether more is better, for wins and losses.
        bounds: the least and the largest possible difference.
        seed: of what is drawn; the same arguments give the same result.
        level: of the interval.

    Returns:
        The difference, or ``None`` where all weights are 0.
    """
    (x, y), w, groups = _counted(weights, clusters, left, right)
    if not len(w):
        return None
    gain = x - y if higher_is_better else y - x
    wins, losses = int((gain > 0).sum()), int((gain < 0).sum())
    n, count = len(w), int(groups.max()) + 1
    if geometric:
        x, y = np.log(x), np.log(y)
    weight, swaps = _by_cluster(groups, w), _by_cluster(groups, w * (x - y))
    alone = binary and count == n > 1 and _equal(w)
    if geometric:
        sums = [_by_cluster(groups, w * x), _by_cluster(groups, w * y), weight]
        value, found = _bootstrap(sums, lambda a, b, w: np.exp(a / w) - np.exp(b / w), seed, level)
    else:
        value, found = _bootstrap([swaps, weight], np.divide, seed, level)
    if alone or (found and binary and _equal(swaps / weight)):
        # Where no cluster differs from another a bootstrap would be sure; each then counts like a single sample.
        share = count / n
        found = _bonett_price((x > y).sum() * share, (x < y).sum() * share, count, level)
    if found:
        found = _within(found, bounds)
    p_value = mcnemar(wins, losses) if alone else sign_flip(swaps, seed) if count > 1 else None
    return PairedDifference(
        value=value,
        low=found.low if found else None,
        high=found.high if found else None,
        p_value=p_value,
        wins=wins,
        losses=losses,
        ties=n - wins - losses,
        n=n,
        clusters=count,
        method=f"{found.method} and {MCNEMAR if alone else SIGN_FLIP}" if found else "one cluster",
    )


def interval(
    values: Sequence[float],
    weights: Sequence[float],
    clusters: Sequence[str],
    *,
    binary: bool,
    geometric: bool = False,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    seed: int = 0,
    level: float = LEVEL,
) -> Interval | None:
    """The confidence interval of ``famcli.metrics.statistics.clustered_mean``; the arguments are its and those above.

    Right-or-wrong samples that stand alone and count the same have Wilson's score interval (1927), never a point.
    Everything else has a bootstrap of whole clusters: percentiles, whose distances from the mean are widened by
    ``sqrt(C / (C - 1)) t / z`` for ``C`` clusters, Student's and the normal quantile. Plain percentiles, BCa and the
    studentised bootstrap miss the mean more often with 5 to 50 clusters of unequal sizes; ``tests/test_paired.py``
    measures the coverage. Where nearly all clusters are equal any bootstrap is too sure.

    Returns:
        The interval, ``None`` where there are fewer than two clusters.
    """
    (x,), w, groups = _counted(weights, clusters, values)
    if not len(w):
        return None
    n, count = len(w), int(groups.max()) + 1
    if binary and count > 1 and ((count == n and _equal(w)) or _equal(x)):
        return _within(_wilson(float(x.mean()), count, level), bounds)
    sums = [_by_cluster(groups, w * (np.log(x) if geometric else x)), _by_cluster(groups, w)]
    _, found = _bootstrap(sums, np.divide, seed, level)
    if found and geometric:
        found = Interval(math.exp(found.low), math.exp(found.high), found.method)
    return _within(found, bounds) if found else None


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values corrected for their number (Holm 1979): to call those below 0.05 real is wrong at all in 5 % of tables.

    ``None``, of what was not tested, stays and does not count.
    """
    tested = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    least = 0.0
    for rank, (p, i) in enumerate(tested):
        least = max(least, min(1.0, p * (len(tested) - rank)))
        corrected[i] = least
    return corrected


def mcnemar(wins: int, losses: int) -> float:
    """Exact two-sided p-value of these wins and losses, were either as likely: twice the smaller binomial tail."""
    n, least = wins + losses, min(wins, losses)
    ways = tail = 1
    for k in range(1, least + 1):
        ways = ways * (n - k + 1) // k
        tail += ways
    return min(1.0, 2 * tail / (1 << n))


def sign_flip(sums: Floats, seed: int = 0) -> float:
    """Two-sided p-value of a sum over clusters, were each as likely with the other sign.

    Args:
        sums: [clusters].
        seed: of the random signs, where there are too many clusters to try all.
    """
    differing = sums[sums != 0]
    # Rounding must not make a sum larger than itself in another order.
    bar = abs(differing.sum()) - 1e-9 * np.abs(differing).sum()
    if len(differing) <= ENUMERATED_CLUSTERS:
        if not len(differing):
            return 1.0
        reached = differing[:1]
        for value in differing[1:]:
            reached = np.concatenate((reached + value, reached - value))
        return float((np.abs(reached) >= bar).mean())
    padded = np.zeros((-(-len(differing) // 8), 8))
    padded.flat[: len(differing)] = differing
    # Eight signs are a random byte: [groups of 8, 256] holds the sum of each group under all of its signs.
    signs = 1.0 - 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    table, rng = padded @ signs.T, np.random.default_rng(seed)
    reached = np.zeros(SIGN_DRAWS)
    for group in table:
        reached += group[rng.integers(0, 256, SIGN_DRAWS, dtype=np.uint8)]
    return (int((np.abs(reached) >= bar).sum()) + 1) / (SIGN_DRAWS + 1)


def _counted(
    weights: Sequence[float], clusters: Sequence[str], *scores: Sequence[float]
) -> tuple[list[Floats], Floats, NDArray[np.int64]]:
    """The scores, the weights, and the clusters as numbers from 0, of the samples that count."""
    w = np.asarray(weights, dtype=np.float64)
    counted = w > 0
    numbers: dict[str, int] = {}
    names = [numbers.setdefault(name, len(numbers)) for name, c in zip(clusters, counted, strict=True) if c]
    columns = [np.asarray(column, dtype=np.float64)[counted] for column in scores]
    return columns, w[counted], np.asarray(names, dtype=np.int64)


def _bootstrap(
    sums: Sequence[Floats], statistic: Callable[..., Floats], seed: int, level: float
) -> tuple[float, Interval | None]:
    """See ``interval``.

    Args:
        sums: of what the samples of each cluster add up to, [clusters] each.
        statistic: of the totals of ``sums``.
        seed, level: see ``interval``.

    Returns:
        The statistic of all clusters, and its interval.
    """
    count = len(sums[0])
    value = float(statistic(*(np.array([column.sum()]) for column in sums))[0])
    if count < 2:
        return value, None
    draws = min(MOST_DRAWS, max(LEAST_DRAWS, RESAMPLED_CLUSTERS // count))
    rng, found = np.random.default_rng(seed), []
    rows = max(1, 2_000_000 // count)
    for start in range(0, draws, rows):
        drawn = rng.integers(0, count, (min(rows, draws - start), count), dtype=np.int32)
        found.append(statistic(*(_total(column, drawn) for column in sums)))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(found), [tail, 1 - tail])
    wider = math.sqrt(count / (count - 1)) * student_quantile(1 - tail, count - 1) / NormalDist().inv_cdf(1 - tail)
    return value, Interval(float(value - wider * (value - low)), float(value + wider * (high - value)), BOOTSTRAP)


def _by_cluster(groups: NDArray[np.int64], column: Floats) -> Floats:
    """Sums [clusters] of a column [samples]."""
    return np.bincount(groups, column).astype(np.float64)


def _total(column: Floats, drawn: NDArray[np.int32]) -> Floats:
    """[draws] of a column [clusters] and clusters drawn, [draws, clusters]."""
    if _equal(column):
        return np.full(len(drawn), column.sum())
    total: Floats = column[drawn].sum(axis=1)
    return total


def _equal(values: Floats) -> bool:
    return bool((values == values[0]).all())


def _wilson(share: float, n: int, level: float) -> Interval:
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(max(0.0, middle - half), min(1.0, middle + half), WILSON)


def _bonett_price(wins: float, losses: float, n: int, level: float) -> Interval:
    z = NormalDist().inv_cdf((1 + level) / 2)
    won, lost = (wins + 1) / (n + 2), (losses + 1) / (n + 2)
    half = z * math.sqrt((won + lost - (won - lost) ** 2) / (n + 2))
    return Interval(max(-1.0, won - lost - half), min(1.0, won - lost + half), BONETT_PRICE)


def _within(found: Interval, bounds: tuple[float, float]) -> Interval:
    return Interval(float(max(bounds[0], found.low)), float(min(bounds[1], found.high)), found.method)


@cache
def student_quantile(share: float, freedom: int) -> float:
    """Student's t at ``share``, from 0.5 to below 1, for ``freedom`` degrees of freedom, at least 1."""
    low, high = 0.0, 1.0
    while _student_share(high, freedom) < share:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_share(middle, freedom) < share else (low, middle)
    return high


def _student_share(t: float, freedom: int) -> float:
    """The distribution function, by its finite sum (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    square = math.cos(angle) ** 2
    odd = freedom % 2
    terms = np.arange(1 + odd, freedom - 1, 2)
    total = 1.0 + float(np.cumprod(square * terms / (terms + 1)).sum()) if freedom > 1 else 0.0
    inside = math.sin(angle) * (math.cos(angle) if odd else 1.0) * total
    return 0.5 + ((angle + inside) / math.pi if odd else inside / 2)
