"""Tensors of a decoder where they lie in files, read one at a time, straight to their place."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from famcli.errors import UserError
from famcli.inputs import check_file

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_VALUES_AT_ONCE = 2**22


@dataclass(frozen=True)
class Stored(ABC):
    """Where one tensor of a decoder lies.

    Attributes:
        file: the file.
        name, shape: of the tensor there; the shape is that of the decoder's tensor.
        dtype: as the file's format spells it, e.g. ``BF16``, ``Q4_1``.
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that determine its values."""
        return (self.file,)

    @abstractmethod
    def read(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The values, in memory of their own: the file may change afterwards.

        Raises:
            UserError: the file cannot be read.
        """


@dataclass(frozen=True)
class SafeTensor(Stored):
    """A tensor of a safetensors file; ``added`` is what its values lack, see ``huggingface.norm_offset``."""

    added: float = 0.0

    def read(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        # Opened again for each tensor: what has been read of a mapped file counts as memory until the file is closed.
        try:
            with safe_open(self.file, framework="pt", device=str(device)) as weights:
                tensor = weights.get_tensor(self.name)
                if self.added:
                    tensor = tensor.float() + self.added
                return tensor.to(device, dtype, copy=True)
        except (SafetensorError, OSError) as error:
            raise _broken(self.file, error) from error


def list_safetensors(file: Path) -> list[SafeTensor]:
    """The tensors of a safetensors file; only its header is read.

    Raises:
        UserError: it is missing, or is not a whole safetensors file.
    """
    check_file(file)
    try:
        with safe_open(file, framework="np") as weights:  # no value is read, and PyTorch would be imported
            slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118 (not a mapping)
            return [SafeTensor(file, name, tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()]
    except (SafetensorError, OSError) as error:
        raise _broken(file, error) from error


def same_values(one: SafeTensor, other: SafeTensor) -> bool:
    """Whether two tensors are equal, read some rows at a time."""
    import torch

    if one.shape != other.shape:
        return False
    step = max(1, _VALUES_AT_ONCE // max(1, math.prod(one.shape[1:])))
    try:
        for row in range(0, one.shape[0], step):  # opened again, see ``SafeTensor.read``
            with safe_open(one.file, framework="pt") as first, safe_open(other.file, framework="pt") as second:
                parts = [first.get_slice(one.name)[row : row + step], second.get_slice(other.name)[row : row + step]]
                if one.dtype != other.dtype:
                    parts = [part.double() for part in parts]
                if not torch.equal(*parts):
                    return False
    except (SafetensorError, OSError) as error:
        raise _broken(one.file, error) from error
    return True


def combined_sha256(files: set[Path]) -> str:
    """SHA-256 of a file; of several, the SHA-256 of their lines as ``sha256sum`` prints them, by name."""
    lines = sorted(f"{file.name}\0{_file_sha256(file)}" for file in files)
    pairs = [line.split("\0") for line in lines]
    if len(pairs) == 1:
        return pairs[0][1]
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in pairs).encode()).hexdigest()


def _file_sha256(file: Path) -> str:
    about = file.stat()
    return _sha256(file.resolve(), about.st_ino, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=256)  # `fam-135m` and `bswa-135m` of one command are one file, which need not be read twice
def _sha256(file: Path, node: int, size: int, changed: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _broken(file: Path, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or error
    return UserError(f"{file} is not a whole safetensors file: {reason}", "get the file again")
