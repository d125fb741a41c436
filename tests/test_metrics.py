"""Scores and means against hand-made cases and the standard library."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from famcli.metrics.recall import first_digit_run, token_accuracy
from famcli.metrics.statistics import Metric, clustered_mean

scores = st.floats(-1e6, 1e6)
weights = st.sampled_from([0.0, 0.25, 1.0, 3.0, 7.5])
names = st.sampled_from("abcd")
samples = st.lists(st.tuples(scores, weights, names), min_size=1, max_size=30)
"""(value, weight, cluster)"""


@pytest.mark.parametrize(
    ("text", "run"),
    [
        (" 01234. Remember", "01234"),
        ("is12345", "12345"),
        ("1. 42", "1"),
        ("123456", "123456"),
        ("none", None),
        ("", None),
        ("²³ ٣٤ 5", "5"),
    ],
)
def test_first_digit_run_is_the_text_as_written(text: str, run: str | None) -> None:
    assert first_digit_run(text) == run


@pytest.mark.parametrize(
    ("generated", "expected", "share"),
    [
        ([1, 2, 3], [1, 2, 3], 1),
        ([1, 2, 3, 9], [1, 2, 3], 1),
        ([9, 1, 2], [1, 2, 3], 0),
        ([1], [1, 2], 0.5),
        ([], [1], 0),
    ],
)
def test_token_accuracy_compares_places(generated: list[int], expected: list[int], share: float) -> None:
    assert token_accuracy(generated, expected) == share


def test_nothing_to_expect_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="empty"):
        token_accuracy([1], [])


def mean_of(drawn: Sequence[tuple[float, float, str]], geometric: bool = False) -> Metric | None:
    values, shares, clusters = zip(*drawn, strict=True)
    return clustered_mean(values, shares, clusters, geometric)


def each_alone(values: Sequence[float], weight: float = 1.0) -> list[tuple[float, float, str]]:
    return [(value, weight, str(number)) for number, value in enumerate(values)]


def check_same(found: Metric | None, expected: Metric | None, scale: float) -> None:
    """They agree within the rounding of values as large as ``scale``; ``n`` may differ."""
    assert (found is None) == (expected is None)
    if found and expected:
        near = 1e-12 * max(1.0, scale)
        assert found.value == pytest.approx(expected.value, rel=1e-9, abs=near)
        assert (found.stderr is None) == (expected.stderr is None)
        assert (found.stderr or 0) == pytest.approx(expected.stderr or 0, rel=1e-9, abs=near)


def size(drawn: Sequence[tuple[float, float, str]]) -> float:
    return max(abs(value) for value, _, _ in drawn)


@given(st.lists(scores, min_size=2), st.sampled_from([0.25, 1.0, 3.0]))
def test_a_cluster_each_is_the_mean_of_the_standard_library(values: list[float], weight: float) -> None:
    metric = mean_of(each_alone(values, weight))
    error = statistics.stdev(values) / len(values) ** 0.5
    check_same(metric, Metric(statistics.fmean(values), error, 0), max(map(abs, values)))
    assert metric and metric.n == len(values)


def test_standard_error_of_right_and_wrong_answers() -> None:
    """For 0/1 scores s^2 / n is p (1 - p) / (n - 1)."""
    metric = mean_of(each_alone([1.0] * 45 + [0.0] * 5))
    assert metric and metric.stderr == pytest.approx((0.9 * 0.1 / 49) ** 0.5)


@given(st.lists(st.lists(scores, min_size=3, max_size=3), min_size=2, max_size=9))
def test_clusters_of_one_size_are_as_their_means(clusters: list[list[float]]) -> None:
    drawn = [(value, 1.0, str(c)) for c, values in enumerate(clusters) for value in values]
    check_same(mean_of(drawn), mean_of(each_alone([statistics.fmean(values) for values in clusters])), size(drawn))


@given(st.lists(st.tuples(scores, st.integers(0, 4), names), min_size=1, max_size=20))
def test_a_whole_weight_is_so_many_samples(drawn: list[tuple[float, int, str]]) -> None:
    repeated = [(value, 1.0, name) for value, count, name in drawn for _ in range(count)]
    check_same(mean_of(drawn), mean_of(repeated) if repeated else None, size(drawn))


@given(samples)
def test_saying_all_twice_in_its_cluster_makes_nothing_surer(drawn: list[tuple[float, float, str]]) -> None:
    once, twice = mean_of(drawn), mean_of([*drawn, *drawn])
    check_same(twice, once, size(drawn))
    assert once is None or (twice and twice.n == 2 * once.n)


@given(samples, st.lists(st.tuples(scores, names), max_size=3))
def test_samples_without_weight_do_not_count(
    drawn: list[tuple[float, float, str]], others: list[tuple[float, str]]
) -> None:
    assert mean_of([*drawn, *((value, 0.0, f"other {name}") for value, name in others)]) == mean_of(drawn)


@given(samples, st.randoms(use_true_random=False))
def test_the_order_does_not_matter(drawn: list[tuple[float, float, str]], shuffler: random.Random) -> None:
    shuffled = list(drawn)
    shuffler.shuffle(shuffled)
    assert mean_of(shuffled) == mean_of(drawn)


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=20))
def test_a_geometric_mean_is_that_of_the_logarithms(values: list[float]) -> None:
    metric = mean_of(each_alone(values), geometric=True)
    value = statistics.geometric_mean(values)
    error = statistics.stdev(map(math.log, values)) / len(values) ** 0.5
    check_same(metric, Metric(value, value * error, 0), value)


def test_a_geometric_mean_has_weights_and_clusters() -> None:
    drawn = [(1.0, 3.0, "a"), (16.0, 1.0, "a"), (4.0, 2.0, "b"), (0.0, 0.0, "c")]
    logs = mean_of([(math.log(value or 1), weight, name) for value, weight, name in drawn])
    metric = mean_of(drawn, geometric=True)
    assert metric and logs and logs.stderr
    assert metric.value == pytest.approx((1**3 * 16 * 4**2) ** (1 / 6))
    assert metric.n == 3
    assert metric.stderr == pytest.approx(metric.value * logs.stderr)


@pytest.mark.parametrize("geometric", [False, True])
def test_one_cluster_has_no_standard_error_and_no_weight_no_mean(geometric: bool) -> None:
    drawn = [(4.0, 1.0, "a"), (4.0, 2.0, "a"), (1.0, 0.0, "b")]
    metric = mean_of(drawn, geometric)
    assert metric and metric.stderr is None and metric.n == 2
    assert metric.value == pytest.approx(4.0)
    assert mean_of([(value, 0.0, name) for value, _, name in drawn], geometric) is None
    assert clustered_mean([], [], [], geometric) is None
