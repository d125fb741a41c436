"""Tasks that ask questions about documents."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar, Generic, Literal

from famcli.task import Encoder, Prompt, Request, Sample, Scores, option

from .documents import (
    CUE,
    QUESTION,
    QUESTION_TEMPLATE,
    Q,
    Questions,
    parse_position,
    prompt,
    skip_blank_lines,
)
from .rows import Row
from .shots import NOTHING_SHOWN, Demonstration, ShotOptions, ShotTask, Shown


@dataclass(frozen=True)
class QuestionOptions(ShotOptions):
    """Options of a task that asks about documents."""

    question_position: Literal["after", "before", "both"] = option(
        "after", "where the question stands: after the document, before it, or both", parse_position
    )


@dataclass(frozen=True)
class LineOptions(QuestionOptions):
    """Options of a task that asks about documents and is answered in a line."""

    skip_blank_lines: bool = skip_blank_lines()


class QuestionTask(ShotTask, Generic[Q]):
    """A task that asks questions about documents; many questions share a document."""

    template = QUESTION_TEMPLATE
    training_words: ClassVar[Mapping[str, str]] = {"question": QUESTION, "cue": CUE}
    Options = QuestionOptions
    options: QuestionOptions

    @abstractmethod
    def read(self, rows: Iterator[Row]) -> Questions[Q]:
        """What the rows say; raises ``DataError`` where one does not fit."""

    def check_row(self, row: Row) -> None:
        """See ``DocumentTask.check_row``."""
        self.read(iter([row]))

    @abstractmethod
    def request(self, question: Q, tokenizer: Encoder) -> Request:
        """What the model is asked to do."""

    @abstractmethod
    def score(self, question: Q, answer: Any) -> Scores:
        """The answer's value for each of the task's metrics."""

    @cached_property
    def content(self) -> Questions[Q]:
        """The data, read once."""
        return self.read(self.dataset.rows)

    def samples(self, tokenizer: Encoder, seed: int, limit: int | None) -> list[Sample]:
        """See ``Task.samples``: the questions in the order of the data, a limit takes the first.

        Nothing is drawn but demonstrations, the same ones for all questions.
        """
        shown = self._shown(seed) if self.options.shots else NOTHING_SHOWN
        return [
            Sample(
                id=question.id,
                cell={},
                reference=" | ".join(dict.fromkeys(question.references)),
                request=shown.before(partial(self.request, question, tokenizer)),
                score=partial(self.score, question),
                document=question.document,
                details={**question.details, **shown.details},
            )
            for question in self.content.questions[:limit]
        ]

    def _shown(self, seed: int) -> Shown:
        """The demonstrations, of other documents than those that are asked about."""
        train = self.read(self.train.rows)
        asked_about = set(self.content.documents.values())
        candidates = [
            Demonstration(question.id, question.document, partial(self._demonstration, train, question))
            for question in train.questions
            if train.documents[question.document] not in asked_about
        ]
        return self.draw(candidates, seed)

    def _demonstration(self, train: Questions[Q], question: Q) -> str:
        """The prompt and, behind a space, the first of the right answers in a line."""
        segments = map(str, self._prompt(train.documents[question.document], question).segments)
        return f"{''.join(segments)} {' '.join(question.references[0].split())}"

    def prompt(self, question: Q) -> Prompt:
        """The document and the question in the order that the options ask for."""
        return self._prompt(self.content.documents[question.document], question)

    def _prompt(self, document: str, question: Q) -> Prompt:
        asked = QUESTION.format(question=question.text)
        return prompt(document, asked, CUE, self.options.question_position)
