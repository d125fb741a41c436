"""LongBench, its first version: 21 data sets of questions, summaries, examples and code (Bai et al. 2023).

Prompts, budgets and scores are those of the official evaluation of arXiv 2308.14508.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import PurePosixPath

from famcli.errors import UserError
from famcli.metrics.longbench import (
    chinese_f1,
    chinese_rouge_l,
    class_share,
    code_similarity,
    number_share,
    rouge_l_of_sets,
)
from famcli.metrics.text_overlap import token_f1
from famcli.task import (
    DataError,
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

from .choices import some_of
from .documents import DocumentOptions, DocumentTask, no_answers, parse_flag, text_id, unique_ids
from .evenly import evenly
from .longbench_words import DATASETS
from .rows import Row

logger = logging.getLogger(__name__)

SCORES: Mapping[str, Callable[[str, str, Sequence[str]], float]] = {
    "f1": lambda said, right, _: token_f1(said, right),
    "chinese_f1": lambda said, right, _: chinese_f1(said, right),
    "rouge_l": lambda said, right, _: rouge_l_of_sets(said, right),
    "chinese_rouge_l": lambda said, right, _: chinese_rouge_l(said, right),
    "class": class_share,
    "count": lambda said, right, _: number_share(said, right),
    "paragraph": lambda said, right, _: number_share(said, re.findall(r"\d+", right)[0]),
    "code": lambda said, right, _: code_similarity(said, right),
}
CHINESE = ("chinese_f1", "chinese_rouge_l")
EXTENDED = "_e"
"""Ends the names of LongBench-E's data sets and files, which have other rows."""


def parse_datasets(text: str) -> tuple[str, ...]:
    """Some of ``DATASETS`` in their order; empty for all that the data has."""
    return some_of(DATASETS, text)


@dataclass(frozen=True)
class LongBenchOptions(DocumentOptions):
    """Options of ``LongBench``."""

    datasets: tuple[str, ...] = option(
        "", "data sets with commas between; empty: all that the data has", parse_datasets
    )
    extended: bool = option("false", "whether the rows of LongBench-E are read, in place of the others", parse_flag)


@dataclass(frozen=True)
class Item:
    """A row: a text and what is asked about it."""

    id: str
    dataset: str
    context: str
    input: str
    answers: tuple[str, ...]
    classes: tuple[str, ...]


class LongBench(DocumentTask):
    """All data sets of LongBench.

    ``score`` is that of the data set, the best over the answers; over all data sets it is the mean of their means.
    """

    name = "longbench"
    version = 1
    summary = "questions, summaries, examples and code of LongBench, each data set with its own score"
    metrics = (MetricSpec("score"),)
    template = "\n".join(words.prompt for words in DATASETS.values())
    Options = LongBenchOptions
    options: LongBenchOptions
    schema = DataSchema(
        fields=(
            DataField("dataset", "text", "one of LongBench's, such as hotpotqa; or the name of the file says it"),
            DataField("context", "text", "the text"),
            DataField("input", "text", "the question, empty where the data set has none", required=False),
            DataField("answers", "a list of texts", "the right answers, at least one; the best match counts"),
            DataField("all_classes", "a list of texts", "trec and lsht: the classes", required=False),
            DataField("_id", "text", "a name for the row", required=False),
        ),
        example={
            "dataset": "hotpotqa",
            "context": "The ferry left at noon. Ines stayed behind, for she had lost her ticket in the snow.",
            "input": "Who lost her ticket?",
            "answers": ["Ines"],
        },
        also="data.zip of THUDM/LongBench as it is published",
    )

    @cached_property
    def items(self) -> list[Item]:
        """The rows of the wanted data sets, by data set; read once.

        Raises:
            UserError: a row does not fit, or there is none of a data set that was asked for.
        """
        found: list[Item] = []
        others: Counter[bool] = Counter()
        for row in self.dataset.rows:
            name, extended = self._of(row)
            if extended != self.options.extended:
                others[extended] += 1
            elif name in (self.options.datasets or DATASETS):
                found.append(self._item(row, name))
        if others:
            kind = "LongBench-E" if not self.options.extended else "LongBench"
            logger.warning(
                "warning: %d rows of %s are left out; -o extended=true|false says which", others.total(), kind
            )
        there = {item.dataset for item in found}
        if missing := [name for name in self.options.datasets if name not in there] or ([] if found else ["any kind"]):
            flag = "" if self.options.extended else ", or -o extended=true for those of LongBench-E"
            raise UserError(
                f"task longbench: no row is of {missing[0]} in {self.dataset.provenance.name}",
                f"famcli data check longbench --data PATH says what is there{flag}",
            )
        ids = unique_ids(item.id for item in found)
        named = [Item(**{**vars(item), "id": id}) for id, item in zip(ids, found, strict=True)]
        return sorted(named, key=lambda item: list(DATASETS).index(item.dataset))

    def check_row(self, row: Row) -> None:
        """See ``DocumentTask.check_row``."""
        name, extended = self._of(row)
        if extended == self.options.extended and name in (self.options.datasets or DATASETS):
            self._item(row, name)

    def taken_from_names(self) -> list[str]:
        """The data sets."""
        return [item.dataset for item in self.items]

    def samples(self, tokenizer: Encoder, seed: int, limit: int | None) -> list[Sample]:
        """See ``Task.samples``; a limit takes evenly from all data sets. Nothing is drawn.

        Raises:
            UserError: the data cannot be read, or a package that scores it is not installed.
        """
        taken = evenly(self.items, lambda item: item.dataset, limit)
        counts = Counter(item.dataset for item in taken)
        chinese = [name for name in counts if DATASETS[name].score in CHINESE]
        if chinese and importlib.util.find_spec("jieba") is None:
            raise UserError(
                f"task longbench: {', '.join(chinese)} are scored by words of Chinese, and the package that finds them "
                "is not installed",
                "pip install jieba (or famcli[chinese]), or choose others: -o datasets=hotpotqa,qmsum",
            )
        return [
            Sample(
                id=item.id,
                cell={"dataset": item.dataset},
                reference=" | ".join(dict.fromkeys(item.answers)),
                request=partial(request, item),
                score=partial(score, item, 1 / counts[item.dataset]),
                document=f"{item.dataset}/{text_id(item.context)}",
            )
            for item in taken
        ]

    def _of(self, row: Row) -> tuple[str, bool]:
        """The data set of a row, and whether it is LongBench-E's: from the field, and from the name of the file."""
        stem = PurePosixPath(row.file).name.partition(".")[0]
        of_file = stem if stem.removesuffix(EXTENDED) in DATASETS else ""
        name = row.text("dataset") if row.has("dataset") else of_file
        if not name:
            raise DataError(
                f"{row.where}: no field 'dataset', and the file is not named after a data set of LongBench",
                f"name the file after it, for example hotpotqa.jsonl; known: {', '.join(DATASETS)}",
            )
        plain = name.removesuffix(EXTENDED)
        if plain not in DATASETS:
            row.fail("dataset", f"must be one of {', '.join(DATASETS)}, not '{name}'")
        if of_file and plain != of_file.removesuffix(EXTENDED):
            row.fail("dataset", f"is {name}, and the file is named {stem}")
        return plain, EXTENDED in (name[len(plain) :], of_file[len(plain) :])

    def _item(self, row: Row, name: str) -> Item:
        answers = row.texts("answers", blank=True) if row.has("answers") else []
        if not any(answer.strip() for answer in answers):
            raise no_answers(row, "answers")
        wanted = DATASETS[name].score
        classes = row.texts("all_classes") if row.has("all_classes") else []
        if wanted == "class" and not classes:
            raise DataError(
                f"{row.where}: field 'all_classes' is missing: {name} is scored by which classes an answer names",
                "give rows with all_classes, or choose other data sets: -o datasets=hotpotqa,qmsum",
            )
        if wanted == "paragraph" and not all(re.search(r"\d", answer) for answer in answers):
            row.fail("answers", "must name a paragraph by its number")
        context, asked = row.text("context"), row.text("input", blank=True) if row.has("input") else ""
        id = f"{name}/{row.text('_id') if row.has('_id') else text_id(context + asked)}"
        return Item(id, name, context, asked, tuple(answers), tuple(classes))


def request(item: Item) -> Generate:
    """The official prompt; only the text may be cut."""
    words = DATASETS[item.dataset]
    before, after = words.prompt.split("{context}")
    prompt = Prompt((before, item.context, after.replace("{input}", item.input)), document=1)
    stop = ("\n",) if item.dataset == "samsum" else ()
    return Generate(prompt, words.tokens, stop, skip_blank_lines=bool(stop))


def score(item: Item, weight: float, answer: Generated) -> dict[str, Weighted]:
    """The best over the answers, see the class."""
    words = DATASETS[item.dataset]
    said = answer.text.lstrip("\n").split("\n")[0] if words.first_line else answer.text
    best = max(SCORES[words.score](said, right, item.classes) for right in item.answers)
    return {"score": Weighted(best, weight)}
