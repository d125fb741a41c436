"""What a path leads to, before it is opened: whoever reads from a pipe or a device may wait for ever; and texts."""

from __future__ import annotations

import codecs
import stat
from pathlib import Path

from famcli.errors import UserError, printable
from famcli.files import NO_FILES


def check_file(path: Path) -> None:
    """Lets pass what can be opened without waiting; opening says of what is not there, or is a directory.

    Raises:
        UserError: it is a pipe, a device or a socket.
    """
    try:
        mode = path.stat().st_mode
    except OSError:  # whoever opens it says why it cannot be
        return
    except ValueError as error:
        raise UserError(f"'{printable(str(path))}' cannot be a path: {error}") from None
    if kind := NO_FILES.get(stat.S_IFMT(mode)):
        raise UserError(
            f"cannot read {path}: it is {kind}, not a file",
            "famcli reads files, some of them twice: write it to one first",
        )


def check_encoding(begin: bytes, where: str) -> None:
    """Makes sure that the first bytes of a text are not the mark of UTF-16 or UTF-32.

    Raises:
        UserError: they are.
    """
    for mark, name in _MARKS:
        if begin.startswith(mark):
            raise UserError(f"{where} is in {name}, and famcli reads UTF-8", "save it as UTF-8")


_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def read_text(path: Path) -> str:
    """The UTF-8 text of a file, without a byte-order mark, with line ends of one kind.

    Raises:
        UserError: it is no file, cannot be read, or is no UTF-8.
    """
    check_file(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    check_encoding(content, str(path))
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path}: {error}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")
