"""Qasper: papers as text, and the official Answer-F1 computed a second time."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from famcli.tasks.qasper import ANSWER_CHARACTERS, KINDS, PaperQuestion, Qasper
from hypothesis import given, settings
from hypothesis import strategies as st

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError
from famcli.task import DataError, Generate, Generated, Sample, Weighted

SHARED = Path(__file__).parents[2] / "shared" / "data" / "qasper"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="rows for development are not here")


def answer(
    unanswerable: bool = False, spans: Sequence[str] = (), free: str = "", yes_no: bool | None = None
) -> dict[str, Any]:
    return {"unanswerable": unanswerable, "extractive_spans": spans, "free_form_answer": free, "yes_no": yes_no}


def paper(name: str = "p1", questions: Mapping[str, Sequence[Mapping[str, Any]]] | None = None) -> dict[str, Any]:
    """A paper with the given questions and their answers, by question id, in the columns of the hub."""
    questions = {f"{name}-q1": [answer(free="Ada")]} if questions is None else questions
    return {
        "id": name,
        "title": "A Title",
        "abstract": "In short.",
        "full_text": {
            "section_name": ["Introduction", None, "Data ::: Sources"],
            "paragraphs": [["One.", "Two."], ["Unnamed."], []],
        },
        "qas": {
            "question": [f"What of {question}?" for question in questions],
            "question_id": list(questions),
            "answers": [{"answer": list(answers)} for answers in questions.values()],
        },
    }


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def samples(data: Path) -> list[Sample]:
    return Qasper.from_options({"data": str(data)}).samples(ByteTokenizer(), 0, None)


def questions(data: Path) -> Sequence[PaperQuestion]:
    return Qasper.from_options({"data": str(data)}).content.questions


def failure(path: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        samples(path)
    return caught.value


def scored(references: Sequence[tuple[str, str]], prediction: str) -> Mapping[str, float | Weighted]:
    asked = PaperQuestion(
        id="q",
        document="p",
        text="What?",
        references=tuple(text for text, _ in references),
        kinds=tuple(kind for _, kind in references),
    )
    return Qasper.from_options({}).score(asked, Generated(prediction, ()))


def counted(scores: Mapping[str, float | Weighted]) -> dict[str, float]:
    """The kinds that the question counts for."""
    kinds = {kind: scores[f"f1_{kind}"] for kind in KINDS}
    return {kind: s.value for kind, s in kinds.items() if isinstance(s, Weighted) and s.weight == 1}


def test_the_text_of_a_paper(tmp_path: Path) -> None:
    (sample,) = samples(write(tmp_path / "papers.jsonl", [paper()]))
    request = sample.request()
    assert isinstance(request, Generate)
    assert request.prompt.segments == (
        "A Title\n\nIn short.\n\nIntroduction\nOne.\nTwo.\nUnnamed.\nData ::: Sources",
        "\n\nQuestion: What of p1-q1?\nAnswer:",
    )
    assert request.stop == ("\n",) and request.max_new_tokens == ANSWER_CHARACTERS
    assert (sample.id, sample.document, sample.reference) == ("p1-q1", "p1", "Ada")


def test_answers_are_worded_as_the_official_evaluator_does(tmp_path: Path) -> None:
    given = {
        "q1": [answer(spans=["x", "y z"], free="unused"), answer(True, spans=["unused"]), answer(yes_no=False)],
        "q2": [answer(free="some text", yes_no=True), answer(yes_no=True)],
    }
    first, second = questions(write(tmp_path / "papers.jsonl", [paper(questions=given)]))
    assert first.references == ("x, y z", "Unanswerable", "No")
    assert first.kinds == ("extractive", "none", "boolean")
    assert second.references == ("some text", "Yes") and second.kinds == ("abstractive", "boolean")


def test_the_answer_type_is_that_of_most_annotators(tmp_path: Path) -> None:
    given = {
        "q1": [answer(spans=["x"]), answer(True), answer(True)],
        "q2": [answer(free="some text"), answer(yes_no=True)],
    }
    found = questions(write(tmp_path / "papers.jsonl", [paper(questions=given)]))
    assert [question.details["answer_type"] for question in found] == ["none", "abstractive"]


def test_the_original_release_has_lists_where_the_hub_has_columns(tmp_path: Path) -> None:
    columns = paper(questions={"q1": [answer(free="Ada"), answer(True)], "q2": [answer(yes_no=True)]})
    rows = copy.deepcopy(columns)
    rows["full_text"] = [
        {"section_name": name, "paragraphs": paragraphs}
        for name, paragraphs in zip(*columns["full_text"].values(), strict=True)
    ]
    names = zip(columns["qas"]["question"], columns["qas"]["question_id"], columns["qas"]["answers"], strict=True)
    rows["qas"] = [
        {"question": text, "question_id": name, "answers": [{"answer": a} for a in answers["answer"]]}
        for text, name, answers in names
    ]
    assert questions(write(tmp_path / "a.jsonl", [columns])) == questions(write(tmp_path / "b.jsonl", [rows]))


def test_edge_cases_of_the_official_f1() -> None:
    one = scored([("A cat sat down", "extractive")], "The cat sat!")
    assert one["f1"] == pytest.approx(2 * 1 * (2 / 3) / (1 + 2 / 3)) and counted(one) == {"extractive": one["f1"]}
    # Of equals the first counts, at the bottom too.
    assert counted(scored([("cat", "abstractive"), ("cat", "extractive")], "cat")) == {"abstractive": 1}
    assert counted(scored([("dog", "boolean"), ("cow", "extractive")], "cat")) == {"boolean": 0}
    # The best reference decides, not the first.
    assert counted(scored([("dog", "boolean"), ("cat", "extractive")], "cat")) == {"extractive": 1}
    # No answer is not the answer "Unanswerable", and two texts of articles alone have nothing in common.
    assert scored([("Unanswerable", "none")], "")["f1"] == 0
    assert scored([("Unanswerable", "none")], " unanswerable.")["f1"] == 1
    assert scored([("The", "extractive")], "the")["f1"] == 0
    # Words count as often as they stand there.
    assert scored([("very very good", "abstractive")], "very good good")["f1"] == pytest.approx(2 / 3)


def test_a_question_of_unknown_kind_counts_for_none(tmp_path: Path) -> None:
    row = {"id": "q1", "pid": "q1_0", "input": "What?\n\nA paper.", "output": "Yes"}
    (sample,) = samples(write(tmp_path / "rows.jsonl", [row]))
    scores = sample.score(Generated("yes", ()))
    assert scores["f1"] == scores["rouge_l"] == 1 and counted(scores) == {}


def official_f1(prediction: str, truth: str) -> float:
    """SQuAD's F1 by taking the words of one side out of the other."""
    left, right = (
        [word for word in re.sub(r"[!-/:-@[-`{-~]", "", text.lower()).split() if word not in ("a", "an", "the")]
        for text in (prediction, truth)
    )
    rest = list(right)
    for word in left:
        if word in rest:
            rest.remove(word)
    same = len(right) - len(rest)
    if same == 0:
        return 0.0
    precision, recall = same / len(left), same / len(right)
    return 2 * precision * recall / (precision + recall)


words = st.lists(st.sampled_from(["the", "A", "cat", "Cat,", "sat", "(sat)", "-", "on", "an"]), max_size=6).map(
    " ".join
)
annotators = st.lists(st.tuples(words, st.sampled_from(KINDS)), min_size=1, max_size=4)


@settings(deadline=None)
@given(st.lists(st.tuples(words, annotators), min_size=1, max_size=5))
def test_the_means_are_those_of_the_official_evaluator(asked: list[tuple[str, list[tuple[str, str]]]]) -> None:
    expected: dict[str, list[float]] = {}
    for prediction, references in asked:
        ranked = sorted(
            ((official_f1(prediction, text), -i, kind) for i, (text, kind) in enumerate(references)), reverse=True
        )
        expected.setdefault("f1", []).append(ranked[0][0])
        expected.setdefault(f"f1_{ranked[0][2]}", []).append(ranked[0][0])
    found = [scored(references, prediction) for prediction, references in asked]
    for name in ("f1", *(f"f1_{kind}" for kind in KINDS)):
        pairs = [s if isinstance(s, Weighted) else Weighted(s, 1.0) for s in (scores[name] for scores in found)]
        weight = math.fsum(pair.weight for pair in pairs)
        assert weight == len(expected.get(name, []))
        if weight:
            mean = math.fsum(pair.value * pair.weight for pair in pairs) / weight
            assert mean == pytest.approx(math.fsum(expected[name]) / weight)


@pytest.mark.parametrize(
    "path, value, field",
    [
        (("id",), None, "'id' is missing"),
        (("id",), "p0", "'id' is 'p0' as in papers.jsonl, line 1"),
        (("title",), 3, "'title' must be text, not a whole number"),
        (("abstract",), None, "'abstract' is missing"),
        (("full_text",), None, "'full_text' is missing"),
        (("full_text", "paragraphs"), [], "'full_text' holds lists of different lengths"),
        (("full_text", "paragraphs", 1), "One.", "'full_text[1].paragraphs' must be a list, not text"),
        (("full_text", "paragraphs", 0, 1), 2, "'full_text[0].paragraphs[1]' must be text, not a whole number"),
        (("qas",), None, "'qas' is missing"),
        (("qas", "question", 0), "", "'qas[0].question' is empty"),
        (("qas", "question_id", 0), "p0-q1", "'qas[0].question_id' is 'p0-q1' as in papers.jsonl, line 1"),
        (("qas", "answers", 0), [], "'qas[0].answers' is missing"),
        (("qas", "answers", 0, "answer", 0), answer(), "'qas[0].answers[0].answer.yes_no' is missing"),
        (("qas", "answers", 0, "answer", 0, "unanswerable"), "no", "'qas[0].answers[0].answer.unanswerable' must be"),
    ],
)
def test_a_paper_that_does_not_fit(path: tuple[str | int, ...], value: object, field: str, tmp_path: Path) -> None:
    bad: Any = copy.deepcopy(paper("p1"))
    place = bad
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    error = failure(write(tmp_path / "papers.jsonl", [paper("p0"), bad]))
    assert isinstance(error, DataError)
    assert error.message.startswith("papers.jsonl, line 2: field ") and field in error.message


@needs_shared
def test_both_schemas_of_the_papers_of_development_agree() -> None:
    papers = Qasper.from_options({"data": str(SHARED / "qasper_hf_schema.jsonl.gz")}).content
    rows = Qasper.from_options({"data": str(SHARED / "qasper_scrolls_schema.jsonl.gz")}).content
    assert len(papers.documents) == len(rows.documents) == 5
    assert sum(int(question.details["rows"]) for question in rows.questions) == 30

    def facts(question: PaperQuestion) -> tuple[str, str, set[str]]:
        return question.id, question.text, {text.lower() for text in question.references}

    assert sorted(map(facts, papers.questions)) == sorted(map(facts, rows.questions))
    sections = {question.id: rows.documents[question.document] for question in rows.questions}
    for question in papers.questions:
        assert papers.documents[question.document].endswith("\n\n" + sections[question.id])


@needs_shared
def test_more_papers_of_development() -> None:
    found = samples(SHARED / "qasper_extra_scrolls_schema.jsonl.gz")
    assert sum(int(sample.details["rows"]) for sample in found) == 110 and len(found) == 107
    assert len({sample.document for sample in found}) == 16
    assert "schema" in failure(SHARED).message
