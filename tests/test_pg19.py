"""PG-19: closed forms for a uniform model, and means over books that are the figures of all books as one text."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from famcli.tasks.pg19 import PG19
from hypothesis import given
from hypothesis import strategies as st

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError
from famcli.metrics.statistics import clustered_mean
from famcli.task import Predicted, Sample, Weighted

REAL = Path(__file__).parents[2] / "shared/data/pg19/pg19_test_subset.jsonl.gz"
OFFICIAL = {"validation": (50, 3_007_061), "test": (100, 6_966_499)}
TEXT = "one two  three\nfünf\n"


def book(number: int, text: str = TEXT) -> dict[str, Any]:
    url = f"http://www.gutenberg.org/ebooks/{number}"
    return {"short_book_title": f"Book {number}", "publication_date": 1900, "url": url, "text": text}


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "books.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def task(data: Path | str, source: str = "path", **options: str) -> PG19:
    """The task; ``source`` is where it believes its data to be from."""
    made = PG19.from_options({"data": str(data), **options})
    provenance = dataclasses.replace(made.dataset.provenance, source=source)
    made.dataset = dataclasses.replace(made.dataset, provenance=provenance)
    return made


def samples(made: PG19, limit: int | None = None) -> list[Sample]:
    found: list[Sample] = made.samples(ByteTokenizer(), 0, limit)
    return found


def uniform(text: str, vocabulary: int = 256) -> Predicted:
    """The answer of a model to which all tokens are alike; of these it says ``e``."""
    ids = np.array(ByteTokenizer().encode(text))
    return Predicted(text, np.full(len(ids), -math.log(vocabulary), np.float32), ids == ord("e"))


def mean(name: str, scores: list[Any]) -> float | None:
    """As runs average it."""
    spec = next(metric for metric in PG19.metrics if metric.name == name)
    values, weights = zip(*(each[name] for each in scores), strict=True)
    found = clustered_mean(values, weights, [str(i) for i in range(len(values))], geometric=spec.mean == "geometric")
    return found.value if found else None


def test_the_headline_is_the_papers() -> None:
    assert [metric.name for metric in PG19.metrics if metric.paper] == [PG19.metrics[0].name] == ["accuracy"]
    assert {metric.name for metric in PG19.metrics if metric.higher_is_better} == {"accuracy"}


@pytest.mark.parametrize("vocabulary", [2, 256, 32000])
def test_a_uniform_model(tmp_path: Path, vocabulary: int) -> None:
    [sample] = samples(task(write(tmp_path, [book(7)])))
    assert (sample.id, sample.document, sample.reference) == ("7", "7", "Book 7")
    assert sample.details == {"words": 4, "bytes": 21, "year": 1900}
    assert sample.request().text == TEXT  # type: ignore[union-attr]
    scores: Any = sample.score(uniform(TEXT, vocabulary))
    tokens = n_bytes = 21
    assert scores["accuracy"] == (pytest.approx(3 / tokens), tokens)
    assert scores["bits_per_byte"] == (pytest.approx(tokens * math.log2(vocabulary) / n_bytes), n_bytes)
    assert scores["token_perplexity"] == (pytest.approx(vocabulary), tokens)
    assert scores["perplexity_per_scored_word"] == (pytest.approx(vocabulary ** (tokens / 4)), 4)
    assert scores["word_perplexity"].weight == 0


@st.composite
def read_books(draw: st.DrawFn) -> list[Predicted]:
    """Books that end with white space, so that no word spans two; their tokens are any pieces of them."""
    books = []
    for text in draw(st.lists(st.text("ab ü本\n", min_size=1).filter(str.strip), min_size=2, max_size=4)):
        scored = draw(st.lists(st.tuples(st.floats(-20, 0, width=32), st.booleans()), min_size=1, max_size=8))
        likelihoods, hits = zip(*scored, strict=True)
        books.append(Predicted(text + "\n", np.array(likelihoods, np.float32), np.array(hits)))
    return books


@given(read_books())
def test_the_mean_over_books_is_the_score_of_the_books_as_one(answers: list[Predicted]) -> None:
    [sample] = samples(task("sample"), limit=1)
    together = Predicted(
        "".join(answer.text for answer in answers),
        np.concatenate([answer.log_likelihoods for answer in answers]),
        np.concatenate([answer.hits for answer in answers]),
    )
    scores = [sample.score(answer) for answer in answers]
    whole: Any = sample.score(together)
    for name in ("accuracy", "bits_per_byte", "token_perplexity", "perplexity_per_scored_word"):
        assert mean(name, scores) == pytest.approx(whole[name].value, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("split", OFFICIAL)
def test_the_official_perplexity_divides_by_the_official_words(tmp_path: Path, split: str) -> None:
    count, words = OFFICIAL[split]
    path = write(tmp_path, [book(i, "word " * (i + 1) * 200) for i in range(count)])
    found = samples(task(path, "hub", split=split), limit=count)
    scores: Any = [sample.score(uniform(sample.request().text, 50)) for sample in found]  # type: ignore[union-attr]
    nats = math.log(50) * 5 * 200 * sum(range(1, count + 1))
    assert sum(each["word_perplexity"].weight for each in scores) == pytest.approx(words)
    assert mean("word_perplexity", scores) == pytest.approx(math.exp(nats / words))
    assert mean("perplexity_per_scored_word", scores) == pytest.approx(50**5)


@pytest.mark.parametrize(
    ("source", "books", "limit"),
    [
        ("path", 50, None),
        ("sample", 50, None),
        ("hub", 49, None),
        ("hub", 51, None),
        ("hub", 100, None),
        ("hub", 50, 49),
    ],
)
def test_no_official_perplexity_of_anything_but_the_split(
    tmp_path: Path, source: str, books: int, limit: int | None
) -> None:
    found = samples(task(write(tmp_path, [book(i) for i in range(books)]), source), limit)
    scores = [sample.score(uniform(TEXT)) for sample in found]
    assert len(scores) == (limit or books)
    assert mean("word_perplexity", scores) is None
    assert mean("perplexity_per_scored_word", scores) == pytest.approx(256 ** (21 / 4))


def test_a_book_cut_short_has_the_words_that_were_read(tmp_path: Path) -> None:
    sample = samples(task(write(tmp_path, [book(i) for i in range(50)]), "hub"))[0]
    whole: Any = sample.score(uniform(TEXT))
    cut: Any = sample.score(uniform("one two"))
    assert whole["word_perplexity"].weight == pytest.approx(3_007_061 / 50)
    assert cut["word_perplexity"].weight == 0
    assert cut["perplexity_per_scored_word"] == (pytest.approx(256 ** (7 / 2)), 2)
    assert sample.score(uniform(" \n"))["perplexity_per_scored_word"] == Weighted(0, 0)


def test_a_perplexity_beyond_floats_is_a_number(tmp_path: Path) -> None:
    [sample] = samples(task(write(tmp_path, [book(1, "x" * 200)])))
    scores: Any = sample.score(uniform("x" * 200))
    assert scores["perplexity_per_scored_word"].value == np.finfo(float).max


def test_the_option_chooses_the_split_on_the_hub() -> None:
    assert PG19.from_options({}).hub.patterns == ("data/validation-*.parquet",)
    assert PG19.from_options({"split": "test"}).hub.patterns == ("data/test-*.parquet",)
    assert PG19.hub.split == "validation"
    with pytest.raises(UserError, match="'split' must be validation or test, not 'train'"):
        PG19.from_options({"split": "train"})


def test_ids_are_unique_and_a_limit_takes_the_first(tmp_path: Path) -> None:
    made = task(write(tmp_path, [book(3), book(3), book(4)]))
    assert [sample.id for sample in samples(made)] == ["3", "3-2", "4"]
    assert [sample.id for sample in samples(made, limit=2)] == ["3", "3-2"]
    assert made.provenance()["rows"] == 3


@pytest.mark.parametrize("field", ["short_book_title", "url", "text", "id"])
def test_errors_name_file_line_and_field(tmp_path: Path, field: str) -> None:
    path = write(tmp_path, [book(1), {**book(2), "url": None, field: 3}])
    with pytest.raises(UserError, match=f"books.jsonl, line 2: field '{field}' must be text, not a whole number"):
        samples(task(path))


def test_a_book_needs_nothing_but_its_text(tmp_path: Path) -> None:
    made = task(write(tmp_path, [{"text": TEXT}, {"text": "two", "id": "mine"}, book(7)]))
    ids = [sample.id for sample in samples(made)]
    assert ids[1:] == ["mine", "7"] and len(ids[0]) == 16
    (tmp_path / "again").mkdir()
    assert samples(task(write(tmp_path / "again", [{"text": TEXT}])))[0].id == ids[0], "by what it says alone"


@pytest.mark.parametrize("packed", [False, True])
def test_files_of_text_are_books_by_their_names(tmp_path: Path, packed: bool) -> None:
    folder = tmp_path / "books"
    for name, content in {"b.txt": b"\xef\xbb\xbftwo\r\nlines\rof it\n", "old/a.txt": b"one"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    if packed:
        with zipfile.ZipFile(tmp_path / "books.zip", "w") as archive:
            for file in folder.rglob("*.txt"):
                archive.write(file, file.relative_to(folder))
        folder = tmp_path / "books.zip"
    made = task(folder)
    assert [(book.id, book.title, book.text) for book in made.books] == [
        ("b", "b", "two\nlines\nof it\n"),
        ("old/a", "old/a", "one"),
    ]
    assert made.books[0].details == {"words": 4, "bytes": 16}


def test_the_name_of_a_book_is_part_of_its_run_where_a_file_gives_it(tmp_path: Path) -> None:
    hashes = set()
    for name in ("a.txt", "b.txt", "b.jsonl", "a.jsonl"):
        text = TEXT if name.endswith("txt") else json.dumps(book(1))
        (tmp_path / name).write_text(text)
        hashes.add(PG19.from_options({"data": str(tmp_path / name)}).provenance()["sha256"])
        (tmp_path / name).unlink()
    assert len(hashes) == 3, "the same row in another file is the same run"


def test_texts_beside_rows_are_no_books(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, [book(1)])
    (tmp_path / "README.txt").write_text("about these books")
    assert [sample.id for sample in samples(task(tmp_path))] == ["1"]
    assert "left out: README.txt" in caplog.text


def test_real_books() -> None:
    if not REAL.exists():
        pytest.skip("no real books here")
    found = samples(task(REAL))
    with gzip.open(REAL, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert [sample.request().text for sample in found] == [row["text"] for row in rows]  # type: ignore[union-attr]
    assert [f"http://www.gutenberg.org/ebooks/{sample.id}" for sample in found] == [row["url"] for row in rows]
