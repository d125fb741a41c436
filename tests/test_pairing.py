"""Which runs may be compared, how samples are grouped, and how a metric compares those that two runs answered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_records import FAM, passkey_record
from made_runs import Answer, document_run, entry, passkey_run

from famcli.compare.cells import ALL, By, group_of
from famcli.compare.measure import Measure
from famcli.compare.pairing import comparable, samples_of
from famcli.errors import UserError
from famcli.evaluation.record import RunRecord
from famcli.metrics.paired import PairedDifference

OPTIONS = {"lengths": [1024], "trials": 3, "key_digits": 3}
DATA = {"source": "path", "name": "books", "sha256": "a" * 64}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"task": {"version": 2}}, "task version: 2, 1"),
        ({"task": {"template_sha256": "f" * 64}}, "prompt template: ffffffff, 00000000"),
        ({"task": {"data": DATA}}, "data: books aaaaaa, none"),
        ({"task": {"options": {"key_digits": 5}}}, "key_digits: 5, none"),
        ({"seed": 3}, "seed: 3, 0"),
        ({"limit": 5}, "limit: 5, none"),
        ({"context": {"chat_template_sha256": "0" * 64}}, "chat template: yes, no"),
        ({"model": {"tokenizer": "words"}}, "tokenizer: words, bytes"),
    ],
)
def test_what_was_not_told_alike_forbids_to_compare(fields: dict[str, Any], words: str) -> None:
    run, baseline = passkey_record("fam-tiny", FAM, **fields), passkey_record("bswa-tiny", FAM)
    assert words in comparable(run, baseline)
    assert comparable(run, run) == []


def test_cells_their_number_of_samples_and_the_place_of_the_data_do_not_forbid() -> None:
    moved = {**DATA, "name": "elsewhere"}
    first = passkey_record("fam-tiny", FAM, task={"options": {**OPTIONS, "data": "x"}, "data": DATA})
    second = passkey_record(
        "bswa-tiny", FAM, task={"options": {"lengths": [9], "trials": 9, "key_digits": 3}, "data": moved}, device="cuda"
    )
    assert comparable(first, second) == []


def test_a_tokenizer_does_not_forbid_where_nothing_is_counted_in_its_tokens(tmp_path: Path) -> None:
    answers = [Answer("a", {"f1": 0.5})]
    first = document_run(tmp_path, "one", answers)
    second = document_run(tmp_path, "two", answers, model={"tokenizer": "words"})
    assert comparable(first, second) == []
    bounded = replace(second, context={"max_context": 9, "truncate": "left"})
    assert comparable(first, bounded) == [], "nothing was cut"
    cut = replace(bounded, cost={**second.cost, "tokens_cut": 5})
    assert "tokenizer: bytes, words" in comparable(first, cut)
    assert "tokenizer: words, bytes" in comparable(cut, first)


BOUNDS: list[dict[str, Any]] = [
    {"max_context": None, "truncate": None},
    {"max_context": None, "truncate": "left"},
    {"max_context": 4096, "truncate": None},
    {"max_context": 4096, "truncate": "left"},
    {"max_context": 4096, "truncate": "right"},
    {"max_context": 2048, "truncate": "left"},
]


@pytest.mark.parametrize("one", BOUNDS)
@pytest.mark.parametrize("two", BOUNDS)
def test_a_bound_counts_by_what_it_did_to_each_sample(one: dict[str, Any], two: dict[str, Any], tmp_path: Path) -> None:
    def run(name: str, context: dict[str, Any], cuts: dict[str, int], prompts: str = "") -> RunRecord:
        answers = [
            Answer(id, {"f1": 0.5}, cut_tokens=cut, prompt_sha256=(prompts or name).ljust(64))
            for id, cut in cuts.items()
        ]
        return document_run(tmp_path / f"{len(list(tmp_path.iterdir()))}", name, answers, context=context)

    def compared(*runs: RunRecord) -> bool:
        found = [bool(comparable(*pair)) for pair in (runs, runs[::-1])]
        assert found[0] == found[1]
        return not found[0]

    whole = {"a": 0, "b": 0}
    assert compared(run("x", one, whole), run("y", two, whole)), "nothing was cut"
    cut, other = {"a": 0, "b": 7}, {"a": 0, "b": 0}
    same_wish = one == two and one["max_context"] is not None
    assert compared(run("x", one, cut), run("y", two, other)) == same_wish
    alike = one["truncate"] == two["truncate"]
    assert compared(run("x", one, cut), run("y", two, cut)) == alike
    assert compared(run("x", one, cut, "p"), run("y", two, cut, "p")), "the same prompt was read"
    assert compared(run("x", one, {"a": 0, "c": 9}), run("y", two, {"a": 0, "b": 7})), "of what both answered"


def test_a_cut_of_which_no_samples_are_left_counts_by_the_bound() -> None:
    cut = passkey_record("fam-tiny", FAM, context={"max_context": 4096, "truncate": "left"}, cost={"tokens_cut": 9})
    assert comparable(cut, passkey_record("bswa-tiny", FAM)) == ["max context: 4096, none", "truncation: left, none"]
    assert comparable(cut, cut) == []


def test_other_questions_of_one_id_forbid(tmp_path: Path) -> None:
    first = document_run(tmp_path, "one", [Answer("a", {"f1": 0.5}), Answer("b", {"f1": 0.5})])
    second = document_run(tmp_path, "two", [Answer("a", {"f1": 0.5}), Answer("b", {"f1": 0.5}, reference="other")])
    assert comparable(first, second) == ["samples: 1 of one id have other right answers, such as b"]


def test_samples_are_read_again_only_when_they_changed(tmp_path: Path) -> None:
    run = passkey_run(tmp_path, "fam-tiny", FAM)
    first = samples_of(run)
    assert samples_of(run) is first
    assert len(first) == 9
    (run.path / "samples.jsonl").write_bytes(entry(Answer("a", {"accuracy": 1.0})).to_line() + b'{"half')
    with pytest.raises(UserError, match="has 1 samples, and its run had 9"):
        samples_of(run)
    run.status = "running"
    assert list(samples_of(run)) == ["a"], "a line without its end is what a killed process was writing"
    (run.path / "samples.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="line 1 lacks the fields 'id', "):
        samples_of(run)
    assert samples_of(passkey_record("fam-tiny", FAM)) == {}, "a lone run.json"


@pytest.mark.parametrize(
    ("answer", "groups"),
    [
        (Answer("a", {}, {"length": 1024, "position": "start"}), {"length": 1024}),
        (Answer("a", {}, prompt_tokens=1023), {"length": "512-1023"}),
        (Answer("a", {}, prompt_tokens=1024, document="book"), {"length": "1024-2047", "document": "book"}),
        (Answer("a", {}, {"language": "thai"}, prompt_tokens=1), {"length": "1-1", "language": "thai"}),
        (Answer("a", {}, details={"answer_type": "none"}, prompt_tokens=2), {"length": "2-3", "answer_type": "none"}),
    ],
)
def test_samples_tell_their_groups(answer: Answer, groups: dict[str, Any]) -> None:
    for by in ("length", "language", "answer_type", "document"):
        assert group_of(entry(answer), by) == (((by, groups[by]),) if by in groups else None)
    assert group_of(entry(answer), None) == ALL


def difference(run: RunRecord, baseline: RunRecord, metric: str, by: By | None = None) -> PairedDifference | None:
    """Over all samples that both answered."""
    return Measure.of(metric, (run, baseline), by).difference(samples_of(run), samples_of(baseline))


def test_a_difference_is_over_the_samples_that_both_answered(tmp_path: Path) -> None:
    short = passkey_run(tmp_path, "bswa-tiny", {(1024, "start"): [0, 0], (2048, "start"): [0, 1]})
    long = passkey_run(tmp_path, "fam-tiny", {(1024, "start"): [1, 0, 1], (2048, "start"): [1, 1]})
    whole = difference(long, short, "accuracy")
    assert whole is not None
    assert (whole.value, whole.n, whole.wins, whole.losses, whole.ties) == (0.5, 4, 2, 0, 2)
    assert whole.method == "Bonett-Price and exact McNemar"


def test_documents_are_clusters_but_within_one_its_questions_are(tmp_path: Path) -> None:
    def answered(scores: list[float]) -> list[Answer]:
        return [Answer(f"{d}{q}", {"f1": s}, document=d) for (d, q), s in zip(PLACES, scores, strict=True)]

    PLACES = [(d, q) for d in "ab" for q in range(3)]
    one = document_run(tmp_path, "one", answered([0.1, 0.2, 0.3, 0.9, 0.8, 0.7]))
    two = document_run(tmp_path, "two", answered([0.2, 0.4, 0.3, 0.7, 0.6, 0.5]))
    apart, within = difference(one, two, "f1"), difference(one, two, "f1", by="document")
    assert apart is not None and within is not None
    assert (apart.clusters, within.clusters) == (2, 6)


def test_samples_that_are_weighed_differently_have_no_difference(tmp_path: Path) -> None:
    runs = [
        document_run(tmp_path, name, [Answer(i, {"accuracy": 0.5}, weights={"accuracy": w}) for i in "ab"])
        for name, w in (("bytes", 300.0), ("words", 60.0))
    ]
    assert difference(*runs, "accuracy") is None


def test_a_sample_that_counts_in_one_run_only_is_not_shared(tmp_path: Path) -> None:
    one = document_run(tmp_path, "one", [Answer("a", {"f1_none": 1.0}), Answer("b", {"f1_none": 0.5})])
    two = document_run(
        tmp_path, "two", [Answer("a", {"f1_none": 0.0}), Answer("b", {"f1_none": 0.0}, weights={"f1_none": 0.0})]
    )
    shared = difference(one, two, "f1_none")
    assert shared is not None and shared.n == 1


def test_a_measure_knows_its_bounds_and_direction(tmp_path: Path) -> None:
    spec = {"paper": False, "higher_is_better": False, "mean": "geometric"}
    run = document_run(
        tmp_path,
        "one",
        [Answer(i, {"accuracy": float(i == "a"), "f1": 0.5, "perplexity": 7.0}) for i in "ab"],
    )
    run.task["metrics"] = {**run.task["metrics"], "perplexity": spec}
    accuracy, f1, perplexity = (Measure.of(name, [run]) for name in ("accuracy", "f1", "perplexity"))
    assert (accuracy.binary, accuracy.low, accuracy.high) == (True, 0, 1)
    assert (f1.binary, f1.low, f1.high) == (False, 0, 1)
    assert (perplexity.geometric, perplexity.higher_is_better, perplexity.high) == (True, False, float("inf"))
