"""Files that are there whole or not at all."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from famcli.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


_TEMPORARY = ".tmp"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; what is written there takes its place when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_TEMPORARY)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def user_path(name: str) -> Path:
    """A path as a person types it, with ``~`` for a home.

    Raises:
        UserError: it cannot be one.
    """
    try:
        path = Path(name).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long; of no such user; with a null character
        raise UserError(f"'{name}' cannot be a path: {getattr(error, 'strerror', None) or error}") from error
    return path


def temporary_files(path: Path) -> list[Path]:
    """What processes that were killed while ``replacing`` the file ``path`` left beside it."""
    return list(path.parent.glob(f".{glob.escape(path.name)}.*{_TEMPORARY}"))


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text to ``path``, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file, whole or not at all; raises ``OSError`` where it cannot be written."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        try:
            save_file(dict(tensors), temporary, metadata)
        except SafetensorError as error:  # its only word of a full disk
            raise OSError(str(error)) from error
