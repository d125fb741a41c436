"""Scores and means against hand-made cases and the standard library."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from famcli.metrics.recall import first_digit_run, token_accuracy
from famcli.metrics.statistics import mean

scores = st.floats(-1e6, 1e6)


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


def test_nothing_to_expect_and_nothing_to_average_are_mistakes() -> None:
    with pytest.raises(ValueError, match="empty"):
        token_accuracy([1], [])
    with pytest.raises(ValueError, match="no values"):
        mean([])


@given(st.lists(scores, min_size=2))
def test_mean_agrees_with_the_standard_library(values: list[float]) -> None:
    metric = mean(values)
    assert metric.value == pytest.approx(statistics.fmean(values))
    assert metric.stderr == pytest.approx(statistics.stdev(values) / len(values) ** 0.5, rel=1e-6, abs=1e-9)
    assert metric.n == len(values)


@given(st.lists(scores, min_size=1), st.randoms(use_true_random=False))
def test_mean_does_not_depend_on_the_order(values: list[float], shuffler: random.Random) -> None:
    shuffled = list(values)
    shuffler.shuffle(shuffled)
    assert mean(shuffled) == mean(values)


def test_one_value_has_no_standard_error() -> None:
    assert mean([0.5]).stderr is None


def test_standard_error_of_right_and_wrong_answers() -> None:
    """For 0/1 scores s^2 / n is p (1 - p) / (n - 1)."""
    assert mean([1.0] * 45 + [0.0] * 5).stderr == pytest.approx((0.9 * 0.1 / 49) ** 0.5)
