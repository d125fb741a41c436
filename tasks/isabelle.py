"""Isabelle: next-token prediction of formal proofs, entries of the Archive of Formal Proofs (TransformerFAM, Table 10).

As in Memorizing Transformers (Wu et al. 2022, arXiv 2203.08913, section 4.4), an entry is one document, its theories in
the order in which they build on each other. Which entries the papers took is not published, so scores compare models
on one's own entries; they cannot be set beside the papers'.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath

from famcli.errors import printable
from famcli.task import DataError, DataField, DataSchema, Encoder, Read, Sample

from .documents import DocumentTask, text_id, unique_ids
from .files import JSONL, PARQUET, DataFile
from .pg19 import READING_METRICS, reading_scores
from .rows import Row
from .sources import Dataset
from .theories import TheoryFile, join_theories, order_theories, raise_together

logger = logging.getLogger(__name__)

THEORY, ROOT, ARCHIVE = ".thy", "ROOT", "thys"
SHOWN = 10


@dataclass(frozen=True)
class Entry:
    """One entry.

    Attributes:
        id: unique in the data, the entry's name.
        title: for the reader of the record.
        text: all its theories.
        theories: how many; 0 where it is not known.
    """

    id: str
    title: str
    text: str
    theories: int


class Isabelle(DocumentTask):
    """Reads each entry from its first to its last token.

    The data is a directory or zip of entries, ``ENTRY/**/*.thy``, possibly below a folder ``thys`` as in a checkout of
    the Archive; or a single entry, with theories or a ROOT file at its top; or rows with ``text`` and ``entry`` or
    ``id``, whose theories are joined already; what has no name is called by a hash of its text. What else lies beside
    theories, such as CSV, is not looked at.
    """

    name = "isabelle"
    version = 1
    summary = "next-token accuracy, bits per byte and perplexity over whole entries of formal proofs"
    metrics = READING_METRICS
    template = "{text}"
    licence = "BSD or LGPL, as each entry says"
    citation = "Archive of Formal Proofs, https://www.isa-afp.org, ISSN 2150-914x; cite the entries"
    texts = (f"*{THEORY}", ROOT)
    schema = DataSchema(
        fields=(
            DataField("text", "text", "all theories of the entry, joined"),
            DataField("entry", "text", "its name", required=False),
            DataField("id", "text", "its name, where it has no entry", required=False),
            DataField("title", "text", "for the reader of the record", required=False),
            DataField("theories", "a list of texts", "their names", required=False),
        ),
        example={"text": 'theory Tally imports Main begin\n\nlemma "n + 0 = (n::nat)" by simp\n\nend\n'},
        also="a directory or zip of .thy files, a folder an entry, as a checkout of the Archive of Formal Proofs",
    )
    strays: frozenset[DataFile] = frozenset()
    """Theories that were left out, once the data was read."""

    def data(self) -> Dataset:
        """See ``Task.data``: without what is left out."""
        if not self.entries or not self.strays:
            return self.dataset
        files = tuple(file for file in self.dataset.files if file not in self.strays)
        return Dataset(files, dataclasses.replace(self.dataset.provenance, rows=len(files)))

    @cached_property
    def entries(self) -> list[Entry]:
        """The data, read once.

        Raises:
            DataError: a row does not fit, the theories of an entry cannot be brought into an order, or there are
                both theories and rows.
        """
        theories = [file for file in self.dataset.files if file.name.endswith(THEORY)]
        if not theories:
            entries = [_joined_entry(row) for row in self.dataset.rows]
            ids = unique_ids(entry.id for entry in entries)
            return [dataclasses.replace(entry, id=id) for id, entry in zip(ids, entries, strict=True)]
        for file in self.dataset.files:
            if file.kind in (JSONL, PARQUET):
                raise DataError(f"{file.label}: rows beside theories", "give either of them at a time")
        roots = [file for file in self.dataset.files if PurePosixPath(file.name).name == ROOT]
        strays: dict[DataFile, DataError] | None = {} if roots else None  # without any ROOT all theories are meant
        entries, misfits = list[Entry](), list[DataError]()
        for name, files in _by_entry([*theories, *roots]).items():
            try:
                entries.append(_read_entry(name, files, strays))
            except DataError as error:
                misfits.append(error)
        if strays:
            self.strays = frozenset(strays)
            shown = "; ".join(printable(stray.message) for stray in list(strays.values())[:SHOWN])
            more = f"; and {len(strays) - SHOWN} more" if len(strays) > SHOWN else ""
            logger.warning(
                "warning: %d theories that no ROOT reaches are left out, for they do not parse: %s%s",
                *(len(strays), shown, more),
            )
        raise_together(misfits)
        return [entry for entry in entries if entry.theories]

    def misfits(self) -> list[DataError]:
        """See ``Task.misfits``; what is wrong with theories is found all at once."""
        return [] if any(file.name.endswith(THEORY) for file in self.dataset.files) else super().misfits()

    def check_row(self, row: Row) -> None:
        """See ``DocumentTask.check_row``."""
        _joined_entry(row)

    def samples(self, tokenizer: Encoder, seed: int, limit: int | None) -> list[Sample]:
        """See ``Task.samples``; neither tokenizer nor seed plays a part.

        Raises:
            UserError: the data cannot be read, or does not fit.
        """
        return [
            Sample(
                id=entry.id,
                cell={},
                reference=entry.title,
                request=partial(Read, entry.text),
                score=reading_scores,
                document=entry.id,
                details={"theories": entry.theories, "bytes": len(entry.text.encode())},
            )
            for entry in self.entries[:limit]
        ]

    def taken_from_names(self) -> list[str]:
        """The names of the entries and the order of their theories."""
        return [f"{entry.id} {text_id(entry.text)}" for entry in self.entries]


def _by_entry(files: Sequence[DataFile]) -> dict[str, list[tuple[str, DataFile]]]:
    """Files with their paths below their entry, by the entry's name, sorted; only those that have theories.

    Raises:
        DataError: two of the directories or zips given have an entry of one name.
    """
    given: dict[Path, list[DataFile]] = {}
    for file in files:
        given.setdefault(_root(file), []).append(file)
    entries: dict[str, list[tuple[str, DataFile]]] = {}
    for root, members in given.items():
        found: dict[str, list[tuple[str, DataFile]]] = {}
        for (name, *below), file in _below_entries(root, members):
            found.setdefault(name, []).append(("/".join(below), file))
        for name, paths in found.items():
            if any(path.endswith(THEORY) for path, _ in paths):
                if name in entries:
                    first, second = entries[name][0][1], paths[0][1]
                    message = f"there are two entries {name}, one at {first.path} and one at {second.path}"
                    raise DataError(message, "give either of them at a time")
                entries[name] = paths
    return dict(sorted(entries.items()))


def _root(file: DataFile) -> Path:
    """The directory or zip that the file's name is below."""
    if file.member is not None:
        return file.path
    return Path(os.path.abspath(file.path)).parents[len(PurePosixPath(file.name).parts) - 1]


def _below_entries(root: Path, files: Sequence[DataFile]) -> list[tuple[tuple[str, ...], DataFile]]:
    """The parts of the files' paths, that of the entry first, sorted.

    Files at the top make one entry of all. But a theory that lies astray beside entries, which have a ROOT each, does
    not: it is an entry of its own.
    """
    paths = [(PurePosixPath(file.name).parts, file) for file in files]
    if any(ARCHIVE in parts[:-1] for parts, _ in paths):
        paths = [(parts[parts.index(ARCHIVE) + 1 :], file) for parts, file in paths if ARCHIVE in parts[:-1]]
    at_top = {parts[0] for parts, _ in paths if len(parts) == 1}
    with_root = {parts[0] for parts, _ in paths if len(parts) == 2 and parts[1] == ROOT}
    several = ROOT not in at_top and len(with_root) > 1
    if at_top:
        name = root.name.removesuffix(".zip")
        paths = [(parts if several and len(parts) > 1 else (name, *parts), file) for parts, file in paths]
    return sorted(paths, key=lambda path: path[0])


def _joined_entry(row: Row) -> Entry:
    if PurePosixPath(row.file).name == ROOT:
        raise DataError(f"{row.where} stands without theories", f"give a directory with {THEORY} files")
    named = next((field for field in ("entry", "id") if row.has(field)), None)
    name = row.text(named) if named else text_id(row.text("text"))
    title = row.text("title") if row.has("title") else name
    theories = len(row.texts("theories")) if row.has("theories") else 0
    return Entry(name, title, row.text("text"), theories)


def _read_entry(name: str, files: Sequence[tuple[str, DataFile]], strays: dict[DataFile, DataError] | None) -> Entry:
    """An entry; what is left out, see ``order_theories``, is added to ``strays``."""

    def leave_out(path: str, error: DataError) -> None:
        if strays is not None:
            strays[dict(files)[path]] = error

    sources = [_source(path, file) for path, file in files]
    theories = [source for source in sources if source.path.endswith(THEORY)]
    roots = [source for source in sources if not source.path.endswith(THEORY)]
    raise_together([root.unreadable for root in roots if root.unreadable])
    ordered = order_theories(name, theories, roots, None if strays is None else leave_out)
    return Entry(name, name, join_theories(ordered), len(ordered))


def _source(path: str, file: DataFile) -> TheoryFile:
    try:
        (row,) = file.rows()
    except DataError as error:
        return TheoryFile(path, "", file.label, error)
    return TheoryFile(path, row.text("text", blank=True), row.where)
