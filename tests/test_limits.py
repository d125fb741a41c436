"""How much of a task is asked: most samples, and most documents with all that is asked about them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from asked_samples import Asks, answers, asked, story
from small_runs import small_model

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError
from famcli.evaluation.asking import Limits, samples_of
from famcli.evaluation.runner import evaluate
from famcli.task import load_task

A, B, C = (story(number, 60) for number in (1, 2, 3))
SAMPLES = [asked(name, text, "\nwhy?", ()) for name, text in (("a1", A), ("b1", B), ("a2", A), ("c1", C), ("b2", B))]


def ids(samples: int | None, documents: int | None) -> list[str]:
    found = samples_of(Asks(SAMPLES), ByteTokenizer(), 0, Limits(samples, documents))
    return [sample.id for sample in found]


def test_all_that_is_asked_about_the_first_documents_is_taken() -> None:
    assert ids(None, 1) == ["a1", "a2"]
    assert ids(None, 2) == ["a1", "b1", "a2", "b2"]
    assert ids(None, 3) == ids(None, 9) == ids(None, None) == [sample.id for sample in SAMPLES]
    assert ids(4, 2) == ["a1", "b1", "a2"], "of the samples that the one leaves, those of the first documents"
    assert ids(2, 3) == ["a1", "b1"]


def test_a_task_that_takes_evenly_still_does() -> None:
    """A language's articles count one divided by their number: one of each counts one."""
    task = load_task("xlsum", {"data": "sample"})
    every = samples_of(task, ByteTokenizer(), 0, Limits())
    languages = {sample.cell["language"] for sample in every}
    assert len(every) > len(languages)
    taken = samples_of(task, ByteTokenizer(), 0, Limits(None, len(languages)))
    assert [sample.cell["language"] for sample in taken] == sorted(languages)
    answer = type("Answer", (), {"text": "a summary"})()
    assert {score.weight for sample in taken for score in sample.score(answer).values()} == {1.0}


def test_the_limit_is_part_of_the_run(tmp_path: Path) -> None:
    model = small_model()
    whole = evaluate(model, Asks(SAMPLES), results=tmp_path)
    bounded = evaluate(model, Asks(SAMPLES), results=tmp_path, limit_documents=1)
    assert whole.run_id != bounded.run_id
    assert list(answers(bounded.path)) == ["a1", "a2"]
    records = [json.loads((record.path / "run.json").read_text()) for record in (whole, bounded)]
    assert [record.get("limit_documents") for record in records] == [None, 1]
    assert "limit_documents" not in records[0]
    for name in ("a1", "a2"):
        ours, theirs = answers(bounded.path)[name], answers(whole.path)[name]
        assert (ours["prompt_sha256"], ours["answer"]) == (theirs["prompt_sha256"], theirs["answer"])
    with pytest.raises(UserError, match="limit of documents must be at least 1"):
        evaluate(model, Asks(SAMPLES), results=tmp_path, limit_documents=0)
