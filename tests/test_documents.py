"""What the tasks on documents share: options, prompts, the schema of SCROLLS."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from famcli.tasks.documents import (
    CUE,
    QUESTION,
    QUESTION_TEMPLATE,
    Position,
    generation_budget,
    prompt,
    text_id,
    unique_ids,
)
from famcli.tasks.narrativeqa import NarrativeQA
from famcli.tasks.qasper import Qasper
from famcli.tasks.quality import Quality
from famcli.tasks.questions import QuestionTask
from hypothesis import given
from hypothesis import strategies as st

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError
from famcli.task import Choose, Chosen, DataError, Generate, Generated, Sample, Weighted

TASKS: list[type[QuestionTask[Any]]] = [NarrativeQA, Qasper, Quality]
POSITIONS: list[Position] = ["after", "before", "both"]


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def scrolls(name: str, question: str, document: str, output: str | None) -> dict[str, Any]:
    return {"id": name, "pid": f"{name}_0", "input": f"{question}\n\n{document}", "output": output}


def samples(task: type[QuestionTask[Any]], data: Path | str, **options: str) -> list[Sample]:
    return task.from_options({"data": str(data), **options}).samples(ByteTokenizer(), 0, None)


def asked(sample: Sample) -> Generate | Choose:
    request = sample.request()
    assert isinstance(request, Generate | Choose)
    return request


def failure(task: type[QuestionTask[Any]], path: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        samples(task, path)
    return caught.value


@given(st.text(), st.text(min_size=1))
def test_after_puts_the_words_of_the_template_around_document_and_question(document: str, question: str) -> None:
    made = prompt(document, QUESTION.format(question=question), CUE, "after")
    assert "".join(map(str, made.segments)) == QUESTION_TEMPLATE.format(document=document, question=question)


def test_the_three_layouts() -> None:
    document = "Once.\n\nUpon a time.\n"
    layouts = {position: prompt(document, "Question: Who?", "Answer:", position) for position in POSITIONS}
    assert layouts["after"].segments == (document, "\n\nQuestion: Who?\nAnswer:")
    assert layouts["before"].segments == ("Question: Who?\n\n", document, "\n\nAnswer:")
    assert layouts["both"].segments == ("Question: Who?\n\n", document, "\n\nQuestion: Who?\nAnswer:")
    assert all(made.document is not None and made.segments[made.document] == document for made in layouts.values())


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("task", TASKS)
def test_questions_share_their_document(task: type[QuestionTask[Any]], position: Position) -> None:
    found = samples(task, "sample", question_position=position)
    documents: dict[str | None, object] = {}
    for sample in found:
        made = asked(sample).prompt
        assert made.document == (0 if position == "after" else 1)
        assert documents.setdefault(sample.document, made.segments[made.document]) is made.segments[made.document]
    assert 1 < len(documents) < len(found)
    assert len({text_id(str(text)) for text in documents.values()}) == len(documents)


@pytest.mark.parametrize("task", TASKS)
def test_a_perfect_answer_scores_one(task: type[QuestionTask[Any]]) -> None:
    counted = dict.fromkeys((spec.name for spec in task.metrics), 0.0)
    loaded = task.from_options({"data": "sample"})
    for sample, question in zip(loaded.samples(ByteTokenizer(), 0, None), loaded.content.questions, strict=True):
        request = sample.request()
        if isinstance(request, Choose):
            likely = tuple(0.0 if i == question.gold else -1e3 for i in range(len(request.options)))
            scores = sample.score(Chosen(likely, (1,) * len(likely)))
        else:
            scores = sample.score(Generated(question.references[0], ()))
        assert list(scores) == list(counted)
        for name, score in scores.items():
            value, weight = score if isinstance(score, Weighted) else Weighted(score, 1.0)
            assert weight == 0 or value == 1, (sample.id, name)
            counted[name] += weight
    assert all(counted.values()), counted  # the sample shows every metric


@pytest.mark.parametrize("task", TASKS)
def test_samples_are_those_of_the_data_in_its_order(task: type[QuestionTask[Any]]) -> None:
    loaded = task.from_options({"data": "sample"})
    ids = [sample.id for sample in loaded.samples(ByteTokenizer(), 0, None)]
    assert len(set(ids)) == len(ids)
    assert [sample.id for sample in loaded.samples(ByteTokenizer(), 7, 2)] == ids[:2]
    assert loaded.samples(ByteTokenizer(), 0, 0) == []


@pytest.mark.parametrize("task", TASKS)
def test_provenance_goes_into_a_record(task: type[QuestionTask[Any]]) -> None:
    found = json.loads(json.dumps(task.from_options({"data": "sample"}).provenance()))
    assert found["source"] == "sample" and len(found["sha256"]) == 64 and found["rows"] > 0


@pytest.mark.parametrize("task", TASKS)
def test_without_data_the_error_says_what_to_type(
    task: type[QuestionTask[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAMCLI_DATA", str(tmp_path))
    with pytest.raises(UserError) as caught:
        task.from_options({}).samples(ByteTokenizer(), 0, None)
    assert task.name in caught.value.message and "--data sample" in str(caught.value.hint)


def test_an_unknown_position_is_an_error_that_names_the_known() -> None:
    with pytest.raises(UserError, match="'question_position' must be one of after,before,both, not 'middle'"):
        NarrativeQA.from_options({"question_position": "middle"})


@pytest.mark.parametrize("characters", [1, 64, 256, 1000])
def test_the_budget_is_as_long_for_every_tokenizer(characters: int) -> None:
    class Pairs:
        def encode(self, text: str) -> list[int]:
            return [0] * len(text[::2])

    assert generation_budget(ByteTokenizer(), characters) == characters
    assert generation_budget(Pairs(), characters) == (characters + 1) // 2


@given(st.lists(st.sampled_from(["a", "a-2", "a-2-2", "b"])))
def test_unique_ids(wanted: list[str]) -> None:
    found = unique_ids(wanted)
    assert len(found) == len(wanted) == len(set(found))
    assert all(name.startswith(first) for name, first in zip(found, wanted, strict=True))
    assert unique_ids(found) == found


SCROLLS_TASKS: list[type[QuestionTask[Any]]] = [NarrativeQA, Qasper]


@pytest.mark.parametrize("task", SCROLLS_TASKS)
def test_scrolls_rows_of_one_question_are_one_sample(task: type[QuestionTask[Any]], tmp_path: Path) -> None:
    rows = [
        scrolls("q1", "Who?", "A story.\n\nIts end.", "Ada"),
        scrolls("q2", "Who?", "Another story.", "Eve"),
        scrolls("q1", "Who?", "A story.\n\nIts end.", "Ada L."),
        scrolls("q3", "When?", "A story.\n\nIts end.", "Now"),
    ]
    found = samples(task, write(tmp_path / "rows.jsonl", rows))
    assert [(sample.id, sample.reference, sample.details["rows"]) for sample in found] == [
        ("q1", "Ada | Ada L.", 2),
        ("q2", "Eve", 1),
        ("q3", "Now", 1),
    ]
    assert found[0].document == found[2].document != found[1].document
    assert asked(found[0]).prompt.segments == ("A story.\n\nIts end.", "\n\nQuestion: Who?\nAnswer:")
    for answer in ("Ada", "Ada L."):
        assert found[0].score(Generated(f" {answer}", ()))["f1"] == 1


@pytest.mark.parametrize("task", SCROLLS_TASKS)
@pytest.mark.parametrize(
    "bad, field",
    [
        ({"input": "no document"}, "'input' must be a question, a blank line and a document"),
        ({"input": "\n\nno question"}, "'input' must be"),
        ({"input": 3}, "'input' must be text, not a whole number"),
        ({"output": None}, "'output' is missing"),
        ({"output": ""}, "'output' is missing"),
        ({"output": ["x"]}, "'output' must be text, not a list"),
        ({"id": None}, "'id' is missing"),
        ({"id": "q1"}, "'id' is 'q1' as in rows.jsonl, line 1, but"),
    ],
)
def test_a_scrolls_row_that_does_not_fit(
    task: type[QuestionTask[Any]], bad: dict[str, Any], field: str, tmp_path: Path
) -> None:
    rows = [scrolls("q1", "Who?", "A story.", "Ada"), scrolls("q2", "Why?", "A story.", "Eve") | bad]
    error = failure(task, write(tmp_path / "rows.jsonl", rows))
    assert isinstance(error, DataError)
    assert error.message.startswith("rows.jsonl, line 2: field ") and field in error.message


def test_no_answers_hints_at_another_split(tmp_path: Path) -> None:
    error = failure(NarrativeQA, write(tmp_path / "test.jsonl", [scrolls("q1", "Who?", "A story.", None)]))
    assert "validation" in str(error.hint)


@pytest.mark.parametrize("task, mark", [(NarrativeQA, "document"), (Qasper, "qas"), (Quality, "questions")])
def test_a_mixture_of_schemas_names_where(task: type[QuestionTask[Any]], mark: str, tmp_path: Path) -> None:
    choices = "Who?\n\n (A) a\n (B) b\n (C) c\n (D) d\n\n\nA story."
    text = choices if task is Quality else "Who?\n\nA story."
    write(tmp_path / "a.jsonl", [{"id": "q1", "pid": "q1_0", "input": text, "output": "a"}])
    write(tmp_path / "b.jsonl", [{mark: []}])
    error = failure(task, tmp_path)
    assert all(part in error.message for part in ("b.jsonl, line 1", f"'{mark}'", "a.jsonl, line 1", "SCROLLS"))


@pytest.mark.parametrize("task", TASKS)
def test_a_record_of_nothing_known_names_the_fields_it_could_have(
    task: type[QuestionTask[Any]], tmp_path: Path
) -> None:
    error = failure(task, write(tmp_path / "rows.jsonl", [{"prompt": "x"}]))
    assert error.message.startswith("rows.jsonl, line 1: field ") and "'input'" in error.message
    both = failure(task, write(tmp_path / "rows.jsonl", [{"input": "x", "options": [], "document": {}, "qas": []}]))
    assert "several schemas" in both.message and "line 1" in both.message
