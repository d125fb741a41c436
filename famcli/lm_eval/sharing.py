"""Answers many prompts of token ids, and reads what several of them begin with once: documents, headers of examples."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import torch

from famcli.checkpoints.sources import LoadedModel
from famcli.evaluation.generation import Reply, answer_batch, pieces_behind
from famcli.evaluation.plan import LEAST_SHARED
from famcli.evaluation.prompts import PromptTokens, Rest
from famcli.evaluation.stream import Prefix, to_device
from famcli.seams import Ids, common
from famcli.task import Choose, Generate, Prompt


@dataclass(frozen=True)
class Question:
    """A prompt, and what is asked behind it.

    Attributes:
        ids: the prompt's token ids, at least one.
        options: token ids to weigh; none where something is to be generated.
        request: what is to be generated; ``None`` where options are weighed.
    """

    ids: Ids
    options: tuple[tuple[int, ...], ...] = ()
    request: Generate | None = None

    @property
    def kind(self) -> tuple[bool, int]:
        """The same for questions that may be answered in one batch, behind the same reading."""
        return self.request is None, len(self.ids)


class Reader:
    """Answers questions behind prompts.

    Attributes:
        model: the model.
        rows: most questions in a batch.
        advance: called with the number of tokens after each piece that is read.
        tokens_read: tokens of prompts that were read so far.
    """

    def __init__(self, model: LoadedModel, rows: int, advance: Callable[[int], None] = lambda tokens: None) -> None:
        self.model, self.rows, self.advance = model, rows, advance
        self.tokens_read = 0

    @torch.no_grad()  # not inference mode: what the decoder keeps from here on must stay usable in training
    def answer(self, questions: Sequence[Question]) -> list[Reply]:
        """The answer to each question, in their order."""
        order = sorted(range(len(questions)), key=lambda i: questions[i].ids.tolist())
        start = Prefix(self.model.stream.start(1), hashlib.sha256(), 0, 0)
        found = dict(self._behind(start, [(i, questions[i]) for i in order]))
        return [found[i] for i in range(len(questions))]

    def _behind(self, prefix: Prefix, some: list[tuple[int, Question]]) -> Iterator[tuple[int, Reply]]:
        """Answers sorted questions that all begin with what ``prefix`` has read; its state is left as it is."""
        alone = []
        for together in _alike(some, prefix.tokens + LEAST_SHARED):
            if len(together) == 1:
                alone += together
                continue
            first, last = together[0][1].ids, together[-1][1].ids
            end = min(common(first, last), min(len(question.ids) for _, question in together) - 1)
            if end < prefix.tokens + LEAST_SHARED:  # they differ in their last token alone
                alone += together
                continue
            yield from self._behind(self._read_on(prefix, first[:end]), together)
        alone.sort(key=lambda one: one[1].kind)
        for _, members in groupby(alone, key=lambda one: one[1].kind):
            same = list(members)
            for begin in range(0, len(same), self.rows):
                yield from self._batch(prefix, same[begin : begin + self.rows])

    def _read_on(self, prefix: Prefix, ids: Ids) -> Prefix:
        """The reading of ``ids``, which begin with what ``prefix`` has read."""
        stream, state = self.model.stream, prefix.state.fork()
        for start, stop in pieces_behind(prefix.tokens, len(ids) - prefix.tokens, stream.chunk_size):
            piece = ids[None, prefix.tokens + start : prefix.tokens + stop]
            state = stream.prefill(to_device(piece, stream), state)
            self._note(stop - start)
        return Prefix(state, prefix.digest, len(ids), 0)

    def _batch(self, prefix: Prefix, some: Sequence[tuple[int, Question]]) -> Iterator[tuple[int, Reply]]:
        prompts = [
            PromptTokens(
                [question.ids[prefix.tokens :]],
                prefix.digest,
                Rest(0, [], [list(option) for option in question.options], [0] * len(question.options)),
            )
            for _, question in some
        ]
        requests = [
            question.request or Choose(Prompt(()), ("",) * len(question.options), greedy=True) for _, question in some
        ]
        replies = answer_batch(self.model.stream, self.model.tokenizer, requests, prompts, prefix, self._note)
        for (place, _), reply in zip(some, replies, strict=True):
            yield place, reply

    def _note(self, tokens: int) -> None:
        self.tokens_read += tokens
        self.advance(tokens)


def _alike(some: list[tuple[int, Question]], least: int) -> Iterator[list[tuple[int, Question]]]:
    """Neighbours that have at least so many tokens in common."""
    group = some[:1]
    for before, one in pairwise(some):
        if common(before[1].ids, one[1].ids) >= least:
            group.append(one)
        else:
            yield group
            group = [one]
    if group:
        yield group
