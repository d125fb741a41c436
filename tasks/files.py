"""Files of rows: JSONL, CSV, parquet and plain text, gzipped or in a zip, streamed row by row.

Nothing is skipped silently: what cannot be read is a ``DataError`` that names the file and the line, and files of
unknown kinds are left out with a warning.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from famcli.errors import UserError
from famcli.inputs import check_encoding, check_file
from famcli.task import DataError

from .rows import Row
from .unpacking import Bounded, most_unpacked

logger = logging.getLogger(__name__)

JSONL, JSON, CSV, PARQUET, TEXT, ZIP = "JSONL", "JSON", "CSV", "parquet", "text", "zip"
KINDS = {".jsonl": JSONL, ".jsonl.gz": JSONL, ".csv": CSV, ".csv.gz": CSV, ".parquet": PARQUET, ".zip": ZIP}
RELEASED = {
    "*.htmlstripped.train": JSONL,
    "*.htmlstripped.dev": JSONL,
    "*.htmlstripped.test": JSONL,
    "qasper-*.json": JSON,
    "train-v*.json": JSON,
    "dev-v*.json": JSON,
    "hotpot_*.json": JSON,
    "data.json": JSON,
}
"""Files as the authors of QuALITY, Qasper, SQuAD, HotpotQA and LongBench v2 publish them, by their names."""
NO_DATA = ("", ".md")
"""Extensions of files beside data that nobody takes for data: README.md, LICENSE."""
READABLE = (
    "famcli reads .jsonl, .jsonl.gz, .csv, .csv.gz, .parquet, QuALITY's *.htmlstripped.dev, Qasper's qasper-*.json and "
    "a .zip of them"
)
PACKED = (".tar", ".tgz", ".tar.gz", ".tar.xz", ".tar.bz2", ".7z", ".rar", ".zst", ".xz", ".bz2")
PARQUET_BATCH = 16
"""Rows decoded together: a single row of NarrativeQA holds a whole book."""

LARGEST_ROW = 1 << 28
"""Most bytes of a line of JSON: no book comes near it."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class NoRowsError(UserError):
    """What was given is no file of rows, or holds none."""


@dataclass(frozen=True)
class DataFile:
    """A file of rows: one on disk, or a member of a zip.

    Attributes:
        name: path below what the user gave, ``/`` between its parts; of a zip's member its path within the zip.
        path: the file, or the zip.
        kind: ``JSONL``, ``CSV``, ``PARQUET`` or ``TEXT``.
        member: the member's name in the zip.
    """

    name: str
    path: Path
    kind: str
    member: str | None = None

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.path.name}:{self.member}" if self.member else self.name

    def rows(self) -> Iterator[Row]:
        """The rows one by one, read as they are asked for; raises ``DataError`` where one cannot be read.

        A text is one row with the fields ``path`` and ``text``.
        """
        readers = {
            JSONL: self._json_lines,
            JSON: self._json_object,
            CSV: self._csv_rows,
            PARQUET: self._parquet_rows,
            TEXT: self._whole_text,
        }
        with self._explained():
            yield from readers[self.kind]()

    def readable_rows(self, misfit: Callable[[DataError], None]) -> Iterator[Row]:
        """The rows that can be read; ``misfit`` is told of the others."""
        try:
            if self.kind == JSONL:
                with self._explained():
                    yield from self._json_lines(misfit)
            else:
                yield from self.rows()
        except DataError as error:
            misfit(error)

    def fingerprint(self) -> tuple[int, str]:
        """Number of rows, and the sha256 of the uncompressed content.

        Raises:
            DataError: the file cannot be read, or holds no row.
        """
        digest, lines = hashlib.sha256(), 0
        with self._explained(), self._open() as stream:
            for line in self._lines(stream):
                digest.update(line)
                lines += not line.isspace()
        if self.kind == PARQUET:
            with self._explained(), self._on_disk() as path:
                rows = _parquet_length(path, self.label)
        else:
            known = {JSONL: lines, TEXT: 1}
            rows = known[self.kind] if self.kind in known else sum(1 for _ in self.rows())
        if rows == 0:
            raise DataError(f"{self.label} is empty")
        return rows, digest.hexdigest()

    def _json_lines(self, misfit: Callable[[DataError], None] | None = None) -> Iterator[Row]:
        with self._open_text() as stream:
            for number, line in enumerate(self._lines(stream), 1):
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if line.isspace():
                    continue
                where = f"{self.label}, line {number}"
                try:
                    row = Row(_parse_object(line, where), where, self.name)
                except DataError as error:
                    if misfit is None:
                        raise
                    misfit(error)
                    continue
                yield row

    def _json_object(self) -> Iterator[Row]:
        """The objects of a list, which may be the field ``data`` of one; else the values of one object, each of which
        has its name as its ``id``."""
        with self._open_text() as stream:
            whole = _parse(stream.read(), self.label)
        listed = whole.get("data") if isinstance(whole, dict) else whole
        named = enumerate(listed, 1) if isinstance(listed, list) else _object(whole, self.label).items()
        for name, fields in named:
            if not isinstance(fields, dict):
                raise DataError(f"{self.label}: field '{name}' must be an object")
            row = fields if isinstance(listed, list) else {"id": name, **fields}
            yield Row(row, f"{self.label}, '{name}'", self.name)

    def _csv_rows(self) -> Iterator[Row]:
        csv.field_size_limit(sys.maxsize)  # a field may hold a book
        with self._open_text() as stream:
            reader = csv.reader(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), strict=True)
            try:
                header = next(reader, [])
                if len(set(header)) < len(header):
                    raise DataError(f"{self.label}: two columns of the first line have the same name")
                for number, row in enumerate(reader, 1):
                    if row and len(row) != len(header):
                        raise DataError(f"{self.label}, row {number}: has {len(row)} fields, not {len(header)}")
                    if row:
                        fields = dict(zip(header, row, strict=True))
                        yield Row(fields, f"{self.label}, row {number}", self.name)
            except (csv.Error, UnicodeDecodeError) as error:
                raise DataError(f"{self.label}, line {reader.line_num + 1}: invalid CSV: {error}") from None

    def _parquet_rows(self) -> Iterator[Row]:
        import datasets
        import pyarrow

        with self._on_disk() as path, tempfile.TemporaryDirectory() as cache:
            try:
                # Not load_dataset, which reports every call to a server, even for local files.
                rows = datasets.Dataset.from_parquet(
                    str(path), cache_dir=cache, streaming=True, batch_size=PARQUET_BATCH
                )
                for number, row in enumerate(rows, 1):
                    yield Row(row, f"{self.label}, row {number}", self.name)
            except pyarrow.ArrowException as error:
                raise DataError(f"{self.label} is not a parquet file that can be read: {error}") from None

    def _whole_text(self) -> Iterator[Row]:
        with self._open_text() as stream:
            try:
                yield Row({"path": self.name, "text": stream.read().decode()}, self.label, self.name)
            except UnicodeDecodeError as error:
                raise DataError(f"{self.label} is not UTF-8: {error}") from None

    @contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        """The uncompressed content."""
        check_file(self.path)
        if self.member is None:
            with open(self.path, "rb") as raw:
                yield self._unzipped(raw, self.path.stat().st_size)
        else:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as raw:
                yield self._unzipped(raw, archive.getinfo(self.member).compress_size)

    def _unzipped(self, raw: IO[bytes], size: int) -> IO[bytes]:
        if not self.name.endswith(".gz"):
            return raw
        bounded = Bounded(gzip.GzipFile(fileobj=raw), most_unpacked(size), self.label)
        return cast("IO[bytes]", io.BufferedReader(bounded))

    @contextmanager
    def _open_text(self) -> Iterator[IO[bytes]]:
        """As ``_open``, of what must not begin as UTF-16 does."""
        with self._open() as stream:
            try:
                check_encoding(stream.peek(4), self.label)  # type: ignore[attr-defined]  # all of these have it
            except UserError as error:
                raise DataError(error.message, error.hint) from None
            yield stream

    def _lines(self, stream: IO[bytes]) -> Iterator[bytes]:
        while line := stream.readline(LARGEST_ROW + 1):
            if len(line) > LARGEST_ROW and self.kind == JSONL:
                raise DataError(f"{self.label}: a line has more than {LARGEST_ROW >> 20} MiB: that is no row")
            yield line

    @contextmanager
    def _on_disk(self) -> Iterator[Path]:
        """A file with the content, unpacked for the time being where it is in a zip."""
        if self.member is None:
            yield self.path
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, PurePosixPath(self.name).name)
            with self._open() as stream, open(path, "wb") as copy:
                shutil.copyfileobj(stream, copy)
            yield path

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what a broken or forbidden file raises into a ``DataError``."""
        try:
            yield
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError) as error:
            raise DataError(f"{self.label} cannot be read: {error}") from error


def list_files(path: Path, texts: Sequence[str] = ()) -> list[DataFile]:
    """The files of rows at ``path``, sorted by name.

    Args:
        path: a file, or a directory that is searched with all its folders; hidden files and those of other kinds are
            left out, with a warning where they may have been meant as data.
        texts: patterns of the names of plain text files that are rows, e.g. ``*.thy``.

    Raises:
        UserError: there is nothing at ``path``, or nothing in it that can be read, or a part of it is forbidden.
    """
    try:
        is_folder, exists = path.is_dir(), path.exists()
        names = _files_below(path) if is_folder else []
    except OSError as error:
        raise UserError(f"{error.filename or path} cannot be read: {error.strerror}") from error
    if is_folder:
        found = [file for name in names if _kind(name, texts) for file in expand(path / name, name, texts)]
        if not found:
            raise NoRowsError(f"no data in the directory {path}", _readable(texts))
        _warn_of_others(str(path), [name for name in names if _kind(name, texts) is None], texts)
        return sorted(found, key=lambda file: file.label)
    check_file(path)
    if not exists:
        raise UserError(f"there is no file or directory '{path}'", "--data takes a path, or one of: sample, hub")
    if _kind(path.name, texts) is None:
        packed = path.name.lower().endswith(PACKED)
        hint = f"unpack it and give its directory: {_readable(texts)}" if packed else _readable(texts)
        raise NoRowsError(f"{path} has an unknown extension", hint)
    return expand(path, path.name, texts)


def _readable(texts: Sequence[str]) -> str:
    return f"{READABLE}; of this task also {', '.join(texts)}" if texts else READABLE


def _files_below(folder: Path) -> list[str]:
    """Paths below ``folder`` of its files; links are followed, each folder is searched once.

    Raises:
        OSError: a folder cannot be searched; it must not look as if it were empty.
    """

    def refuse(error: OSError) -> None:
        raise error

    names, seen = [], {os.path.realpath(folder)}
    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = {name: os.path.realpath(os.path.join(place, name)) for name in sorted(folders) if not _hidden(name)}
        folders[:] = [name for name, target in real.items() if target not in seen]
        seen.update(real.values())
        names += [Path(place, name).relative_to(folder).as_posix() for name in files]
    return names


def _hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def expand(path: Path, name: str, texts: Sequence[str] = ()) -> list[DataFile]:
    """The file itself, or the members of a zip that hold rows, sorted; ``name`` is what messages call the file.

    Raises:
        UserError: the zip cannot be read (``DataError``), or holds no rows.
    """
    kind = _kind(name, texts)
    if kind != ZIP:
        return [DataFile(name, path, str(kind))]
    check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist() if not info.is_dir()}
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{name} is not a zip that can be read: {error}") from error
    kinds = {member: _kind(member, texts) for member in sorted(members)}
    found = [DataFile(member, path, kind, member) for member, kind in kinds.items() if kind not in (None, ZIP)]
    if not found:
        raise NoRowsError(f"no data in {name}", _readable(texts))
    for file in found:
        about = members[file.name]
        if about.flag_bits & 1:
            raise DataError(f"{file.label} is encrypted", f"unpack {name} and give its directory")
        if about.file_size > most_unpacked(about.compress_size):
            raise DataError(f"{file.label} says that it unpacks to {about.file_size >> 20:,} MiB: that is no text")
    _warn_of_others(name, [member for member, kind in kinds.items() if kind in (None, ZIP)], texts)
    return found


def _warn_of_others(where: str, names: Sequence[str], texts: Sequence[str]) -> None:
    """Tells which files in ``where`` are not read; not beside texts, where other files are the rule."""
    others = sorted(
        name
        for name in names
        if PurePosixPath(name).suffix.lower() not in NO_DATA and not any(map(_hidden, PurePosixPath(name).parts))
    )
    if others and not texts:
        shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        logger.warning("warning: %d file(s) in %s left out: %s; %s", len(others), where, shown, READABLE)


def _kind(name: str, texts: Sequence[str]) -> str | None:
    """How the file is read; ``None`` where it is hidden or no data. ``name`` is relative to what the user gave."""
    parts = PurePosixPath(name).parts
    if any(map(_hidden, parts)):
        return None
    if any(fnmatchcase(parts[-1], pattern) for pattern in texts):
        return TEXT
    released = (kind for pattern, kind in RELEASED.items() if fnmatchcase(parts[-1], pattern))
    return next((kind for suffix, kind in KINDS.items() if parts[-1].endswith(suffix)), next(released, None))


def _parse_object(line: bytes, where: str) -> dict[str, Any]:
    return _object(_parse(line, where), where)


def _parse(line: bytes, where: str) -> Any:
    try:
        fields = json.loads(line.decode())
        if _SURROGATE.search(line):  # half a character is valid JSON, but no text
            json.dumps(fields, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: invalid JSON: {error}") from None
    return fields


def _object(fields: Any, where: str) -> dict[str, Any]:
    if not isinstance(fields, dict):
        raise DataError(f"{where}: must be a JSON object, not {json.dumps(fields)[:40]}")
    return fields


def _parquet_length(path: Path, label: str) -> int:
    import pyarrow
    import pyarrow.parquet

    try:
        return int(pyarrow.parquet.read_metadata(path).num_rows)
    except pyarrow.ArrowException as error:
        raise DataError(f"{label} is not a parquet file that can be read: {error}") from None
