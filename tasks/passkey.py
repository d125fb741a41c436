"""PassKey: a text names a key once, goes on with filler, and asks for the key (TransformerFAM, Figure 10).

The text is that of landmark attention (Mohtashami and Jaggi 2023, arXiv 2305.16300). Lengths are exact tokens of the
evaluated tokenizer, all that is read (start token and chat template too) and the generation budget included. Fillers
are cut from one array of token ids, so that even a million tokens cost no tokenising.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from famcli.errors import UserError
from famcli.metrics.recall import first_digit_run, token_accuracy
from famcli.seams import Head, join, special_of
from famcli.task import Encoder, Generate, Generated, MetricSpec, Prompt, Sample, Segment, Task, option

DESCRIPTION = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about the important information there."
)
KEY_LINE = "The pass key is {key}. Remember it. {key} is the pass key."
FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
QUESTION = "What is the pass key? The pass key is"

GENERATION_BUDGET = 10
"""New tokens allowed for the answer, as in the original script; part of a sample's length."""

GRID_DEPTHS = (0, 25, 50, 75, 100)
"""Per cent of the filler that stands before the key in the cells of position ``grid``."""

POSITIONS = ("start", "random", "grid")
LONGEST = 1 << 27
"""Most tokens of a text: its filler, as token ids, takes a gigabyte."""
MOST_SAMPLES = 100_000
"""A run has no more: as many texts of 1k tokens are a hundred million."""
LARGEST_KEY_DIGITS = GENERATION_BUDGET - 1
UNITS = {"": 1, "k": 1024, "m": 1024 * 1024}


def parse_lengths(text: str) -> tuple[int, ...]:
    """``1k,64k,1M,5000`` as sorted numbers of tokens without repetition; k is 1024, M is 1048576."""
    parts = [re.fullmatch(r"([0-9]+)([km]?)", part.strip().lower()) for part in text.split(",")]
    lengths = {_number(part[1]) * UNITS[part[2]] for part in parts if part}
    if not all(parts) or 0 in lengths:
        raise ValueError("numbers of tokens such as 1k,64k,1M or 5000")
    if max(lengths) > LONGEST:
        raise ValueError(f"numbers of tokens of at most {LONGEST // UNITS['m']}M")
    return tuple(sorted(lengths))


def _number(digits: str) -> int:
    """What the digits say, or more than anything may be: thousands of digits are no number to Python."""
    return int(digits) if len(digits) < 20 else 10**20


def parse_positions(text: str) -> tuple[str, ...]:
    """``start,random`` in the order of ``POSITIONS`` without repetition."""
    given = {part.strip() for part in text.split(",")}
    if not given <= set(POSITIONS):
        raise ValueError(f"one or several of {','.join(POSITIONS)}")
    return tuple(position for position in POSITIONS if position in given)


def parse_count(text: str) -> int:
    """A whole number from 1 to ``MOST_SAMPLES``."""
    if not re.fullmatch("0*[1-9][0-9]*", text) or _number(text.lstrip("0")) > MOST_SAMPLES:
        raise ValueError(f"a whole number from 1 to {MOST_SAMPLES}")
    return int(text)


def parse_key_digits(text: str) -> int:
    """A number of digits that fits the generation budget even at one token a character."""
    if not re.fullmatch(f"[1-{LARGEST_KEY_DIGITS}]", text):
        raise ValueError(f"a whole number from 1 to {LARGEST_KEY_DIGITS}")
    return int(text)


@dataclass(frozen=True)
class PassKeyOptions:
    """Options of ``PassKey``, parsed and in one canonical order, so that equal settings make the same run."""

    lengths: tuple[int, ...] = option(
        "1k,4k,16k,64k", "total lengths in tokens, question and answer included", parse_lengths
    )
    position: tuple[str, ...] = option(
        "start", "where the key stands: start, random, grid (depths 0, 25, 50, 75, 100%), or several", parse_positions
    )
    trials: int = option("10", "samples in each cell", parse_count)
    key_digits: int = option("5", "random digits of a key, leading zeros allowed", parse_key_digits)


@dataclass(frozen=True)
class Draw:
    """One sample's place in the experiment and what chance gave it.

    Attributes:
        length: total length in tokens.
        position: ``start``, ``random`` or, on the grid, ``depth 25%``.
        trial: number of the sample in its cell.
        key: the digits.
        depth: 0 to 1, share of the filler that stands before the key.
    """

    length: int
    position: str
    trial: int
    key: str
    depth: float

    @classmethod
    def of(cls, seed: int, length: int, position: str, trial: int, digits: int) -> Draw:
        """Key and depth depend on the seed, the cell and the trial alone, so that a cell can be rerun by itself."""
        digest = hashlib.sha256(f"passkey {seed} {length} {position} {trial}".encode()).digest()
        key = str(int.from_bytes(digest[:16]) % 10**digits).zfill(digits)
        if position == "random":
            depth = int.from_bytes(digest[16:22]) / 2**48
        else:
            depth = 0.0 if position == "start" else int(position.removeprefix("depth ").removesuffix("%")) / 100
        return cls(length, position, trial, key, depth)

    @property
    def id(self) -> str:
        position = self.position.removesuffix("%").replace(" ", "-")
        return f"{self.length}/{position}/{self.trial:03}"


class PassKey(Task):
    """Recall of random digits over filler, see the module."""

    name = "passkey"
    version = 1
    summary = "recall of a random key that stands once in the text, after up to millions of tokens of filler"
    metrics = (MetricSpec("accuracy", paper=True), MetricSpec("token_accuracy"))
    template = "\n".join((DESCRIPTION, FILLER, KEY_LINE, QUESTION))
    training_words: ClassVar[Mapping[str, str]] = {
        "description": DESCRIPTION,
        "filler": FILLER,
        "key_line": KEY_LINE,
        "question": QUESTION,
    }
    Options = PassKeyOptions
    options: PassKeyOptions

    def samples(self, tokenizer: Encoder, seed: int, limit: int | None) -> list[Sample]:
        """See ``Task.samples``; a limit takes evenly from all cells.

        Raises:
            UserError: a length is too short for the text around the filler, or there are more than ``MOST_SAMPLES``.
        """
        digits = self.options.key_digits
        draws = [Draw.of(seed, *place, digits) for place in self._places(limit)]
        text = PassKeyText(tokenizer)
        least = max(text.least_length(draw.key) for draw in draws)
        for length in self.options.lengths:
            if length < least:
                raise UserError(
                    f"task passkey: length {length} is too short: with this tokenizer the least is {least} tokens",
                    f"for example -o lengths={least}",
                )
        return [text.sample(draw) for draw in draws]

    def _places(self, limit: int | None) -> list[tuple[int, str, int]]:
        """(length, position, trial) of the samples to ask, cell by cell."""
        cells = [(length, position) for length in self.options.lengths for position in self._positions()]
        asked = self.options.trials * len(cells)
        if min(asked, limit or asked) > MOST_SAMPLES:
            raise UserError(
                f"task passkey: {len(cells)} cells of {self.options.trials} trials are {asked:,} samples, and a run "
                f"has at most {MOST_SAMPLES:,}",
                f"for example -o trials={MOST_SAMPLES // len(cells)}, or --limit",
            )
        every = ((trial, cell) for trial in range(self.options.trials) for cell in range(len(cells)))
        by_trial = list(itertools.islice(every, limit))
        return [(*cells[cell], trial) for cell, trial in sorted((cell, trial) for trial, cell in by_trial)]

    def _positions(self) -> Iterator[str]:
        for position in self.options.position:
            if position == "grid":
                yield from (f"depth {depth}%" for depth in GRID_DEPTHS)
            else:
                yield position


class PassKeyText:
    """The parts of the text in one tokenizer's tokens.

    The parts are description, filler, key line, filler, question, each but the last ended by a newline; an empty filler
    is left out with its newline. The filler is token ids, and the text between two fillers is tokenised in one piece.
    """

    def __init__(self, tokenizer: Encoder) -> None:
        self.tokenizer = tokenizer
        self.special = special_of(tokenizer)
        self.newline = join(Head(None), ("\n",), tokenizer).tokens
        self.first_unit = join(Head(None), ("\n" + FILLER,), tokenizer).ids[self.newline :]
        self.next_unit = join(join(Head(), (FILLER,), tokenizer).head, (" " + FILLER,), tokenizer).ids
        self._filler = self.first_unit
        self._around: dict[tuple[str, bool, bool], int] = {}

    def filler(self, tokens: int) -> NDArray[np.int64]:
        """The first ``tokens`` token ids of the filler repeated for ever: a view that all prompts share."""
        if tokens > len(self._filler):
            self._filler = np.concatenate((self.first_unit, np.resize(self.next_unit, tokens - len(self.first_unit))))
        return self._filler[:tokens]

    def least_length(self, key: str) -> int:
        """The shortest length in tokens with at least one token of filler on either side of the key."""
        return self.around(key, True, True) + 2 + GENERATION_BUDGET

    def around(self, key: str, before: bool, after: bool) -> int:
        """Tokens of a whole prompt without its fillers, ``before`` and ``after`` the key, where there are any."""
        if (key, before, after) not in self._around:
            ids = self._read(key, before, after)[0]
            self._around[key, before, after] = len(self.special.start) + ids - before - after
        return self._around[key, before, after]

    def answer(self, key: str) -> list[int]:
        """The tokens of the key as they go on after the question."""
        dropped, ids = self._read(key, False, True)[1].then(self.special.answer(f" {key}"), self.tokenizer)
        return [int(token) for token in ids[dropped:]]

    def _read(self, key: str, before: int, after: int) -> tuple[int, Head]:
        """Number of tokens of a prompt with what stands around it, and its end."""
        pieces = self.special.around(self.request(key, before, after).prompt.segments)
        joined = join(Head(), pieces, self.tokenizer)
        return joined.tokens, joined.head

    def sample(self, draw: Draw) -> Sample:
        before, after = self.split(draw)
        return Sample(
            id=draw.id,
            cell={"length": draw.length, "position": draw.position},
            reference=draw.key,
            prompt_tokens=draw.length - GENERATION_BUDGET,
            request=partial(self.request, draw.key, before, after),
            score=partial(score, draw.key, self.answer(draw.key)),
            details={"depth": draw.depth, "distance": after + self.newline if after else 0},
        )

    def split(self, draw: Draw) -> tuple[int, int]:
        """Tokens of filler before and after the key. Random keys stand inside the filler, at every place alike."""
        room = draw.length - GENERATION_BUDGET
        if draw.depth == 0 and draw.position != "random":
            return 0, room - self.around(draw.key, False, True)
        if draw.depth == 1:
            return room - self.around(draw.key, True, False), 0
        filler = room - self.around(draw.key, True, True)
        before = 1 + int(draw.depth * (filler - 1))
        return before, filler - before

    def request(self, key: str, before: int, after: int) -> Generate:
        segments: list[Segment] = [DESCRIPTION + "\n"]
        if before:
            segments += [self.filler(before), "\n"]
        segments.append(KEY_LINE.format(key=key) + "\n")
        if after:
            segments += [self.filler(after), "\n"]
        segments.append(QUESTION)
        return Generate(Prompt(tuple(segments)), GENERATION_BUDGET)


def score(key: str, expected: list[int], answer: Generated) -> dict[str, float]:
    """``accuracy``: is the first digit run the key? ``token_accuracy``: share of the tokens of `` KEY`` in place."""
    return {
        "accuracy": float(first_digit_run(answer.text) == key),
        "token_accuracy": token_accuracy(answer.token_ids, expected),
    }
