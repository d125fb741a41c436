"""A task for famcli: a text tells several keys by name, at random places in filler, and each is asked for by name."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from famcli.errors import UserError
from famcli.metrics.recall import first_digit_run
from famcli.task import Encoder, Generate, Generated, MetricSpec, Prompt, Sample, Task, option

NAMES = ("Ada", "Boris", "Chandra", "Dolores", "Emil", "Fatima", "Goran", "Hanna", "Ines", "Jakob", "Keiko", "Lars")
NEEDLE = "\nThe key of {name} is {key}.\n"
FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
QUESTION = "\nWhat is the key of {name}? The key of {name} is"
ANSWER_TOKENS = 10


def whole_number(text: str) -> int:
    """What ``-o`` gives; a ``ValueError`` ends the sentence "option 'keys' must be ..."."""
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("a whole number of at least 1")
    return int(text)


@dataclass(frozen=True)
class MultiNeedleOptions:
    keys: int = option("4", f"keys in a text, at most {len(NAMES)}", whole_number)
    length: int = option("4096", "tokens of a text with its question and answer", whole_number)
    trials: int = option("10", "texts", whole_number)


class MultiNeedle(Task):
    """The text is read once for all of its questions: it is the document of its samples."""

    name = "multi-needle"
    version = 1
    summary = "recall of several random keys by name, at random places in filler"
    metrics = (MetricSpec("accuracy"),)
    template = NEEDLE + FILLER + QUESTION
    Options = MultiNeedleOptions
    options: MultiNeedleOptions

    def samples(self, tokenizer: Encoder, seed: int, limit: int | None) -> list[Sample]:
        """See ``Task.samples``."""
        if self.options.keys > len(NAMES):
            raise UserError(f"task multi-needle: option 'keys' must be at most {len(NAMES)}")
        texts = (self._one_text(tokenizer, seed, trial) for trial in range(self.options.trials))
        return [sample for samples in texts for sample in samples][:limit]

    def _one_text(self, tokenizer: Encoder, seed: int, trial: int) -> list[Sample]:
        """The samples of one text, a key each."""
        length = self.options.length
        chance = random.Random(f"{seed} {length} {self.options.keys} {trial}")
        keys = {name: f"{chance.randrange(100_000):05}" for name in chance.sample(NAMES, self.options.keys)}
        needles = {name: np.array(tokenizer.encode(NEEDLE.format(name=name, key=key))) for name, key in keys.items()}
        question = max(len(tokenizer.encode(QUESTION.format(name=name))) for name in keys)
        room = length - ANSWER_TOKENS - question - sum(map(len, needles.values()))
        if room < 0:
            raise UserError(f"task multi-needle: length {length} is too short", f"-o length={length - room}")
        filler = np.resize(tokenizer.encode(FILLER), room)
        places = sorted(chance.randint(0, room) for _ in keys)
        parts, ends = [], {}
        for (name, needle), start, stop in zip(needles.items(), [0, *places], places, strict=False):
            parts += [filler[start:stop], needle]
            ends[name] = sum(map(len, parts))
        text = np.concatenate([*parts, filler[places[-1] :]])
        return [
            Sample(
                id=f"{trial:03}/{name}",
                cell={"length": length},
                reference=key,
                request=partial(request, text, name),
                score=partial(score, key),
                document=f"text {trial}",
                details={"distance": len(text) - ends[name]},
            )
            for name, key in keys.items()
        ]


def request(text: NDArray[np.int64], name: str) -> Generate:
    """``document=0``: the prompt begins with the text, so all questions about it share its reading."""
    return Generate(Prompt((text, QUESTION.format(name=name)), document=0), ANSWER_TOKENS)


def score(key: str, answer: Generated) -> dict[str, float]:
    """The first number of the answer is the key."""
    return {"accuracy": float(first_digit_run(answer.text) == key)}
