"""What the rooms above need of a model: it reads a stream in any chunking and carries a state.

``Decoder`` is one. Others are found through the entry points ``famcli.models``, see ``checkpoints/sources.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class State(Protocol):
    """Where a batch of streams stands. ``read`` and ``prefill`` consume it: to go on twice, ``fork`` it first."""

    tokens_read: int
    """Tokens that every stream has read so far."""

    @property
    def batch(self) -> int:
        """Number of streams."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it holds."""
        ...

    def fork(self) -> State:
        """An independent copy."""
        ...

    def index(self, rows: list[int] | Tensor) -> State:
        """A new state with the given rows, in that order; a row may be taken several times."""
        ...

    def save(self, path: Path, metadata: Mapping[str, str], extra: Mapping[str, Tensor]) -> None:
        """Writes the state to ``path``, whole or not at all, with texts and tensors to keep beside it."""
        ...


S = TypeVar("S", bound=State)


class StreamFacts(Protocol):
    """What the record of a run says of a model, and its name is made of.

    Attributes:
        receptive_field: tokens that can influence an output; ``None`` where there is no bound.
        longest_text: the most tokens it was made to read; ``None`` where any number will do.
        parameters_count: number of weights.
        description: what the run record says of the model, JSON values.
        identity: what of it determines the answers beside the weights, for the run id; JSON values.
    """

    @property
    def receptive_field(self) -> int | None: ...
    @property
    def longest_text(self) -> int | None: ...
    @property
    def parameters_count(self) -> int: ...
    @property
    def description(self) -> Mapping[str, Any]: ...
    @property
    def identity(self) -> Mapping[str, Any]: ...


class StreamModel(StreamFacts, Protocol[S]):
    """A causal language model that reads streams. The same tokens give the same latents in any chunking.

    Attributes:
        chunk_size: tokens that are worth reading at once; long texts come in pieces that end at multiples of it.
        vocab_size: number of token ids.
        device: where tokens go in and logits come out.
    """

    @property
    def chunk_size(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def device(self) -> torch.device: ...

    def start(self, batch: int) -> S:
        """A state that has read nothing."""
        ...

    def read(self, tokens: Tensor, state: S) -> tuple[Tensor, S]:
        """Reads on: tokens [b, t] int64 -> latents [b, t, d], and the state after them."""
        ...

    def prefill(self, tokens: Tensor, state: S) -> S:
        """As ``read``, where nobody needs the latents."""
        ...

    def logits(self, latents: Tensor) -> Tensor:
        """[..., d] from ``read`` -> [..., vocabulary]; asked only for the positions that are needed."""
        ...

    def state_bytes(self, tokens: int) -> int:
        """Bytes that the state of one stream takes after so many tokens."""
        ...

    def load_state(self, path: Path) -> tuple[S, dict[str, str], dict[str, Tensor]]:
        """What ``State.save`` wrote: the state on ``device``, the texts, and the tensors on the processor.

        Raises:
            UserError: the file is missing, damaged, or of a model of another shape.
        """
        ...


def computed(model: StreamModel[Any], start: int, count: int) -> int:
    """Of ``count`` tokens that are prefilled after ``start`` others, those that the model computes.

    All, unless the model has a method ``computes(start, count)`` that says how many: it may skip what cannot reach any
    answer.
    """
    asked = getattr(model, "computes", None)
    return count if asked is None else int(asked(start, count))
