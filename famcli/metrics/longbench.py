"""The scores of LongBench (Bai et al. 2023, arXiv 2308.14508) that are its own, all from 0 to 1; and v2's letters.

They give what the official evaluation gives, its accidents with them. F1 is ``text_overlap.token_f1``.
"""

from __future__ import annotations

import difflib
import re
import string
from collections import Counter
from collections.abc import Sequence

_ZH_PUNCTUATION = (
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃"
    "》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."
)
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation + _ZH_PUNCTUATION)


def chosen_letter(answer: str) -> str | None:
    """The letter that an answer of LongBench v2 (arXiv 2412.15204) says in the words it was asked for, or ``None``.

    Asterisks, with which models print in bold, do not count. A letter in brackets comes before one without.
    """
    plain = answer.replace("*", "")
    found = re.search(r"The correct answer is \(([A-D])\)", plain) or re.search(r"The correct answer is ([A-D])", plain)
    return found[1] if found else None


def number_share(prediction: str, number: str) -> float:
    """Share of the numbers in the prediction that are ``number`` as it is written; 0 without numbers."""
    said = re.findall(r"\d+", prediction)
    return said.count(number) / len(said) if said else 0.0


def code_similarity(prediction: str, reference: str) -> float:
    """Likeness of characters, in hundredths, of the first line that is code: without a backtick, ``#`` and ``//``."""
    lines = prediction.lstrip("\n").split("\n")
    code = next((line for line in lines if "`" not in line and "#" not in line and "//" not in line), "")
    if code == reference:
        return 1.0
    return round(100 * difflib.SequenceMatcher(None, code, reference).ratio()) / 100 if code and reference else 0.0


def class_share(prediction: str, reference: str, classes: Sequence[str]) -> float:
    """One over the number of classes that the prediction names, where the right one is among them, else 0.

    A class whose name is a part of the right one's does not count; the official script leaves out each second of
    several such in a row, and so does this.
    """
    named = [name for name in classes if name in prediction]
    for name in named:
        if name in reference and name != reference:
            named.remove(name)
    return 1 / len(named) if reference in named else 0.0


def rouge_l_of_sets(prediction: str, reference: str) -> float:
    """ROUGE-L as the package ``rouge`` has it, which is not that of ``rouge-score``.

    Sentences end at full stops, words at spaces. Of the words that the longest common subsequences of all pairs of
    sentences hold, each counts once, and so do the words of either text.
    """
    said, wanted = _sentences(prediction), _sentences(reference)
    if not said or not wanted:
        return 0.0
    common: set[str] = set()
    for sentence in wanted:
        for other in said:
            common |= _common(sentence.split(" "), other.split(" "))
    precision = len(common) / len({word for sentence in said for word in sentence.split(" ")})
    recall = len(common) / len({word for sentence in wanted for word in sentence.split(" ")})
    return 2 * precision * recall / (precision + recall + 1e-8)


def _sentences(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split(".") if part]


def _common(first: Sequence[str], second: Sequence[str]) -> set[str]:
    """The words of the longest common subsequence; of several the one that the package finds."""
    table = [[0] * (len(second) + 1)]
    for word in first:
        above, row = table[-1], [0]
        for place, other in enumerate(second):
            row.append(above[place] + 1 if word == other else max(above[place + 1], row[place]))
        table.append(row)
    i, j = len(first), len(second)
    found = set()
    while i and j:
        if first[i - 1] == second[j - 1]:
            found.add(first[i - 1])
            i, j = i - 1, j - 1
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found


def chinese_words(text: str) -> list[str]:
    """Words as ``jieba`` cuts them, punctuation with them.

    Raises:
        ImportError: ``jieba`` is not installed.
    """
    import logging

    import jieba

    jieba.setLogLevel(logging.ERROR)
    return list(jieba.cut(text, cut_all=False))


def chinese_rouge_l(prediction: str, reference: str) -> float:
    """``rouge_l_of_sets`` of ``chinese_words``."""
    return rouge_l_of_sets(" ".join(chinese_words(prediction)), " ".join(chinese_words(reference)))


def chinese_f1(prediction: str, reference: str) -> float:
    """F1 of ``chinese_words`` in lower case without punctuation, counted with their repetitions."""
    said, wanted = (_normal_words(text) for text in (prediction, reference))
    common = (Counter(said) & Counter(wanted)).total()
    if not common:
        return 0.0
    precision, recall = common / len(said), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def _normal_words(text: str) -> list[str]:
    words = ("".join(word.lower().translate(_NO_PUNCTUATION).split()) for word in chinese_words(text))
    return [word for word in words if word]
