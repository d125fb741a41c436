"""Asks a model that answers elsewhere: prompts go as texts, and what it says of its own tokens is what is scored."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from famcli.errors import UserError
from famcli.evaluation.plan import Group, Planned
from famcli.evaluation.prediction import Prediction
from famcli.evaluation.prompts import Context
from famcli.models.remote import Likelihoods, Remote
from famcli.task import Choose, Chosen, Generate, Generated

if TYPE_CHECKING:
    from famcli.checkpoints.tokenizer import Tokenizer


def groups_of(planned: Sequence[Planned], rows: int, done: frozenset[str]) -> list[Group]:
    """All that is still to be asked, ``rows`` at a time: nothing is shared, and lengths need not be equal."""
    left = [p for p in planned if p.sample.id not in done]
    batches = [left[start : start + rows] for start in range(0, len(left), rows)]
    return [Group(0, batches)] if batches else []


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


def ask(
    remote: Remote, tokenizer: Tokenizer, asked: Sequence[tuple[Generate | Choose, str]]
) -> Iterator[Generated | Chosen]:
    """The answers to requests with the texts of their prompts, several at a time.

    Raises:
        UserError: the model cannot be reached, refuses, or does not tell what is asked.
    """

    def answer(one: tuple[Generate | Choose, str]) -> Generated | Chosen:
        request, prompt = one
        if isinstance(request, Choose):
            return _weigh(remote, request, prompt)
        return _write(remote, tokenizer, request, prompt)

    with ThreadPoolExecutor(remote.at_once) as threads:
        yield from threads.map(answer, asked)


def predict_text(remote: Remote, tokenizer: Tokenizer, text: str) -> tuple[Prediction, Likelihoods]:
    """What the model says of each token of a text; the first one is taken as uniform over the tokenizer, and missed."""
    found = remote.weigh(text)
    unknown = -math.log(tokenizer.vocab_size)
    values = np.array([unknown if one is None else one for one in found.log_likelihoods], np.float32)
    hits = np.array(found.hits, np.bool_)
    return Prediction(values, hits, "", 0), found


def spelt(found: Likelihoods, ids: Sequence[int]) -> str:
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
