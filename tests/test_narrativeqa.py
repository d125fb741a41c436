"""NarrativeQA: stories kept once, completed from other rows, and scored."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from famcli.tasks.narrativeqa import ANSWER_CHARACTERS, NarrativeQA

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError
from famcli.task import DataError, Generate, Generated, Sample

SHARED = Path(__file__).parents[2] / "shared" / "data" / "narrativeqa"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="rows for development are not here")


def document(name: str, text: str) -> dict[str, Any]:
    return {"id": name, "kind": "gutenberg", "summary": {"text": "In short."}, "text": text}


def row(name: str, text: str, question: str = "Who?", answers: Sequence[str] = ("Ada", "Eve")) -> dict[str, Any]:
    return {
        "document": document(name, text),
        "question": {"text": question, "tokens": []},
        "answers": [{"text": answer, "tokens": []} for answer in answers],
    }


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def samples(data: Path, limit: int | None = None) -> list[Sample]:
    return NarrativeQA.from_options({"data": str(data)}).samples(ByteTokenizer(), 0, limit)


def failure(path: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        samples(path)
    return caught.value


def test_a_question_is_a_line_after_the_whole_story(tmp_path: Path) -> None:
    (sample,) = samples(write(tmp_path / "rows.jsonl", [row("d1", "\n  A story.\n\n", "Who is {it}?")]))
    request = sample.request()
    assert isinstance(request, Generate)
    assert request.prompt.segments == ("\n  A story.\n\n", "\n\nQuestion: Who is {it}?\nAnswer:")
    assert request.stop == ("\n",) and request.max_new_tokens == ANSWER_CHARACTERS
    assert sample.document == "d1" and sample.reference == "Ada | Eve" and sample.details == {}


def test_an_empty_story_is_taken_from_another_row(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [row("d1", ""), row("d2", "Second story.", "When?"), row("d2", " ", "Where?")])
    write(tmp_path / "b.jsonl", [document("d1", "First story.")])
    found = samples(tmp_path)
    assert [sample.details for sample in found] == [
        {"story_from": "b.jsonl, line 1"},
        {},
        {"story_from": "a.jsonl, line 2"},
    ]
    stories = [sample.request().prompt.segments[0] for sample in found]  # type: ignore[union-attr]
    assert stories == ["First story.", "Second story.", "Second story."]


def test_a_story_that_is_nowhere_is_an_error(tmp_path: Path) -> None:
    rows = [row("d1", "A story."), row("d2", ""), row("d3", ""), row("d2", "", "Why?")]
    error = failure(write(tmp_path / "rows.jsonl", rows))
    assert "rows.jsonl, line 2: field 'document.text' is empty" in error.message
    assert "document d2" in error.message and "2 of 3 documents" in error.message and error.hint


def test_stories_without_questions_are_an_error(tmp_path: Path) -> None:
    error = failure(write(tmp_path / "rows.jsonl", [document("d1", "A story.")]))
    assert "stories without questions" in error.message and error.hint


def test_one_document_with_two_stories_is_an_error(tmp_path: Path) -> None:
    error = failure(write(tmp_path / "rows.jsonl", [row("d1", "A story."), row("d1", "A tale.", "Why?")]))
    assert "line 2: field 'document.text'" in error.message and "line 1" in error.message


def test_a_question_with_and_without_its_story_would_count_twice(tmp_path: Path) -> None:
    write(tmp_path / "full.jsonl", [row("d1", "A story.")])
    write(tmp_path / "short.jsonl", [row("d1", "")])
    error = failure(tmp_path)
    assert "short.jsonl, line 1" in error.message and "full.jsonl, line 1" in error.message


def test_ids_depend_on_document_and_question_alone(tmp_path: Path) -> None:
    rows = [row("d1", "A story."), row("d1", "A story.", "Why?"), row("d2", "A tale."), row("d1", "A story.")]
    ids = [sample.id for sample in samples(write(tmp_path / "rows.jsonl", rows))]
    assert len(set(ids)) == 4 and ids[3] == f"{ids[0]}-2"
    assert [sample.id for sample in samples(write(tmp_path / "fewer.jsonl", rows[1:3]))] == ids[1:3]


@pytest.mark.parametrize(
    "path, value, field",
    [
        (("document",), None, "'document' is missing"),
        (("document",), "text", "'document' must be an object, not text"),
        (("document", "id"), None, "'document.id' is missing"),
        (("document", "text"), None, "'document.text' is missing"),
        (("document", "text"), 3, "'document.text' must be text, not a whole number"),
        (("question",), None, "'question.text' is missing"),
        (("question", "text"), "", "'question.text' is empty"),
        (("answers",), [], "'answers' is missing"),
        (("answers",), "Ada", "'answers' must be a list, not text"),
        (("answers", 1), "Eve", "'answers[1]' must be an object, not text"),
        (("answers", 1, "text"), None, "'answers[1].text' is missing"),
    ],
)
def test_a_row_that_does_not_fit(path: tuple[str | int, ...], value: object, field: str, tmp_path: Path) -> None:
    bad: Any = copy.deepcopy(row("d1", "A story."))
    place = bad
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    error = failure(write(tmp_path / "rows.jsonl", [row("d2", "A tale."), bad]))
    assert isinstance(error, DataError)
    assert error.message.startswith("rows.jsonl, line 2: field ") and field in error.message


def test_a_row_without_a_document_is_not_taken_for_a_story(tmp_path: Path) -> None:
    error = failure(write(tmp_path / "rows.jsonl", [{"question": {"text": "Who?"}, "answers": []}]))
    assert "line 1: field 'document' is missing" in error.message


def test_scores_take_the_best_reference(tmp_path: Path) -> None:
    answers = ("the red house", "a cottage by the old sea wall")
    (sample,) = samples(write(tmp_path / "rows.jsonl", [row("d1", "A story.", answers=answers)]))
    scores = sample.score(Generated(" Red house", ()))
    # F1 leaves out "the"; ROUGE-L keeps it: precision 1, recall 2/3.
    assert scores["f1"] == 1 and scores["rouge_l"] == pytest.approx(0.8)
    # BLEU takes n-grams 3 of 4, 2 of 3, 1 of 2, and half a match for 0 of 1; no reference of closest length is longer.
    scores = sample.score(Generated("the red house there", ()))
    assert scores["bleu_1"] == pytest.approx(3 / 4)
    assert scores["bleu_4"] == pytest.approx((3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25)
    assert sample.score(Generated("", ())) == {"rouge_l": 0, "f1": 0, "bleu_1": 0, "bleu_4": 0}


@needs_shared
def test_the_questions_of_development_are_completed(tmp_path: Path) -> None:
    for name in ("documents.jsonl.gz", "qas_all_no_text.jsonl.gz"):
        shutil.copy(SHARED / name, tmp_path)
    found = samples(tmp_path)
    assert len(found) == 411 and len({sample.document for sample in found}) == 14
    assert len({sample.id for sample in found}) == 411
    assert all(str(sample.details["story_from"]).startswith("documents.jsonl.gz, line ") for sample in found)
    full = samples(SHARED / "narrativeqa_full_text.jsonl.gz")
    assert len(full) == 47 and len({sample.document for sample in full}) == 14
    by_id = {sample.id: sample for sample in found}
    for sample in full:  # the same question has the same name and prompt in either file
        assert by_id[sample.id].reference == sample.reference
        assert by_id[sample.id].request() == sample.request()


@needs_shared
def test_questions_on_summaries_alone_are_an_error() -> None:
    assert "111 of 111 documents have none" in failure(SHARED / "summaries_validation.jsonl.gz").message
    assert failure(SHARED).hint
