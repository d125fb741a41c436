"""Texts of a few blocks in which a line tells a key, with the places of the key's tokens."""

from __future__ import annotations

import string
from dataclasses import astuple, dataclass

import numpy as np

from famcli.checkpoints.tokenizer import Tokenizer
from famcli.errors import UserError
from famcli.training.facts import NAMES, draw_filler
from famcli.training.material import KEY_TASK, words_of
from famcli.training.recorded.recipe import RecordedRecipe
from famcli.training.sources import Ids

BLOCKS = 2
"""Blocks of a text."""

TOLD = ("first", "second", "cut", "never")
"""Where a text tells its key: in its first block, in its second, across both, or not at all."""

SHARES = (0.36, 0.34, 0.12, 0.18)


@dataclass(frozen=True)
class Text:
    """A text and what it tells.

    Attributes:
        ids: [BLOCKS * B]
        told: where, see ``TOLD``.
        places: places in ``ids`` of the tokens of the key, each time that the line has it. Past the end where the key
            is never told.
    """

    ids: list[int]
    told: str
    places: list[int]


class Texts:
    """Draws texts of a recipe; the same ``rng`` gives the same text.

    Args:
        recipe: the words and the fillers.
        tokenizer: of the model.
        corpus: [n] ids of plain text.
    """

    def __init__(self, recipe: RecordedRecipe, tokenizer: Tokenizer, corpus: Ids) -> None:
        self.recipe, self.tokenizer, self.corpus = recipe, tokenizer, corpus
        description, filler, line = words_of(KEY_TASK, "description", "filler", "key_line")
        self._classic = line
        self._description = tokenizer.encode(description + "\n")
        first = tokenizer.encode(filler)
        self._filler = first + tokenizer.encode(" " + filler) * 2
        self._unit = len(self._filler) - len(first)
        self._newline = tokenizer.encode("\n")

    def draw(self, rng: np.random.Generator, block_size: int) -> Text:
        """A text of ``BLOCKS`` blocks.

        Raises:
            UserError: a line takes more than a block.
        """
        told = TOLD[int(rng.choice(len(TOLD), p=SHARES))]
        classic = rng.random() < self.recipe.passkey
        tellings = self.recipe.tellings
        telling = self._classic if classic else tellings[int(rng.integers(len(tellings)))]
        key, name = self._key(rng), NAMES[int(rng.integers(len(NAMES)))]
        line, mentioned = self._line(telling.format(key=key, name=name), key)
        if len(line) > block_size:
            raise UserError(
                f"'{telling}' takes {len(line)} tokens, more than a block of {block_size}",
                "longer blocks, or shorter words",
            )
        head = self._head(rng, block_size, len(line))
        filler = self._around(rng, BLOCKS * block_size)
        ids, start = self._put(rng, told, head, line, filler, block_size)
        return Text(ids, told, [start + place for place in mentioned])

    def _key(self, rng: np.random.Generator) -> str:
        low, high = self.recipe.key_digits
        count, recurs = int(rng.integers(low, high + 1)), rng.random() < self.recipe.recurring
        digits = rng.permutation(list(string.digits))[: 2 if recurs else 10]
        return "".join(digits[i] for i in rng.integers(0, len(digits), count))

    def _line(self, text: str, key: str) -> tuple[list[int], list[int]]:
        """Ids of a line, and where the tokens of the key stand in it."""
        line = self.tokenizer.encode(text) + self._newline
        spaced = self.tokenizer.encode(f" {key}")
        split = self.tokenizer.decode(spaced[:1]).isspace()
        forms = (spaced[1:] if split else spaced, self.tokenizer.encode(key))
        found = {i: len(form) for form in forms for i in range(len(line)) if line[i : i + len(form)] == form}
        if len(found) < text.count(key):
            raise UserError(f"the tokens of the key {key} are not those it has in '{text}'", "put a space before {key}")
        return line, [first + j for first, count in sorted(found.items()) for j in range(count)]

    def _head(self, rng: np.random.Generator, block_size: int, line: int) -> list[int]:
        """What a text begins with: the description of PassKey, the start of a text, or nothing of note."""
        if rng.random() < 0.3 and len(self._description) + line < block_size:
            return self._description
        start = self.tokenizer.text_start
        return [start] if start is not None and rng.random() < 0.5 else []

    def _around(self, rng: np.random.Generator, count: int) -> list[int]:
        shares = np.array(astuple(self.recipe.fillers))
        kind = int(rng.choice(len(shares), p=shares / shares.sum()))
        if kind == 2:
            at = int(rng.integers(0, max(1, len(self.corpus) - count)))
            return [int(i) for i in self.corpus.take(range(at, at + count), mode="wrap")]
        if kind == 1:
            unit = self.tokenizer.encode(draw_filler(rng))
            return [int(i) for i in np.resize(unit, count)]
        at = int(rng.integers(0, self._unit))
        return [int(i) for i in np.resize(self._filler[-self._unit :], at + count)[at:]]

    def _put(
        self, rng: np.random.Generator, told: str, head: list[int], line: list[int], filler: list[int], size: int
    ) -> tuple[list[int], int]:
        """The whole text, and where the line begins."""
        whole = BLOCKS * size
        if told == "never":
            return (head + filler)[:whole], whole
        if told == "cut":
            start = max(len(head) + 1, size - int(rng.integers(1, len(line))))
        else:
            first, last = (len(head), size - len(line)) if told == "first" else (size, whole - len(line))
            early = rng.random() < 0.15
            start = first if early else int(rng.integers(first, max(first, last) + 1))
        before = filler[: start - len(head)]
        if before:
            before = before[:-1] + self._newline[:1]
        return (head + before + line + filler[len(before) :])[:whole], start
