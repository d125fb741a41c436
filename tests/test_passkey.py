"""PassKey's prompts against text put together by hand, and the properties its lengths and draws must have."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
from famcli.tasks.passkey import PassKey
from famcli.tasks.wordings import WORDINGS
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import WordTokenizer, prompt_ids

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError
from famcli.task import Generated, Sample

DESCRIPTION = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about the important information there."
)
UNIT = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
QUESTION = "What is the pass key? The pass key is"
BUDGET = 10

tokenizers = {"bytes": ByteTokenizer, "words": WordTokenizer}


def samples(tokenizer: Any = None, seed: int = 0, limit: int | None = None, **options: str) -> list[Sample]:
    return PassKey.from_options(options).samples(tokenizer or ByteTokenizer(), seed, limit)


def filler_text(characters: int) -> str:
    return " ".join([UNIT] * (characters // len(UNIT) + 1))[:characters]


def text_of(sample: Sample, tokenizer: Any) -> str:
    text: str = tokenizer.decode(prompt_ids(sample.request().prompt, tokenizer))
    return text


def key_line_of(sample: Sample) -> str:
    return f"The pass key is {sample.reference}. Remember it. {sample.reference} is the pass key."


@pytest.mark.parametrize("position", ["start", "random", "grid"])
def test_bytes_spell_the_text_of_the_paper(position: str) -> None:
    """One token a character makes the whole prompt predictable: parts joined by newlines, filler cut anywhere."""
    for sample in samples(lengths="1k", position=position, trials="5"):
        text = text_of(sample, ByteTokenizer())
        key_line = key_line_of(sample)
        before = text.split(key_line)[0].removeprefix(DESCRIPTION).strip("\n")
        after = text.split(key_line)[1].removesuffix(QUESTION).strip("\n")
        parts = [DESCRIPTION, filler_text(len(before)), key_line, filler_text(len(after)), QUESTION]
        assert text == "\n".join(part for part in parts if part)
        assert len(text) == 1024 - BUDGET
        assert bool(before) == (sample.cell["position"] not in ("start", "depth 0%"))


@settings(deadline=None, max_examples=60)
@given(
    tokenizer=st.sampled_from(sorted(tokenizers)),
    length=st.integers(400, 5000),
    position=st.sampled_from(["start", "random", "grid"]),
    digits=st.integers(1, 9),
    seed=st.integers(0, 2**32),
)
def test_prompt_and_budget_make_the_length_exactly(
    tokenizer: str, length: int, position: str, digits: int, seed: int
) -> None:
    made = tokenizers[tokenizer]()
    options = {"lengths": str(length), "position": position, "trials": "2", "key_digits": str(digits)}
    for sample in samples(made, seed, **options):
        request = sample.request()
        assert request.max_new_tokens == BUDGET
        assert len(prompt_ids(request.prompt, made)) + BUDGET == length
        assert sample.prompt_tokens + BUDGET == length
        assert re.fullmatch(f"[0-9]{{{digits}}}", sample.reference)
        assert len(made.encode(f" {sample.reference}")) <= BUDGET


@pytest.mark.parametrize("tokenizer", sorted(tokenizers))
def test_filler_is_tokenised_as_one_text(tokenizer: str) -> None:
    """What arithmetic on ids repeats is what the tokenizer makes of the repeated text."""
    made = tokenizers[tokenizer]()
    (sample,) = samples(made, lengths="4k", trials="1")
    filler = next(part for part in sample.request().prompt.segments if not isinstance(part, str))
    assert filler.tolist() == made.encode(filler_text(10 * 4096))[: len(filler)]


def test_tokenising_does_not_grow_with_the_length() -> None:
    calls = []
    for length in ("1k", "1M"):
        tokenizer = WordTokenizer()
        for sample in samples(tokenizer, lengths=length, position="random", trials="3"):
            sample.request()
        calls.append(tokenizer.calls)
    assert calls[0] == calls[1]


def test_prompts_share_the_memory_of_their_filler() -> None:
    """A million tokens a prompt would be 8 MB each."""
    first, second = (
        next(segment for segment in sample.request().prompt.segments if not isinstance(segment, str))
        for sample in samples(lengths="64k", trials="2")
    )
    assert np.shares_memory(first, second)


def test_a_cell_can_be_rerun_by_itself() -> None:
    every = {s.id: s for s in samples(seed=7, lengths="1k,4k", position="start,random,grid", trials="3")}
    assert len(every) == 2 * 7 * 3
    alone = samples(seed=7, lengths="4k", position="random", trials="5")
    assert [sample.id for sample in alone] == [f"4096/random/00{trial}" for trial in range(5)]
    for sample in alone[:3]:
        assert sample.reference == every[sample.id].reference
        assert sample.cell == every[sample.id].cell == {"length": 4096, "position": "random"}
        assert text_of(sample, ByteTokenizer()) == text_of(every[sample.id], ByteTokenizer())


def test_draws_differ_by_seed_length_position_and_trial() -> None:
    draws = [
        tuple(sample.reference for sample in samples(seed=seed, lengths=length, position=position, trials="8"))
        for seed, length, position in itertools.product((0, 1), ("1k", "4k"), ("start", "random"))
    ]
    assert len(set(draws)) == len(draws)
    assert all(len(set(keys)) > 1 for keys in draws)


def test_keys_and_depths_are_uniform() -> None:
    drawn = samples(lengths="512", position="random", trials="4000")
    digits = "".join(sample.reference for sample in drawn)
    assert all(abs(digits.count(digit) / len(digits) - 0.1) < 0.01 for digit in "0123456789")
    assert all(abs(sum(s.reference[0] == d for s in drawn) / len(drawn) - 0.1) < 0.025 for d in "0123456789")
    fill = 512 - BUDGET - len("\n".join([DESCRIPTION, key_line_of(drawn[0]), QUESTION])) - 2
    befores = [fill - (int(sample.details["distance"]) - 1) for sample in drawn]
    assert min(befores) >= 1
    assert max(befores) <= fill - 1
    assert len(set(befores)) == fill - 1
    assert abs(sum(befores) / len(befores) / fill - 0.5) < 0.02


def test_the_draw_is_the_same_on_every_machine_and_version() -> None:
    keys = [sample.reference for sample in samples(lengths="1k", trials="3")]
    assert keys == ["91344", "36148", "39573"]


def test_grid_places_the_key_at_its_depths() -> None:
    for sample in samples(lengths="4k", position="grid", trials="1"):
        text = text_of(sample, ByteTokenizer())
        before = text.index("The pass key is") - len(DESCRIPTION) - 1
        total = len(text) - len(DESCRIPTION) - len(key_line_of(sample)) - len(QUESTION) - 2
        depth = int(str(sample.cell["position"]).removeprefix("depth ").removesuffix("%"))
        assert sample.details["depth"] == depth / 100
        assert before / total == pytest.approx(depth / 100, abs=1e-3)


@pytest.mark.parametrize("position", ["start", "random", "grid"])
def test_distance_is_counted_from_the_key_line_to_the_question(position: str) -> None:
    tokenizer = WordTokenizer()
    for sample in samples(tokenizer, lengths="1k", position=position, trials="2"):
        told, asked = text_of(sample, tokenizer).split("is the pass key.\n")
        assert QUESTION not in told
        assert sample.details["distance"] == len(tokenizer.encode(asked.removesuffix(QUESTION)))


@pytest.mark.parametrize("tokenizer", sorted(tokenizers))
@pytest.mark.parametrize("position", ["start", "random", "grid"])
def test_a_length_too_short_names_the_least(tokenizer: str, position: str) -> None:
    options = {"position": position, "trials": "1", "key_digits": "1"}  # one digit: every key has as many tokens
    with pytest.raises(UserError, match="length 64 is too short") as error:
        samples(tokenizers[tokenizer](), lengths="64,1k", **options)
    least = int(re.findall(r"least is (\d+)", error.value.message)[0])
    assert f"lengths={least}" in str(error.value.hint)
    made = tokenizers[tokenizer]()
    for sample in samples(made, lengths=str(least), **options):
        assert len(prompt_ids(sample.request().prompt, made)) + BUDGET == least
    with pytest.raises(UserError, match=f"length {least - 1} is too short"):
        samples(tokenizers[tokenizer](), lengths=str(least - 1), **options)


def test_a_limit_takes_from_all_cells_alike() -> None:
    taken = samples(lengths="1k,4k", position="start,random", trials="10", limit=6)
    counts = [sum(s.cell == cell for s in taken) for cell in ({**s.cell} for s in taken)]
    assert len(taken) == 6
    assert sorted({(s.cell["length"], s.cell["position"]) for s in taken}) == [
        (1024, "random"),
        (1024, "start"),
        (4096, "random"),
        (4096, "start"),
    ]
    assert set(counts) == {1, 2}
    assert samples(lengths="1k", trials="3", limit=100)[0].id == "1024/start/000"


@pytest.mark.parametrize(
    ("answer", "accuracy"),
    [
        (" {key}", 1),
        (" {key}.\nThe", 1),
        ("{key}", 1),
        (" the key {key}", 1),
        (" {key}9", 0),
        (" 1. {key}", 0),
        ("", 0),
    ],
)
def test_accuracy_compares_the_first_digit_run(answer: str, accuracy: float) -> None:
    sample = samples(lengths="1k", trials="1")[0]
    assert sample.score(generated(answer.format(key=sample.reference)))["accuracy"] == accuracy


def test_leading_zeros_count() -> None:
    zeros = [s for s in samples(lengths="512", trials="200") if s.reference.startswith("0")]
    assert zeros
    for sample in zeros:
        assert sample.score(generated(f" {sample.reference}"))["accuracy"] == 1
        assert sample.score(generated(f" {int(sample.reference)}"))["accuracy"] == 0


def test_token_accuracy_is_the_share_of_the_continuation_in_place() -> None:
    sample = samples(lengths="1k", trials="1")[0]
    key = sample.reference
    wrong_last = key[:-1] + str((int(key[-1]) + 1) % 10)
    assert sample.score(generated(f" {key}. The"))["token_accuracy"] == 1
    assert sample.score(generated(f" {wrong_last}"))["token_accuracy"] == pytest.approx(5 / 6)
    assert sample.score(generated(" "))["token_accuracy"] == pytest.approx(1 / 6)


def generated(text: str) -> Generated:
    return Generated(text, tuple(ByteTokenizer().encode(text)))


@pytest.mark.parametrize(
    ("given_options", "name", "value"),
    [
        ({"lengths": "64k"}, "lengths", (65536,)),
        ({"lengths": "1M, 1k,5000,1K"}, "lengths", (1024, 5000, 1048576)),
        ({"position": "random,start,random"}, "position", ("start", "random")),
        ({"trials": "50"}, "trials", 50),
        ({"key_digits": "9"}, "key_digits", 9),
        ({}, "lengths", (1024, 4096, 16384, 65536)),
    ],
)
def test_options_are_parsed_to_one_form(given_options: dict[str, str], name: str, value: object) -> None:
    assert getattr(PassKey.from_options(given_options).options, name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lengths", "1q"),
        ("lengths", ""),
        ("lengths", "1k,,4k"),
        ("lengths", "0"),
        ("lengths", "-1k"),
        ("position", "middle"),
        ("position", ""),
        ("trials", "0"),
        ("trials", "1.5"),
        ("key_digits", "10"),
        ("key_digits", "x"),
    ],
)
def test_a_bad_value_names_option_and_value(name: str, value: str) -> None:
    with pytest.raises(UserError, match=f"task passkey: option '{name}' must be .*, not '{value}'"):
        PassKey.from_options({name: value})


def test_an_unknown_option_suggests_the_closest() -> None:
    with pytest.raises(UserError, match="unknown option of task passkey: 'length'") as error:
        PassKey.from_options({"length": "1k"})
    assert "lengths" in str(error.value.hint)


@pytest.mark.parametrize("wording", list(WORDINGS))
@pytest.mark.parametrize("position", ["start", "random", "grid"])
def test_every_wording_tells_its_key_and_asks_for_it(wording: str, position: str) -> None:
    for sample in samples(lengths="1k", position=position, trials="3", wording=wording):
        text = text_of(sample, ByteTokenizer())
        assert len(text) == 1024 - BUDGET
        assert text.count(sample.reference) == WORDINGS[wording].line.count("{key}")
        assert text.endswith(WORDINGS[wording].question.rpartition("}")[2])
        assert text.index(sample.reference) < text.rindex("\n")


@pytest.mark.parametrize("position", ["start", "random", "grid"])
@pytest.mark.parametrize("tokenizer", tokenizers.values())
def test_one_of_several_keys_is_asked_for_by_its_name(position: str, tokenizer: Any) -> None:
    for sample in samples(tokenizer(), lengths="2k", position=position, trials="4", wording="named", keys="3"):
        prompt = sample.request().prompt
        assert len(prompt_ids(prompt, tokenizer())) == 2048 - BUDGET
        text = "".join(part if isinstance(part, str) else " FILL " for part in prompt.segments)
        told = dict(re.findall(r"The pass key of (\w+) is (\d+)\.", text))
        assert len(told) == len(set(told.values())) == 3
        (name,) = re.findall(r"What is the pass key of (\w+)\?", text)
        assert told[name] == sample.reference
        depth = sample.cell["position"]
        first, *_, last = told
        assert first == name or depth not in ("start", "depth 0%")
        assert last == name or depth != "depth 100%"


def test_distances_are_counted_from_the_key_that_is_asked_for() -> None:
    for sample in samples(lengths="1k", position="random,grid", trials="5", wording="named", keys="4"):
        text = text_of(sample, ByteTokenizer())
        line = WORDINGS["named"].line.format(
            name=re.findall(r"What is the pass key of (\w+)\?", text)[0], key=sample.reference
        )
        after = text.index(line) + len(line) + 1
        question = text.rindex("What is the pass key of")
        assert sample.details["distance"] == question - after


def test_several_keys_need_names() -> None:
    with pytest.raises(UserError, match="wording 'classic' has none"):
        samples(keys="2")


@pytest.mark.parametrize("position", ["start", "random", "grid"])
@pytest.mark.parametrize("tokenizer", tokenizers.values())
def test_the_latest_key_of_a_name_counts(position: str, tokenizer: Any) -> None:
    options = {"lengths": "2k", "position": position, "trials": "4", "wording": "named"}
    for sample in samples(tokenizer(), keys="2", values="3", **options):
        prompt = sample.request().prompt
        assert len(prompt_ids(prompt, tokenizer())) == 2048 - BUDGET
        text = "".join(part if isinstance(part, str) else " FILL " for part in prompt.segments)
        told = re.findall(r"The pass key of (\w+) is (\d+)\.", text)
        (name,) = re.findall(r"What is the pass key of (\w+)\?", text)
        keys = [key for other, key in told if other == name]
        assert len(told) == len({key for _, key in told}) == 4 and len(keys) == 3
        assert keys[-1] == sample.reference
        assert sample.cell["position"] not in ("start", "depth 0%") or [other for other, _ in told[:3]] == [name] * 3
        assert sample.cell["position"] != "start" or text.index("The pass key of") < text.index("FILL")


def test_more_values_leave_the_keys_as_they_are() -> None:
    options = {"lengths": "1k", "position": "start,random,grid", "wording": "named", "keys": "3"}
    before, after = samples(**options), samples(values="2", **options)
    assert [(s.id, s.reference, s.details["depth"]) for s in before] == [
        (s.id, s.reference, s.details["depth"]) for s in after
    ]
    assert "values" not in PassKey.from_options(options).recorded_options()


def test_several_values_need_a_name() -> None:
    with pytest.raises(UserError, match="2 values need a name, and the wording 'classic' has none"):
        samples(values="2")
