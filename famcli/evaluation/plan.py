"""Decides what is read together: each document and each header once, and which samples are answered in one batch.

The answers do not depend on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from famcli.errors import UserError
from famcli.evaluation.prompts import (
    Context,
    DoesNotFitError,
    Opening,
    document_of,
    encode,
    open_prompt,
    prompt_tokens,
    rest_of,
)
from famcli.evaluation.record import LeftOut
from famcli.seams import NO_SPECIAL_TOKENS, Head, Ids, SpecialTokens, common
from famcli.task import Choose, Generate, Read, Request, Sample, Segment

if TYPE_CHECKING:
    from famcli.checkpoints.tokenizer import Tokenizer


LEAST_SHARED = 32
"""Tokens of a header that are worth sharing: fewer are read again sooner than a state is copied."""

Reading = tuple[str, str, bool, int]
"""What is read once: ``document`` or ``header``, its name, whether it is cut, and its tokens."""
ALONE: Reading = ("", "", False, 0)


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

    @property
    def header(self) -> str:
        """The name of the header whose reading it shares; ``""`` where it shares none."""
        return (self.sample.header or "") if self.shared_tokens else ""

    @property
    def reading(self) -> Reading:
        """The same for all samples that begin with the same header or document, cut alike; ``ALONE`` of one alone."""
        if self.header:
            return "header", self.header, False, self.shared_tokens
        if not self.shared_tokens or self.sample.document is None:
            return ALONE
        return "document", self.sample.document, self.cut_tokens > 0, self.document_tokens or 0


@dataclass(frozen=True)
class Group:
    """Batches whose prompts begin with the same ``shared_tokens`` tokens; the prompts of a batch are of one length.

    ``begun``: some of those that share them have been answered before.
    """

    shared_tokens: int
    batches: list[list[Planned]]
    begun: bool = False

    @property
    def header(self) -> str:
        """The name of the header that its prompts begin with; ``""`` without one."""
        return self.batches[0][0].header

    @property
    def tokens(self) -> int:
        """Tokens that are read for the group."""
        return self.shared_tokens + sum(p.own_tokens for batch in self.batches for p in batch)


def measure(
    samples: Sequence[Sample],
    tokenizer: Tokenizer,
    context: Context | None,
    special: SpecialTokens = NO_SPECIAL_TOKENS,
    *,
    left_out: Callable[[LeftOut], None] = lambda misfit: None,
    ask: Callable[[Sample], Request | None] = lambda sample: sample.request(),
    leaves_out: bool = False,
) -> list[Planned]:
    """What each sample takes, special tokens included; every document is tokenised once, and its length kept.

    A cell some of whose samples do not fit, so that nothing can be cut, is left out as long as others are there;
    ``left_out`` is told. So is, with ``leaves_out``, one with documents that could be cut; samples without a cell are
    left out document by document. And so is a sample that ``ask`` gives no request of.

    Raises:
        UserError: a sample does not fit the context, its prompt or an option is empty, or one name stands for two
            documents.
    """
    documents, headers = _Documents(tokenizer, special), dict[str, _Header]()
    planned, misfits = [], dict[str, DoesNotFitError]()
    for sample in samples:
        try:
            if sample.prompt_tokens is not None and context is None and not sample.header:
                planned.append(Planned(sample, sample.prompt_tokens))
            elif request := ask(sample):
                planned.append(_measure(sample, request, context, documents))
                if sample.header and not isinstance(request, Read):
                    kept = planned[-1].document_tokens
                    ids = np.concatenate(prompt_tokens(request, tokenizer, special, kept, context).parts)
                    headers.setdefault(sample.header, _Header(ids)).add(sample.id, ids)
        except DoesNotFitError as error:
            if error.uncut and not leaves_out:
                raise
            misfits.setdefault(_part(sample), error)
    planned = [p for p in planned if _part(p.sample) not in misfits]
    if misfits and not planned:
        raise next(iter(misfits.values()))
    counts = Counter(map(_part, samples))
    for part, misfit in misfits.items():
        left_out(LeftOut(what=part, samples=counts[part], why=f"{misfit.message}; {misfit.hint}"))
    # What is read once ends where the first of those that share it goes on otherwise.
    shared: dict[Reading, int] = {}
    for p in planned:
        shared[p.reading] = min(p.shared_tokens, shared.get(p.reading, p.shared_tokens))
    in_header = {id: header.shared for header in headers.values() for id in header.samples}
    return [replace(p, shared_tokens=in_header.get(p.sample.id, shared[p.reading])) for p in planned]


class _Header:
    """What prompts begin with alike, in the tokens of the whole prompts: no seam is cut."""

    def __init__(self, ids: Ids) -> None:
        self.ids, self.samples = ids, list[str]()

    def add(self, sample: str, ids: Ids) -> None:
        """Another prompt; its last token is read by itself, for the answer follows from it."""
        self.ids = self.ids[: common(self.ids, ids[:-1])].copy()
        self.samples.append(sample)

    @property
    def shared(self) -> int:
        """How many tokens are read once."""
        return len(self.ids) if len(self.samples) > 1 and len(self.ids) >= LEAST_SHARED else 0


def _part(sample: Sample) -> str:
    """What is left out together: a mean over a part of a cell would be another score."""
    cell = ", ".join(f"{name} {value}" for name, value in sample.cell.items())
    return cell or (f"sample {sample.id}" if sample.document is None else f"document {sample.document}")


class _Documents:
    """Named documents, tokenised once: their lengths and ends."""

    def __init__(self, tokenizer: Tokenizer, special: SpecialTokens) -> None:
        self.tokenizer, self.special = tokenizer, special
        self._known: dict[tuple[str, bool], Opening] = {}
        self._texts: dict[str, Segment] = {}
        self._headers: dict[str, Sequence[Segment]] = {}

    def opening(self, sample: Sample, request: Request) -> Opening:
        """Of the sample's prompt; of a text to predict, its length."""
        document = document_of(request)
        if sample.document is None or document is None:
            return self._open(request)
        if not _same(self._texts.setdefault(sample.document, document), document):
            raise UserError(f"sample {sample.id}: another sample has another document of the name '{sample.document}'")
        if not (isinstance(request, Read) or _begins(request)):
            return self._open(request)
        if not isinstance(request, Read):
            header = request.prompt.segments[: request.prompt.document]
            known = self._headers.setdefault(sample.document, header)
            if len(header) != len(known) or not all(map(_same, header, known)):
                raise UserError(f"sample {sample.id}: something else stands before document '{sample.document}'")
        name = (sample.document, isinstance(request, Read))
        if name not in self._known:
            self._known[name] = self._open(request)
        return self._known[name]

    def _open(self, request: Request) -> Opening:
        if isinstance(request, Read):
            return Opening(len(encode(request.text, self.tokenizer)), 0, Head())
        return open_prompt(request.prompt, self.tokenizer, self.special)[0]


def _same(one: Segment, other: Segment) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return isinstance(one, str) and isinstance(other, str) and one == other
    return one is other or np.array_equal(one, other)


def _measure(sample: Sample, request: Request, context: Context | None, documents: _Documents) -> Planned:
    tokenizer = documents.tokenizer
    opening = documents.opening(sample, request)
    whole, where = opening.tokens - opening.before, f"sample {sample.id}"
    if isinstance(request, Read):
        kept = replace(context, thinking=0).kept(whole, 0, where) if context else whole
        if not kept:
            raise UserError(f"{where} has nothing to read: its prompt is empty")
        return Planned(sample, kept, document_tokens=kept, cut_tokens=whole - kept)
    rest = rest_of(request, opening.head, tokenizer, documents.special)
    shared = opening.tokens - rest.dropped
    around = shared + rest.tokens - whole
    kept = whole
    if context:
        kept = context.kept(whole, around + _answer_tokens(request, rest.options), where)
    if kept < whole:  # where it was cut, or once was, token ids end, and the question is none of their text
        rest = rest_of(request, Head(None), tokenizer, documents.special)
        around = max(around, opening.before + rest.tokens)
        assert context is not None
        kept = context.kept(whole, around + _answer_tokens(request, rest.options), where)
        shared, around = opening.before + kept, opening.before + rest.tokens
    if not kept + around:
        raise UserError(f"{where} has nothing to read: its prompt is empty")
    if isinstance(request, Choose) and not all(rest.options or [0]):
        # It would be the most likely one: certain, as it says nothing.
        raise UserError(f"{where}: an option has no tokens: {list(request.options)}")
    named = sample.document is not None and kept > 0 and _begins(request) and kept + around > shared
    return Planned(
        sample,
        prompt_tokens=kept + around,
        document_tokens=None if request.prompt.document is None else kept,
        shared_tokens=shared if named else 0,
        option_tokens=sum(map(len, rest.options)),
        requests=max(len(rest.options), 1),
        cut_tokens=whole - kept,
    )


def _answer_tokens(request: Generate | Choose, options: Sequence[Sequence[int]]) -> int:
    """The most tokens of an answer."""
    return request.max_new_tokens if isinstance(request, Generate) else max(map(len, options), default=0)


def _begins(request: Request) -> bool:
    """The prompt begins with its document, or with what stands before it in all prompts about it."""
    return not isinstance(request, Read) and (
        request.prompt.document == 0 or (request.prompt.same_start and request.prompt.document is not None)
    )


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
    groups: dict[Reading, list[Planned]] = {}
    for p in planned:
        groups.setdefault(p.reading, []).append(p)
    shared = [
        Group(members[0].shared_tokens, _pending(members, batch_size, done), any(p.sample.id in done for p in members))
        for members in groups.values()
        if members[0].shared_tokens
    ]
    alone = Group(0, _pending(groups.get(ALONE, []), batch_size, done))
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
