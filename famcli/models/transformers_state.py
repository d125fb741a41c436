"""States of streams that a model of ``transformers`` reads: its own cache, or the tokens, where it has none."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from famcli.errors import UserError
from famcli.models.state import StreamState
from famcli.models.tensor_tree import NotATree, Number, leaves, map_tensors, with_leaves

PACKAGE = "transformers"
_NUMBERS = "numbers"
_PLACE = "cache."


@dataclass
class CacheState:
    """A batch of streams in the cache that the model itself keeps.

    Attributes:
        cache: the model's; ``None`` before anything was read.
        batch: number of streams.
        tokens_read: tokens every stream has read so far.
    """

    cache: Any
    batch: int
    tokens_read: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of memory held by the cache's tensors."""
        tensors = {id(leaf): leaf for leaf in self._leaves().values() if isinstance(leaf, Tensor)}
        return sum(tensor.nbytes for tensor in tensors.values())

    def fork(self) -> CacheState:
        """An independent copy: reading on from one leaves the other as it is."""
        return self._map(Tensor.clone, self.batch)

    def index(self, rows: list[int] | Tensor) -> CacheState:
        """A new state with the given rows, in that order; a row may be taken several times."""
        rows = torch.as_tensor(rows)

        def taken(tensor: Tensor) -> Tensor:
            if tensor.dim() and len(tensor) == self.batch:
                return tensor.index_select(0, rows.to(tensor.device))
            return tensor.clone()

        return self._map(taken, len(rows))

    def save(self, path: Path, metadata: Mapping[str, str], extra: Mapping[str, Tensor]) -> None:
        """Writes the state to a safetensors file, whole or not at all; see ``load_cache``."""
        found = self._leaves()
        tensors = {name: leaf for name, leaf in found.items() if isinstance(leaf, Tensor)}
        numbers = {name: leaf for name, leaf in found.items() if name not in tensors}
        kept = {f"{_PLACE}{name}": tensor.clone().contiguous() for name, tensor in tensors.items()}
        rows = StreamState([{"rows": torch.arange(self.batch)}], self.tokens_read)
        rows.save(path, {**metadata, _NUMBERS: json.dumps(numbers)}, {**extra, **kept})

    def _leaves(self) -> dict[str, Tensor | Number]:
        return dict(leaves(self.cache, PACKAGE))

    def _map(self, change: Callable[[Tensor], Tensor], batch: int) -> CacheState:
        return replace(self, cache=map_tensors(self.cache, change, PACKAGE), batch=batch)


def load_cache(
    path: Path, device: torch.device, like: Callable[[int], CacheState]
) -> tuple[CacheState, dict[str, str], dict[str, Tensor]]:
    """Reads what ``CacheState.save`` wrote, with the texts and the tensors that were kept beside it.

    Args:
        path: the file.
        device: where the cache goes.
        like: gives the state of so many streams that have read something, whose places are filled.

    Raises:
        UserError: the file is missing, damaged, or of a model of another shape.
    """
    state, metadata, extra = StreamState.load_with(path)
    try:
        kept = {name.removeprefix(_PLACE): extra.pop(name) for name in list(extra) if name.startswith(_PLACE)}
        tensors = {name: tensor.to(device) for name, tensor in kept.items()}
        values = {**tensors, **json.loads(metadata.pop(_NUMBERS))}
        begun = like(state.batch)
        for name, leaf in leaves(begun.cache, PACKAGE):
            if not _alike(leaf, values.get(name)):
                raise NotATree(f"{name} has another shape")
        cache = with_leaves(begun.cache, values, PACKAGE)
    except (KeyError, ValueError, TypeError, NotATree) as error:
        raise UserError(f"{path} is the state of another model: {error}") from error
    return CacheState(cache, state.batch, state.tokens_read), metadata, extra


def _alike(leaf: Tensor | Number, value: Any) -> bool:
    """Whether a value may stand in the place of another; what grows with the text may be longer."""
    if not isinstance(leaf, Tensor) or not isinstance(value, Tensor):
        return isinstance(leaf, Tensor) == isinstance(value, Tensor)
    same = leaf.dim() == value.dim() and leaf.dtype == value.dtype
    return same and (leaf.shape[:2] == value.shape[:2] or leaf.dim() < 3)
