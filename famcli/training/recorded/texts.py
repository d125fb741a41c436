"""Texts of a few blocks that tell a key once, with the places of the key's tokens."""

from __future__ import annotations

import string
from dataclasses import astuple, dataclass

import numpy as np

from famcli.checkpoints.tokenizer import Tokenizer
from famcli.errors import UserError
from famcli.training.facts import NAMES, draw_filler
from famcli.training.material import KEY_TASK, words_of
from famcli.training.recorded.recipe import RecordedRecipe, Telling
from famcli.training.sources import Ids

BLOCKS = 2
"""Blocks of a text."""

MENTIONS = 2
"""Most times that a line tells its key."""

TOLD = ("first", "second", "cut", "never")
"""Where a text tells its key: in its first block, in its second, across both, or not at all."""

SHARES = (0.36, 0.34, 0.12, 0.18)


@dataclass(frozen=True)
class Text:
    """A text and what it tells.

    Attributes:
        ids: [BLOCKS * B]
        told: where, see ``TOLD``.
        telling: number of the way it is told.
        held: ids of what the slots are to hold: the tokens before the key, then those of the key.
        places: [held, MENTIONS] places of these tokens in ``ids``; those that stand there once have them twice. Past
            the end where the key is never told.
        question: ids, without the answer.
        said: ids of the answer as it is to be said: a space, the key, a full stop.
    """

    ids: list[int]
    told: str
    telling: int
    held: list[int]
    places: list[list[int]]
    question: list[int]
    said: list[int]


class Texts:
    """Draws texts of a recipe; the same ``rng`` gives the same text.

    Args:
        recipe: the words and the fillers.
        tokenizer: of the model.
        corpus: [n] ids of plain text.
    """

    def __init__(self, recipe: RecordedRecipe, tokenizer: Tokenizer, corpus: Ids) -> None:
        self.recipe, self.tokenizer, self.corpus = recipe, tokenizer, corpus
        description, filler, line, question = words_of(KEY_TASK, "description", "filler", "key_line", "question")
        self._classic = Telling(line, question)
        self._description = tokenizer.encode(description + "\n")
        first = tokenizer.encode(filler)
        self._filler = first + tokenizer.encode(" " + filler) * 2
        self._unit = len(self._filler) - len(first)
        self._newline = tokenizer.encode("\n")

    @property
    def first_question(self) -> list[int]:
        """Ids of the question of PassKey and the space after it."""
        return self.tokenizer.encode(self._classic.question + " ")

    @property
    def digits(self) -> list[int]:
        """Ids of what a key is made of."""
        return sorted(
            {i for digit in string.digits for i in self._key_in(self.tokenizer.encode(f" {digit}"), digit)[1]}
        )

    def draw(self, rng: np.random.Generator, block_size: int) -> Text:
        """A text of ``BLOCKS`` blocks.

        Raises:
            UserError: a line, or a question with its answer, takes more than a block.
        """
        told = TOLD[int(rng.choice(len(TOLD), p=SHARES))]
        classic = rng.random() < self.recipe.passkey
        number = len(self.recipe.tellings) if classic else int(rng.integers(len(self.recipe.tellings)))
        telling = self._classic if classic else self.recipe.tellings[number]
        key = self._key(rng)
        name = NAMES[int(rng.integers(len(NAMES)))]
        line, held, mentions = self._line(telling.line.format(key=key, name=name), key)
        head = self._head(rng, block_size, len(line))
        filler = self._around(rng, BLOCKS * block_size)
        ids, start = self._put(rng, told, head, line, filler, block_size)
        question = self.tokenizer.encode("\n" + telling.question.format(name=name))
        said = self.tokenizer.encode(f" {key}.")
        if (longest := max(len(line), len(question) + len(said))) > block_size:
            raise UserError(
                f"'{telling.line}' or its question takes {longest} tokens, more than a block of {block_size}",
                "longer blocks, or shorter words",
            )
        places = [[start + place for place in some] for some in mentions]
        return Text(ids, told, number, held, places, question, said)

    def _key(self, rng: np.random.Generator) -> str:
        low, high = self.recipe.key_digits
        count, recurs = int(rng.integers(low, high + 1)), rng.random() < self.recipe.recurring
        digits = rng.permutation(list(string.digits))[: 2 if recurs else 10]
        return "".join(digits[i] for i in rng.integers(0, len(digits), count))

    def _line(self, text: str, key: str) -> tuple[list[int], list[int], list[list[int]]]:
        """Ids of a line and of what is to be held of it, and where each token of that stands."""
        line, lead = self.tokenizer.encode(text) + self._newline, self.recipe.lead_slots
        found, answer = self._key_in(line, key)
        if not found:
            raise UserError(f"the tokens of the key {key} are not those it has in '{text}'", "put a space before {key}")
        if (first := found[0]) < lead:
            raise UserError(f"'{text}' has {first} tokens before its key, fewer than lead_slots ({lead})", "tell more")
        found += found[:1] * (MENTIONS - len(found))
        before = [[i] * MENTIONS for i in range(first - lead, first)]
        return (
            line,
            line[first - lead : first] + answer,
            before + [[at + j for at in found] for j in range(len(answer))],
        )

    def _key_in(self, line: list[int], key: str) -> tuple[list[int], list[int]]:
        """Where a key stands in a line, and its tokens there."""
        spaced = self.tokenizer.encode(f" {key}")
        split = self.tokenizer.decode(spaced[:1]).isspace()
        for answer in (spaced[1:] if split else spaced, self.tokenizer.encode(key)):
            found = [i for i in range(len(line)) if line[i : i + len(answer)] == answer][:MENTIONS]
            if found:
                return found, answer
        return [], []

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
