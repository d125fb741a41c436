"""QuALITY: three schemas of one benchmark, and the choice by likelihood."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from famcli.tasks.quality import ChoiceQuestion, Quality

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError
from famcli.task import Choose, Chosen, DataError, Sample, Weighted

SHARED = Path(__file__).parents[2] / "shared" / "data" / "quality"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="rows for development are not here")

OPTIONS = ("In Rome. ", "At  sea", "On a very long railway", "Nowhere")


def question(name: str = "a1-q1", gold: int = 3, difficult: int | None = None) -> dict[str, Any]:
    return {
        "question": f"Where ({name})?",
        "options": list(OPTIONS),
        "gold_label": gold,
        "difficult": difficult,
        "question_unique_id": name,
    }


def article(name: str = "a1", *questions: Mapping[str, Any], text: str = "<p>A story.</p>\n\nEnd.") -> dict[str, Any]:
    return {"article_id": name, "article": text, "questions": list(questions) or [question(f"{name}-q1")]}


def mirror_row(answer: int | None = 2, **changes: Any) -> dict[str, Any]:
    row = {"article": "A story.", "question": "Where?", "options": list(OPTIONS), "answer": answer, "hard": True}
    return row | changes


def scrolls_row(name: str = "q1", output: str | None = "At sea", **changes: Any) -> dict[str, Any]:
    options = "\n".join(f" ({letter}) {option}" for letter, option in zip("ABCD", OPTIONS, strict=True))
    return {"id": name, "pid": name, "input": f"Where?\n\n{options}\n\n\nA story.\n\nEnd.", "output": output} | changes


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def samples(data: Path) -> list[Sample]:
    return Quality.from_options({"data": str(data)}).samples(ByteTokenizer(), 0, None)


def questions(data: Path) -> Sequence[ChoiceQuestion]:
    return Quality.from_options({"data": str(data)}).content.questions


def failure(path: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        samples(path)
    return caught.value


def chosen(*log_likelihoods: float) -> Chosen:
    return Chosen(log_likelihoods, (1,) * len(log_likelihoods))


def test_options_follow_the_question(tmp_path: Path) -> None:
    (sample,) = samples(write(tmp_path / "articles.jsonl", [article()]))
    request = sample.request()
    assert isinstance(request, Choose)
    assert request.prompt.segments == ("<p>A story.</p>\n\nEnd.", "\n\nQuestion: Where (a1-q1)?\nAnswer:")
    assert request.options == (" In Rome.", " At sea", " On a very long railway", " Nowhere")
    assert (sample.id, sample.document, sample.reference) == ("a1-q1", "a1", "On a very long railway")


def test_the_three_scores(tmp_path: Path) -> None:
    asked = [question("easy", difficult=0), question("hard", difficult=1), question("unknown")]
    easy, hard, unknown = samples(write(tmp_path / "articles.jsonl", [article("a1", *asked)]))
    # Per character: -10/8, -9/6, -20/22, -30/7. The right option, the third, is the best only for its length.
    scores = hard.score(chosen(-10, -9, -20, -30))
    assert scores == {"accuracy": 0, "accuracy_norm": 1, "accuracy_hard": Weighted(0, 1)}
    assert hard.score(chosen(-10, -9, -8, -30))["accuracy_hard"] == Weighted(1, 1)
    for sample in (easy, unknown):
        score = sample.score(chosen(-10, -9, -8, -30))["accuracy_hard"]
        assert isinstance(score, Weighted) and score.weight == 0
    assert [sample.details for sample in (easy, hard, unknown)] == [{"difficult": 0}, {"difficult": 1}, {}]


def test_of_equals_the_first_is_chosen(tmp_path: Path) -> None:
    for gold, expected in ((1, 1.0), (2, 0.0)):
        (sample,) = samples(write(tmp_path / "articles.jsonl", [article("a1", question("q1", gold))]))
        assert sample.score(chosen(-8, -8, -8, -8))["accuracy"] == expected


def test_labels_count_from_one_in_the_release_and_from_zero_in_the_mirror(tmp_path: Path) -> None:
    for number in range(4):
        (original,) = questions(write(tmp_path / "a.jsonl", [article("a1", question("q1", number + 1))]))
        (mirror,) = questions(write(tmp_path / "b.jsonl", [mirror_row(number)]))
        assert original.gold == mirror.gold == number and original.options == mirror.options
        assert original.references == mirror.references == (" ".join(OPTIONS[number].split()),)


def test_an_article_is_kept_once_for_all_its_writers(tmp_path: Path) -> None:
    rows = [
        article("a1", question("q1")),
        article("a1", question("q2")),
        article("a1", question("q3"), text="Another edition."),
        article("a2", question("q4")),
    ]
    found = samples(write(tmp_path / "articles.jsonl", rows))
    names = [sample.document for sample in found]
    assert names[0] == names[1] == "a1" and len(set(names)) == 3 and names[3] == "a2"
    assert found[2].request().prompt.segments[0] == "Another edition."  # type: ignore[union-attr]


def test_the_mirror_names_questions_by_their_text(tmp_path: Path) -> None:
    rows = [mirror_row(), mirror_row(question="When?", hard=False), mirror_row(), mirror_row(article="A tale.")]
    found = samples(write(tmp_path / "rows.jsonl", rows))
    ids = [sample.id for sample in found]
    assert len(set(ids)) == 4 and ids[2] == f"{ids[0]}-2"
    assert [sample.details["difficult"] for sample in found] == [1, 0, 1, 1]
    assert found[0].document == found[1].document != found[3].document
    assert samples(write(tmp_path / "last.jsonl", rows[3:]))[0].id == ids[3]


def test_a_row_of_scrolls(tmp_path: Path) -> None:
    (sample,) = samples(write(tmp_path / "rows.jsonl", [scrolls_row(output=" At sea ")]))
    request = sample.request()
    assert isinstance(request, Choose)
    assert request.prompt.segments == ("A story.\n\nEnd.", "\n\nQuestion: Where?\nAnswer:")
    assert request.options == (" In Rome.", " At sea", " On a very long railway", " Nowhere")
    scores = sample.score(chosen(-2, -1, -2, -2))
    assert scores["accuracy"] == 1 and scores["accuracy_hard"] == Weighted(1, 0)


def test_an_option_that_ends_with_a_newline_leaves_the_article_as_it_is(tmp_path: Path) -> None:
    plain, odd = scrolls_row("q1"), scrolls_row("q2")
    odd["input"] = odd["input"].replace("(B) At  sea", "(B) At  sea\n").replace("Nowhere", "Nowhere\n")
    first, second = samples(write(tmp_path / "rows.jsonl", [plain, odd]))
    assert first.document == second.document and first.request() == second.request()


@pytest.mark.parametrize(
    "path, value, field",
    [
        (("article",), None, "'article' is missing"),
        (("article_id",), 7, "'article_id' must be text, not a whole number"),
        (("questions",), "Where?", "'questions' must be a list, not text"),
        (("questions", 0, "question"), "", "'questions[0].question' is empty"),
        (("questions", 0, "options"), list("abc"), "'questions[0].options' must hold 4 texts, not 3"),
        (("questions", 0, "options", 2), 5, "'questions[0].options[2]' must be text, not a whole number"),
        (("questions", 0, "options", 2), "", "'questions[0].options[2]' is empty"),
        (("questions", 0, "gold_label"), None, "'questions[0].gold_label' is missing: a split without right answers"),
        (("questions", 0, "gold_label"), 0, "'questions[0].gold_label' must be from 1 to 4, not 0"),
        (("questions", 0, "gold_label"), 5, "'questions[0].gold_label' must be from 1 to 4, not 5"),
        (("questions", 0, "difficult"), 2, "'questions[0].difficult' must be from 0 to 1, not 2"),
        (("questions", 0, "question_unique_id"), "a0-q1", "'questions[0].question_unique_id' is 'a0-q1' as in art"),
    ],
)
def test_an_article_that_does_not_fit(path: tuple[str | int, ...], value: object, field: str, tmp_path: Path) -> None:
    bad: Any = copy.deepcopy(article())
    place = bad
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    error = failure(write(tmp_path / "articles.jsonl", [article("a0"), bad]))
    assert isinstance(error, DataError)
    assert error.message.startswith("articles.jsonl, line 2: field ") and field in error.message


@pytest.mark.parametrize(
    "good, bad, field",
    [
        (mirror_row(), mirror_row(4), "'answer' must be from 0 to 3, not 4"),
        (mirror_row(), mirror_row(answer=None), "'answer' is missing"),
        (mirror_row(), mirror_row(hard="yes"), "'hard' must be true or false, not text"),
        (mirror_row(), mirror_row(options=None), "'options' is missing"),
        (scrolls_row(), scrolls_row("q2", None), "'output' is missing: a split without right answers"),
        (scrolls_row(), scrolls_row("q2", "On land"), "'output' is none of the options: On land"),
        (
            scrolls_row(),
            scrolls_row("q2", input="Where?\n\n (A) a\n (B) b\n\n\nA story."),
            "'input' must be a question",
        ),
        (scrolls_row(), scrolls_row(), "'id' is 'q1' as in rows.jsonl, line 1"),
    ],
)
def test_a_row_that_does_not_fit(good: dict[str, Any], bad: dict[str, Any], field: str, tmp_path: Path) -> None:
    error = failure(write(tmp_path / "rows.jsonl", [good, bad]))
    assert isinstance(error, DataError)
    assert error.message.startswith("rows.jsonl, line 2: field ") and field in error.message


@needs_shared
def test_both_schemas_of_development_agree() -> None:
    original = Quality.from_options({"data": str(SHARED / "quality_original_schema.jsonl.gz")}).content
    rows = Quality.from_options({"data": str(SHARED / "quality_scrolls_schema.jsonl.gz")}).content
    assert len(original.documents) == len(rows.documents) == 10
    assert len(original.questions) == len(rows.questions) == 125

    def facts(asked: ChoiceQuestion) -> tuple[str, str, tuple[str, ...], int]:
        return asked.id, " ".join(asked.text.split()), asked.options, asked.gold

    assert sorted(map(facts, original.questions)) == sorted(map(facts, rows.questions))
    assert sum(asked.difficult is not None for asked in original.questions) == 5
    texts = {asked.id: rows.documents[asked.document] for asked in rows.questions}
    for asked in original.questions:
        assert original.documents[asked.document].lstrip("\n") == texts[asked.id]


@needs_shared
def test_every_right_option_of_development_can_be_found() -> None:
    for name in ("quality_original_schema.jsonl.gz", "quality_scrolls_schema.jsonl.gz"):
        for sample in samples(SHARED / name):
            request = sample.request()
            assert isinstance(request, Choose)
            right = request.options.index(f" {sample.reference}")
            assert sample.score(chosen(*(-float(i != right) for i in range(4))))["accuracy"] == 1
