"""Multi-query associative recall (Arora et al. 2024, Zoology, arXiv 2312.04927): pairs, then their keys are asked for.

The text is symbols alone, whole numbers below 8192 in four digits: pairs of a key and its value, one behind the other,
then noise up to the length, then a key, whose value the model is to say. As in Zoology keys are of the lower half of
the symbols and values of the upper half, and none stands in two pairs. Two things differ. Each key is asked for right
behind the noise, from a copy of one reading of the text, where Zoology puts all queries into one sequence without
showing their values. And noise is of the upper half alone, so that a key stands once before it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial

import numpy as np

from famcli.errors import UserError
from famcli.fields import parse_lengths
from famcli.metrics.recall import first_digit_run
from famcli.task import Encoder, Generate, Generated, MetricSpec, Prompt, Sample, Task, option

from .drawing import Chance, parse_count, parse_counts, places
from .pieces import Ids, going_on, prompt_tokens

SYMBOLS = 8192
KEYS = SYMBOLS // 2 - 1
"""Symbol 0 is none of the keys, as in Zoology."""
SYMBOL = " {:04}"
NOISE_SYMBOLS = 1024
"""The noise is as many symbols in random order, over and over."""
GENERATION_BUDGET = 8
"""New tokens for a value, part of a sample's length: its space and its digits where each is a token, and some more."""


def parse_pairs(text: str) -> tuple[int, ...]:
    """Numbers of pairs with a key of its own each."""
    pairs = parse_counts(text)
    if pairs[-1] > KEYS:
        raise ValueError(f"whole numbers of at most {KEYS}")
    return pairs


@dataclass(frozen=True)
class MQAROptions:
    """Options of ``MQAR``."""

    pairs: tuple[int, ...] = option("4,16,64", "pairs of a key and its value in a text", parse_pairs)
    lengths: tuple[int, ...] = option(
        "1k,8k", "total lengths in tokens, question and answer included; what is left is noise", parse_lengths
    )
    queries: int = option("8", "keys that are asked for, of each text; all where it has fewer", parse_count)
    trials: int = option("6", "texts in each cell", parse_count)


@dataclass(frozen=True)
class Draw:
    """A text: its pairs in order, and the keys that are asked for."""

    length: int
    trial: int
    pairs: tuple[tuple[int, int], ...]
    asked: tuple[int, ...]

    @classmethod
    def of(cls, seed: int, cell: tuple[int, int], trial: int, queries: int) -> Draw:
        """It depends on the seed, the cell (pairs, length) and the trial alone; ``queries`` cuts a fixed order."""
        count, length = cell
        chance = Chance("mqar", seed, count, length, trial)
        keys = [1 + key for key in chance.sample(KEYS, count)]
        values = [SYMBOLS // 2 + value for value in chance.sample(SYMBOLS // 2, count)]
        asked = [keys[place] for place in chance.sample(count, min(queries, count))]
        return cls(length, trial, tuple(zip(keys, values, strict=True)), tuple(asked))

    @property
    def document(self) -> str:
        """The name of the text."""
        return f"{len(self.pairs)}-pairs/{self.length}/{self.trial:03}"


class MQAR(Task):
    """Recall of many values by their keys, see the module."""

    name = "mqar"
    version = 1
    summary = "multi-query associative recall: values of keys, in pairs that stand before noise"
    metrics = (MetricSpec("accuracy"),)
    template = SYMBOL
    Options = MQAROptions
    options: MQAROptions

    def samples(self, tokenizer: Encoder, seed: int, limit: int | None) -> list[Sample]:
        """See ``Task.samples``; a limit takes evenly from all cells.

        Raises:
            UserError: a length is too short for the pairs, or there are too many samples.
        """
        options = self.options
        cells = [
            ((pairs, length), min(options.queries, pairs)) for pairs in options.pairs for length in options.lengths
        ]
        text = MQARText(tokenizer)
        taken = places(self.name, cells, options.trials, limit)
        return [
            sample for cell, trial, queries in taken for sample in text.samples(Draw.of(seed, cell, trial, queries))
        ]


class MQARText:
    """The parts of the text in one tokenizer's tokens. Each symbol has the same tokens wherever it stands."""

    def __init__(self, tokenizer: Encoder) -> None:
        self.tokenizer = tokenizer
        self.symbol = cache(lambda symbol: going_on(SYMBOL.format(symbol), tokenizer))

    def symbols(self, symbols: Sequence[int]) -> Ids:
        """Token ids [t] of symbols behind one another."""
        return np.concatenate([self.symbol(symbol) for symbol in symbols])

    @cached_property
    def noise_unit(self) -> list[Ids]:
        """Token ids of each symbol of the noise."""
        drawn = Chance("mqar noise").sample(SYMBOLS // 2, NOISE_SYMBOLS)
        return [self.symbol(SYMBOLS // 2 + symbol) for symbol in drawn]

    def noise(self, room: int) -> int:
        """The most tokens that are whole symbols of the noise, at most ``room`` of them."""
        ends = np.cumsum([len(ids) for ids in self.noise_unit])
        whole, rest = divmod(room, int(ends[-1]))
        return whole * int(ends[-1]) + int(ends[ends <= rest].max(initial=0))

    def samples(self, draw: Draw) -> list[Sample]:
        """A sample for each key that is asked for.

        Raises:
            UserError: the pairs do not fit.
        """
        told = self.symbols([symbol for pair in draw.pairs for symbol in pair])
        around = max(prompt_tokens((told, SYMBOL.format(key)), self.tokenizer) for key in draw.asked)
        room = draw.length - GENERATION_BUDGET - around
        if room < 0:
            raise UserError(
                f"task mqar: length {draw.length} is too short for {len(draw.pairs)} pairs: with this tokenizer the "
                f"least is {draw.length - room} tokens",
                f"for example -o lengths={draw.length - room}, or fewer -o pairs",
            )
        noise = self.noise(room)
        values, places = dict(draw.pairs), {key: place for place, (key, _) in enumerate(draw.pairs)}
        return [
            Sample(
                id=f"{draw.document}/{key:04}",
                cell={"pairs": len(draw.pairs), "length": draw.length},
                reference=f"{values[key]:04}",
                request=partial(self.request, told, noise, key),
                score=partial(score, f"{values[key]:04}"),
                document=draw.document,
                details={"distance": self._behind(draw, places[key]) + noise},
            )
            for key in draw.asked
        ]

    def _behind(self, draw: Draw, place: int) -> int:
        """Tokens of the pairs behind one of them."""
        return sum(len(self.symbol(symbol)) for pair in draw.pairs[place + 1 :] for symbol in pair)

    def request(self, told: Ids, noise: int, key: int) -> Generate:
        """The pairs, the noise and the key."""
        text = np.concatenate((told, np.resize(np.concatenate(self.noise_unit), noise)))
        return Generate(Prompt((text, SYMBOL.format(key)), document=0), GENERATION_BUDGET)


def score(value: str, answer: Generated) -> dict[str, float]:
    """``accuracy``: is the first run of digits the value?"""
    return {"accuracy": float(first_digit_run(answer.text) == value)}
