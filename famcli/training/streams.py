"""Endless token streams to train on, each a pure function of its seed and of how far it has been read."""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from famcli.errors import UserError
from famcli.models.tokenizer import Tokenizer
from famcli.training.recipe import KeyPlaces

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Question:
    """A question that can be answered once ``known_from`` tokens of its stream are read."""

    known_from: int
    text: Ids
    answer: Ids


class Stream(Protocol):
    """A text without end, with perhaps a question about it."""

    @property
    def question(self) -> Question | None: ...

    def tokens(self, start: int, count: int) -> Ids:
        """Tokens ``start`` .. ``start + count - 1``: [count]."""
        ...


@dataclass(frozen=True)
class Filler:
    """A unit of tokens repeated without end."""

    unit: Ids
    question: None = None

    def tokens(self, start: int, count: int) -> Ids:
        return self.unit[np.arange(start, start + count) % len(self.unit)]


@dataclass(frozen=True)
class PlainText:
    """A corpus read from ``offset`` on, round and round: [n] ids."""

    corpus: Ids
    offset: int
    question: None = None

    def tokens(self, start: int, count: int) -> Ids:
        places = np.arange(self.offset + start, self.offset + start + count)
        return self.corpus.take(places, mode="wrap").astype(np.int64)


@dataclass(frozen=True)
class KeyInFiller:
    """Description, filler, key line at ``key_at``, filler without end: a PassKey prompt that never stops."""

    head: Ids
    filler: Filler | PlainText
    key_line: Ids
    key_at: int
    question: Question

    def tokens(self, start: int, count: int) -> Ids:
        out = self.filler.tokens(start, count).copy()
        for part, at in ((self.head, 0), (self.key_line, self.key_at)):
            low, high = max(start, at), min(start + count, at + len(part))
            if low < high:
                out[low - start : high - start] = part[low - at : high - at]
        return out


class PasskeyStreams:
    """Draws ``KeyInFiller`` streams in the words of the PassKey task."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        from famcli.tasks.passkey import DESCRIPTION, FILLER, KEY_LINE, QUESTION

        self._key_line, self._tokenizer = KEY_LINE, tokenizer
        self._head, self._question = self._encode(DESCRIPTION + "\n"), self._encode("\n" + QUESTION)
        self._unit = self._encode(FILLER + " ")

    def _encode(self, text: str) -> Ids:
        return np.array(self._tokenizer.encode(text), np.int64)

    def draw(
        self, rng: np.random.Generator, places: KeyPlaces, block_size: int, longest_wait: int, text: PlainText | None
    ) -> KeyInFiller:
        """A stream with a random key; a quarter of them has the description; without it the key line can come early.

        Args:
            rng: what decides everything.
            places: shares of the keys by where they stand.
            block_size: ``B`` in tokens.
            longest_wait: most blocks before a key that comes later.
            text: filler to use in place of the classic one.
        """
        key = "".join(map(str, rng.integers(0, 10, 5)))
        shares = np.array([places.at_once, places.soon, places.later])
        soon, later = rng.integers(block_size // 2, 3 * block_size), rng.integers(0, block_size * longest_wait)
        wait = int((0, soon, later)[rng.choice(3, p=shares / shares.sum())])
        line = self._encode(self._key_line.format(key=key) + "\n")
        if wait:
            line = np.concatenate((self._encode("\n"), line))
        filler = text or Filler(np.roll(self._unit, int(rng.integers(0, len(self._unit)))))
        head = self._head[: 0 if rng.integers(0, 4) else None]
        key_at = len(head) + wait
        question = Question(key_at + len(line), self._question, self._encode(f" {key}\n"))
        return KeyInFiller(head, filler, line, key_at, question)


def draw_repeat(rng: np.random.Generator, tokenizer: Tokenizer) -> Filler:
    """A string of 8 to 39 random characters, or 12 to 39 digits, over and over."""
    digits = rng.integers(0, 4) == 0
    alphabet = string.digits if digits else string.printable[:95]
    characters = rng.integers(0, len(alphabet), rng.integers(12 if digits else 8, 40))
    return Filler(np.array(tokenizer.encode("".join(alphabet[i] for i in characters)), np.int64))


def load_corpus(directory: Path, tokenizer: Tokenizer) -> Ids:
    """All ``.txt`` files of a directory, in order of name, as one row of ids.

    Raises:
        UserError: there is no such text.
    """
    files = sorted(directory.glob("*.txt")) if directory.is_dir() else []
    if not files:
        raise UserError(f"no .txt files in {directory}", "`make training-text` prepares the text the recipes use")
    pieces = [np.array(tokenizer.encode(f.read_text(encoding="utf-8")), np.uint16) for f in files]
    return np.concatenate(pieces)
