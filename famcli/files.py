"""Files that are there whole or not at all."""

from __future__ import annotations

import glob
import hashlib
import inspect
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
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


def content_sha256(path: Path) -> str:
    """The hash of a file, whatever its name, or of all files of a directory but hidden ones, with their paths in it.

    Raises:
        OSError: one cannot be read.
    """
    inside = ((file, file.relative_to(path)) for file in ([path] if path.is_file() else path.rglob("*")))
    return _sha256((f for f, below in inside if not any(part.startswith(".") for part in below.parts)), path)


def source_sha256(kind: type) -> str | None:
    """The hash of the source of a class that another package brings: all of that package, or its one module.

    ``None`` for a class of famcli, and where there is no source file.
    """
    if kind.__module__.partition(".")[0] == "famcli":
        return None
    try:
        name = inspect.getsourcefile(kind)
    except (OSError, TypeError):  # typed at a prompt
        name = None
    if name is None or not Path(name).is_file():
        return None
    file = Path(name)
    if not (file.parent / "__init__.py").exists():
        return content_sha256(file)
    package = file.parent
    while (package.parent / "__init__.py").exists():
        package = package.parent
    return _sha256(package.rglob("*.py"), package)


def _sha256(paths: Iterable[Path], above: Path) -> str:
    """Over the files among ``paths``, each with its path below ``above``."""
    digest = hashlib.sha256()
    for file in sorted(path for path in paths if path.is_file()):
        with open(file, "rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{file.relative_to(above).as_posix()} {content}\n".encode())
    return digest.hexdigest()


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
