"""Remember and Rewrite (Rodkin et al. 2024, Associative Recurrent Memory Transformer, arXiv 2407.04841).

Pairs of a key and its value are told, one in each block of the text, and in the block behind them a key is asked for.
In Remember no two pairs have one key; in Rewrite a key may come again, and its latest value counts. Symbols are the
letters a to p, of which the official code has 16 as well. There a segment is a pair and nothing else; here filler makes
it a block of as many tokens as the option ``block`` says, start token and chat template included, so that a model whose
block is as long reads a pair a block. All keys of a text are asked for from copies of one reading of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from famcli.errors import UserError
from famcli.fields import parse_lengths
from famcli.task import Encoder, Generate, Generated, MetricSpec, Prompt, Sample, Task, option

from .drawing import Chance, parse_count, parse_counts, places
from .pieces import Filler, Ids, going_on, tokens_before
from .wordings import FILLER

LETTERS = "abcdefghijklmnop"
PAIR = "\n{key}:{value},\n"
QUESTION = "\n{key}:"
MOST_LETTERS = 4


def parse_letters(text: str) -> int:
    """How many letters a key or a value has."""
    if text not in map(str, range(1, MOST_LETTERS + 1)):
        raise ValueError(f"a whole number from 1 to {MOST_LETTERS}")
    return int(text)


def parse_block(text: str) -> int:
    """A number of tokens such as 512 or 4k."""
    lengths = parse_lengths(text)
    if len(lengths) > 1:
        raise ValueError("one number of tokens such as 512 or 4k")
    return lengths[0]


@dataclass(frozen=True)
class RememberOptions:
    """Options of ``Remember``."""

    pairs: tuple[int, ...] = option("1,5,20", "pairs of a key and its value, a block each", parse_counts)
    block: int = option("512", "tokens of a block; the model's block_size tells a memory from attention", parse_block)
    queries: int = option("8", "keys that are asked for, of each text; all where it has fewer", parse_count)
    trials: int = option("6", "texts in each cell", parse_count)
    key_symbols: int = option("3", f"symbols of a key, of {len(LETTERS)}", parse_letters)
    value_symbols: int = option("1", f"symbols of a value, of {len(LETTERS)}", parse_letters)


@dataclass(frozen=True)
class RewriteOptions(RememberOptions):
    """Options of ``Rewrite``."""

    pairs: tuple[int, ...] = option("5,20,50", "pairs of a key and its value, a block each", parse_counts)
    block: int = option("256", "tokens of a block; the model's block_size tells a memory from attention", parse_block)
    key_symbols: int = option("1", f"symbols of a key, of {len(LETTERS)}", parse_letters)


@dataclass(frozen=True)
class Draw:
    """A text: its name, its pairs in order, and the places of the pairs that are asked for."""

    document: str
    pairs: tuple[tuple[str, str], ...]
    asked: tuple[int, ...]


class Remember(Task):
    """Values of keys that are told once."""

    name = "remember"
    version = 1
    summary = "values of keys, a pair in each block of the text"
    metrics = (MetricSpec("exact_match"),)
    template = PAIR + FILLER + QUESTION
    again: ClassVar[bool] = False
    """Whether a key may come again."""
    Options = RememberOptions
    options: RememberOptions

    def samples(self, tokenizer: Encoder, seed: int, limit: int | None) -> list[Sample]:
        """See ``Task.samples``; a limit takes evenly from all numbers of pairs.

        Raises:
            UserError: there are more pairs than keys, a pair does not fit into a block, or there are too many samples.
        """
        options, keys = self.options, self._keys
        if not self.again and options.pairs[-1] > keys:
            raise UserError(
                f"task {self.name}: {options.pairs[-1]} pairs need a key each, and {options.key_symbols} of "
                f"{len(LETTERS)} symbols make {keys} keys",
                f"for example -o key_symbols={options.key_symbols + 1}",
            )
        cells = [(pairs, min(options.queries, pairs, keys)) for pairs in options.pairs]
        text = BlockText(self, tokenizer)
        taken = places(self.name, cells, options.trials, limit)
        return [
            sample for pairs, trial, queries in taken for sample in text.samples(self.draw(seed, pairs, trial, queries))
        ]

    @property
    def _keys(self) -> int:
        return int(len(LETTERS) ** self.options.key_symbols)

    def draw(self, seed: int, pairs: int, trial: int, queries: int) -> Draw:
        """It depends on the seed, the pairs, the trial and the symbols alone; ``queries`` cuts a fixed order."""
        options = self.options
        chance = Chance(self.name, seed, pairs, trial, options.key_symbols, options.value_symbols)
        keys = [chance.below(self._keys) for _ in range(pairs)] if self.again else chance.sample(self._keys, pairs)
        values = [chance.below(len(LETTERS) ** options.value_symbols) for _ in range(pairs)]
        latest = sorted({key: place for place, key in enumerate(keys)}.values())
        told = (
            (_letters(key, options.key_symbols), _letters(value, options.value_symbols))
            for key, value in zip(keys, values, strict=True)
        )
        asked = chance.shuffled(latest)[:queries]
        return Draw(f"{pairs}-pairs/{trial:03}", tuple(told), tuple(asked))


class Rewrite(Remember):
    """Values of keys that are told again and again: the latest counts."""

    name = "rewrite"
    summary = "latest values of keys that are told again and again, a pair in each block of the text"
    again = True
    Options = RewriteOptions
    options: RewriteOptions


class BlockText:
    """Texts of a pair a block, in one tokenizer's tokens."""

    def __init__(self, task: Remember, tokenizer: Encoder) -> None:
        self.task, self.block, self.tokenizer = task, task.options.block, tokenizer
        self.filler = Filler(FILLER, "\n", tokenizer)
        self.before = tokens_before(tokenizer)

    def samples(self, draw: Draw) -> list[Sample]:
        """A sample for each key that is asked for.

        Raises:
            UserError: a pair does not fit into its block.
        """
        told = [going_on(PAIR.format(key=key, value=value), self.tokenizer) for key, value in draw.pairs]
        least = max(len(told[0]) + self.before, *map(len, told))
        if least > self.block:
            raise UserError(
                f"task {self.task.name}: a block of {self.block} tokens is too short: with this tokenizer the least is "
                f"{least} tokens",
                f"for example -o block={least}",
            )
        return [self._sample(draw, told, place) for place in draw.asked]

    def _sample(self, draw: Draw, told: Sequence[Ids], place: int) -> Sample:
        key, value = draw.pairs[place]
        taken = len(told[place]) + (self.before if place == 0 else 0)
        return Sample(
            id=f"{draw.document}/{key}",
            cell={"pairs": len(told)},
            reference=value,
            request=partial(self.request, told, key),
            score=partial(score, value),
            document=draw.document,
            details={"distance": (len(told) - place) * self.block - taken},
        )

    def request(self, told: Sequence[Ids], key: str) -> Generate:
        """The blocks, and the question behind them."""
        parts: list[Ids] = []
        for number, pair in enumerate(told):
            parts += [pair, self.filler.tokens(self.block - len(pair) - (0 if number else self.before))]
        prompt = Prompt((np.concatenate(parts), QUESTION.format(key=key)), document=0)
        return Generate(prompt, self.task.options.value_symbols + 2)


def _letters(number: int, count: int) -> str:
    """A number as so many letters."""
    digits = [number // len(LETTERS) ** place % len(LETTERS) for place in range(count)]
    return "".join(LETTERS[digit] for digit in digits)


def score(value: str, answer: Generated) -> dict[str, float]:
    """``exact_match``: does the answer say the value and nothing else, up to a comma or the end of the line?"""
    return {"exact_match": float(re.split("[,\n]", answer.text)[0].strip() == value)}
