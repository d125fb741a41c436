"""The texts of RULER that are made by arithmetic: needles, chains of variables, common words and frequent words.

Their words are those of github.com/NVIDIA/RULER (Apache-2.0). A text is made of units that are drawn until no more fit:
lines of noise, needles, sentences, words.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

from famcli.task import Encoder

from .background import Background
from .drawing import Chance
from .pieces import Ids, going_on, prompt_tokens
from .wordings import FILLER

NIAH = (
    "{some} special magic {values} {are} hidden within the following text. Make sure to memorize it. I will quiz you "
    "about the {values} afterwards.",
    "\nWhat {are_all} the special magic {values} for {query} mentioned in the provided text? The special magic "
    "{values} for {query} mentioned in the provided text {are}",
)
NEEDLE = "One of the special magic {kind} for {key} is: {value}."
CHAIN = (
    "Memorize and track the chain(s) of variable assignment hidden in the following text.\n",
    "\nQuestion: Find all variables that are assigned the value {value} in the text above. Answer: According to the "
    "chain(s) of variable assignment in the text above, {count} variables are assigned the value {value}, they are: ",
)
COMMON = (
    "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones that "
    "appear most often.\n",
    "\nQuestion: What are the 10 most common words in the above list? Answer: The top 10 words that appear most often "
    "in the list are:",
)
FREQUENT = (
    "Read the following coded text and track the frequency of each coded word. Find the three most frequently appeared "
    "coded words.",
    "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the three most frequently "
    "appeared words in the above coded text? Answer: According to the coded text above, the three most frequently "
    "appeared words are:",
)
HOPS = 4
COMMON_WORDS = 10
REPEATS = ((30, 3, 10, 3, 40), (6, 1, 3, 1, 20))
"""(times that a common word comes, others, both in the example, words of the example), the first that fits."""
ALPHA = 2.0
DOTS = "..."
"""The most frequent of the coded words."""


@dataclass(frozen=True)
class Made:
    """A prompt whose text grows with the room there is.

    Attributes:
        before, after: what stands around the text.
        answers: what is to be said.
        fill: so many tokens of room -> the pieces of the text; the same ones each time.
        least: tokens that the text cannot do without.
        details: for the record.
    """

    before: str
    after: str
    answers: tuple[str, ...]
    fill: Callable[[int], list[Ids]]
    least: int
    details: Mapping[str, float] = field(default_factory=dict)


class Texts:
    """What all texts of a run share: pieces in one tokenizer's tokens."""

    def __init__(self, tokenizer: Encoder, background: Background) -> None:
        self.tokenizer, self.background = tokenizer, background
        self._known: dict[str, Ids] = {}
        self._numbers = [0]

    def ids(self, text: str) -> Ids:
        """Token ids of a piece that goes on behind others; kept."""
        if text not in self._known:
            self._known[text] = going_on(text, self.tokenizer)
        return self._known[text]

    def number(self, number: int) -> Ids:
        """Token ids of a number of a list."""
        return self.ids(f" {number}." if number > 1 else "1.")

    def numbers(self, count: int) -> int:
        """Tokens of the numbers up to ``count``."""
        while len(self._numbers) <= count:
            self._numbers.append(self._numbers[-1] + len(self.number(len(self._numbers))))
        return self._numbers[count]

    def words(self, words: Sequence[str], times: int = 1) -> int:
        """Tokens of words, each so many times."""
        return times * sum(len(self.ids(f" {word}")) for word in words)

    def around(self, made: Made) -> int:
        """Tokens of the prompt without its text."""
        mark = self.ids(" .")
        return prompt_tokens((made.before, mark, made.after), self.tokenizer) - len(mark)

    def sentences(self) -> Iterator[Ids]:
        """Those of the background, over and over."""
        while True:
            yield from (self.ids(f" {sentence}") for sentence in self.background.sentences)


@dataclass(frozen=True)
class Needles:
    """Needles in a haystack.

    Attributes:
        hay: ``noise``, ``essay`` (sentences of the background), or ``needle``: other needles.
        keys: ``words`` or ``uuids``; ``values``: ``numbers`` or ``uuids``.
        many_keys, many_values, many_asked: how many there are, and how many keys are asked for.
    """

    hay: str
    keys: str = "words"
    values: str = "numbers"
    many_keys: int = 1
    many_values: int = 1
    many_asked: int = 1

    def make(self, texts: Texts, chance: Chance, length: int) -> Made:
        """One text with its question."""
        drawn = _Distinct(chance)
        keys = [drawn.value(self.keys) for _ in range(self.many_keys)]
        values = [[drawn.value(self.values) for _ in range(self.many_values)] for _ in keys]
        lines = [self._line(key, value) for key, several in zip(keys, values, strict=True) for value in several]
        told = sorted((chance.below(2**32) / 2**32, line) for line in chance.shuffled(lines))
        asked = chance.sample(self.many_keys, self.many_asked)
        names = [keys[place] for place in asked]
        query = ", ".join(names[:-1]) + f", and {names[-1]}" if len(names) > 1 else names[0]
        one = self.many_asked * self.many_values == 1
        words = {
            "some": "A" if one else "Some",
            "are": "is" if one else "are",
            "are_all": "is" if one else "are all",
            "values": self.values.removesuffix("s") if one else self.values,
            "query": query,
        }
        before, after = (part.format(**words) for part in NIAH)
        needles = [texts.ids(self._gap + line) for _, line in told]
        depths = [depth for depth, _ in told]
        return Made(
            before + "\n" * (self.hay == "essay"),
            after,
            tuple(value for place in asked for value in values[place]),
            partial(self._fill, texts, needles, depths, drawn),
            sum(map(len, needles)),
            {"depth": depths[0]} if len(told) == 1 else {},
        )

    @property
    def _gap(self) -> str:
        return " " if self.hay == "essay" else "\n"

    def _line(self, key: str, value: str) -> str:
        return NEEDLE.format(kind=self.values, key=key, value=value)

    def _fill(
        self, texts: Texts, needles: Sequence[Ids], depths: Sequence[float], drawn: _Distinct, room: int
    ) -> list[Ids]:
        room -= sum(map(len, needles))
        hay: list[Ids] = []
        for unit in self._hay(texts, drawn.again()):
            if self.hay == "essay":
                unit = unit[:room]
            if not len(unit) or len(unit) > room:
                break
            hay.append(unit)
            room -= len(unit)
        return mixed(hay, needles, depths)

    def _hay(self, texts: Texts, drawn: _Distinct) -> Iterator[Ids]:
        """Units without end."""
        if self.hay == "essay":
            yield from texts.sentences()
        while self.hay == "noise":
            yield texts.ids("\n" + FILLER)
        while True:
            line = "\n" + self._line(drawn.value(self.keys), drawn.value(self.values))
            yield going_on(line, texts.tokenizer)


def mixed(hay: Sequence[Ids], needles: Sequence[Ids], depths: Sequence[float]) -> list[Ids]:
    """Needles between units of hay, each behind the share of them that its depth says; depths ascend."""
    places = [min(int(depth * (len(hay) + 1)), len(hay)) for depth in depths]
    parts: list[Ids] = []
    done = 0
    for needle, place in zip(needles, places, strict=True):
        parts += [*hay[done:place], needle]
        done = place
    return [*parts, *hay[done:]]


@dataclass(frozen=True)
class Chain:
    """Variables that are assigned to each other, one chain in noise, behind an example of a short one."""

    def make(self, texts: Texts, chance: Chance, length: int) -> Made:
        """One text with its question."""
        value, names = self._draw(chance, 5)
        told = sorted(chance.below(2**32) / 2**32 for _ in names)
        lines = [texts.ids(f"\n{line}") for line in self._lines(value, names)]
        return Made(
            f"{self._example(chance)}\n{CHAIN[0]}",
            CHAIN[1].format(value=value, count=len(names)),
            tuple(names),
            partial(self._fill, texts, lines, told),
            sum(map(len, lines)),
        )

    def _draw(self, chance: Chance, letters: int) -> tuple[str, list[str]]:
        names: dict[str, None] = {}
        while len(names) <= HOPS:
            names["".join(chr(ord("A") + chance.below(26)) for _ in range(letters))] = None
        return str(10_000 + chance.below(90_000)), list(names)

    def _lines(self, value: str, names: Sequence[str]) -> list[str]:
        first, *_ = names
        others = (f"VAR {new} = VAR {old} " for old, new in pairwise(names))
        return [f"VAR {first} = {value}", *others]

    def _example(self, chance: Chance) -> str:
        """A chain in five lines of noise, with its answer."""
        value, names = self._draw(chance, 3)
        lines = [*self._lines(value, names)]
        for place in sorted((chance.below(len(lines) + 1) for _ in range(5)), reverse=True):
            lines.insert(place, FILLER)
        asked = CHAIN[1].format(value=value, count=len(names))
        return CHAIN[0] + "".join(f"\n{line}" for line in lines) + f"{asked} {' '.join(names)}\n"

    def _fill(self, texts: Texts, lines: Sequence[Ids], depths: Sequence[float], room: int) -> list[Ids]:
        unit = texts.ids("\n" + FILLER)
        count = (room - sum(map(len, lines))) // len(unit)
        return mixed([unit] * count, lines, depths)


@dataclass(frozen=True)
class CommonWords:
    """A numbered list of words, ten of which come more often, behind an example of a short one."""

    def make(self, texts: Texts, chance: Chance, length: int) -> Made:
        """One text with its question; the first of ``REPEATS`` that leaves room for other words."""
        made = [self._make(texts, Chance(chance.below(2**64)), repeats) for repeats in REPEATS]
        return next((one for one in made if texts.around(one) + one.least <= length * 0.9), made[-1])

    def _make(self, texts: Texts, chance: Chance, repeats: tuple[int, int, int, int, int]) -> Made:
        often, seldom, often_shown, seldom_shown, shown = repeats
        drawn = _Distinct(chance)
        example = [drawn.value("word") for _ in range(shown)]
        listed = chance.shuffled(_repeated(example, often_shown, seldom_shown))
        answer = " ".join(f"{number}. {word}" for number, word in enumerate(example[:COMMON_WORDS], 1))
        text = " ".join(f"{number}. {word}" for number, word in enumerate(listed, 1))
        common = [drawn.value("word") for _ in range(COMMON_WORDS)]
        fill = partial(self._fill, texts, common, (often, seldom), drawn)
        return Made(
            f"{COMMON[0]}{text}{COMMON[1]} {answer}\n{COMMON[0]}",
            COMMON[1],
            tuple(common),
            fill,
            texts.words(common, often) + texts.numbers(COMMON_WORDS * often),
        )

    def _fill(
        self, texts: Texts, common: Sequence[str], repeats: tuple[int, int], drawn: _Distinct, room: int
    ) -> list[Ids]:
        often, seldom = repeats
        more = drawn.again()
        words, count = list(common), len(common) * often
        room -= texts.words(common, often) + texts.numbers(count)
        while True:
            word = more.value("word")
            needed = texts.words([word], seldom) + texts.numbers(count + seldom) - texts.numbers(count)
            if needed > room:
                break
            words.append(word)
            room, count = room - needed, count + seldom
        listed = more.chance.shuffled(_repeated(words, often, seldom))
        return [piece for n, word in enumerate(listed, 1) for piece in (texts.number(n), texts.ids(f" {word}"))]


def _repeated(words: list[str], often: int, seldom: int) -> list[str]:
    """The first ones often, the others seldom."""
    return [*words[:COMMON_WORDS] * often, *words[COMMON_WORDS:] * seldom]


@dataclass(frozen=True)
class FrequentWords:
    """Coded words whose numbers fall off by a power law; dots are the first, the next three are asked for."""

    def make(self, texts: Texts, chance: Chance, length: int) -> Made:
        """One text with its question."""
        drawn = _Distinct(chance)
        words = [DOTS, *(drawn.value("code") for _ in range(max(length // 50, 8) - 1))]
        return Made(
            *FREQUENT,
            tuple(words[1:4]),
            partial(self._fill, texts, words, drawn),
            self._total(texts, words, LEAST_CODED),
        )

    def counts(self, words: int, total: int) -> list[int]:
        """How often each word comes where there are ``total``."""
        zeta = math.pi**2 / 6
        return [int(total / rank**ALPHA / zeta) for rank in range(1, words + 1)]

    def _total(self, texts: Texts, words: Sequence[str], total: int) -> int:
        return sum(texts.words([word], n) for word, n in zip(words, self.counts(len(words), total), strict=True))

    def _fill(self, texts: Texts, words: Sequence[str], drawn: _Distinct, room: int) -> list[Ids]:
        fits, over = LEAST_CODED, 2 * room + LEAST_CODED
        while over - fits > 1:
            middle = (fits + over) // 2
            fits, over = (middle, over) if self._total(texts, words, middle) <= room else (fits, middle)
        listed = [word for word, n in zip(words, self.counts(len(words), fits), strict=True) for _ in range(n)]
        return [texts.ids(f" {word}") for word in drawn.again().chance.shuffled(listed)]


LEAST_CODED = 53
"""Coded words, from which on the fourth comes more often than the fifth."""


class _Distinct:
    """Keys, values and words, no two alike."""

    def __init__(self, chance: Chance, taken: set[str] | None = None) -> None:
        self.chance, self.taken = chance, set() if taken is None else taken
        self._seed = chance.below(2**64)

    def again(self) -> _Distinct:
        """A new one that goes on behind what was taken by now: always the same."""
        return _Distinct(Chance(self._seed), set(self.taken))

    def value(self, kind: str) -> str:
        """One of a kind that was not there before."""
        while True:
            found = _DRAWN[kind](self.chance)
            if found not in self.taken:
                self.taken.add(found)
                return found


def _syllables(chance: Chance, count: int) -> str:
    """A made-up word that can be spoken."""
    return "".join(chance.choice("bdfgklmnprstvz") + chance.choice("aeiou") for _ in range(count))


def _letters(chance: Chance) -> str:
    return "".join(chr(ord("a") + chance.below(26)) for _ in range(6))


_DRAWN: Mapping[str, Callable[[Chance], str]] = {
    "words": lambda chance: f"{_syllables(chance, 2)}-{_syllables(chance, 3)}",
    "word": lambda chance: _syllables(chance, 3),  # none is a part of another
    "code": _letters,
    "numbers": lambda chance: str(1_000_000 + chance.below(9_000_000)),
    "uuids": lambda chance: str(uuid.UUID(int=chance.below(2**128), version=4)),
}
