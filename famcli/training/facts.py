"""Things to remember that are no pass key: told and asked for in many words, so that not one sentence is learned."""

from __future__ import annotations

import string
from dataclasses import dataclass

import numpy as np


def _listed(words: str) -> list[str]:
    return words.split("|")


NAMES = _listed(
    "Ada|Boris|Clara|Dmitri|Elena|Farid|Grace|Hugo|Ines|Jonas|Keiko|Leila|Marek|Nadia|Oscar|Priya|Rosa|Tariq"
)
COLOURS = _listed("black|blue|brown|green|grey|orange|pink|purple|red|silver|white|yellow")
THINGS = _listed("box|cabinet|chest|door|drawer|gate|locker|safe|suitcase|vault")
PLACES = _listed("attic|barn|cellar|church|garden|harbour|kitchen|library|market|mill|station|tower")
OBJECTS = _listed("book|bottle|candle|clock|coin|compass|hammer|key|lamp|letter|map|mirror|ring|rope|stone")
DAYS = _listed("Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday")

FORMS = (
    ("The secret number is {digits}. Keep it in mind.", "What is the secret number? The secret number is", "digits"),
    ("{name}'s telephone number is {digits}.", "What is {name}'s telephone number? {name}'s number is", "digits"),
    ("Note: the {colour} {thing} opens with the code {code}.", "What opens the {colour} {thing}? The code", "code"),
    ("Remember the password {word}. The password is {word}.", "What is the password? The password is", "word"),
    ('The word for today is "{word}".', "Which is the word for today? The word for today is", "word"),
    ("{name} has hidden the {object} in the {place}.", "Where is the {object}? {name} has hidden it in the", "place"),
    ("There is a {object} in the {colour} {thing}.", "What is in the {colour} {thing}? There is a", "object"),
    ("{name} will come on {day}.", "When will {name} come? On", "day"),
    ("{name}'s favourite colour is {colour}.", "What is {name}'s favourite colour? It is", "colour"),
    ("My friend {name} has {number} sheep.", "How many sheep has my friend {name}? The number is", "number"),
    ("Do not forget {name}, the owner of the {thing}.", "Who owns the {thing}? The owner is", "name"),
)
"""How something is told and asked for, and which of its parts is the answer."""

OPENINGS = _listed("A bird|An old man|My neighbour|The baker|The child|The dog|The river|The teacher|The wind|Nobody")
DOINGS = _listed(
    " comes back| goes down the hill| is tired| looks around| sings| sleeps| speaks softly| waits| walks home"
)
ENDINGS = _listed(" again| all day| at noon| every year| in the rain| since spring| until evening| without a word|")


@dataclass(frozen=True)
class Fact:
    """What is told (``line``), asked for (``question``) and to be said (``answer``)."""

    line: str
    question: str
    answer: str


def draw_fact(rng: np.random.Generator) -> Fact:
    """A fact of a random form with random parts."""
    line, question, asked = FORMS[rng.integers(len(FORMS))]
    parts = {
        "digits": _characters(rng, string.digits, int(rng.integers(4, 9))),
        "code": _characters(rng, string.ascii_uppercase, 2) + _characters(rng, string.digits, 4),
        "word": _word(rng),
        "number": str(rng.integers(11, 1000)),
        "name": _pick(rng, NAMES),
        "colour": _pick(rng, COLOURS),
        "thing": _pick(rng, THINGS),
        "place": _pick(rng, PLACES),
        "object": _pick(rng, OBJECTS),
        "day": _pick(rng, DAYS),
    }
    return Fact(line.format(**parts), question.format(**parts), parts[asked])


def draw_filler(rng: np.random.Generator) -> str:
    """Three to eight random sentences of no interest, in the manner of the classic filler."""
    parts = OPENINGS, DOINGS, ENDINGS
    return "".join("".join(_pick(rng, words) for words in parts) + ". " for _ in range(rng.integers(3, 9)))


def _pick(rng: np.random.Generator, words: list[str]) -> str:
    return words[rng.integers(len(words))]


def _characters(rng: np.random.Generator, alphabet: str, count: int) -> str:
    return "".join(alphabet[i] for i in rng.integers(0, len(alphabet), count))


def _word(rng: np.random.Generator) -> str:
    """Two or three syllables that make no word."""
    letters = (_characters(rng, some, 1) for some in ("bdfgklmnprstvz", "aeiou") * int(rng.integers(2, 4)))
    return "".join(letters) + _characters(rng, "lmnrst", 1)
