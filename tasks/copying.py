"""Copy and Reverse (Bulatov et al. 2022, Recurrent Memory Transformer, arXiv 2207.06881, A.1).

The text is digits that are drawn one by one, then a few words; the model is to say the digits twice, or once from the
last to the first. The answer is generated, not predicted symbol by symbol behind the right ones as in the paper: a
digit that is left out moves all behind it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from famcli.task import Encoder, Generate, Generated, MetricSpec, Prompt, Sample, Task, option

from .drawing import Chance, parse_count, parse_counts, places

SYMBOLS = "0123456789"
BEGINNING = "Symbols:"
COPY_CUE, REVERSE_CUE = "\nThe same symbols twice:", "\nThe same symbols from the last to the first:"


@dataclass(frozen=True)
class CopyOptions:
    """Options of ``Copy`` and ``Reverse``."""

    symbols: tuple[int, ...] = option("24,40,120", "digits of a text", parse_counts)
    trials: int = option("10", "texts in each cell", parse_count)


class Copy(Task):
    """What was read, said twice."""

    name = "copy"
    version = 1
    summary = "digits that were read, said twice"
    metrics = (MetricSpec("accuracy"), MetricSpec("exact_match"))
    cue: ClassVar[str] = COPY_CUE
    template = BEGINNING + COPY_CUE
    Options = CopyOptions
    options: CopyOptions

    def target(self, source: str) -> str:
        """What is to be said."""
        return source + source

    def samples(self, tokenizer: Encoder, seed: int, limit: int | None) -> list[Sample]:
        """See ``Task.samples``; a limit takes evenly from all numbers of symbols.

        Raises:
            UserError: there are too many samples.
        """
        cells = [(symbols, 1) for symbols in self.options.symbols]
        taken = places(self.name, cells, self.options.trials, limit)
        return [self._sample(tokenizer, seed, symbols, trial) for symbols, trial, _ in taken]

    def _sample(self, tokenizer: Encoder, seed: int, symbols: int, trial: int) -> Sample:
        """It depends on the seed, the symbols and the trial alone, and is the same for both tasks."""
        chance = Chance("copy", seed, symbols, trial)
        source = "".join(chance.choice(SYMBOLS) for _ in range(symbols))
        target = self.target(source)
        return Sample(
            id=f"{symbols}-symbols/{trial:03}",
            cell={"symbols": symbols},
            reference=target,
            request=partial(self.request, source, tokenizer),
            score=partial(score, target),
        )

    def request(self, source: str, tokenizer: Encoder) -> Generate:
        """The symbols with a space before each; the budget is that of the same spelt answer."""
        text = BEGINNING + _spaced(source) + self.cue
        return Generate(Prompt((text,)), len(tokenizer.encode(_spaced(self.target(source)))))


class Reverse(Copy):
    """What was read, said backwards."""

    name = "reverse"
    summary = "digits that were read, said from the last to the first"
    cue = REVERSE_CUE
    template = BEGINNING + REVERSE_CUE

    def target(self, source: str) -> str:
        """See ``Copy.target``."""
        return source[::-1]


def _spaced(symbols: str) -> str:
    return "".join(f" {symbol}" for symbol in symbols)


def score(target: str, answer: Generated) -> dict[str, float]:
    """``accuracy``: share of the target's symbols in their places; ``exact_match``: they are all that is said.

    The first line of the answer counts.
    """
    said = "".join(re.findall("[0-9]", answer.text.partition("\n")[0]))
    right = sum(a == b for a, b in zip(said, target, strict=False))
    return {"accuracy": right / len(target), "exact_match": float(said == target)}
