"""The report: what it holds, that its numbers are those of ``famcli compare``, and that nothing in it takes over."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asked_samples import Asks, answers, asked, story
from hypothesis import given
from hypothesis import strategies as st
from made_records import BSWA, FAM, passkey_record
from made_runs import Answer, document_run, entry, passkey_run
from report_pages import HOSTILE, Page, reading_run, report
from small_runs import small_model

from famcli.cli.eval import command as eval_command
from famcli.cli.main import main
from famcli.compare.cells import format_settings
from famcli.compare.side_by_side import compare
from famcli.evaluation.journal import Entry
from famcli.evaluation.record import RunRecord
from famcli.evaluation.runner import evaluate
from famcli.reports.html import samples
from famcli.reports.html.reading import curve_of
from famcli.reports.html.rerun import rerun_command
from famcli.reports.html.samples import clean, embedded, samples_data
from famcli.reports.html.task_runs import runs_by_task
from famcli.reports.layout import grids
from famcli.reports.numbers import format_score
from famcli.reports.plots.chart import write_charts
from famcli.reports.plots.palette import DARK, LIGHT, heat
from famcli.reports.plots.recall import recall_charts
from famcli.reports.plots.svg import Axis, Line, Point, line_panel, nice_ticks
from famcli.task import load_task


@pytest.fixture
def runs(tmp_path: Path) -> list[RunRecord]:
    answered = [Answer(f"q{i}", {"accuracy": float(i % 2), "extra": 0.5}, document=f"d{i // 2}") for i in range(8)]
    wrong = [replace(answer, scores={"accuracy": 0.0, "extra": 0.25}, output="") for answer in answered]
    return [
        passkey_run(tmp_path, "fam-tiny", FAM),
        passkey_run(tmp_path, "bswa-tiny", BSWA),
        document_run(tmp_path, "fam-tiny", answered),
        document_run(tmp_path, "bswa-tiny", wrong),
        reading_run(tmp_path, "fam-tiny", {"a": [4, 4, 3, 3, 2, 2, 1, 1], "b": [3, 3, 3, 3, 3, 3, 2, 2]}),
    ]


@pytest.mark.parametrize("baseline", [None, "bswa-tiny"])
def test_tables_are_those_of_compare(runs: list[RunRecord], baseline: str | None) -> None:
    runs = [run for run in runs if run.task["name"] != "pg19"]
    page = Page(report(*runs, baseline=baseline).page)
    tables = grids(replace(compare(runs, baseline=baseline), costs=()))  # they have a section of their own
    shown = {tuple(filter(None, row[1:])) for row in page.rows}
    lines = [line for grid in tables for line in grid.lines]
    assert {tuple(filter(None, line[1:])) for line in lines} <= shown and len(lines) > 6
    if baseline:
        cells = [line for grid in tables for line in grid.cells]
        difference = next(line for line in cells if line[1] == "start 64k" and line[2] == "fam-tiny")
        assert any(difference[5] in row and "passkey accuracy" in row for row in page.rows)


def test_plots_tell_every_score(runs: list[RunRecord]) -> None:
    comparison = compare(runs)
    told = [
        f"{name}, {format_settings(row.settings)}: {format_score(score, row.intervals.get(name), False)} (n={score.n})"
        for row in comparison.rows
        if row.task == "passkey"
        for name, score in row.scores.items()
    ]
    for chart in recall_charts(comparison):
        labels = [label for panel in chart.panels for label in panel.description.split("; ")]
        assert sorted(labels) == sorted(told)
    reach = [panel.body.count("end of the receptive field") for panel in recall_charts(comparison)[1].panels]
    assert reach == [1 if column.receptive_field else 0 for column in comparison.columns]


def test_line_is_where_its_values_are() -> None:
    x = Axis(1.0, 1024.0, [(1.0, "1")], "x", transform=np.log2)
    y = Axis(0.0, 1.0, [(0.0, "0"), (1.0, "1")], "y")
    values = [(1.0, 0.0), (32.0, 0.25), (1024.0, 1.0)]
    panel = line_panel("t", "d", x, y, [Line(0, "m", [Point(a, b) for a, b in values], edge=32.0)])
    root = ElementTree.fromstring(f"<svg>{panel.body}</svg>")
    polyline = next(root.iter("polyline")).attrib["points"]
    places = [tuple(map(float, place.split(","))) for place in polyline.split()]
    (x0, y0), (x1, y1), (x2, y2) = places
    assert (x1 - x0) / (x2 - x0) == pytest.approx(0.5, abs=1e-3)
    assert (y0 - y1) / (y0 - y2) == pytest.approx(0.25, abs=1e-3)
    edge = next(line for line in root.iter("line") if "edge" in line.attrib["class"])
    assert float(edge.attrib["x1"]) == pytest.approx(x1, abs=0.01)


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_stand_around_the_values(low: float, span: float) -> None:
    ticks = nice_ticks(low, low + span)
    step = ticks[1] - ticks[0]
    assert 2 <= len(ticks) <= 9
    assert ticks[0] <= low + step * 1e-6 and ticks[-1] >= low + span - step * 1e-6


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """Of two colours, 1 to 21, by WCAG 2."""
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_colours_can_be_read(colours: dict[str, str]) -> None:
    for name, colour in colours.items():
        if name in ("ink", "faint", "link", "good", "bad"):
            assert min(contrast(colour, colours[paper]) for paper in ("paper", "raised")) >= 4.5, name
        elif name.startswith("series"):
            assert contrast(colour, colours["paper"]) >= 3, name


def test_numbers_in_the_heat_map_can_be_read() -> None:
    for i in range(101):
        cell, text = heat(i / 100)
        assert contrast(cell, {"white": "#ffffff", "black": "#000000"}[text]) >= 4.4, i


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    told = Answer(HOSTILE, {"accuracy": 1.0}, {"kind": HOSTILE}, HOSTILE, reference=HOSTILE, output=HOSTILE)
    others = [replace(told, id=f"{i}", document=f"{i}") for i in range(3)]
    hostile = document_run(tmp_path / "a", HOSTILE.replace("/", ""), [told, *others], HOSTILE.replace("/", ""))
    hostile.task["options"]["data"] = hostile.environment["platform"] = HOSTILE
    other = document_run(tmp_path / "b", "fam-tiny", [told, *others], HOSTILE.replace("/", ""))
    other.task["options"]["data"] = HOSTILE
    read = [reading_run(tmp_path / name, name, {HOSTILE: [1, 2, 3, 4]}) for name in ("c", "d")]
    for run in read:
        run.model["name"] = HOSTILE
    keyed = passkey_record("x", {(1024, HOSTILE): [1.0]}, model={"name": HOSTILE})
    for records, baseline in (((hostile, other), "fam-tiny"), (read[:1], None), ([keyed], None)):
        made = report(*records, baseline=baseline)
        page = Page(made.page)
        tags = [tag for tag, _ in page.tags]
        assert tags.count("script") == 2 and tags.count("title") >= 1 and "img" not in tags
        for tag, attributes in page.tags:
            assert not any(name.startswith("on") for name in attributes), (tag, attributes)
            assert (attributes.get("href") or "#").startswith("#") and "src" not in attributes
        assert "onerror" in page.text and "{{ 7*7 }}" in page.text
        for file in write_charts(made.charts, tmp_path / "plots"):
            names = {element.tag.rpartition("}")[2] for element in ElementTree.parse(file).iter()}
            assert names <= {
                "svg",
                "title",
                "desc",
                "style",
                "rect",
                "text",
                "g",
                "line",
                "polyline",
                "circle",
                "polygon",
            }
    data = Page(report(hostile, other).page).data
    assert data["samples"][0][3] == clean(HOSTILE) and data["texts"][data["samples"][0][5]] == clean(HOSTILE)


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_embedded_data_ends_nothing(value: Any) -> None:
    text = embedded(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")


@given(st.text())
def test_cleaned_text_has_no_marks_that_turn_or_hide(text: str) -> None:
    found = clean(text)
    assert all(c.isprintable() or c in "\n\t\u200c\u200d" for c in found)
    assert found == text or not text.isprintable()


def test_samples_are_data_of_the_page(runs: list[RunRecord]) -> None:
    data = Page(report(*runs).page).data
    assert data["models"] == ["fam-tiny", "bswa-tiny"] and data["all"] == len(data["samples"])
    found = {
        (data["tasks"][task]["name"], data["models"][model], id): (kind, scores)
        for task, model, _, id, _, _, _, kind, scores in data["samples"]
    }
    assert len(found) == data["all"] == 9 + 9 + 8 + 8 + 2
    assert found["quality", "fam-tiny", "q1"] == (1, ["1.000", "0.500"])
    assert found["quality", "bswa-tiny", "q1"] == (0, ["0.000", "0.250"])
    assert found["pg19", "fam-tiny", "a"] == (2, ["2.500"])


def test_what_does_not_count_has_no_score(tmp_path: Path) -> None:
    told = [Answer("a", {"f1": 1.0}, weights={"f1": 0.0}), Answer("b", {"f1": 1.0})]
    data = Page(report(document_run(tmp_path, "fam-tiny", told)).page).data
    assert [sample[-2:] for sample in data["samples"]] == [[3, ["-"]], [1, ["1.000"]]]


def test_long_texts_are_cut_until_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "MOST_BYTES", 120_000)
    long = [Answer(f"{i}", {"f1": 0.5}, output=f"{i}" + "é" * 5_000) for i in range(100)]
    run = document_run(tmp_path, "fam-tiny", long)
    data = samples_data(runs_by_task([run], lambda record: record.model["name"], ["fam-tiny"]), ["fam-tiny"])
    assert len(embedded(data).encode()) <= 120_000
    assert data["cut"] == 500 and len(data["samples"]) == 100
    assert all(len(sample[6]) == 500 and sample[6].endswith("…") for sample in data["samples"])


def test_curves_of_reading(tmp_path: Path, runs: list[RunRecord]) -> None:
    parts = [{"tokens": 1, "bytes": 2, "log_likelihood": -np.log(2) * bits, "hits": 0} for bits in (4, 2, 6, 8)]
    curve = curve_of(replace(entry(Answer("a", {})), answer={"by_position": parts}))
    assert curve is not None and curve.quarters == pytest.approx((2.0, 4.0))
    assert curve_of(entry(Answer("a", {}))) is None
    page = Page(report(*runs).page)
    row = next(row for row in page.rows if row[:2] == ("pg19", "fam-tiny") and row[2] == "2" and len(row) == 6)
    assert row[3:5] == ("3.500", "1.500") and row[5].startswith("-2.000 [")


def test_rerun_command_gives_the_same_options(tmp_path: Path) -> None:
    typed: dict[str, dict[str, str]] = {
        "passkey": {"lengths": "1k,3000", "position": "random,grid", "trials": "7"},
        "qasper": {"question_position": "before", "data": "my data,other"},
        "pg19": {"split": "test"},
    }
    for name, options in typed.items():
        task = load_task(name, options)
        stored = json.loads(json.dumps(dataclasses.asdict(task.options)))
        context = {"max_context": 4096, "truncate": "left", "chat_template_sha256": "0"}
        record = passkey_record("./my model,block_size=64", FAM, task={"name": name}, context=context, limit=5)
        record.task["options"] = stored
        record.seed, record.device, record.path = 3, "cuda:0", tmp_path / "run"
        words = shlex.split(rerun_command(record))
        assert words[:2] == ["famcli", "eval"]
        given = eval_command.make_context("eval", words[2:]).params
        again = dict(text.split("=", 1) for text in given["options"])
        again |= {"data": given["data"][0]} if given["data"] else {}
        assert load_task(name, again).options == task.options
        assert (given["models"], given["tasks"]) == (("./my model,block_size=64",), (name,))
        assert (given["limit"], given["max_context"], given["truncate"], given["seed"]) == (5, 4096, "left", 3)
        assert (given["device"], given["dtype"], given["output"]) == ("cuda", "float32", tmp_path)
        assert given["chat_template"] and given["fresh"]


def test_cost_says_what_sharing_saved(tmp_path: Path) -> None:
    cost = {"tokens_read": 250, "tokens_read_alone": 1000, "tokens_per_second": 1234.4, "peak_memory_bytes": 3 << 20}
    for computed, speed in ({"tokens_computed": 125}, "1,234"), ({}, "-"):
        record = passkey_record("fam-tiny", FAM, cost=cost | computed)
        if not computed:
            del record.cost["tokens_computed"]
        page = Page(report(record).page)
        row = next(row for row in page.rows if "750 (75.0%)" in row)
        assert {"passkey", "fam-tiny", "250", speed, "3.0 MiB", *map(str, computed.values())} <= set(row)


def test_forced_comparison_is_marked(tmp_path: Path) -> None:
    runs = [passkey_run(tmp_path, "fam-tiny", FAM), passkey_run(tmp_path, "bswa-tiny", BSWA, "2030-01-02", seed=1)]
    assert main(["report", "--output", str(tmp_path), "--baseline", "bswa-tiny", "--to", str(tmp_path / "a.html")]) == 2
    forced = [
        "report",
        "--output",
        str(tmp_path),
        "--baseline",
        "bswa-tiny",
        "--to",
        str(tmp_path / "a.html"),
        "--force",
    ]
    assert main(forced) == 0 and len(runs) == 2
    assert "NOT COMPARABLE" in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_command_writes_page_and_plots(
    tmp_path: Path, runs: list[RunRecord], capsys: pytest.CaptureFixture[str]
) -> None:
    file, plots = tmp_path / "out" / "a.html", tmp_path / "plots"
    given = ["report", "--output", str(tmp_path), "--to", str(file), "--plots", str(plots)]
    assert main(given) == 0
    first = file.read_bytes()
    assert str(file) in capsys.readouterr().out
    assert {p.name for p in plots.iterdir()} == {
        "recall-curves.svg",
        "recall-heat-map.svg",
        "run-cost.svg",
        "reading-1.svg",
    }
    assert main(given) == 0 and file.read_bytes() == first
    assert not re.search(rb"https?://(?!www\.w3\.org/2000/svg)", first)
    for plot in plots.iterdir():
        root = ElementTree.parse(plot).getroot()
        assert root.find("{*}title") is not None and root.find("{*}desc") is not None
        assert "var(" not in plot.read_text(encoding="utf-8")


def test_errors_say_what_to_do(tmp_path: Path, runs: list[RunRecord], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--output", str(tmp_path / "none")]) == 2
    assert "famcli eval" in capsys.readouterr().err
    assert main(["report", "fam-tony", "--output", str(tmp_path)]) == 2
    assert "fam-tiny" in capsys.readouterr().err
    (tmp_path / "taken").write_text("")
    assert main(["report", "--output", str(tmp_path), "--to", str(tmp_path / "taken" / "a.html")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_runs_without_samples_have_a_report() -> None:
    page = Page(report(passkey_record("fam-tiny", FAM), passkey_record("bswa-tiny", BSWA)).page)
    assert page.data["samples"] == [] and any("0.667 ± 0.333 (n=3)" in row for row in page.rows)


def test_lone_surrogates_do_not_cost_the_report(tmp_path: Path) -> None:
    run = document_run(tmp_path, "fam-tiny", [Answer("a", {"f1": 1.0})])
    run.environment["platform"] = "\ud800"
    assert "f1" in report(run).page.encode().decode()


def test_journal_keeps_the_end_of_the_prompt(tmp_path: Path) -> None:
    given = [asked("short", story(1, 50), "\nWhy?", ()), asked("cut", story(2, 900), "\nWhat now?", ())]
    run = evaluate(small_model(), Asks(given), results=tmp_path, max_context=500, truncate="right")
    found = {id: line["prompt_tail"] for id, line in answers(run.path).items()}
    assert found == {"short": story(1, 50) + "\nWhy?", "cut": "\nWhat now?"}
    long = evaluate(small_model(), Asks(given[1:]), results=tmp_path)
    assert answers(long.path)["cut"]["prompt_tail"] == (story(2, 900) + "\nWhat now?")[-200:]


def test_journals_without_prompts_still_read() -> None:
    values = json.loads(entry(Answer("a", {"f1": 1.0})).to_line())
    del values["prompt_tail"]
    assert Entry.from_line(json.dumps(values).encode(), "here").prompt_tail == ""
