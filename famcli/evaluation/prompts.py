"""Prompts as token ids: what a request asks to be read, cut where the user wants it cut, handed out in chunks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from famcli.errors import UserError
from famcli.task import Choose, Prompt, Read, Request, Segment

if TYPE_CHECKING:
    from famcli.checkpoints.tokenizer import Tokenizer

Ids = NDArray[np.int64]
Side = Literal["left", "right", "middle"]

CUT_STEP = 128
"""A cut document keeps a multiple of this number of tokens: questions of nearly one length still share it."""


@dataclass(frozen=True)
class Context:
    """The most tokens that a prompt and its answer may take.

    Attributes:
        tokens: the bound.
        truncate: which part of a document that is too long is cut; ``None`` makes it an error.
    """

    tokens: int
    truncate: Side | None

    def kept(self, document: int, rest: int, where: str) -> int:
        """How many tokens of a document are read.

        Args:
            document: its tokens.
            rest: tokens of question and answer, which are never cut.
            where: the sample, for the error.

        Raises:
            UserError: it does not fit and may not be cut, or nothing of it would be left.
        """
        room = self.tokens - rest
        if document <= room:
            return document
        if self.truncate is None or not document:
            raise UserError(
                f"{where} takes {document + rest:,} tokens, more than the context of {self.tokens:,}",
                "cut documents with --truncate left, right or middle, or raise --max-context",
            )
        kept = room // CUT_STEP * CUT_STEP if rest and room >= CUT_STEP else room  # a text by itself shares nothing
        if kept < 1:
            raise UserError(
                f"{where}: question and answer alone take {rest:,} tokens of a context of {self.tokens:,}",
                "raise --max-context",
            )
        return kept

    def cut(self, ids: Ids, kept: int) -> Ids:
        """The ``kept`` tokens of a document that are read; ``left`` cuts its beginning, ``middle`` its middle."""
        if kept == len(ids):
            return ids
        if self.truncate == "left":
            return ids[len(ids) - kept :]
        if self.truncate == "middle":
            return np.concatenate((ids[: (kept + 1) // 2], ids[len(ids) - kept // 2 :]))
        return ids[:kept]


@dataclass(frozen=True)
class SpecialTokens:
    """Token ids ``before`` and ``after`` every prompt that is answered; a text that is predicted has none."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.before) + len(self.after)


NO_SPECIAL_TOKENS = SpecialTokens()


def special_tokens_of(tokenizer: Tokenizer, chat: bool) -> SpecialTokens:
    """What a model was trained to see around a prompt.

    Args:
        tokenizer: the model's; it may put special tokens in front (``prompt_start``).
        chat: put the prompt as one user turn into the tokenizer's chat template, which has its own beginning.

    Raises:
        UserError: there is no chat template, or it cannot be used.
    """
    if not chat:
        return SpecialTokens(before=tokenizer.prompt_start)
    if tokenizer.chat_template is None:
        raise UserError("the model's tokenizer has no chat template", "leave out --chat-template")
    before, after = tokenizer.chat_template.around()
    return SpecialTokens(tuple(tokenizer.encode(before)), tuple(tokenizer.encode(after)))


def encode(segment: Segment, tokenizer: Tokenizer) -> Ids:
    """Token ids [t] of a segment."""
    return np.asarray(tokenizer.encode(segment) if isinstance(segment, str) else segment, dtype=np.int64)


def option_lengths(request: Request, tokenizer: Tokenizer) -> list[int]:
    """Tokens of each option; none where nothing is to be chosen."""
    return [len(tokenizer.encode(option)) for option in request.options] if isinstance(request, Choose) else []


def document_of(request: Request) -> Segment | None:
    """What of a request may be long, be cut, and be shared."""
    if isinstance(request, Read):
        return request.text
    index = request.prompt.document
    return None if index is None else request.prompt.segments[index]


class PromptTokens:
    """The token ids of a prompt, or of what follows its shared document, handed out in chunks: never joined.

    Args:
        parts: the token ids of its segments.
        digest: a hash that has taken in what was read before.
    """

    def __init__(self, parts: Sequence[Ids], digest: hashlib._Hash | None = None) -> None:
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in self.parts])
        self._hash = digest.copy() if digest else hashlib.sha256()

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def take(self, start: int, stop: int) -> Ids:
        """Token ids ``start`` .. ``stop - 1``; call it once for every token, in order, as it feeds ``sha256``."""
        taken = []
        for part, end in zip(self.parts, self.ends, strict=True):
            first = end - len(part)
            if first < stop and start < end:
                taken.append(part[max(start - first, 0) : stop - first])
        ids = np.concatenate(taken)
        self._hash.update(ids.astype("<i8").tobytes())
        return ids

    @property
    def sha256(self) -> str:
        """Hex digest of all that was taken, as little-endian 64-bit integers."""
        return self._hash.hexdigest()


def prompt_parts(
    prompt: Prompt,
    tokenizer: Tokenizer,
    kept: int | None,
    context: Context | None,
    special: SpecialTokens = NO_SPECIAL_TOKENS,
) -> list[Ids]:
    """The token ids of a prompt's segments, its document cut to ``kept`` tokens, with what stands around them."""
    parts = [encode(segment, tokenizer) for segment in prompt.segments]
    if prompt.document is not None and kept is not None and context is not None:
        parts[prompt.document] = context.cut(parts[prompt.document], kept)
    around = [np.asarray(ids, np.int64) for ids in (special.before, special.after)]
    return [part for part in (around[0], *parts, around[1]) if len(part)]
