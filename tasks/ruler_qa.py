"""RULER's questions about documents: SQuAD's or HotpotQA's, the right documents among others of the same data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, cycle

import numpy as np

from famcli.task import DataError

from .drawing import Chance
from .pieces import Ids
from .rows import Row
from .ruler_texts import Made, Texts

SQUAD, HOTPOT = "qa_1", "qa_2"
_ASK = (
    "Answer the question based on the given documents. Only give me the answer and do not output any other words.\n\n"
)
QA = (
    f"{_ASK}The following are given documents.",
    "\n\n" + _ASK + "Question: {query} Answer:",
)
DOCUMENT = "\n\nDocument {number}:\n"


@dataclass(frozen=True)
class Question:
    """A question about documents.

    Attributes:
        query: its text.
        answers: any of them is right.
        gold: the documents that it is about.
        near: others of the same article, which come before those of other articles.
    """

    query: str
    answers: tuple[str, ...]
    gold: tuple[str, ...]
    near: tuple[str, ...] = ()


@dataclass(frozen=True)
class Questions:
    """Questions of one kind, and all documents, each once."""

    kind: str
    questions: Sequence[Question]
    documents: Sequence[str]


def read_questions(rows: Iterable[Row]) -> Questions:
    """Rows of SQuAD (v1 or v2) or HotpotQA, as the hub has them or as they are published, or one's own.

    Raises:
        DataError: a row does not fit, is of another data set than the first, or no question has an answer.
    """
    kind, where = "", ""
    read: list[tuple[str, Question]] = []
    articles: dict[str, dict[str, None]] = {}
    for row in rows:
        of = kind_of(row)
        if kind and of != kind:
            raise DataError(f"{row.where}: this is a row of {_NAMES[of]}, and {where} one of {_NAMES[kind]}")
        kind, where = of, where or row.where
        questions, documents = read_row(row)
        title = row.text("title") if row.has("title") else ""
        articles.setdefault(title, {}).update(dict.fromkeys(documents))
        read += [(title, question) for question in questions if question.answers]
    if not read:
        raise DataError(f"{where}: no question has an answer")
    near = {title: tuple(article) for title, article in articles.items() if title}
    return Questions(
        kind,
        [replace(question, near=near.get(title, ())) for title, question in read],
        sorted({document for article in articles.values() for document in article}),
    )


_NAMES = {SQUAD: "SQuAD", HOTPOT: "HotpotQA"}


def kind_of(row: Row) -> str:
    """Of whose schema a row is."""
    return SQUAD if row.has("paragraphs") or isinstance(row.optional("context"), str) else HOTPOT


def read_row(row: Row) -> tuple[list[Question], list[str]]:
    """The questions of a row, those without an answer as well, and its documents.

    Raises:
        DataError: it does not fit.
    """
    if row.has("paragraphs"):
        paragraphs = [(paragraph.text("context"), paragraph.objects("qas")) for paragraph in row.objects("paragraphs")]
        questions = [
            Question(asked.text("question"), _texts(asked), (context,))
            for context, several in paragraphs
            for asked in several
        ]
        return questions, [context for context, _ in paragraphs]
    if kind_of(row) == SQUAD:
        context = row.text("context")
        return [Question(row.text("question"), _texts(row), (context,))], [context]
    documents = _paragraphs(row)
    return [Question(row.text("question"), (row.text("answer"),), tuple(documents))], documents


def _texts(row: Row) -> tuple[str, ...]:
    """Answers as a list of texts, as the hub's object of lists, or as published, a list of objects."""
    answers = row.optional("answers")
    if isinstance(answers, Mapping):
        return tuple(row.texts("answers.text"))
    if isinstance(answers, list) and answers and isinstance(answers[0], Mapping):
        return tuple(answer.text("text") for answer in row.objects("answers"))
    return tuple(row.texts("answers"))


def _paragraphs(row: Row) -> list[str]:
    """HotpotQA's: the title, and behind it the sentences."""
    if isinstance(row.optional("context"), list):
        pairs = row.items("context")
        if not all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], list) for pair in pairs):
            row.fail("context", "must be a list of titles, each with a list of sentences")
        rows = [
            Row({"title": p[0], "sentences": p[1]}, row.where, row.file, f"context[{n}].") for n, p in enumerate(pairs)
        ]
    else:
        rows = row.objects("context")
    return [f"{one.text('title')}\n{''.join(one.texts('sentences', blank=True))}" for one in rows]


def make(texts: Texts, chance: Chance, data: Questions, question: Question) -> Made:
    """The documents of a question among others, in random order, as many as there is room for.

    Where there are too few, they come again, as in the official generator.
    """
    gold = [texts.ids(document) for document in question.gold]
    return Made(
        QA[0],
        QA[1].format(query=question.query),
        question.answers,
        partial(_fill, texts, chance.below(2**64), data, question),
        sum(map(len, gold)) + _numbers(texts, len(gold)),
    )


def _fill(texts: Texts, seed: int, data: Questions, question: Question, room: int) -> list[Ids]:
    chance = Chance(seed)
    near = [document for document in question.near if document not in question.gold]
    known = {*question.gold, *near}
    order = [*chance.shuffled(near), *chance.shuffled([one for one in data.documents if one not in known])]
    taken = [texts.ids(document) for document in question.gold]
    room -= sum(map(len, taken)) + _numbers(texts, len(taken))
    for document in chain(order, cycle(data.documents)):
        ids = texts.ids(document)
        needed = len(ids) + len(_number(texts, len(taken) + 1))
        if needed > room:
            break
        taken.append(ids)
        room -= needed
    return [np.concatenate((_number(texts, n), ids)) for n, ids in enumerate(chance.shuffled(taken), 1)]


def _number(texts: Texts, number: int) -> Ids:
    return texts.ids(DOCUMENT.format(number=number))


def _numbers(texts: Texts, count: int) -> int:
    return sum(len(_number(texts, number)) for number in range(1, count + 1))
