"""Predicts every token of a text from those before it, in a stream: what grows with the text is 18 bytes a token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from famcli.evaluation.stream import StateKeeper, chunks, to_device, token_digest
from famcli.seams import Ids

if TYPE_CHECKING:
    from famcli.checkpoints.tokenizer import Tokenizer
    from famcli.models.stream import StreamModel

LOGITS_BYTES = 64 * 1024**2
"""Room for the logits in memory at one time; float32, [tokens, vocabulary]."""


@dataclass(frozen=True)
class Prediction:
    """See ``famcli.task.Predicted``; and what it took.

    Attributes:
        log_likelihoods: [t] float32 nats.
        hits: [t] bool.
        sha256: of the token ids as little-endian 64-bit integers.
        state_bytes: memory of the stream's state at the end.
    """

    log_likelihoods: NDArray[np.float32]
    hits: NDArray[np.bool_]
    sha256: str
    state_bytes: int


@torch.no_grad()  # not inference mode: what the decoder keeps from here on must stay usable in training
def predict(
    model: StreamModel[Any], tokenizer: Tokenizer, ids: Ids, keeper: StateKeeper, advance: Callable[[int], None]
) -> Prediction:
    """Predicts each of ``ids`` once, the first from the tokenizer's ``text_start``.

    Without a ``text_start`` nothing can be known of the first token: it is taken as uniform over the vocabulary, and as
    missed. The likelihood is over all of the model's logits; a hit is the most likely token of the tokenizer's
    vocabulary, of equals the lowest id.

    Args:
        model: the model; inputs go to its device.
        tokenizer: the model's.
        ids: [t] token ids, at least one.
        keeper: keeps the state, and what is known so far, on the way.
        advance: called with the number of tokens after each chunk.

    Raises:
        UserError: the tokenizer gives tokens that the model lacks.
        ValueError: there are no tokens.
    """
    if not len(ids):
        raise ValueError("a text without tokens cannot be predicted")
    start, sha256 = tokenizer.text_start, token_digest(ids).hexdigest()
    known = np.zeros(len(ids), np.float32), np.zeros(len(ids), np.bool_)
    into = 1 if start is None else 0
    if start is None:
        known[0][0] = -np.log(tokenizer.vocab_size)
    name = f"prediction {sha256}"
    kept = keeper.recall(name, model)
    state = kept[0] if kept else model.start(1)
    done = state.tokens_read
    if kept:
        for values, tensor in zip(known, (kept[1]["log_likelihoods"], kept[1]["hits"]), strict=True):
            values[into : into + done] = tensor.numpy()
    advance(done)
    for chunk in chunks(done, len(ids) - into, model.chunk_size):
        place = slice(into + chunk.start, into + chunk.stop)
        wanted = to_device(ids[place], model)
        latents, state = model.read(to_device(_before(ids, place, start)[None], model), state)
        known[0][place], known[1][place] = _score(model, tokenizer, latents[0], wanted)
        advance(chunk.stop - chunk.start)
        if chunk.keep:
            so_far = {
                n: torch.from_numpy(v[into : into + chunk.stop].copy()) for n, v in zip(_NAMES, known, strict=True)
            }
            keeper.keep(name, state, so_far)
    return Prediction(*known, sha256, state.nbytes)


_NAMES = ("log_likelihoods", "hits")


def _before(ids: Ids, place: slice, start: int | None) -> Ids:
    """For each token of ``place`` the one before it: ids shifted as a whole would be one more copy of a long text."""
    if place.start:
        return ids[place.start - 1 : place.stop - 1]
    assert start is not None
    return np.concatenate(([start], ids[: place.stop - 1]), dtype=np.int64)


def _score(
    model: StreamModel[Any], tokenizer: Tokenizer, latents: Tensor, wanted: Tensor
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Log-likelihoods and hits [t] of the tokens ``wanted`` after ``latents`` [t, d]; few logits at a time."""
    rows = max(1, LOGITS_BYTES // (4 * model.vocab_size))
    likelihoods, hits = [], []
    for some, tokens in zip(latents.split(rows), wanted.split(rows), strict=True):
        logits = model.logits(some).float()
        likelihoods.append(-F.cross_entropy(logits, tokens, reduction="none").cpu().numpy())
        hits.append((logits[:, : tokenizer.vocab_size].argmax(-1) == tokens).cpu().numpy())
    return np.concatenate(likelihoods), np.concatenate(hits)


def by_position(
    prediction: Prediction, ids: Ids, decode: Callable[[list[int]], str], parts: int = 64
) -> list[dict[str, float]]:
    """Sums over equal stretches of the text, for curves against the position in it; no stretch cuts a character.

    Returns:
        For each stretch its ``tokens``, their ``bytes`` as decoded, ``log_likelihood`` in nats and ``hits``.
    """
    even = np.linspace(0, len(ids), min(parts, len(ids)) + 1).astype(int).tolist()
    bounds = sorted({0, *(_character_start(ids, bound, decode) for bound in even[1:])})
    return [
        {
            "tokens": high - low,
            "bytes": len(decode(ids[low:high].tolist()).encode()),
            "log_likelihood": float(prediction.log_likelihoods[low:high].sum(dtype=np.float64)),
            "hits": int(prediction.hits[low:high].sum()),
        }
        for low, high in pairwise(bounds)
    ]


def _character_start(ids: Ids, place: int, decode: Callable[[list[int]], str]) -> int:
    """The first token at ``place`` or after it that begins a character: it may be of four bytes, a token each."""
    for at in range(place, min(place + 3, len(ids))):
        if not decode(ids[at : at + 4].tolist()).startswith("\ufffd"):
            return at
    return min(place + 3, len(ids))
