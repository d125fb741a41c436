"""Means and their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """The mean of a score.

    Attributes:
        value: the mean.
        stderr: its standard error, ``None`` for a single cluster.
        n: number of samples.
    """

    value: float
    stderr: float | None
    n: int


def clustered_mean(
    values: Sequence[float], weights: Sequence[float], clusters: Sequence[str], geometric: bool = False
) -> Metric | None:
    """Weighted mean of samples that come in clusters, such as questions on one document.

    The value is ``sum w x / sum w``. Its error is the linearised (sandwich) one of a ratio: with ``R_c`` the sum of
    ``w (x - value)`` over a cluster and ``C`` clusters, ``sqrt(C / (C - 1) sum R_c^2) / sum w``. Samples of one cluster
    may depend on each other in any way; clusters are taken as independent. With equal weights and a cluster for each
    sample it is ``s / sqrt(n)``, ``s`` the sample deviation (n - 1 in its denominator). A geometric mean is that of the
    logarithms, its error by the delta method. Sums are rounded once, so the order of the samples does not matter.

    Args:
        values: of the samples; positive for a geometric mean.
        weights: at least 0; samples of weight 0 do not count, not even in ``n``.
        clusters: the name of each sample's cluster.
        geometric: mean the logarithms.

    Returns:
        The mean, or ``None`` where all weights are 0.
    """
    counted = [(math.log(x) if geometric else x, w, c) for x, w, c in zip(values, weights, clusters, strict=True) if w]
    if not counted:
        return None
    total = math.fsum(w for _, w, _ in counted)
    value = math.fsum(w * x for x, w, _ in counted) / total
    residuals: dict[str, list[float]] = {}
    for x, w, cluster in counted:
        residuals.setdefault(cluster, []).append(w * (x - value))
    count = len(residuals)
    stderr = None
    if count > 1:
        squares = math.fsum(math.fsum(residual) ** 2 for residual in residuals.values())
        stderr = math.sqrt(count / (count - 1) * squares) / total
    if geometric:
        value = math.exp(value)
        stderr = None if stderr is None else value * stderr
    return Metric(value, stderr, len(counted))
