"""LongBench v2: questions with four choices about long texts of many kinds (Bai et al. 2024, arXiv 2412.15204).

Prompt, budget and what an answer says are those of the official evaluation without chain of thought.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, get_args

from famcli.errors import UserError
from famcli.metrics.longbench import chosen_letter
from famcli.task import (
    Choose,
    Chosen,
    DataField,
    DataSchema,
    Encoder,
    Generate,
    Generated,
    MetricSpec,
    Prompt,
    Sample,
    Weighted,
    option,
)

from .choices import one_of, some_of
from .documents import DocumentOptions, DocumentTask, new_id, no_answers, text_id
from .hub import HubDataset
from .rows import Row

Answer = Literal["said", "weighed"]
ANSWERS: tuple[Answer, ...] = get_args(Answer)

HUB = HubDataset(
    repo="THUDM/LongBench-v2",
    revision="refs/convert/parquet",
    files=("default/{split}/*.parquet",),
    licence="Apache 2.0 (questions); texts under the terms of their sources",
    citation="Bai et al. 2024, LongBench v2: Towards Deeper Understanding and Reasoning on Realistic Long-context "
    "Multitasks, arXiv 2412.15204",
    split="train",
)

LETTERS = "ABCD"
DIFFICULTIES = ("easy", "hard")
LENGTHS = ("short", "medium", "long")
BEFORE = "Please read the following text and answer the question below.\n\n<text>\n"
AFTER = (
    "\n</text>\n\nWhat is the correct answer to this question: {question}\nChoices:\n{choices}\n\n"
    'Format your response as follows: "The correct answer is (insert answer here)".'
)
CHOICE = "({letter}) {text}"
SAYS = " The correct answer is ({letter})"
BUDGET = 128


def parse_answer(text: str) -> Answer:
    """How an answer is taken."""
    return one_of(ANSWERS, text)


def parse_lengths(text: str) -> tuple[str, ...]:
    """Some of ``LENGTHS`` in their order; empty for all."""
    return some_of(LENGTHS, text)


@dataclass(frozen=True)
class LongBench2Options(DocumentOptions):
    """Options of ``LongBench2``."""

    answer: Literal["said", "weighed"] = option(
        "said", "said: the letter that the answer says, as officially; weighed: the likeliest of four", parse_answer
    )
    length: tuple[str, ...] = option(
        "", "rows of these lengths, short,medium,long; empty: all that the data has", parse_lengths
    )


@dataclass(frozen=True)
class Item:
    """A row: a text, a question, the choices by their letters, and what the row says of itself, ``""`` for nothing."""

    id: str
    context: str
    question: str
    choices: Mapping[str, str]
    right: str
    difficulty: str
    length: str
    domain: str
    sub_domain: str


class LongBench2(DocumentTask):
    """Multiple choice of LongBench v2.

    An answer without a letter is wrong, as in the official ``result.py``, whose option to count it a quarter is off.
    ``accuracy`` is over all rows, the others over those of one difficulty and of one length, as the rows say.
    ``answered`` is the share of answers that say a letter.
    """

    name = "longbench2"
    version = 1
    summary = "multiple choice of LongBench v2 about long texts, by what the answer says or by likelihood"
    metrics = (
        MetricSpec("accuracy"),
        *(MetricSpec(f"accuracy_{name}") for name in (*DIFFICULTIES, *LENGTHS)),
        MetricSpec("answered"),
    )
    template = BEFORE + AFTER + CHOICE + SAYS
    hub = HUB
    Options = LongBench2Options
    options: LongBench2Options
    schema = DataSchema(
        fields=(
            DataField("context", "text", "the text"),
            DataField("question", "text", "the question"),
            *(DataField(f"choice_{letter}", "text", f"the answer ({letter})") for letter in LETTERS),
            DataField("answer", "A, B, C or D", "the letter of the right one"),
            DataField("difficulty", "easy or hard", "counts in accuracy_easy or accuracy_hard", required=False),
            DataField("length", "short, medium or long", "counts in accuracy_short and so on", required=False),
            DataField("domain", "text", "for the record", required=False),
            DataField("sub_domain", "text", "for the record", required=False),
            DataField("_id", "text", "a name for the row, no two alike", required=False),
        ),
        example={
            "context": "The ferry left at noon. Ines stayed behind, for she had lost her ticket in the snow.",
            "question": "Why did Ines stay behind?",
            "choice_A": "She was ill.",
            "choice_B": "She had lost her ticket.",
            "choice_C": "It was too late.",
            "choice_D": "She hated the sea.",
            "answer": "B",
        },
        also="data.json of THUDM/LongBench-v2 as it is published",
    )

    @cached_property
    def items(self) -> list[Item]:
        """The wanted rows, read once.

        Raises:
            UserError: a row does not fit, or none has a length that was asked for.
        """
        seen: dict[str, str] = {}
        found = [_item(row, seen) for row in self.dataset.rows]
        if not self.options.length:
            return found
        there = {item.length for item in found}
        if missing := [name for name in self.options.length if name not in there]:
            raise UserError(
                f"task longbench2: no row is of length {missing[0]} in {self.dataset.provenance.name}",
                f"there are: {', '.join(sorted(there - {''})) or 'none that says its length'}",
            )
        return [item for item in found if item.length in self.options.length]

    def check_row(self, row: Row) -> None:
        """See ``DocumentTask.check_row``."""
        _item(row, {})

    def samples(self, tokenizer: Encoder, seed: int, limit: int | None) -> list[Sample]:
        """See ``Task.samples``: the rows in the order of the data, a limit takes the first. Nothing is drawn."""
        weighed = self.options.answer == "weighed"
        return [
            Sample(
                id=item.id,
                cell={},
                reference=f"({item.right}) {item.choices[item.right]}" if not weighed else _says(item.right),
                request=partial(weigh if weighed else ask, item),
                score=partial(score, item),
                document=text_id(item.context),
                details=_details(item),
            )
            for item in self.items[:limit]
        ]


def _item(row: Row, seen: dict[str, str]) -> Item:
    """The row; ``seen`` has the names of those before it, and where they are."""
    if not row.has("answer"):
        raise no_answers(row, "answer")
    right = row.text("answer").strip()
    if right not in tuple(LETTERS):
        row.fail("answer", f"must be one of A, B, C, D, not '{right[:40]}'")
    context, question = row.text("context"), row.text("question")
    choices = {letter: row.text(f"choice_{letter}") for letter in LETTERS}
    if row.has("_id"):
        name = new_id(row, "_id", seen)
    else:
        name = text_id("\n".join((context, question, *choices.values())))
        if name in seen:
            row.fail("question", f"and text and choices are those of {seen[name]}")
        seen[name] = row.where
    return Item(
        id=name,
        context=context,
        question=question,
        choices=choices,
        right=right,
        difficulty=_one_of(row, "difficulty", DIFFICULTIES),
        length=_one_of(row, "length", LENGTHS),
        domain=row.text("domain", blank=True) if row.has("domain") else "",
        sub_domain=row.text("sub_domain", blank=True) if row.has("sub_domain") else "",
    )


def _one_of(row: Row, name: str, known: tuple[str, ...]) -> str:
    """The field's word, ``""`` where there is none; raises ``DataError`` for any other."""
    if not row.has(name):
        return ""
    word = row.text(name)
    if word not in known:
        row.fail(name, f"must be one of {', '.join(known)}, not '{word[:40]}'")
    return word


def _details(item: Item) -> dict[str, str]:
    """What the row says of itself; ``length`` by another name, for in famcli that is a number of tokens."""
    said = {
        "difficulty": item.difficulty,
        "length_group": item.length,
        "domain": item.domain,
        "sub_domain": item.sub_domain,
    }
    return {name: word for name, word in said.items() if word}


def prompt(item: Item) -> Prompt:
    """The official prompt, texts stripped as officially; only the text may be cut."""
    choices = "\n".join(CHOICE.format(letter=letter, text=text.strip()) for letter, text in item.choices.items())
    after = AFTER.format(question=item.question.strip(), choices=choices)
    return Prompt((BEFORE, item.context.strip(), after), document=1)


def ask(item: Item) -> Generate:
    """Asks for an answer in words."""
    return Generate(prompt(item), BUDGET)


def weigh(item: Item) -> Choose:
    """Asks how likely it is that each letter is said in the words that the prompt wants."""
    return Choose(prompt(item), tuple(map(_says, LETTERS)))


def _says(letter: str) -> str:
    return SAYS.format(letter=letter)


def score(item: Item, answer: Generated | Chosen) -> dict[str, float | Weighted]:
    """See ``LongBench2``."""
    letter = LETTERS[answer.best] if isinstance(answer, Chosen) else chosen_letter(answer.text)
    right = float(letter == item.right)
    of = {item.difficulty, item.length}
    parts = {f"accuracy_{name}": Weighted(right, float(name in of)) for name in (*DIFFICULTIES, *LENGTHS)}
    return {"accuracy": right, **parts, "answered": float(letter is not None)}
