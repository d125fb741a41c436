"""Tokens that were read and tokens that were computed are two numbers; the second is counted at the model itself."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asked_samples import Asks, answers, asked, story
from famcli.tasks.passkey import PassKey
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import RuleDecoder, loaded, small_model

from famcli.checkpoints.sources import LoadedModel
from famcli.compare.side_by_side import compare
from famcli.evaluation.cost import known_cost
from famcli.evaluation.record import RunRecord, load_record
from famcli.evaluation.runner import evaluate
from famcli.reports.cost import speed_of, speed_words
from famcli.reports.formats import to_csv, to_json, to_markdown
from famcli.reports.frames import load_runs

MEMORIES: list[dict[str, Any]] = [
    {"attention": "full"},
    {"attention": "fam", "memory_segments": 0},
    {"attention": "bswa", "memory_segments": 0},
    {"attention": "bswa", "memory_segments": 0, "sinks": 3},
    {"attention": "bswa", "memory_segments": 2},
]
SKIPS = MEMORIES[2:4]


def fed(model: LoadedModel) -> list[int]:
    """Number of token embeddings that each call of the model looks up from here on."""
    counts: list[int] = []
    model.decoder.embedding.register_forward_hook(lambda module, given, found: counts.append(given[0].numel()))
    return counts


@settings(max_examples=25, deadline=None)
@given(data=st.data(), memory=st.sampled_from(MEMORIES))
def test_computed_is_what_the_model_was_fed(memory: dict[str, Any], data: st.DataObject, tmp_path_factory: Any) -> None:
    """Shared documents, long and short, on and off the ends of blocks; questions and options."""
    model = small_model(block_size=data.draw(st.sampled_from([8, 32])), **memory)
    samples, after = [], 0
    for d in range(data.draw(st.integers(1, 2))):
        document = story(d, data.draw(st.sampled_from([1, 15, 16, 64, 100])))
        for q in range(data.draw(st.integers(1, 3))):
            options = tuple(" " + story(o, 1 + o) for o in range(data.draw(st.sampled_from([0, 2, 3]))))
            samples.append(asked(f"{d}-{q}", document, "\n" + story(9, data.draw(st.integers(0, 70))) + "?", options))
            after -= len(options)  # the last token of an option is weighed and not read
    counts = fed(model)
    run = evaluate(model, Asks(samples), results=tmp_path_factory.mktemp("runs"), batch_size=1)
    for line in answers(run.path).values():
        if "token_ids" in line["answer"]:
            generated = len(line["answer"]["token_ids"])
            after += generated - (generated == 5)  # the last one of a whole budget is not read
    assert run.cost["tokens_computed"] == sum(counts) - after
    if memory not in SKIPS:
        assert run.cost["tokens_computed"] == run.cost["tokens_read"]


@pytest.mark.parametrize("memory", SKIPS)
def test_speed_is_of_what_was_computed(memory: dict[str, Any], tmp_path: Path) -> None:
    task = PassKey.from_options({"lengths": "3000", "trials": "3"})
    model = small_model(**memory)
    cost = evaluate(model, task, results=tmp_path).cost
    assert cost["tokens_read"] == 3 * 2990
    # A prompt has 93 whole blocks of 32, which are skipped; the first is read where it leaves sinks.
    kept = 32 if memory.get("sinks") else 0
    assert cost["tokens_computed"] == 3 * (2990 - 93 * 32 + kept)
    worked = cost["tokens_computed"] + cost["tokens_generated"]
    assert cost["tokens_per_second"] == pytest.approx(worked / cost["seconds"])
    again = evaluate(model, task, results=tmp_path / "b", batch_size=1).cost
    assert again["tokens_computed"] == cost["tokens_computed"]


def aged(run: RunRecord) -> RunRecord:
    """The run as an older version left it."""
    file = run.path / "run.json"
    values = json.loads(file.read_text())
    del values["cost"]["tokens_computed"]
    file.write_text(json.dumps(values))
    lines = [json.loads(line) for line in (run.path / "samples.jsonl").read_text().splitlines()]
    for line in lines:
        del line["computed_tokens"], line["shared_computed_tokens"]
    (run.path / "samples.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return load_record(run.path)


@pytest.mark.parametrize("memory", MEMORIES)
def test_older_records_say_what_is_exact_and_no_more(memory: dict[str, Any], tmp_path: Path) -> None:
    model = replace(small_model(**memory), name="m")
    run = evaluate(model, PassKey.from_options({"lengths": "400", "trials": "2"}), results=tmp_path)
    old = aged(run)
    known = known_cost(old)
    if memory in SKIPS:
        assert (known["tokens_computed"], known["tokens_per_second"], speed_of([old])) == (None, None, "-")
        assert speed_words(old).startswith("not known")
    else:
        assert known == known_cost(run)
        generated = f", {run.cost['tokens_generated']} generated"
        assert run.cost["tokens_generated"] > 0
        assert speed_words(old).endswith(f": {2 * 390} tokens computed of {2 * 390} read{generated}")
    # A run that an older version began is gone on with, and then says no more than is known.
    lines = (old.path / "samples.jsonl").read_text().splitlines(keepends=True)
    (old.path / "samples.jsonl").write_text(lines[0])
    gone_on = evaluate(model, PassKey.from_options({"lengths": "400", "trials": "2"}), results=tmp_path)
    assert "tokens_computed" not in gone_on.cost
    assert known_cost(gone_on)["tokens_computed"] == known["tokens_computed"]


def test_models_of_others_compute_what_they_read_unless_they_say_so(tmp_path: Path) -> None:
    class Skips(RuleDecoder):
        def computes(self, start: int, count: int) -> int:
            return count // 2

    class Plain(RuleDecoder):
        pass

    task = PassKey.from_options({"lengths": "400", "trials": "1"})
    for kind, computed in ((Plain, 390), (Skips, 389 // 2 + 1)):
        run = evaluate(loaded(kind(lambda text: 32), kind.__name__), task, results=tmp_path / kind.__name__)
        assert run.cost["tokens_computed"] == computed


def test_comparisons_show_both_numbers_in_every_format(tmp_path: Path) -> None:
    task = PassKey.from_options({"lengths": "3000", "trials": "2"})
    runs = [
        evaluate(replace(small_model(**memory), name=name), task, results=tmp_path)
        for name, memory in (("skips", SKIPS[0]), ("reads", MEMORIES[1]))
    ]
    for baseline in (None, "reads"):
        comparison = compare(runs, baseline)
        costs = {cost["model"]: cost["values"] for cost in json.loads(to_json(comparison))["costs"]}
        assert costs == {run.model["name"]: known_cost(run) for run in runs}
        line = next(line for line in to_markdown(comparison).splitlines() if "| 5,980 | 28 |" in line)
        assert "skips" in line
        lines = list(csv.DictReader(io.StringIO(to_csv(comparison))))
        told = {
            (line["run"], "skips" if baseline is None or line["model"] == "skips" else "reads"): line
            for line in lines
            if line["metric"] == "cost.tokens_computed"
        }
        found = {run.model["name"]: run.run_id for run in runs}
        value = told[found["skips"], "skips"]["skips" if baseline is None else "value"]
        assert float(value) == 28
    frames = load_runs(tmp_path)
    assert dict(zip(frames.runs["model"], frames.runs["cost.tokens_computed"], strict=True)) == {
        "skips": 28,
        "reads": 5980,
    }
    assert set(frames.samples["computed_tokens"]) == {14, 2990}
