"""What a summed log-likelihood says in the units that papers use.

Log-likelihoods are sums in nats over all tokens scored. Perplexity per token and accuracy compare models of one
tokenizer only; bits per byte and perplexity per word, whose denominators belong to the text, compare any.
"""

from __future__ import annotations

import math


def bits_per_byte(log_likelihood: float, n_bytes: int) -> float:
    """Code length in bits for each of the ``n_bytes`` bytes of UTF-8 of the scored text.

    Raises:
        ValueError: there are no bytes.
    """
    return -_per(log_likelihood, n_bytes, "bytes") / math.log(2)


def token_perplexity(log_likelihood: float, tokens: int) -> float:
    """``exp`` of the mean negative log-likelihood of a token; infinite where a float cannot hold it.

    Raises:
        ValueError: there are no tokens.
    """
    return _exp(-_per(log_likelihood, tokens, "tokens"))


def word_perplexity(log_likelihood: float, words: int) -> float:
    """Word-level perplexity of PG-19 (Rae et al. 2019, arXiv 1911.05507): tokens are summed, words divide.

    Args:
        log_likelihood: of all the tokens.
        words: of the same text: the data set's published count where a whole split is scored, else
            ``whitespace_words``.

    Returns:
        The perplexity; infinite where a float cannot hold it.

    Raises:
        ValueError: there are no words.
    """
    return _exp(-_per(log_likelihood, words, "words"))


def next_token_accuracy(hits: int, tokens: int) -> float:
    """Share of ``tokens`` that were the most likely one, ``hits`` of them (TransformerFAM, Table 10).

    Raises:
        ValueError: there are no tokens.
    """
    return _per(hits, tokens, "tokens")


def whitespace_words(text: str) -> int:
    """Number of words in ``text``: its parts between white space."""
    return len(text.split())


def _per(total: float, count: int, unit: str) -> float:
    if count <= 0:
        raise ValueError(f"a mean over {count} {unit}")
    return total / count


def _exp(nats: float) -> float:
    try:
        return math.exp(nats)
    except OverflowError:  # text without spaces is one word, and its log-likelihood that of a whole page
        return math.inf
