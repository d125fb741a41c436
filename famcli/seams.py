"""Texts that follow one another, as a tokenizer would cut them in one piece.

A tokenizer may see more in a text that begins than in one that goes on: SentencePiece marks the beginning of a word
before it, byte-level BPE joins a full stop and the line break behind it. So a question behind a document, or an option
behind a question, is cut here as it would be in the joined text, without cutting a long document once more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Piece = str | Ids

THINK, ANSWER = "<think>", "</think>"
"""What opens and closes the thoughts of a model before its answer."""
WINDOW = 1024
"""Characters before a seam that are looked at first; more where they do not settle how it is cut."""
SETTLED = 8
"""Tokens before a seam in which window and text must agree: from there on the beginning of the window plays no part."""
KEPT = 256
"""Tokens at the end of a text that are compared with a window's."""
_REMEMBERED = 64 * WINDOW
"""Characters before a piece that a seam behind it can look back to."""
_ANCHORS = ("a", "\n", ".")
"""Texts that are put before one that goes on after token ids, the first one whose own tokens it leaves as they are."""


class Encodes(Protocol):
    """All that is needed of a tokenizer here."""

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``, without special tokens."""
        ...


@dataclass(frozen=True)
class SpecialTokens:
    """Token ids ``before`` and ``after`` every prompt that is answered; a text that is predicted has none.

    Attributes:
        before, after: the ids, where they stand by themselves.
        texts: both as the text of a chat template, which is cut together with the prompt; ``None`` without one.
        arguments: what the template was given.
        system: the text of the system's message in it.
        turns: what the template puts before, between and after the messages of a chat, given their roles; ``None``
            without one.
    """

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    texts: tuple[str, str] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    system: str | None = None
    turns: Callable[[tuple[str, ...]], tuple[str, ...]] | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.before) + len(self.after)

    @property
    def thinks(self) -> bool:
        """The chat template ends in the beginning of a thought."""
        return self.texts is not None and self.texts[1].rstrip().endswith(THINK)

    @property
    def start(self) -> Ids:
        """Ids in front of the first text."""
        return _ids(() if self.texts else self.before)

    def around(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Pieces of a prompt between those of a chat template, which come after ``start``."""
        before, after = self.texts or ("", "")
        return [before, *pieces, after]

    def answer(self, text: str) -> str:
        """An answer to a prompt, which goes on after a space; in a chat it is a turn of its own, and begins."""
        return text.removeprefix(" ") if self.texts else text


NO_SPECIAL_TOKENS = SpecialTokens()


@dataclass(frozen=True)
class FramedEncoder:
    """What a task is given of a tokenizer: it knows what will stand around a prompt.

    Attributes:
        tokenizer: the evaluated model's.
        special: what stands around every prompt.
    """

    tokenizer: Encodes
    special: SpecialTokens

    def encode(self, text: str) -> list[int]:
        """See ``Encodes``."""
        return self.tokenizer.encode(text)


def has_seams(tokenizer: Encodes) -> bool:
    """Whether a joined text may have other tokens than its parts; not where every byte is a token.

    A tokenizer that does not say may.
    """
    if isinstance(tokenizer, FramedEncoder):
        return has_seams(tokenizer.tokenizer)
    return bool(getattr(tokenizer, "seams", True))


def special_of(tokenizer: Encodes) -> SpecialTokens:
    """What stands around prompts; nothing where the tokenizer does not say."""
    return tokenizer.special if isinstance(tokenizer, FramedEncoder) else NO_SPECIAL_TOKENS


@dataclass(frozen=True)
class Head:
    """The end of what stands before a seam.

    Attributes:
        text: the text that ends there; ``""`` where nothing stands before, ``None`` where token ids do, which a text
            behind them leaves as they are.
        last: the last tokens, up to ``KEPT``.
    """

    text: str | None = ""
    last: Ids = field(default_factory=lambda: _ids(()))

    def then(self, text: str, tokenizer: Encodes) -> tuple[int, Ids]:
        """How ``text`` goes on.

        Returns:
            How many of the tokens before the seam are others in the joined text, and the tokens from there on.
        """
        if not has_seams(tokenizer):
            return 0, _ids(tokenizer.encode(text))
        if self.text is None:
            return 0, _after_ids(text, tokenizer)
        size = WINDOW
        while True:
            window = self.text[-size:] if size < len(self.text) else self.text
            alone, joined = tokenizer.encode(window) if window else [], tokenizer.encode(window + text)
            same = next((i for i, (a, b) in enumerate(zip(alone, joined, strict=False)) if a != b), None)
            same = min(len(alone), len(joined)) if same is None else same
            looked_at = alone[max(same - SETTLED, 0) :]
            settled = same >= SETTLED and self.last[-len(looked_at) :].tolist() == looked_at
            if settled or len(window) == len(self.text):
                return len(alone) - same, _ids(joined[same:])
            size *= 4

    def choices(self, options: Sequence[str], tokenizer: Encodes) -> tuple[int, list[list[int]]]:
        """``then`` for each option; where one changes tokens before the seam, all options begin with these."""
        found = [self.then(option, tokenizer) for option in options]
        most = max((dropped for dropped, _ in found), default=0)
        end = len(self.last)
        return most, [[*self.last[end - most : end - dropped].tolist(), *ids.tolist()] for dropped, ids in found]


@dataclass(frozen=True)
class Joined:
    """Pieces behind a head.

    Attributes:
        dropped: how many of the head's tokens are others in the joined text.
        parts: the tokens from there on; token ids that were given are not copied.
        head: their end.
    """

    dropped: int
    parts: list[Ids]
    head: Head

    @property
    def ids(self) -> Ids:
        """All parts as one."""
        return np.concatenate([*self.parts, _ids(())])

    @property
    def tokens(self) -> int:
        """How many there are."""
        return sum(map(len, self.parts))


def join(head: Head, pieces: Sequence[Piece], tokenizer: Encodes) -> Joined:
    """The tokens of pieces that follow one another behind ``head``; texts beside each other are one text.

    Token ids are read as they are, and a text behind them is cut as one that goes on, whatever they spell: so it has
    as many tokens behind any of them.
    """
    dropped, parts = 0, [head.last]
    for is_text, members in groupby((piece for piece in pieces if len(piece)), lambda piece: isinstance(piece, str)):
        if not is_text:
            parts += [_ids(piece) for piece in members]  # type: ignore[arg-type]  # it is no text
            head = Head(None, _last(parts))
            continue
        text = "".join(map(str, members))
        changed, ids = head.then(text, tokenizer)
        if len(parts) == 1:  # later seams are behind token ids
            dropped, parts[0] = changed, parts[0][: len(parts[0]) - changed]
        parts.append(ids)
        head = Head((head.text or "")[-_REMEMBERED:] + text, _last(parts))
    return Joined(dropped, parts[1:], head)


def common(one: Ids, other: Ids) -> int:
    """How many tokens two texts begin with alike."""
    length = min(len(one), len(other))
    differ = np.flatnonzero(one[:length] != other[:length])
    return int(differ[0]) if len(differ) else length


def _after_ids(text: str, tokenizer: Encodes) -> Ids:
    for anchor in _ANCHORS:
        alone, joined = tokenizer.encode(anchor), tokenizer.encode(anchor + text)
        if alone and joined[: len(alone)] == alone:
            return _ids(joined[len(alone) :])
    return _ids(tokenizer.encode(text))


def _last(parts: Sequence[Ids]) -> Ids:
    kept: list[Ids] = []
    for part in reversed(parts):
        if sum(map(len, kept)) >= KEPT:
            break
        kept.append(part[-KEPT:])
    return np.concatenate(kept[::-1])[-KEPT:]


def _ids(values: Sequence[int] | Ids) -> Ids:
    return np.asarray(values, np.int64)
