"""Runs side by side: which runs count, and that every format holds the same numbers."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_records import BSWA, FAM, Cells, mean, passkey_record
from rich.console import Console

from famcli.metrics.statistics import Metric
from famcli.reports.tables import (
    Comparison,
    compare,
    format_metric,
    format_tokens,
    to_csv,
    to_json,
    to_markdown,
    to_rich,
)


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
    assert comparison.notes == ()


def test_depths_are_ordered_as_numbers() -> None:
    cells: Cells = {(1024, f"depth {depth}%"): [1.0] for depth in (100, 25, 0, 75, 50)}
    comparison = compare([passkey_record("fam-tiny", cells)])
    assert [row.settings["position"] for row in comparison.rows] == [f"depth {d}%" for d in (0, 25, 50, 75, 100)]


def test_the_newest_run_with_a_cell_counts() -> None:
    newer: Cells = {(1024, "start"): [0, 0]}
    runs = [passkey_record("fam-tiny", newer, "2030-01-02"), passkey_record("fam-tiny", FAM, "2030-01-01")]
    comparison = compare(runs)
    assert scores(comparison) == expected("fam-tiny", {**FAM, **newer})


def test_runs_of_older_weights_are_left_out_and_told() -> None:
    newer: Cells = {(1024, "start"): [1, 1]}
    runs = [
        passkey_record("fam-tiny", newer, "2030-01-02", model={"weights_sha256": "1" * 64}),
        passkey_record("fam-tiny", FAM, "2030-01-01"),
    ]
    comparison = compare(runs)
    assert scores(comparison) == expected("fam-tiny", newer)
    assert comparison.notes == ("left out: 1 run(s) of fam-tiny with older weights",)


def test_unfinished_runs_do_not_count() -> None:
    assert compare([passkey_record("fam-tiny", FAM, None)]).rows == ()


def test_runs_that_were_told_different_things_are_noted() -> None:
    options = {"lengths": [1024], "trials": 3, "key_digits": 3}
    runs = [
        passkey_record("bswa-tiny", BSWA, task={"options": {**options, "key_digits": 5}}, seed=1),
        passkey_record("fam-tiny", FAM, task={"options": {**options, "lengths": [65536]}}),
    ]
    notes = compare(runs).notes
    assert notes == (
        "note: runs of passkey differ in key_digits: 5, 3",
        "note: runs of passkey differ in seed: 1, 0",
    ), "lengths differ as well, but the rows tell them apart"


def test_versions_of_a_task_are_never_in_one_row() -> None:
    runs = [passkey_record("bswa-tiny", BSWA, task={"version": 2}), passkey_record("fam-tiny", FAM)]
    comparison = compare(runs)
    assert {row.task for row in comparison.rows} == {"passkey (version 1)", "passkey (version 2)"}
    assert all(len(row.scores) == 1 for row in comparison.rows)


def test_task_without_cells_shows_every_metric() -> None:
    run = passkey_record("fam-tiny", FAM)
    run.cells = [{"accuracy": 0.5, "accuracy_stderr": None, "n": 2}]
    run.metrics["bits_per_byte"] = Metric(2.0, None, 2)
    rows = {row.metric: (row.settings, row.scores) for row in compare([run]).rows}
    assert rows == {name: ({}, {"fam-tiny": metric}) for name, metric in run.metrics.items()}


def test_cells_named_in_words_have_a_mean() -> None:
    run = passkey_record("fam-tiny", FAM)
    run.cells = [{"language": name, "accuracy": 0.5, "accuracy_stderr": 0.1, "n": 2} for name in ("thai", "korean")]
    rows = compare([run]).rows
    assert [row.settings for row in rows] == [{}, {"language": "korean"}, {"language": "thai"}]
    assert rows[0].scores["fam-tiny"] == run.metrics["accuracy"]


def test_runs_on_different_data_are_never_in_one_row() -> None:
    data = [
        {"source": "sample", "name": "pg19", "sha256": "a" * 64},
        {"source": "path", "name": "x", "sha256": "b" * 64},
    ]
    runs = [passkey_record("fam-tiny", FAM, task={"data": content}) for content in data]
    assert {row.task for row in compare(runs).rows} == {"passkey (sample aaaaaa)", "passkey (x bbbbbb)"}
    assert {row.task for row in compare(runs[:1]).rows} == {"passkey"}


shares = st.lists(st.sampled_from([0.0, 0.2, 1 / 3, 1.0]), min_size=1, max_size=4)
places = st.tuples(st.integers(1, 2**21), st.sampled_from(["start", "random", "depth 25%"]))
some_cells = st.dictionaries(places, shares, min_size=1, max_size=5)


@given(fam=some_cells, bswa=some_cells)
def test_every_format_holds_the_same_numbers(fam: Cells, bswa: Cells) -> None:
    names = {"fam-tiny,block_size=64": fam, 'bswa "old" | pipe': bswa}
    comparison = compare([passkey_record(name, cells) for name, cells in names.items()])
    truth = scores(comparison)
    assert truth == {place: score for name, cells in names.items() for place, score in expected(name, cells).items()}

    from_json = {
        (row["settings"]["position"], row["settings"]["length"], model): Metric(**score)
        for row in json.loads(to_json(comparison))["rows"]
        for model, score in row["scores"].items()
    }
    assert from_json == truth

    from_csv = {
        (row["position"], int(row["length"]), name): Metric(
            float(row[name]), float(row[f"{name} stderr"]) if row[f"{name} stderr"] else None, int(row[f"{name} n"])
        )
        for row in csv.DictReader(io.StringIO(to_csv(comparison)))
        for name in names
        if row[name]
    }
    assert from_csv == truth

    table = [line for line in to_markdown(comparison).splitlines() if line.startswith("|")]
    header, _, _, *lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table]
    from_markdown = {
        (line[1].strip(), title.strip().replace("\\|", "|")): text.strip()
        for line in lines
        for title, text in zip(header[2:], line[2:], strict=True)
        if text.strip() != "-"
    }
    assert from_markdown == {
        (f"{position} {format_tokens(length)}", model): f"{format_metric(score)} (n={score.n})"
        for (position, length, model), score in truth.items()
    }


def test_table_for_the_terminal_shows_scores_counts_and_receptive_fields() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(to_rich(compare([passkey_record("bswa-tiny", BSWA), passkey_record("fam-tiny", FAM)])))
    lines = console.export_text().splitlines()
    assert lines[1].split()[:2] == ["receptive", "field"]
    assert "unbounded" in lines[1]
    assert "1,024 tokens" in lines[1]
    middle = next(line for line in lines if "start 64k" in line)
    assert "0.667 ± 0.333 (n=3)" in middle
    assert "0.000 ± 0.000 (n=3)" in middle


@pytest.mark.parametrize(
    ("count", "text"), [(1024, "1k"), (262144, "256k"), (1048576, "1M"), (5000, "5,000"), (512, "512"), (1536, "1,536")]
)
def test_lengths_read_as_they_are_typed(count: int, text: str) -> None:
    assert format_tokens(count) == text
