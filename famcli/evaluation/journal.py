"""The crash-safe log of a run, a JSON line a sample in ``samples.jsonl``, and who may write it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from famcli.errors import GO_ON, UserError, printable
from famcli.fields import from_json, read_fields
from famcli.inputs import check_file

JOURNAL_NAME = "samples.jsonl"


@dataclass(frozen=True)
class Entry:
    """What is kept of an answered sample.

    Attributes:
        id, cell, details, reference: the sample's, see ``famcli.task.Sample``.
        document: the sample's, ``""`` where it stands by itself.
        prompt_sha256: of the prompt's token ids as little-endian 64-bit integers.
        prompt_tokens: tokens of the prompt as it was read.
        shared_tokens: how many of them, at the beginning, were read once for all samples on the document.
        option_tokens: tokens of all options, where there are any.
        cut_tokens: tokens of the document left out, as the user asked; 0 where it was read whole.
        requests: times a harness that asks everything by itself would read the prompt: once for each option.
        output: the raw text of the answer, or the option that was chosen.
        answer: what it was taken from: ``token_ids`` of a text; ``log_likelihoods`` and ``tokens`` of options; for a
            text that was read, ``by_position`` (see ``famcli.evaluation.prediction.by_position``).
        scores: value of each metric.
        weights: weight of each metric that does not count once.
        seconds: the sample's share of the time its batch took.
        state_bytes: memory of the sample's stream state when the prompt had been read.
        peak_memory_bytes: most memory the process had used by then.
        prompt_tail: the prompt's last words, for readers; ``""`` in older journals and for a text that was read.
    """

    id: str
    cell: dict[str, Any]
    details: dict[str, Any]
    document: str
    prompt_sha256: str
    prompt_tokens: int
    shared_tokens: int
    option_tokens: int
    cut_tokens: int
    requests: int
    output: str
    answer: dict[str, Any]
    reference: str
    scores: dict[str, float]
    weights: dict[str, float]
    seconds: float
    state_bytes: int
    peak_memory_bytes: int
    prompt_tail: str = ""

    @classmethod
    def from_line(cls, line: bytes, where: str) -> Entry:
        """Reads what ``to_line`` wrote; raises ``UserError`` saying what is wrong with the line at ``where``."""
        try:
            entry = read_fields(cls, from_json(line), where, others=True)
        except ValueError as error:
            raise UserError(f"{where} is not valid JSON: {error}") from None
        if not entry.scores:
            raise UserError(f"{where} has no scores")
        return entry

    def to_line(self) -> bytes:
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False).encode() + b"\n"


def read_entries(path: Path) -> dict[str, Entry]:
    """The answered samples of a run by id, in order of completion; a last line without its end is left out.

    Raises:
        UserError: a whole line is damaged, or the file cannot be read.
    """
    check_file(path)
    try:
        return _parse(path, path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _parse(path: Path, content: bytes) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        where = f"{path}, line {number}"
        try:
            entry = Entry.from_line(line, where)
            if entry.id in entries:
                raise UserError(f"{where}: sample {printable(entry.id)} is there twice")
        except UserError as error:
            raise UserError(
                error.message,
                "put the line right or delete it to have its sample asked again, or start over with --fresh",
            ) from None
        entries[entry.id] = entry
    return entries


class Journal:
    """The answered samples of a run, in order of completion."""

    def __init__(self, path: Path) -> None:
        """Opens ``path``, which need not exist, to go on with it.

        A last line without its end is what a killed process was writing: it is dropped, and its sample asked again.

        Raises:
            UserError: a whole line is damaged, or the file cannot be read.
        """
        self.path = path
        check_file(path)
        try:
            content = path.read_bytes() if path.exists() else b""
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                os.truncate(path, whole)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        self.entries = _parse(path, content)

    def append(self, entries: Sequence[Entry]) -> None:
        """Writes entries; when it returns they are on the disk.

        Raises:
            UserError: they cannot be written.
        """
        for entry in entries:
            if entry.id in self.entries:
                raise ValueError(f"sample {entry.id} is there twice")
            self.entries[entry.id] = entry
        try:
            with open(self.path, "ab") as file:
                file.write(b"".join(entry.to_line() for entry in entries))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}", GO_ON) from error


@contextmanager
def claim(directory: Path, fresh: bool) -> Iterator[None]:
    """Makes ``directory`` and keeps every other process out of it while the block runs.

    Args:
        directory: the run's.
        fresh: begin with an empty directory. What was there is kept beside it as ``<name>.old-1``, ``.old-2``, ...

    Raises:
        UserError: another process is at work there, or it cannot be made.
    """
    lock = _lock(directory)
    if fresh and any(path.name != _LOCK_NAME for path in directory.iterdir()):
        number = 1
        while (aside := directory.with_name(f"{directory.name}.old-{number}")).exists():
            number += 1
        directory.rename(aside)
        _unlock(lock, aside)
        lock = _lock(directory)
    try:
        yield
    finally:
        _unlock(lock, directory)


_LOCK_NAME = "lock"


def _lock(directory: Path) -> int:
    """Takes the lock file of ``directory``. The lock goes with the process that holds it, however that ends."""
    path = directory / _LOCK_NAME
    while True:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"cannot write results to {directory}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before may have taken the file away between our opening and our locking it.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise UserError(
                f"another process is working on the run {directory}", "wait for it to end, then repeat the command"
            ) from None
        os.close(descriptor)


def _unlock(descriptor: int, directory: Path) -> None:
    (directory / _LOCK_NAME).unlink(missing_ok=True)
    os.close(descriptor)
