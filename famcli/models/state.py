"""What a model carries along a stream: named tensors, of a size that does not grow with the text unless it must."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from famcli.errors import UserError
from famcli.files import save_tensors

LayerState = dict[str, Tensor]
"""Of one layer, batch first: ``block_keys`` and ``block_values`` [b, g, B, k], the block that is not complete, filled
from the front (where the text has no blocks: everything so far), ``echo_keys`` and ``echo_values`` alike where the
memory ``echoes``, and what the layer's memory carries, see its class."""


@dataclass
class StreamState:
    """A batch of streams after ``tokens_read`` tokens each.

    ``Decoder.read`` consumes the state it is given: to go on twice from one place, ``fork`` it first.

    Attributes:
        layers: the tensors of each layer by name.
        tokens_read: tokens every stream has read so far.
    """

    layers: list[LayerState]
    tokens_read: int

    @property
    def batch(self) -> int:
        """Number of streams."""
        return len(next(iter(self.layers[0].values())))

    @property
    def nbytes(self) -> int:
        """Bytes of memory held by the state's tensors."""
        return sum(tensor.nbytes for layer in self.layers for tensor in layer.values())

    def fork(self) -> StreamState:
        """An independent copy: reading on from one leaves the other as it is."""
        return self._map(Tensor.clone)

    def index(self, rows: list[int] | Tensor) -> StreamState:
        """A new state with the given rows, in that order; a row may be taken several times."""
        rows = torch.as_tensor(rows)
        return self._map(lambda tensor: tensor.index_select(0, rows.to(tensor.device)))

    def detach(self) -> StreamState:
        """The same state, cut from the graph that computed it."""
        return self._map(Tensor.detach)

    def save(
        self, path: Path, metadata: Mapping[str, str] | None = None, extra: Mapping[str, Tensor] | None = None
    ) -> None:
        """Writes the state to a safetensors file, whole or not at all.

        Args:
            path: the file.
            metadata: texts to keep with it.
            extra: tensors to keep with it.
        """
        layers = enumerate(self.layers)
        flat = {f"{i}.{name}": tensor.contiguous() for i, layer in layers for name, tensor in layer.items()}
        flat |= {f"extra.{name}": tensor for name, tensor in (extra or {}).items()}
        save_tensors(flat, path, {**(metadata or {}), "tokens_read": str(self.tokens_read)})

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> StreamState:
        """Reads what ``save`` wrote.

        Raises:
            UserError: the file is missing or is not a saved stream state.
        """
        return cls.load_with(path, device)[0]

    @classmethod
    def load_with(
        cls, path: Path, device: torch.device | str = "cpu"
    ) -> tuple[StreamState, dict[str, str], dict[str, Tensor]]:
        """As ``load``, with the metadata and the extra tensors; these stay on the CPU."""
        try:
            with safe_open(path, framework="pt") as file:
                # Copies: a tensor in the file starts anywhere, and products of the same numbers round as they lie.
                flat = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
                metadata = dict(file.metadata())
            extra = {n.removeprefix("extra."): flat.pop(n) for n in list(flat) if n.startswith("extra.")}
            layers = _by_layer({name: tensor.to(device) for name, tensor in flat.items()})
            return cls(layers, int(metadata.pop("tokens_read"))), metadata, extra
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is not a saved stream state: {error}") from error
        except Exception as error:  # safetensors raises its own type, which it does not export for typing
            raise UserError(f"{path} is not a safetensors file: {error}") from error

    def _map(self, change: Callable[[Tensor], Tensor]) -> StreamState:
        return replace(self, layers=[{name: change(t) for name, t in layer.items()} for layer in self.layers])


def _by_layer(flat: Mapping[str, Tensor]) -> list[LayerState]:
    """``{"0.fam": ...}`` -> ``[{"fam": ...}]``.

    Raises:
        ValueError: a layer is missing, or lacks what others have.
    """
    layers: dict[int, LayerState] = {}
    for name, tensor in flat.items():
        number, _, rest = name.partition(".")
        layers.setdefault(int(number), {})[rest] = tensor
    if not layers or sorted(layers) != list(range(len(layers))):
        raise ValueError("it lacks a layer")
    first = layers[0]
    for i, layer in layers.items():
        if layer.keys() != first.keys():
            raise ValueError(f"layer {i} lacks {min(layer.keys() ^ first.keys())}, or has it alone")
    if len({len(tensor) for layer in layers.values() for tensor in layer.values()}) != 1:
        raise ValueError("its tensors are not those of one batch of streams")
    return [layers[i] for i in sorted(layers)]
