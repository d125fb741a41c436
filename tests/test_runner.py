"""Runs: answers against decoders whose answers are known, and everything that must not change them."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from famcli.tasks.passkey import PassKey
from small_models import small_config
from small_runs import RuleDecoder, journal_without_times, loaded, prompt_ids, small_model, without_times

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError
from famcli.evaluation import runner
from famcli.evaluation.generation import Reply, answer_batch
from famcli.evaluation.plan import Planned, measure, plan
from famcli.evaluation.prompts import prompt_tokens
from famcli.evaluation.record import load_record
from famcli.evaluation.runner import evaluate
from famcli.task import Generate, Generated, Prompt, Sample

END = ByteTokenizer.end_of_text


def passkey(**options: str) -> PassKey:
    return PassKey.from_options({"lengths": "400,512", "trials": "3", **options})


def recall(text: bytes) -> int:
    """The byte a perfect reader gives: the key it was told, then a full stop."""
    key = re.findall(rb"The pass key is (\d+)\. Remember", text)[0]
    answer = b" " + key + b"." * 10
    return answer[len(text.split(b"? The pass key is")[1])]


def forget(text: bytes) -> int:
    return b" 00000 ...."[len(text.split(b"? The pass key is")[1])]


def ask(decoder: Any, *prompts: str, budget: int = 6, stop: tuple[str, ...] = ()) -> list[Generated]:
    requests = [Generate(Prompt((prompt,)), budget, stop) for prompt in prompts]
    answers = [reply.answer for reply in reply_to(decoder, requests)]
    return [answer for answer in answers if isinstance(answer, Generated)]


def reply_to(
    decoder: Any, requests: list[Generate], advance: Callable[[int], None] = lambda tokens: None
) -> list[Reply]:
    prompts = [prompt_tokens(request, ByteTokenizer()) for request in requests]
    return answer_batch(decoder, ByteTokenizer(), requests, prompts, None, advance)


# Answers


def test_a_perfect_reader_scores_one(tmp_path: Path) -> None:
    record = evaluate(loaded(RuleDecoder(recall)), passkey(position="start,random,grid"), results=tmp_path)
    assert record.metrics["accuracy"].value == record.metrics["token_accuracy"].value == 1
    assert record.metrics["accuracy"].n == 2 * 7 * 3
    assert [(c["length"], c["position"], c["accuracy"], c["n"]) for c in record.cells[:3]] == [
        (400, "start", 1.0, 3),
        (400, "random", 1.0, 3),
        (400, "depth 0%", 1.0, 3),
    ]
    assert len(record.cells) == 14


def test_a_forgetful_reader_scores_by_chance(tmp_path: Path) -> None:
    record = evaluate(loaded(RuleDecoder(forget)), passkey(trials="20"), results=tmp_path)
    zeros = [line["reference"].count("0") for line in journal_without_times(record.path / "samples.jsonl")]
    assert record.metrics["accuracy"].value == 0
    expected = (40 + sum(zeros)) / (40 * 6)  # the space before every key, and the zeros in place
    assert record.metrics["token_accuracy"].value == pytest.approx(expected)
    mean, error = record.metrics["token_accuracy"].value, record.metrics["token_accuracy"].stderr
    shares = np.array([(1 + count) / 6 for count in zeros])
    assert (mean, error) == pytest.approx((shares.mean(), shares.std(ddof=1) / 40**0.5))


def test_cells_are_means_over_their_own_samples(tmp_path: Path) -> None:
    def recall_short(text: bytes) -> int:
        return recall(text) if len(text) < 420 else forget(text)

    record = evaluate(loaded(RuleDecoder(recall_short)), passkey(), results=tmp_path)
    assert [(cell["length"], cell["accuracy"], cell["accuracy_stderr"]) for cell in record.cells] == [
        (400, 1.0, 0.0),
        (512, 0.0, 0.0),
    ]
    assert record.metrics["accuracy"].value == 0.5


def test_decoding_is_greedy_on_the_whole_text() -> None:
    """Against reading the whole text again for every token."""
    model = small_model()
    prompts = ["The grass is green. The sky is blue. " * 4, "Here we go. There and back again. Go! " * 4]
    prompts = [prompt[:137] for prompt in prompts]
    for answer, prompt in zip(ask(model.decoder, *prompts), prompts, strict=True):
        ids = list(prompt.encode())
        for _ in range(6):
            latents, _ = model.decoder.read(torch.tensor([ids]), model.decoder.start(1))
            ids.append(int(model.decoder.logits(latents[:, -1]).argmax()))
        assert list(answer.token_ids) == ids[-6:]


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 128, 129, 200])
def test_every_token_is_read_once_and_in_order(length: int) -> None:
    seen: list[bytes] = []

    def remember(text: bytes) -> int:
        seen.append(text)
        return END

    text = "".join(map(chr, range(33, 127))) * 3
    segments = (
        (text[:40], np.array(list(text[40:length].encode()), dtype=np.int64)) if length > 40 else (text[:length],)
    )
    read: list[int] = []
    request = Generate(Prompt(segments), 1)
    (answer,) = reply_to(RuleDecoder(remember), [request], read.append)
    assert seen == [text[:length].encode()]
    assert sum(read) == answer.prompt_tokens == length
    ids = np.array(prompt_ids(request.prompt, ByteTokenizer()), dtype="<i8")
    assert answer.prompt_sha256 == hashlib.sha256(ids.tobytes()).hexdigest()


def test_end_of_text_budget_and_stop_strings_end_an_answer() -> None:
    def recite(text: bytes) -> int:
        answer = {b"a": b"12\n34\n", b"b": b"5", b"c": b"1234567890"}[text[:1]]
        place = len(text) - 2
        return answer[place] if place < len(answer) else END

    answers = ask(RuleDecoder(recite), "a:", "b:", "c:", budget=8)
    assert [answer.text for answer in answers] == ["12\n34\n", "5", "12345678"]
    assert [len(answer.token_ids) for answer in answers] == [6, 1, 8]
    stopped = ask(RuleDecoder(recite), "a:", "b:", "c:", budget=8, stop=("45", "\n3"))
    assert [answer.text for answer in stopped] == ["12", "5", "123"]


def test_the_lowest_of_equal_tokens_within_the_vocabulary_is_taken() -> None:
    class Undecided(RuleDecoder):
        def logits(self, latents: torch.Tensor) -> torch.Tensor:
            scores = torch.zeros(len(latents), 300)
            scores[:, [70, 65, 90]] = 1
            scores[:, 257:] = 9  # rows that pad the embedding matrix
            return scores

    assert ask(Undecided(lambda text: END), "x", budget=3)[0].text == "AAA"


def test_prompts_of_a_batch_must_be_equally_long() -> None:
    with pytest.raises(ValueError, match="one length"):
        ask(RuleDecoder(forget), "one", "three")
    with pytest.raises(ValueError, match="one length"):
        ask(RuleDecoder(forget), "")


def test_memory_does_not_grow_with_the_prompt() -> None:
    """Eight prompts of a million tokens are 64 MB as arrays; shared filler and one block at a time are 8 MB."""

    class Forgetful(RuleDecoder):
        config = small_config("fam", vocab_size=257, block_size=1024)

        def prefill(self, tokens: torch.Tensor, state: Any) -> Any:
            return state

    (sample,) = PassKey.from_options({"lengths": "1M", "trials": "1"}).samples(ByteTokenizer(), 0, None)
    tracemalloc.start()
    request = sample.request()
    assert isinstance(request, Generate)
    reply_to(Forgetful(lambda text: END), [request] * 8)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24 * 2**20


# What must not change an answer


@pytest.mark.parametrize("attention", ["fam", "bswa", "full"])
def test_batch_size_does_not_change_the_run(tmp_path: Path, attention: str) -> None:
    task = passkey(lengths="300,400", position="random,grid", trials="1")
    runs = [
        evaluate(small_model(attention=attention), task, results=tmp_path / str(size), batch_size=size)
        for size in (1, 3, 16, None)
    ]
    first, *others = ((without_times(run), journal_without_times(run.path / "samples.jsonl")) for run in runs)
    assert len({line["output"] for line in first[1]}) > 6, "answers that hardly depend on the prompt show no mistake"
    assert all(other == first for other in others)


def test_the_plan_asks_every_sample_once_in_batches_of_one_length() -> None:
    planned = [
        Planned(Sample(f"{length}-{i}", {}, "", lambda: pytest.fail("built early"), lambda answer: {}), length)
        for i, length in itertools.product(range(7), (30, 10, 20))
    ]
    samples = [p.sample for p in planned]
    done = {"10-0", "30-4", *(f"20-{i}" for i in range(4))}
    ((group,), (undisturbed,)) = plan(planned, 4, done), plan(planned, 4, ())
    assert sorted(p.sample.id for batch in group.batches for p in batch) == sorted({s.id for s in samples} - done)
    assert all(1 <= len(batch) <= 4 and len({p.prompt_tokens for p in batch}) == 1 for batch in group.batches)
    assert [batch[0].prompt_tokens for batch in group.batches] == [10, 10, 20, 30, 30]
    whole = [{p.sample.id for p in batch} for batch in undisturbed.batches]
    assert all(any({p.sample.id for p in batch} <= ids for ids in whole) for batch in group.batches)


class Interrupting:
    """A progress display whose user presses Ctrl-C after so many tokens."""

    def __init__(self, after: int) -> None:
        self.after, self.ended, self.begun = after, False, (0, 0, 0)

    def begin(self, samples: int, done: int, tokens: int) -> None:
        self.begun = (samples, done, tokens)

    def advance(self, tokens: int) -> None:
        self.after -= tokens
        if self.after < 0:
            raise KeyboardInterrupt

    def end(self) -> None:
        self.ended = True


def test_an_interrupted_run_is_continued(tmp_path: Path) -> None:
    whole = evaluate(small_model(), passkey(), results=tmp_path / "whole", batch_size=1)
    interrupted = Interrupting(after=4 * 390 + 100)
    with pytest.raises(KeyboardInterrupt):
        evaluate(small_model(), passkey(), results=tmp_path / "broken", batch_size=1, progress=interrupted)
    assert interrupted.ended
    assert interrupted.begun == (6, 0, 3 * 390 + 3 * 502)
    journal = tmp_path / "broken" / whole.run_id / "samples.jsonl"
    before = journal.read_bytes()
    assert before.count(b"\n") == 3
    broken = load_record(journal.parent)
    assert (broken.status, broken.finished, broken.metrics) == ("running", None, {})
    progress = Interrupting(after=10**9)
    resumed = evaluate(small_model(), passkey(), results=tmp_path / "broken", batch_size=1, progress=progress)
    assert progress.begun == (6, 3, 3 * 502)
    assert progress.after == 10**9 - 3 * 502
    assert journal.read_bytes().startswith(before)
    assert without_times(resumed) == without_times(whole)
    assert resumed.started == broken.started
    assert resumed.cost["seconds"] == pytest.approx(
        sum(json.loads(line)["seconds"] for line in journal.read_text().splitlines())
    )
    assert journal_without_times(journal) == journal_without_times(whole.path / "samples.jsonl")


def test_scores_do_not_depend_on_the_order_of_the_answers(tmp_path: Path) -> None:
    first = evaluate(small_model(), passkey(position="start,grid"), results=tmp_path)
    journal = first.path / "samples.jsonl"
    journal.write_bytes(b"".join(reversed(journal.read_bytes().splitlines(keepends=True))))
    (first.path / "run.json").unlink()
    again = evaluate(small_model(), passkey(position="start,grid"), results=tmp_path)
    assert without_times(again) == without_times(first)
    assert again.cost == first.cost


def test_a_finished_run_is_returned_without_asking_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = evaluate(small_model(), passkey(), results=tmp_path)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setattr(PassKey, "samples", lambda *args: pytest.fail("built the samples of a finished run"))
    assert evaluate(small_model(), passkey(), results=tmp_path, batch_size=2) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == files


def test_fresh_starts_over_and_keeps_the_old_run(tmp_path: Path) -> None:
    first = evaluate(small_model(), passkey(), results=tmp_path)
    old = (first.path / "samples.jsonl").read_bytes()
    second = evaluate(small_model(), passkey(), results=tmp_path, fresh=True)
    assert without_times(second) == without_times(first)
    assert (tmp_path / f"{first.run_id}.old-1" / "samples.jsonl").read_bytes() == old
    assert (second.path / "samples.jsonl").read_bytes() != old  # times differ: it was asked again


# Identity


def test_the_run_id_tells_apart_what_may_change_an_answer(tmp_path: Path) -> None:
    def run_id(model: Any = None, task: PassKey | None = None, **options: Any) -> str:
        return evaluate(model or small_model(), task or passkey(), results=tmp_path, **options).run_id

    base = run_id()
    assert re.fullmatch("passkey-small-[0-9a-f]{12}", base)
    assert run_id(batch_size=2) == base
    assert run_id(task=passkey(lengths="512,400,400")) == base
    assert run_id(model=replace(small_model(), name="other")) == base.replace("small", "other")
    tokenizer = ByteTokenizer()
    tokenizer.name = "other bytes"
    ends, begins = ByteTokenizer(), ByteTokenizer()
    ends.answer_ends, begins.text_start = frozenset({10}), 10
    version = type("Changed", (PassKey,), {"version": 2})
    others = [
        run_id(seed=1),
        run_id(limit=2),
        run_id(max_context=512),
        run_id(task=passkey(trials="2")),
        run_id(task=version.from_options({"lengths": "400,512", "trials": "3"})),
        run_id(model=replace(small_model(), weights_sha256="1" * 64)),
        run_id(model=replace(small_model(), dtype=torch.bfloat16)),
        *(run_id(model=replace(small_model(), tokenizer=other)) for other in (tokenizer, ends, begins)),
        run_id(model=small_model(memory_segments=0)),
    ]
    assert len({base, *others}) == 1 + len(others)


@pytest.mark.parametrize(
    ("name", "readable"),
    [("fam-tiny,memory_segments=0", "fam-tiny-memory_segments-0"), ("../some/check point/", "some-check-point")],
)
def test_the_run_id_is_a_plain_file_name(tmp_path: Path, name: str, readable: str) -> None:
    record = evaluate(replace(small_model(), name=name), passkey(), results=tmp_path, limit=1)
    assert re.fullmatch(f"passkey-(..-)?{readable}-[0-9a-f]{{12}}", record.run_id)
    assert record.path.parent == tmp_path


def test_a_limit_is_kept(tmp_path: Path) -> None:
    record = evaluate(small_model(), passkey(), results=tmp_path, limit=3)
    assert record.metrics["accuracy"].n == 3
    assert record.limit == 3


# Mistakes


class Faulty(PassKey):
    """PassKey with something wrong about its samples."""

    change: Callable[[Sample], Sample]

    def samples(self, *args: Any) -> list[Sample]:
        return [type(self).change(sample) for sample in super().samples(*args)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: replace(s, id="same"), "two samples the same id"),
        (lambda s: replace(s, prompt_tokens=5), "announced 5 prompt tokens and has 390"),
        (lambda s: replace(s, score=lambda answer: {"accuracy": 1.0}), "not a number for each metric"),
        (
            lambda s: replace(s, score=lambda answer: {"accuracy": 1.0, "token_accuracy": float("nan")}),
            "not a number for each metric",
        ),
    ],
)
def test_mistakes_of_a_task_are_named(tmp_path: Path, change: Any, message: str) -> None:
    task = type("Faulty", (Faulty,), {"change": staticmethod(change)}).from_options({"lengths": "400", "trials": "2"})
    with pytest.raises(UserError, match=message):
        evaluate(small_model(), task, results=tmp_path)


def test_bad_values_write_nothing(tmp_path: Path) -> None:
    for bad in ({"limit": 0}, {"batch_size": 0}):
        with pytest.raises(UserError, match="must be at least 1, not 0"):
            evaluate(small_model(), passkey(), results=tmp_path / "results", **bad)
    with pytest.raises(UserError, match="too short"):
        evaluate(small_model(), passkey(lengths="9"), results=tmp_path / "results")
    assert [*tmp_path.iterdir()] == []


def test_batches_shrink_where_states_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    planned = measure(passkey().samples(model.tokenizer, 0, None), model.tokenizer, None)
    assert runner._automatic_batch_size(model, planned) == 16
    monkeypatch.setattr(runner, "CPU_STATE_BYTES", 3 * model.decoder.start(1).nbytes + 1)
    assert runner._automatic_batch_size(model, planned) == 3
    monkeypatch.setattr(runner, "CPU_STATE_BYTES", 1)
    assert runner._automatic_batch_size(model, planned) == 1


def test_batches_shrink_where_states_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(attention="full")
    planned = measure(passkey().samples(model.tokenizer, 0, None), model.tokenizer, None)
    longest = max(p.prompt_tokens for p in planned)
    with torch.no_grad():
        state = model.decoder.prefill(torch.zeros(1, longest, dtype=torch.long), model.decoder.start(1))
    assert runner._automatic_batch_size(model, planned) == 16
    monkeypatch.setattr(runner, "CPU_STATE_BYTES", 3 * state.nbytes)
    assert runner._automatic_batch_size(model, planned) == 3
