"""The answer that comparisons open with: to what length a model remembers, and what that cost."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_records import Cells, passkey_record
from made_runs import Answer, document_run, passkey_run

from famcli.cli.main import main
from famcli.compare.answer import best
from famcli.compare.comparison import Comparison
from famcli.compare.side_by_side import compare
from famcli.evaluation.record import RunRecord
from famcli.reports.answer import answer_lines, answer_values
from famcli.reports.formats import FORMATS
from famcli.reports.plots.palette import series
from famcli.reports.plots.recall import recall_charts
from famcli.reports.plots.run_cost import run_cost_chart
from famcli.reports.remembered import answer_grids
from famcli.reports.shown import ShownComparison

LENGTHS = (1024, 2048, 4096, 65536)


def to(comparison: Comparison) -> dict[tuple[str, str], int | None]:
    """(kind, column) -> the length to which it remembers."""
    assert comparison.answer
    found = comparison.answer.recalls
    return {(one.kind, one.column): one.longest.length if one.longest else None for one in found}


@given(
    st.dictionaries(st.sampled_from(LENGTHS), st.integers(0, 20), min_size=1),
    st.sampled_from([0.05, 0.5, 0.95, 1.0]),
)
def test_a_length_counts_where_it_and_every_shorter_one_hold(right: dict[int, int], held: float) -> None:
    cells: Cells = {(length, "start"): [1.0] * n + [0.0] * (20 - n) for length, n in right.items()}
    want = [n for n in right if all(right[m] / 20 >= held for m in right if m <= n)]
    comparison = compare([passkey_record("fam-tiny", cells)], held=held)
    assert to(comparison) == {("passkey start", "fam-tiny"): max(want, default=None)}


def test_positions_and_wordings_are_kept_apart_whatever_run_they_are_from() -> None:
    told = {"options": {"wording": "flight"}}
    runs = [
        passkey_record("fam-tiny", {(1024, "start"): [1], (1024, "random"): [1]}, "2030-01-04"),
        passkey_record("fam-tiny", {(4096, "start"): [1], (4096, "random"): [0]}, "2030-01-03"),
        passkey_record("fam-tiny", {(1024, "start"): [0], (4096, "start"): [1]}, "2030-01-02", task=told),
        passkey_record("bswa-tiny", {(65536, "start"): [1]}, "2030-01-01", task=told),
    ]
    assert to(compare(runs)) == {
        ("passkey random", "fam-tiny"): 1024,
        ("passkey start", "fam-tiny"): 4096,
        ("passkey (wording flight) start", "bswa-tiny"): 65536,
        ("passkey (wording flight) start", "fam-tiny"): None,
    }


def test_the_words_claim_no_more_than_was_measured(tmp_path: Path) -> None:
    runs = [
        passkey_run(tmp_path, "fam-tiny", {(1024, "start"): [1, 1, 1], (65536, "start"): [1, 1, 1]}),
        passkey_run(tmp_path, "bswa-tiny", {(1024, "start"): [1, 1, 1], (65536, "start"): [1, 0, 0]}),
        passkey_run(tmp_path, "other", {(65536, "start"): [0, 0, 1]}),
    ]
    lines = answer_lines(compare(runs[::-1]))
    assert lines[0] == (
        "passkey start: fam-tiny remembers to at least 64k tokens, the longest measured: 1.000 [0.439, 1.000], 3 of 3, "
        "in 1 s a sample, state 1 B"
    )
    assert lines[1] == (
        "passkey start: bswa-tiny (receptive field 1,024 tokens) remembers to 1k tokens: 1.000 [0.439, 1.000], 3 of 3, "
        "in 1 s a sample, state 1 B; not at 64k: 0.333 [0.061, 0.792], 1 of 3"
    )
    assert lines[2] == (
        "passkey start: other does not remember at 64k tokens, the only length measured: 0.333 [0.061, 0.792], 1 of 3, "
        "in 1 s a sample, state 1 B"
    )
    assert "accuracy is 0.95 or more" in lines[3]


def test_a_model_has_one_sentence_a_task_however_many_kinds_of_text(tmp_path: Path) -> None:
    told = {"options": {"wording": "flight"}}
    start, flight, random = (1024, "start"), (1024, "random"), (4096, "random")
    runs = [
        passkey_run(tmp_path, "fam-tiny", {start: [1, 1], (4096, "start"): [1, 0]}, "2030-01-03"),
        passkey_run(tmp_path, "fam-tiny", {flight: [1, 1]}, "2030-01-02", task=told),
        passkey_run(tmp_path, "fam-tiny", {random: [0, 1]}, "2030-01-01"),
        passkey_run(tmp_path, "bswa-tiny", {start: [0, 1], random: [0, 0]}, "2030-01-01"),
    ]
    lines = answer_lines(compare(runs))
    assert lines[:2] == [
        "passkey: bswa-tiny (receptive field 1,024 tokens) does not remember at 4k tokens (random: 0 of 2); not at 1k "
        "tokens (start: 1 of 2)",
        "passkey: fam-tiny remembers to at least 1k tokens (wording flight random: 2 of 2); to 1k tokens, not at 4k "
        "(start: 2 of 2); not at 4k tokens (random: 1 of 2); 1k tokens in 1 s a sample, state 1 B",
    ]
    assert "accuracy is 0.95 or more" in lines[2]


def test_without_lengths_the_headline_speaks_and_a_baseline_judges(tmp_path: Path) -> None:
    def scores(right: int) -> list[Answer]:
        return [Answer(f"q{i}", {"f1": float(i < right), "alpha": 0.5}, document=f"d{i}") for i in range(20)]

    runs = [document_run(tmp_path, "fam-tiny", scores(18)), document_run(tmp_path, "bswa-tiny", scores(2))]
    bare = answer_lines(compare(runs))
    assert bare[0].startswith("quality f1: highest of 2 models is fam-tiny, 0.900 [") and "--baseline" in bare[-1]
    judged = answer_lines(compare(runs, baseline="bswa-tiny"))
    assert "; against bswa-tiny: fam-tiny is better, +0.800 [" in judged[0] and len(judged) == 1
    alike = answer_lines(compare([runs[0], document_run(tmp_path, "twin", scores(17))], baseline="twin"))
    assert "fam-tiny is not told apart" in alike[0]


def test_of_many_models_the_headline_counts(tmp_path: Path) -> None:
    right = {"base": 12, "twin": 12, "up": 20, "low": 0, "lower": 1}
    answers = {
        name: [Answer(f"q{i}", {"f1": float(i < n)}, document=f"d{i}") for i in range(20)] for name, n in right.items()
    }
    runs = [document_run(tmp_path, name, found) for name, found in answers.items()]
    (line, *_) = answer_lines(compare(runs, baseline="base"))
    assert line.endswith("; against base: 1 better, 2 worse, 1 not told apart")
    runs[-1] = document_run(tmp_path / "part", "lower", answers["lower"][:9])
    (line, *_) = answer_lines(compare(runs))
    assert line == "quality f1: not of the same samples, n from 9 to 20: see the table"


def test_no_model_is_the_highest_of_other_samples(tmp_path: Path) -> None:
    """What one of them had no room for would lift it, or the other, for nothing."""
    answers = [Answer(f"q{i}", {"f1": float(i % 2)}, document=f"d{i}") for i in range(20)]
    runs = [document_run(tmp_path, "whole", answers), document_run(tmp_path, "part", answers[:9])]
    runs[1].left_out = [{"what": "document d9", "samples": 11, "why": "too long"}]
    found = compare(runs)
    line = answer_lines(found)[0]
    assert line.startswith("quality f1: not of the same samples: ") and "highest" not in line
    assert "whole 0.500 (n=20)" in line and "part 0.444 (n=9)" in line
    assert any("part" in note and "11 samples (document d9)" in note for note in found.notes)
    assert compare(runs).rows[0].metric == "f1", "the headline comes first, not the first letter"


def test_the_best_is_the_lowest_where_less_is_better(tmp_path: Path) -> None:
    spec = {"bits": {"paper": True, "higher_is_better": False, "mean": "arithmetic"}}
    runs = [
        document_run(tmp_path, name, [Answer("a", {"bits": bits})], task={"metrics": spec})
        for name, bits in (("low", 1.0), ("high", 2.0), ("same", 1.0))
    ]
    answer = compare(runs).answer
    assert answer and sorted(best(answer.headlines[0])) == ["low", "same"]
    assert "lowest of 3 models is" in answer_lines(compare(runs))[0]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_the_answer_and_the_cost(name: str, tmp_path: Path) -> None:
    runs = [passkey_run(tmp_path, n, {(1024, "start"): [1, 1], (4096, "start"): [0, 0]}) for n in ("fam-a", "fam-b")]
    for baseline in (None, "fam-a"):
        text = FORMATS[name](compare(runs[::-1], baseline=baseline))
        if name == "csv":
            lines = list(csv.DictReader(io.StringIO(text)))
            found = [line for line in lines if line["metric"] == "answer.remembers_to"]
            assert [line["fam-b"] if baseline is None else line["value"] for line in found][-1] == "1024"
            assert {"cost.state_bytes", "cost.tokens_per_second", "cost.seconds_per_sample"} <= {
                line["metric"] for line in lines
            }
        else:
            assert "remembers to 1k tokens" in text
            assert "start 1k, 4k" in text and ("s/sample" in text or name == "json")
        if name == "json":
            told = json.loads(text)["answer"]
            assert [(r["model"], r["remembers_to"], r["longest_measured"]) for r in told["recalls"]] == [
                ("fam-a", 1024, 4096),
                ("fam-b", 1024, 4096),
            ]


MANY = {f"m{number}": {1024: 1, 4096: number % 2, 65536: 0} for number in range(4)}
"""The score of each of four models at each length."""


def many_runs(results: Path, models: dict[str, dict[int, int]] = MANY) -> list[RunRecord]:
    return [
        passkey_run(results, name, {(length, "start"): [right] * 5 for length, right in cells.items()})
        for name, cells in models.items()
    ]


def test_of_many_models_a_table_tells_how_far_they_remember(tmp_path: Path) -> None:
    comparison = compare(many_runs(tmp_path))
    assert comparison.answer
    (grid,) = answer_grids(comparison)
    cells = {line[1]: dict(zip(grid.header, line, strict=True)) for line in grid.cells}
    for name, right in MANY.items():
        held = max(length for length in right if right[length])
        lost = min(length for length in right if not right[length])
        assert cells[name]["remembers to"].startswith(f"{held // 1024}k: 1.000 [")
        assert cells[name]["remembers to"].endswith("] (n=5)")
        assert cells[name]["first lost"] == f"{lost // 1024}k: 0.000"
        assert (cells[name]["s/sample"], cells[name]["state"]) == ("1", "1 B")
        assert cells[name]["receptive field"] == "unbounded"
    assert [line.partition(":")[0] for line in answer_lines(comparison)] == ["remembers to a length"]
    assert len(answer_values(comparison)["sentences"]) == 4, "programs still have them"  # type: ignore[index]


def test_the_table_says_where_nothing_is_held_and_where_nothing_is_lost(tmp_path: Path) -> None:
    models = {"all": {1024: 1, 4096: 1}, "none": {1024: 0, 4096: 1}, "a": {1024: 1}, "b": {1024: 1}}
    (grid,) = answer_grids(compare(many_runs(tmp_path, models)))
    told = {line[1]: line[3:5] for line in grid.cells}
    assert told["all"][0].startswith("4k: 1.000") and told["all"][1] == "none"
    assert told["none"] == ("none", "1k: 0.000")


def test_sentences_stay_where_there_are_few(tmp_path: Path) -> None:
    few = dict(list(MANY.items())[:3])
    assert answer_grids(compare(many_runs(tmp_path / "three", few))) == []
    places = [(1024, f"at {number}") for number in range(7)]
    runs = [passkey_run(tmp_path / "places", "fam-tiny", {place: [1, 1] for place in places})]
    (grid,) = answer_grids(compare(runs))
    assert [line[0] for line in grid.cells] == [place for _, place in places], "one sentence of seven places is long"


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("csv", "json")])
def test_every_format_for_readers_opens_with_the_table(name: str, tmp_path: Path) -> None:
    comparison = compare(many_runs(tmp_path))
    text = FORMATS[name](comparison)
    opening = text[: text.index("remembers to a length")]
    (grid,) = answer_grids(comparison)
    assert grid.title in opening and all(title in opening for title in grid.header)
    assert all(cell in opening for line in grid.lines for cell in line)
    assert " remembers to 1k tokens" not in text
    shown = str(ShownComparison(**vars(comparison)))
    assert shown.index(grid.title) < shown.index("remembers to a length") < shown.index("passkey accuracy")


@pytest.mark.parametrize("width", [60, 100])
def test_the_table_fits_the_terminal(
    width: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    many_runs(tmp_path, {f"{name}-of-some-length": right for name, right in MANY.items()})
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["compare", "--output", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    opening = lines[: lines.index(next(line for line in lines if line.startswith("remembers to a length")))]
    assert max(map(len, opening)) <= width
    words = " ".join(" ".join(opening).split())
    assert words.count("remembers to ") == 1, "it is parted, and no block a model"
    for told in ("4k: 1.000 [0.566, 1.000] (n=5)", "64k: 0.000", "m3-of-some-length", "s/sample", "state"):
        assert told in words
    page = tmp_path / "page.html"
    assert main(["report", "--output", str(tmp_path), "--to", str(page)]) == 0
    (summary,) = re.findall('<section id="summary">(.*?)</section>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert summary.count("4k: 1.000 [0.566, 1.000] (n=5)") == 2 and "<li>" not in summary


def test_the_score_that_counts_is_an_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    passkey_run(tmp_path, "fam-tiny", {(1024, "start"): [1, 1, 1, 0]})
    for held, words in (("0.95", "does not remember at 1k"), ("0.75", "remembers to at least 1k")):
        assert main(["compare", "--output", str(tmp_path), "--held", held]) == 0
        assert words in capsys.readouterr().out.splitlines()[0]
        page = tmp_path / "page.html"
        assert main(["report", "--output", str(tmp_path), "--held", held, "--to", str(page)]) == 0
        text = page.read_text(encoding="utf-8")
        assert words in text and text.index(words) < text.index("<svg") < text.index("recall-heat-map")
        capsys.readouterr()
    assert main(["compare", "--output", str(tmp_path), "--held", "2"]) == 2


def test_a_model_looks_the_same_in_every_picture_and_order(tmp_path: Path) -> None:
    runs = [passkey_run(tmp_path, name, {(1024, "start"): [1], (4096, "start"): [1]}) for name in ("c", "a", "b")]
    seen: set[str] = set()
    for order in (runs, runs[::-1], [runs[1], runs[2], runs[0]]):
        for baseline in (None, "a", "b"):
            comparison = compare(order, baseline=baseline)
            charts = [recall_charts(comparison)[0], run_cost_chart(comparison)]
            for chart in charts:
                assert chart
                seen |= {f"{index} {text.partition(',')[0]}" for index, text in chart.legend}
    assert seen == {"0 a", "1 b", "2 c"}
    assert series(["b", "a", "b"]) == {"a": 0, "b": 1}


def test_cost_against_length_is_the_median_of_the_kinds(tmp_path: Path) -> None:
    run = passkey_run(tmp_path, "a", {(1024, place): [1] for place in ("start", "middle", "end")})
    journal = run.path / "samples.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line, seconds in zip(lines, (4.0, 2.0, 30.0), strict=True):
        line["seconds"], line["state_bytes"] = seconds, 3 << 20
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    chart = run_cost_chart(compare([run]))
    assert chart and [panel.description for panel in chart.panels] == ["a, 1k: 4 seconds", "a, 1k: 3 MiB"]
    assert run_cost_chart(compare([passkey_record("a", {(1024, "start"): [1]})])) is None, "there are no samples"


def test_what_has_no_lengths_is_told_by_its_number(tmp_path: Path) -> None:
    def answers(right: dict[int, float]) -> list[Answer]:
        return [Answer(f"{n}", {"f1": value}, cell={"pairs": n}) for n, value in right.items()]

    runs = [
        document_run(tmp_path, "fam-tiny", answers({1: 1, 20: 1})),
        document_run(tmp_path, "b", answers({1: 1, 20: 0})),
    ]
    comparison = compare(runs)
    told = dict(line.split(" remembers to ") for line in answer_lines(comparison) if " remembers to " in line)
    assert {name: words.partition(":")[0] for name, words in told.items()} == {
        "quality: fam-tiny": "at least 20 pairs, the most measured",
        "quality: b": "1 pair",
    }
    assert "not at 20 pairs: 0.000" in told["quality: b"]
    assert [row.settings for row in comparison.rows] == [{"pairs": 1}, {"pairs": 20}]
    assert [chart.name for chart in recall_charts(comparison)] == ["recall-curves-pairs", "recall-heat-map"]
    assert run_cost_chart(comparison) is None


def test_the_facts_alone_are_the_shortest_length(tmp_path: Path) -> None:
    def run(name: str, *lengths: int) -> Comparison:
        answers = [Answer(f"{n}", {"accuracy": 1}, cell={"kind": "qa1", "length": n}) for n in lengths]
        return compare([document_run(tmp_path / name, "fam-tiny", answers, "babilong")])

    alone, both = run("alone", 0), run("both", 0, 4096)
    assert answer_lines(alone)[0].startswith("babilong qa1: fam-tiny remembers to at least 0k tokens, the only length")
    assert [row.settings["length"] for row in both.rows] == [0, 4096] and to(both) == {
        ("babilong qa1", "fam-tiny"): 4096
    }
    assert [chart.name for chart in recall_charts(alone)] == ["recall-heat-map"] and run_cost_chart(alone) is None
    assert [chart.name for chart in recall_charts(both)] == ["recall-curves", "recall-heat-map"]
    assert run_cost_chart(both)
