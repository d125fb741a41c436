"""What the rows of a training batch read: texts without end, each a function of its seed and of the place in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Reading = Literal["text", "filler"]
Asking = Literal["recall", "answer", "segment"]


@dataclass(frozen=True)
class Question:
    """A question about a source; both parts are ids [n].

    Attributes:
        known_from: tokens of the source to read until it can be answered.
        told_from: the token of the source with which what it asks for begins to be told, for the last time.
    """

    known_from: int
    told_from: int
    text: Ids
    answer: Ids


class Source(Protocol):
    """A text without end that a row reads, with perhaps questions about it."""

    reading: ClassVar[Reading]
    """The mean loss that its tokens count into."""
    asking: ClassVar[Asking | None]
    """The mean loss that its answers count into."""

    @property
    def known_from(self) -> int | None:
        """Tokens to read until it can be asked anywhere; ``None`` where it never can."""
        ...

    def tokens(self, start: int, count: int) -> Ids:
        """Tokens ``start`` .. ``start + count - 1``: [count]."""
        ...

    def ends(self, start: int, stop: int) -> list[int]:
        """Places from ``start`` to before ``stop`` that have questions of their own."""
        ...

    def ask(self, read: int, most: int, rng: np.random.Generator) -> list[Question]:
        """What can be asked once ``read`` tokens are read; of several questions at most ``most``, drawn by ``rng``."""
        ...


class Unasked:
    """A source that is only read."""

    reading: ClassVar[Reading] = "text"
    asking: ClassVar[Asking | None] = None
    known_from: int | None = None

    def ends(self, start: int, stop: int) -> list[int]:
        return []

    def ask(self, read: int, most: int, rng: np.random.Generator) -> list[Question]:
        return []


@dataclass(frozen=True)
class Filler(Unasked):
    """A unit of tokens [n] repeated without end."""

    unit: Ids

    def tokens(self, start: int, count: int) -> Ids:
        return self.unit[np.arange(start, start + count) % len(self.unit)]


@dataclass(frozen=True)
class PlainText(Unasked):
    """A corpus read from ``offset`` on, round and round: [n] ids."""

    corpus: Ids
    offset: int

    def tokens(self, start: int, count: int) -> Ids:
        places = np.arange(self.offset + start, self.offset + start + count)
        return self.corpus.take(places, mode="wrap").astype(np.int64)


@dataclass(frozen=True)
class KeyInFiller:
    """Description, filler, key line at ``key_at``, filler without end: a PassKey prompt that never stops."""

    reading: ClassVar[Reading] = "filler"
    asking: ClassVar[Asking | None] = "recall"

    head: Ids
    filler: Filler | PlainText
    key_line: Ids
    key_at: int
    question: Question

    @property
    def known_from(self) -> int:
        return self.question.known_from

    def tokens(self, start: int, count: int) -> Ids:
        out = self.filler.tokens(start, count).copy()
        for part, at in ((self.head, 0), (self.key_line, self.key_at)):
            low, high = max(start, at), min(start + count, at + len(part))
            if low < high:
                out[low - start : high - start] = part[low - at : high - at]
        return out

    def ends(self, start: int, stop: int) -> list[int]:
        return []

    def ask(self, read: int, most: int, rng: np.random.Generator) -> list[Question]:
        return [self.question]


@dataclass(frozen=True)
class SegmentsOfText:
    """Plain text of which ``length`` tokens, from anywhere in what was read, are to be repeated after ``cue``."""

    reading: ClassVar[Reading] = "text"
    asking: ClassVar[Asking | None] = "segment"

    text: PlainText
    cue: Ids
    length: int

    @property
    def known_from(self) -> int:
        return self.length

    def tokens(self, start: int, count: int) -> Ids:
        return self.text.tokens(start, count)

    def ends(self, start: int, stop: int) -> list[int]:
        return []

    def ask(self, read: int, most: int, rng: np.random.Generator) -> list[Question]:
        start = int(rng.integers(0, read - self.length + 1))
        return [Question(start + self.length, start, self.cue, self.text.tokens(start, self.length))]


@dataclass(frozen=True)
class Documents:
    """Documents joined to one row of ids [n], each followed by a separator.

    Attributes:
        ids: the documents.
        starts: [documents] where each begins in ``ids``.
        stops: [documents] where each ends, its separator not counted.
        questions: of each document, texts and answers.
    """

    ids: Ids
    starts: Ids
    stops: Ids
    questions: list[list[tuple[Ids, Ids]]]

    @property
    def shortest(self) -> int:
        """Tokens of the shortest document."""
        return int((self.stops - self.starts).min())


@dataclass(frozen=True)
class DocumentsFrom:
    """All documents, round and round, from number ``first`` on; each has its questions at its end."""

    reading: ClassVar[Reading] = "filler"
    asking: ClassVar[Asking | None] = "answer"
    known_from: ClassVar[int | None] = None

    documents: Documents
    first: int

    @property
    def _offset(self) -> int:
        return int(self.documents.starts[self.first])

    def tokens(self, start: int, count: int) -> Ids:
        places = np.arange(self._offset + start, self._offset + start + count)
        return self.documents.ids.take(places, mode="wrap").astype(np.int64)

    def ends(self, start: int, stop: int) -> list[int]:
        length, stops = len(self.documents.ids), self.documents.stops
        rounds = np.arange((self._offset + start) // length, (self._offset + stop) // length + 1)
        places = (stops + length * rounds[:, None] - self._offset).ravel()
        return [int(place) for place in places[(places >= max(1, start)) & (places < stop)]]

    def ask(self, read: int, most: int, rng: np.random.Generator) -> list[Question]:
        place = (self._offset + read) % len(self.documents.ids)
        document = int(np.searchsorted(self.documents.stops, place))
        asked, told_from = self.documents.questions[document], read - place + int(self.documents.starts[document])
        some = sorted(rng.permutation(len(asked))[:most].tolist())
        return [Question(read, told_from, *asked[i]) for i in some]
