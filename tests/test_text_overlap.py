"""Overlap scores against the libraries they rest on, documented examples, and definitions written a second time."""

from __future__ import annotations

import functools
import math
import re
import string
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from statistics import mean

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer, tokenize  # type: ignore[import-untyped]

from famcli.metrics.segmentation import unicode_tokens
from famcli.metrics.text_overlap import (
    chrf,
    normalize_answer,
    rouge_l,
    sentence_bleu,
    token_f1,
)

# A sentence in each of the paper's eleven XL-Sum languages, and its tokens.
SENTENCES = {
    "ar": ("القطار يصل إلى المدينة غدًا.", "القطار|يصل|إلى|المدينة|غدًا"),
    "bn": ("নদীর জল আজ বাড়ছে।", "নদীর|জল|আজ|বাড়ছে"),
    "en": ("The river rises today.", "the|river|rises|today"),
    "id": ("Air sungai naik hari ini.", "air|sungai|naik|hari|ini"),
    "ja": ("川のデータ、「届いた」。", "川|の|デ|ー|タ|届|い|た"),
    "ko": ("오늘 강물이 불어난다.", "오늘|강물이|불어난다"),
    "ru": ("Вода в реке поднимается!", "вода|в|реке|поднимается"),
    "sw": ("Maji ya mto yanapanda leo.", "maji|ya|mto|yanapanda|leo"),
    "te": ("నది నీరు ఈరోజు పెరుగుతోంది.", "నది|నీరు|ఈరోజు|పెరుగుతోంది"),
    "th": ("น้ำในแม่น้ำขึ้นวันนี้", "น้ำ|ใ|น|แ|ม่|น้ำ|ขึ้|น|วั|น|นี้"),
    "tr": ("İstanbul'da sular bugün yükseliyor.", "istanbul|da|sular|bugün|yükseliyor"),
}
UNSEEN_BY_STOCK_ROUGE = {"ar", "bn", "ja", "ko", "ru", "te", "th"}
UNSPACED = {"ja", "th"}

words = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat"]))
answers = words.map(" ".join)
multilingual = st.lists(st.sampled_from([word for _, tokens in SENTENCES.values() for word in tokens.split("|")])).map(
    " ".join
)
every_metric = pytest.mark.parametrize(
    "metric",
    [
        token_f1,
        rouge_l,
        functools.partial(rouge_l, tokenise=unicode_tokens),
        lambda prediction, reference: sentence_bleu(prediction, [reference]),
        chrf,
    ],
    ids=["token_f1", "rouge_l", "rouge_l_unicode", "bleu", "chrf"],
)


def lcs_f(a: list[str], b: list[str]) -> float:
    """ROUGE-L's F from its definition, by recursion over suffixes."""

    @functools.cache
    def longest(i: int, j: int) -> int:
        if i == len(a) or j == len(b):
            return 0
        if a[i] == b[j]:
            return 1 + longest(i + 1, j + 1)
        return max(longest(i + 1, j), longest(i, j + 1))

    common = longest(0, 0)
    if not common:
        return 0.0
    precision, recall = common / len(a), common / len(b)
    return 2 / (1 / precision + 1 / recall)


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("A-team", "ateam"),
        ("The  Cat,\n sat!", "cat sat"),
        ("an apple a day", "apple day"),
        ("theatre of another", "theatre of another"),
        ("U.S.A.", "usa"),
        ("“The” end", "“ ” end"),
        ("a", ""),
        ("...", ""),
        ("", ""),
    ],
)
def test_squad_normalisation(text: str, normalized: str) -> None:
    assert normalize_answer(text) == normalized


def test_scrolls_documented_example() -> None:
    """The example in the documentation of SCROLLS' metric, per cent."""
    predictions = ["exact match example", "hello there", "general kenobi"]
    references = [["exact match example"], ["hello", "hi there"], ["commander kenobi"]]

    def score(metric: Callable[[str, str], float]) -> float:
        best = [max(metric(p, r) for r in rs) for p, rs in zip(predictions, references, strict=True)]
        return 100 * mean(best)

    assert score(token_f1) == pytest.approx(72.2222, abs=1e-4)
    assert score(rouge_l) == pytest.approx(72.2222, abs=1e-4)


@given(words, words)
def test_token_f1_is_dice_of_the_multisets(predicted: list[str], expected: list[str]) -> None:
    left = [word for word in expected if word not in {"the", "a"}]
    sizes = len(left) + sum(word not in {"the", "a"} for word in predicted)
    common = 0
    for word in predicted:
        if word in left:
            left.remove(word)
            common += 1
    f1 = token_f1(" ".join(predicted), " ".join(expected))
    assert f1 == pytest.approx(2 * common / sizes if sizes else 0)


@pytest.mark.parametrize(
    ("prediction", "reference"), [("", ""), ("the", "!"), (" ", "A"), ("the", "cat"), ("cat", "the")]
)
def test_a_side_without_words_scores_zero(prediction: str, reference: str) -> None:
    assert token_f1(prediction, reference) == 0


@given(answers, answers)
def test_rouge_agrees_with_the_library_and_with_the_definition(prediction: str, reference: str) -> None:
    scores = rouge_scorer.RougeScorer(["rougeL"]).score(reference, prediction)
    assert rouge_l(prediction, reference) == scores["rougeL"].fmeasure
    assert rouge_l(prediction, reference) == pytest.approx(lcs_f(prediction.split(), reference.split()))


@given(multilingual, multilingual)
def test_multilingual_rouge_is_the_lcs_of_the_tokens(prediction: str, reference: str) -> None:
    expected = lcs_f(unicode_tokens(prediction), unicode_tokens(reference))
    assert rouge_l(prediction, reference, unicode_tokens) == pytest.approx(expected)


@every_metric
@given(text=multilingual, other=multilingual)
def test_scores_stay_between_0_and_1(metric: Callable[[str, str], float], text: str, other: str) -> None:
    assert 0 <= metric(text, other) <= 1


@every_metric
@given(text=words.filter(lambda found: bool({"cat", "sat", "on", "mat"} & set(found))).map(" ".join))
def test_identical_is_1_and_disjoint_0(metric: Callable[[str, str], float], text: str) -> None:
    assert metric(text, text) == pytest.approx(1)
    assert metric(text, "dig lug") == metric("dig lug", text) == 0


@pytest.mark.parametrize("metric", [token_f1, rouge_l, functools.partial(rouge_l, tokenise=unicode_tokens)])
@given(text=multilingual, other=multilingual)
def test_f_measures_are_symmetric(metric: Callable[[str, str], float], text: str, other: str) -> None:
    assert metric(text, other) == pytest.approx(metric(other, text))


@pytest.mark.parametrize("language", SENTENCES)
def test_tokens_of_each_language(language: str) -> None:
    text, tokens = SENTENCES[language]
    assert unicode_tokens(text) == unicodedata.normalize("NFC", tokens).split("|")


@pytest.mark.parametrize("language", SENTENCES)
def test_identical_scores_1_and_disjoint_0_in_each_language(language: str) -> None:
    text, _ = SENTENCES[language]
    assert rouge_l(text, text, unicode_tokens) == 1
    for other in SENTENCES.keys() - {language}:
        assert rouge_l(text, SENTENCES[other][0], unicode_tokens) == 0


def test_stock_rouge_gives_identical_texts_0_in_seven_languages() -> None:
    zeros = {language for language, (text, _) in SENTENCES.items() if rouge_l(text, text) == 0}
    assert zeros == UNSEEN_BY_STOCK_ROUGE


@pytest.mark.parametrize("language", sorted(SENTENCES.keys() - UNSPACED))
def test_words_keep_their_marks(language: str) -> None:
    """Against words found by the general category of each character, and against what the pattern \\w would make."""
    folded = unicodedata.normalize("NFC", SENTENCES[language][0].casefold().replace("i\u0307", "i"))
    spaced = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in folded)
    assert unicode_tokens(SENTENCES[language][0]) == spaced.split()
    broken = re.findall(r"\w+", folded) != spaced.split()
    assert broken == (language in {"ar", "bn", "te"})


@given(st.text(string.printable))
def test_on_ascii_the_tokens_are_the_stock_ones(text: str) -> None:
    assert unicode_tokens(text) == tokenize.tokenize(text, None)


@given(st.text())
def test_equivalent_spellings_have_the_same_tokens(text: str) -> None:
    expected = unicode_tokens(text)
    assert unicode_tokens(unicodedata.normalize("NFD", text)) == expected
    assert unicode_tokens(unicodedata.normalize("NFC", text)) == expected


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("కోర్టు\u200cలో", ["కోర్టులో"]),
        ("co\u00adoperate\u200f", ["cooperate"]),
        ("two\u200bwords", ["two", "words"]),
        ("AKB48が", ["akb48", "が"]),
        ("か\u3099く", ["が", "く"]),
        ("えーー", ["え", "ー", "ー"]),
        ("İki iki", ["iki", "iki"]),
        ("STRASSE straße", ["strasse", "strasse"]),
        ("۲۰۲۴ ২০", ["۲۰۲۴", "২০"]),
        ("❤\ufe0f — \u0301 ।", []),
    ],
)
def test_tokens_of_difficult_text(text: str, tokens: list[str]) -> None:
    assert unicode_tokens(text) == tokens


@given(words.map(" ".join), st.lists(answers, min_size=1, max_size=3))
def test_bleu_4_agrees_with_the_library(prediction: str, references: list[str]) -> None:
    expected = sacrebleu.sentence_bleu(prediction, references).score / 100
    assert sentence_bleu(prediction, references) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prediction", "references", "max_order", "bleu"),
    [
        # Papineni et al.: "the" is counted as often as one reference has it; the closest reference is as long.
        ("the the the the the the the", ["the cat is on the mat", "there is a cat on the mat"], 1, 2 / 7),
        ("the cat", ["the cat sat down"], 1, math.exp(1 - 4 / 2)),
        ("The cat", ["the cat"], 1, 1 / 2),
        ("the cat sat on the mat", ["the cat sat on a mat"], 4, (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** (1 / 4)),
        # Orders 3 and 4 have no match: a half and a quarter of one.
        ("the cat sat here", ["the cat ran here"], 4, (3 / 4 * 1 / 3 * (1 / 2 / 2) * (1 / 4 / 1)) ** (1 / 4)),
        ("cat", ["cat"], 4, 1),
        ("", ["cat"], 4, 0),
    ],
)
def test_bleu_by_hand(prediction: str, references: list[str], max_order: int, bleu: float) -> None:
    assert sentence_bleu(prediction, references, max_order) == pytest.approx(bleu)


def test_bleu_needs_a_reference() -> None:
    with pytest.raises(ValueError, match="without references"):
        sentence_bleu("cat", [])


@given(answers, answers)
def test_chrf_agrees_with_the_library(prediction: str, reference: str) -> None:
    assert chrf(prediction, reference) == sacrebleu.sentence_chrf(prediction, [reference]).score / 100


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        # Precision and recall are the mean over orders 1 to 3: 2/3, 1/2 and 0.
        ("abc", "abd", 7 / 18),
        # Orders 1 and 2: precision 1, recall the mean of 2/4 and 1/3; F2 = 5PR / (4P + R).
        ("ab", "abab", 5 * (5 / 12) / (4 + 5 / 12)),
        ("a b", "ab", 1),
        ("Ab", "ab", 1 / 4),
    ],
)
def test_chrf_by_hand(prediction: str, reference: str, score: float) -> None:
    assert chrf(prediction, reference) == pytest.approx(score)


def test_scoring_libraries_are_not_imported_before_they_are_used() -> None:
    code = (
        "import sys, famcli.metrics.text_overlap, famcli.metrics.segmentation\n"
        "assert not {'nltk', 'absl', 'rouge_score', 'sacrebleu'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
