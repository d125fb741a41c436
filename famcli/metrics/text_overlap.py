"""Scores of an answer by its overlap with a reference text, all from 0 to 1.

Where a sample has several references, a benchmark's score is the best over them, ``max(score(prediction, r) for r in
references)``; only BLEU takes them together.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

# rouge-score and sacrebleu are imported where they are used: with what they import they cost half a second.

Tokenise: TypeAlias = Callable[[str], list[str]]

_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """``text`` as SQuAD v1 (Rajpurkar et al. 2016, arXiv 1606.05250) and SCROLLS compare it.

    In this order: lower case; ASCII punctuation dropped, with no space in its place; the words a, an and the dropped;
    runs of white space made one space, none at the ends. So "A-team" is "ateam", not "team".
    """
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def token_f1(prediction: str, reference: str) -> float:
    """F1 of the words, counted with their repetitions, after ``normalize_answer``.

    0 where no word is left on either side, as in SQuAD v1, SCROLLS, Qasper and LongBench (SQuAD v2 gives 1).
    """
    predicted, expected = normalize_answer(prediction).split(), normalize_answer(reference).split()
    if not predicted or not expected:
        return 0.0
    common = (Counter(predicted) & Counter(expected)).total()
    if not common:
        return 0.0
    precision, recall = common / len(predicted), common / len(expected)
    return 2 * precision * recall / (precision + recall)  # rounded as the official evaluators do: ties are theirs


def rouge_l(prediction: str, reference: str, tokenise: Tokenise | None = None) -> float:
    """F-measure of the longest common subsequence (ROUGE-L, Lin 2004), by ``rouge-score`` without stemmer.

    0 where either side has no tokens.

    Args:
        prediction: the answer.
        reference: what it should say.
        tokenise: makes tokens of a text. ``None`` is the stock tokeniser of ``rouge-score``, which sees only a to z and
            0 to 9 and so scores 0 for identical Arabic or Thai; ``segmentation.unicode_tokens`` takes any script.
    """
    from rouge_score import rouge_scorer, tokenizers  # type: ignore[import-untyped]

    # The default is named because leaving it out logs a line for every sample.
    tokenizer = _Tokenizer(tokenise) if tokenise else tokenizers.DefaultTokenizer(use_stemmer=False)
    scorer = rouge_scorer.RougeScorer(["rougeL"], tokenizer=tokenizer)
    return float(scorer.score(target=reference, prediction=prediction)["rougeL"].fmeasure)


@dataclass(frozen=True)
class _Tokenizer:
    """What ``rouge-score`` takes for a tokeniser."""

    tokenize: Tokenise


def sentence_bleu(prediction: str, references: Sequence[str], max_order: int = 4) -> float:
    """BLEU (Papineni et al. 2002) of one text against all its references together, by ``sacrebleu``.

    With the defaults of ``sacrebleu.sentence_bleu``: tokeniser 13a, case kept, exponential smoothing of orders without
    a match, orders longer than the prediction left out (effective order), brevity penalty by the closest reference
    length.

    Args:
        prediction: the answer.
        references: right answers, at least one.
        max_order: longest n-gram: 1 for BLEU-1, 4 for BLEU-4.

    Raises:
        ValueError: there are no references.
    """
    from sacrebleu.metrics.bleu import BLEU

    if not references:
        raise ValueError("BLEU without references")
    score = BLEU(max_ngram_order=max_order, effective_order=True).sentence_score(prediction, references).score
    return min(1.0, score / 100)  # the mean of logarithms can end an ulp above 100


def chrf(prediction: str, reference: str) -> float:
    """chrF2 (Popović 2015): F of character n-grams up to 6, recall weighted twice as much, by ``sacrebleu``.

    With its defaults: case kept, white space left out, no word n-grams, orders longer than either text left out.
    """
    from sacrebleu.metrics.chrf import CHRF

    return float(CHRF().sentence_score(prediction, [reference]).score) / 100
