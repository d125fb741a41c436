"""What a memory may use of the network around it: the config's numbers, the layer's projections, positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    State = dict[str, Tensor]
    KeysValues = tuple[Tensor, Tensor]
    Rotation = tuple[Tensor, Tensor]


class Shape(Protocol):
    """The numbers of a ``ModelConfig`` that size a memory."""

    @property
    def width(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def head_width(self) -> int: ...
    @property
    def ffn_width(self) -> int: ...
    @property
    def block_size(self) -> int: ...
    @property
    def local_window(self) -> int | None: ...
    def is_local(self, layer: int) -> bool:
        """Layer number ``layer``, counted from 0, sees ``local_window`` tokens and no more."""
        ...


class Place(Protocol):
    """Where a block stands, see ``Geometry``: ``blocks`` others came before it, and it spans ``span`` positions."""

    @property
    def blocks(self) -> int: ...
    @property
    def span(self) -> int: ...
    def turn(self, start: int, count: int) -> Rotation:
        """Rotations of ``count`` positions from ``start`` on, counted from the block's beginning."""
        ...

    def moved(self, keys: Tensor, by: int) -> Tensor:
        """Keys [b, g, n, k] that were turned to their positions, turned ``by`` positions further."""
        ...

    def moved_to(self, x: Tensor, start: int) -> Tensor:
        """Keys or queries [b, h, n, k] that are not turned yet, turned to stand one after another from ``start`` on."""
        ...

    def turned_back(self, keys: Tensor) -> Tensor:
        """Keys [b, g, B, k] of the whole block as they were when not turned to their positions yet."""
        ...

    def first_moved(self, keys: Tensor, start: int) -> Tensor:
        """Keys [b, g, n, k] of a block's first tokens, turned to stand one after another from ``start`` on."""
        ...


class Projections(Protocol):
    """A layer's attention, see ``Attention``."""

    def queries(self, x: Tensor, rotation: Rotation | None) -> Tensor:
        """[b, t, d] -> [b, h, t, k]."""
        ...

    def keys_values(self, x: Tensor, rotation: Rotation) -> KeysValues:
        """[b, t, d] -> twice [b, g, t, k]."""
        ...

    def attend(self, q: Tensor, seen: Sequence[KeysValues]) -> Tensor:
        """One softmax over all keys, brought back to the model's width: q [b, h, t, k] -> [b, t, d]."""
        ...

    def scaled(self, q: Tensor) -> Tensor:
        """Queries that need only be multiplied with keys to be scores."""
        ...

    def project(self, heads: Tensor) -> Tensor:
        """[b, h, t, k] -> [b, t, d]."""
        ...


class LayerView(Protocol):
    """One layer, see ``Layer``; ``memory`` holds the memory's own weights in it."""

    @property
    def attention(self) -> Projections: ...
    @property
    def attention_norm(self) -> nn.Module: ...
    @property
    def attention_out_norm(self) -> nn.Module: ...
    @property
    def memory(self) -> Any: ...
    def residual(self, x: Tensor, attended: Tensor) -> Tensor:
        """Both residuals of the layer: what attention gave [b, t, d] added to ``x``, then the feed-forward."""
        ...

    def alone(self, x: Tensor, at: Any, start: int, visible: Tensor | None = None) -> Tensor:
        """Latents [b, n, d] one layer up that attend to one another alone, from position ``start`` on.

        ``visible`` [b, n]: which of them are attended to; ``None``: all.
        """
        ...


class DecoderView(Protocol):
    """The whole network at the start of a stream, or when a block is complete; see ``Decoder``."""

    @property
    def norm(self) -> nn.Module:
        """That of the top latents."""
        ...

    def layer(self, number: int) -> Any:
        """The ``LayerView`` of this number, counted from 0."""
        ...

    def place(self, number: int) -> Any:
        """The ``Place`` of a layer's first block."""
        ...

    def embed_memory(self, name: str) -> Tensor:
        """The learned vectors ``name`` of the memory, as token embeddings enter the first layer: [1, rows, d]."""
        ...
