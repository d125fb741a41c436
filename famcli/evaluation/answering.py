"""Answers the samples of a group and scores the answers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from famcli.errors import UserError
from famcli.evaluation.answered import Answered, kept, kept_draw
from famcli.evaluation.asking import SampleError, Skips, request_of, scores_of
from famcli.evaluation.asking_remote import ask as ask_remote
from famcli.evaluation.drawing import Drawer, Drawing, Drawn, mean_scores
from famcli.evaluation.generation import Thinking, answer_batch
from famcli.evaluation.journal import Entry
from famcli.evaluation.kept_prompts import PromptKeeper
from famcli.evaluation.plan import Group, Planned
from famcli.evaluation.prediction import by_position, predict
from famcli.evaluation.prompts import (
    Context,
    Opening,
    PromptTokens,
    encode,
    open_prompt,
    pieces_of,
    prompt_tokens,
    rest_of,
)
from famcli.evaluation.stream import Prefix, StateKeeper, read_document
from famcli.machine.peak import PeakMemory
from famcli.models.remote import Remote
from famcli.seams import Head, Ids, SpecialTokens
from famcli.task import Choose, Generate, Predicted, Read, Request, Task

if TYPE_CHECKING:
    from famcli.checkpoints.sources import LoadedModel
    from famcli.checkpoints.tokenizer import Tokenizer

TAIL = 200
"""Characters of a prompt's end that the journal keeps."""


class Shared(NamedTuple):
    """A document or header that has been read, up to where the first of its prompts goes on otherwise.

    Attributes:
        prefix: what was read.
        opening: the opening of its prompts; ``None`` of a header, behind which every prompt is tokenised whole.
        ids: the opening's tokens behind what was read; none, where the document is cut.
        cut: whether it is.
    """

    prefix: Prefix
    opening: Opening | None
    ids: Ids
    cut: bool


@dataclass(frozen=True)
class Answering:
    """What answering needs.

    Attributes:
        model: who answers.
        task: whose samples these are.
        context: the bound on prompts, if there is one.
        special: what stands around every prompt.
        thinking: the most tokens of thoughts before an answer; ``None`` takes them for the answer.
        drawing: how answers are drawn; ``None`` takes the most likely token each time.
        keeper: keeps the state of a long document on the way.
        skips: what is done with samples that the task fails on.
        advance: called with the number of tokens after each chunk.
        peak: counts memory.
        prompts: keeps the prompts, where the user wants them.
    """

    model: LoadedModel
    task: Task
    context: Context | None
    special: SpecialTokens
    thinking: int | None
    drawing: Drawing | None
    keeper: StateKeeper
    skips: Skips
    advance: Callable[[int], None]
    peak: PeakMemory
    prompts: PromptKeeper | None = None

    def answers(self, groups: Iterable[Group]) -> Generator[list[Entry]]:
        """The entries of all groups, batch by batch; memory is counted from the first to the last."""
        with self.peak:
            for group in groups:
                yield from self.answer(group)

    def answer(self, group: Group) -> Iterator[list[Entry]]:
        """The entries of a group's batches, one batch after the other; the shared document is read first."""
        self.keeper.begin()
        if isinstance(self.model.stream, Remote):
            yield from self._answer_elsewhere(self.model.stream, group)
            return
        shared = None
        if group.shared_tokens:
            first = next((asked for batch in group.batches for asked in self._requests(batch)), None)
            if first is None:
                return
            shared = self._read_shared(*first, group.shared_tokens)
        if group.begun:
            self.keeper.earlier = 0.0  # the journal has them: with the answers that are there
        waited, unanswered = 0.0, not (group.shared_tokens and group.begun)
        for batch in group.batches:
            requests = list(self._requests(batch))
            for _, some in groupby(requests, key=_together):
                pairs = list(some)
                if self.prompts:  # before the answers: a sample of the journal has its prompt, whatever happens
                    self.prompts.keep(pairs)
                answered = list(self._answer(pairs, shared))
                took = self.keeper.seconds
                waited, share = waited + took, took / len(pairs)
                self.keeper.begin()
                peak = self.peak.bytes
                computed = shared.prefix.computed if shared else 0
                entries, errors = list[Entry](), list[SampleError]()
                for (p, request), one in zip(pairs, answered, strict=True):
                    try:
                        entry = self._entry(p, request, one)
                    except SampleError as error:
                        errors.append(error)
                        continue
                    shown = replace(entry, shared_computed_tokens=computed, seconds=share, peak_memory_bytes=peak)
                    entries.append(replace(shown, first_answer_seconds=waited if unanswered else None))
                if not group.shared_tokens:  # each is a reading of its own
                    waited = 0.0
                elif entries:
                    unanswered = False
                yield entries
                for failed in errors:  # now that the others are kept
                    self.skips.add(failed)

    def _requests(self, batch: Sequence[Planned]) -> Iterator[tuple[Planned, Request]]:
        for p in batch:
            try:
                yield p, request_of(self.task, p.sample)
            except SampleError as error:
                self.skips.add(error)

    def _read_shared(self, first: Planned, request: Request, tokens: int) -> Shared:
        """The document of a group, of which ``first`` is one, whose prompts have ``tokens`` in common."""
        assert not isinstance(request, Read)
        if first.header:
            ids = np.concatenate(self._whole(first, request).parts)[:tokens]
            return Shared(read_document(self.model.stream, ids, self.keeper, self.advance), None, ids[:0], False)
        opening, ids = open_prompt(request.prompt, self.model.tokenizer, self.special)
        if first.cut_tokens:
            assert self.context is not None
            document = self.context.cut(ids[opening.before :], tokens - opening.before)
            ids = np.concatenate((ids[: opening.before], document))
        prefix = read_document(self.model.stream, ids[:tokens], self.keeper, self.advance)
        return Shared(prefix, opening, ids[tokens:].copy(), first.cut_tokens > 0)

    def _answer(self, pairs: Sequence[tuple[Planned, Request]], shared: Shared | None) -> Iterator[Answered]:
        """The answer to each request."""
        tokenizer = self.model.tokenizer
        if isinstance(pairs[0][1], Read):
            for p, request in pairs:
                assert isinstance(request, Read)
                yield self._predict(p, request)
            return
        requests = [request for _, request in pairs if isinstance(request, Generate | Choose)]
        prompts = [
            self._behind(p, request, shared) if shared else self._whole(p, request)
            for (p, _), request in zip(pairs, requests, strict=True)
        ]
        prefix = shared.prefix if shared else None
        thinking = Thinking(self.thinking, self.special.thinks) if self.thinking else None
        ask = partial(answer_batch, self.model.stream, tokenizer, thinking=thinking, keeper=self.keeper)
        drawers, together = list[list[Drawer]](), 1
        if self.drawing and isinstance(requests[0], Generate):
            drawers, together = [self.drawing.drawers(p.sample.id) for p, _ in pairs], self.drawing.rows
        for reply in ask(requests, prompts, prefix, self.advance, drawers=drawers, rows_together=together):
            cost = reply.prompt_tokens, reply.computed_tokens, reply.state_bytes
            yield Answered(reply.answer, kept(reply.answer), reply.prompt_sha256, *cost)

    def _answer_elsewhere(self, remote: Remote, group: Group) -> Iterator[list[Entry]]:
        """The entries of a model that answers elsewhere, each by itself as soon as it is there: what was paid for is
        kept, whatever becomes of the others.
        """
        asked = self._requests([p for batch in group.batches for p in batch])
        for reply in ask_remote(remote, self.model.tokenizer, self.context, asked):
            took = self.keeper.seconds
            self.keeper.begin()
            self.advance(reply.planned.own_tokens)
            try:
                entry = self._entry(reply.planned, reply.request, reply.answered)
            except SampleError as error:
                self.skips.add(error)
                continue
            shown = replace(entry, shared_computed_tokens=0, seconds=took, peak_memory_bytes=self.peak.bytes)
            yield [replace(shown, first_answer_seconds=reply.seconds)]

    def _whole(self, p: Planned, request: Generate | Choose) -> PromptTokens:
        return prompt_tokens(request, self.model.tokenizer, self.special, p.document_tokens, self.context)

    def _behind(self, p: Planned, request: Generate | Choose, shared: Shared) -> PromptTokens:
        """What of a prompt has not been read with the document or header."""
        if shared.opening is None:
            try:
                return self._whole(p, request).behind(shared.prefix.tokens, shared.prefix.digest)
            except ValueError as error:
                raise UserError(
                    f"task {self.task.name}: sample {p.sample.id} asks otherwise than it did when it was measured"
                ) from error
        # A long document takes seconds to tokenise, and there may be many questions.
        head = Head(None) if shared.cut else shared.opening.head
        rest = rest_of(request, head, self.model.tokenizer, self.special)
        return PromptTokens([shared.ids[: len(shared.ids) - rest.dropped], *rest.parts], shared.prefix.digest, rest)

    def _predict(self, p: Planned, request: Read) -> Answered:
        tokenizer = self.model.tokenizer
        ids, text = encode(request.text, tokenizer), request.text
        if self.context and p.document_tokens is not None and p.document_tokens < len(ids):
            ids = self.context.cut(ids, p.document_tokens)
            text = tokenizer.decode(ids.tolist())
        if not len(ids):
            raise UserError(f"task {self.task.name}: sample {p.sample.id} is an empty text")
        found = predict(self.model.stream, tokenizer, ids, self.keeper, self.advance)
        parts = {"by_position": by_position(found, ids, tokenizer.decode)}
        answer = Predicted(text, found.log_likelihoods, found.hits)
        return Answered(answer, parts, found.sha256, len(ids), len(ids), found.state_bytes)

    def _entry(self, p: Planned, request: Request, answered: Answered) -> Entry:
        """All of it but what it shares with the batch."""
        sample, tokens = p.sample, answered.prompt_tokens
        if tokens != p.prompt_tokens:
            raise UserError(
                f"task {self.task.name}: sample {sample.id} announced {p.prompt_tokens} prompt tokens and has {tokens}"
            )
        told = answered.kept
        if isinstance(answered.answer, Drawn):
            found = [scores_of(self.task, sample, one) for one in answered.answer.answers]
            scores, weights = mean_scores(self.task.metrics, found)
            told = {"draws": list(map(kept_draw, answered.answer.answers, (own for own, _ in found)))}
        else:
            scores, weights = scores_of(self.task, sample, answered.answer)
        return Entry(
            id=sample.id,
            cell=dict(sample.cell),
            details=dict(sample.details),
            document=sample.document or "",
            prompt_sha256=answered.prompt_sha256,
            prompt_tokens=tokens,
            shared_tokens=p.shared_tokens,
            option_tokens=p.option_tokens,
            cut_tokens=p.cut_tokens,
            requests=p.requests,
            output=_output(request, answered.answer),
            answer=told,
            reference=sample.reference,
            scores=scores,
            weights=weights,
            seconds=0.0,
            state_bytes=answered.state_bytes,
            peak_memory_bytes=0,
            computed_tokens=answered.computed_tokens + p.option_tokens,
            header=p.header,
            prompt_tail=_tail(p, request, self.special, self.model.tokenizer),
            options=_options(request) if isinstance(request, Choose) else [],
            template=self.task.template,
            around=_around(request, self.special),
            truncate=(self.context.truncate or "") if self.context and p.cut_tokens else "",
        )


def _together(asked: tuple[Planned, Request]) -> tuple[type, str]:
    """What is answered at once: texts to predict are read one by one, and each is kept as soon as it is known."""
    p, request = asked
    return type(request), p.sample.id if isinstance(request, Read) else ""


def _around(request: Request, special: SpecialTokens) -> list[str]:
    """What a chat template puts before and after the prompt."""
    if isinstance(request, Read) or special.texts is None:
        return []
    before, *_, after = pieces_of(request.prompt, special)
    return [str(before), str(after)]


def _tail(p: Planned, request: Request, special: SpecialTokens, tokenizer: Tokenizer) -> str:
    """The last words of a prompt, without what a chat template adds; not those of a document that was cut."""
    if isinstance(request, Read):
        return ""
    tail = ""
    if request.prompt.messages and special.turns:
        return str(request.prompt.segments[request.prompt.messages[-1].segment])[-TAIL:]
    for i, segment in reversed(list(enumerate(request.prompt.segments))):
        if len(tail) >= TAIL or (p.cut_tokens and i == request.prompt.document):
            break
        # A token is a byte at least, and a character at most four.
        text = segment if isinstance(segment, str) else tokenizer.decode(segment[-4 * TAIL :].tolist())
        tail = (text[-TAIL:] + tail)[-TAIL:]
    return tail


def _output(request: Request, answer: Any) -> str:
    if isinstance(request, Choose):
        return _options(request)[int(answer.best)]
    if isinstance(answer, Drawn):
        answer = answer.answers[0]
    return str(answer.text) if isinstance(request, Generate) else ""


def _options(request: Choose) -> list[str]:
    """The options as a reader should see them."""
    given = request.given or [""] * len(request.options)
    return [before + option for before, option in zip(given, request.options, strict=True)]
