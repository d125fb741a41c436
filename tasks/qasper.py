"""Qasper: questions about scientific papers (Dasigi et al. 2021, arXiv 2105.03011).

The whole paper is read: of the hub's rows title, abstract and sections, separated by blank lines, the sections as
SCROLLS has them (a line with the section's name, then a line for each paragraph); of SCROLLS's rows what they have,
which is the sections alone. TransformerFAM evaluates on SCROLLS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from famcli.metrics.text_overlap import rouge_l, token_f1
from famcli.task import Encoder, Generate, Generated, MetricSpec, Scores, Weighted

from .documents import (
    Question,
    Questions,
    generation_budget,
    new_id,
    no_answers,
    read_scrolls,
)
from .hub import HubDataset
from .questions import LineOptions, QuestionTask
from .rows import Row
from .schemas import LONGBENCH, LONGBENCH_MARKS, QUESTION_SCHEMA, SCROLLS, read_by_schema, read_longbench

HUB = HubDataset(
    repo="allenai/qasper",
    revision="refs/convert/parquet",
    files=("qasper/{split}/*.parquet",),
    licence="CC BY 4.0",
    citation=(
        "Dasigi et al. 2021, A Dataset of Information-Seeking Questions and Answers Anchored in Research Papers, "
        "arXiv 2105.03011"
    ),
)
MARKS = {"qas": HUB.repo, "full_text": HUB.repo, "input": SCROLLS, **LONGBENCH_MARKS}

EXTRACTIVE, ABSTRACTIVE, BOOLEAN, NONE = KINDS = ("extractive", "abstractive", "boolean", "none")
"""The kinds of reference answers, as the official evaluator calls them; ``none`` says the paper has no answer."""

ANSWER_CHARACTERS = 512
"""Generation budget in characters of English: about 120 tokens of a subword tokenizer, LongBench allows 128."""


@dataclass(frozen=True, kw_only=True)
class PaperQuestion(Question):
    """A question about a paper.

    Attributes:
        kinds: the kind of each reference, in their order; ``None`` where the data does not say.
    """

    kinds: tuple[str | None, ...]


class Qasper(QuestionTask[PaperQuestion]):
    """Questions about whole papers, answered in free text.

    ``f1`` is the official Answer-F1: the best over the annotators, mean over the questions. The F1 of a kind is the
    mean over the questions whose best reference, of equals the first, is of that kind; SCROLLS does not have the kinds,
    so these four have no value there. That kind hangs on the answer; the ``answer_type`` in a question's details does
    not: it is the kind that most annotators gave, of equals the first. As in the official evaluator, an empty answer is
    wrong even where the paper has no answer; lm-evaluation-harness takes it for "Unanswerable".
    """

    name = "qasper"
    version = 1
    summary = "questions about whole scientific papers, answered in free text"
    metrics = (MetricSpec("rouge_l", paper=True), MetricSpec("f1"), *(MetricSpec(f"f1_{kind}") for kind in KINDS))
    hub = HUB
    schema = QUESTION_SCHEMA
    Options = LineOptions
    options: LineOptions

    def read(self, rows: Iterator[Row]) -> Questions[PaperQuestion]:
        """See ``QuestionTask.read``: papers of the hub's schema, or rows of SCROLLS."""
        longbench = partial(read_longbench, self.name)
        readers = {HUB.repo: read_papers, SCROLLS: _without_kinds(read_scrolls), LONGBENCH: _without_kinds(longbench)}
        return read_by_schema(rows, MARKS, readers)

    def request(self, question: PaperQuestion, tokenizer: Encoder) -> Generate:
        """One line."""
        return Generate(
            self.prompt(question),
            generation_budget(tokenizer, ANSWER_CHARACTERS),
            ("\n",),
            self.options.skip_blank_lines,
        )

    def score(self, question: PaperQuestion, answer: Generated) -> Scores:
        """See the class."""
        scored = [token_f1(answer.text, reference) for reference in question.references]
        best = max(scored)
        found = question.kinds[scored.index(best)]
        return {
            "rouge_l": max(rouge_l(answer.text, reference) for reference in question.references),
            "f1": best,
            **{f"f1_{kind}": Weighted(best, float(kind == found)) for kind in KINDS},
        }


def _without_kinds(
    read: Callable[[Iterator[Row]], Questions[Question]],
) -> Callable[[Iterator[Row]], Questions[PaperQuestion]]:
    """A reader of rows that do not say of what kind an answer is."""

    def read_rows(rows: Iterator[Row]) -> Questions[PaperQuestion]:
        found = read(rows)
        asked = [PaperQuestion(**vars(one), kinds=(None,) * len(one.references)) for one in found.questions]
        return Questions(found.documents, asked)

    return read_rows


def read_papers(rows: Iterator[Row]) -> Questions[PaperQuestion]:
    """Papers ``{id, title, abstract, full_text, qas}`` of the hub's schema.

    Raises:
        DataError: a paper does not fit, is there twice, or a question has no answer.
    """
    papers: dict[str, str] = {}
    places: dict[str, str] = {}
    seen: dict[str, str] = {}
    asked = []
    for row in rows:
        name = new_id(row, "id", places)
        papers[name] = paper_text(row)
        for question in row.objects("qas"):
            answers = [reference(answer.object("answer")) for answer in _annotations(question)]
            kinds = tuple(kind for _, kind in answers)
            asked.append(
                PaperQuestion(
                    id=new_id(question, "question_id", seen),
                    document=name,
                    text=question.text("question"),
                    references=tuple(text for text, _ in answers),
                    details={"answer_type": max(dict.fromkeys(kinds), key=kinds.count)},
                    kinds=kinds,
                )
            )
    return Questions(papers, asked)


def paper_text(row: Row) -> str:
    """Title, abstract and sections, see the module. A section without a name has no line for it."""
    lines = []
    for section in row.objects("full_text"):
        if section.has("section_name"):
            lines.append(section.text("section_name", blank=True))
        lines += section.texts("paragraphs", blank=True)
    parts = (row.text("title"), row.text("abstract", blank=True), "\n".join(lines))
    return "\n\n".join(part for part in parts if part.strip())


def _annotations(question: Row) -> list[Row]:
    """The annotators' answers; the hub stores a list of objects as an object of lists."""
    annotations = question.objects("answers") if question.has("answers") else []
    if not annotations:
        raise no_answers(question, "answers")
    return annotations


def reference(answer: Row) -> tuple[str, str]:
    """An annotator's answer as the text and the kind that the official evaluator makes of it.

    Raises:
        DataError: it says nothing.
    """
    if answer.flag("unanswerable"):
        return "Unanswerable", NONE
    if spans := answer.texts("extractive_spans", blank=True):
        return ", ".join(spans), EXTRACTIVE
    if text := answer.text("free_form_answer", blank=True):
        return text, ABSTRACTIVE
    if answer.has("yes_no"):
        return ("Yes" if answer.flag("yes_no") else "No"), BOOLEAN
    answer.fail("yes_no", "is missing, and there is no other answer either")
