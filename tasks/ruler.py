"""RULER: needles, chains of variables, counts of words and questions, at wanted lengths (Hsieh et al. 2024).

The thirteen tasks of arXiv 2404.06654 with their words and scores. Lengths are exact tokens of the evaluated tokenizer,
start token, chat template and the room for the answer included: a text has as many whole units as fit, a line, a
needle, a word, a document; in essays the last sentence is cut. The essays are a text of the user's choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from famcli.errors import UserError
from famcli.fields import parse_lengths
from famcli.task import DataField, DataSchema, Encoder, Generate, Generated, MetricSpec, Prompt, Sample, option

from . import ruler_qa
from .background import Background, background_sha256, parse_background
from .choices import some_of
from .documents import DocumentOptions, DocumentTask, text_id, unique_ids
from .drawing import Chance, parse_count, places
from .rows import Row
from .ruler_qa import HOTPOT, QA, SQUAD, Questions
from .ruler_texts import CHAIN, COMMON, FREQUENT, NEEDLE, NIAH, Chain, CommonWords, FrequentWords, Made, Needles, Texts

Maker = Needles | Chain | CommonWords | FrequentWords

MADE: dict[str, tuple[int, Maker]] = {
    "niah_single_1": (128, Needles("noise")),
    "niah_single_2": (128, Needles("essay")),
    "niah_single_3": (128, Needles("essay", values="uuids")),
    "niah_multikey_1": (128, Needles("essay", many_keys=4)),
    "niah_multikey_2": (128, Needles("needle")),
    "niah_multikey_3": (128, Needles("needle", keys="uuids", values="uuids")),
    "niah_multivalue": (128, Needles("essay", many_values=4)),
    "niah_multiquery": (128, Needles("essay", many_keys=4, many_asked=4)),
    "vt": (30, Chain()),
    "cwe": (120, CommonWords()),
    "fwe": (50, FrequentWords()),
}
"""What is made by arithmetic: new tokens for the answer, and the maker."""
QA_BUDGET = 32
KINDS = (*MADE, SQUAD, HOTPOT)


def parse_kinds(text: str) -> tuple[str, ...]:
    """Some of ``KINDS`` in their order; empty for all that can be made."""
    return some_of(KINDS, text)


@dataclass(frozen=True)
class RulerOptions(DocumentOptions):
    """Options of ``Ruler``."""

    kind: tuple[str, ...] = option(
        "", f"of {','.join(KINDS)}; empty: all but qa, and with --data the qa that it has", parse_kinds
    )
    lengths: tuple[int, ...] = option("4k", "total lengths in tokens, question and answer included", parse_lengths)
    trials: int = option("6", "samples in each cell; of qa the first questions of the data", parse_count)
    background: str = option(
        "sample", "the essays: .txt files, rows with a text, a folder; sample is built in", parse_background
    )

    def __post_init__(self) -> None:
        asked = {SQUAD, HOTPOT} & set(self.kind)
        if asked and not self.data:
            raise UserError(
                f"task ruler: {min(asked)} asks about documents, and no data is given",
                "--data FILE: SQuAD's for qa_1, HotpotQA's for qa_2",
            )
        if self.data and self.kind and not asked:
            raise UserError("task ruler: data is given, and none of the kinds reads it", "for example -o kind=qa_1")
        if not self.background:
            raise UserError("task ruler: option 'background' is empty", "for example -o background=sample")


class Ruler(DocumentTask):
    """The thirteen tasks of RULER.

    ``string_match`` is the share of the answers that are said, upper and lower case alike; of qa whether one is.
    """

    name = "ruler"
    version = 1
    summary = "needles, chains of variables, counts of words and questions about documents, at wanted lengths"
    metrics = (MetricSpec("string_match"),)
    template = "\n".join([*NIAH, NEEDLE, *CHAIN, *COMMON, *FREQUENT, *QA])
    Options = RulerOptions
    options: RulerOptions
    schema = DataSchema(
        fields=(
            DataField("context", "text", "the document"),
            DataField("question", "text", "the question"),
            DataField("answers", "a list of texts", "the right answers; none: the question is left out"),
            DataField("title", "text", "of what the document is a part: its others come first", required=False),
        ),
        example={
            "context": "The ferry to Saint-Malo left at noon, the last one of the year.",
            "question": "When did the ferry leave?",
            "answers": ["at noon", "noon"],
        },
        also="rows of SQuAD (qa_1) and HotpotQA (qa_2) as the hub has them, and their files as they are published",
    )

    @cached_property
    def questions(self) -> Questions | None:
        """The data, read once; ``None`` without."""
        return ruler_qa.read_questions(self.dataset.rows) if self.options.data else None

    @cached_property
    def background(self) -> Background:
        """The essays."""
        return Background(self.options.background)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What is asked.

        Raises:
            UserError: the data is of another kind.
        """
        found = self.questions.kind if self.questions else ""
        if other := [kind for kind in self.options.kind if kind not in MADE and kind != found]:
            raise UserError(f"task ruler: {other[0]} is asked for, and the data is of {found}", f"-o kind={found}")
        return self.options.kind or (*MADE, *([found] if found else []))

    def provenance(self) -> Mapping[str, Any]:
        """See ``Task.provenance``; without data that of the essays alone, which all but some kinds hang on."""
        if self.options.data:
            return background_sha256(super().provenance(), self.background)
        facts = self.background.dataset.facts()
        return background_sha256({"source": facts["source"], "name": facts["name"]}, self.background)

    def check_row(self, row: Row) -> None:
        """See ``DocumentTask.check_row``."""
        ruler_qa.read_row(row)

    def samples(self, tokenizer: Encoder, seed: int, limit: int | None) -> list[Sample]:
        """See ``Task.samples``; a limit takes evenly from all cells.

        Raises:
            UserError: a length is too short, the data cannot be read or is of another kind.
        """
        texts = Texts(tokenizer, self.background)
        cells = [((kind, length), 1) for kind in self.kinds for length in self.options.lengths]
        taken = places(self.name, cells, self.options.trials, limit)
        asked = self.questions.questions if self.questions else ()
        return [
            self._sample(texts, seed, kind, length, trial)
            for (kind, length), trial, _ in taken
            if kind in MADE or trial < len(asked)
        ]

    @cached_property
    def _ids(self) -> list[str]:
        """Names of the questions."""
        asked = self.questions.questions if self.questions else ()
        return unique_ids(text_id(f"{one.query}\n{one.gold}") for one in asked)

    def _sample(self, texts: Texts, seed: int, kind: str, length: int, trial: int) -> Sample:
        """It depends on the seed, the cell and the trial alone."""
        chance = Chance("ruler", seed, kind, length, trial)
        budget, maker = MADE.get(kind, (QA_BUDGET, None))
        if maker:
            made = maker.make(texts, chance, length)
        else:
            assert self.questions  # which the options make sure of
            made = ruler_qa.make(texts, chance, self.questions, self.questions.questions[trial])
        room = length - budget - texts.around(made)
        if room < made.least:
            least = length - room + made.least
            raise UserError(
                f"task ruler: length {length} is too short for {kind}: with this tokenizer the least is {least} tokens",
                f"for example -o lengths={least}, or leave it out: -o kind=",
            )
        name = f"{trial:03}" if maker else self._ids[trial]
        return Sample(
            id=f"{kind}/{length}/{name}",
            cell={"kind": kind, "length": length},
            reference=" | ".join(made.answers),
            request=partial(request, made, room, budget),
            score=partial(score, made.answers, maker is not None),
            details=made.details,
        )


def request(made: Made, room: int, budget: int) -> Generate:
    """The text as long as there is room."""
    return Generate(Prompt((made.before, np.concatenate(made.fill(room)), made.after), document=1), budget)


def score(answers: Sequence[str], every: bool, answer: Generated) -> dict[str, float]:
    """``string_match_all``, or where any answer is right ``string_match_part``, of the official evaluation."""
    said = [expected.lower() in answer.text.lower() for expected in answers]
    return {"string_match": sum(said) / len(said) if every else float(any(said))}
