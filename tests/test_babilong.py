"""BABILong's texts taken apart again, and the official rule of what is right."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from data_files import SHARED
from famcli.tasks.babilong import BABILong
from famcli.tasks.background import Background
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import WordTokenizer, prompt_ids, small_model

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.compare.pairing import comparable
from famcli.errors import UserError
from famcli.evaluation.runner import evaluate
from famcli.task import DataError, Generated, Sample

tokenizers = {"bytes": ByteTokenizer, "words": WordTokenizer}
REAL = SHARED / "babilong"
TALE = "It was a long night. " + " ".join(f"On day {n} the old ship sailed past island number {n}." for n in range(90))
STORY = {"input": "Mary went to the office. John got the milk.", "question": "Where is Mary? ", "target": "office"}


def samples(tokenizer: Any = None, seed: int = 0, limit: int | None = None, **options: str) -> list[Sample]:
    given = {"data": "sample", **options}
    return BABILong.from_options(given).samples(tokenizer or ByteTokenizer(), seed, limit)


def text_of(sample: Sample, tokenizer: Any) -> str:
    """What stands in the context."""
    before, text, after = sample.request().prompt.segments
    assert str(before).endswith("<context>\n") and str(after).startswith("\n</context>\n\nQuestion: ")
    return text if isinstance(text, str) else str(tokenizer.decode(list(text)))


@pytest.fixture(scope="module")
def tale(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("background") / "tale.txt"
    path.write_text(TALE)
    return path


@settings(deadline=None, max_examples=20)
@given(
    tokenizer=st.sampled_from(sorted(tokenizers)),
    length=st.integers(2000, 5000),
    seed=st.integers(0, 2**32),
)
def test_facts_stand_in_order_between_sentences_that_follow_one_another(
    tale: Path, tokenizer: str, length: int, seed: int
) -> None:
    made = tokenizers[tokenizer]()
    for sample in samples(made, seed, limit=5, lengths=str(length), background=str(tale)):
        request = sample.request()
        assert len(prompt_ids(request.prompt, made)) + request.max_new_tokens == length
        assert sample.prompt_tokens == length - request.max_new_tokens
        text = text_of(sample, made)
        (plain,) = (s for s in samples(made, lengths="0k") if s.id.rpartition("/")[0] == sample.id.rpartition("/")[0])
        facts = re.split(r"(?<=\.) ", text_of(plain, made))
        places = [text.index(f" {fact}") for fact in facts]
        assert places == sorted(places)
        for fact in facts:
            text = text.replace(f" {fact}", "", 1)
        whole = f" {TALE}" * 12
        assert text in whole, "what is left is the background, word for word"


def test_places_are_drawn_alike(tale: Path) -> None:
    """The first of two facts stands in the first third of its text in 5 of 9 cases."""
    early = 0
    for seed in range(300):
        (sample,) = samples(seed=seed, limit=1, kinds="qa4", lengths="6k", background=str(tale), prompt="bare")
        _, text, _ = sample.request().prompt.segments
        decoded = ByteTokenizer().decode(list(text))  # type: ignore[arg-type]
        early += decoded.index(" The office is north") < len(decoded) / 3
    assert early / 300 == pytest.approx(5 / 9, abs=0.08)


@pytest.mark.parametrize(
    ("kind", "question", "target", "answer", "right"),
    [
        ("qa1", "Where is Mary?", "office", "The most recent location of Mary is office.", True),
        ("qa1", "Where is Mary?", "office", " OFFICE. Not the kitchen.", True),
        ("qa1", "Where is Mary?", "office", "office or kitchen", False),
        ("qa1", "Where is Mary?", "office", "kitchen", False),
        ("qa1", "Where is Mary?", "office", "", False),
        ("qa3", "Where was the milk before the kitchen?", "office", "Before the kitchen it was in the office.", True),
        ("qa3", "Where was the milk before the kitchen?", "office", "kitchen", False),
        ("qa5", "What did Fred give to Jeff?", "milk", "Fred gave Jeff the milk", True),
        ("qa5", "What did Fred give to Jeff?", "milk", "Bill gave the milk", False),
        ("qa5", "Who gave the milk to Jeff?", "Fred", "fred\n<context>\nBill took the apple", True),
        ("qa5", "Who gave the milk to Jeff?", "Fred", "Fred\nBill", False),
    ],
)
def test_right_is_the_label_alone(
    tmp_path: Path, kind: str, question: str, target: str, answer: str, right: bool
) -> None:
    row = {**STORY, "kind": kind, "question": question, "target": target}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (sample,) = samples(data=str(tmp_path / "rows.jsonl"))
    assert sample.score(Generated(answer, ())) == {"accuracy": float(right)}


def test_the_prompt_is_the_official_one(tmp_path: Path) -> None:
    (tmp_path / "qa1.jsonl").write_text(json.dumps(STORY))
    (sample,) = samples(data=str(tmp_path / "qa1.jsonl"))
    text = "".join(map(str, sample.request().prompt.segments))
    assert text.startswith("I will give you context with the facts about positions of different persons hidden in")
    assert "\n\n<example>\nCharlie went to the hallway. Judith come" in text
    assert text.endswith(
        "Do not write anything else after that.\n\n<context>\nMary went to the office. John got the milk.\n</context>"
        "\n\nQuestion: Where is Mary?"
    )
    (bare,) = samples(data=str(tmp_path / "qa1.jsonl"), prompt="bare")
    assert "".join(map(str, bare.request().prompt.segments)) == f"{STORY['input']}\nQuestion: Where is Mary?\nAnswer:"


def test_names_of_files_say_the_kind(tmp_path: Path) -> None:
    for name in ("a_qa1.jsonl", "qa2/0k.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(STORY))
    assert sorted(s.cell["kind"] for s in samples(data=str(tmp_path))) == ["qa1", "qa2"]
    assert [s.cell["kind"] for s in samples(data=str(tmp_path), kinds="qa2")] == ["qa2"]
    with pytest.raises(UserError, match="no row is of qa3: the data has qa1, qa2"):
        samples(data=str(tmp_path), kinds="qa3,qa2")


@pytest.mark.parametrize(
    ("name", "row", "words"),
    [
        ("rows", STORY, "no field 'kind', and neither file nor folder"),
        ("qa6", STORY, "the name of the file is of qa6"),
        ("qa1_qa2", STORY, "the name of the file is of qa1, qa2"),
        ("qa1", {**STORY, "target": "street"}, "field 'target' must be a label of qa1: bathroom"),
        ("qa1", {**STORY, "kind": "qa9"}, "field 'kind' must be one of"),
        ("qa1", {**STORY, "question": ""}, "field 'question' is empty"),
    ],
)
def test_rows_that_do_not_fit_are_named(tmp_path: Path, name: str, row: dict[str, Any], words: str) -> None:
    (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match=words):
        samples(data=str(tmp_path / f"{name}.jsonl"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lengths": "4k"}, "facts are hidden in a text, and none is given"),
        ({"background": "sample"}, "a background is given, and lengths=0k has none"),
        ({"lengths": "1k", "background": "sample"}, "length 1024 is too short for qa1/.*: with this tokenizer .* have"),
        ({"lengths": "0k,x"}, "option 'lengths' must be numbers of tokens"),
        ({"kinds": "qa7"}, "option 'kinds' must be one or several of qa1"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        samples(**options)


def test_sentences_are_those_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(
        'He left.\n"What a very long day it was!" she\nsaid. "Then it was  over at last." So he said.'
    )
    assert Background(str(tmp_path)).sentences == [
        '"What a very long day it was!" she said.',
        '"Then it was over at last."',
    ]


def test_a_background_counts_by_its_content(tmp_path: Path, tale: Path) -> None:
    moved, other = tmp_path / "moved.txt", tmp_path / "other.txt"
    moved.write_text(TALE)
    other.write_text(TALE + " Another sentence ends this.")
    runs = [
        evaluate(
            small_model(),
            BABILong.from_options({"data": "sample", "lengths": "2k", "background": str(path), "kinds": "qa4"}),
            limit=1,
            results=tmp_path / str(n),
        )
        for n, path in enumerate((tale, moved, other))
    ]
    assert runs[0].run_id == runs[1].run_id != runs[2].run_id
    assert runs[0].task["options"]["background"] != runs[1].task["options"]["background"]
    assert comparable(runs[0], runs[1]) == []
    assert [difference.partition(":")[0] for difference in comparable(runs[0], runs[2])] == ["data"]


@pytest.mark.skipif(not REAL.exists(), reason="the real records are not here")
def test_real_rows_are_read() -> None:
    assert len(samples(data=str(REAL))) == 500
