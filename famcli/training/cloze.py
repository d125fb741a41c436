"""Questions about any text: which name or number is missing from one of its sentences?"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from famcli.errors import UserError
from famcli.files import write_text
from famcli.training.material import read_texts

GAP = "____"
QUESTION = 'Which word is missing? "{sentence}"'

SENTENCE = re.compile(r"[^.!?]+[.!?]")
NAME_OR_NUMBER = re.compile(r"(?<=[a-z,;] )(?:[A-Z][a-z]{2,}|\d{2,})\b")
"""A word that nothing but the text can tell: capitalised or a number, and not where a sentence begins."""

SHORTEST, LONGEST = 40, 240
"""Characters of a sentence that is asked about."""


@dataclass(frozen=True)
class Cloze:
    """A passage, a question about it, and its answer: a line of the JSONL that ``--qa`` takes."""

    document: str
    question: str
    answer: str


def draw_clozes(text: str, characters: tuple[int, int], questions: int, rng: np.random.Generator) -> Iterator[Cloze]:
    """Cuts a text into passages and asks about sentences in them.

    Args:
        text: a book, say.
        characters: least and most of a passage, which ends with a paragraph where one ends in its last half.
        questions: most about a passage; the answer to one is not to be read in its question.
        rng: what decides where passages end and what is asked.
    """
    start = 0
    while start + characters[0] <= len(text):
        stop = min(len(text), start + int(rng.integers(characters[0], characters[1] + 1)))
        paragraph = text.rfind("\n\n", (start + stop) // 2, stop)
        stop = paragraph if paragraph > 0 else stop
        passage = text[start:stop].strip()
        found = list(_askable(passage))
        for i in sorted(rng.permutation(len(found))[:questions].tolist()):
            sentence, answer = found[i]
            yield Cloze(passage, QUESTION.format(sentence=sentence), answer)
        start = stop


def _askable(passage: str) -> Iterator[tuple[str, str]]:
    """Sentences of a passage with a gap, and what belongs there: no word that the passage uses as a common one."""
    common = set(re.findall(r"\b[a-z]+\b", passage))
    for match in SENTENCE.finditer(passage):
        sentence = " ".join(match.group().split())
        words = list(NAME_OR_NUMBER.finditer(sentence))
        if words and SHORTEST <= len(sentence) <= LONGEST:
            word = words[-1]
            with_gap = sentence[: word.start()] + GAP + sentence[word.end() :]
            if word.group() not in with_gap and word.group().lower() not in common:
                yield with_gap, word.group()


def write_clozes(
    directory: Path, file: Path, characters: tuple[int, int], questions: int, most: int, seed: int
) -> tuple[int, int]:
    """Writes questions about all ``.txt`` files of a directory to ``file``; gives the passages and the questions.

    Args:
        directory: of the texts.
        file: JSONL of ``{"document", "question", "answer"}``, written whole or not at all.
        characters: see ``draw_clozes``.
        questions: see ``draw_clozes``.
        most: passages to keep, drawn from all; 0 is all.
        seed: of what is drawn.

    Raises:
        UserError: there are no such files, nothing can be asked about them, or ``file`` cannot be written.
    """
    rng, passages = np.random.default_rng(seed), dict[str, list[Cloze]]()
    for text in read_texts(directory):
        for cloze in draw_clozes(text, characters, questions, rng):
            passages.setdefault(cloze.document, []).append(cloze)
    if not passages:
        raise UserError(f"nothing can be asked about the texts in {directory}", "they need names in their sentences")
    kept = set(rng.permutation(len(passages))[: most or None].tolist())
    chosen = [cloze for i, some in enumerate(passages.values()) if i in kept for cloze in some]
    lines = [json.dumps(asdict(cloze), ensure_ascii=False) for cloze in chosen]
    write_text(file, "\n".join(lines) + "\n", hint="give another --output")
    return len(kept), len(lines)
