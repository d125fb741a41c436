"""How sure a mean is, and a difference between two models that answered the same samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from famcli.metrics.flips import flip

Floats = NDArray[np.float64]

SIGNIFICANT = 0.05
LEVEL = 1 - SIGNIFICANT
FEWEST = 6
"""Clusters: with fewer no sign flip can reject anything, and how much clusters vary is guesswork."""
WILSON, BONETT_PRICE, BOOTSTRAP = "Wilson", "Bonett-Price", "bootstrap by cluster"
MCNEMAR, SIGN_FLIP, TURNED_ROUND = "exact McNemar", "sign flips by cluster", "sign flips by cluster turned round"
SIGN_TEST, TOO_FEW = "sign test by cluster", "too few clusters"

MOST_DRAWS, LEAST_DRAWS, RESAMPLED_CLUSTERS = 10_000, 2_000, 20_000_000
"""Resamples of a bootstrap: fewer where there are many clusters, whose means are nearly normal anyway."""


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
        low, high: its confidence interval, which holds 0 exactly where ``p_value`` is at least 0.05; ``None`` where
            there are too few clusters.
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
) -> PairedDifference | None:
    """Compares two models sample by sample.

    Right-or-wrong samples that stand alone and count the same have the exact test of McNemar (1947), and the interval
    of Bonett and Price (2012), with one made-up sample for either side: it does not shrink to a point where all samples
    agree. Of few samples that interval is sometimes surer than the test: then it is drawn out to 0.

    Everything else has a permutation test that swaps left and right in whole clusters, of which McNemar's is the
    special case, and the interval of all differences that this test does not reject, see ``famcli.metrics.flips``. With
    fewer than ``FEWEST`` clusters there is none. Where all clusters differ by the same, it is that of a sign test, see
    ``_of_one_size``. A geometric mean is tested by its logarithms; the ends of its interval are turned to differences
    of two means around the one that both have in common.

    Args:
        left, right: scores of the same samples in the same order; positive for a geometric mean.
        weights: of the samples, at least 0; those of weight 0 do not count.
        clusters: the name of each sample's cluster; clusters are taken as independent.
        binary: scores are 0 or 1.
        geometric: the mean is a geometric one.
        higher_is_better: whether more is better, for wins and losses.
        bounds: the least and the largest possible difference.
        seed: of what is drawn; the same arguments give the same result.

    Returns:
        The difference, or ``None`` where all weights are 0.
    """
    (x, y), w, groups = _counted(weights, clusters, left, right)
    if not len(w):
        return None
    gain = x - y if higher_is_better else y - x
    wins, losses = int((gain > 0).sum()), int((gain < 0).sum())
    n, count = len(w), int(groups.max()) + 1
    middle = 0.0
    if geometric:
        x, y = np.log(x), np.log(y)
        middle = float((w * (x + y)).sum() / w.sum() / 2)
    weight, swaps = _by_cluster(groups, w), _by_cluster(groups, w * (x - y))
    swaps[np.abs(swaps) <= 1e-12 * _by_cluster(groups, w * (np.abs(x) + np.abs(y)))] = 0  # no more than rounding
    value = float(swaps.sum() / weight.sum())
    p_value, found, method = None, None, TOO_FEW
    if binary and count == n > 1 and _equal(w):
        p_value, method = mcnemar(wins, losses), f"{BONETT_PRICE} and {MCNEMAR}"
        found = _bonett_price(int((x > y).sum()), int((x < y).sum()), n)
        if p_value >= SIGNIFICANT:
            found = Interval(min(found.low, 0.0), max(found.high, 0.0), BONETT_PRICE)
    elif count > 1:
        flips = flip(swaps, weight, seed, SIGNIFICANT)
        p_value = flips.p_value
        if count >= FEWEST:
            found = Interval(flips.low, flips.high, TURNED_ROUND)
            if _equal(swaps / weight):
                found = _of_one_size(value, count, math.isfinite(bounds[0]) and not geometric)
        method = f"{found.method} and {SIGN_FLIP}" if found else f"{TOO_FEW} and {SIGN_FLIP}"
    if geometric:
        value, found = _of_means(value, middle), found and _of_means_too(found, middle)
    if found:
        found = _within(found, bounds)
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
        method=method,
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
) -> Interval | None:
    """The confidence interval of ``famcli.metrics.statistics.clustered_mean``; the arguments are its and those above.

    Right-or-wrong samples that stand alone and count the same have Wilson's score interval (1927), never a point.
    Everything else has a bootstrap of whole clusters: percentiles, whose distances from the mean are widened by
    ``sqrt(C / (C - 1)) t / z`` for ``C`` clusters, Student's and the normal quantile. Plain percentiles, BCa and the
    studentised bootstrap miss the mean more often with 6 to 50 clusters of unequal sizes; ``tests/test_paired.py``
    measures the coverage. Where all clusters are equal, scores from 0 to 1 have Wilson's interval with a trial a
    cluster, as no such scores vary more than right and wrong; where nearly all are, a bootstrap is too sure.

    Returns:
        The interval, ``None`` where there are too few clusters, see ``FEWEST``, or nothing says how they vary.
    """
    (x,), w, groups = _counted(weights, clusters, values)
    if not len(w):
        return None
    n, count = len(w), int(groups.max()) + 1
    if binary and count == n > 1 and _equal(w):
        return _within(_wilson(float(x.mean()), count), bounds)
    if count < FEWEST:
        return None
    sums, weight = _by_cluster(groups, w * (np.log(x) if geometric else x)), _by_cluster(groups, w)
    if _equal(sums / weight):
        return _wilson(float(sums.sum() / weight.sum()), count) if bounds == (0, 1) and not geometric else None
    found = _bootstrap(sums, weight, seed)
    if geometric:
        found = Interval(math.exp(found.low), math.exp(found.high), found.method)
    return _within(found, bounds)


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


def _bootstrap(sums: Floats, weights: Floats, seed: int) -> Interval:
    """See ``interval``; what the samples of each cluster add up to, and their weights, [clusters] each."""
    count, value = len(sums), float(sums.sum() / weights.sum())
    draws = min(MOST_DRAWS, max(LEAST_DRAWS, RESAMPLED_CLUSTERS // count))
    rng, found = np.random.default_rng(seed), []
    rows = max(1, 2_000_000 // count)
    for start in range(0, draws, rows):
        drawn = rng.integers(0, count, (min(rows, draws - start), count), dtype=np.int32)
        found.append(_total(sums, drawn) / _total(weights, drawn))
    tail = SIGNIFICANT / 2
    low, high = np.quantile(np.concatenate(found), [tail, 1 - tail])
    wider = math.sqrt(count / (count - 1)) * student_quantile(1 - tail, count - 1) / NormalDist().inv_cdf(1 - tail)
    return Interval(float(value - wider * (value - low)), float(value + wider * (high - value)), BOOTSTRAP)


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
    """Up to rounding."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def _wilson(share: float, n: int) -> Interval:
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = middle - half if share > 0 else 0.0, middle + half if share < 1 else 1.0  # free of rounding at the ends
    return Interval(max(0.0, low), min(1.0, high), WILSON)


def _bonett_price(wins: int, losses: int, n: int) -> Interval:
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    won, lost = (wins + 1) / (n + 2), (losses + 1) / (n + 2)
    half = z * math.sqrt((won + lost - (won - lost) ** 2) / (n + 2))
    return Interval(max(-1.0, won - lost - half), min(1.0, won - lost + half), BONETT_PRICE)


def _of_one_size(value: float, count: int, bounded: bool) -> Interval | None:
    """The interval where all clusters differ by ``value``, which an interval of the test turned round shrinks to.

    Were they always to differ by as much one way or the other, it is a matter of the share of either (Clopper and
    Pearson 1934). Where none differs, scores from 0 to 1 have the interval of so many samples that agree, and others
    none: nothing says how large a difference may be.
    """
    if value:
        ends = value * (2 * (SIGNIFICANT / 2) ** (1 / count) - 1), value
        return Interval(min(ends), max(ends), SIGN_TEST)
    return _bonett_price(0, 0, count) if bounded else None


def _of_means(log_ratio: float, middle: float) -> float:
    """The difference of two means from their logarithms' difference and middle."""
    return 2 * math.exp(middle) * math.sinh(log_ratio / 2)


def _of_means_too(found: Interval, middle: float) -> Interval:
    return Interval(_of_means(found.low, middle), _of_means(found.high, middle), found.method)


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
