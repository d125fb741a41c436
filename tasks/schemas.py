"""In whose schema rows are: the hub's, SCROLLS's, LongBench's, or one that is refused with what to do instead."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import TypeVar

from famcli.task import DataError, DataField, DataSchema

from .documents import Question, Questions, no_answers, text_id, unique_ids
from .rows import Row

logger = logging.getLogger(__name__)

SCROLLS, LONGBENCH = "SCROLLS", "LongBench"
LONGBENCH_MARKS = {"context": LONGBENCH}
T = TypeVar("T")

QUESTION_SCHEMA = DataSchema(
    fields=(
        DataField("context", "text", "the whole story or paper; rows with the same one share its reading"),
        DataField("input", "text", "the question"),
        DataField("answers", "a list of texts", "the right answers, at least one; the best match counts"),
        DataField("_id", "text", "a name for the question, no two alike", required=False),
    ),
    example={
        "context": "The ferry left at noon. Ines stayed behind, for she had lost her ticket in the snow.",
        "input": "Why did Ines stay behind?",
        "answers": ["She had lost her ticket.", "because her ticket was lost"],
    },
    also="rows as the hub has them, as SCROLLS and as LongBench has them",
)
"""Of tasks that ask questions about documents and are answered in free text; LongBench spells it so."""

_IN_SCROLLS = 'write a row a question: {"id", "pid", "input": QUESTION, blank line and DOCUMENT, "output": ANSWER}'


def read_by_schema(
    rows: Iterator[Row], marks: Mapping[str, str], readers: Mapping[str, Callable[[Iterator[Row]], T]]
) -> T:
    """What the reader for the schema of the rows makes of them; all rows must have the first one's schema.

    Args:
        rows: of one source, at least one.
        marks: schema by a field that only its rows have.
        readers: by schema.

    Raises:
        DataError: a row has no field of ``marks``, or has one of another schema.
    """
    marked = _with_schema(rows, marks)
    schema, first = next(marked)
    return readers[schema](chain([first], (row for _, row in marked)))


def _with_schema(rows: Iterator[Row], marks: Mapping[str, str]) -> Iterator[tuple[str, Row]]:
    """Each row with the name of its schema."""
    schema, where = "", ""
    for row in rows:
        _refuse_others(row, LONGBENCH in marks.values())
        found = {marks[mark]: mark for mark in marks if mark in row.fields}
        if LONGBENCH in found:
            found.pop(SCROLLS, None)  # which has the field 'input' as well
        if not found:
            known = " or ".join(f"'{mark}'" for mark, name in marks.items() if not schema or name == schema)
            raise DataError(f"{row.where}: field {known} is missing")
        if len(found) > 1:
            fields = " and ".join(f"'{mark}' ({name})" for name, mark in found.items())
            raise DataError(f"{row.where}: has fields of several schemas: {fields}")
        if not schema:
            schema, where = next(iter(found)), row.where
        if schema not in found:
            name, mark = next(iter(found.items()))
            raise DataError(
                f"{row.where}: field '{mark}' is of the schema of {name}, but {where} has that of {schema}",
                "give files of one schema at a time",
            )
        yield schema, row


def _refuse_others(row: Row, longbench: bool) -> None:
    """Raises ``DataError`` for rows of other collections, which ask otherwise; of ``longbench`` too, if it has none."""
    if not longbench and row.fields.keys() >= {"context", "input", "answers"}:
        raise DataError(f"{row.where}: this is a row of LongBench, which does not have this task", "--data hub has it")
    if "instructions" in row.fields and "outputs" in row.fields:
        raise DataError(f"{row.where}: this is a row of L-Eval, which famcli does not read", _IN_SCROLLS)
    if "choice_A" in row.fields:
        raise DataError(
            f"{row.where}: this is a row of LongBench v2, which does not have this task",
            "--task longbench2 asks its questions; --data hub has the rows of this task",
        )


def read_longbench(dataset: str, rows: Iterator[Row]) -> Questions[Question]:
    """The questions of rows ``{_id, dataset, context, input, answers}`` as LongBench (Bai et al. 2023) has them.

    A file may hold rows of many data sets: those of others are left out, with a warning. A document is known by its
    text.

    Args:
        dataset: whose rows are read; a row that does not say is one of them.
        rows: all of them.

    Raises:
        DataError: a row does not fit or has no answer, or none is of ``dataset``.
    """
    documents: dict[str, str] = {}
    asked: list[Question] = []
    others: Counter[str] = Counter()
    where = ""
    for row in rows:
        where = where or row.where
        if row.has("dataset") and (of := row.text("dataset").removesuffix("_e")) != dataset:
            others[of] += 1
            continue
        document, question = row.text("context"), row.text("input")
        answers = row.texts("answers") if row.has("answers") else []
        if not answers:
            raise no_answers(row, "answers")
        place = text_id(document)
        documents.setdefault(place, document)
        name = row.text("_id") if row.has("_id") else f"{place}/{text_id(question)}"
        asked.append(Question(id=name, document=place, text=question, references=tuple(answers)))
    names = ", ".join(f"{count} of {name}" for name, count in others.most_common(5))
    if not asked:
        raise DataError(f"{where}: these are rows of LongBench, and none is of {dataset}: {names}")
    if others:
        logger.warning("warning: %d rows of LongBench are of other tasks than %s: %s", others.total(), dataset, names)
    ids = unique_ids(question.id for question in asked)
    found = [Question(**{**vars(one), "id": name}) for one, name in zip(asked, ids, strict=True)]
    return Questions(documents, found)
