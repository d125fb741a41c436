"""Units of log-likelihood against models whose likelihood is known in closed form."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from famcli.metrics.language_model import (
    bits_per_byte,
    next_token_accuracy,
    token_perplexity,
    whitespace_words,
    word_perplexity,
)

counts = st.integers(1, 10**6)
probabilities = st.lists(st.floats(1e-6, 1), min_size=1)


@given(vocabulary=st.integers(2, 300_000), tokens=counts, n_bytes=counts)
def test_uniform_model(vocabulary: int, tokens: int, n_bytes: int) -> None:
    """Every token costs ln V, so perplexity is V whatever the text, and a byte costs n log2 V / bytes."""
    log_likelihood = -tokens * math.log(vocabulary)
    assert token_perplexity(log_likelihood, tokens) == pytest.approx(vocabulary)
    assert bits_per_byte(log_likelihood, n_bytes) == pytest.approx(tokens * math.log2(vocabulary) / n_bytes)


def test_uniform_model_of_bytes_needs_eight_bits() -> None:
    assert bits_per_byte(-1000 * math.log(256), 1000) == pytest.approx(8)


@given(probabilities)
def test_perplexity_is_the_geometric_mean_of_the_inverse_probabilities(likelihoods: list[float]) -> None:
    log_likelihood = math.fsum(map(math.log, likelihoods))
    expected = statistics.geometric_mean([1 / p for p in likelihoods])
    assert token_perplexity(log_likelihood, len(likelihoods)) == pytest.approx(expected)


@given(tokens=counts, words=st.integers(1, 1000), pieces=st.integers(1, 5))
def test_a_word_of_several_tokens_is_as_perplexing_as_all_of_them(tokens: int, words: int, pieces: int) -> None:
    """With k tokens a word, perplexity per word is that per token to the power k."""
    log_likelihood = -2.5 * words * pieces
    per_token = token_perplexity(log_likelihood, words * pieces)
    assert word_perplexity(log_likelihood, words) == pytest.approx(per_token**pieces)


def test_a_sure_model_has_perplexity_one() -> None:
    assert (token_perplexity(0.0, 3), word_perplexity(0.0, 3), bits_per_byte(0.0, 3)) == (1, 1, 0)


def test_perplexity_too_large_for_a_float_is_infinite() -> None:
    assert word_perplexity(-5000.0, 1) == math.inf
    assert token_perplexity(-math.inf, 7) == math.inf


@pytest.mark.parametrize(("hits", "tokens", "share"), [(0, 4, 0), (1, 4, 0.25), (4, 4, 1)])
def test_next_token_accuracy(hits: int, tokens: int, share: float) -> None:
    assert next_token_accuracy(hits, tokens) == share


@pytest.mark.parametrize(
    ("metric", "unit"),
    [
        (bits_per_byte, "bytes"),
        (token_perplexity, "tokens"),
        (word_perplexity, "words"),
        (next_token_accuracy, "tokens"),
    ],
)
def test_nothing_scored_is_a_mistake(metric: Callable[[int, int], float], unit: str) -> None:
    with pytest.raises(ValueError, match=unit):
        metric(0, 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [("", 0), (" \n\t", 0), ("one", 1), ("  it's  half-done,\nisn't\u00a0it? ", 4), ("two\u3000words", 2)],
)
def test_whitespace_words(text: str, words: int) -> None:
    assert whitespace_words(text) == words


@given(st.lists(st.text("ab.-'", min_size=1)), st.sampled_from([" ", "\n", "\t\r\n"]))
def test_words_joined_by_white_space_are_counted(words: list[str], space: str) -> None:
    assert whitespace_words(space.join(words)) == len(words)
