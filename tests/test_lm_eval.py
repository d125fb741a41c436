"""lm-evaluation-harness over the same weights: it shares nothing and batches nothing, and finds the same."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import prompt_ids

from famcli.checkpoints.registry import find_model
from famcli.checkpoints.sources import LoadedModel
from famcli.evaluation.prediction import predict
from famcli.evaluation.record import RunRecord
from famcli.evaluation.runner import evaluate
from famcli.evaluation.stream import StateKeeper
from famcli.task import Generate, load_task

pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance
from lm_eval_partner import DecoderLM, quality_task, reading_task, run

SAMPLES = Path(__file__).parents[1] / "tasks" / "samples"
TOLERANCE = 1e-4
ROUNDING = 1e-7
"""Of sums over thousands of tokens, relative to them."""
GERMAN = "Über sieben Brücken mußt du gehn – 日本語も少し。\n" * 20


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a test reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")


@pytest.fixture(scope="module", params=["fam-tiny", "bswa-tiny"])
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return find_model(request.param).load(torch.device("cpu"), torch.float32)


def records(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SAMPLES / name).read_text(encoding="utf-8").splitlines()]


def answers(record: RunRecord) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (record.path / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


def ask(lm: DecoderLM, kind: str, *arguments: Any) -> Any:
    """The harness's answer to one request."""
    (answer,) = getattr(lm, kind)([Instance(kind, {}, arguments, 0)])
    return answer


def test_choices_on_a_shared_document(model: LoadedModel, tmp_path: Path) -> None:
    lm = DecoderLM(model.decoder)
    means, samples = run(lm, quality_task(records("quality.jsonl")))
    record = evaluate(model, load_task("quality", {"data": "sample"}), results=tmp_path)
    entries = answers(record)
    assert {entry["id"] for entry in entries} == samples.keys() and len(entries) == 6
    for entry in entries:
        theirs = samples[entry["id"]]
        expected = [likelihood for likelihood, _ in theirs["filtered_resps"]]
        assert entry["answer"]["log_likelihoods"] == pytest.approx(expected, abs=TOLERANCE, rel=0)
        assert (entry["scores"]["accuracy"], entry["scores"]["accuracy_norm"]) == (theirs["acc"], theirs["acc_norm"])
    assert record.metrics["accuracy"].value == pytest.approx(means["acc,none"])
    assert record.metrics["accuracy_norm"].value == pytest.approx(means["acc_norm,none"])
    # A document is read once here, once for every option there; the harness leaves out each option's last token.
    assert record.cost["tokens_read_alone"] == lm.tokens_read + 4 * len(entries)
    assert record.cost["tokens_read"] < lm.tokens_read / 8


def test_means_over_whole_texts(model: LoadedModel, tmp_path: Path) -> None:
    # Stripped, because the harness counts a word after a newline that ends the text.
    books = [book | {"text": book["text"].strip()} for book in records("pg19.jsonl")]
    data = tmp_path / "books.jsonl"
    data.write_text("".join(json.dumps(book) + "\n" for book in books), encoding="utf-8")
    means, samples = run(DecoderLM(model.decoder), reading_task(books))
    record = evaluate(model, load_task("pg19", {"data": str(data)}), results=tmp_path)
    assert samples.keys() == {entry["id"] for entry in answers(record)} and len(samples) == 2
    for entry in answers(record):
        likelihood = sum(part["log_likelihood"] for part in entry["answer"]["by_position"])
        assert likelihood == pytest.approx(samples[entry["id"]]["filtered_resps"][0], abs=TOLERANCE, rel=ROUNDING)
    names = {
        "bits_per_byte": "bits_per_byte",
        "token_perplexity": "byte_perplexity",
        "perplexity_per_scored_word": "word_perplexity",
    }
    for ours, theirs in names.items():
        assert record.metrics[ours].value == pytest.approx(means[f"{theirs},none"], rel=1e-6)


@pytest.mark.parametrize("length", [1, 4095, 4096, 4097, None])
def test_every_token_of_a_text(model: LoadedModel, length: int | None) -> None:
    text = ("".join(book["text"] for book in records("pg19.jsonl"))[:length]) if length else GERMAN
    ids = np.array(model.tokenizer.encode(text))
    found = predict(model.decoder, model.tokenizer, ids, StateKeeper(None), lambda tokens: None)
    expected = ask(DecoderLM(model.decoder), "loglikelihood_rolling", text)
    assert found.log_likelihoods.sum(dtype=np.float64) == pytest.approx(expected, abs=TOLERANCE, rel=ROUNDING)


def test_answers_that_are_generated(model: LoadedModel, tmp_path: Path) -> None:
    task = load_task("passkey", {"lengths": "400,700", "trials": "2"})
    outputs = {entry["id"]: entry["output"] for entry in answers(evaluate(model, task, results=tmp_path))}
    lm = DecoderLM(model.decoder)
    for sample in task.samples(model.tokenizer, 0, None):
        request = sample.request()
        assert isinstance(request, Generate)
        prompt = model.tokenizer.decode(prompt_ids(request.prompt, model.tokenizer))
        settings = {"until": [], "max_gen_toks": request.max_new_tokens}
        assert outputs[sample.id] == ask(lm, "generate_until", prompt, settings)
