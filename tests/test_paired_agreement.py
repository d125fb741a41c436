"""An interval of a difference and its p-value say the same: the interval holds 0 exactly where p is 0.05 or more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from famcli.metrics import paired
from famcli.metrics.flips import flip
from famcli.metrics.paired import PairedDifference, interval, mcnemar, paired_difference


def holds_zero(found: PairedDifference) -> bool:
    """The interval holds 0, or there is none."""
    return found.low is None or found.high is None or found.low <= 0 <= found.high


SCORES = {
    "right or wrong": st.sampled_from([0.0, 1.0]),
    "few values": st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    "any": st.floats(0, 1),
    "many": st.floats(1e-3, 1e6),
}


@settings(max_examples=400, deadline=None)
@given(data=st.data(), kind=st.sampled_from(sorted(SCORES)))
def test_an_interval_and_its_p_value_never_contradict_each_other(data: st.DataObject, kind: str) -> None:
    """Whatever the data: alone and in clusters, weighted or not, arithmetic or geometric means, few and many."""
    count = data.draw(st.integers(1, 40))
    left, right = (data.draw(st.lists(SCORES[kind], min_size=count, max_size=count)) for _ in range(2))
    if data.draw(st.booleans()):  # nearly alike, or all better by the same
        right = [x if data.draw(st.integers(0, 3)) else y for x, y in zip(left, right, strict=True)]
    weights = data.draw(st.lists(st.sampled_from([0.0, 1.0, 1.0, 2.5]), min_size=count, max_size=count))
    weights = weights if data.draw(st.booleans()) else [1.0] * count
    groups = data.draw(st.lists(st.integers(0, 9), min_size=count, max_size=count))
    names = [str(i) for i in (groups if data.draw(st.booleans()) else range(count))]
    geometric = kind == "many" and data.draw(st.booleans())
    bounds = (-np.inf, np.inf) if kind == "many" else (-1, 1)
    binary = kind == "right or wrong"
    found = paired_difference(left, right, weights, names, binary=binary, geometric=geometric, bounds=bounds)
    if found is None:
        return
    assert (found.p_value is None) == (found.clusters == 1)
    if found.p_value is not None:
        assert holds_zero(found) == (found.p_value >= 0.05)
        assert found.p_value >= 2.0 ** (1 - found.clusters) * 0.999 or found.clusters > 16
    if found.low is not None and found.high is not None:
        assert found.low <= found.value + 1e-9 * abs(found.value) + 1e-12
        assert found.high >= found.value - 1e-9 * abs(found.value) - 1e-12
        assert found.clusters >= 6 or "Bonett" in found.method


def test_right_and_wrong_never_contradict_each_other() -> None:
    """Every number of wins, losses and ties of few samples."""
    drawn_out = 0
    for wins in range(13):
        for losses in range(wins + 1):
            for ties in (0, 1, 2, 5, 20):
                left = [1.0] * wins + [0.0] * losses + [1.0] * ties
                right = [0.0] * wins + [1.0] * losses + [1.0] * ties
                names = [str(i) for i in range(len(left))]
                found = paired_difference(left, right, [1.0] * len(left), names, binary=True, bounds=(-1, 1))
                if found is None or found.p_value is None or found.low is None:
                    assert len(left) < 2
                    continue
                assert holds_zero(found) == (found.p_value >= 0.05)
                drawn_out += found.low == 0
    assert drawn_out > 10, "the interval alone would be surer than the test"


def test_the_ends_of_right_and_wrong_are_where_mcnemar_says() -> None:
    """Every number of samples that changed, up to two hundred, among as many and among many more."""
    for changed in range(1, 200):
        for losses in range(changed // 2 + 1):
            for n in (changed, changed + 2, 3 * changed, 100 * changed):
                wins = changed - losses
                low = paired._bonett_price(wins, losses, n).low
                assert low > 0 or mcnemar(wins, losses) >= 0.05, "else the interval would have to be cut"


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_an_interval_holds_what_sign_flips_do_not_reject(data: st.DataObject) -> None:
    """Difference by difference, against scipy's permutation test of the clusters less that difference."""
    count = data.draw(st.integers(6, 9))
    sums = np.array(data.draw(st.lists(st.floats(-2, 3), min_size=count, max_size=count)))
    weights = np.array(data.draw(st.lists(st.floats(0.5, 2), min_size=count, max_size=count)))
    found = flip(sums, weights, 0, 0.05)
    for difference in np.linspace(-5, 7, 25):
        if min(abs(difference - found.low), abs(difference - found.high)) < 1e-6:
            continue  # on the very end, rounding decides
        moved = sums - difference * weights
        p = stats.permutation_test(
            (moved,), lambda sample, axis: sample.sum(axis=axis), permutation_type="samples", n_resamples=np.inf
        ).pvalue
        assert (found.low < difference < found.high) == (p >= 0.05)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7])
def test_few_clusters_have_no_interval(count: int) -> None:
    """Of questions on documents, however many questions there are; samples that stand alone have Wilson's."""
    names = [str(i) for i in range(count) for _ in range(30)]
    rng = np.random.default_rng(count)
    for binary in (True, False):
        left, right = rng.integers(0, 2, (2, len(names))) if binary else rng.random((2, len(names)))
        single = interval(list(left), [1.0] * len(names), names, binary=binary, bounds=(0, 1))
        both = paired_difference(list(left), list(right), [1.0] * len(names), names, binary=binary)
        assert both and (single is None) == (both.low is None) == (count < 6)
        alone = [str(i) for i in range(count)]
        trials = interval(list(left[:count]), [1.0] * count, alone, binary=binary, bounds=(0, 1))
        assert (trials is None) == (count < (2 if binary else 6))


def test_clusters_that_differ_by_the_same_are_no_certainty() -> None:
    for size in (0.1, -0.3, 12.0):
        for count in (6, 10, 30):
            left, names = [size] * count, [str(i) for i in range(count)]
            found = paired_difference(left, [0.0] * count, [1.0] * count, names, binary=False)
            assert found and found.low is not None and found.high is not None
            share = stats.binomtest(count, count).proportion_ci(method="exact").low
            ends = sorted((size * (2 * share - 1), size))
            assert (found.low, found.high) == pytest.approx(ends)
            assert found.p_value is not None and found.p_value < 0.05
