"""Remember, Rewrite, Copy and Reverse against their texts, taken apart again."""

from __future__ import annotations

import re
from typing import Any

import pytest
from famcli.tasks.copying import Copy, Reverse
from famcli.tasks.remembering import Remember, Rewrite
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import WordTokenizer, prompt_ids

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError
from famcli.seams import FramedEncoder, SpecialTokens
from famcli.task import Generated, Sample, Task

tokenizers = {"bytes": ByteTokenizer, "words": WordTokenizer}
FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
TASKS = {"remember": Remember, "rewrite": Rewrite}


def samples(task: type[Task], tokenizer: Any = None, seed: int = 0, limit: int | None = None, **o: str) -> list[Sample]:
    return task.from_options(o).samples(tokenizer or ByteTokenizer(), seed, limit)


def blocks_of(sample: Sample, tokenizer: Any, block: int) -> list[str]:
    """The prompt as a model with such blocks reads it."""
    ids = prompt_ids(sample.request().prompt, tokenizer)
    return [tokenizer.decode(ids[start : start + block]) for start in range(0, len(ids), block)]


@settings(deadline=None, max_examples=25)
@given(
    task=st.sampled_from(sorted(TASKS)),
    tokenizer=st.sampled_from(sorted(tokenizers)),
    pairs=st.integers(1, 40),
    block=st.integers(40, 300),
    seed=st.integers(0, 2**32),
)
def test_a_block_has_one_pair_and_the_latest_value_is_right(
    task: str, tokenizer: str, pairs: int, block: int, seed: int
) -> None:
    made = tokenizers[tokenizer]()
    found = samples(TASKS[task], made, seed, pairs=str(pairs), block=str(block), trials="1", queries="99")
    *told, question = blocks_of(found[0], made, block)
    pair_of = [re.fullmatch(r"\n([a-p]+):([a-p]),\n(.*)", text, re.DOTALL) for text in told]
    assert len(told) == pairs and all(pair_of)
    assert all(" ".join([FILLER] * 20).startswith(match[3]) for match in pair_of if match)
    latest = {match[1]: (place, match[2]) for place, match in enumerate(pair_of) if match}
    assert task == "rewrite" or len(latest) == pairs
    asked = {}
    for sample in found:
        *same, question = blocks_of(sample, made, block)
        assert same == told
        key = question.removeprefix("\n").removesuffix(":")
        asked[key] = sample.reference
        place, value = latest[key]
        taken = len(made.encode(f"\n{key}:{value},\n"))
        assert sample.details["distance"] == (pairs - place) * block - taken
    assert asked == {key: value for key, (_, value) in latest.items()}


def test_rewrite_does_rewrite() -> None:
    (text,) = {sample.request().prompt.segments[0].tobytes() for sample in samples(Rewrite, pairs="20", trials="1")}  # type: ignore[union-attr]
    keys = re.findall(r"\n([a-p]):", ByteTokenizer().decode(list(memoryview(text).cast("q"))))
    assert len(keys) == 20 > len(set(keys))


def test_what_stands_before_a_prompt_belongs_to_its_first_block() -> None:
    for special in (SpecialTokens(before=(256,)), SpecialTokens(texts=("User: ", "\nAnswer:"))):
        framed = FramedEncoder(ByteTokenizer(), special)
        for sample in samples(Remember, framed, pairs="3", block="64", trials="1"):
            prompt = sample.request().prompt
            before = len(special.before) + len(special.texts[0] if special.texts else "")
            assert before + len(prompt.segments[0]) == 3 * 64


def test_a_text_can_be_made_by_itself() -> None:
    every = {s.id: s.reference for s in samples(Remember, seed=5, pairs="1,5,20", queries="8")}
    alone = {s.id: s.reference for s in samples(Remember, seed=5, pairs="20", queries="2", trials="2")}
    assert len(alone) == 4 and alone.items() <= every.items()
    assert [s.id for s in samples(Rewrite, pairs="5", trials="1")] == [
        "5-pairs/000/p",
        "5-pairs/000/n",
        "5-pairs/000/g",
        "5-pairs/000/h",
        "5-pairs/000/e",
    ]


@pytest.mark.parametrize(
    ("task", "options", "words"),
    [
        (Remember, {"pairs": "17", "key_symbols": "1"}, "17 pairs need a key each, and 1 of 16 symbols make 16 keys"),
        (Remember, {"block": "7"}, "a block of 7 tokens is too short: with this tokenizer the least is 8 tokens"),
    ],
)
def test_what_does_not_fit_is_refused(task: type[Task], options: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        samples(task, **options)
    (name, value) = re.findall(r"-o (\w+)=(\d+)", str(error.value.hint))[0]
    assert samples(task, **{**options, name: value})


@pytest.mark.parametrize(
    ("said", "right"), [("{v},\nab:c", 1.0), (" {v}", 1.0), ("{v}{v}", 0.0), ("", 0.0), ("\n{v}", 0.0)]
)
def test_the_value_and_nothing_else_is_right(said: str, right: float) -> None:
    sample = samples(Remember, pairs="5", trials="1")[0]
    assert sample.score(Generated(said.format(v=sample.reference), ())) == {"exact_match": right}


@pytest.mark.parametrize("tokenizer", sorted(tokenizers))
@pytest.mark.parametrize("task", [Copy, Reverse])
def test_a_source_is_asked_for_twice_or_backwards(task: type[Copy], tokenizer: str) -> None:
    made = tokenizers[tokenizer]()
    for sample in samples(task, made, symbols="24,7", trials="3"):
        request = sample.request()
        text = made.decode(prompt_ids(request.prompt, made))
        source = "".join(re.findall("[0-9]", text))
        assert len(source) == sample.cell["symbols"]
        assert sample.reference == (source * 2 if task is Copy else source[::-1])
        answer = " " + " ".join(sample.reference)
        assert request.max_new_tokens == len(made.encode(answer))
        assert sample.score(Generated(answer, ())) == {"accuracy": 1.0, "exact_match": 1.0}
        assert sample.score(Generated(answer + " 1", ())) == {"accuracy": 1.0, "exact_match": 0.0}
        assert sample.score(Generated(answer[:-2], ()))["accuracy"] == pytest.approx(1 - 1 / len(sample.reference))
        assert sample.score(Generated("\n" + answer, ()))["accuracy"] == 0.0


def test_symbols_are_drawn_alike() -> None:
    drawn = "".join(sample.reference for sample in samples(Reverse, symbols="1000", trials="10"))
    assert all(abs(drawn.count(digit) / len(drawn) - 0.1) < 0.01 for digit in "0123456789")
