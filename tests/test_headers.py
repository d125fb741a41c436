"""Headers are read once: which prompts share one, in how many tokens, and what that costs."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from asked_samples import Asks, answers, story
from hypothesis import example, given
from hypothesis import strategies as st
from small_runs import WordTokenizer, small_model

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError
from famcli.evaluation.plan import LEAST_SHARED, Group, measure, plan
from famcli.evaluation.runner import evaluate
from famcli.evaluation.workers.job import units
from famcli.harness.headers import common, headers
from famcli.task import Choose, Generate, Prompt, Read, Request, Sample

EXAMPLES = story(5, 150)


def behind(name: str, question: str, header: str | None = "examples", begins: str = EXAMPLES) -> Sample:
    options = (" yes", " no")
    request: Request = Choose(Prompt((begins + question,)), options) if len(question) % 2 else None
    request = request or Generate(Prompt((begins + question,)), 5)
    return Sample(name, {}, "", lambda: request, lambda answer: {"length": 1.0}, header=header)


QUESTIONS = {"p": "why?", "q": "why not?!", "r": "whose?", "s": "when, and for how long?", "t": "w"}


@given(st.lists(st.text("ab", max_size=3), max_size=7))
@example(["aa"] * 4 + ["a"] * 2)
@example(["aaaa", "aaaa", "aaab", "aaac", "aaad"])
def test_headers_save_the_most_of_all_beginnings(texts: list[str]) -> None:
    """Against all sets of beginnings of which no text has two, tried one by one."""

    def saved(members: list[str], characters: int) -> int:
        return (len(members) - 1) * characters

    classes = {}
    for beginning in {text[:end] for text in texts for end in range(1, len(text) + 1)}:
        members = [text for text in texts if text.startswith(beginning)]
        if len(members) > 1 and 2 * saved(members, len(beginning)) >= sum(map(len, members)):
            classes[beginning] = saved(members, len(beginning))
    best = max(
        sum(classes[one] for one in some)
        for count in range(len(texts) // 2 + 1)
        for some in combinations(classes, count)
        if not any(a.startswith(b) or b.startswith(a) for a, b in combinations(some, 2))
    )
    named = defaultdict(list)
    for text, name in zip(texts, headers(texts), strict=True):
        if name is not None:
            named[name].append(text)
    found = 0
    for members in named.values():
        alike = common(min(members), max(members))
        assert members == [text for text in texts if text.startswith(members[0][:alike])]
        assert 2 * saved(members, alike) >= sum(map(len, members)) and len(members) > 1
        found += saved(members, alike)
    assert found == best


def test_a_passage_behind_examples_is_shared_where_that_saves_more() -> None:
    passages = [EXAMPLES + story(i, 400) for i in range(3)]
    texts = [passage + f"Question {n}" for passage in passages for n in range(4)]
    found = headers(texts)
    assert len(set(found)) == 3 and [found.index(name) // 4 for name in found] == [0] * 4 + [1] * 4 + [2] * 4
    assert len(set(headers([EXAMPLES + f"Question {n}" for n in range(4)]))) == 1
    assert headers(["Question: one", "Question: two, which is longer", "Question: three"]) == [None] * 3


@pytest.mark.parametrize("attention", ["fam", "bswa", "full"])
@pytest.mark.parametrize("batch", [1, 16])
def test_answers_behind_a_header_are_those_of_prompts_read_alone(tmp_path: Path, attention: str, batch: int) -> None:
    model = small_model(attention=attention, block_size=16)
    shared = evaluate(
        model, Asks([behind(*one) for one in QUESTIONS.items()]), results=tmp_path / "shared", batch_size=batch
    )
    alone = evaluate(
        model, Asks([behind(*one, header=None) for one in QUESTIONS.items()]), results=tmp_path / "alone", batch_size=1
    )
    assert shared.run_id == alone.run_id, "a header is no part of what is asked"
    found, expected = answers(shared.path), answers(alone.path)
    assert found.keys() == expected.keys() == QUESTIONS.keys()
    for name, line in found.items():
        assert line["prompt_sha256"] == expected[name]["prompt_sha256"]
        assert (line["output"], line["prompt_tail"]) == (expected[name]["output"], expected[name]["prompt_tail"])
        if weighed := line["answer"].get("log_likelihoods"):
            assert weighed == pytest.approx(expected[name]["answer"]["log_likelihoods"], 1e-5)
        assert (line["header"], line["shared_tokens"], line["document"]) == ("examples", len(EXAMPLES), "")
    options = sum(line["option_tokens"] for line in found.values())
    assert shared.cost["tokens_read"] == len(EXAMPLES) + sum(map(len, QUESTIONS.values())) + options
    assert alone.cost["tokens_read"] == sum(len(EXAMPLES + text) for text in QUESTIONS.values()) + options
    assert shared.metrics["length"].n == len(QUESTIONS), "no cluster"
    assert shared.metrics["length"].stderr == alone.metrics["length"].stderr


class Merging(WordTokenizer):
    """A full stop and the line break behind it are one token, and so are two letters that follow one another."""

    def encode(self, text: str) -> list[int]:
        return [self._id(match.group()) for match in re.finditer(r"\.\n|[a-z]{2}|.|\n", text)]


@given(st.lists(st.text("abc.\n", min_size=1, max_size=9), min_size=2, max_size=5), st.text("ab.\n", max_size=3))
def test_what_is_shared_are_tokens_of_the_whole_prompts(ends: list[str], seam: str) -> None:
    """A tokenizer joins what stands on both sides of a seam: what is read are the tokens of each prompt as one text."""
    tokenizer, begins = Merging(), "ab. " * LEAST_SHARED + seam
    samples = [behind(str(i), end, begins=begins) for i, end in enumerate(ends)]
    planned = measure(samples, tokenizer, None)
    whole = [tokenizer.encode(begins + end) for end in ends]
    shortest = min(map(len, whole))
    alike = next(i for i in range(shortest) if i + 1 == shortest or len({ids[i] for ids in whole}) > 1)
    assert [p.shared_tokens for p in planned] == [alike] * len(ends)
    assert [p.prompt_tokens for p in planned] == list(map(len, whole))


@pytest.mark.parametrize("split", ["ab", "ab. ", "a"])
def test_prompts_are_read_as_one_text_is_cut(tmp_path: Path, split: str) -> None:
    """The journal's hash is that of the tokens that went into the model."""
    begins = "ab. " * LEAST_SHARED + split

    def hashes(header: str | None, results: Path) -> dict[str, Any]:
        samples = [behind(end, end, header, begins) for end in ("b", ".\n", "ba", "\nbb")]
        record = evaluate(replace(small_model(), tokenizer=Merging()), Asks(samples), results=results)
        return {name: line["prompt_sha256"] for name, line in answers(record.path).items()}

    assert hashes("h", tmp_path / "shared") == hashes(None, tmp_path / "alone")


def test_short_and_lonely_headers_are_not_shared() -> None:
    def shared(*samples: Sample) -> list[int]:
        return [p.shared_tokens for p in measure(samples, ByteTokenizer(), None)]

    short = "x" * (LEAST_SHARED - 1)
    assert shared(*(behind(n, n, begins=short) for n in "ab")) == [0, 0]
    assert shared(*(behind(n, n, begins=short + "y") for n in "ab")) == [LEAST_SHARED] * 2
    assert shared(behind("a", "a")) == [0]
    text = Sample("x", {}, "", lambda: Read(EXAMPLES), lambda answer: {"length": 1.0}, header="examples")
    assert shared(text, behind("a", "a"), behind("b", "b")) == [0, len(EXAMPLES), len(EXAMPLES)]
    assert shared(*(behind(n, "same") for n in "ab")) == [len(EXAMPLES) + 3] * 2, "the last one is read for its answer"


def test_headers_of_one_length_are_two_readings(tmp_path: Path) -> None:
    other = story(6, 150)
    samples = [behind(n, "?") for n in "ab"] + [behind(n, "?", "others", other) for n in "cd"]
    record = evaluate(small_model(), Asks(samples), results=tmp_path, batch_size=1)
    lines = answers(record.path).values()
    assert record.cost["tokens_read"] == 2 * 150 + 4 + sum(line["option_tokens"] for line in lines)
    assert record.cost["tokens_computed"] <= record.cost["tokens_read"]
    waited = [line["first_answer_seconds"] for line in lines]
    assert waited[1] is waited[3] is None, "only the first waits for the header"
    assert record.cost["seconds_to_first_answer"] == pytest.approx((waited[0] + waited[2]) / 2)


def test_a_broken_run_behind_a_header_is_continued(tmp_path: Path) -> None:
    task = Asks([behind(*one) for one in QUESTIONS.items()])
    whole = evaluate(small_model(), task, results=tmp_path, batch_size=1)
    journal, record = whole.path / "samples.jsonl", whole.path / "run.json"
    expected, lines = answers(whole.path), journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:2]))
    record.write_text(record.read_text().replace('"finished"', '"running"', 1))
    again = evaluate(small_model(), task, results=tmp_path, batch_size=1)
    times = {"seconds", "first_answer_seconds", "peak_memory_bytes"}
    found = answers(again.path)
    assert again.cost["tokens_read"] == whole.cost["tokens_read"] and found.keys() == expected.keys()
    for name, line in found.items():
        assert {k: v for k, v in line.items() if k not in times} == {
            k: v for k, v in expected[name].items() if k not in times
        }


def test_nothing_of_a_header_is_cut(tmp_path: Path) -> None:
    samples = [behind(*one) for one in QUESTIONS.items()]
    with pytest.raises(UserError, match="more than the context of 150") as error:
        evaluate(small_model(), Asks(samples), results=tmp_path, max_context=150, truncate="left")
    assert "ask for shorter prompts" in str(error.value.hint)


def test_workers_share_a_header_s_samples_out() -> None:
    planned = measure([behind(n, "?" + n) for n in "abcd"], ByteTokenizer(), None)
    (group,) = plan(planned, 2, ())
    found = units([group])
    assert [[p.sample.id for p in unit.samples] for unit in found] == [["a", "b"], ["c", "d"]]
    assert {unit.group.shared_tokens for unit in found} == {len(EXAMPLES) + 1}
    assert len({unit.name for unit in found}) == 2
    assert [unit.what for unit in found] == ["sample a and 1 more", "sample c and 1 more"]
    assert Group(0, [[planned[0]]]).header == "examples"


def test_a_sample_shares_a_document_or_a_header(tmp_path: Path) -> None:
    both = replace(behind("p", "why?"), document="story")
    with pytest.raises(UserError, match="sample p names a document and a header"):
        evaluate(small_model(), Asks([both]), results=tmp_path)
    with pytest.raises(UserError, match="sample p needs text as the name of its header"):
        evaluate(small_model(), Asks([replace(both, header="")]), results=tmp_path)


def test_a_prompt_that_is_another_when_it_is_asked_is_an_error(tmp_path: Path) -> None:
    texts = iter([EXAMPLES, EXAMPLES[::-1], EXAMPLES])

    def request() -> Generate:
        return Generate(Prompt((next(texts) + "?",)), 3)

    changing = Sample("p", {}, "", request, lambda answer: {"length": 1.0}, header="examples")
    task = Asks([behind("q", "x", begins=EXAMPLES), changing])
    with pytest.raises(UserError, match="sample p asks otherwise than it did when it was measured"):
        evaluate(small_model(), task, results=tmp_path)
