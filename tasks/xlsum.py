"""XL-Sum: a news article in one of eleven languages, summarised in a sentence (Hasan et al. 2021, arXiv 2106.13822).

The eleven are those of TyDi QA: the sizes of their development sets add up to the 37,747 samples that TransformerFAM
(Table 10) quotes.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import PurePosixPath

from famcli.metrics.segmentation import unicode_tokens
from famcli.metrics.text_overlap import chrf, rouge_l
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
)

from .documents import skip_blank_lines, unique_ids
from .evenly import evenly
from .hub import HubDataset
from .rows import Row
from .shots import NOTHING_SHOWN, Demonstration, ShotOptions, ShotTask, Shown
from .sources import Dataset

LANGUAGES = (
    "arabic",
    "bengali",
    "english",
    "indonesian",
    "japanese",
    "korean",
    "russian",
    "swahili",
    "telugu",
    "thai",
    "turkish",
)
REQUEST = "\n\nSummarize the article above in one sentence, in {language}.\nSummary:"
SUMMARY_CHARACTERS = 400
"""Length of the longest answer. An answer ends at its first line break before that."""

MEASURED_CHARACTERS = 2000
"""How much of an article is read to measure how many tokens a character takes."""


@dataclass(frozen=True)
class Article:
    """One article with its summary.

    Attributes:
        id: unique in the data.
        language: one of ``LANGUAGES``.
        text: the article, exactly as it is in the data.
        summary: the reference.
    """

    id: str
    language: str
    text: str
    summary: str


@dataclass(frozen=True)
class XLSumOptions(ShotOptions):
    """Options of ``XLSum``."""

    skip_blank_lines: bool = skip_blank_lines()


class XLSum(ShotTask):
    """Asks for a summary of each article in the article's language.

    ROUGE-L is over words, and over single characters with their marks in Thai and Japanese (``unicode_tokens``): the
    stock tokeniser of ``rouge-score`` sees Latin letters only. The means are means of the languages' means.
    """

    name = "xlsum"
    version = 1
    summary = "one-sentence summaries of news articles in eleven languages"
    metrics = (MetricSpec("rouge_l", paper=True), MetricSpec("chrf"))
    template = "{document}" + REQUEST
    Options = XLSumOptions
    options: XLSumOptions
    schema = DataSchema(
        fields=(
            DataField("id", "text", "a name for the article"),
            DataField("language", "text", f"one of {', '.join(LANGUAGES)}; or the name of the file says it"),
            DataField("text", "text", "the article"),
            DataField("summary", "text", "its summary in one sentence"),
        ),
        example={
            "id": "ferry-1",
            "language": "english",
            "text": "The last ferry of the year left Saint-Malo at noon. Snow had closed the harbour for two days.",
            "summary": "The last ferry of the year has left Saint-Malo after two days of snow.",
        },
    )
    hub = HubDataset(
        repo="csebuetnlp/xlsum",
        revision="refs/convert/parquet",
        files=tuple(f"{language}/*{{split}}*.parquet" for language in LANGUAGES),
        licence="CC BY-NC-SA 4.0 (not for commercial use)",
        citation="Hasan et al. 2021, XL-Sum: Large-Scale Multilingual Abstractive Summarization, arXiv 2106.13822",
    )

    @cached_property
    def articles(self) -> list[Article]:
        """The data, read once.

        Raises:
            DataError: a row does not fit, or its language is not known.
        """
        return self._articles(self.dataset)

    def _articles(self, dataset: Dataset) -> list[Article]:
        articles = [self._article(row) for row in dataset.rows]
        ids = unique_ids(article.id for article in articles)
        return [dataclasses.replace(article, id=id) for id, article in zip(ids, articles, strict=True)]

    def samples(self, tokenizer: Encoder, seed: int, limit: int | None) -> list[Sample]:
        """See ``Task.samples``; a limit takes evenly from all languages.

        Nothing is drawn but demonstrations, the same ones for all articles of a language, and in it.

        Raises:
            UserError: the data cannot be read, or a row of it does not fit.
        """
        by_language = sorted(self.articles, key=lambda article: LANGUAGES.index(article.language))
        articles = evenly(by_language, lambda article: article.language, limit)
        counts = Counter(article.language for article in articles)
        shown = self._shown(counts, seed) if self.options.shots else dict.fromkeys(counts, NOTHING_SHOWN)
        return [
            Sample(
                id=article.id,
                cell={"language": article.language},
                reference=article.summary,
                request=shown[article.language].before(
                    partial(request, article, tokenizer, self.options.skip_blank_lines)
                ),
                score=partial(score, article.summary, 1 / counts[article.language]),
                document=article.id,
                details=shown[article.language].details,
            )
            for article in articles
        ]

    def _shown(self, languages: Iterable[str], seed: int) -> dict[str, Shown]:
        """Demonstrations by language, of other articles than those that are asked about."""
        asked_about = {article.text for article in self.articles}
        candidates: dict[str, list[Demonstration]] = {language: [] for language in languages}
        for one in self._articles(self.train):
            if one.language in candidates and one.text not in asked_about:
                candidates[one.language].append(Demonstration(one.id, one.text, partial(_demonstration, one)))
        return {language: self.draw(some, seed, language) for language, some in candidates.items()}

    def taken_from_names(self) -> list[str]:
        """The languages."""
        return [article.language for article in self.articles]

    def check_row(self, row: Row) -> None:
        """See ``DocumentTask.check_row``."""
        self._article(row)

    def _article(self, row: Row) -> Article:
        language = self._language(row)
        return Article(f"{language}/{row.text('id')}", language, row.text("text"), row.text("summary"))

    def _language(self, row: Row) -> str:
        """From the field ``language``; else from the file's name, or the name of the nearest folder that has it."""
        if row.has("language"):
            language = row.text("language").lower()
            if language not in LANGUAGES:
                row.fail("language", f"must be one of {', '.join(LANGUAGES)}, not '{language}'")
            return language
        for part in reversed(PurePosixPath(self.dataset.provenance.name, row.file).parts):
            found: set[str] = set(re.findall("[a-z]+", part.lower())) & set(LANGUAGES)
            if len(found) > 1:
                raise DataError(
                    f"{row.where}: the name of the file is of several languages: {', '.join(sorted(found))}"
                )
            if found:
                return found.pop()
        raise DataError(
            f"{row.where}: no field 'language', and neither file nor folder is named after one of the languages",
            f"name the file after its language, e.g. {row.file} is english.jsonl; known: {', '.join(LANGUAGES)}",
        )


def _asked(article: Article) -> str:
    return REQUEST.format(language=article.language.capitalize())


def _demonstration(article: Article) -> str:
    """A demonstration, the summary in a line."""
    return f"{article.text}{_asked(article)} {' '.join(article.summary.split())}"


def request(article: Article, tokenizer: Encoder, skip_blank_lines: bool = False) -> Generate:
    """The article, then what is asked; the answer is one line."""
    prompt = Prompt((article.text, _asked(article)), document=0)
    return Generate(prompt, generation_budget(article.text, tokenizer), ("\n",), skip_blank_lines)


def generation_budget(article: str, tokenizer: Encoder) -> int:
    """Tokens for ``SUMMARY_CHARACTERS`` characters, at the tokens a character that the beginning of the article takes.

    So the budget is equally long for every tokenizer and in every script, where a byte tokenizer takes three tokens for
    a letter of Thai; and it does not depend on the reference.
    """
    beginning = article[:MEASURED_CHARACTERS]
    return -(-len(tokenizer.encode(beginning)) * SUMMARY_CHARACTERS // len(beginning))


def score(reference: str, weight: float, answer: Generated) -> dict[str, Weighted]:
    """ROUGE-L and chrF against the reference, both from 0 to 1."""
    text = answer.text.strip()
    return {
        "rouge_l": Weighted(rouge_l(text, reference, unicode_tokens), weight),
        "chrf": Weighted(chrf(text, reference), weight),
    }
