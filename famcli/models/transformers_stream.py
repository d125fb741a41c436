"""Any causal language model of ``transformers`` as a ``StreamModel``, with the cache that it brings itself.

What a model does with its cache, and with latents before they are logits, is its own affair, and differs from family to
family. So each model is tried when it is opened: read in pieces, from copies, in two rows, it must say what one pass of
it says. Some forget their state where several tokens follow it at once: these go on token by token. One whose cache
does not hold even that is read without it, every text from its beginning.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from famcli.errors import UserError
from famcli.models.state import StreamState
from famcli.models.tensor_tree import NotATree
from famcli.models.transformers_state import CacheState, load_cache

logger = logging.getLogger(__name__)

CHUNK = 1024
_TRIED = 32
"""Tokens of the text that a model is tried on."""
_ROUNDING, _ROUNDING_16 = 2e-4, 0.2
"""Most distance between two ways to the same logits, relative to how far these are spread, in float32 and in 16 bits.
Rounding was seen to be a third of it at most; what loses its state is beyond it where the next piece begins."""
_FAILURES = (TypeError, ValueError, AttributeError, RuntimeError, KeyError)
"""What a model raises where a way is not its own."""
Kept = Literal["copied", "copied, a token at a time", "none"]
COPIED, SINGLE, NONE = get_args(Kept)
_CACHES = ("past_key_values", "cache_params")
"""What models call the cache that they take and give."""


@dataclass(frozen=True)
class Facts:
    """What the files of a model say of it.

    Attributes:
        vocab_size: number of token ids.
        longest_text: see ``StreamModel``.
        description, identity: see ``StreamModel``.
    """

    vocab_size: int
    longest_text: int | None
    description: Mapping[str, Any]
    identity: Mapping[str, Any]


class TransformersStream:
    """A ``StreamModel``; see there. Without a cache its state is the tokens themselves, ``StreamState`` [b, t].

    Attributes:
        model: in evaluation mode; its weights want no gradient.
        cache: how its cache is used: ``copied``; ``copied, a token at a time``, where it goes on so; or ``none``, where
            every text is read again from its beginning.
    """

    chunk_size = CHUNK

    def __init__(self, model: nn.Module, facts: Facts) -> None:
        """Tries the model, see above.

        Raises:
            UserError: it is no causal language model, or cannot read.
        """
        self.model = model.eval().requires_grad_(False)
        self.facts = facts
        self.vocab_size, self.longest_text = facts.vocab_size, facts.longest_text
        self.identity = facts.identity
        self.device: torch.device = next(model.parameters()).device
        self.parameters_count = sum(weight.numel() for weight in model.parameters())
        self._base: nn.Module = getattr(model, getattr(model, "base_model_prefix", ""), model)
        self._head: _Head | None = _Head(model)
        self._cache_name = next((name for name in _CACHES if name in _parameters(model)), None)
        self.cache: Kept = NONE
        with torch.no_grad():
            self._try()
            self._parts = self._measured()
        self.receptive_field = self._receptive_field()

    @property
    def description(self) -> Mapping[str, Any]:
        """What the run record says of the model."""
        return {**self.facts.description, "cache": self.cache}

    @property
    def keeps(self) -> bool:
        """Whether there is a cache that is copied."""
        return self.cache != NONE

    def start(self, batch: int) -> CacheState | StreamState:
        """A state that has read nothing."""
        if self.keeps:
            return CacheState(None, batch)
        return StreamState([{"tokens": torch.zeros(batch, 0, dtype=torch.int64, device=self.device)}], 0)

    def read(self, tokens: Tensor, state: CacheState | StreamState) -> tuple[Tensor, CacheState | StreamState]:
        """Reads on: tokens [b, t] int64 -> latents [b, t, d], and the state after them."""
        if isinstance(state, StreamState):
            state = self._noted(tokens, state)
            latents, _ = self._pass(state.layers[0]["tokens"])
            return latents[:, -tokens.shape[1] :], state
        found = []
        for some in self._pieces(tokens, state):
            latents, state = self._onward(some, state)
            found.append(latents)
        return torch.cat(found, dim=1), state

    def prefill(self, tokens: Tensor, state: CacheState | StreamState) -> CacheState | StreamState:
        """As ``read``, where nobody needs the latents."""
        if isinstance(state, StreamState):
            return self._noted(tokens, state)
        for some in self._pieces(tokens, state):
            _, state = self._onward(some, state, latents=False)
        return state

    def logits(self, latents: Tensor) -> Tensor:
        """[..., d] from ``read`` -> [..., vocabulary]."""
        if self._head is None:
            return latents
        flat = latents.reshape(1, -1, latents.shape[-1])
        logits: Tensor = self._head(flat)
        return logits.reshape(*latents.shape[:-1], -1)

    def computes(self, start: int, count: int) -> int:
        """Of ``count`` tokens prefilled after ``start`` others, those that are computed; see ``stream.computed``."""
        return count if self.keeps else start + count

    def state_bytes(self, tokens: int) -> int:
        """Bytes that the state of one stream takes after so many tokens."""
        return sum(part.bytes_after(tokens) for part in self._parts)

    def load_state(self, path: Path) -> tuple[CacheState | StreamState, dict[str, str], dict[str, Tensor]]:
        """What ``save`` of a state wrote; raises ``UserError`` as ``StreamModel.load_state``."""
        if not self.keeps:
            state, texts, tensors = StreamState.load_with(path, self.device)
            if [layer.keys() for layer in state.layers] != [{"tokens"}]:
                raise UserError(f"{path} is the state of another model")
            return state, texts, tensors
        return load_cache(path, self.device, self._begun)

    def _pieces(self, tokens: Tensor, state: CacheState) -> tuple[Tensor, ...]:
        """What is read at once."""
        return tokens.split(1, dim=1) if self.cache == SINGLE and state.tokens_read else (tokens,)

    def _onward(self, tokens: Tensor, state: CacheState, latents: bool = True) -> tuple[Tensor, CacheState]:
        found, cache = self._pass(tokens, state.cache, keep=True, latents=latents)
        return found, CacheState(cache, state.batch, state.tokens_read + tokens.shape[1])

    def _noted(self, tokens: Tensor, state: StreamState) -> StreamState:
        so_far = torch.cat((state.layers[0]["tokens"], tokens), dim=1)
        return StreamState([{"tokens": so_far}], so_far.shape[1])

    def _begun(self, batch: int, tokens: int = 1) -> CacheState:
        with torch.no_grad():
            state = self.prefill(torch.zeros(batch, tokens, dtype=torch.int64, device=self.device), self.start(batch))
        assert isinstance(state, CacheState)
        return state

    def _pass(self, tokens: Tensor, cache: Any = None, keep: bool = False, latents: bool = True) -> tuple[Tensor, Any]:
        """Latents [b, t, d] of ``tokens`` [b, t] behind what a cache holds, and the cache."""
        given: dict[str, Any] = {"use_cache": keep} if "use_cache" in _parameters(self.model) else {}
        if keep and self._cache_name and cache is not None:
            given[self._cache_name] = cache
        if self._head is None:
            few = {"logits_to_keep": 1} if not latents and "logits_to_keep" in _parameters(self.model) else {}
            found = self.model(tokens, **given, **few)
            return found.logits, getattr(found, self._cache_name or "", None)
        found = self._base(tokens, **given)
        return found.last_hidden_state, getattr(found, self._cache_name or "", None)

    def _try(self) -> None:
        """Settles how latents become logits, and whether the cache is kept."""
        generator = torch.Generator().manual_seed(0)
        text = torch.randint(self.vocab_size, (2, _TRIED), generator=generator).to(self.device)
        whole = self.model(text).logits
        if not self._near(self.model(text[:, : _TRIED // 2]).logits, whole[:, : _TRIED // 2]):
            raise UserError(
                f"{type(self.model).__name__} is no causal language model: what follows a token changes its latents",
                "famcli asks models that read from left to right",
            )
        try:
            right = self._near(self.logits(self._pass(text)[0]), whole)
        except _FAILURES:
            right = False
        if not right:
            self._head = None
        ways: tuple[Kept, ...] = (COPIED, SINGLE) if self._cache_name else ()
        for self.cache in ways:
            with suppress(*_FAILURES, NotATree, AssertionError, IndexError):
                if self._reads_in_pieces(text, whole):
                    return
        self.cache = NONE
        if ways:
            logger.warning(
                "warning: %s: its cache does not give what one pass gives here: every question, and every token of an "
                "answer, reads its text from the beginning%s",
                *(type(self.model).__name__, "" if _is_float32(self.model) else "; --dtype float32 may help"),
            )

    def _reads_in_pieces(self, text: Tensor, whole: Tensor) -> bool:
        """Whether pieces, a copy, and rows taken anew say what one pass says."""
        first, second = _TRIED // 3, 2 * _TRIED // 3
        state = self.prefill(text[:1, :first], self.start(1))
        found = [self._after(text[:1, first:second], state.fork()), self._after(text[:1, first:second], state.fork())]
        state = self.prefill(text[:1, first:second], state)
        both = state.index([0, 0])
        found += [self._after(text[:1, second:].expand(2, -1), both)[1:], self._after(text[:1, second:], state)]
        expected = [whole[:1, first:second]] * 2 + [whole[:1, second:]] * 2
        return all(self._near(one, other) for one, other in zip(found, expected, strict=True))

    def _after(self, tokens: Tensor, state: CacheState | StreamState) -> Tensor:
        """Logits of tokens, half of them read one by one: a mistake of single tokens adds up."""
        half = tokens.shape[1] // 2
        found = []
        for piece in (*tokens[:, :half].split(1, dim=1), tokens[:, half:]):
            latents, state = self.read(piece, state)
            found.append(latents)
        return self.logits(torch.cat(found, dim=1))

    def _near(self, one: Tensor, other: Tensor) -> bool:
        """Whether the logits [..., vocabulary] of two ways differ by rounding alone."""
        one, other = one.float(), other.float()
        if one.shape != other.shape:
            return False
        spread = (other - other.mean(-1, keepdim=True)).norm(dim=-1)
        allowed = _ROUNDING if _is_float32(self.model) else _ROUNDING_16
        return bool(((one - other).norm(dim=-1) <= allowed * spread).all())

    def _measured(self) -> list[_Part]:
        """What of a state grows, by its size after two tokens and after three."""
        if not self.keeps:
            return [_Part(0, torch.int64.itemsize, None, False)]
        few, many = (_layers(self._begun(1, tokens).cache) for tokens in (2, 3))
        found = []
        for one, other in zip(few, many, strict=True):
            each = _bytes(other) - _bytes(one)
            window, recurs = getattr(one, "sliding_window", None), hasattr(one, "recurrent_states")
            found.append(_Part(_bytes(one) - 2 * each, each, window, recurs))
        return found

    def _receptive_field(self) -> int | None:
        if not self.keeps or any(part.window is None or part.recurs for part in self._parts):
            return None
        return sum(part.window - 1 for part in self._parts if part.window) + 1


def _is_float32(model: nn.Module) -> bool:
    return next(model.parameters()).dtype.itemsize >= torch.float32.itemsize


class _Part(NamedTuple):
    """Of one stream's state.

    Attributes:
        fixed: bytes that it has whatever is read.
        each: bytes that a token adds.
        window: tokens that it keeps, with the one that is read; ``None`` for all.
        recurs: it has a state that goes back to the beginning.
    """

    fixed: int
    each: int
    window: int | None
    recurs: bool

    def bytes_after(self, tokens: int) -> int:
        """So many tokens."""
        return self.fixed + self.each * (min(tokens, self.window - 1) if self.window else tokens)


def _layers(cache: Any) -> list[Any]:
    """Parts of a cache that hold something."""
    layers = getattr(cache, "layers", None)
    return [layer for layer in layers if _bytes(layer)] if isinstance(layers, list) else [cache]


def _bytes(part: Any) -> int:
    return CacheState(part, 1).nbytes


def _parameters(model: nn.Module) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(model.forward).parameters


class _Head:
    """What a model does to latents, scaling and capping included: it runs on a base that gives what it is given."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.name = model, getattr(model, "base_model_prefix", "")

    def __call__(self, latents: Tensor) -> Tensor:
        base = self.model._modules[self.name]
        self.model._modules[self.name] = _Passes()
        try:
            logits: Tensor = self.model(inputs_embeds=latents).logits
        finally:
            self.model._modules[self.name] = base
        return logits


class _Passes(nn.Module):
    """In the place of a base model: its latents are the embeddings that it is given."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPast

        return _WithAll(BaseModelOutputWithPast(last_hidden_state=inputs_embeds))


class _WithAll:
    """An output that has whatever else is asked of it, as ``None``."""

    def __init__(self, output: Any) -> None:
        self._output = output

    def __getitem__(self, place: Any) -> Any:
        return self._output[place]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._output, name, None)
