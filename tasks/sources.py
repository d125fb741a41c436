"""Where a task's rows come from: the hub, the user's own files, or famcli's built-in sample.

A task declares its ``HubDataset`` and calls ``open_data`` with what the user gave for ``--data``. Nothing is
downloaded unless the user says ``hub``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from famcli.errors import UserError
from famcli.files import user_path
from famcli.task import DataError

from .files import TEXT, DataFile, NoRowsError, list_files
from .hub import HubDataset, fetch, find_stored
from .rows import Row
from .splits import ALL, SPLITS, VALIDATION, of_one_split, split_of

HUB, SAMPLE = "hub", "sample"
SAMPLES = Path(__file__).parent / "samples"


class _Texts(NamedTuple):
    """Which plain text files are rows; see ``open_data``."""

    patterns: tuple[str, ...]
    instead: bool

    def files(self, path: Path) -> list[DataFile]:
        """See ``list_files``."""
        if not self.instead:
            return list_files(path, self.patterns)
        try:
            return list_files(path)
        except NoRowsError:
            return list_files(path, self.patterns)

    def splits(self, files: Sequence[tuple[str, DataFile]]) -> list[tuple[DataFile, str | None]]:
        """Files, each with the name of the directory that it is below where that counts, with their splits."""
        told = self.instead or not any(file.kind == TEXT for _, file in files)
        return [(file, split_of(file, folder) if told else None) for folder, file in files]


@dataclass(frozen=True)
class Provenance:
    """What a run was made from; goes into its record.

    Attributes:
        source: where the rows came from.
        name: repository, task, or the file or directory without what is above it.
        revision: the hub's commit; ``None`` elsewhere.
        sha256: over the uncompressed content of the files, sorted by name, so that the same data elsewhere is the same.
        rows: number of rows.
    """

    source: Literal["hub", "sample", "path"]
    name: str
    revision: str | None
    sha256: str
    rows: int


@dataclass(frozen=True)
class Dataset:
    """Files of rows, and where they are from. Rows are read when they are asked for, and each time again.

    Attributes:
        files: of rows.
        provenance: where they are from.
        has_splits: it is said of which split they are, by their names or by the hub.
    """

    files: tuple[DataFile, ...]
    provenance: Provenance
    has_splits: bool = False

    @property
    def rows(self) -> Iterator[Row]:
        """All rows, file by file in the order of names, one in memory at a time.

        Where rows repeat a long document, keep it once by its id: ``documents.setdefault(id, text)``.

        Raises:
            DataError: while iterating, at the first row that cannot be read.
        """
        for file in self.files:
            yield from file.rows()

    def readable_rows(self, misfit: Callable[[DataError], None]) -> Iterator[Row]:
        """As ``rows``, without those that cannot be read; ``misfit`` is told of them."""
        for file in self.files:
            yield from file.readable_rows(misfit)

    def facts(self) -> dict[str, Any]:
        """The fields of ``provenance``."""
        return dataclasses.asdict(self.provenance)


def open_data(
    task_name: str,
    data: str | None,
    hub: HubDataset | None = None,
    texts: Sequence[str] = (),
    split: str | None = None,
    *,
    texts_instead: bool = False,
) -> Dataset:
    """The rows to evaluate ``task_name`` on.

    Args:
        task_name: names the built-in sample.
        data: ``hub``, ``sample``, a path or several with commas between; ``None``, or nothing, takes the fetched copy
            of ``hub``. Of a directory that has a folder named like the task, the folder is meant.
        hub: the task's data on the hub, if there is any. ``--data hub`` downloads it where it is not on this machine.
        texts: patterns of the names of plain text files that are rows with ``path`` and ``text``, e.g. ``*.thy``.
        split: the split of files at a path that was asked for; ``None`` takes that of ``hub`` where there are several.
        texts_instead: texts are rows only where there are no others; folders say of which split they are.

    Raises:
        UserError: there is no such data, or a file cannot be read or holds no rows.
    """
    kinds = _Texts(tuple(texts), texts_instead)
    if data == SAMPLE:
        return _dataset("sample", task_name, None, _sample_files(task_name, kinds))
    if data and data != HUB:
        paths = _paths(data, task_name)
        names = [Path(os.path.realpath(path)).name for path in paths]
        given = [(name if len(paths) > 1 else "", kinds.files(path)) for name, path in zip(names, paths, strict=True)]
        named = kinds.splits([(folder, file) for folder, files in given for file in files])
        name = ",".join(sorted(names))
        files, taken = of_one_split(named, split, hub.split if hub else VALIDATION, name)
        if taken:
            name = f"{name}:{taken}"
        found = _dataset("path", name, None, sorted(files, key=lambda file: file.label))
        return dataclasses.replace(found, has_splits=any(of for _, of in named))
    if hub is None:
        raise no_hub_data(task_name, texts)
    if split == ALL:
        raise UserError(f"-o split={ALL} is for files", f"say which split of {hub.repo}: {', '.join(SPLITS)}")
    stored = find_stored(hub)
    if stored is None:
        if not data:
            raise no_data(task_name, hub)
        stored = fetch(hub)
    found = _dataset("hub", hub.repo, stored.commit, stored.data_files())
    return dataclasses.replace(found, has_splits=True)


def no_data(task_name: str, hub: HubDataset) -> UserError:
    """The error for a task that needs ``--data``."""
    return UserError(
        f"task {task_name} needs data, and none is on this machine",
        f"--data sample (a few built-in rows), --data hub (downloads {hub.repo}) or --data PATH",
    )


def no_hub_data(task_name: str, texts: Sequence[str] = ()) -> UserError:
    """The error for a task without data on the hub; ``texts`` as in ``open_data``."""
    what = f"{', '.join(texts)} files, or of rows" if texts else "rows"
    return UserError(
        f"task {task_name} has no data on the hub",
        f"--data {task_name}=PATH (with one task --data PATH), PATH a directory or zip of {what} in JSONL, CSV or "
        "parquet; or sample in place of PATH",
    )


def _paths(data: str, task_name: str) -> list[Path]:
    """One path, or several with commas between them; a path that exists may have commas in it.

    Raises:
        UserError: there is nothing between two commas, or a path is there twice, which would count its rows twice.
    """
    try:
        parts = [data] if "," not in data or user_path(data).exists() else data.split(",")
        if not all(part.strip() for part in parts):
            raise UserError(f"there is an empty path in '{data}'", "for example --data first.jsonl,second.jsonl")
        given = [user_path(part) for part in parts]
        paths = [path / task_name if (path / task_name).is_dir() else path for path in given]
        real = [Path(os.path.realpath(path)) for path in paths]
    except OSError as error:
        raise UserError(f"{error.filename or data} cannot be read: {error.strerror}") from error
    for path, twice in zip(paths, real, strict=True):
        if real.count(twice) > 1 or any(parent in real for parent in twice.parents):
            raise UserError(f"{path} is given twice in '{data}'", "its rows would count twice: leave one out")
    return paths


def _sample_files(task_name: str, texts: _Texts) -> list[DataFile]:
    for path in (SAMPLES / f"{task_name}.jsonl", SAMPLES / task_name):
        if path.exists():
            return texts.files(path)
    raise UserError(f"task {task_name} has no built-in sample", "use --data PATH or --data hub")


def _dataset(
    source: Literal["hub", "sample", "path"], name: str, revision: str | None, files: Sequence[DataFile]
) -> Dataset:
    fingerprints = [file.fingerprint() for file in files]
    digest = hashlib.sha256("".join(sha256 for _, sha256 in fingerprints).encode()).hexdigest()
    return Dataset(tuple(files), Provenance(source, name, revision, digest, sum(rows for rows, _ in fingerprints)))
