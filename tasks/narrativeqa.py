"""NarrativeQA: questions about whole books and film scripts (Kočiský et al. 2018, arXiv 1712.07040).

The model reads the whole story, exactly as it is in the data, with Project Gutenberg's header and licence where it has
them. The setting with summaries, which other harnesses call NarrativeQA too, is not this task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from famcli.metrics.text_overlap import rouge_l, sentence_bleu, token_f1
from famcli.task import DataError, Encoder, Generate, Generated, MetricSpec, Scores

from .documents import (
    Question,
    Questions,
    generation_budget,
    no_answers,
    read_scrolls,
    text_id,
    unique_ids,
)
from .hub import HubDataset
from .questions import LineOptions, QuestionTask
from .rows import Row
from .schemas import LONGBENCH, LONGBENCH_MARKS, QUESTION_SCHEMA, SCROLLS, read_by_schema, read_longbench

HUB = HubDataset(
    repo="deepmind/narrativeqa",
    revision="2e643e7363944af1c33a652d1c87320d0871c4e4",
    files=("data/{split}-*.parquet",),
    licence="Apache-2.0; stories of Project Gutenberg and film script sites, summaries of Wikipedia (CC BY-SA)",
    citation="Kočiský et al. 2018, The NarrativeQA Reading Comprehension Challenge, arXiv 1712.07040",
)
MARKS = {"document": HUB.repo, "question": HUB.repo, "text": HUB.repo, "input": SCROLLS, **LONGBENCH_MARKS}

ANSWER_CHARACTERS = 256
"""Generation budget in characters of English: about 60 tokens of a subword tokenizer, ZeroSCROLLS allows 64."""


class NarrativeQA(QuestionTask[Question]):
    """Questions about whole stories, answered in free text.

    ``bleu_1`` and ``bleu_4`` take all references together and are means over sentences, the other scores are the best
    over the references. ROUGE-L has no stemmer.
    """

    name = "narrativeqa"
    version = 1
    summary = "questions about whole books and film scripts, answered in free text"
    metrics = (MetricSpec("rouge_l", paper=True), MetricSpec("f1"), MetricSpec("bleu_1"), MetricSpec("bleu_4"))
    hub = HUB
    schema = QUESTION_SCHEMA
    Options = LineOptions
    options: LineOptions

    def read(self, rows: Iterator[Row]) -> Questions[Question]:
        """See ``QuestionTask.read``: rows of the hub's schema, or of SCROLLS."""
        return self._read(rows, read_rows)

    def check_row(self, row: Row) -> None:
        """See ``DocumentTask.check_row``; a row may leave its story to another one."""
        self._read(iter([row]), _check_rows)

    def _read(self, rows: Iterator[Row], of_hub: Callable[[Iterator[Row]], Questions[Question]]) -> Questions[Question]:
        longbench = partial(read_longbench, self.name)
        readers: dict[str, Callable[[Iterator[Row]], Questions[Question]]] = {
            HUB.repo: of_hub,
            SCROLLS: read_scrolls,
            LONGBENCH: longbench,
        }
        return read_by_schema(map(_not_released, rows), MARKS, readers)

    def request(self, question: Question, tokenizer: Encoder) -> Generate:
        """One line."""
        return Generate(
            self.prompt(question),
            generation_budget(tokenizer, ANSWER_CHARACTERS),
            ("\n",),
            self.options.skip_blank_lines,
        )

    def score(self, question: Question, answer: Generated) -> Scores:
        """See the class."""
        return {
            "rouge_l": _best(rouge_l, answer.text, question),
            "f1": _best(token_f1, answer.text, question),
            "bleu_1": sentence_bleu(answer.text, question.references, max_order=1),
            "bleu_4": sentence_bleu(answer.text, question.references, max_order=4),
        }


def _check_rows(rows: Iterator[Row]) -> Questions[Question]:
    for row in rows:
        _read_row(row)
    return Questions({}, [])


def _not_released(row: Row) -> Row:
    """The row, if it is not of the tables that the authors publish, which lack the stories."""
    if "document_id" in row.fields and "document" not in row.fields:
        raise DataError(
            f"{row.where}: this is a table of NarrativeQA's release (documents.csv, qaps.csv, summaries.csv), and the "
            "stories are not in it",
            f"--data hub has them ({HUB.repo}); or give rows with 'document' (id, text), 'question', 'answers'",
        )
    return row


def _best(measure: Callable[[str, str], float], prediction: str, question: Question) -> float:
    return max(measure(prediction, reference) for reference in question.references)


@dataclass(frozen=True)
class _Asked:
    """A question and the place of its row."""

    document: str
    question: str
    references: tuple[str, ...]
    has_story: bool
    where: str


def read_rows(rows: Iterator[Row]) -> Questions[Question]:
    """Rows ``{document, question, answers}`` of the hub's schema, the story kept once for all its questions.

    A row whose ``document.text`` is empty takes the story from another row with the same ``document.id``, in any of the
    files given. Rows that are a ``document`` by itself, without a question, are read for their stories alone. In the
    details of a question, ``story_from`` names the row that its story was taken from where it is another one.

    Raises:
        DataError: a row does not fit; a story is nowhere, or one document has two; a question is asked both with and
            without its story, so that it would count twice.
    """
    stories: dict[str, tuple[str, str]] = {}
    by_question: dict[tuple[str, str, tuple[str, ...]], list[_Asked]] = {}
    ordered: list[_Asked] = []
    for row in rows:
        document, asked = _read_row(row)
        name, story = document.text("id"), document.text("text", blank=True)
        if story.strip():
            known, where = stories.setdefault(name, (story, row.where))
            if known != story:
                document.fail("text", f"is another story than that of the same document in {where}")
        if asked:
            same = by_question.setdefault((name, asked.question, asked.references), [])
            same.append(asked)
            if same[0].has_story != asked.has_story:
                raise DataError(
                    f"{asked.where}: the question is also in {same[0].where}, once with and once without the story",
                    "give only one of the two files",
                )
            ordered.append(asked)
    _check(ordered, stories)
    ids = unique_ids(f"{asked.document}/{text_id(asked.question)}" for asked in ordered)
    return Questions(
        {name: story for name, (story, _) in stories.items()},
        [
            Question(
                id=name,
                document=asked.document,
                text=asked.question,
                references=asked.references,
                details={} if asked.has_story else {"story_from": stories[asked.document][1]},
            )
            for name, asked in zip(ids, ordered, strict=True)
        ],
    )


def _read_row(row: Row) -> tuple[Row, _Asked | None]:
    """The document of a row, and what it asks about it, if it is not a story by itself."""
    asks = "document" in row.fields or "question" in row.fields
    document = row.object("document") if asks else row
    name, story = document.text("id"), document.text("text", blank=True)
    if not asks:
        return document, None
    return document, _Asked(name, row.text("question.text"), _answers(row), bool(story.strip()), row.where)


def _answers(row: Row) -> tuple[str, ...]:
    answers = row.objects("answers") if row.has("answers") else []
    if not answers:
        raise no_answers(row, "answers")
    return tuple(answer.text("text") for answer in answers)


def _check(asked: list[_Asked], stories: dict[str, tuple[str, str]]) -> None:
    """Raises ``DataError`` where there is nothing to ask, or nothing to read."""
    if not asked:
        where = next(iter(stories.values()))[1] if stories else "the data"
        raise DataError(f"{where}: stories without questions", "give the file with the questions too")
    lacking = dict.fromkeys(one.document for one in asked if one.document not in stories)
    if lacking:
        first = next(one for one in asked if one.document in lacking)
        documents = len(dict.fromkeys(one.document for one in asked))
        raise DataError(
            f"{first.where}: field 'document.text' is empty, and no other row has the story of document "
            f"{first.document}; {len(lacking)} of {documents} documents have none",
            "questions on summaries alone are not this task: give only the files of questions whose stories are there",
        )
