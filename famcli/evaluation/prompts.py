"""Prompts as token ids: what a request asks to be read, cut where the user wants it cut, handed out in chunks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from famcli.errors import UserError
from famcli.seams import NO_SPECIAL_TOKENS, Head, Ids, Piece, SpecialTokens, join
from famcli.task import Choose, Generate, Prompt, Read, Request, Segment

if TYPE_CHECKING:
    from famcli.checkpoints.tokenizer import Tokenizer

Side = Literal["left", "right", "middle"]

CUT_STEP = 128
"""A cut document keeps a multiple of this number of tokens: questions of nearly one length still share it."""


class DoesNotFitError(UserError):
    """A sample is beyond the context, and nothing of it can be cut.

    Attributes:
        uncut: something could be, if the user said what.
    """

    def __init__(self, message: str, hint: str, uncut: bool = False) -> None:
        super().__init__(message, hint)
        self.uncut = uncut


@dataclass(frozen=True)
class Context:
    """The most tokens that a prompt and its answer may take.

    Attributes:
        tokens: the bound.
        truncate: which part of a document that is too long is cut; ``None`` makes it an error.
        thinking: room for thoughts before an answer.
    """

    tokens: int
    truncate: Side | None
    thinking: int = 0

    def kept(self, document: int, rest: int, where: str) -> int:
        """How many tokens of a document are read.

        Args:
            document: its tokens.
            rest: tokens of question and answer, which are never cut; those of thoughts are added here.
            where: the sample, for the error.

        Raises:
            UserError: it does not fit and may not be cut, or nothing of it would be left.
        """
        rest += self.thinking
        fewer = f", or think less than --strip-thinking {self.thinking}" if self.thinking else ""
        room = self.tokens - rest
        if document <= room:
            return document
        too_long = f"{where} takes {document + rest:,} tokens, more than the context of {self.tokens:,}"
        if not document:
            raise DoesNotFitError(too_long, f"ask for shorter prompts, or raise --max-context{fewer}")
        if self.truncate is None:
            hint = f"cut documents with --truncate left, right or middle, or raise --max-context{fewer}"
            raise DoesNotFitError(too_long, hint, uncut=True)
        kept = room // CUT_STEP * CUT_STEP if rest and room >= CUT_STEP else room  # a text by itself shares nothing
        if kept < 1:
            raise UserError(
                f"{where}: question and answer alone take {rest:,} tokens of a context of {self.tokens:,}",
                f"raise --max-context{fewer}",
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


def special_tokens_of(
    tokenizer: Tokenizer, chat: bool, arguments: Mapping[str, Any] | None = None, system: str | None = None
) -> SpecialTokens:
    """What a model was trained to see around a prompt.

    Args:
        tokenizer: the model's; it may put special tokens in front (``prompt_start``).
        chat: put the prompt as one user turn into the tokenizer's chat template, which has its own beginning.
        arguments: of the chat template.
        system: a message of the system before every prompt, in the chat template.

    Raises:
        UserError: there is no chat template, or it cannot be used so.
    """
    for option, given in (("--chat-template-arg", bool(arguments)), ("--system-prompt", system is not None)):
        if given and not chat:
            raise UserError(f"{option} is given without a chat template", "add --chat-template")
    if system is not None:
        _check_text(system)
    if not chat:
        return SpecialTokens(before=tokenizer.prompt_start)
    if tokenizer.chat_template is None:
        raise UserError("the model's tokenizer has no chat template", "leave out --chat-template")
    before, after = tokenizer.chat_template.around(arguments, system)
    ids = tuple(tokenizer.encode(before)), tuple(tokenizer.encode(after))
    turns = partial(tokenizer.chat_template.turns, arguments=arguments, system=system)
    return SpecialTokens(*ids, (before, after), arguments or {}, system, turns)


def _check_text(system: str) -> None:
    """Raises ``UserError`` where a system prompt says nothing, or is no text."""
    if not system.strip():
        raise UserError("the system prompt is empty", "leave out --system-prompt")
    try:
        system.encode()
    except UnicodeEncodeError:
        raise UserError("the system prompt is not UTF-8", "--system-prompt @FILE reads it from a file") from None


def pieces_of(prompt: Prompt, special: SpecialTokens) -> list[Piece]:
    """What is read of a prompt, after ``special.start``: of a chat the turns of the template, if there is one."""
    if not prompt.messages or special.turns is None:
        return special.around(prompt.segments)
    before, *after = special.turns(tuple(message.role for message in prompt.messages))
    texts = [prompt.segments[message.segment] for message in prompt.messages]
    return [before, *chain.from_iterable(zip(texts, after, strict=True))]


def encode(segment: Segment, tokenizer: Tokenizer) -> Ids:
    """Token ids [t] of a segment."""
    return np.asarray(tokenizer.encode(segment) if isinstance(segment, str) else segment, dtype=np.int64)


def document_of(request: Request) -> Segment | None:
    """What of a request may be long, be cut, and be shared."""
    if isinstance(request, Read):
        return request.text
    index = request.prompt.document
    return None if index is None else request.prompt.segments[index]


@dataclass(frozen=True)
class Opening:
    """A prompt to the end of its document; of a prompt without one, what stands before every prompt.

    Attributes:
        tokens: how many it has.
        before: how many of them stand before the document.
        head: its end.
    """

    tokens: int
    before: int
    head: Head


def open_prompt(prompt: Prompt, tokenizer: Tokenizer, special: SpecialTokens) -> tuple[Opening, Ids]:
    """The opening of a prompt, and its token ids."""
    if prompt.document is None:
        return Opening(len(special.start), len(special.start), Head()), special.start
    pieces = pieces_of(prompt, special)[: prompt.document + 2]
    joined = join(Head(), pieces, tokenizer)
    before = join(Head(), pieces[:-1], tokenizer).tokens
    ids = np.concatenate((special.start, joined.ids))
    return Opening(len(ids), len(special.start) + before, joined.head), ids


@dataclass(frozen=True)
class Rest:
    """What follows a prompt's opening.

    Attributes:
        dropped: how many tokens at the end of the opening are others in the joined text.
        parts: the tokens of the prompt from there on.
        options: the tokens of each option behind it, with those of what is given with it.
        given: how many of these are not weighed, an option each.
    """

    dropped: int
    parts: list[Ids]
    options: list[list[int]]
    given: list[int]

    @property
    def tokens(self) -> int:
        """How many there are in ``parts``."""
        return sum(map(len, self.parts))


def rest_of(request: Generate | Choose, head: Head, tokenizer: Tokenizer, special: SpecialTokens) -> Rest:
    """What follows an opening that ends in ``head``; of one that is cut, in token ids: ``Head(None)``."""
    document = request.prompt.document
    pieces = pieces_of(request.prompt, special)
    joined = join(head, pieces if document is None else pieces[document + 2 :], tokenizer)
    if isinstance(request, Generate):
        return Rest(joined.dropped, joined.parts, [], [])
    answers = [special.answer(option) for option in request.options]
    if request.given:
        dropped, options, given = _behind_given(joined.head, request.given, answers, tokenizer)
    else:
        dropped, options = joined.head.choices(answers, tokenizer)
        given = [0] * len(options)
    *parts, last = joined.parts or [np.zeros(0, np.int64)]
    kept = len(last) - dropped
    return Rest(joined.dropped + max(-kept, 0), [*parts, last[: max(kept, 0)]], options, given)


def _behind_given(
    head: Head, given: Sequence[str], options: Sequence[str], tokenizer: Tokenizer
) -> tuple[int, list[list[int]], list[int]]:
    """As ``Head.choices``, for options behind texts of their own; and how many tokens of each are such a text's."""
    found, counts = [], []
    for before, option in zip(given, options, strict=True):
        joined = join(head, [before], tokenizer)
        changed, ids = joined.head.then(option, tokenizer)
        kept = joined.ids[: max(joined.tokens - changed, 0)]
        found.append((joined.dropped, [*kept.tolist(), *ids.tolist()]))
        counts.append(len(kept))
    most, end = max(dropped for dropped, _ in found), len(head.last)
    behind = [[*head.last[end - most : end - dropped].tolist(), *ids] for dropped, ids in found]
    return most, behind, [count + most - dropped for count, (dropped, _) in zip(counts, found, strict=True)]


class PromptTokens:
    """The token ids of a prompt, or of what follows its shared document, handed out in chunks: never joined.

    Args:
        parts: its token ids.
        digest: a hash that has taken in what was read before.
        rest: with the token ids of each option behind it, where something is to be chosen.
    """

    def __init__(self, parts: Sequence[Ids], digest: hashlib._Hash | None = None, rest: Rest | None = None) -> None:
        self.parts = parts
        self.options: Sequence[Sequence[int]] = rest.options if rest else ()
        self.given: Sequence[int] = rest.given if rest else ()
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

    def behind(self, tokens: int, digest: hashlib._Hash) -> PromptTokens:
        """What follows the first ``tokens`` token ids, whose hash is ``digest``; nothing must have been taken.

        Raises:
            ValueError: the prompt begins otherwise.
        """
        ids = np.concatenate(self.parts)
        if hashlib.sha256(ids[:tokens].astype("<i8").tobytes()).digest() != digest.digest():
            raise ValueError("the prompt does not begin with what was read for it")
        rest = Rest(0, [], list(map(list, self.options)), list(self.given)) if self.options else None
        return PromptTokens([ids[tokens:]], digest, rest)

    @property
    def sha256(self) -> str:
        """Hex digest of all that was taken, as little-endian 64-bit integers."""
        return self._hash.hexdigest()


def prompt_tokens(
    request: Generate | Choose,
    tokenizer: Tokenizer,
    special: SpecialTokens = NO_SPECIAL_TOKENS,
    kept: int | None = None,
    context: Context | None = None,
) -> PromptTokens:
    """A whole prompt, its document cut to ``kept`` tokens, if it is to be cut, with what stands around it."""
    opening, ids = open_prompt(request.prompt, tokenizer, special)
    if context is None or kept is None or kept == opening.tokens - opening.before:
        rest = rest_of(request, opening.head, tokenizer, special)
        parts = [ids[: opening.tokens - rest.dropped], *rest.parts]
    else:
        rest = rest_of(request, Head(None), tokenizer, special)
        parts = [ids[: opening.before], context.cut(ids[opening.before :], kept), *rest.parts]
    return PromptTokens([part for part in parts if len(part)], rest=rest)
