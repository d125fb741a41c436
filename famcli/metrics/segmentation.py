"""Tokens of text in any script, where ROUGE's stock tokeniser knows ``a`` to ``z`` and the ten digits only."""

from __future__ import annotations

import unicodedata

import regex  # type: ignore[import-untyped]  # not re: scripts, grapheme clusters, marks as parts of words

# Script extensions, because signs such as the Japanese prolonged sound mark belong to several scripts.
_UNSPACED = "".join(rf"\p{{scx={script}}}" for script in ("Han", "Hira", "Kana", "Thai", "Laoo", "Khmr", "Mymr"))
_CLUSTER = rf"(?=[[{_UNSPACED}]&&[\p{{L}}\p{{N}}]])\X"
_WORD = rf"[[\p{{L}}\p{{N}}]--[{_UNSPACED}]][[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]*"
_TOKEN = regex.compile(f"{_CLUSTER}|{_WORD}", regex.V1)

# Joiners and marks of direction stand inside words in some writers' text and not in others'; the zero-width space parts
# words.
_INVISIBLE = regex.compile(r"[\p{Default_Ignorable_Code_Point}--\u200b]", regex.V1)


def unicode_tokens(text: str) -> list[str]:
    """Words, and single characters where the script writes no spaces between words.

    A word is a run of letters, their combining marks, and digits. Han, Japanese, Thai, Lao, Khmer and Burmese script is
    cut into grapheme clusters (a letter with its marks), because words would take a dictionary for each language;
    scores over clusters are not comparable with those over words. Case is folded, canonically equivalent spellings are
    one, invisible characters and punctuation are dropped. On ASCII text the tokens are those of ``rouge-score`` without
    stemmer.

    Turkish dotted capitals match their small letters; the undotted capital folds to the dotted small letter, as
    everywhere in Unicode without a language.
    """
    folded = unicodedata.normalize("NFD", _INVISIBLE.sub("", text)).casefold()
    # NFD has made the Turkish capital an I with a dot above it.
    plain = unicodedata.normalize("NFC", folded).replace("i\u0307", "i")
    return [str(token) for token in _TOKEN.findall(plain)]
