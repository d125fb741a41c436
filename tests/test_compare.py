"""Runs side by side: which runs count, which share a row, and what is said of their differences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_records import BSWA, FAM, Cells, mean, passkey_record
from made_runs import Answer, document_run, passkey_run
from small_models import small_config

from famcli.compare.cells import format_tokens, shown_scores
from famcli.compare.comparison import Comparison
from famcli.compare.measure import scored
from famcli.compare.notes import score_notes
from famcli.compare.side_by_side import compare
from famcli.errors import UserError
from famcli.metrics.paired import holm
from famcli.metrics.statistics import Metric
from famcli.reports.formats import to_json, to_markdown
from famcli.reports.html.page import build
from famcli.reports.layout import grids
from famcli.reports.numbers import format_metric


def scores(comparison: Comparison) -> dict[tuple[str, int, str], Metric]:
    """(position, length, model) -> score."""
    return {
        (str(row.settings["position"]), int(row.settings["length"]), model): score
        for row in comparison.rows
        for model, score in row.scores.items()
    }


def expected(model: str, cells: Cells) -> dict[tuple[str, int, str], Metric]:
    return {(position, length, model): mean(values) for (length, position), values in cells.items()}


def test_models_are_columns_and_cells_are_rows_by_position_and_length() -> None:
    comparison = compare([passkey_record("bswa-tiny", BSWA), passkey_record("fam-tiny", FAM)])
    assert [(column.name, column.receptive_field) for column in comparison.columns] == [
        ("fam-tiny", None),
        ("bswa-tiny", 1024),
    ]
    assert [(row.settings["position"], row.settings["length"]) for row in comparison.rows] == [
        ("random", 65536),
        ("start", 1024),
        ("start", 65536),
        ("start", 1048576),
    ]
    assert scores(comparison) == {**expected("fam-tiny", FAM), **expected("bswa-tiny", BSWA)}


def test_full_attention_says_the_context_that_it_was_made_for() -> None:
    def field(attention: str, context: int | None) -> str:
        config = small_config(attention, trained_context=context).as_mapping()
        comparison = compare([passkey_record("some", FAM, model={"config": config})])
        return grids(comparison)[0].cells[0][2]

    assert field("full", 8192) == "context of 8,192 tokens"
    assert field("full", None) == field("fam", 8192) == "unbounded"


def test_depths_are_ordered_as_numbers() -> None:
    cells: Cells = {(1024, f"depth {depth}%"): [1.0] for depth in (100, 25, 0, 75, 50)}
    comparison = compare([passkey_record("fam-tiny", cells)])
    assert [row.settings["position"] for row in comparison.rows] == [f"depth {d}%" for d in (0, 25, 50, 75, 100)]


def test_the_newest_run_with_a_cell_counts() -> None:
    newer: Cells = {(1024, "start"): [0, 0]}
    runs = [passkey_record("fam-tiny", newer, "2030-01-02"), passkey_record("fam-tiny", FAM, "2030-01-01")]
    assert scores(compare(runs)) == expected("fam-tiny", {**FAM, **newer})


def test_a_newer_run_that_is_smaller_is_noted() -> None:
    small: Cells = {(1024, "start"): [1]}
    runs = [passkey_record("fam-tiny", small, "2030-01-02"), passkey_record("fam-tiny", FAM, "2030-01-01")]
    assert [note for note in compare(runs).notes if "takes the place" in note] == [
        "note: fam-tiny: the newer run passkey-fam-tiny-2030-01-02 takes the place of the larger "
        "passkey-fam-tiny-2030-01-01 (start 1k: n=1, not n=3); name that one to see it"
    ]
    alike = [passkey_record("fam-tiny", FAM, "2030-01-02"), passkey_record("fam-tiny", FAM, "2030-01-01")]
    assert not any("takes the place" in note for note in compare(alike).notes)


def test_a_run_has_one_name_whatever_its_cells_and_a_default_has_no_word() -> None:
    """Of one run a cell that stands beside another wording must not be called otherwise than one that does not."""
    told = {"options": {"wording": "flight"}}
    runs = [
        passkey_record("fam-tiny", {(1024, "start"): [1], (4096, "start"): [1]}, "2030-01-02"),
        passkey_record("fam-tiny", {(1024, "start"): [1], (65536, "start"): [1]}, "2030-01-01", task=told),
    ]
    comparison = compare(runs)
    assert [(row.task, row.settings["length"]) for row in comparison.rows] == [
        ("passkey", 1024),
        ("passkey", 4096),
        ("passkey (wording flight)", 1024),
        ("passkey (wording flight)", 65536),
    ]
    assert "note: passkey, where its name says no other: wording classic" in comparison.notes
    assert not any("classic" in note for note in compare(runs[:1]).notes)


def test_runs_of_older_weights_are_left_out_and_told() -> None:
    newer: Cells = {(1024, "start"): [1, 1]}
    runs = [
        passkey_record("fam-tiny", newer, "2030-01-02", model={"weights_sha256": "1" * 64}),
        passkey_record("fam-tiny", FAM, "2030-01-01"),
    ]
    comparison = compare(runs)
    assert scores(comparison) == expected("fam-tiny", newer)
    assert "left out: 1 run(s) of fam-tiny with older weights" in comparison.notes


def test_what_lies_before_a_receptive_field_is_told_apart(tmp_path: Path) -> None:
    distances = {"a": 10, "b": 1023, "c": 1024, "d": 9999, "e": 5000}
    right = {"a": 1.0, "b": 0.0, "c": 0.0, "d": 1.0, "e": 0.0}
    told = [Answer(id, {"accuracy": right[id]}, details={"distance": distances[id]}) for id in distances]
    untold = [Answer("f", {"accuracy": 1.0}), Answer("g", {"accuracy": 1.0}, details={"distance": "far"})]
    runs = [document_run(tmp_path, "bswa-tiny", [*told, *untold]), document_run(tmp_path, "fam-tiny", told)]
    assert [note for note in compare(runs).notes if "earlier" in note] == [
        "bswa-tiny, quality accuracy: 0.500 (n=2) within 1,024 tokens before the question, 0.333 (n=3) earlier"
    ]
    near = document_run(tmp_path / "near", "bswa-tiny", told[:2])
    assert any(
        note.endswith("0.500 (n=2) within 1,024 tokens before the question, - earlier")
        for note in compare([near]).notes
    )


def test_unfinished_runs_do_not_count() -> None:
    assert compare([passkey_record("fam-tiny", FAM, None)]).rows == ()


def test_what_may_move_a_score_is_noted() -> None:
    runs = [
        passkey_record("bswa-tiny", BSWA, task={"options": {"lengths": [1], "trials": 50}}, device="cuda:0"),
        passkey_record("fam-tiny", FAM, task={"options": {"lengths": [2], "trials": 10}}, dtype="bfloat16"),
    ]
    assert [note for note in compare(runs).notes if " differ in " in note] == [
        "note: runs of passkey differ in trials: 50, 10",
        "note: runs of passkey differ in device: cuda:0, cpu",
        "note: runs of passkey differ in dtype: float32, bfloat16",
    ], "lengths differ as well, but the rows tell them apart"


def test_runs_that_were_told_different_things_are_never_in_one_row() -> None:
    runs = [
        passkey_record("bswa-tiny", BSWA, task={"options": {"key_digits": 5}}, seed=1),
        passkey_record("fam-tiny", FAM, task={"options": {"key_digits": 3}}),
    ]
    rows = compare(runs).rows
    assert {row.task for row in rows if row.settings == {"length": 1024, "position": "start"}} == {
        "passkey (key_digits 5, seed 1)",
        "passkey (key_digits 3, seed 0)",
    }
    assert all(len(row.scores) == 1 for row in rows)
    with pytest.raises(UserError, match="cannot be compared on passkey: they differ in key_digits: 3, 5; seed: 0, 1"):
        compare(runs, refuse=True)


def test_versions_of_a_task_are_never_in_one_row() -> None:
    runs = [passkey_record("bswa-tiny", BSWA, task={"version": 2}), passkey_record("fam-tiny", FAM)]
    comparison = compare(runs)
    assert {row.task for row in comparison.rows} == {"passkey (version 1)", "passkey (version 2)"}
    assert all(len(row.scores) == 1 for row in comparison.rows)


def test_runs_on_different_data_are_never_in_one_row() -> None:
    data = [
        {"source": "sample", "name": "pg19", "sha256": "a" * 64},
        {"source": "path", "name": "x", "sha256": "b" * 64},
    ]
    runs = [passkey_record("fam-tiny", FAM, task={"data": content}) for content in data]
    assert {row.task for row in compare(runs).rows} == {"passkey (sample aaaaaa)", "passkey (x bbbbbb)"}
    assert {row.task for row in compare(runs[:1]).rows} == {"passkey"}


def test_task_without_cells_shows_every_metric() -> None:
    run = passkey_record("fam-tiny", FAM)
    run.cells = [{"accuracy": 0.5, "accuracy_stderr": None, "n": 2}]
    run.metrics["bits_per_byte"] = Metric(2.0, None, 2)
    run.task["metrics"]["bits_per_byte"] = {"paper": False, "higher_is_better": False, "mean": "arithmetic"}
    rows = {row.metric: (row.settings, row.scores) for row in compare([run]).rows}
    assert rows == {name: ({}, {"fam-tiny": metric}) for name, metric in run.metrics.items()}


def test_cells_named_in_words_have_a_mean() -> None:
    run = passkey_record("fam-tiny", FAM)
    run.cells = [{"language": name, "accuracy": 0.5, "accuracy_stderr": 0.1, "n": 2} for name in ("thai", "korean")]
    rows = compare([run]).rows
    assert [row.settings for row in rows] == [{}, {"language": "korean"}, {"language": "thai"}]
    assert rows[0].scores["fam-tiny"] == run.metrics["accuracy"]


def test_a_baseline_comes_first_and_gives_differences_with_verdicts(tmp_path: Path) -> None:
    ten = [1.0] * 10
    runs = [
        passkey_run(tmp_path, "fam-tiny", {(1024, "start"): ten, (2048, "start"): ten, (4096, "start"): ten}),
        passkey_run(tmp_path, "bswa-tiny", {(1024, "start"): ten, (2048, "start"): [0.0] * 10}),
    ]
    comparison = compare(runs, "bswa-tiny")
    assert [column.name for column in comparison.columns] == ["bswa-tiny", "fam-tiny"]
    first, second, third = comparison.rows
    tied, won = first.differences["fam-tiny"], second.differences["fam-tiny"]
    assert (tied.paired.value, tied.paired.ties, tied.verdict) == (0, 10, "undecided")
    assert (won.paired.value, won.paired.wins, won.verdict) == (1, 10, "better")
    assert [tied.p_corrected, won.p_corrected] == holm([1.0, 2 / 2**10])
    assert third.differences == {}, "the baseline has no such cell"
    assert all(set(row.intervals) == set(row.scores) for row in comparison.rows)
    turned = compare(runs, "fam-tiny").rows[1].differences["bswa-tiny"]
    assert (turned.paired.value, turned.verdict) == (-1, "worse")


def test_lower_is_better_where_the_task_says_so(tmp_path: Path) -> None:
    runs = []
    for name, value in (("small", 2.0), ("large", 1.5)):
        answers = [Answer(f"{i}", {"bits_per_byte": value + i / 100}) for i in range(12)]
        runs.append(document_run(tmp_path, name, answers))
        runs[-1].task["metrics"]["bits_per_byte"] = {"paper": True, "higher_is_better": False, "mean": "arithmetic"}
    difference = compare(runs, "small").rows[0].differences["large"]
    assert (difference.verdict, difference.paired.wins) == ("better", 12)
    assert difference.paired.value == pytest.approx(-0.5)


def test_a_baseline_refuses_what_cannot_be_compared_unless_forced(tmp_path: Path) -> None:
    cells: Cells = {(1024, "start"): [1, 0, 1]}
    runs = [passkey_run(tmp_path, "fam-tiny", cells, limit=3), passkey_run(tmp_path, "bswa-tiny", cells)]
    with pytest.raises(UserError, match=r"fam-tiny and bswa-tiny cannot be compared on passkey: .* limit: 3, none"):
        compare(runs, "bswa-tiny")
    comparison = compare(runs, "bswa-tiny", force=True)
    assert comparison.differs == ("fam-tiny and bswa-tiny differ in limit: 3, none",)
    assert comparison.rows[0].differences["fam-tiny"].paired.ties == 3


def test_an_older_run_that_can_be_compared_is_better_than_a_newer_that_cannot(tmp_path: Path) -> None:
    cells: Cells = {(1024, "start"): [1, 0, 1]}
    runs = [
        passkey_run(tmp_path, "fam-tiny", cells, "2030-01-02", limit=3),
        passkey_run(tmp_path, "fam-tiny", cells, "2030-01-01"),
        passkey_run(tmp_path, "bswa-tiny", cells, "2030-01-01"),
    ]
    rows = {row.task: row for row in compare(runs, "bswa-tiny").rows}
    assert set(rows["passkey"].differences) == {"fam-tiny"}
    assert set(rows["passkey (limit 3)"].scores) == {"fam-tiny"}


def test_runs_without_samples_have_no_difference_and_say_so(tmp_path: Path) -> None:
    runs = [passkey_run(tmp_path, "fam-tiny", FAM), passkey_record("bswa-tiny", BSWA)]
    comparison = compare(runs, "bswa-tiny")
    assert not any(row.differences for row in comparison.rows)
    assert any(note.startswith("note: passkey-bswa-tiny-2030-01-01 has no samples.jsonl") for note in comparison.notes)


@pytest.mark.parametrize(("baseline", "words"), [("other", "no finished run"), ("fam-tiny", "nothing to compare")])
def test_a_baseline_that_cannot_be_one(baseline: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        compare([passkey_record("fam-tiny", FAM)], baseline)


def languages(results: Path, name: str, values: dict[str, list[float]], **fields: Any) -> Any:
    answers = [
        Answer(f"{language}/{i}", {"rouge_l": value}, {"language": language}, f"{language}/{i}")
        for language, found in values.items()
        for i, value in enumerate(found)
    ]
    return document_run(results, name, answers, "xlsum", **fields)


def test_groups_have_the_means_of_their_samples(tmp_path: Path) -> None:
    runs = [
        languages(tmp_path, "fam-tiny", {"thai": [0.2, 0.4], "korean": [0.1]}),
        languages(tmp_path, "bswa-tiny", {"thai": [0.1, 0.3], "korean": [0.3]}),
        passkey_run(tmp_path, "fam-tiny", FAM),
    ]
    comparison = compare(runs, "bswa-tiny", by="language")
    rows = {row.settings["language"]: row for row in comparison.rows}
    assert rows["thai"].scores["fam-tiny"].value == pytest.approx(0.3)
    assert rows["thai"].differences["fam-tiny"].paired.value == pytest.approx(0.1)
    assert rows["korean"].differences["fam-tiny"].verdict == "undecided"
    assert "note: passkey has no groups by language: left out" in comparison.notes
    with pytest.raises(UserError, match="no sample here has the group answer_type"):
        compare(runs, by="answer_type")


def test_lengths_gather_the_cells_of_several_runs(tmp_path: Path) -> None:
    runs = [
        passkey_run(tmp_path, "fam-tiny", {(1024, "start"): [1, 1]}, "2030-01-01"),
        passkey_run(tmp_path, "fam-tiny", {(1024, "random"): [0, 0], (2048, "random"): [1]}, "2030-01-02"),
    ]
    found = {row.settings["length"]: row.scores["fam-tiny"] for row in compare(runs, by="length").rows}
    assert (found[1024].value, found[1024].n, found[2048].n) == (0.5, 4, 1)


def test_a_sample_is_in_one_group_whatever_a_tokenizer_makes_of_it(tmp_path: Path) -> None:
    runs = [
        document_run(tmp_path, name, [Answer("a", {"f1": 0.5}, prompt_tokens=tokens)])
        for name, tokens in (("bytes", 1500), ("words", 300))
    ]
    rows = compare(runs, "words", by="length").rows
    assert [(row.settings, set(row.scores)) for row in rows] == [({"length": "256-511"}, {"bytes", "words"})]


def test_samples_that_changed_sides_are_listed_losses_first(tmp_path: Path) -> None:
    runs = [
        passkey_run(tmp_path, "fam-tiny", {(1024, "start"): [1, 0, 1, 0, 1]}),
        passkey_run(tmp_path, "bswa-tiny", {(1024, "start"): [1, 0, 0, 1, 0]}),
    ]
    changes = compare(runs, "bswa-tiny", per_sample=True).changes
    assert changes is not None
    assert [(change.id, change.score, change.baseline_score) for change in changes] == [
        ("1024/start/003", 0, 1),
        ("1024/start/002", 1, 0),
        ("1024/start/004", 1, 0),
    ]


def test_of_graded_scores_the_largest_changes_are_listed_once(tmp_path: Path) -> None:
    first = {"thai": [i / 100 for i in range(40)], "korean": [0.5] * 40}
    second = {"thai": [0.2] * 40, "korean": [0.5] * 40}
    runs = [languages(tmp_path, "fam-tiny", first), languages(tmp_path, "bswa-tiny", second)]
    changes = compare(runs, "bswa-tiny", per_sample=True).changes
    assert changes is not None
    gains = [round(change.score - change.baseline_score, 2) for change in changes]
    assert gains == pytest.approx([-0.2 + i / 100 for i in range(20)] + [0.19 - i / 100 for i in range(19)])
    assert {change.settings["language"] for change in changes} == {"thai"}


@pytest.mark.parametrize("documents", [2, 5, 6])
def test_few_documents_are_said_to_be_few_wherever_a_score_is_shown(documents: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(documents)
    runs = [
        document_run(
            tmp_path,
            name,
            [
                Answer(f"{d}-{q}", {"f1": float(rng.random() * top)}, document=f"{d}")
                for d in range(documents)
                for q in "ab"
            ],
        )
        for name, top in (("fam-tiny", 1.0), ("bswa-tiny", 0.1))
    ]
    few = documents < 6
    for baseline in (None, "bswa-tiny"):
        comparison = compare(runs, baseline)
        texts = [to_markdown(comparison), build(comparison, lambda run: run.model["name"]).page]
        (row,) = json.loads(to_json(comparison))["rows"]
        for score in row["scores"].values():
            assert (score["low"] is None) == few and score["n"] == 2 * documents
        for found in row["differences"].values():
            assert (found["low"] is None) == few
            assert found["p_value"] >= 2.0 ** (1 - documents) and (found["p_value"] < 0.05) == (
                found["low"] is not None
            )
        for text in (text.replace("\\", "") for text in texts):
            assert text.count("[too few]") >= (2 + (baseline is not None) if few else 0)
            assert ("[too few]: no interval of fewer than 6 documents" in text) == few
    assert any(one.too_few for one in scored(runs[0], shown_scores(runs[0]))) == few
    words = "[too few]: no interval of fewer than 6 documents, or of a single right or wrong"
    told = score_notes(scored(runs[0], shown_scores(runs[0])))
    assert told == ([words] if few else ["95%, bootstrap by document"])


def test_answers_that_are_none_are_told_of(tmp_path: Path) -> None:
    runs = [passkey_run(tmp_path, "fam-tiny", FAM), passkey_run(tmp_path, "bswa-tiny", BSWA)]
    assert not any("answers" in note for note in compare(runs).notes)
    runs[0].cost |= {"answers_empty": 2, "answers_cut": 3}
    notes = [note for note in compare(runs).notes if "answers" in note]
    assert notes == ["note: of 9 answers of fam-tiny to passkey 2 are empty and 3 were cut at the budget of tokens"]


@pytest.mark.parametrize(
    ("count", "text"), [(1024, "1k"), (262144, "256k"), (1048576, "1M"), (5000, "5,000"), (512, "512"), (1536, "1,536")]
)
def test_lengths_read_as_they_are_typed(count: int, text: str) -> None:
    assert format_tokens(count) == text


@pytest.mark.parametrize(
    ("metric", "text"),
    [(Metric(0.98, 0.02, 3), "0.980 ± 0.020"), (Metric(1, None, 1), "1.000"), (Metric(2e6, 9e4, 2), "2e+06 ± 9e+04")],
)
def test_metrics_read_well(metric: Metric, text: str) -> None:
    assert format_metric(metric) == text
