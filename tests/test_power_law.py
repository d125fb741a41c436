"""The exponent of a cost, and what its interval is worth."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from famcli.metrics.power_law import FEWEST, fit_power_law

SIZES = 1024 * 2 ** (np.arange(9) / 2)
DRAWS = 600


@pytest.mark.parametrize(
    ("exponent", "own"), [(b, own) for b in (0.0, 1.0, 1.37, 2.0) for own in (0.0, 0.2, 1.0) if b or own]
)
def test_a_power_law_is_found(exponent: float, own: float) -> None:
    cost = 3e-5 * SIZES**exponent
    found = fit_power_law(SIZES, cost * (1 - own), cost * own)
    assert found is not None
    assert (found.scale, found.exponent) == pytest.approx((3e-5, exponent), rel=1e-6, abs=1e-6)
    assert found.high - found.low < 1e-5 and found.sizes == len(SIZES)


def noisy(rng: np.random.Generator, exponent: float, own: float, noise: float) -> tuple[NDArray, NDArray]:
    """Stretches of a stream, and own parts, that are each off by a share of themselves."""
    cost = SIZES**exponent
    stretches = np.diff(cost * (1 - own), prepend=0.0)
    along = np.cumsum(stretches * (1 + noise * rng.standard_normal(len(SIZES))))
    return along, cost * own * (1 + noise * rng.standard_normal(len(SIZES)))


@pytest.mark.parametrize(("exponent", "own", "noise"), [(1.0, 0.0, 0.05), (1.0, 0.1, 0.05), (1.6, 0.3, 0.1)])
def test_the_interval_covers_as_often_as_it_says(exponent: float, own: float, noise: float) -> None:
    rng = np.random.default_rng(0)
    found = [fit_power_law(SIZES, *noisy(rng, exponent, own, noise)) for _ in range(DRAWS)]
    covered = np.mean([law is not None and law.low <= exponent <= law.high for law in found])
    assert covered == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / DRAWS))


def test_costs_of_one_stream_are_not_taken_for_independent() -> None:
    """Ordinary least squares, which would, holds the exponent half as often as it says: the test above can fail."""
    rng = np.random.default_rng(0)
    logs = np.column_stack((np.ones(len(SIZES)), np.log(SIZES)))
    inverse, covered = np.linalg.inv(logs.T @ logs), 0
    for _ in range(DRAWS):
        y = np.log(sum(noisy(rng, 1.0, 0.0, 0.05)))
        best = inverse @ logs.T @ y
        error = np.sqrt(inverse[1, 1] * np.sum((y - logs @ best) ** 2) / (len(SIZES) - 2))
        covered += abs(best[1] - 1) <= 2.365 * error  # Student's t of 7 degrees of freedom
    assert covered / DRAWS < 0.7


def test_independent_costs_are_fitted_as_scipy_does() -> None:
    from scipy.stats import linregress, t

    rng = np.random.default_rng(1)
    cost = SIZES**1.2 * np.exp(0.03 * rng.standard_normal(len(SIZES)))
    found, other = fit_power_law(SIZES, np.zeros(len(SIZES)), cost), linregress(np.log(SIZES), np.log(cost))
    assert found is not None
    half = other.stderr * t.ppf(0.975, len(SIZES) - 2)
    assert (found.exponent, found.high - found.exponent) == pytest.approx((other.slope, half), rel=1e-6)
    assert found.scale == pytest.approx(np.exp(other.intercept), rel=1e-6)


def test_two_sizes_are_too_few() -> None:
    assert FEWEST == 3
    assert fit_power_law([1, 2], [0, 1], [1, 1]) is None
    assert fit_power_law([1, 2, 4], [0, 1, 3], [1, 1, 1]) is not None
