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
        stderr: its standard error, ``None`` where one sample cannot tell.
        n: number of samples.
    """

    value: float
    stderr: float | None
    n: int


def mean(values: Sequence[float]) -> Metric:
    """Mean and standard error of independent samples.

    The error is ``s / sqrt(n)`` with the sample deviation ``s`` (n - 1 in its denominator), hence none for n = 1. Sums
    are rounded once, so the order of the values does not matter.

    Raises:
        ValueError: there are no values.
    """
    n = len(values)
    if not n:
        raise ValueError("mean of no values")
    value = math.fsum(values) / n
    if n == 1:
        return Metric(value, None, n)
    variance = math.fsum((x - value) ** 2 for x in values) / (n - 1)
    return Metric(value, math.sqrt(variance / n), n)
