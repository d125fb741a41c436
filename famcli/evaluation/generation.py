"""Answers a batch of requests: prompts are streamed in chunks, answers decoded or options weighed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from famcli.errors import UserError
from famcli.evaluation.drawing import Drawer, Drawn
from famcli.evaluation.prompts import PromptTokens
from famcli.evaluation.stream import Prefix, StateKeeper, chunks, to_device
from famcli.models.stream import computed
from famcli.seams import ANSWER, THINK
from famcli.task import Choose, Chosen, Generate, Generated

if TYPE_CHECKING:
    from famcli.checkpoints.tokenizer import Tokenizer
    from famcli.models.stream import State, StreamModel


@dataclass(frozen=True)
class Reply:
    """An answer, and what it was given to.

    Attributes:
        answer: it; several, where so many were drawn.
        prompt_sha256: of the prompt's token ids as little-endian 64-bit integers.
        prompt_tokens: number of tokens in the prompt.
        computed_tokens: how many of those behind the prefix the model computed.
        state_bytes: memory of this one stream's state when the prompt has been read.
    """

    answer: Generated | Chosen | Drawn
    prompt_sha256: str
    prompt_tokens: int
    computed_tokens: int
    state_bytes: int


@dataclass(frozen=True)
class Thinking:
    """How thoughts are told from the answer that follows them: they stand between ``<think>`` and ``</think>``.

    Attributes:
        tokens: the most of them.
        open: the prompt ends inside of one.
    """

    tokens: int
    open: bool


@torch.no_grad()  # not inference mode: what the decoder keeps from here on must stay usable in training
def answer_batch(
    model: StreamModel[Any],
    tokenizer: Tokenizer,
    requests: Sequence[Generate | Choose],
    prompts: Sequence[PromptTokens],
    prefix: Prefix | None,
    advance: Callable[[int], None],
    *,
    thinking: Thinking | None = None,
    keeper: StateKeeper | None = None,
    drawers: Sequence[Sequence[Drawer]] = (),
    rows_together: int = 1,
) -> list[Reply]:
    """Answers requests of one kind whose prompts are equally long, as one batch.

    Generation takes the most likely token of the tokenizer's vocabulary, of equals the lowest id, or draws one, until
    the budget, a stop string or one of the tokenizer's ``answer_ends``. Memory does not grow with the prompt.

    Args:
        model: the model; inputs go to its device.
        tokenizer: the model's.
        requests: one a row.
        prompts: one a row; what follows the ``prefix``.
        prefix: a document that all prompts begin with, and that has been read.
        advance: called with the number of tokens after each chunk.
        thinking: thoughts before an answer are no part of it; ``None`` takes all for the answer.
        keeper: keeps the state of long prompts that share nothing on the way.
        drawers: of each request to generate, one for each answer to it; none where tokens are the most likely ones.
        rows_together: answers that are drawn at once, where there are more of them than requests.

    Raises:
        UserError: the tokenizer gives tokens that the model lacks, or the model gives no numbers.
        ValueError: the prompts differ in length, or are empty, or the requests are of both kinds.
    """
    length, rows, before = len(prompts[0]), len(requests), prefix.tokens if prefix else 0
    if not length or any(len(prompt) != length for prompt in prompts):
        raise ValueError(f"a batch needs prompts of one length, not {sorted({len(p) for p in prompts})} tokens")
    if prefix:
        state = prefix.state.index([0] * rows)
        for start, stop in pieces_behind(before, length - 1, model.chunk_size):
            tokens = _stack(prompts, start, stop, model)
            state = model.prefill(tokens, state)
            advance(tokens.numel())
    else:
        state = _read_prompts(model, prompts, keeper or StateKeeper(None), advance)
    last = _stack(prompts, length - 1, length, model)
    advance(rows)
    size, worked = state.nbytes // rows, computed(model, before, length - 1) + 1
    generate = [request for request in requests if isinstance(request, Generate)]
    choose = [request for request in requests if isinstance(request, Choose)]
    if generate and choose:
        raise ValueError("a batch needs requests of one kind")
    answers: list[Generated | Chosen | Drawn] = []
    if generate:
        latents, state = model.read(last, state)
        first = _First(_numbers(model.logits(latents[:, -1])), state)
        growing = [_GrowingAnswer(request, tokenizer, thinking) for request in generate]
        if drawers:
            answers += _draw(model, growing, first, drawers, rows_together)
        else:
            answers += _decode(model, growing, first)
    else:
        answers += _weigh(model, tokenizer, list(zip(choose, prompts, strict=True)), last, state, advance)
    return [
        Reply(answer, prompt.sha256, before + length, worked, size)
        for answer, prompt in zip(answers, prompts, strict=True)
    ]


def _read_prompts(
    model: StreamModel[Any], prompts: Sequence[PromptTokens], keeper: StateKeeper, advance: Callable[[int], None]
) -> State:
    """Reads prompts of one length to before their last token, or goes on reading them."""
    rows, length = len(prompts), len(prompts[0]) - 1
    pieces = chunks(0, length, model.chunk_size)
    name = _name(prompts) if any(piece.keep for piece in pieces) else ""
    kept = keeper.recall(name, model) if name else None
    state: State = kept[0] if kept and kept[0].batch == rows else model.start(rows)
    done = state.tokens_read
    for piece in pieces:
        tokens = _stack(prompts, piece.start, piece.stop, model)
        advance(tokens.numel())
        if piece.stop <= done:
            continue
        state = model.prefill(tokens, state)
        if piece.keep:
            keeper.keep(name, state, {})
    return state


def _name(prompts: Sequence[PromptTokens]) -> str:
    """Of the reading of these prompts, by their token ids."""
    digest = hashlib.sha256()
    for part in (part for prompt in prompts for part in prompt.parts):
        digest.update(np.ascontiguousarray(part, "<i8").data)
    return f"prompts {digest.hexdigest()}"


def pieces_behind(before: int, length: int, block_size: int) -> list[tuple[int, int]]:
    """Bounds of the chunks of ``length`` tokens that follow ``before`` others, cut where blocks end."""
    bounds = [0, *range(-before % block_size or block_size, length, block_size), length]
    return [(start, stop) for start, stop in pairwise(bounds) if start < stop]


def _stack(prompts: Sequence[PromptTokens], start: int, stop: int, model: StreamModel[Any]) -> Tensor:
    return to_device(np.stack([prompt.take(start, stop) for prompt in prompts]), model)


class _First(NamedTuple):
    """What is known when prompts have been read: the scores [b, v] of the tokens that may follow, and the state."""

    scores: Tensor
    state: State


def _decode(model: StreamModel[Any], growing: Sequence[_GrowingAnswer], first: _First) -> list[Generated]:
    """Lets answers grow. Rows that are done are read on beside the others: rows do not meet."""
    scores, state = first
    while True:
        chosen = _tokens(growing, scores)
        for answer, token in zip(growing, chosen.tolist(), strict=True):
            answer.add(token)
        if all(answer.done for answer in growing):
            return [answer.generated() for answer in growing]
        latents, state = model.read(chosen[:, None], state)
        scores = _numbers(model.logits(latents[:, -1]))


def _tokens(growing: Sequence[_GrowingAnswer], scores: Tensor) -> Tensor:
    """The next token [b] of each answer, one of the tokenizer's vocabulary."""
    known = scores[:, : growing[0].tokenizer.vocab_size]
    if growing[0].drawer is None:
        return known.argmax(dim=-1)
    rows = known.cpu().double().numpy()
    picked = [
        answer.drawer.pick(row) if answer.drawer and not answer.done else 0
        for answer, row in zip(growing, rows, strict=True)
    ]
    return torch.tensor(picked, device=scores.device)


def _draw(
    model: StreamModel[Any],
    asked: Sequence[_GrowingAnswer],
    first: _First,
    drawers: Sequence[Sequence[Drawer]],
    rows_together: int,
) -> list[Generated | Drawn]:
    """Several answers to each prompt, all from copies of the state that it left; as many at once as there is room."""
    draws, found = len(drawers[0]), list[list[Generated]]([] for _ in asked)
    each = max(1, rows_together // len(asked))
    for start in range(0, draws, each):
        numbers = range(start, min(start + each, draws))
        places = [(row, number) for row in range(len(asked)) for number in numbers]
        rows = [row for row, _ in places]
        growing = [asked[row].again(drawers[row][number]) for row, number in places]
        answers = _decode(model, growing, _First(first.scores[rows], first.state.index(rows)))
        for row, answer in zip(rows, answers, strict=True):
            found[row].append(answer)
    return [Drawn(tuple(answers)) if draws > 1 else answers[0] for answers in found]


def _weigh(
    model: StreamModel[Any],
    tokenizer: Tokenizer,
    asked: Sequence[tuple[Choose, PromptTokens]],
    tokens: Tensor,
    state: State,
    advance: Callable[[int], None],
) -> list[Chosen]:
    """Log-likelihoods of each row's options after ``tokens`` [b, 1]; options of one length are read together."""
    prompts = [prompt for _, prompt in asked]
    latents, state = model.read(tokens, state)
    first = _numbers(model.logits(latents[:, -1])).float().log_softmax(-1)
    vocabulary = tokenizer.vocab_size if any(request.greedy for request, _ in asked) else None
    found: dict[tuple[int, int], _Weighed] = {}
    by_length: dict[int, list[tuple[int, int]]] = {}
    for row, prompt in enumerate(prompts):
        for i, option in enumerate(prompt.options):
            by_length.setdefault(len(option), []).append((row, i))
    for pairs in by_length.values():
        for start in range(0, len(pairs), len(prompts)):
            some = pairs[start : start + len(prompts)]
            ids = torch.tensor([prompts[row].options[i] for row, i in some], device=first.device)
            given = [prompts[row].given[i] for row, i in some]
            rows = [row for row, _ in some]
            weighed = _weigh_options(model, ids, given, first[rows], state.index(rows), vocabulary)
            found.update(zip(some, weighed, strict=True))
            advance(ids.numel())
    return [
        Chosen(
            tuple(found[row, i].log_likelihood for i in range(len(prompt.options))),
            tuple(len(option) - given for option, given in zip(prompt.options, prompt.given, strict=True)),
            tuple(found[row, i].greedy for i in range(len(prompt.options))) if request.greedy else (),
        )
        for row, (request, prompt) in enumerate(asked)
    ]


class _Weighed(NamedTuple):
    """An option: the sum over its tokens, and whether each of them is the most likely one."""

    log_likelihood: float
    greedy: bool


def _weigh_options(
    model: StreamModel[Any], ids: Tensor, given: list[int], first: Tensor, state: State, vocabulary: int | None
) -> list[_Weighed]:
    """Options ``ids`` [n, t], read on from ``state``; ``first`` [n, v] is known of their first tokens.

    The first ``given`` tokens of each are not weighed. The most likely token is one of the ``vocabulary``; ``None``
    where nobody asks for it.
    """
    logits = first[:, None]
    if ids.shape[1] > 1:
        latents, _ = model.read(ids[:, :-1], state)
        later = _numbers(model.logits(latents)).float().log_softmax(-1)
        logits = torch.cat((logits, later), dim=1) if vocabulary else logits
    likelihoods = first.gather(1, ids[:, :1])
    if ids.shape[1] > 1:
        likelihoods = torch.cat((likelihoods, later.gather(2, ids[:, 1:, None])[..., 0]), dim=1)
    counts = torch.arange(ids.shape[1], device=ids.device) >= torch.tensor(given, device=ids.device)[:, None]
    sums = torch.where(counts, likelihoods.double(), 0.0).sum(1).tolist()
    hits = [False] * len(ids)
    if vocabulary:
        hits = ((logits[..., :vocabulary].argmax(-1) == ids) | ~counts).all(1).tolist()
    return [_Weighed(total, hit) for total, hit in zip(sums, hits, strict=True)]


def _numbers(logits: Tensor) -> Tensor:
    """Logits as they are; a broken model must not pass for one that forgets everything.

    Raises:
        UserError: some are not numbers.
    """
    if bool(logits.isnan().any()):
        raise UserError(
            "the model gives NaN where it should give the likelihood of a token",
            "its weights are broken; or too large for --dtype bfloat16: try --dtype float32",
        )
    return logits


class _GrowingAnswer:
    """The answer of one stream while it grows."""

    def __init__(
        self, request: Generate, tokenizer: Tokenizer, thinking: Thinking | None, drawer: Drawer | None = None
    ) -> None:
        self.request = request
        self.tokenizer = tokenizer
        self.thinking = thinking
        self.drawer = drawer
        self.ids: list[int] = []
        self.start: int | None = None if thinking else 0
        """Where in ``ids`` the answer begins; ``None`` before that is known."""
        self.thinks = thinking is not None and thinking.open
        self.done = self.ended = False

    def again(self, drawer: Drawer) -> _GrowingAnswer:
        """Another answer to the same, which is drawn."""
        return _GrowingAnswer(self.request, self.tokenizer, self.thinking, drawer)

    def add(self, token: int) -> None:
        if self.done:
            return
        if token in self.tokenizer.answer_ends:
            self.done = self.ended = True
            return
        self.ids.append(token)
        if self.start is None and self.thinking:
            self._think()
            self.done = self.start is None and len(self.ids) >= self.thinking.tokens
        if self.start is not None:
            self.ended = self._stop() is not None
            self.done = self.ended or len(self.ids) - self.start >= self.request.max_new_tokens

    def generated(self) -> Generated:
        if self.start is None and self.thinks:
            return Generated("", (), cut=not self.ended, thinking_tokens=len(self.ids))
        start = self.start or 0
        text, begin = self._text()
        cut = not self.ended and bool(self.request.stop)
        return Generated(text[begin : self._stop()], tuple(self.ids[start:]), cut, start)

    def _think(self) -> None:
        """Finds out whether the answer begins with a thought, and where that ends."""
        if not self.thinks:
            text = self.tokenizer.decode(self.ids).lstrip()
            if text.startswith(THINK) or self._ends_with(THINK):
                self.thinks = True
            elif not THINK.startswith(text):
                self.start = 0
        elif ANSWER in self.tokenizer.decode(self.ids[-2 * len(ANSWER) :]) or self._ends_with(ANSWER):
            self.start = len(self.ids)

    def _ends_with(self, mark: str) -> bool:
        """The mark may be a special token, which is no text when it is decoded."""
        ids = self.tokenizer.encode(mark)
        return self.ids[-len(ids) :] == ids

    def _text(self) -> tuple[str, int]:
        """The answer so far, and where in it the white space before it ends, if that does not count."""
        text = self.tokenizer.decode(self.ids[self.start or 0 :])
        skipped = self.request.skip_blank_lines or self.thinking is not None
        return text, len(text) - len(text.lstrip()) if skipped else 0

    def _stop(self) -> int | None:
        """Where in the text the first stop string begins."""
        if not self.request.stop:
            return None
        text, begin = self._text()
        places = [text.find(stop, begin) for stop in self.request.stop]
        return min((place for place in places if place >= 0), default=None)
