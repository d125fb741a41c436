"""RULER's texts taken apart again: needles, chains and counts are what the question is about, and lengths are exact."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from famcli.tasks.ruler import KINDS, MADE, Ruler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_runs import WordTokenizer, prompt_ids

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError
from famcli.seams import FramedEncoder, SpecialTokens
from famcli.task import DataError, Generated, Sample

tokenizers = {"bytes": ByteTokenizer, "words": WordTokenizer}
NIAH = [kind for kind in MADE if kind.startswith("niah")]
NEEDLE = re.compile(r"One of the special magic (numbers|uuids) for (\S+) is: (\S+)\.")
BUDGETS = {**dict.fromkeys(NIAH, 128), "vt": 30, "cwe": 120, "fwe": 50, "qa_1": 32, "qa_2": 32}
ARTICLES = [
    {"title": f"T{n % 3}", "context": f"Paper {n} says that the river {n}x is long.", "question": f"How is {n}x?"}
    for n in range(40)
]


def samples(tokenizer: Any = None, seed: int = 0, limit: int | None = None, **options: str) -> list[Sample]:
    return Ruler.from_options(options).samples(tokenizer or ByteTokenizer(), seed, limit)


def parts_of(sample: Sample, tokenizer: Any) -> tuple[str, str, str]:
    before, text, after = sample.request().prompt.segments
    return str(before), tokenizer.decode(list(text)), str(after)  # type: ignore[arg-type]


def squad(path: Path) -> Path:
    rows = [{**row, "answers": {"text": ["long", "is long"], "answer_start": [0, 0]}} for row in ARTICLES]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from([*MADE, "qa_1"]),
    tokenizer=st.sampled_from(sorted(tokenizers)),
    length=st.integers(3700, 4200),
    seed=st.integers(0, 2**32),
)
def test_a_prompt_and_its_answer_fill_the_length_but_for_a_unit(
    tmp_path: Path, kind: str, tokenizer: str, length: int, seed: int
) -> None:
    made = tokenizers[tokenizer]()
    data = {"data": str(squad(tmp_path / "rows.jsonl"))} if kind == "qa_1" else {}
    length = length if kind != "qa_1" else 1100 if tokenizer == "bytes" else 400
    (sample,) = samples(made, seed, kind=kind, lengths=str(length), trials="1", **data)
    request = sample.request()
    total = len(prompt_ids(request.prompt, made)) + request.max_new_tokens
    units = {  # of which none has more tokens
        "niah_single_1": "\nThe grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.",
        "niah_multikey_2": "\nOne of the special magic numbers for babo-bababo is: 1234567.",
        "niah_multikey_3": "\n" + "x" * 120,
        "vt": "\nThe grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.",
        "cwe": " 1234. bababa" * 3,
        "fwe": " abcdef" * 12,
        "qa_1": "\n\nDocument 10:\nPaper 10 says that the river 10x is long.",
    }
    unit = 1 if kind not in units else len(made.encode(units[kind])) + 100 * (kind == "niah_multikey_3")
    assert length - unit < total <= length
    assert request.max_new_tokens == BUDGETS[kind]
    again = sample.request()
    assert prompt_ids(again.prompt, made) == prompt_ids(request.prompt, made)


@settings(deadline=None, max_examples=25)
@given(kind=st.sampled_from(NIAH), tokenizer=st.sampled_from(sorted(tokenizers)), seed=st.integers(0, 2**32))
def test_every_needle_stands_once_and_the_right_ones_are_asked_for(kind: str, tokenizer: str, seed: int) -> None:
    made = tokenizers[tokenizer]()
    (sample,) = samples(made, seed, kind=kind, lengths="4k", trials="1")
    before, text, after = parts_of(sample, made)
    found = [match.groups() for match in NEEDLE.finditer(text)]
    values = [value for _, _, value in found]
    assert len(set(values)) == len(values), "no other needle has an answer's value"
    (query,) = re.findall(r"for (.+) mentioned in the provided text\?", after)
    asked = [name.removeprefix("and ") for name in query.split(", ")]
    right = [value for _, key, value in found if key in asked]
    assert sorted(sample.reference.split(" | ")) == sorted(right)
    counts = {"niah_multivalue": (1, 4), "niah_multiquery": (4, 4)}.get(kind, (1, 1))
    assert (len(asked), len(right)) == counts
    hidden = {"niah_multikey_1": 4}.get(kind, len(right))
    assert len(found) == hidden or (kind in ("niah_multikey_2", "niah_multikey_3") and len(found) > 20)
    one = len(right) == 1
    kinds = found[0][0]
    assert before.startswith(
        f"A special magic {kinds[:-1]} is hidden" if one else f"Some special magic {kinds} are hid"
    )
    assert after.startswith("\nWhat is the special" if one else "\nWhat are all the special")
    assert after.endswith("mentioned in the provided text " + ("is" if one else "are"))


def test_a_needle_stands_where_its_depth_says() -> None:
    for sample in samples(kind="niah_single_1,niah_single_2,niah_multikey_2", lengths="8k", trials="8"):
        text = parts_of(sample, ByteTokenizer())[1]
        at = text.index(sample.reference) / len(text)
        assert at == pytest.approx(sample.details["depth"], abs=0.05)
    depths = [float(s.details["depth"]) for s in samples(kind="niah_single_1", trials="2000", lengths="1k")]
    assert sum(depth < 0.25 for depth in depths) / 2000 == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("tokenizer", sorted(tokenizers))
def test_a_chain_leads_from_the_value_to_every_variable(tokenizer: str) -> None:
    made = tokenizers[tokenizer]()
    for sample in samples(made, kind="vt", lengths="3k"):
        before, text, after = parts_of(sample, made)
        (value,) = re.findall(r"5 variables are assigned the value (\d+), they are: $", after)
        known: list[str] = []
        for name, source in re.findall(r"VAR (\w+) = (?:VAR )?(\w+)", text):
            assert source == (known[-1] if known else value)
            known.append(name)
        assert known == sample.reference.split(" | ") and len(set(known)) == 5
        assert before.count("Memorize and track") == 2 and before.count("are assigned the value") == 2
        assert not set(known) & set(re.findall(r"VAR (\w+)", before))


@pytest.mark.parametrize(("length", "often", "seldom"), [("16k", 30, 3), ("4k", 6, 1)])
def test_common_words_come_more_often(length: str, often: int, seldom: int) -> None:
    for sample in samples(kind="cwe", lengths=length, trials="3"):
        before, text, _ = parts_of(sample, ByteTokenizer())
        listed = re.findall(r"(\d+)\. (\w+)", text)
        assert [int(number) for number, _ in listed] == list(range(1, len(listed) + 1))
        counts = Counter(word for _, word in listed)
        common = set(sample.reference.split(" | "))
        assert {word for word, n in counts.items() if n == often} == common and len(common) == 10
        assert {n for word, n in counts.items() if word not in common} == {seldom}
        assert len({len(word) for word in counts}) == 1, "no word is a part of another"
        assert before.count("Below is a numbered list of words.") == 2


@pytest.mark.parametrize("length", ["1k", "3000", "16k"])
def test_frequent_words_fall_off_by_a_power_law(length: str) -> None:
    for sample in samples(kind="fwe", lengths=length, trials="3"):
        counts = Counter(parts_of(sample, ByteTokenizer())[1].split())
        (dots, first), *others = counts.most_common(5)
        assert dots == "..." and [word for word, _ in others[:3]] == sample.reference.split(" | ")
        assert others[2][1] > others[3][1], "the fourth is not the fifth"
        assert [n / first for _, n in others[:3]] == pytest.approx([1 / 4, 1 / 9, 1 / 16], abs=0.03)


def test_the_shortest_text_of_frequent_words_has_three_of_them() -> None:
    with pytest.raises(UserError, match="too short for fwe") as error:
        samples(kind="fwe", lengths="200", trials="1")
    least = int(re.findall(r"lengths=(\d+)", str(error.value.hint))[0])
    for length in range(least, least + 2000, 7):
        (sample,) = samples(kind="fwe", lengths=str(length), trials="1")
        counts = Counter(parts_of(sample, ByteTokenizer())[1].split()).most_common(5)
        assert counts[3][1] > counts[4][1]
        assert {word for word, _ in counts[1:4]} == set(sample.reference.split(" | "))


@pytest.mark.parametrize("length", ["700", "1400"])
def test_documents_of_the_same_article_come_first(tmp_path: Path, length: str) -> None:
    data = str(squad(tmp_path / "rows.jsonl"))
    for sample in samples(kind="qa_1", data=data, lengths=length, trials="40"):
        _, text, after = parts_of(sample, ByteTokenizer())
        found = re.findall(r"\n\nDocument (\d+):\nPaper (\d+) says", text)
        assert [int(number) for number, _ in found] == list(range(1, len(found) + 1))
        papers = [int(paper) for _, paper in found]
        (asked,) = re.findall(r"How is (\d+)x\? Answer:$", after)
        assert int(asked) in papers and len(set(papers)) == len(papers)
        same = {paper for paper in range(40) if paper % 3 == int(asked) % 3}
        assert set(papers) < same if length == "700" else same < set(papers)
        assert sample.score(Generated("It Is Long", ())) == {"string_match": 1.0}
        assert sample.score(Generated("lo", ())) == {"string_match": 0.0}
    text = parts_of(samples(kind="qa_1", data=data, lengths="8k")[0], ByteTokenizer())[1]
    counts = {text.count(f"Paper {n} says") for n in range(40)}
    assert min(counts) > 1 and max(counts) - min(counts) <= 1, "too few documents come again"


def test_the_sample_has_questions() -> None:
    found = samples(data="sample", kind="qa_1", lengths="4k", trials="20")
    assert len(found) == 7
    for sample in found:
        assert any(answer in parts_of(sample, ByteTokenizer())[1] for answer in sample.reference.split(" | "))


def test_published_files_are_read(tmp_path: Path) -> None:
    squad_v2 = {
        "version": "v2.0",
        "data": [
            {
                "title": "A",
                "paragraphs": [
                    {
                        "context": "Ada came.",
                        "qas": [
                            {"question": "Who came?", "answers": [{"text": "Ada", "answer_start": 0}]},
                            {"question": "Who left?", "answers": [], "is_impossible": True},
                        ],
                    },
                    {"context": "Boris left. " * 9, "qas": []},
                ],
            }
        ],
    }
    (tmp_path / "dev-v2.0.json").write_text(json.dumps(squad_v2))
    task = Ruler.from_options({"kind": "qa_1", "data": str(tmp_path / "dev-v2.0.json")})
    assert task.questions and task.questions.documents == ["Ada came.", "Boris left. " * 9]
    assert [(one.query, one.answers) for one in task.questions.questions] == [("Who came?", ("Ada",))]
    pairs = [[f"T{n}", [f"First {n}.", " Second."]] for n in range(10)]
    hotpot = [{"_id": "x", "question": "Which?", "answer": "T1", "context": pairs}]
    (tmp_path / "hotpot_dev_distractor_v1.json").write_text(json.dumps(hotpot))
    hub = {**hotpot[0], "context": {"title": [p[0] for p in pairs], "sentences": [p[1] for p in pairs]}}
    (tmp_path / "hub.jsonl").write_text(
        json.dumps(hub) + "\n" + json.dumps({**hub, "context": {"title": ["Z"], "sentences": [["Long. " * 50]]}})
    )
    for name, text in (("hub.jsonl", "T1\nFirst 1. Second."),):
        found = samples(kind="qa_2", data=str(tmp_path / name), lengths="1k", trials="1")
        assert text in parts_of(found[0], ByteTokenizer())[1]
    task = Ruler.from_options({"kind": "qa_2", "data": str(tmp_path / "hotpot_dev_distractor_v1.json")})
    assert task.questions and task.questions.documents[1] == "T1\nFirst 1. Second."


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "qa_1"}, "qa_1 asks about documents, and no data is given"),
        ({"kind": "vt", "data": "x"}, "data is given, and none of the kinds reads it"),
        ({"kind": "niah"}, "option 'kind' must be one or several of niah_single_1"),
        ({"background": ""}, "option 'background' is empty"),
        ({"kind": "cwe", "lengths": "1k"}, "length 1024 is too short for cwe: .* the least is"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        samples(**options)


def test_data_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = squad(tmp_path / "rows.jsonl")
    with pytest.raises(UserError, match="qa_2 is asked for, and the data is of qa_1"):
        samples(kind="qa_2", data=str(path))
    path.write_text(
        path.read_text() + json.dumps({"question": "?", "answer": "a", "context": {"title": [], "sentences": []}})
    )
    with pytest.raises(DataError, match=r"line 41: this is a row of HotpotQA, and rows.jsonl, line 1 one of SQuAD"):
        samples(kind="qa_1", data=str(path))


@pytest.mark.parametrize("kind", NIAH)
def test_the_least_length_is_enough(kind: str) -> None:
    with pytest.raises(UserError, match="too short") as error:
        samples(kind=kind, lengths="100", trials="1")
    least = re.findall(r"lengths=(\d+)", str(error.value.hint))[0]
    assert samples(kind=kind, lengths=least, trials="1", limit=1)[0].request()


def test_what_stands_around_a_prompt_counts() -> None:
    framed = FramedEncoder(ByteTokenizer(), SpecialTokens(texts=("User: ", "\nAnswer:")))
    (sample,) = samples(framed, kind="niah_single_2", lengths="2k", trials="1")
    request = sample.request()
    around = len("User: \nAnswer:")
    assert len(prompt_ids(request.prompt, ByteTokenizer())) + around + request.max_new_tokens == 2048


def test_all_answers_count_in_part() -> None:
    (sample,) = samples(kind="niah_multivalue", trials="1", lengths="2k")
    first, *others = sample.reference.split(" | ")
    assert sample.score(Generated(f" {first}, {others[0]}", ())) == {"string_match": 0.5}
    assert sample.score(Generated(" ".join([first, *others]), ())) == {"string_match": 1.0}
    (sample,) = samples(kind="vt", trials="1", lengths="2k")
    assert sample.score(Generated(sample.reference.lower(), ())) == {"string_match": 1.0}


def test_a_cell_can_be_rerun_by_itself() -> None:
    every = {s.id: s.reference for s in samples(seed=1, lengths="4k,8k", trials="3")}
    alone = {s.id: s.reference for s in samples(seed=1, kind="vt,fwe", lengths="8k", trials="2")}
    assert len(every) == 3 * 2 * len(MADE) and len(alone) == 4 and alone.items() <= every.items()
    assert set(KINDS) == {*MADE, "qa_1", "qa_2"} and len(KINDS) == 13
