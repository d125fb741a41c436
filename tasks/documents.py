"""What the tasks on documents share: their data, their options, their prompts, and the schema of SCROLLS."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, count
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar, get_args

from famcli.errors import UserError
from famcli.task import DataError, Encoder, Prompt, Task, option

from .choices import one_of
from .hub import HubDataset, fetch
from .rows import Row
from .sources import SAMPLE, Dataset, no_hub_data, open_data
from .splits import ALL, parse_split

Position = Literal["after", "before", "both"]
POSITIONS: tuple[Position, ...] = get_args(Position)

QUESTION = "Question: {question}"
CUE = "Answer:"
QUESTION_TEMPLATE = "{document}\n\n" + QUESTION + "\n" + CUE
"""The prompt with the question after the document, as lm-evaluation-harness words it for SCROLLS."""

BUDGET_TEXT = (
    "Captain Whitlock's younger brother kept the sealed letter until their ship reached Saint-Malo in June 1843, "
    "because he was afraid that someone aboard would read it and tell her father about the money. "
)
"""Made-up English with the names, numbers and word lengths of an answer, only for counting a tokenizer's tokens."""


def parse_data(text: str) -> str:
    """What ``sources.open_data`` takes; empty for the fetched copy."""
    return text.strip()


def parse_position(text: str) -> Position:
    """Where the question stands."""
    return one_of(POSITIONS, text)


@dataclass(frozen=True)
class DocumentOptions:
    """Options of a task with data."""

    data: str = option("", "sample, hub, or paths with commas between; empty: what was fetched before", parse_data)
    split: str = option(
        "", "train, validation, test or all, where the data has several; empty: the task's own", parse_split, added=True
    )


def parse_flag(text: str) -> bool:
    """``true`` or ``false``."""
    if text.strip().lower() not in ("true", "false"):
        raise ValueError("true or false")
    return text.strip().lower() == "true"


def skip_blank_lines() -> bool:
    """The option of a task whose answers are one line."""
    return option("false", "whether blank lines before an answer are no end of it", parse_flag, added=True)


class DocumentTask(Task):
    """A task on the rows of a data set.

    Attributes:
        hub: its data on the hub, with licence and citation; ``None`` where there is none.
        texts: patterns of the names of plain text files that are rows.
        texts_instead: they are only where there are no other rows: a README.txt beside rows is none.
    """

    hub: ClassVar[HubDataset | None] = None
    texts: ClassVar[tuple[str, ...]] = ()
    texts_instead: ClassVar[bool] = False
    Options = DocumentOptions
    options: DocumentOptions
    asked_split: str | None = None
    """The split that was asked for: an option of that name may have a default."""

    def __init__(self, options: DocumentOptions) -> None:
        super().__init__(options)
        if self.hub and options.split and options.split != ALL:
            self.hub = dataclasses.replace(self.hub, split=options.split)  # type: ignore[misc]  # an option chooses it

    @classmethod
    def from_options(cls, given: Mapping[str, str]) -> Self:
        """See ``Task.from_options``."""
        task = super().from_options(given)
        task.asked_split = task.options.split if given.get("split") else None
        return task

    @cached_property
    def dataset(self) -> Dataset:
        """The files of rows, opened once; what a task makes of them it keeps in a ``cached_property`` of its own.

        Raises:
            UserError: the option ``data`` names nothing that can be read.
        """
        data, instead = self.options.data or None, self.texts_instead
        return open_data(self.name, data, self.hub, self.texts, self.asked_split, texts_instead=instead)

    def provenance(self) -> Mapping[str, Any]:
        """See ``Task.provenance``: the fields of ``sources.Provenance``.

        Raises:
            UserError: the data cannot be read, or does not fit.
        """
        facts = self.dataset.facts()
        if taken := self.taken_from_names():
            facts["sha256"] = hashlib.sha256("\n".join((facts["sha256"], *taken)).encode()).hexdigest()
        return facts

    def data(self) -> Dataset:
        """See ``Task.data``."""
        return self.dataset

    def check_split(self) -> None:
        """See ``Task.check_split``."""
        if not self.dataset.has_splits and self.options.split != ALL:
            name = self.dataset.provenance.name
            where = f"the built-in sample of {name}" if self.dataset.provenance.source == SAMPLE else name
            raise UserError(
                f"task {self.name}: there is no split {self.options.split} in {where}: no name of a file or folder "
                "there says of which split it is",
                "leave out --split to read all of it",
            )

    def fetch(self, split: str | None) -> dict[str, Any]:
        """See ``Task.fetch``."""
        if self.hub is None:
            raise no_hub_data(self.name, self.texts)
        hub = dataclasses.replace(self.hub, split=split) if split else self.hub
        stored = fetch(hub)
        return {
            "split": hub.split,
            "repo": hub.repo,
            "revision": stored.commit,
            "licence": hub.licence,
            "directory": str(stored.directory),
            "rows": stored.rows,
            "bytes": sum(file.bytes for file in stored.files.values()),
            "files": {name: dataclasses.asdict(file) for name, file in stored.files.items()},
        }

    def misfits(self) -> list[DataError]:
        """See ``Task.misfits``."""
        found: list[DataError] = []
        for row in self.dataset.readable_rows(found.append):
            try:
                self.check_row(row)
            except DataError as error:
                found.append(error)
        return found

    def check_row(self, row: Row) -> None:
        """Raises ``DataError`` where a row by itself does not fit; a task that does not say lets it pass."""

    def taken_from_names(self) -> Sequence[str]:
        """What the task takes from the names of files and folders: the same content under other names is other data."""
        return ()


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question about a document.

    Attributes:
        id: unique in the data.
        document: name of the document.
        text: the question.
        references: the right answers, at least one.
        details: further facts for the run record.
    """

    id: str
    document: str
    text: str
    references: tuple[str, ...]
    details: Mapping[str, int | str | float] = field(default_factory=dict)


Q = TypeVar("Q", bound=Question)
T = TypeVar("T")


@dataclass(frozen=True)
class Questions(Generic[Q]):
    """The documents by name, each kept once, and the questions in the order of the data."""

    documents: Mapping[str, str]
    questions: Sequence[Q]


def prompt(document: str, question: str, cue: str, position: Position) -> Prompt:
    """A document and a question about it; the document is a segment of its own, so that all questions can share it.

    Args:
        document: exactly as it is in the data.
        question: what is asked, without blank lines around it.
        cue: the words right before the answer.
        position: ``after`` gives document, blank line, question, newline, cue; ``before`` question, blank line,
            document, blank line, cue; ``both`` is ``after`` behind the question and a blank line.
    """
    if position == "after":
        return Prompt((document, f"\n\n{question}\n{cue}"), document=0)
    end = f"\n\n{cue}" if position == "before" else f"\n\n{question}\n{cue}"
    return Prompt((f"{question}\n\n", document, end), document=1)


def generation_budget(tokenizer: Encoder, characters: int) -> int:
    """Tokens that this number of ``characters`` of English takes: a budget that is equally long for every tokenizer.

    It depends neither on the data nor on the right answers. A byte tokenizer gets ``characters`` tokens.
    """
    repeated = BUDGET_TEXT * -(-characters // len(BUDGET_TEXT))
    return len(tokenizer.encode(repeated[:characters]))


def text_id(text: str) -> str:
    """A stable name for a text that has none: 16 hex digits of its sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def unique_ids(wanted: Iterable[str]) -> list[str]:
    """The ids, with ``-2``, ``-3`` ... behind one that is taken: some data sets ask a question twice."""
    found: dict[str, None] = {}
    for name in wanted:
        candidates = chain([name], (f"{name}-{number}" for number in count(2)))
        found[next(candidate for candidate in candidates if candidate not in found)] = None
    return list(found)


def new_id(row: Row, name: str, seen: dict[str, str]) -> str:
    """The field's id.

    Args:
        row: of the question.
        name: the field.
        seen: where each id so far was; the new one is added.

    Raises:
        DataError: it is missing, or another question has it.
    """
    found = row.text(name)
    if found in seen:
        row.fail(name, f"is '{found}' as in {seen[found]}: no two questions may have one id")
    seen[found] = row.where
    return found


def split_input(row: Row) -> tuple[str, str]:
    """The ``input`` of a SCROLLS row: what is asked, and after the first blank line the document.

    Raises:
        DataError: there is no blank line, or nothing on one side of it.
    """
    asked, _, document = row.text("input").partition("\n\n")
    if not asked.strip() or not document.strip():
        row.fail("input", "must be a question, a blank line and a document")
    return asked, document


def read_scrolls(rows: Iterable[Row]) -> Questions[Question]:
    """The questions of rows ``{id, pid, input, output}`` as SCROLLS (Shaham et al. 2022, arXiv 2201.03533) has them.

    There a question with several reference answers has a row for each of them, with the same ``id``; so SCROLLS's
    numbers of rows (5878 of NarrativeQA, 1726 of Qasper, which TransformerFAM quotes) count reference answers. They are
    one question here, with the number of rows in its details. A document has no name in SCROLLS: it is known by its
    text.

    Raises:
        DataError: a row does not fit, has no answer, or has the ``id`` of another question.
    """
    documents: dict[str, str] = {}
    asked: dict[str, tuple[str, str, str]] = {}
    references: dict[str, list[str]] = {}
    for row in rows:
        name = row.text("id")
        question, document = split_input(row)
        place = text_id(document)
        documents.setdefault(place, document)
        first = asked.setdefault(name, (place, question, row.where))
        if first[:2] != (place, question):
            row.fail("id", f"is '{name}' as in {first[2]}, but the input is another")
        references.setdefault(name, []).append(reference_text(row, "output"))
    questions = [
        Question(
            id=name,
            document=place,
            text=question,
            references=tuple(references[name]),
            details={"rows": len(references[name])},
        )
        for name, (place, question, _) in asked.items()
    ]
    return Questions(documents, questions)


def reference_text(row: Row, name: str) -> str:
    """The field with the right answer.

    Raises:
        DataError: it is missing, as in the test splits whose answers are not public, or no text.
    """
    if not row.has(name) or row.optional(name) == "":
        raise no_answers(row, name)
    return row.text(name)


def no_answers(row: Row, name: str) -> DataError:
    """The error for a row without the right answer."""
    return DataError(
        f"{row.where}: field '{row.prefix}{name}' is missing: a split without right answers cannot be scored",
        "use the validation split",
    )
