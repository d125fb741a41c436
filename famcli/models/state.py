"""What a model carries from one block of a stream to the next: of a size that does not grow with the text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from famcli.errors import UserError
from famcli.files import save_tensors


@dataclass
class LayerState:
    """The memory of one layer.

    Attributes:
        memory_keys, memory_values: [b, h_kv, S, k], the last S tokens of finished blocks, oldest first, filled from
            the end. Keys are turned to their positions -S .. -1 relative to the block being read.
        block_keys, block_values: [b, h_kv, B, k], the unfinished block, filled from the front (under full attention,
            which has no blocks, everything read so far).
        fam: [b, F, d], the layer's feedback attention memory.
        fam_keys, fam_values: [b, h_kv, F, k], its keys and values as the block being read sees them.
    """

    memory_keys: Tensor
    memory_values: Tensor
    block_keys: Tensor
    block_values: Tensor
    fam: Tensor
    fam_keys: Tensor
    fam_values: Tensor

    def tensors(self) -> dict[str, Tensor]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass
class StreamState:
    """A batch of streams after ``tokens_read`` tokens each.

    ``Decoder.read`` consumes the state it is given: to go on twice from one place, ``fork`` it first.

    Attributes:
        layers: one ``LayerState`` a layer.
        tokens_read: tokens every stream has read so far.
        fresh: [b] bool, the FAM is still the learned initial one, so its first update takes no residual
            (appendix B.1).
    """

    layers: list[LayerState]
    tokens_read: int
    fresh: Tensor

    @property
    def batch(self) -> int:
        """Number of streams."""
        return len(self.fresh)

    @property
    def nbytes(self) -> int:
        """Bytes of memory held by the state's tensors."""
        return self.fresh.nbytes + sum(t.nbytes for layer in self.layers for t in layer.tensors().values())

    def fork(self) -> StreamState:
        """An independent copy: reading on from one leaves the other as it is."""
        return self._map(Tensor.clone)

    def index(self, rows: list[int] | Tensor) -> StreamState:
        """A new state with the given rows, in that order; a row may be taken several times."""
        rows = torch.as_tensor(rows, device=self.fresh.device)
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
        flat = {
            f"{i}.{name}": t.contiguous() for i, layer in enumerate(self.layers) for name, t in layer.tensors().items()
        }
        flat |= {f"extra.{name}": tensor for name, tensor in (extra or {}).items()}
        save_tensors({**flat, "fresh": self.fresh}, path, {**(metadata or {}), "tokens_read": str(self.tokens_read)})

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
                flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                metadata = dict(file.metadata())
            extra = {n.removeprefix("extra."): flat.pop(n) for n in list(flat) if n.startswith("extra.")}
            flat = {name: tensor.to(device) for name, tensor in flat.items()}
            count = 1 + max(int(name.split(".")[0]) for name in flat if name != "fresh")
            names = [f.name for f in fields(LayerState)]
            layers = [LayerState(**{name: flat[f"{i}.{name}"] for name in names}) for i in range(count)]
            return cls(layers, int(metadata.pop("tokens_read")), flat["fresh"]), metadata, extra
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is not a saved stream state: {error}") from error
        except Exception as error:  # safetensors raises its own type, which it does not export for typing
            raise UserError(f"{path} is not a safetensors file: {error}") from error

    def _map(self, change) -> StreamState:  # type: ignore[no-untyped-def]
        layers = [LayerState(**{name: change(t) for name, t in layer.tensors().items()}) for layer in self.layers]
        return replace(self, layers=layers, fresh=change(self.fresh))
