"""PassKey: a text names a key once, goes on with filler, and asks for the key (TransformerFAM, Figure 10).

The text is that of landmark attention (Mohtashami and Jaggi 2023, arXiv 2305.16300). Lengths are exact tokens of the
evaluated tokenizer, all that is read (start token and chat template too) and the generation budget included. Fillers
are cut from one array of token ids, so that even a million tokens cost no tokenising.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from famcli.errors import UserError
from famcli.fields import parse_lengths
from famcli.metrics.recall import first_digit_run, token_accuracy
from famcli.seams import Head, join, special_of
from famcli.task import Encoder, Generate, Generated, MetricSpec, Prompt, Sample, Segment, Task, option

from .drawing import MOST_SAMPLES, parse_count
from .pieces import Filler
from .wordings import DESCRIPTION, FILLER, KEY_LINE, NAMES, QUESTION, WORDINGS, Wording

GENERATION_BUDGET = 10
"""New tokens allowed for the answer, as in the original script; part of a sample's length."""

GRID_DEPTHS = (0, 25, 50, 75, 100)
"""Per cent of the filler that stands before the key in the cells of position ``grid``."""

POSITIONS = ("start", "random", "grid")
LARGEST_KEY_DIGITS = GENERATION_BUDGET - 1
MOST_KEYS = len(NAMES)


def parse_positions(text: str) -> tuple[str, ...]:
    """``start,random`` in the order of ``POSITIONS`` without repetition."""
    given = {part.strip() for part in text.split(",")}
    if not given <= set(POSITIONS):
        raise ValueError(f"one or several of {','.join(POSITIONS)}")
    return tuple(position for position in POSITIONS if position in given)


def parse_key_digits(text: str) -> int:
    """A number of digits that fits the generation budget even at one token a character."""
    if not re.fullmatch(f"[1-{LARGEST_KEY_DIGITS}]", text):
        raise ValueError(f"a whole number from 1 to {LARGEST_KEY_DIGITS}")
    return int(text)


def parse_wording(text: str) -> str:
    """One of ``WORDINGS``."""
    if text not in WORDINGS:
        raise ValueError(f"one of {', '.join(WORDINGS)}")
    return text


def parse_keys(text: str) -> int:
    """A number of keys, each with a name of its own; or of keys of one name."""
    if not re.fullmatch("0*[1-9][0-9]?", text) or int(text) > MOST_KEYS:
        raise ValueError(f"a whole number from 1 to {MOST_KEYS}")
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
    wording: str = option(
        "classic", f"how the key is told and asked for: {', '.join(WORDINGS)}", parse_wording, added=True
    )
    keys: int = option(
        "1",
        "keys in the text, each with a name; the others stand at random places. Several need a wording with names",
        parse_keys,
        added=True,
    )
    values: int = option(
        "1",
        "keys told of the name that is asked for, one after another: the latest counts, and position is its place. "
        "Several need a wording with names",
        parse_keys,
        added=True,
    )

    def __post_init__(self) -> None:
        if max(self.keys, self.values) > 1 and not WORDINGS[self.wording].names:
            names = ", ".join(name for name, wording in WORDINGS.items() if wording.names)
            what = f"{self.keys} keys are told apart by names" if self.keys > 1 else f"{self.values} values need a name"
            raise UserError(
                f"task passkey: {what}, and the wording '{self.wording}' has none",
                f"wordings with names: {names}, for example -o wording=named",
            )


@dataclass(frozen=True)
class Told:
    """One key in a text.

    Attributes:
        key: the digits.
        name: whose it is; only where the wording has names.
        depth: 0 to 1, share of the filler that stands before it.
    """

    key: str
    name: str
    depth: float


@dataclass(frozen=True)
class Draw:
    """One sample's place in the experiment and what chance gave it.

    Attributes:
        length: total length in tokens.
        position: ``start``, ``random`` or, on the grid, ``depth 25%``.
        trial: number of the sample in its cell.
        asked: the key that is asked for.
        others: further keys, of other names.
        earlier: keys that its name had before.
    """

    length: int
    position: str
    trial: int
    asked: Told
    others: tuple[Told, ...] = ()
    earlier: tuple[Told, ...] = ()

    @classmethod
    def of(
        cls, seed: int, length: int, position: str, trial: int, digits: int, keys: int = 1, *, values: int = 1
    ) -> Draw:
        """Keys and depths depend on the seed, the cell and the trial alone, so that a cell can be rerun by itself."""
        drawn = [_digest(seed, length, position, trial)]
        drawn += [_digest(seed, length, position, trial, f"key {i}") for i in range(1, keys)]
        drawn += [_digest(seed, length, position, trial, f"value {i}") for i in range(1, values)]
        numbers = _distinct([int.from_bytes(digest[:16]) for digest in drawn], 10**digits)
        first = int.from_bytes(drawn[0][22:26])
        told = [
            Told(str(number).zfill(digits), NAMES[(first + i) % len(NAMES)], int.from_bytes(digest[16:22]) / 2**48)
            for i, (number, digest) in enumerate(zip(numbers, drawn, strict=True))
        ]
        if position != "random":
            depth = 0.0 if position == "start" else int(position.removeprefix("depth ").removesuffix("%")) / 100
            told[0] = replace(told[0], depth=depth)
        asked = told[0]
        earlier = (replace(one, name=asked.name, depth=one.depth * asked.depth) for one in told[keys:])
        return cls(length, position, trial, asked, tuple(told[1:keys]), tuple(earlier))

    @property
    def in_order(self) -> list[Told]:
        """All keys of the text as they stand in it; of those at one depth the one that is asked for comes first, but
        behind those that its name had before."""
        return sorted((*self.earlier, self.asked, *self.others), key=lambda told: told.depth)

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
        options = self.options
        draws = [
            Draw.of(seed, *place, options.key_digits, options.keys, values=options.values)
            for place in self._places(limit)
        ]
        text = PassKeyText(tokenizer, WORDINGS[options.wording])
        least = max(text.least_length(draw) for draw in draws)
        for length in options.lengths:
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

    The parts are description, filler, key line, filler, ..., question, each but the last ended by a newline; an empty
    filler is left out with its newline. The filler is token ids, and the text between two fillers is tokenised in one
    piece.
    """

    def __init__(self, tokenizer: Encoder, wording: Wording = WORDINGS["classic"]) -> None:
        self.tokenizer, self.wording = tokenizer, wording
        self.special = special_of(tokenizer)
        self._filler = Filler(FILLER, "\n", tokenizer)
        self.newline = self._filler.before
        self._around: dict[tuple[tuple[str, ...], tuple[bool, ...]], int] = {}

    def filler(self, tokens: int) -> NDArray[np.int64]:
        """The first ``tokens`` token ids of the filler repeated for ever: a view that all prompts share."""
        return self._filler.tokens(tokens)

    def line(self, told: Told) -> str:
        """The sentences that tell a key."""
        return self.wording.line.format(key=told.key, name=told.name)

    def question(self, told: Told) -> str:
        """The question for a key."""
        return self.wording.question.format(name=told.name)

    def least_length(self, draw: Draw) -> int:
        """The shortest length in tokens with at least one token of filler on either side of each key."""
        gaps = [1] * (len(draw.in_order) + 1)
        return self.around(draw, gaps) + sum(gaps) + GENERATION_BUDGET

    def around(self, draw: Draw, gaps: Sequence[int]) -> int:
        """Tokens of a whole prompt without its fillers, one in each of the ``gaps`` that is not 0."""
        lines = (*(self.line(told) for told in draw.in_order), self.question(draw.asked))
        there = tuple(gap > 0 for gap in gaps)
        if (lines, there) not in self._around:
            ids = self._read(draw, [int(gap) for gap in there])[0]
            self._around[lines, there] = len(self.special.start) + ids - sum(there)
        return self._around[lines, there]

    def answer(self, draw: Draw) -> list[int]:
        """The tokens of the key as they go on after the question."""
        gaps = [0] + [1] * len(draw.in_order)
        head = self._read(draw, gaps)[1]
        dropped, ids = head.then(self.special.answer(f" {draw.asked.key}"), self.tokenizer)
        return [int(token) for token in ids[dropped:]]

    def _read(self, draw: Draw, gaps: Sequence[int]) -> tuple[int, Head]:
        """Number of tokens of a prompt with what stands around it, and its end."""
        pieces = self.special.around(self.request(draw, gaps).prompt.segments)
        joined = join(Head(), pieces, self.tokenizer)
        return joined.tokens, joined.head

    def sample(self, draw: Draw) -> Sample:
        gaps = self.split(draw)
        place = draw.in_order.index(draw.asked)
        following = [gap for gap in gaps[place + 1 :] if gap]
        return Sample(
            id=draw.id,
            cell={"length": draw.length, "position": draw.position},
            reference=draw.asked.key,
            prompt_tokens=draw.length - GENERATION_BUDGET,
            request=partial(self.request, draw, gaps),
            score=partial(score, draw.asked.key, self.answer(draw)),
            details={"depth": draw.asked.depth, "distance": self._distance(draw, place, following)},
        )

    def _distance(self, draw: Draw, place: int, following: Sequence[int]) -> int:
        """Tokens between the key that is asked for and the question."""
        later = [join(Head(None), (self.line(told) + "\n",), self.tokenizer).tokens for told in draw.in_order]
        return sum(following) + self.newline * len(following) + sum(later[place + 1 :])

    def split(self, draw: Draw) -> list[int]:
        """Tokens of filler before, between and after the keys. Random keys stand inside the filler, at every place
        alike."""
        told, room = draw.in_order, draw.length - GENERATION_BUDGET
        fixed = draw.position != "random"
        least = [1] * (len(told) + 1)
        if fixed and told[0].name == draw.asked.name and draw.asked.depth == 0:
            least[0] = 0
        if fixed and told[-1] is draw.asked and draw.asked.depth == 1:
            least[-1] = 0
        spare = room - self.around(draw, least) - sum(least)
        ends = [min(int(t.depth * (spare + 1)), spare) for t in told]
        return [gap + more for gap, more in zip(least, _differences([0, *ends, spare]), strict=True)]

    def request(self, draw: Draw, gaps: Sequence[int]) -> Generate:
        segments: list[Segment] = [DESCRIPTION + "\n"]
        for gap, line in zip(gaps, (*(self.line(told) + "\n" for told in draw.in_order), ""), strict=True):
            if gap:
                segments += [self.filler(gap), "\n"]
            if line:
                segments.append(line)
        segments.append(self.question(draw.asked))
        return Generate(Prompt(tuple(segments)), GENERATION_BUDGET)


def _differences(numbers: Sequence[int]) -> list[int]:
    return [second - first for first, second in pairwise(numbers)]


def _digest(*parts: object) -> bytes:
    return hashlib.sha256(" ".join(map(str, ("passkey", *parts))).encode()).digest()


def _distinct(numbers: Sequence[int], below: int) -> list[int]:
    """Each number modulo ``below``, moved on where an earlier one has its place."""
    found: list[int] = []
    for number in numbers:
        while number % below in found:
            number += 1
        found.append(number % below)
    return found


def score(key: str, expected: list[int], answer: Generated) -> dict[str, float]:
    """``accuracy``: is the first digit run the key? ``token_accuracy``: share of the tokens of `` KEY`` in place."""
    return {
        "accuracy": float(first_digit_run(answer.text) == key),
        "token_accuracy": token_accuracy(answer.token_ids, expected),
    }
