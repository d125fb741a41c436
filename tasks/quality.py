"""QuALITY: multiple choice on stories and articles of some 5000 words (Pang et al. 2022, arXiv 2112.08608).

The options are not shown: each is scored as what follows the question, as lm-evaluation-harness does for SCROLLS.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from famcli.task import Choose, Chosen, DataField, DataSchema, Encoder, MetricSpec, Scores, Weighted

from .documents import (
    Question,
    Questions,
    new_id,
    no_answers,
    reference_text,
    text_id,
    unique_ids,
)
from .hub import HubDataset
from .questions import QuestionTask
from .rows import Row
from .schemas import SCROLLS, read_by_schema

HUB = HubDataset(
    repo="emozilla/quality",
    revision="main",
    files=("data/{split}-*.parquet",),
    licence="CC BY 4.0 (questions); articles of Project Gutenberg, Slate and others under their own terms",
    citation="Pang et al. 2022, QuALITY: Question Answering with Long Input Texts, Yes!, arXiv 2112.08608",
)
ORIGINAL = "nyu-mll/quality"
MARKS = {"questions": ORIGINAL, "options": HUB.repo, "input": SCROLLS}
OPTIONS = 4

_INPUT = re.compile(
    r"(?P<question>.+?)\n\n ?\(A\) (?P<a>.+?)\n+ ?\(B\) (?P<b>.+?)\n+ ?\(C\) (?P<c>.+?)\n+ ?\(D\) (?P<d>.+?)\n{2,}"
    r"(?P<article>.+)",
    re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class ChoiceQuestion(Question):
    """A question with options.

    Attributes:
        options: their texts, white space made single spaces.
        gold: index of the right one.
        difficult: whether it is in the hard subset; ``None`` where the data does not say.
    """

    options: tuple[str, ...]
    gold: int
    difficult: bool | None


class Quality(QuestionTask[ChoiceQuestion]):
    """Multiple choice on long articles.

    ``accuracy`` takes the option with the greatest log-likelihood, ``accuracy_norm`` that with the greatest
    log-likelihood per character of the option, as lm-evaluation-harness; of equals the first. ``accuracy_hard`` is
    ``accuracy`` on the questions that readers in a hurry get wrong; it has no value where the data does not say which
    these are, as SCROLLS does not.
    """

    name = "quality"
    version = 1
    summary = "multiple choice on stories and articles, by the likelihood of each option"
    metrics = (MetricSpec("accuracy", paper=True), MetricSpec("accuracy_norm"), MetricSpec("accuracy_hard"))
    hub = HUB
    schema = DataSchema(
        fields=(
            DataField("article", "text", "the whole story; rows with the same one share its reading"),
            DataField("question", "text", "the question"),
            DataField("options", f"a list of {OPTIONS} texts", "the answers to choose from"),
            DataField("answer", "a whole number", f"which of them is right, from 0 to {OPTIONS - 1}"),
            DataField("hard", "true or false", "whether it counts in accuracy_hard", required=False),
        ),
        example={
            "article": "The ferry left at noon. Ines stayed behind, for she had lost her ticket in the snow.",
            "question": "Why did Ines stay behind?",
            "options": ["She was ill.", "She had lost her ticket.", "It was too late.", "She hated the sea."],
            "answer": 1,
        },
        also="articles as the authors publish them, rows as SCROLLS has them",
    )

    def read(self, rows: Iterator[Row]) -> Questions[ChoiceQuestion]:
        """See ``QuestionTask.read``: articles of the original release, rows of its mirror on the hub, or of SCROLLS."""
        readers = {ORIGINAL: read_articles, HUB.repo: read_rows, SCROLLS: read_scrolls_rows}
        return read_by_schema(rows, MARKS, readers)

    def request(self, question: ChoiceQuestion, tokenizer: Encoder) -> Choose:
        """The options, each after a space."""
        return Choose(self.prompt(question), tuple(f" {option}" for option in question.options))

    def score(self, question: ChoiceQuestion, answer: Chosen) -> Scores:
        """See the class."""
        by_character = [
            total / len(option) for total, option in zip(answer.log_likelihoods, question.options, strict=True)
        ]
        right = float(answer.best == question.gold)
        return {
            "accuracy": right,
            "accuracy_norm": float(by_character.index(max(by_character)) == question.gold),
            "accuracy_hard": Weighted(right, float(question.difficult is True)),
        }


def read_articles(rows: Iterator[Row]) -> Questions[ChoiceQuestion]:
    """Articles ``{article_id, article, questions[...]}`` of the original release, ``gold_label`` counted from 1.

    An article is in the release once for each writer of questions; it is kept once.

    Raises:
        DataError: a row does not fit, has no right answers (as the test set), or repeats a question.
    """
    articles: dict[str, str] = {}
    seen: dict[str, str] = {}
    asked = []
    for row in rows:
        article, name = row.text("article"), row.text("article_id")
        if articles.setdefault(name, article) != article:  # another edition of the text is another document
            name = f"{name}-{text_id(article)}"
            articles[name] = article
        for question in row.objects("questions"):
            hard = _index(question, "difficult", 0, 2) == 1 if question.has("difficult") else None
            gold = _index(question, "gold_label", 1, OPTIONS)
            asked.append(_question(question, new_id(question, "question_unique_id", seen), name, gold, hard))
    return Questions(articles, asked)


def read_rows(rows: Iterator[Row]) -> Questions[ChoiceQuestion]:
    """Rows ``{article, question, options, answer, hard}`` of the mirror on the hub, ``answer`` counted from 0.

    Raises:
        DataError: a row does not fit, or has no right answer.
    """
    articles: dict[str, str] = {}
    asked = []
    for row in rows:
        article = row.text("article")
        name = text_id(article)
        articles.setdefault(name, article)
        hard = row.flag("hard") if row.has("hard") else None
        wanted = f"{name}/{text_id(row.text('question'))}"
        asked.append(_question(row, wanted, name, _index(row, "answer", 0, OPTIONS), hard))
    ids = unique_ids(question.id for question in asked)
    return Questions(articles, [replace(question, id=name) for name, question in zip(ids, asked, strict=True)])


def read_scrolls_rows(rows: Iterator[Row]) -> Questions[ChoiceQuestion]:
    """Rows ``{id, pid, input, output}`` of SCROLLS: question, blank line, options (A) to (D), two blank lines, article.

    Newlines before the article are left out: some are the last option's, and all questions are to share the article.

    Raises:
        DataError: a row does not fit, has no right answer, or one that is none of the options.
    """
    articles: dict[str, str] = {}
    seen: dict[str, str] = {}
    asked = []
    for row in rows:
        found = _INPUT.fullmatch(row.text("input"))
        if not found:
            row.fail("input", "must be a question, a blank line, options (A) to (D), two blank lines, an article")
        options = tuple(_single_spaces(found[letter]) for letter in "abcd")
        right = _single_spaces(reference_text(row, "output"))
        if right not in options:
            row.fail("output", f"is none of the options: {right[:80]}")
        name = text_id(found["article"])
        articles.setdefault(name, found["article"])
        asked.append(
            ChoiceQuestion(
                id=new_id(row, "id", seen),
                document=name,
                text=found["question"],
                references=(right,),
                options=options,
                gold=options.index(right),
                difficult=None,
            )
        )
    return Questions(articles, asked)


def _question(row: Row, name: str, document: str, gold: int, difficult: bool | None) -> ChoiceQuestion:
    """The question of a row with fields ``question`` and ``options``."""
    options = tuple(_single_spaces(option) for option in row.texts("options"))
    if len(options) != OPTIONS:
        row.fail("options", f"must hold {OPTIONS} texts, not {len(options)}")
    return ChoiceQuestion(
        id=name,
        document=document,
        text=row.text("question"),
        references=(options[gold],),
        details={} if difficult is None else {"difficult": int(difficult)},
        options=options,
        gold=gold,
        difficult=difficult,
    )


def _index(row: Row, name: str, first: int, choices: int) -> int:
    """The field's number less ``first``; raises ``DataError`` where it is missing or not one of ``choices``."""
    if not row.has(name):
        raise no_answers(row, name)
    number = row.integer(name) - first
    if not 0 <= number < choices:
        row.fail(name, f"must be from {first} to {first + choices - 1}, not {number + first}")
    return number


def _single_spaces(text: str) -> str:
    """Options of the release end with spaces here and there, which would count as characters and cost likelihood."""
    return " ".join(text.split())
