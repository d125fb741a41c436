"""What the records of ``benchmarks/zoo.py`` say: exact answers by pairs and by distance, and the cost of a block."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from famcli.tasks.remembering import Remember, score
from zoo_models import MEMORIES

from famcli.evaluation.journal import JOURNAL_NAME, Entry, read_entries
from famcli.evaluation.record import RunRecord, load_records
from famcli.models.config import ModelConfig
from famcli.models.products import chunk
from famcli.task import Generated

BySeed = dict[int, float]
"""Exact match, from 0 to 1, of each seed."""


class Cell(NamedTuple):
    """Texts of a task that have so many pairs."""

    task: str
    pairs: int


@dataclass
class Scores:
    """Of one memory.

    Attributes:
        config: of its model.
        by_pairs: exact match of all questions on such texts.
        by_distance: of ``remember``, exact match of the questions on a pair with so many blocks behind its own, up to
            the end of the text.
        from_text: of ``remember``, the share of answers that say the value of any pair of the text.
        drawn: of ``remember``, by distance, what is right of answers that are each drawn from the pairs of the text; of
            the questions alone, so it is the same for each memory.
    """

    config: ModelConfig
    by_pairs: dict[Cell, BySeed] = field(default_factory=dict)
    by_distance: dict[Cell, dict[int, BySeed]] = field(default_factory=dict)
    from_text: dict[Cell, BySeed] = field(default_factory=dict)
    drawn: dict[Cell, dict[int, float]] = field(default_factory=dict)

    def operations(self, block: int) -> int:
        """Of the matrix products of reading the block before which there are ``block`` others, logits left out."""
        size = self.config.block_size
        return chunk(self.config, block * size, size, output=True).operations


@dataclass(frozen=True)
class Spread:
    """The mean over seeds, the least and the most of them."""

    mean: float
    least: float
    most: float

    @classmethod
    def of(cls, scores: BySeed) -> Spread:
        """Of at least one seed."""
        return cls(fmean(scores.values()), min(scores.values()), max(scores.values()))


def read_scores(output: Path) -> dict[str, Scores]:
    """Each memory that has a finished run in ``output``, in the order of ``MEMORIES``; of two alike the newer counts.

    Raises:
        UserError: a run's samples cannot be read.
    """
    found: dict[str, Scores] = {}
    for record in load_records(output):
        name, _, seed = record.model["name"].rpartition("-")
        if record.status == "finished" and name in MEMORIES and seed.isdecimal():
            scores = found.setdefault(name, Scores(ModelConfig.from_mapping(record.model["config"], name)))
            _take(scores, record, int(seed))
    return {name: found[name] for name in MEMORIES if name in found}


def _take(scores: Scores, record: RunRecord, seed: int) -> None:
    task = record.task["name"]
    for row in record.cells:
        scores.by_pairs.setdefault(Cell(task, row["pairs"]), {}).setdefault(seed, row["exact_match"])
    if task == Remember.name:  # it asks for every key, so that the samples of a text have all its values
        for cell, questions in _questions(record).items():
            _take_questions(scores, cell, seed, questions)


class Question(NamedTuple):
    """A question on a pair that has so many ``blocks`` behind its own.

    ``right`` is 1 or 0; ``from_text`` whether the answer is a value of the text; ``drawn`` the share of the text's
    pairs that have the value asked for.
    """

    blocks: int
    right: float
    from_text: bool
    drawn: float


def _take_questions(scores: Scores, cell: Cell, seed: int, questions: Sequence[Question]) -> None:
    scores.from_text.setdefault(cell, {}).setdefault(seed, fmean(question.from_text for question in questions))
    for blocks in sorted({question.blocks for question in questions}):
        asked = [question for question in questions if question.blocks == blocks]
        seeds = scores.by_distance.setdefault(cell, {}).setdefault(blocks, {})
        seeds.setdefault(seed, fmean(question.right for question in asked))
        scores.drawn.setdefault(cell, {})[blocks] = fmean(question.drawn for question in asked)


def _questions(record: RunRecord) -> Mapping[Cell, list[Question]]:
    size = record.task["options"]["block"]
    texts: dict[str, list[Entry]] = {}
    for entry in read_entries(record.path / JOURNAL_NAME).values():
        texts.setdefault(entry.document, []).append(entry)
    found: dict[Cell, list[Question]] = {}
    for entries in texts.values():
        values = Counter(entry.reference for entry in entries)
        for entry in entries:
            # A pair is shorter than its block, so what is behind it there is no whole block.
            blocks = int(entry.details["distance"]) // size
            said = Generated(entry.output, entry.answer["token_ids"])
            from_text = any(score(value, said)["exact_match"] for value in values)
            drawn = values[entry.reference] / values.total()
            question = Question(blocks, entry.scores["exact_match"], from_text, drawn)
            found.setdefault(Cell(record.task["name"], int(entry.cell["pairs"])), []).append(question)
    return found
