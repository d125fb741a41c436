"""What stands around prompts: special tokens and chat templates, with documents still read once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asked_samples import Asks, answers, asked, story
from small_runs import RuleDecoder, loaded, small_model

from famcli.checkpoints.chat import ChatTemplate
from famcli.checkpoints.sources import LoadedModel
from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError
from famcli.evaluation.prompts import special_tokens_of
from famcli.evaluation.runner import evaluate
from famcli.seams import SpecialTokens
from famcli.task import Read, Sample, load_task

BEGIN = 2


class ChatTokenizer(ByteTokenizer):
    """Bytes, with a byte that begins every prompt, and a chat template."""

    name = "chat-bytes"
    prompt_start = (BEGIN,)
    chat_template = ChatTemplate("<user>{{ messages[0].content }}</user>\n<model>", {})
    answer_ends = frozenset({256, ord("#")})


def model(**fields: Any) -> LoadedModel:
    return replace(small_model(**fields), tokenizer=ChatTokenizer())


def digest(ids: Sequence[int]) -> str:
    return hashlib.sha256(np.asarray(ids, "<i8").tobytes()).hexdigest()


QUESTIONS = [
    (f"{d}-{q}", story(d, 100 + d), f"\n{'why' * q}?", (" yes", " no") if q == 2 else ())
    for d in range(2)
    for q in range(4)
]


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("attention", ["fam", "full"])
def test_documents_are_read_once_between_what_stands_around(tmp_path: Path, chat: bool, attention: str) -> None:
    before, after = ([*b"<user>"], [*b"</user>\n<model>"]) if chat else ([BEGIN], [])
    framed = model(attention=attention, block_size=16)
    together = evaluate(framed, Asks([asked(*q) for q in QUESTIONS]), results=tmp_path, chat_template=chat)
    single = [asked(*q, alone=True) for q in QUESTIONS]
    alone = evaluate(framed, Asks(single), results=tmp_path / "alone", chat_template=chat, batch_size=1)
    shared, others = answers(together.path), answers(alone.path)
    for name, document, question, options in QUESTIONS:
        prompt = [*before, *(document + question).encode(), *after]
        assert shared[name]["prompt_sha256"] == others[name]["prompt_sha256"] == digest(prompt)
        assert shared[name]["prompt_tokens"] == len(prompt)
        assert shared[name]["shared_tokens"] == len(before) + len(document)
        assert shared[name]["output"] == others[name]["output"]
        if options:
            weighed = [line[name]["answer"]["log_likelihoods"] for line in (shared, others)]
            assert weighed[0] == pytest.approx(weighed[1], 1e-5)
    documents = {document for _, document, _, _ in QUESTIONS}
    choices = [len(option) - chat for _, _, _, options in QUESTIONS for option in options]  # a turn begins unspaced
    rest = sum(len(question) + len(after) for _, _, question, _ in QUESTIONS) + sum(choices)
    assert together.cost["tokens_read"] == sum(len(before) + len(document) for document in documents) + rest


def test_models_see_what_stands_around_and_answers_end_with_a_turn(tmp_path: Path) -> None:
    seen = []

    def rule(text: bytes) -> int:
        seen.append(text)
        return ord("#") if text.endswith(b"!") else ord("!")

    talking = replace(loaded(RuleDecoder(rule)), tokenizer=ChatTokenizer())
    asks = Asks([asked("x", "A story.", " Why?", (), alone=True)])
    record = evaluate(talking, asks, results=tmp_path, chat_template=True)
    assert seen[0] == b"<user>A story. Why?</user>\n<model>"
    (line,) = answers(record.path).values()
    assert (line["output"], line["answer"]["token_ids"]) == ("!", [ord("!")])
    evaluate(talking, asks, results=tmp_path)
    assert seen[2] == bytes([BEGIN]) + b"A story. Why?"


@pytest.mark.parametrize("truncate", ["left", "middle", "right"])
def test_what_stands_around_is_never_cut(tmp_path: Path, truncate: Any) -> None:
    asks = Asks([asked("x", story(1, 900), "\nWhy?", ())])
    record = evaluate(
        model(), asks, results=tmp_path, max_context=300, truncate=truncate, chat_template=True, batch_size=1
    )
    (line,) = answers(record.path).values()
    document = story(1, 900)
    kept = 900 - line["cut_tokens"]
    cut = {
        "left": document[-kept:],
        "right": document[:kept],
        "middle": document[: (kept + 1) // 2] + document[-(kept // 2) :],
    }[truncate]
    prompt = f"<user>{cut}\nWhy?</user>\n<model>".encode()
    assert line["prompt_sha256"] == digest([*prompt])
    assert len(prompt) + 5 <= 300 < len(prompt) + 5 + 128


def test_lengths_count_what_stands_around(tmp_path: Path) -> None:
    passkey = load_task("passkey", {"lengths": "300", "trials": "1"})
    record = evaluate(model(), passkey, results=tmp_path, chat_template=True)
    plain = evaluate(small_model(), passkey, results=tmp_path)
    assert record.cost["tokens_read"] == plain.cost["tokens_read"] == 300 - 10


def test_texts_to_predict_are_read_bare(tmp_path: Path) -> None:
    text = story(3, 150)
    asks = Asks([Sample("x", {}, "", lambda: Read(text), lambda answer: {"length": float(len(answer.hits))})])
    lines = [
        answers(evaluate(framed, asks, results=tmp_path / name, chat_template=chat).path)["x"]
        for name, framed, chat in (("a", model(), True), ("b", model(), False), ("c", small_model(), False))
    ]
    assert {line["prompt_sha256"] for line in lines} == {digest([*text.encode()])}
    assert lines[0]["answer"] == lines[1]["answer"] == lines[2]["answer"]


def test_run_and_record_tell_what_stood_around(tmp_path: Path) -> None:
    asks = Asks([asked("x", "A story.", " Why?", ())])
    records = [
        evaluate(small_model(), asks, results=tmp_path),
        evaluate(model(), asks, results=tmp_path),
        evaluate(model(), asks, results=tmp_path, chat_template=True),
    ]
    assert len({record.run_id for record in records}) == 3
    bound = {"max_context": None, "truncate": None}
    assert records[0].context == bound, "models of neither kind keep the runs they have"
    assert records[1].context == {**bound, "before": [BEGIN], "after": []}
    template = ChatTokenizer.chat_template
    assert records[2].context == {
        **bound,
        "before": [*b"<user>"],
        "after": [*b"</user>\n<model>"],
        "chat_template_sha256": template.sha256,
    }
    assert json.loads((records[2].path / "run.json").read_text())["context"] == records[2].context


def test_models_without_a_template_say_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no chat template") as caught:
        evaluate(small_model(), Asks([asked("x", "A story.", " Why?", ())]), results=tmp_path, chat_template=True)
    assert caught.value.hint == "leave out --chat-template"
    assert special_tokens_of(ByteTokenizer(), chat=False) == SpecialTokens()
