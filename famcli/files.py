"""Files that are there whole or not at all. All that famcli writes goes through here."""

from __future__ import annotations

import errno
import glob
import hashlib
import inspect
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from famcli.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


SOURCE_SHA256 = "__famcli_source_sha256__"
"""Of a module: the hash of what was executed."""
_TEMPORARY = ".tmp"
_DESCRIPTOR = re.compile(r"(?:/dev|/proc/([^/]+)(?:/task/\d+)?)/fd/(\d+)")
_LEFT = re.compile(rf"\..+\.[0-9a-f]{{8}}{re.escape(_TEMPORARY)}")
_MOST_LINKS = 40
_LONGEST = 60
"""Characters of a name that its temporary file has as well."""
NO_FILES = {stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}
"""What is opened and may never end, by its bits of the mode."""


@dataclass(frozen=True)
class Target:
    """Where what is written to a path goes, links followed.

    Attributes:
        path: no link.
        state: of what stands there; ``None`` for nothing.
    """

    path: str
    state: os.stat_result | None

    @property
    def replaceable(self) -> bool:
        """A file, or nothing yet: what is written can take its place. Devices, pipes and the like are written to."""
        return not self.descriptor and (self.state is None or stat.S_ISREG(self.state.st_mode))

    @property
    def descriptor(self) -> bool:
        """What a process has open already, such as ``/dev/stdin``, or ``<(...)`` of a shell."""
        return _DESCRIPTOR.fullmatch(self.path) is not None


def target_of(path: Path, within: Path | None = None) -> Target:
    """Follows the links from ``path``.

    Args:
        path: what was given.
        within: a directory that links may not lead out of.

    Raises:
        OSError: it is a directory, a link into a folder that does not exist, or leads out of ``within``.
    """
    name = os.path.join(os.getcwd(), path)
    _check_folder(os.path.dirname(name), path)
    for _ in range(_MOST_LINKS):
        folder = os.path.realpath(os.path.dirname(name))
        name = os.path.join(folder, os.path.basename(name))
        if _DESCRIPTOR.fullmatch(name) or not os.path.islink(name):
            break
        name = os.path.join(folder, os.readlink(name))
        if not os.path.isdir(os.path.dirname(name)):
            raise FileNotFoundError(errno.ENOENT, f"it is a link to {name}, and there is no such folder", str(path))
    else:
        raise OSError(errno.ELOOP, "its links lead in a circle", str(path))
    if within is not None and not Path(name).is_relative_to(os.path.realpath(within)):
        raise PermissionError(errno.EPERM, f"it leads to {name}, outside of {within}", str(path))
    try:
        state = os.stat(name)
    except FileNotFoundError:
        state = None
    if state and stat.S_ISDIR(state.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return Target(name, state)


def _check_folder(folder: str, path: Path) -> None:
    """The folder, or the first above it that is there, must be one: a link to nothing is no leave to make a folder."""
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    if os.path.isdir(folder):
        return
    if os.path.islink(folder):
        raise FileNotFoundError(errno.ENOENT, f"{folder} is a link to nothing", str(path))
    raise NotADirectoryError(errno.ENOTDIR, f"{folder} is no directory", str(path))


@contextmanager
def replacing(path: Path, *, within: Path | None = None) -> Iterator[Path]:
    """Yields a temporary path; what is written there takes the place of ``path`` when the block ends well.

    Where ``path`` is a link, the file that it leads to is replaced. The new file has the mode, and where that may be
    the owner, of the old one. What is neither file nor directory, such as a pipe, is written to.

    Args:
        path: the file. Its folder is made where it is missing.
        within: see ``target_of``.

    Raises:
        OSError: as ``target_of``, or it cannot be written.
    """
    target = target_of(path, within)
    folder, name = os.path.split(target.path)
    if target.replaceable:
        os.makedirs(folder, exist_ok=True)
    else:
        folder = tempfile.gettempdir()
    temporary, mode = _make_temporary(folder, name)
    try:
        yield temporary
        if target.replaceable:
            _settle(temporary, mode, target)
        else:
            with open(temporary, "rb") as written, _opened(target) as stream:
                shutil.copyfileobj(written, stream)
    finally:
        temporary.unlink(missing_ok=True)


def _make_temporary(folder: str, name: str) -> tuple[Path, int]:
    """An empty file, and its mode, which is what the user lets new files have."""
    while True:
        temporary = Path(folder, f".{name[:_LONGEST]}.{secrets.token_hex(4)}{_TEMPORARY}")
        with suppress(FileExistsError):
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            os.close(descriptor)
            return temporary, mode


def _settle(temporary: Path, mode: int, target: Target) -> None:
    """Brings what was written to the disk, and to its place."""
    with open(temporary, "rb") as written:
        os.fsync(written.fileno())
        if target.state:
            mode = stat.S_IMODE(target.state.st_mode) & 0o777
            with suppress(OSError):  # only root may give a file away
                os.fchown(written.fileno(), target.state.st_uid, target.state.st_gid)
        os.fchmod(written.fileno(), mode)
    os.replace(temporary, target.path)


def _opened(target: Target) -> IO[bytes]:
    """What cannot be replaced, to write to. A descriptor of this process goes on where it stands."""
    match = _DESCRIPTOR.fullmatch(target.path)
    if match and match[1] in (None, "self", str(os.getpid())):
        for ours in (sys.stdout, sys.stderr):
            if ours is not None:
                ours.flush()
        return os.fdopen(os.dup(int(match[2])), "wb")
    return open(os.open(target.path, os.O_WRONLY), "wb")


def append(path: Path, content: bytes, *, hint: str | None = None, within: Path | None = None) -> None:
    """Writes to the end of a file, all or nothing; when it returns that is on the disk.

    Args:
        path: the file, made where it is missing; its folder as well.
        content: what is added.
        hint: what to do where that is not possible.
        within: see ``target_of``.

    Raises:
        UserError: it cannot be written.
    """
    with _explained(path, hint):
        target = target_of(path, within)
        if not target.replaceable:
            with _opened(target) as stream:
                stream.write(content)
            return
        os.makedirs(os.path.dirname(target.path), exist_ok=True)
        with open(target.path, "ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                left = memoryview(content)
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    file.truncate(size)
                raise


@contextmanager
def _explained(path: Path, hint: str | None) -> Iterator[None]:
    """A file that cannot be written is a ``UserError``; that a reader went away is for ``famcli.cli.main`` to say."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}", hint) from error


def open_regular(path: Path) -> IO[bytes]:
    """Opens a file to read.

    Raises:
        OSError: it cannot be opened, or is none: a pipe would be waited for, a device might never end.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        if kind == stat.S_IFDIR:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, f"it is {NO_FILES.get(kind, 'something')}, not a file", str(path))
    return open(descriptor, "rb")


def read_bytes(path: Path) -> bytes:
    """The content of a file; raises ``OSError`` as ``open_regular``."""
    with open_regular(path) as file:
        return file.read()


def user_path(name: str) -> Path:
    """A path as a person types it, with ``~`` for a home.

    Raises:
        UserError: it cannot be one.
    """
    try:
        path = Path(name).expanduser()
        path.exists()
    except PermissionError:
        return path  # whoever reads it says so
    except (OSError, RuntimeError, ValueError) as error:  # too long; of no such user; with a null character
        raise UserError(f"'{name}' cannot be a path: {getattr(error, 'strerror', None) or error}") from error
    return path


def temporary_files(path: Path) -> list[Path]:
    """What processes that were killed while ``replacing`` the file ``path`` left beside it."""
    return list(path.parent.glob(f".{glob.escape(path.name[:_LONGEST])}.*{_TEMPORARY}"))


def remove_temporary_files(folder: Path) -> None:
    """Removes what killed processes left of files that they were ``replacing`` there; nobody else may be writing."""
    for left in folder.glob(f".*{_TEMPORARY}"):
        if _LEFT.fullmatch(left.name) and left.is_file():
            left.unlink(missing_ok=True)


def content_sha256(path: Path) -> str:
    """The hash of a file, whatever its name, or of all files of a directory but hidden ones, with their paths in it.

    Raises:
        OSError: one cannot be read.
    """
    inside = ((file, file.relative_to(path)) for file in ([path] if path.is_file() else path.rglob("*")))
    return _sha256((f for f, below in inside if not any(part.startswith(".") for part in below.parts)), path)


def source_sha256(kind: type) -> str | None:
    """The hash of the source of a class that another package brings: all of that package, or its one module.

    ``None`` for a class of famcli, and where there is no source file. A module that was loaded from a file by itself
    knows it, see ``famcli.loading``.
    """
    if kind.__module__.partition(".")[0] == "famcli":
        return None
    if known := getattr(sys.modules.get(kind.__module__), SOURCE_SHA256, None):
        return str(known)
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


def sources_sha256(sources: Sequence[Path]) -> str:
    """The hash of a source file and of those below its folder that it needs; of one alone that of ``content_sha256``.

    Raises:
        OSError: one cannot be read.
    """
    return content_sha256(sources[0]) if len(sources) == 1 else _sha256(sources, sources[0].parent)


def _sha256(paths: Iterable[Path], above: Path) -> str:
    """Over the files among ``paths``, each with its path below ``above``."""
    digest = hashlib.sha256()
    for file in sorted(path for path in paths if path.is_file()):
        with open(file, "rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{file.relative_to(above).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def write_text(path: Path, text: str, *, hint: str | None = None, within: Path | None = None) -> None:
    """Writes UTF-8 text to ``path``, whole or not at all.

    Args:
        path: the file, see ``replacing``.
        text: its content.
        hint: what to do where it cannot be written.
        within: see ``target_of``.

    Raises:
        UserError: it cannot be written.
    """
    with _explained(path, hint), replacing(path, within=within) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None, *, hint: str | None = None
) -> None:
    """Writes a safetensors file, whole or not at all.

    Args:
        tensors: by name.
        path: the file, see ``replacing``.
        metadata: texts to keep with them.
        hint: what to do where it cannot be written.

    Raises:
        UserError: it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with _explained(path, hint), replacing(path) as temporary:
        try:
            save_file(dict(tensors), temporary, metadata)
        except SafetensorError as error:  # its only word of a full disk
            raise OSError(str(error)) from error


def move(source: Path, path: Path) -> None:
    """Puts a finished file in the place of ``path``, see ``replacing``.

    Raises:
        UserError: it cannot be written.
    """
    with _explained(path, None), replacing(path) as temporary:
        shutil.move(source, temporary)
