"""Documents that are read once: what is answered from there is what each question alone is answered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from asked_samples import Asks, answers, asked, story
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from small_runs import journal_without_times, small_model, without_times

from famcli.checkpoints.sources import LoadedModel
from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.evaluation import stream
from famcli.evaluation.prediction import by_position, predict
from famcli.evaluation.runner import evaluate
from famcli.evaluation.stream import StateKeeper
from famcli.task import Predicted, Read, Sample, Weighted

NOTHING = StateKeeper(None)


@settings(max_examples=8, deadline=None, phases=(Phase.generate,))
@given(data=st.data())
@pytest.mark.parametrize("attention", ["fam", "bswa", "full"])
def test_grouping_changes_no_answer(attention: str, data: st.DataObject, tmp_path_factory: Any) -> None:
    """Every question from its document's state, in batches, against each question with the document before it."""
    model = small_model(attention=attention, block_size=data.draw(st.sampled_from([8, 32, 64])))
    questions = []
    for d in range(data.draw(st.integers(1, 3))):
        document = story(data.draw(st.integers(0, 99)) + 100 * d, data.draw(st.integers(1, 150)))
        for q in range(data.draw(st.integers(1, 4))):
            question = f"\n{story(q, data.draw(st.integers(0, 40)))}?"
            count = data.draw(st.sampled_from([0, 0, 2, 4]))
            options = tuple(" " + story(o, data.draw(st.integers(1, 9))) for o in range(count))
            questions.append((f"{d}-{q}", document, question, options))
    order = data.draw(st.permutations(questions))
    path = tmp_path_factory.mktemp("runs")
    together = evaluate(model, Asks([asked(*q) for q in order]), results=path, batch_size=data.draw(st.integers(1, 5)))
    alone = evaluate(model, Asks([asked(*q, alone=True) for q in questions]), results=path / "alone", batch_size=1)
    shared, single = answers(together.path), answers(alone.path)
    assert shared.keys() == single.keys() == {q[0] for q in questions}
    for name, answer in shared.items():
        other = single[name]
        assert (answer["output"], answer["prompt_sha256"]) == (other["output"], other["prompt_sha256"])
        assert answer["prompt_tokens"] == other["prompt_tokens"]
        if "log_likelihoods" in answer["answer"]:
            assert answer["answer"]["log_likelihoods"] == pytest.approx(other["answer"]["log_likelihoods"], 1e-5, 1e-5)
    documents = {document for _, document, _, _ in questions}
    rest = sum(len(question) + sum(map(len, options)) for _, _, question, options in questions)
    assert together.cost["tokens_read"] == sum(map(len, documents)) + rest
    each = sum(max(1, len(o)) * len(d + q) + sum(map(len, o)) for _, d, q, o in questions)
    assert together.cost["tokens_read_alone"] == alone.cost["tokens_read_alone"] == each


def log_likelihoods(model: LoadedModel, ids: Sequence[int]) -> torch.Tensor:
    """Of each token after the ones before it and the tokenizer's start, by one pass of the model."""
    tokens = torch.tensor([[256, *ids]])
    with torch.no_grad():
        latents, _ = model.decoder.read(tokens, model.decoder.start(1))
        scores = model.decoder.logits(latents[0, :-1]).log_softmax(-1)
    return scores


def test_options_are_weighed_as_the_text_they_make(tmp_path: Path) -> None:
    model = small_model()
    document, question, options = story(1, 90), "\nWhy?", (" a", " because", " so it is", " a")
    evaluate(model, Asks([asked("x", document, question, options)]), results=tmp_path)
    (line,) = answers(next(tmp_path.glob("asks-*"))).values()
    for option, found in zip(options, line["answer"]["log_likelihoods"], strict=True):
        prompt, answer = list((document + question).encode()), list(option.encode())
        # No start token stands before a prompt.
        tokens = torch.tensor([prompt + answer])
        with torch.no_grad():
            latents, _ = model.decoder.read(tokens, model.decoder.start(1))
            scores = model.decoder.logits(latents[0, len(prompt) - 1 : -1]).log_softmax(-1)
        assert found == pytest.approx(float(scores[range(len(answer)), answer].sum()), 1e-5, 1e-5)
    best = max(range(4), key=lambda i: line["answer"]["log_likelihoods"][i])
    assert line["output"] == options[best]
    assert line["answer"]["tokens"] == [2, 8, 9, 2]


@pytest.mark.parametrize("attention", ["fam", "bswa", "full"])
@pytest.mark.parametrize("length", [1, 31, 32, 33, 200])
def test_a_text_is_predicted_token_by_token(attention: str, length: int) -> None:
    model = small_model(attention=attention)
    ids = np.frombuffer(story(3, length).encode(), np.uint8).astype(np.int64)
    read: list[int] = []
    found = predict(model.decoder, model.tokenizer, ids, NOTHING, read.append)
    scores = log_likelihoods(model, ids.tolist())
    assert found.log_likelihoods == pytest.approx(scores[range(length), ids].numpy(), abs=1e-5)
    assert found.hits.tolist() == (scores.argmax(-1).numpy() == ids).tolist()
    assert sum(read) == length


def test_without_a_start_the_first_token_is_uniform() -> None:
    model = small_model()
    tokenizer = ByteTokenizer()
    tokenizer.text_start = None
    ids = np.frombuffer(story(3, 50).encode(), np.uint8).astype(np.int64)
    found = predict(model.decoder, tokenizer, ids, NOTHING, lambda tokens: None)
    assert found.log_likelihoods[0] == pytest.approx(-math.log(257))
    assert not found.hits[0]
    with torch.no_grad():
        latents, _ = model.decoder.read(torch.from_numpy(ids[None, :-1]), model.decoder.start(1))
        scores = model.decoder.logits(latents[0]).log_softmax(-1)
    assert found.log_likelihoods[1:] == pytest.approx(scores[range(49), ids[1:]].numpy(), abs=1e-5)


def test_a_model_that_knows_nothing_is_uniform() -> None:
    model = small_model()
    with torch.no_grad():
        model.decoder.embedding.weight.zero_()
    ids = np.frombuffer((story(4, 300)).encode(), np.uint8).astype(np.int64)
    found = predict(model.decoder, model.tokenizer, ids, NOTHING, lambda tokens: None)
    assert found.log_likelihoods == pytest.approx(np.full(300, -math.log(257)), abs=1e-6)
    assert not found.hits.any(), "of equals the lowest id, which the text does not have"


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 300), parts=st.integers(1, 70))
def test_stretches_add_up(length: int, parts: int) -> None:
    rng = np.random.default_rng(length)
    ids = rng.integers(97, 123, length)
    found = predict_stub(rng, length)
    curve = by_position(found, ids, ByteTokenizer().decode, parts)
    assert sum(part["tokens"] for part in curve) == sum(part["bytes"] for part in curve) == length
    assert sum(part["hits"] for part in curve) == found.hits.sum()
    assert sum(part["log_likelihood"] for part in curve) == pytest.approx(float(found.log_likelihoods.sum()))
    sizes = {part["tokens"] for part in curve}
    assert len(curve) == min(parts, length) and max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("characters", [1, 3, 40, 500])
def test_stretches_cut_no_character(characters: int) -> None:
    text = "é€𝄞a" * characters
    ids = np.frombuffer(text.encode(), np.uint8).astype(np.int64)
    curve = by_position(predict_stub(np.random.default_rng(0), len(ids)), ids, ByteTokenizer().decode)
    assert [part["bytes"] for part in curve] == [part["tokens"] for part in curve]
    assert sum(part["bytes"] for part in curve) == len(ids)


def predict_stub(rng: np.random.Generator, length: int) -> Any:
    from famcli.evaluation.prediction import Prediction

    return Prediction(-rng.random(length).astype(np.float32), rng.random(length) < 0.5, "", 0)


# A run that is broken off in the middle of a document


def perplexity(name: str, text: str) -> Sample:
    def score(answer: Predicted) -> dict[str, Weighted]:
        tokens = len(answer.hits)
        return {"length": Weighted(float(-answer.log_likelihoods.sum(dtype=np.float64)) / tokens, tokens)}

    return Sample(name, {}, "", lambda: Read(text), score, document=name)


class Stop:
    """Breaks a run off after so many tokens, and counts the tokens of the next."""

    def __init__(self, after: float = math.inf) -> None:
        self.after, self.read = after, 0

    def begin(self, samples: int, done: int, tokens: int) -> None:
        self.expected = tokens

    def advance(self, tokens: int) -> None:
        self.read += tokens
        if self.read > self.after:
            raise KeyboardInterrupt

    def end(self) -> None:
        pass


@pytest.mark.parametrize("attention", ["fam", "bswa"])
@pytest.mark.parametrize("kind", ["read", "choose"])
def test_a_broken_run_goes_on_in_the_middle_of_a_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attention: str, kind: str
) -> None:
    monkeypatch.setattr(stream, "KEEP_EVERY", 4)
    model, text = small_model(attention=attention), story(5, 1500)
    samples = [perplexity("x", text)] if kind == "read" else [asked(q, text, f"\n{q}", (" a", " b")) for q in "pq"]
    whole = evaluate(model, Asks(samples), results=tmp_path / "whole")
    seen: list[int] = []
    read, prefill = model.decoder.read, model.decoder.prefill

    def counted(function: Any) -> Any:
        return lambda tokens, state: (seen.append(tokens.numel()), function(tokens, state))[1]

    monkeypatch.setattr(model.decoder, "read", counted(read))
    monkeypatch.setattr(model.decoder, "prefill", counted(prefill))
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, Asks(samples), results=tmp_path, progress=Stop(after=1000))
    assert sum(seen) >= 1000
    seen.clear()
    again = Stop()
    broken = evaluate(model, Asks(samples), results=tmp_path, progress=again)
    assert sum(seen) < 700, "7 times 4 blocks of 32 tokens were kept"
    assert again.read == again.expected
    assert without_times(broken) == without_times(whole)
    lines = [journal_without_times(run.path / "samples.jsonl") for run in (broken, whole)]
    assert lines[0] == lines[1]
    assert sorted(path.name for path in broken.path.iterdir()) == ["run.json", "samples.jsonl"]


@pytest.mark.parametrize("rows", [1, 3])
def test_a_broken_run_goes_on_in_the_middle_of_prompts_that_share_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """Read together, and so kept together: by a clock that takes a second for each token of a prompt."""
    monkeypatch.setattr(stream, "KEEP_EVERY", 4)
    model, clock = small_model(), [0.0]
    samples = [asked(str(i), story(i, 1500), "?", (), alone=True) for i in range(rows)]
    read = model.decoder.prefill

    def timed(tokens: Any, state: Any) -> Any:
        clock[0] += tokens.shape[1]
        return read(tokens, state)

    monkeypatch.setattr(model.decoder, "prefill", timed)
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    whole = evaluate(model, Asks(samples), results=tmp_path / "whole")
    assert whole.cost["seconds"] == pytest.approx(1500)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, Asks(samples), results=tmp_path, progress=Stop(after=1000 * rows))
    clock[0] = 0.0
    again = Stop()
    broken = evaluate(model, Asks(samples), results=tmp_path, progress=again)
    assert clock[0] == 1500 - 7 * 4 * 32, "7 times 4 blocks of 32 tokens were kept"
    assert broken.cost["seconds"] == pytest.approx(1500)
    assert again.read == again.expected
    assert without_times(broken) == without_times(whole)
    lines = [journal_without_times(run.path / "samples.jsonl") for run in (broken, whole)]
    assert lines[0] == lines[1]
    assert sorted(path.name for path in broken.path.iterdir()) == ["run.json", "samples.jsonl"]


def test_a_kept_state_of_other_prompts_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of two batches of one length is not gone on with from where the first one was kept."""
    monkeypatch.setattr(stream, "KEEP_EVERY", 4)
    samples = [asked(str(i), story(i, 600), "?", (), alone=True) for i in range(2)]
    kept = evaluate(small_model(), Asks(samples), results=tmp_path, batch_size=1)
    monkeypatch.setattr(stream, "KEEP_EVERY", 1 << 20)
    plain = evaluate(small_model(), Asks(samples), results=tmp_path / "plain", batch_size=1)
    assert answers(kept.path)["1"]["answer"] == answers(plain.path)["1"]["answer"]


def test_texts_of_one_length_are_kept_one_by_one(tmp_path: Path) -> None:
    samples = [perplexity(str(i), story(i, 400)) for i in range(3)]
    with pytest.raises(KeyboardInterrupt):
        evaluate(small_model(), Asks(samples), results=tmp_path, progress=Stop(after=1000))
    (journal,) = tmp_path.glob("*/samples.jsonl")
    assert len(journal.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("kind", "after", "again"),
    [
        ("read", 1000, 0),
        ("choose", 1000, 0),
        # One answer is in the journal, with the seconds of the whole reading; what follows block 44 is read once more.
        ("choose", 1503, 1500 - 44 * 32),
    ],
)
def test_the_seconds_of_a_broken_reading_are_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, after: int, again: int
) -> None:
    """By a clock that takes a second for each token of the document, and none for questions and options."""
    monkeypatch.setattr(stream, "KEEP_EVERY", 4)
    model, text, clock = small_model(), story(5, 1500), [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def timed(function: Any) -> Any:
        def call(tokens: Any, state: Any) -> Any:
            clock[0] += tokens.numel() if tokens.shape[1] > 1 else 0
            return function(tokens, state)

        return call

    for name in ("read", "prefill"):
        monkeypatch.setattr(model.decoder, name, timed(getattr(model.decoder, name)))
    samples = [perplexity("x", text)] if kind == "read" else [asked(q, text, q, ("a", "b")) for q in "pq"]
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, Asks(samples), results=tmp_path, batch_size=1, progress=Stop(after))
    record = evaluate(model, Asks(samples), results=tmp_path, batch_size=1)
    assert record.cost["seconds"] == 1500 + again


def test_a_kept_state_of_something_else_is_not_taken(tmp_path: Path) -> None:
    model, keeper = small_model(), StateKeeper(tmp_path)
    keeper.keep("one", model.decoder.start(1), {})
    assert keeper.recall("other", model.stream) is None
    assert keeper.recall("one", model.stream) is not None
    (tmp_path / stream.STATE_NAME).write_bytes(b"torn")
    assert keeper.recall("one", model.stream) is None
