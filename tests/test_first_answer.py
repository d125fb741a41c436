"""How long a reader waits for the first answer about a document, by a clock that ticks once a token that is read."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from asked_samples import Asks, answers, asked, story
from made_runs import passkey_run
from small_runs import small_model

from famcli.compare.side_by_side import compare
from famcli.evaluation.cost import known_cost
from famcli.evaluation.record import RunRecord, load_record
from famcli.evaluation.runner import evaluate
from famcli.reports.formats import FORMATS
from famcli.reports.html.page import build

FIRST = story(1, 300)
SHARED = [asked(name, FIRST, f"\n{name}?", (" two", " one")) for name in ("who", "why", "how")]
ALONE = [asked(name, story(number, 150), "\nWhy?", (" two",), alone=True) for number, name in enumerate("xy", 2)]


class Clock:
    """Says how many tokens have been read; it is the progress of a run too."""

    def __init__(self) -> None:
        self.now = 0

    def perf_counter(self) -> float:
        return float(self.now)

    def begin(self, samples: int, done: int, tokens: int) -> None:
        pass

    def advance(self, tokens: int) -> None:
        self.now += tokens

    def end(self) -> None:
        pass


def run(results: Path, monkeypatch: pytest.MonkeyPatch, batch: int = 1, **settings: Any) -> RunRecord:
    clock = Clock()
    monkeypatch.setattr("famcli.evaluation.stream.time", SimpleNamespace(perf_counter=clock.perf_counter))
    task = Asks([*SHARED, *ALONE])
    return evaluate(small_model(), task, results=results, batch_size=batch, progress=clock, **settings)


def test_it_is_counted_from_the_start_of_reading_to_the_first_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = run(tmp_path, monkeypatch)
    lines = answers(record.path)
    waited = {name: line["first_answer_seconds"] for name, line in lines.items()}
    first = lines["who"]
    assert waited["who"] == first["prompt_tokens"] + first["option_tokens"], "the document, its question, the options"
    assert (waited["why"], waited["how"]) == (None, None)
    alone = [lines[name]["prompt_tokens"] + lines[name]["option_tokens"] for name in "xy"]
    assert [waited[name] for name in "xy"] == alone
    assert record.cost["seconds_to_first_answer"] == pytest.approx((waited["who"] + sum(alone)) / 3)


def test_answers_of_one_batch_come_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = answers(run(tmp_path, monkeypatch, batch=8).path)
    shared = [lines[name] for name in ("who", "why", "how")]
    tokens = sum(line["prompt_tokens"] - line["shared_tokens"] + line["option_tokens"] for line in shared)
    assert {line["first_answer_seconds"] for line in shared} == {tokens + shared[0]["shared_tokens"]}


def test_a_broken_run_keeps_the_first_answer_that_there_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tmp_path, monkeypatch)
    journal, record = whole.path / "samples.jsonl", whole.path / "run.json"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text(lines[0])
    record.write_text(json.dumps({**json.loads(record.read_text()), "status": "running"}))
    again = run(tmp_path, monkeypatch)
    assert again.cost["seconds_to_first_answer"] == whole.cost["seconds_to_first_answer"]
    bare = [json.loads(line) for line in lines]
    for line in bare[1:]:
        del line["first_answer_seconds"]  # as an older version would have left them
    journal.write_text("".join(json.dumps(line) + "\n" for line in bare[:4]))
    record.write_text(json.dumps({**json.loads(record.read_text()), "status": "running"}))
    assert "seconds_to_first_answer" not in run(tmp_path, monkeypatch).cost, "of one of the texts it is not known"


@pytest.mark.parametrize("name", [*FORMATS, "report"])
def test_every_format_shows_it_and_older_records_have_none(name: str, tmp_path: Path) -> None:
    new = passkey_run(tmp_path, "fam-new", {(1024, "start"): [1]}, cost={"seconds_to_first_answer": 12.25})
    old = load_record(passkey_run(tmp_path, "fam-old", {(1024, "start"): [1]}).path)
    assert known_cost(old)["seconds_to_first_answer"] is None
    comparison = compare([new, old])
    if name == "report":
        text = build(comparison, lambda record: record.model["name"]).page
    else:
        text = FORMATS[name](comparison)
    if name == "json":
        waited = {cost["model"]: cost["values"]["seconds_to_first_answer"] for cost in json.loads(text)["costs"]}
        assert waited == {"fam-new": 12.25, "fam-old": None}
    elif name == "csv":
        lines = [line for line in csv.DictReader(io.StringIO(text)) if line["metric"] == "cost.seconds_to_first_answer"]
        assert sorted((line["fam-new"], line["fam-old"]) for line in lines) == [("", ""), ("12.25", "")]
    else:
        assert "s to first answer" in text and "12.2" in text
