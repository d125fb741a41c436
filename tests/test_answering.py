"""Documents that are read once: what is answered from there is what each question alone is answered."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from small_runs import journal_without_times, small_model, without_times

from famcli.errors import UserError
from famcli.evaluation import stream
from famcli.evaluation.plan import measure, plan
from famcli.evaluation.prediction import by_position, predict
from famcli.evaluation.prompts import CUT_STEP, Context, Side
from famcli.evaluation.runner import evaluate
from famcli.evaluation.stream import StateKeeper
from famcli.models.registry import LoadedModel
from famcli.models.tokenizer import ByteTokenizer
from famcli.task import Choose, Generate, MetricSpec, Predicted, Prompt, Read, Request, Sample, Task, Weighted

NOTHING = StateKeeper(None)


@dataclass(frozen=True)
class NoOptions:
    pass


class Asks(Task):
    """A task made of given samples."""

    name = "asks"
    version = 1
    summary = "given samples"
    metrics = (MetricSpec("length"),)
    Options = NoOptions

    def __init__(self, samples: Sequence[Sample]) -> None:
        super().__init__(NoOptions())
        self.given = list(samples)

    def samples(self, tokenizer: Any, seed: int, limit: int | None) -> list[Sample]:
        return self.given[:limit]


def story(number: int, length: int) -> str:
    rng = np.random.default_rng(number)
    return "".join(rng.choice(list("abcdefg hij.\n"), length))


def asked(name: str, document: str, question: str, options: tuple[str, ...], alone: bool = False) -> Sample:
    prompt = Prompt((document, question), document=0)
    request: Request = Choose(prompt, options) if options else Generate(prompt, 5)
    return Sample(
        name, {}, "", lambda: request, lambda answer: {"length": 1.0}, document=None if alone else document[:12]
    )


def answers(path: Path) -> dict[str, dict[str, Any]]:
    lines = (path / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    return {line["id"]: line for line in map(json.loads, lines)}


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
    assert keeper.recall("other", model.device) is None
    assert keeper.recall("one", model.device) is not None
    (tmp_path / stream.STATE_NAME).write_bytes(b"torn")
    assert keeper.recall("one", model.device) is None


# Truncation


@given(
    length=st.integers(1, 2000),
    rest=st.integers(1, 300),
    bound=st.integers(301, 1500),
    side=st.sampled_from(["left", "right", "middle"]),
)
def test_what_is_cut_is_the_document_and_no_more_than_needed(length: int, rest: int, bound: int, side: Side) -> None:
    context = Context(bound, side)
    kept = context.kept(length, rest, "x")
    assert kept + rest <= bound
    assert kept == length or bound - rest - kept < CUT_STEP
    ids = np.arange(length)
    cut = context.cut(ids, kept).tolist()
    assert len(cut) == kept and cut == sorted(set(cut))
    if side == "right":
        assert cut == list(range(kept))
    elif side == "left":
        assert cut == list(range(length - kept, length))
    else:
        assert cut[: kept // 2] == list(range(kept // 2)) and cut[::-1][: kept // 2] == list(
            range(length - 1, length - 1 - kept // 2, -1)
        )


@pytest.mark.parametrize("side", ["left", "right", "middle"])
def test_truncation_is_recorded_and_spares_the_question(tmp_path: Path, side: Side) -> None:
    model, document = small_model(), story(6, 900)
    samples = [asked(str(i), document, "\n" + "why " * i + "?", (" a", " bc")) for i in (1, 2, 30)]
    record = evaluate(model, Asks(samples), results=tmp_path, max_context=400, truncate=side)
    lines = answers(record.path)
    for sample in samples:
        line = lines[sample.id]
        request = sample.request()
        assert isinstance(request, Choose)
        kept = line["prompt_tokens"] - len(str(request.prompt.segments[1]))
        text = document[: (kept + 1) // 2] + document[900 - kept // 2 :] if side == "middle" else document[:kept]
        text = document[900 - kept :] if side == "left" else text
        alone = asked(sample.id, text, str(request.prompt.segments[1]), request.options, alone=True)
        other = answers(evaluate(model, Asks([alone]), results=tmp_path / side / sample.id).path)[sample.id]
        assert line["prompt_sha256"] == other["prompt_sha256"]
        assert (line["cut_tokens"], other["cut_tokens"]) == (900 - kept, 0)
        assert line["prompt_tokens"] + 3 <= 400
    assert record.cost["tokens_cut"] == sum(line["cut_tokens"] for line in lines.values())
    assert record.context == {"max_context": 400, "truncate": side}


def test_what_does_not_fit_is_an_error_unless_it_may_be_cut(tmp_path: Path) -> None:
    long = Asks([asked("x", story(7, 500), "\nwhy?", ())])
    with pytest.raises(UserError, match=r"sample x takes 510 tokens, more than the context of 400"):
        evaluate(small_model(), long, results=tmp_path, max_context=400)
    full = small_model(attention="full", trained_context=400)
    with pytest.raises(UserError, match=r"more than the context of 400"):
        evaluate(full, long, results=tmp_path)
    assert evaluate(full, long, results=tmp_path, truncate="left").cost["tokens_cut"] == 500 - 384
    assert evaluate(full, long, results=tmp_path, max_context=600).cost["tokens_cut"] == 0
    with pytest.raises(UserError, match="--truncate needs the length"):
        evaluate(small_model(), long, results=tmp_path, truncate="left")
    with pytest.raises(UserError, match="question and answer alone take 10 tokens of a context of 10"):
        evaluate(small_model(), long, results=tmp_path, max_context=10, truncate="left")
    without = Asks([Sample("y", {}, "", lambda: Generate(Prompt(("a" * 50,)), 5), lambda answer: {"length": 1.0})])
    with pytest.raises(UserError, match="sample y takes 55 tokens"):
        evaluate(small_model(), without, results=tmp_path, max_context=54, truncate="left")


def test_a_text_by_itself_is_read_up_to_the_bound(tmp_path: Path) -> None:
    """It has no question, so no question can share it, and there is no reason to leave out more than was asked."""
    text = Sample("x", {}, "", lambda: Read(story(3, 900)), lambda answer: {"length": 1.0}, document="x")
    record = evaluate(small_model(), Asks([text]), results=tmp_path, max_context=400, truncate="right")
    assert (record.cost["tokens_read"], record.cost["tokens_cut"]) == (400, 500)


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (Choose(Prompt(("story", "?"), document=0), (" a", "")), "an option has no tokens"),
        (Choose(Prompt(("story", "?"), document=0), ()), "an option has no tokens"),
        (Generate(Prompt(("",)), 5), "its prompt is empty"),
        (Generate(Prompt(()), 5), "its prompt is empty"),
        (Read(""), "its prompt is empty"),
    ],
)
def test_what_has_no_tokens_is_an_error_before_anything_is_read(
    request_: Request, problem: str, tmp_path: Path
) -> None:
    sample = Sample("x", {}, "", lambda: request_, lambda answer: {"length": 1.0})
    with pytest.raises(UserError, match=f"sample x.*{problem}"):
        evaluate(small_model(), Asks([sample]), results=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_empty_document_leaves_the_question(tmp_path: Path) -> None:
    samples = [asked(name, "", f"\n{name}?", (" a", " b")) for name in ("p", "q")]
    assert evaluate(small_model(), Asks(samples), results=tmp_path).cost["tokens_read"] == 2 * (3 + 4)


def test_a_shared_document_is_not_tokenised_for_each_question(tmp_path: Path) -> None:
    class Counting(ByteTokenizer):
        long = 0

        def encode(self, text: str) -> list[int]:
            self.long += len(text) > 100
            return super().encode(text)

    tokenizer = Counting()
    samples = [asked(str(i), story(1, 300), f"\n{i}?", (" a", " b")) for i in range(9)]
    evaluate(replace(small_model(), tokenizer=tokenizer), Asks(samples), results=tmp_path, batch_size=2)
    assert tokenizer.long == 2, "once to measure it, once to read it"


def test_a_document_that_is_not_first_is_read_for_each_question(tmp_path: Path) -> None:
    document = story(8, 200)

    def before(name: str) -> Sample:
        request = Choose(Prompt((f"{name}?\n", document, "\nanswer:"), document=1), (" a", " b"))
        return Sample(name, {}, "", lambda: request, lambda answer: {"length": 1.0}, document="story")

    samples = [before("p"), before("q")]
    record = evaluate(small_model(), Asks(samples), results=tmp_path)
    assert record.cost["tokens_read"] == 2 * (3 + 200 + 8 + 4)
    cut = evaluate(small_model(), Asks(samples), results=tmp_path, max_context=150, truncate="right")
    assert cut.cost["tokens_cut"] == 2 * (200 - 128)
    assert record.metrics["length"].stderr is None, "two questions on one document are one cluster"


def test_one_name_is_one_document() -> None:
    samples = [asked("p", "the same begins", "\n?", ()), asked("q", "the same begins, and goes on", "\n?", ())]
    with pytest.raises(UserError, match="sample q: another sample has another document of the name 'the same beg'"):
        measure(samples, ByteTokenizer(), None)


def test_documents_are_planned_one_after_the_other() -> None:
    samples = [asked(f"{q}{d}", story(d, 80), f"\n{q}", ()) for q in "pqr" for d in (1, 2)]
    planned = measure(samples, ByteTokenizer(), None)
    groups = plan(planned, 2, {"p1", "q1"})
    assert [[p.sample.id for batch in group.batches for p in batch] for group in groups] == [["r1"], ["p2", "q2", "r2"]]
    assert [group.tokens for group in groups] == [82, 86]
    assert plan(planned, 2, {s.id for s in samples}) == []


def test_scores_have_weights(tmp_path: Path) -> None:
    weights = {"p": 3.0, "q": 1.0, "r": 0.0}
    samples = [
        replace(
            asked(name, story(9, 40), f"\n{name}", (), alone=True),
            score=lambda answer, w=weight: {"length": Weighted(10.0 * w, w)},
        )
        for name, weight in weights.items()
    ]
    record = evaluate(small_model(), Asks(samples), results=tmp_path)
    assert record.metrics["length"].value == (3 * 30 + 10) / 4
    assert record.metrics["length"].n == 2
    none = evaluate(small_model(), Asks(samples[2:]), results=tmp_path / "none")
    assert none.metrics == {} and none.cells == [{"length": None, "length_stderr": None, "n": 1}]
