"""Decides what is read together: each document once, and which samples are answered in one batch.

The answers do not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from famcli.errors import UserError
from famcli.evaluation.prompts import NO_SPECIAL_TOKENS, Context, SpecialTokens, document_of, encode, option_lengths
from famcli.task import Choose, Generate, Read, Request, Sample, Segment

if TYPE_CHECKING:
    from famcli.checkpoints.tokenizer import Tokenizer


@dataclass(frozen=True)
class Planned:
    """A sample, and what answering it takes.

    Attributes:
        sample: it.
        prompt_tokens: tokens of its prompt as it is read.
        document_tokens: how many of them are the document, ``None`` without one.
        shared_tokens: how many of them, at the beginning, are read once for all samples of the group.
        option_tokens: tokens of all its options.
        requests: how many times a harness that asks everything by itself would read the prompt: once for each option.
        cut_tokens: tokens of the document that are left out.
    """

    sample: Sample
    prompt_tokens: int
    document_tokens: int | None = None
    shared_tokens: int = 0
    option_tokens: int = 0
    requests: int = 1
    cut_tokens: int = 0

    @property
    def own_tokens(self) -> int:
        """Tokens read for this sample alone."""
        return self.prompt_tokens - self.shared_tokens + self.option_tokens


@dataclass(frozen=True)
class Group:
    """Batches whose prompts begin with the same ``shared_tokens`` tokens; the prompts of a batch are of one length.

    ``begun``: some of those that share them have been answered before.
    """

    shared_tokens: int
    batches: list[list[Planned]]
    begun: bool = False

    @property
    def tokens(self) -> int:
        """Tokens that are read for the group."""
        return self.shared_tokens + sum(p.own_tokens for batch in self.batches for p in batch)


def measure(
    samples: Sequence[Sample], tokenizer: Tokenizer, context: Context | None, special: SpecialTokens = NO_SPECIAL_TOKENS
) -> list[Planned]:
    """What each sample takes, special tokens included; every document is tokenised once, and its length kept.

    Raises:
        UserError: a sample does not fit the context, its prompt or an option is empty, or one name stands for two
            documents.
    """
    lengths = _Documents(tokenizer)
    return [_measure(sample, tokenizer, context, special, lengths.tokens) for sample in samples]


class _Documents:
    """Lengths of named documents in tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._known: dict[str, tuple[Segment, int]] = {}

    def tokens(self, sample: Sample, document: Segment) -> int:
        if sample.document is None:
            return len(encode(document, self.tokenizer))
        if sample.document not in self._known:
            self._known[sample.document] = (document, len(encode(document, self.tokenizer)))
        first, tokens = self._known[sample.document]
        if not _same(first, document):
            raise UserError(f"sample {sample.id}: another sample has another document of the name '{sample.document}'")
        return tokens


def _same(one: Segment, other: Segment) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return isinstance(one, str) and isinstance(other, str) and one == other
    return one is other or np.array_equal(one, other)


def _measure(
    sample: Sample,
    tokenizer: Tokenizer,
    context: Context | None,
    special: SpecialTokens,
    document_tokens: Callable[[Sample, Segment], int],
) -> Planned:
    if sample.prompt_tokens is not None and context is None:
        return Planned(sample, sample.prompt_tokens + len(special))
    request = sample.request()
    if isinstance(request, Read):
        special = NO_SPECIAL_TOKENS
    document, own = document_of(request), _tokens_around(request, tokenizer)
    options = option_lengths(request, tokenizer)
    if isinstance(request, Choose) and not all(options or [0]):
        # It would be the most likely one: certain, as it says nothing.
        raise UserError(f"sample {sample.id}: an option has no tokens: {list(request.options)}")
    answer = request.max_new_tokens if isinstance(request, Generate) else max(options, default=0)
    whole = 0 if document is None else document_tokens(sample, document)
    kept = context.kept(whole, len(special) + own + answer, f"sample {sample.id}") if context else whole
    if not kept + own:
        raise UserError(f"sample {sample.id} has nothing to read: its prompt is empty")
    named = sample.document is not None and own > 0
    return Planned(
        sample,
        prompt_tokens=kept + len(special) + own,
        document_tokens=None if document is None else kept,
        shared_tokens=len(special.before) + kept if kept and named and _begins(request) else 0,
        option_tokens=sum(options),
        requests=max(len(options), 1),
        cut_tokens=whole - kept,
    )


def _begins(request: Request) -> bool:
    """The prompt begins with its document."""
    return not isinstance(request, Read) and request.prompt.document == 0


def _tokens_around(request: Request, tokenizer: Tokenizer) -> int:
    """Tokens of a prompt without its document."""
    if isinstance(request, Read):
        return 0
    segments = enumerate(request.prompt.segments)
    return sum(len(encode(segment, tokenizer)) for i, segment in segments if i != request.prompt.document)


def plan(planned: Iterable[Planned], batch_size: int, done: Collection[str]) -> list[Group]:
    """Groups of batches of samples still to be answered; prompts that share nothing come first, short before long.

    The rows of a batch must have read equally many tokens, so its prompts are of one length. Batches are formed before
    answered samples are left out: a resumed run then meets the batches of the uninterrupted one, and with them the
    same rounding.

    Args:
        planned: all samples of the run, measured.
        batch_size: most samples in a batch.
        done: ids of samples that have been answered.
    """
    groups: dict[tuple[str, int], list[Planned]] = {}
    for p in planned:
        key = (p.sample.document or "", p.shared_tokens) if p.shared_tokens else ("", 0)
        groups.setdefault(key, []).append(p)
    shared = [
        Group(key[1], _pending(members, batch_size, done), any(p.sample.id in done for p in members))
        for key, members in groups.items()
        if key[1]
    ]
    alone = Group(0, _pending(groups.get(("", 0), []), batch_size, done))
    return [group for group in (alone, *shared) if group.batches]


def _pending(members: Iterable[Planned], batch_size: int, done: Collection[str]) -> list[list[Planned]]:
    by_length: dict[int, list[Planned]] = {}
    for p in members:
        by_length.setdefault(p.prompt_tokens, []).append(p)
    batches = [
        rows[start : start + batch_size]
        for _, rows in sorted(by_length.items())
        for start in range(0, len(rows), batch_size)
    ]
    pending = [[p for p in batch if p.sample.id not in done] for batch in batches]
    return [batch for batch in pending if batch]
