"""What is read, in which order, and what is cut: samples measured against the context, and grouped by document."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from asked_samples import Asks, answers, asked, story
from hypothesis import given
from hypothesis import strategies as st
from small_runs import small_model

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError
from famcli.evaluation.plan import measure, plan
from famcli.evaluation.prompts import CUT_STEP, Context, Side
from famcli.evaluation.runner import evaluate
from famcli.task import Choose, Generate, Prompt, Read, Request, Sample, Weighted, load_task


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


def test_a_cell_that_does_not_fit_is_left_out_with_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    full = small_model(attention="full", trained_context=500)
    passkey = load_task("passkey", {"lengths": "400,500,501", "position": "start,random", "trials": "2"})
    record = evaluate(full, passkey, results=tmp_path)
    cells = [(cell["length"], cell["position"], cell["n"]) for cell in record.cells]
    assert cells == [(length, position, 2) for length in (400, 500) for position in ("start", "random")]
    assert record.status == "finished" and len(answers(record.path)) == 8
    told = [line.getMessage() for line in caplog.records if "left out" in line.getMessage()]
    assert len(told) == 1, "one line"
    assert "4 samples (length 501, position start; length 501, position random) left out" in told[0]
    assert "takes 501 tokens, more than the context of 500" in told[0]
    written = json.loads((record.path / "run.json").read_text())["left_out"]
    assert [(one["what"], one["samples"]) for one in written] == [
        ("length 501, position start", 2),
        ("length 501, position random", 2),
    ]
    caplog.clear()
    shown = evaluate(full, passkey, results=tmp_path)
    assert (shown.cells, shown.left_out) == (record.cells, record.left_out), "a finished run is shown"


def test_documents_that_do_not_fit_are_left_out_where_that_is_wished(tmp_path: Path) -> None:
    """All that is asked of one of them, and nothing else; the run has the name it would have had anyway."""
    full = small_model(attention="full", trained_context=400)
    short, long = story(1, 300), story(2, 385)
    samples = [
        asked("short", short, "\nwhy?", ()),
        asked("fits", long, "\nwhy?", ()),
        asked("too long", long, "\nwhy, and what for?", ()),
    ]
    with pytest.raises(UserError, match=r"sample too long takes \d+ tokens, more than the context of 400"):
        evaluate(full, Asks(samples), results=tmp_path)
    record = evaluate(full, Asks(samples), results=tmp_path, leaves_out=True)
    assert list(answers(record.path)) == ["short"]
    ((what, count),) = [(one["what"], one["samples"]) for one in record.left_out]
    assert what == f"document {samples[1].document}" and count == 2
    whole = evaluate(full, Asks(samples), results=tmp_path, max_context=2000)
    assert len(answers(whole.path)) == 3 and not whole.left_out
    with pytest.raises(UserError, match="more than the context of 390"):
        evaluate(full, Asks(samples), results=tmp_path, max_context=390, leaves_out=True)
    with pytest.raises(UserError, match="more than the context of 400"):
        evaluate(full, Asks(samples[1:]), results=tmp_path / "other", leaves_out=True)


def test_a_cell_is_left_out_whole(tmp_path: Path) -> None:
    """A mean over the part of a cell that fits would be called like one over all of it."""
    full = small_model(attention="full", trained_context=400)
    cells = [("a", 300), ("a", 500), ("b", 300)]
    samples = [
        replace(asked(f"s{i}", story(i, size), "\nwhy?", ()), cell={"language": name})
        for i, (name, size) in enumerate(cells)
    ]
    record = evaluate(full, Asks(samples), results=tmp_path, leaves_out=True)
    assert [(cell["language"], cell["n"]) for cell in record.cells] == [("b", 1)]
    assert [one["what"] for one in record.left_out] == ["language a"]


def test_hints_offer_only_what_helps(tmp_path: Path) -> None:
    full = small_model(attention="full", trained_context=500)
    for task in (load_task("passkey", {"lengths": "501,1k"}), Asks([asked("x", "", "\n" + "why" * 200, ())])):
        with pytest.raises(UserError, match="more than the context of 500") as error:
            evaluate(full, task, results=tmp_path)
        assert error.value.hint == "ask for shorter prompts, or raise --max-context"
    with pytest.raises(UserError, match="more than the context of 500") as error:
        evaluate(full, load_task("passkey", {"lengths": "500"}), results=tmp_path, thinking=9)
    assert error.value.hint == "ask for shorter prompts, or raise --max-context, or think less than --strip-thinking 9"
    with pytest.raises(UserError, match="more than the context of 500") as error:
        evaluate(full, Asks([asked("x", story(7, 500), "\nwhy?", ())]), results=tmp_path)
    assert "--truncate left, right or middle" in str(error.value.hint)


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


def test_documents_may_be_made_of_tokens_anew() -> None:
    def sample(name: str, first: int) -> Sample:
        def request() -> Generate:
            return Generate(Prompt((np.arange(first, first + 50), f"\n{name}"), document=0), 3)

        return Sample(name, {}, "", request, lambda answer: {"length": 0.0}, document="d")

    planned = measure([sample("p", 40), sample("q", 40)], ByteTokenizer(), None)
    assert [p.shared_tokens for p in planned] == [50, 50]
    with pytest.raises(UserError, match="sample q: another sample has another document"):
        measure([sample("p", 40), sample("q", 41)], ByteTokenizer(), None)


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
