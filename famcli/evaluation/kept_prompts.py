"""The prompts of a run as the model read them, in ``prompts.jsonl.gz`` beside its samples, where the user wants them.

A part of the file, packed by itself, is written before the samples of a batch are answered. A document that several
samples are about is there once.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from famcli.errors import GO_ON, UserError
from famcli.evaluation.prompts import Context, encode, open_prompt, pieces_of
from famcli.fields import from_json, read_fields
from famcli.files import append, open_regular, target_of
from famcli.seams import Piece, SpecialTokens
from famcli.task import Read, Request

if TYPE_CHECKING:
    from famcli.checkpoints.tokenizer import Tokenizer
    from famcli.evaluation.plan import Planned

PROMPTS_NAME = "prompts.jsonl.gz"
LONGEST_PART = 2**31
"""Bytes of an unpacked part: more is no part that famcli wrote."""
_READ = 1 << 16


@dataclass(frozen=True)
class KeptPrompt:
    """A prompt, in three pieces of text that follow one another; special tokens without a text are left out.

    Attributes:
        id: the sample's.
        before: what stands before the document, all of a prompt without one.
        document: the hash of the document as it was read, ``""`` without one.
        after: what stands behind it.
    """

    id: str
    before: str
    document: str
    after: str


@dataclass(frozen=True)
class _Document:
    document: str
    text: str


class PromptKeeper:
    """Writes the prompts of a run.

    Args:
        directory: the run's.
        tokenizer: the model's, for token ids.
        special: what stands around every prompt.
        context: the bound at which documents are cut.

    Raises:
        UserError: the file that is there is damaged, or cannot be written.
    """

    def __init__(self, directory: Path, tokenizer: Tokenizer, special: SpecialTokens, context: Context | None) -> None:
        self.path, self.within = directory / PROMPTS_NAME, directory.parent
        self.tokenizer, self.special, self.context = tokenizer, special, context
        self._known: set[str] = set()
        self._hashes: dict[tuple[str, int | None], str] = {}
        self._go_on()

    def keep(self, pairs: Iterable[tuple[Planned, Request]]) -> None:
        """Adds the prompts of a batch; when it returns they are on the disk.

        Raises:
            UserError: they cannot be written.
        """
        lines = [line for p, request in pairs for line in self._lines(p, request)]
        content = "".join(json.dumps(line) + "\n" for line in lines)
        packed = gzip.compress(content.encode(), mtime=0)
        append(self.path, packed, hint=GO_ON, within=self.within)

    def _go_on(self) -> None:
        """Drops a part that a killed process was writing, and learns which documents are there."""
        if not os.path.lexists(self.path):
            return
        whole = 0
        for content, end in _parts(self.path):
            whole = end
            self._known |= {line.document for line in _lines(content, self.path) if isinstance(line, _Document)}
        try:
            if whole < self.path.stat().st_size:
                os.truncate(target_of(self.path, self.within).path, whole)
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error

    def _lines(self, p: Planned, request: Request) -> Iterator[dict[str, str]]:
        pieces, place = self._pieces(request)
        name = "" if p.sample.document is None else p.sample.document
        key = (name, p.document_tokens if p.cut_tokens else None)
        found = self._hashes.get(key) if name else None
        if place is None:
            found = ""
        elif found is None:
            text = self._document(p, request, pieces[place])
            found = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
            self._hashes[key] = found
            if found not in self._known:
                self._known.add(found)
                yield {"document": found, "text": text}
        end = len(pieces) if place is None else place
        yield {
            "id": p.sample.id,
            "before": self._text(pieces[:end]),
            "document": found,
            "after": self._text(pieces[end + 1 :]),
        }

    def _pieces(self, request: Request) -> tuple[Sequence[Piece], int | None]:
        """What follows one another, and which of it is the document."""
        if isinstance(request, Read):
            return [request.text], 0
        document = request.prompt.document
        return pieces_of(request.prompt, self.special), None if document is None else document + 1

    def _document(self, p: Planned, request: Request, whole: Piece) -> str:
        """As it was read."""
        if not p.cut_tokens:
            return self._text([whole])
        assert self.context is not None and p.document_tokens is not None
        if isinstance(request, Read):
            ids = encode(whole, self.tokenizer)
        else:
            opening, ids = open_prompt(request.prompt, self.tokenizer, self.special)
            ids = ids[opening.before :]
        return self.tokenizer.decode(self.context.cut(ids, p.document_tokens).tolist())

    def _text(self, pieces: Sequence[Piece]) -> str:
        return "".join(p if isinstance(p, str) else self.tokenizer.decode(p.tolist()) for p in pieces)


def kept_ids(directory: Path) -> set[str]:
    """The samples whose prompts a run has; raises ``UserError`` where the file is damaged."""
    return {line.id for line in _all_lines(directory) if isinstance(line, KeptPrompt)}


def prompt_of(directory: Path, sample: str) -> tuple[KeptPrompt, str] | None:
    """The prompt of a sample and its document, ``""`` without one; ``None`` where it was not kept.

    Raises:
        UserError: the file is damaged.
    """
    found = None
    for line in _all_lines(directory):
        if isinstance(line, KeptPrompt) and line.id == sample:
            found = line
    if found is None or not found.document:
        return None if found is None else (found, "")
    for line in _all_lines(directory):
        if isinstance(line, _Document) and line.document == found.document:
            return found, line.text
    raise UserError(f"{directory / PROMPTS_NAME} lacks a document of sample {sample}", "--fresh starts over")


def _all_lines(directory: Path) -> Iterator[KeptPrompt | _Document]:
    path = directory / PROMPTS_NAME
    if os.path.lexists(path):
        for content, _ in _parts(path):
            yield from _lines(content, path)


def _lines(content: bytes, path: Path) -> Iterator[KeptPrompt | _Document]:
    for line in content.splitlines():
        try:
            values = from_json(line)
        except ValueError as error:
            raise _damaged(path, str(error)) from None
        if isinstance(values, dict) and "id" in values:
            yield read_fields(KeptPrompt, values, str(path))
        else:
            yield read_fields(_Document, values, str(path))


def _parts(path: Path) -> Iterator[tuple[bytes, int]]:
    """Each whole part, unpacked, and where it ends in the file; a last one without its end is left out."""
    try:
        with open_regular(path) as file:
            yield from _unpacked(file, path)
    except (OSError, zlib.error) as error:
        raise _damaged(path, getattr(error, "strerror", None) or str(error)) from error


def _unpacked(file: IO[bytes], path: Path) -> Iterator[tuple[bytes, int]]:
    left = b""
    while True:
        unpacking, parts, size = zlib.decompressobj(zlib.MAX_WBITS | 16), list[bytes](), 0
        while not unpacking.eof:
            if not (packed := left or file.read(_READ)):
                return
            parts.append(unpacking.decompress(packed))
            left, size = b"", size + len(parts[-1])
            if size > LONGEST_PART:
                raise _damaged(path, "it unpacks to no end")
        left = unpacking.unused_data
        yield b"".join(parts), file.tell() - len(left)


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"cannot read {path}: {why}", "move it away; eval with --keep-prompts --fresh makes another")
