"""Data sets of the Hugging Face hub, kept on this machine with a manifest of what was fetched.

Only data files are ever fetched; a loading script in a repository is neither run nor downloaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from famcli.errors import UserError, printable
from famcli.fields import read_fields, read_json
from famcli.files import move, write_text

from .files import KINDS, DataFile, expand

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class HubDataset:
    """Where a task's data lies on the hub.

    Attributes:
        repo: ``owner/name``.
        revision: commit, or a branch such as ``refs/convert/parquet``, which is resolved when the data is fetched.
        files: patterns of data files in the repository, ``{split}`` standing for the split; a pattern ends with a known
            extension, so that no script can match.
        licence: of the data.
        citation: whom to cite.
        split: the split to evaluate on.
    """

    repo: str
    revision: str
    files: tuple[str, ...]
    licence: str
    citation: str
    split: str = "validation"

    def __post_init__(self) -> None:
        if bad := [pattern for pattern in self.files if not pattern.endswith(tuple(KINDS))]:
            raise ValueError(f"not a pattern of data files: {bad[0]}")

    @property
    def patterns(self) -> tuple[str, ...]:
        """``files`` with the split in place."""
        return tuple(pattern.replace("{split}", self.split) for pattern in self.files)

    @property
    def directory(self) -> Path:
        """Where the data is kept on this machine."""
        return data_directory() / self.repo.replace("/", "--") / self.revision.replace("/", "--")


@dataclass(frozen=True)
class StoredFile:
    """What the manifest knows of a file: number of rows, size in bytes, sha256 of the file as it lies there."""

    rows: int
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """What was fetched of one revision: its commit, the names that each pattern matched, and the files."""

    commit: str
    patterns: Mapping[str, list[str]]
    files: Mapping[str, StoredFile]


@dataclass(frozen=True)
class StoredDataset:
    """Data of the hub that is on this machine.

    Attributes:
        directory: where it is.
        commit: the revision it was fetched at.
        files: its files by name.
    """

    directory: Path
    commit: str
    files: Mapping[str, StoredFile]

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files.values())

    def data_files(self) -> list[DataFile]:
        """The files of rows, sorted by name."""
        return [file for name in sorted(self.files) for file in expand(self.directory / name, name)]


def data_directory() -> Path:
    """Where fetched data is kept: ``FAMCLI_DATA``, otherwise ``famcli/data`` in the user's cache directory."""
    if given := os.environ.get("FAMCLI_DATA"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "famcli" / "data"


def find_stored(hub: HubDataset) -> StoredDataset | None:
    """The data of ``hub`` on this machine, ``None`` where it is not there in full.

    Raises:
        UserError: the manifest cannot be read.
    """
    manifest = _read_manifest(hub)
    if not set(hub.patterns) <= set(manifest.patterns):
        return None
    names = sorted({name for pattern in hub.patterns for name in manifest.patterns[pattern]})
    files = {name: manifest.files[name] for name in names}
    for name, file in files.items():
        path = hub.directory / name
        if not path.is_file() or path.stat().st_size != file.bytes:
            return None
    return StoredDataset(hub.directory, manifest.commit, files)


def fetch(hub: HubDataset) -> StoredDataset:
    """Downloads what is not on this machine yet, or was changed there, at the commit of what is.

    Every file takes its place when it is whole, and the manifest last, so that an interrupted fetch can be repeated.

    Raises:
        UserError: the hub cannot be reached, or has no such data.
    """
    stored = find_stored(hub)
    if stored and all(_sha256(stored.directory / name) == file.sha256 for name, file in stored.files.items()):
        return stored
    known = _read_manifest(hub)
    commit, names = _list_repository(hub.repo, known.commit or hub.revision)
    patterns = {pattern: sorted(name for name in names if fnmatchcase(name, pattern)) for pattern in hub.patterns}
    for pattern, matching in patterns.items():
        if not matching:
            raise UserError(f"{hub.repo} at {commit} has no file {pattern}", f"its data files: {_data_files(names)}")
    wanted = sorted({name for matching in patterns.values() for name in matching})
    fetched = {name: _fetch_file(hub, commit, name) for name in wanted}
    _write_manifest(hub, Manifest(commit, {**known.patterns, **patterns}, {**known.files, **fetched}))
    return StoredDataset(hub.directory, commit, fetched)


def _read_manifest(hub: HubDataset) -> Manifest:
    """What was fetched of ``hub``, of whatever split."""
    path = hub.directory / MANIFEST
    if not path.exists():
        return Manifest("", {}, {})
    try:
        manifest = read_fields(Manifest, read_json(path), str(path), others=True)
        if missing := {name for names in manifest.patterns.values() for name in names} - manifest.files.keys():
            raise UserError(f"{path} does not list {printable(missing.pop())}")
    except UserError as error:
        raise UserError(error.message, f"remove {hub.directory} and fetch again") from None
    return manifest


def _write_manifest(hub: HubDataset, manifest: Manifest) -> None:
    fields = {
        "repo": hub.repo,
        "revision": hub.revision,
        "commit": manifest.commit,
        "licence": hub.licence,
        "citation": hub.citation,
        "patterns": manifest.patterns,
        "files": {name: dataclasses.asdict(file) for name, file in manifest.files.items()},
    }
    write_text(hub.directory / MANIFEST, json.dumps(fields, indent=2, ensure_ascii=False) + "\n")


def _fetch_file(hub: HubDataset, commit: str, name: str) -> StoredFile:
    path = hub.directory / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path.parent} cannot be made: {error}", "FAMCLI_DATA names another directory") from error
    with tempfile.TemporaryDirectory(dir=hub.directory, prefix=".fetching-") as folder:
        temporary = _download(hub.repo, commit, name, Path(folder))
        fingerprints = [file.fingerprint() for file in expand(temporary, name)]
        stored = StoredFile(sum(rows for rows, _ in fingerprints), _sha256(temporary), temporary.stat().st_size)
        move(temporary, path)
    return stored


def _list_repository(repo: str, revision: str) -> tuple[str, list[str]]:
    """The commit that ``revision`` stands for, and the names of its files."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().dataset_info(repo, revision=revision)
    except Exception as error:  # a dozen classes of two libraries, all of them: it could not be had
        raise _unreachable(f"{repo} at {revision}", error) from error
    names = [file.rfilename for file in info.siblings or []]
    return str(info.sha), [name for name in names if ".." not in PurePosixPath(name).parts]


def _download(repo: str, commit: str, name: str, folder: Path) -> Path:
    """Downloads one file into ``folder`` and returns its path."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, name, repo_type="dataset", revision=commit, local_dir=folder))
    except Exception as error:  # as above
        raise _unreachable(f"{name} of {repo}", error) from error


def _unreachable(what: str, error: Exception) -> UserError:
    reason = (str(error).strip() or repr(error)).splitlines()[0]
    hint = "--data sample needs no network; data fetched elsewhere is used where FAMCLI_DATA names its directory"
    return UserError(f"cannot fetch {what} from the hub: {reason}", hint)


def _data_files(names: Sequence[str]) -> str:
    return ", ".join(sorted(name for name in names if name.endswith(tuple(KINDS)))[:10]) or "none"


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
