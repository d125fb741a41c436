"""PG-19: next-token prediction of whole books (Rae et al. 2019, arXiv 1911.05507; TransformerFAM, Table 10)."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial

from famcli.metrics.language_model import (
    bits_per_byte,
    next_token_accuracy,
    token_perplexity,
    whitespace_words,
    word_perplexity,
)
from famcli.task import DataField, DataSchema, Encoder, MetricSpec, Predicted, Read, Sample, Weighted, option

from .documents import DocumentOptions, DocumentTask, text_id, unique_ids
from .files import TEXT
from .hub import HubDataset
from .rows import Row

OFFICIAL_BOOKS = {"validation": 50, "test": 100}
OFFICIAL_WORDS = {"validation": 3_007_061, "test": 6_966_499}
"""The denominators of the published word-level perplexities, as the data set's README fixes them."""

READING_METRICS = (
    MetricSpec("accuracy", paper=True),
    MetricSpec("bits_per_byte", higher_is_better=False),
    MetricSpec("token_perplexity", higher_is_better=False, mean="geometric"),
)
"""What ``reading_scores`` gives, for every task that reads whole texts."""


def reading_scores(answer: Predicted) -> dict[str, Weighted]:
    """Scores of the text that was read, weighted so that their means are those of all texts as one.

    Returns:
        ``accuracy``: share of the tokens that were the most likely one, by tokens; ``bits_per_byte``, by bytes of
        UTF-8; ``token_perplexity``, by tokens.
    """
    tokens, n_bytes = len(answer.log_likelihoods), len(answer.text.encode())
    total = log_likelihood(answer)
    return {
        "accuracy": Weighted(next_token_accuracy(int(answer.hits.sum()), tokens), tokens),
        "bits_per_byte": Weighted(bits_per_byte(total, n_bytes), n_bytes),
        "token_perplexity": Weighted(finite(token_perplexity(total, tokens)), tokens),
    }


def log_likelihood(answer: Predicted) -> float:
    """Of the whole text in nats."""
    return float(answer.log_likelihoods.sum(dtype="float64"))


def finite(perplexity: float) -> float:
    """The largest float for what is beyond it, because a run record holds no infinity."""
    return min(perplexity, sys.float_info.max)


def parse_split(text: str) -> str:
    """``validation`` or ``test``."""
    if text not in OFFICIAL_BOOKS:
        raise ValueError(" or ".join(OFFICIAL_BOOKS))
    return text


@dataclass(frozen=True)
class PG19Options(DocumentOptions):
    """Options of ``PG19``."""

    split: str = option("validation", "split of the data: validation (the paper's) or test", parse_split)


@dataclass(frozen=True)
class Book:
    """One book.

    Attributes:
        id: unique in the data: the number that its address ends with, its ``id``, or a hash of the text; of a file
            of text its path.
        title: of the book; its id where the data does not say.
        text: all of it, exactly as it is in the data; of a file of text with line ends of one kind.
        details: ``words``, ``bytes`` and, where it is known, ``year``.
    """

    id: str
    title: str
    text: str
    details: Mapping[str, int]

    @property
    def words(self) -> int:
        """Number of white-space words."""
        return self.details["words"]


class PG19(DocumentTask):
    """Reads each book from its first to its last token.

    There are two perplexities of words. ``word_perplexity`` divides by the number of words that the data set publishes
    for the split, as papers do; only books read in full count in it, and only where the run has all books of the hub's
    split. ``perplexity_per_scored_word`` divides by the white-space words of exactly the text that was read.
    """

    name = "pg19"
    version = 1
    summary = "next-token accuracy, bits per byte and perplexity over whole books"
    metrics = (
        *READING_METRICS,
        MetricSpec("word_perplexity", complete=True, higher_is_better=False, mean="geometric"),
        MetricSpec("perplexity_per_scored_word", higher_is_better=False, mean="geometric"),
    )
    template = "{text}"
    Options = PG19Options
    options: PG19Options
    texts = ("*.txt",)
    texts_instead = True
    schema = DataSchema(
        fields=(
            DataField("text", "text", "the whole book"),
            DataField("short_book_title", "text", "its title", required=False),
            DataField("url", "text", "its address, whose last part is its name in the run", required=False),
            DataField("id", "text", "a name for it, where it has no url", required=False),
            DataField("publication_date", "a whole number", "the year", required=False),
        ),
        example={"text": "There are two roads round the lake, an upper and a lower. I took the lower."},
        also="a directory or zip of .txt files, each a book; rows as the hub has them",
    )
    hub = HubDataset(
        repo="emozilla/pg19",
        revision="c021754c8e01c5b1cc83a1f549c1f97fbbb756b8",
        files=("data/{split}-*.parquet",),
        licence="Apache-2.0; the books are in the public domain in the US",
        citation="Rae et al. 2019, Compressive Transformers for Long-Range Sequence Modelling, arXiv 1911.05507",
    )

    @cached_property
    def books(self) -> list[Book]:
        """The data, read once.

        Raises:
            DataError: a row does not fit.
        """
        books = [self._read(row) for row in self.dataset.rows]
        ids = unique_ids(book.id for book in books)
        return [dataclasses.replace(book, id=id) for id, book in zip(ids, books, strict=True)]

    def check_row(self, row: Row) -> None:
        """See ``DocumentTask.check_row``."""
        self._read(row)

    def taken_from_names(self) -> list[str]:
        """The names of books that are files of text."""
        return [book.id for book in self.books] if self._texts else []

    @cached_property
    def _texts(self) -> bool:
        return any(file.kind == TEXT for file in self.dataset.files)

    def _read(self, row: Row) -> Book:
        return _read_text(row) if self._texts else _read_book(row)

    def samples(self, tokenizer: Encoder, seed: int, limit: int | None) -> list[Sample]:
        """See ``Task.samples``; neither tokenizer nor seed plays a part.

        Raises:
            UserError: the data cannot be read, or a row of it does not fit.
        """
        scale = self._official_scale(limit)
        return [
            Sample(
                id=book.id,
                cell={},
                reference=book.title,
                request=partial(Read, book.text),
                score=partial(score, book, scale),
                document=book.id,
                details=book.details,
            )
            for book in self.books[:limit]
        ]

    def _official_scale(self, limit: int | None) -> float:
        """Official words for each white-space word; 0 where this is not a whole split of the hub."""
        split, count = self.options.split, len(self.books)
        whole = count == OFFICIAL_BOOKS[split] and (limit is None or limit >= count)
        if not whole or self.dataset.provenance.source != "hub":
            return 0.0
        return OFFICIAL_WORDS[split] / sum(book.words for book in self.books)


def _read_book(row: Row) -> Book:
    text = row.text("text")
    details = {"words": whitespace_words(text), "bytes": len(text.encode())}
    if row.has("publication_date"):
        details["year"] = row.integer("publication_date")
    if row.has("url"):
        name = row.text("url").rstrip("/").rpartition("/")[2]
    else:
        name = row.text("id") if row.has("id") else text_id(text)
    title = row.text("short_book_title") if row.has("short_book_title") else name
    return Book(name, title, text, details)


def _read_text(row: Row) -> Book:
    """A file of text: line ends and a mark of its encoding say what wrote it, not what the book is."""
    text = row.text("text").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    name = row.file.removesuffix(".txt")
    return Book(name, name, text, {"words": whitespace_words(text), "bytes": len(text.encode())})


def score(book: Book, scale: float, answer: Predicted) -> dict[str, Weighted]:
    """See ``PG19``.

    Args:
        book: that was to be read.
        scale: official words for each white-space word of the split; they are published for the whole split only, so
            each book gets its share. The shares add up to the official number, hence the weighted mean is ``exp`` of
            the split's negative log-likelihood over that number. 0 where it does not apply.
        answer: what was read.
    """
    words = whitespace_words(answer.text)
    official = scale if answer.text == book.text else 0.0
    return {
        **reading_scores(answer),
        "word_perplexity": _per_word(answer, words, official),
        "perplexity_per_scored_word": _per_word(answer, words, 1.0),
    }


def _per_word(answer: Predicted, words: int, scale: float) -> Weighted:
    if not words * scale:
        return Weighted(0.0, 0.0)
    return Weighted(finite(word_perplexity(log_likelihood(answer) / scale, words)), words * scale)
