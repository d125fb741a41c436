"""Asks a model that answers elsewhere: prompts go as texts, and what it says of its own tokens is what is scored."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from famcli.errors import UserError
from famcli.evaluation.answered import Answered, kept
from famcli.evaluation.plan import Group, Planned
from famcli.evaluation.prediction import Prediction, by_position
from famcli.evaluation.prompts import Context, encode
from famcli.evaluation.stream import token_digest
from famcli.models.remote import Likelihoods, Remote
from famcli.task import Choose, Chosen, Generate, Generated, Predicted, Read, Request

if TYPE_CHECKING:
    from famcli.checkpoints.tokenizer import Tokenizer


class Reply(NamedTuple):
    """What a model said to a request.

    Attributes:
        planned, request: which one.
        answered: it.
        seconds: from when it was asked.
    """

    planned: Planned
    request: Request
    answered: Answered
    seconds: float


def groups_of(planned: Sequence[Planned], done: frozenset[str]) -> list[Group]:
    """All that is still to be asked: nothing is shared, and lengths need not be equal."""
    left = [p for p in planned if p.sample.id not in done]
    return [Group(0, [left])] if left else []


def ask(
    remote: Remote, tokenizer: Tokenizer, context: Context | None, asked: Iterator[tuple[Planned, Request]]
) -> Iterator[Reply]:
    """The answers in the order in which they come, ``remote.at_once`` questions under way at a time.

    Where one fails, nothing more is asked, and what is under way is waited for and given: it may have cost money.

    Raises:
        UserError: the model cannot be reached, refuses, or does not tell what is asked; or ``asked`` raises it.
    """
    questions: SimpleQueue[tuple[Planned, Request] | None] = SimpleQueue()
    replies: SimpleQueue[Reply | Exception] = SimpleQueue()
    answer = partial(_reply, remote, tokenizer, context)
    for _ in range(remote.at_once):
        # Not those of a pool, which the end of a program waits for: Ctrl-C must not take as long as a stall.
        Thread(target=_work, args=(answer, questions, replies), daemon=True).start()
    failed: Exception | None = None
    under_way = 0
    try:
        while True:
            try:
                while under_way < remote.at_once and (one := next(asked, None)):
                    questions.put(one)
                    under_way += 1
            except UserError as error:
                failed = error
            if not under_way:
                break
            reply = replies.get()
            under_way -= 1
            if isinstance(reply, Exception):
                failed, asked = failed or reply, iter(())
            else:
                yield reply
    finally:
        for _ in range(remote.at_once):
            questions.put(None)
    if failed is not None:
        raise failed


def _work(
    answer: Callable[[Planned, Request], Reply],
    questions: SimpleQueue[tuple[Planned, Request] | None],
    replies: SimpleQueue[Reply | Exception],
) -> None:
    while (question := questions.get()) is not None:
        try:
            replies.put(answer(*question))
        except Exception as error:
            replies.put(error)


def _reply(remote: Remote, tokenizer: Tokenizer, context: Context | None, planned: Planned, request: Request) -> Reply:
    """Asks one question; tokens are counted as famcli's tokenizer cuts them."""
    begun = time.perf_counter()
    if isinstance(request, Read):
        answered = _predict(remote, tokenizer, context, planned, request)
    else:
        text = prompt_text(request, tokenizer, planned, context)
        answer: Generated | Chosen = (
            _weigh(remote, request, text) if isinstance(request, Choose) else _write(remote, tokenizer, request, text)
        )
        digest, tokens = token_digest(encode(text, tokenizer)).hexdigest(), planned.prompt_tokens
        answered = Answered(answer, kept(answer), digest, tokens, tokens, 0)
    return Reply(planned, request, answered, time.perf_counter() - begun)


def _predict(
    remote: Remote, tokenizer: Tokenizer, context: Context | None, planned: Planned, request: Read
) -> Answered:
    ids, text = encode(request.text, tokenizer), request.text
    if context and planned.document_tokens is not None and planned.document_tokens < len(ids):
        ids = context.cut(ids, planned.document_tokens)
        text = tokenizer.decode(ids.tolist())
    found, told = predict_text(remote, tokenizer, text)
    parts = by_position(found, np.arange(len(told.tokens)), partial(_spelt, told))
    answer = Predicted(text, found.log_likelihoods, found.hits)
    digest = token_digest(ids).hexdigest()
    return Answered(answer, {"by_position": parts}, digest, len(ids), len(ids), 0)


def prompt_text(request: Generate | Choose, tokenizer: Tokenizer, p: Planned, context: Context | None) -> str:
    """The text of a prompt; token ids of a task are spelt, and so is a document that was cut."""
    parts = []
    for place, segment in enumerate(request.prompt.segments):
        cut = p.cut_tokens and place == request.prompt.document
        if isinstance(segment, str) and not cut:
            parts.append(segment)
            continue
        ids = np.asarray(tokenizer.encode(segment) if isinstance(segment, str) else segment, np.int64)
        if cut and context is not None:
            ids = context.cut(ids, p.document_tokens or 0)
        parts.append(tokenizer.decode(ids.tolist()))
    return "".join(parts)


def predict_text(remote: Remote, tokenizer: Tokenizer, text: str) -> tuple[Prediction, Likelihoods]:
    """What the model says of each token of a text; the first one is taken as uniform over the tokenizer, and missed."""
    found = remote.weigh(text)
    unknown = -math.log(tokenizer.vocab_size)
    values = np.array([unknown if one is None else one for one in found.log_likelihoods], np.float32)
    hits = np.array(found.hits, np.bool_)
    return Prediction(values, hits, "", 0), found


def _spelt(found: Likelihoods, ids: Sequence[int]) -> str:
    """The text of some of the tokens, by their places."""
    return "".join(found.tokens[place] for place in ids)


def _write(remote: Remote, tokenizer: Tokenizer, request: Generate, prompt: str) -> Generated:
    """White space that does not count must not be where a stop string ends the answer, so such stops are found here."""
    written = remote.write(prompt, request.max_new_tokens, () if request.skip_blank_lines else request.stop)
    begin = len(written.text) - len(written.text.lstrip()) if request.skip_blank_lines else 0
    places = [written.text.find(stop, begin) for stop in request.stop]
    end = min((place for place in places if place >= 0), default=None)
    text = written.text[begin:end]
    return Generated(text, tuple(tokenizer.encode(text)), written.cut and end is None and bool(request.stop))


def _weigh(remote: Remote, request: Choose, prompt: str) -> Chosen:
    sums, counts, greedy = [], [], []
    for option, given in zip(request.options, request.given or [""] * len(request.options), strict=True):
        found = remote.weigh(prompt + given + option)
        ends = np.cumsum([len(token) for token in found.tokens])
        places = [place for place, end in enumerate(ends) if end > len(prompt + given)]
        values = [found.log_likelihoods[place] for place in places]
        known = [value for value in values if value is not None]
        if not known or len(known) < len(values):
            raise UserError(f"{remote.name} does not tell how likely '{option[:40]}' is: nothing stands before it")
        sums.append(math.fsum(known))
        counts.append(len(places))
        greedy.append(all(found.hits[place] for place in places))
    return Chosen(tuple(sums), tuple(counts), tuple(greedy) if request.greedy else ())
