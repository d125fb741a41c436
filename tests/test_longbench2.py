"""The task longbench2: its prompt, what an answer says, and the official table worked out from made answers."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from famcli.tasks.longbench2 import LongBench2

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError
from famcli.task import Choose, Chosen, DataError, Generate, Generated, Sample, Scores, Weighted

ROW = {
    "_id": "66f36490",
    "domain": "Single-Document QA",
    "sub_domain": "Financial",
    "difficulty": "easy",
    "length": "short",
    "question": " Who {came}? ",
    "choice_A": "Ada\n",
    "choice_B": "Boris {A}",
    "choice_C": "Chandra",
    "choice_D": " Dolores",
    "answer": "B",
    "context": "\nA {question} long story.\n\n",
}
"""As the hub has them."""


def samples(path: Path, *rows: dict[str, Any], limit: int | None = None, **options: str) -> list[Sample]:
    if rows:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return LongBench2.from_options({"data": str(path), **options}).samples(ByteTokenizer(), 0, limit)


def test_the_prompt_is_the_official_one(tmp_path: Path) -> None:
    """``prompts/0shot.txt`` filled as ``pred.py`` fills it, with texts that look like places to fill."""
    (sample,) = samples(tmp_path / "rows.jsonl", ROW)
    request = sample.request()
    assert isinstance(request, Generate)
    assert request.prompt.segments == (
        "Please read the following text and answer the question below.\n\n<text>\n",
        "A {question} long story.",
        "\n</text>\n\nWhat is the correct answer to this question: Who {came}?\nChoices:\n(A) Ada\n(B) Boris {A}\n"
        "(C) Chandra\n(D) Dolores\n\n"
        'Format your response as follows: "The correct answer is (insert answer here)".',
    )
    assert (request.prompt.document, request.max_new_tokens, request.stop) == (1, 128, ())
    assert sample.id == "66f36490" and sample.cell == {}
    assert sample.details == {
        "difficulty": "easy",
        "length_group": "short",
        "domain": "Single-Document QA",
        "sub_domain": "Financial",
    }


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        ("The correct answer is (B)", "B"),
        ("  **The correct answer is (B)**.", "B"),
        ("The correct answer is B, not (A)", "B"),
        ("The correct answer is A. No: The correct answer is (B)", "B"),  # brackets come first
        ("The correct answer is (insert answer here). The correct answer is (B) or (C)", "B"),
        ("The *correct* answer is *(B)*", "B"),
        ("the correct answer is (B)", None),
        ("The correct answer is (E)", None),
        ("The correct answer is: (B)", None),
        ("The correct answer is  (B)", None),
        ("B", None),
        ("", None),
        ("The correct answer is (C)", "C"),
    ],
)
def test_the_letter_is_read_as_officially(tmp_path: Path, said: str, letter: str | None) -> None:
    (sample,) = samples(tmp_path / "rows.jsonl", ROW)
    found = sample.score(Generated(said, ()))
    assert found["accuracy"] == float(letter == "B")
    assert found["answered"] == float(letter is not None)


def mean(scores: list[Scores], name: str) -> float:
    """As famcli averages: by weights."""
    pairs = [value if isinstance(value, Weighted) else Weighted(value, 1) for value in (one[name] for one in scores)]
    return sum(value * weight for value, weight in pairs) / sum(weight for _, weight in pairs)


def test_the_table_is_that_of_the_official_script(tmp_path: Path) -> None:
    """Counted here as ``result.py`` counts, from its columns overall, easy, hard, short, medium and long."""
    rows, said = [], []
    for number in range(60):
        parts = {"difficulty": ("easy", "hard")[number % 2], "length": ("short", "medium", "long")[number % 7 % 3]}
        rows.append({**ROW, **parts, "_id": str(number), "answer": "ABCD"[number * 7 % 4]})
        said.append(f"The correct answer is ({'ABCDE'[number % 5]})")
    counts: dict[str, list[int]] = defaultdict(list)
    for row, text in zip(rows, said, strict=True):
        right = text == f"The correct answer is ({row['answer']})"
        for column in ("accuracy", f"accuracy_{row['difficulty']}", f"accuracy_{row['length']}"):
            counts[column].append(right)
    found = [
        sample.score(Generated(text, ()))
        for sample, text in zip(samples(tmp_path / "rows.jsonl", *rows), said, strict=True)
    ]
    assert len(counts) == 6
    for column, values in counts.items():
        assert 0 < sum(values) < len(values)
        assert mean(found, column) == pytest.approx(sum(values) / len(values)), column
    assert mean(found, "answered") == pytest.approx(48 / 60)


def test_weighed_the_likeliest_letter_counts(tmp_path: Path) -> None:
    (sample,) = samples(tmp_path / "rows.jsonl", ROW, answer="weighed")
    request = sample.request()
    assert isinstance(request, Choose)
    assert [re.fullmatch(r" The correct answer is \((.)\)", text)[1] for text in request.options] == list("ABCD")  # type: ignore[index]
    assert sample.reference == request.options[1]
    for best, right in ((1, 1.0), (3, 0.0)):
        likelihoods = tuple(-1.0 if i == best else -2.0 for i in range(4))
        assert sample.score(Chosen(likelihoods, (5,) * 4))["accuracy"] == right


def test_lengths_are_chosen_as_rows_say(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{**ROW, "_id": name, "length": name} for name in ("long", "short", "medium")]
    assert [one.id for one in samples(path, *rows, length="medium,long")] == ["long", "medium"]
    assert [one.id for one in samples(path, limit=2)] == ["long", "short"]
    with pytest.raises(UserError, match="no row is of length short") as error:
        samples(path, rows[0], {**rows[1], "length": None}, length="short")
    assert error.value.hint == "there are: long"


def test_the_published_file_is_read(tmp_path: Path) -> None:
    """``data.json`` is one list; rows without a name are called by what they ask."""
    rows = [{**ROW, "_id": None}, {**ROW, "_id": None, "choice_A": "Adam"}]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    names = [one.id for one in samples(tmp_path / "data.json")]
    assert len(set(names)) == 2
    (tmp_path / "data.json").write_text(json.dumps(rows[::-1]))
    assert [one.id for one in samples(tmp_path / "data.json")] == names[::-1]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({**ROW, "answer": "E"}, "line 2: field 'answer' must be one of A, B, C, D, not 'E'"),
        ({**ROW, "answer": "AB"}, "line 2: field 'answer' must be one of A, B, C, D, not 'AB'"),
        ({**ROW, "answer": None}, "line 2: field 'answer' is missing: a split without right answers"),
        (
            {**ROW, "_id": "other", "difficulty": "medium"},
            "line 2: field 'difficulty' must be one of easy, hard, not 'medium'",
        ),
        (
            {**ROW, "_id": "other", "length": "128k"},
            "line 2: field 'length' must be one of short, medium, long, not '128k'",
        ),
        ({**ROW, "_id": "other", "choice_C": ""}, "line 2: field 'choice_C' is empty"),
        (ROW, "line 2: field '_id' is '66f36490' as in"),
    ],
)
def test_rows_that_do_not_fit_are_named(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=re.escape(words)):
        samples(tmp_path / "rows.jsonl", ROW, row)


def test_the_sample_is_read() -> None:
    found = samples(Path("sample"))
    assert len(found) == 4 and len({one.document for one in found}) == 2
    for sample in found:
        said = f"The correct answer is {sample.reference}"
        assert sample.score(Generated(said, ()))["accuracy"] == 1.0
