"""Multi-query associative recall against its texts, taken apart again."""

from __future__ import annotations

import re
from typing import Any

import pytest
from famcli.tasks.mqar import MQAR
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import WordTokenizer, prompt_ids

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError
from famcli.task import Generated, Sample

BUDGET = 8
tokenizers = {"bytes": ByteTokenizer, "words": WordTokenizer}


def samples(tokenizer: Any = None, seed: int = 0, limit: int | None = None, **options: str) -> list[Sample]:
    return MQAR.from_options(options).samples(tokenizer or ByteTokenizer(), seed, limit)


def text_of(sample: Sample, tokenizer: Any) -> str:
    text: str = tokenizer.decode(prompt_ids(sample.request().prompt, tokenizer))
    return text


@settings(deadline=None, max_examples=25)
@given(
    tokenizer=st.sampled_from(sorted(tokenizers)),
    pairs=st.integers(1, 20),
    length=st.integers(300, 3000),
    seed=st.integers(0, 2**32),
)
def test_the_text_is_pairs_then_noise_then_a_key(tokenizer: str, pairs: int, length: int, seed: int) -> None:
    made = tokenizers[tokenizer]()
    for sample in samples(made, seed, pairs=str(pairs), lengths=str(length), trials="1", queries="3"):
        text = text_of(sample, made)
        assert re.fullmatch("( [0-9]{4})+", text)
        *told, asked = (int(symbol) for symbol in text.split())
        keys, values, noise = told[: 2 * pairs : 2], told[1 : 2 * pairs : 2], told[2 * pairs :]
        assert len(set(keys)) == len(set(values)) == pairs
        assert all(1 <= key < 4096 for key in keys) and all(4096 <= symbol < 8192 for symbol in [*values, *noise])
        assert sample.reference == f"{dict(zip(keys, values, strict=True))[asked]:04}"
        behind = "".join(f" {symbol:04}" for symbol in told[2 * keys.index(asked) + 2 :])
        assert sample.details["distance"] == len(made.encode(behind))


@settings(deadline=None, max_examples=25)
@given(tokenizer=st.sampled_from(sorted(tokenizers)), length=st.integers(300, 3000), seed=st.integers(0, 9))
def test_a_prompt_and_its_answer_fill_the_length_but_for_a_symbol(tokenizer: str, length: int, seed: int) -> None:
    made = tokenizers[tokenizer]()
    found = samples(made, seed, pairs="8", lengths=str(length), trials="1")
    tokens = [len(prompt_ids(sample.request().prompt, made)) + BUDGET for sample in found]
    assert length - max(len(made.encode(f" {n}")) for n in range(4096, 8192)) < max(tokens) <= length
    assert {sample.request().max_new_tokens for sample in found} == {BUDGET}


def test_the_keys_of_a_text_share_its_reading() -> None:
    found = samples(pairs="4", lengths="1k", trials="2")
    assert len(found) == 8
    for name in {sample.document for sample in found}:
        prompts = [sample.request().prompt for sample in found if sample.document == name]
        assert len({prompt.segments[0].tobytes() for prompt in prompts}) == 1  # type: ignore[union-attr]
        assert len({prompt.segments[1] for prompt in prompts}) == 4
        assert all(prompt.document == 0 for prompt in prompts)


def test_a_cell_can_be_rerun_by_itself_and_more_queries_ask_more() -> None:
    every = {sample.id: text_of(sample, ByteTokenizer()) for sample in samples(seed=3, lengths="1k,2k", queries="4")}
    alone = {sample.id: text_of(sample, ByteTokenizer()) for sample in samples(seed=3, pairs="16", lengths="2k")}
    assert len(alone) == 6 * 8
    common = every.keys() & alone.keys()
    assert len(common) == 6 * 4 and all(every[name] == alone[name] for name in common)


def test_the_draw_is_the_same_on_every_machine_and_version() -> None:
    assert [sample.id for sample in samples(pairs="4", lengths="1k", trials="1")] == [
        "4-pairs/1024/000/0454",
        "4-pairs/1024/000/3179",
        "4-pairs/1024/000/0400",
        "4-pairs/1024/000/3260",
    ]


def test_a_limit_takes_from_all_cells_alike() -> None:
    found = samples(pairs="2,4", lengths="1k", queries="2", limit=6)
    assert [sample.cell["pairs"] for sample in found] == [2, 2, 2, 2, 4, 4]
    assert len(samples(pairs="1", lengths="1k", limit=5)) == 5


def test_a_length_too_short_names_the_least() -> None:
    with pytest.raises(UserError, match="length 300 is too short for 64 pairs") as error:
        samples(pairs="64", lengths="300")
    least = re.findall(r"least is (\d+)", error.value.message)[0]
    assert samples(pairs="64", lengths=least)
    with pytest.raises(UserError, match="too short"):
        samples(pairs="64", lengths=str(int(least) - 1))


@pytest.mark.parametrize(("name", "value"), [("pairs", "4096"), ("pairs", "0"), ("pairs", "4,"), ("queries", "x")])
def test_a_bad_value_names_option_and_value(name: str, value: str) -> None:
    with pytest.raises(UserError, match=f"task mqar: option '{name}' must be .*, not '{value}'"):
        MQAR.from_options({name: value})


def test_too_many_samples_are_refused() -> None:
    with pytest.raises(UserError, match="192,000 samples") as error:
        samples(pairs="64", lengths="1k", trials="24000")
    assert "trials=12500" in str(error.value.hint)


def test_the_first_number_is_the_answer() -> None:
    sample = samples(pairs="4", lengths="1k", trials="1")[0]
    for text, right in ((f" {sample.reference} 12", 1.0), (f"{sample.reference}1", 0.0), ("", 0.0)):
        assert sample.score(Generated(text, ())) == {"accuracy": right}
