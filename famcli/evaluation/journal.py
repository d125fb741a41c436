"""The crash-safe log of a run, a JSON line a sample in ``samples.jsonl``."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from famcli.errors import GO_ON, UserError, printable
from famcli.evaluation.record import Setting
from famcli.fields import from_json, parse_value, read_fields
from famcli.files import append, read_bytes, target_of

JOURNAL_NAME = "samples.jsonl"
_ASKED_AGAIN = "repeat the command: it goes on, and asks again what is missing"


_COUNTS = (
    *("prompt_tokens", "shared_tokens", "option_tokens", "cut_tokens", "requests"),
    *("seconds", "state_bytes", "peak_memory_bytes"),
)


class Stretch(TypedDict):
    """A part of a text that was read, see ``famcli.evaluation.prediction.by_position``."""

    bytes: int
    log_likelihood: float


class Draw(TypedDict):
    """One of several answers to a prompt."""

    text: str
    token_ids: list[int]
    scores: dict[str, float]


@dataclass(frozen=True)
class Entry:
    """What is kept of an answered sample.

    Attributes:
        id, cell, details, reference: the sample's, see ``famcli.task.Sample``.
        document: the sample's, ``""`` where it stands by itself.
        prompt_sha256: of the prompt's token ids as little-endian 64-bit integers.
        prompt_tokens: tokens of the prompt as it was read.
        shared_tokens: how many of them, at the beginning, were read once for all samples on the document or header.
        option_tokens: tokens of all options, where there are any.
        cut_tokens: tokens of the document left out, as the user asked; 0 where it was read whole.
        requests: times a harness that asks everything by itself would read the prompt: once for each option.
        output: the raw text of the answer, of several the first, or the option that was chosen.
        answer: what it was taken from: ``token_ids`` of a text; ``draws``, several texts with their token ids and
            scores, of which ``scores`` has the means; ``log_likelihoods`` and ``tokens`` of options; for a
            text that was read, ``by_position`` (see ``famcli.evaluation.prediction.by_position``).
        scores: value of each metric.
        weights: weight of each metric that does not count once.
        seconds: the sample's share of the time its batch took.
        state_bytes: memory of the sample's stream state when the prompt had been read.
        peak_memory_bytes: most memory that the run had taken by then, see ``record.Cost``.
        computed_tokens: of prompt and options, behind the shared tokens, how many the model computed: it may skip what
            cannot reach the answer. ``None`` in older journals.
        shared_computed_tokens: the same of the shared ones.
        prompt_tail: the prompt's last words, for readers; ``""`` in older journals and for a text that was read.
        options: the texts to choose from, in the order of ``answer``; none in older journals.
        template: the words around the data, see ``famcli.task.Task``; ``""`` in older journals.
        around: what a chat template puts before and after the prompt; none without one, and in older journals.
        truncate: which part of the document was cut; ``""`` where none was, and in older journals.
        header: names the header that they are; ``""`` where none was shared, and in older journals.
        first_answer_seconds: from the start of reading its document or header until it was answered, if it is of the
            first that were: answers of one batch come together. ``None`` for later ones, and in older journals.
    """

    id: str
    cell: dict[str, Setting]
    details: dict[str, Setting]
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
    computed_tokens: int | None = None
    shared_computed_tokens: int | None = None
    prompt_tail: str = ""
    options: list[str] = field(default_factory=list)
    template: str = ""
    around: list[str] = field(default_factory=list)
    truncate: str = ""
    first_answer_seconds: float | None = None
    header: str = ""

    @property
    def generated(self) -> list[dict[str, Any]]:
        """What is kept of each text that was generated, ``text`` and ``token_ids`` among it; none where none was."""
        if "draws" in self.answer:
            return list(self.answer["draws"])
        return [{"text": self.output, **self.answer}] if "token_ids" in self.answer else []

    @classmethod
    def from_line(cls, line: bytes, where: str) -> Entry:
        """Reads what ``to_line`` wrote; raises ``UserError`` saying what is wrong with the line at ``where``."""
        try:
            entry = read_fields(cls, from_json(line), where, others=True)
        except ValueError as error:
            raise UserError(f"{where} is not valid JSON: {error}") from None
        entry._check(where)
        return entry

    def _check(self, where: str) -> None:
        if not self.scores:
            raise UserError(f"{where} has no scores")
        for name in _COUNTS:
            if getattr(self, name) < 0:
                raise UserError(f"{where}: field '{name}' must be at least 0, not {getattr(self, name)}")
        if (self.first_answer_seconds or 0) < 0:
            raise UserError(f"{where}: field 'first_answer_seconds' must be at least 0 or none")
        for name, weight in self.weights.items():
            if weight < 0:
                raise UserError(f"{where}: field 'weights.{printable(name)}' must be at least 0, not {weight:g}")
        kinds = (("thinking_tokens", int), ("cut", bool), ("by_position", list[Stretch]), ("draws", list[Draw]))
        for name, hint in kinds:
            if name in self.answer:
                parse_value(self.answer[name], hint, f"answer.{name}", where, others=True)
        if not isinstance(self.answer.get("token_ids", []), list):  # not each of them: there are many
            raise UserError(f"{where}: field 'answer.token_ids' must be a list")
        for name, kind in (("log_likelihoods", float), ("tokens", int)):
            given = parse_value(self.answer.get(name, []), list[kind], f"answer.{name}", where)  # type: ignore[valid-type]
            if self.options and len(given) != len(self.options):
                raise UserError(f"{where}: field 'answer.{name}' must have {len(self.options)} values, one an option")

    def to_line(self) -> bytes:
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False).encode() + b"\n"


def read_entries(path: Path) -> dict[str, Entry]:
    """The answered samples of a run by id, in order of completion; a last line without its end is left out.

    Raises:
        UserError: a whole line is damaged, or the file cannot be read.
    """
    return _parse(path, _read(path))


def count_lines(path: Path) -> int:
    """How many samples a journal has lines of; raises ``UserError`` where it cannot be read."""
    return _read(path).count(b"\n")


def _read(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", "--fresh starts over") from error


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
        self.path, self.within = path, path.parent.parent
        content = _read(path) if os.path.lexists(path) else b""
        whole = content.rfind(b"\n") + 1
        try:
            target = target_of(path, self.within)
            if whole < len(content):
                os.truncate(target.path, whole)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error
        self.entries = _parse(path, content)
        self._size, self._digest = whole, hashlib.sha256(content[:whole])

    def append(self, entries: Sequence[Entry]) -> None:
        """Writes entries; when it returns they are on the disk.

        Raises:
            UserError: they cannot be written, or the file is not as long as this left it.
        """
        for entry in entries:
            if entry.id in self.entries:
                raise ValueError(f"sample {entry.id} is there twice")
            self.entries[entry.id] = entry
        lines = b"".join(entry.to_line() for entry in entries)
        if self._size != self._size_on_disk():
            raise self._changed()
        append(self.path, lines, hint=GO_ON, within=self.within)
        self._size += len(lines)
        self._digest.update(lines)

    def check(self) -> None:
        """Makes sure that the file holds what was written to it, and nothing else.

        Raises:
            UserError: it does not, or cannot be read.
        """
        content = _read(self.path) if os.path.lexists(self.path) else b""
        if hashlib.sha256(content).digest() != self._digest.digest():
            raise self._changed()

    def _size_on_disk(self) -> int:
        try:
            return os.stat(self.path).st_size
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error.strerror}", _ASKED_AGAIN) from error

    def _changed(self) -> UserError:
        return UserError(f"{self.path} was changed by somebody else while the run went on", _ASKED_AGAIN)
