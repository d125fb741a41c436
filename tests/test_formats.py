"""Every format holds the same numbers, and nothing that a model or a user wrote becomes markup."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from famcli.compare.changes import Change
from famcli.compare.comparison import Column, Comparison
from famcli.compare.reference import load_reference, reference_for
from famcli.compare.row import Difference, Row
from famcli.display import visible
from famcli.metrics.paired import Interval, PairedDifference
from famcli.metrics.statistics import Metric
from famcli.reports.formats import FORMATS, to_csv, to_html, to_json, to_latex, to_markdown, to_rich
from famcli.reports.grid import Grid
from famcli.reports.layout import grids
from famcli.reports.numbers import format_difference

NASTY = 'a|b*c_ <b>x</b> & 5% $y$ #z {q} \\end ~^ `t` "u" [v](w) é'
NAMES = ("fam-tiny,block_size=64", NASTY)

Lines = list[list[str]]


def from_markdown(text: str) -> list[Lines]:
    """The cells of each pipe table, its rule left out, as a reader would see them."""
    tables: list[Lines] = []
    for line, before in zip(text.splitlines(), ["", *text.splitlines()], strict=False):
        if line.startswith("|"):
            if not before.startswith("|"):
                tables.append([])
            cells = re.split(r"(?<!\\) ?\| ?", line)[1:-1]
            if not all(re.fullmatch("-+:?", cell) for cell in cells):
                tables[-1].append([_plain(re.sub(r"\\(.)", r"\1", cell)) for cell in cells])
    return tables


def _plain(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


LATEX = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textless": "<", "textgreater": ">"}
LATEX |= {"textbar": "|", "textquotedbl": '"', "dots": "…"}


def from_latex(text: str) -> list[Lines]:
    """The cells of each tabular."""
    tables = []
    for body in re.findall(r"\\toprule\n(.*?)\\bottomrule", text, re.DOTALL):
        lines = [line for line in body.split(" \\\\\n") if line]
        lines = [line.removeprefix("\\midrule\n") for line in lines]
        tables.append([[_read_latex(cell) for cell in re.split(r"(?<!\\) & ", f" {line} ")] for line in lines])
    return tables


def _read_latex(cell: str) -> str:
    cell = cell.strip().removeprefix("{}").replace(r"$\pm$", "±")
    return re.sub(r"\\([a-z]+)\{\}|\\(.)", lambda found: LATEX[found[1]] if found[1] else found[2], cell)


class Tables(HTMLParser):
    """The cells of each table of a page, and all its tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: list[Lines] = []
        self.tags: set[str] = set()
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside &= tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.tables[-1][-1][-1] += data


def from_terminal(grid: Grid) -> Lines:
    """The cells by the places of their columns."""
    console = Console(width=2000, record=True, file=io.StringIO(), color_system=None)
    console.print(to_rich(replace(grid, title="")))
    lines = console.export_text().splitlines()
    widths = [max(len(visible(line[i])) for line in (grid.header, *grid.lines)) for i in range(len(grid.header))]
    found = []
    for line in lines:
        cells, start = [], 0
        for width in widths:
            cells.append(line[start : start + width].strip())
            start += width + 2
        found.append(cells)
    return found


number = st.one_of(st.floats(0, 1), st.floats(1, 1e7), st.sampled_from([0.0, 1.0, 0.0004]))
difference = st.builds(
    Difference,
    st.builds(
        PairedDifference,
        value=st.floats(-1, 1),
        low=st.floats(-1, 0),
        high=st.one_of(st.floats(0, 1)),
        p_value=st.floats(0, 1),
        wins=st.integers(0, 99),
        losses=st.integers(0, 99),
        ties=st.integers(0, 99),
        n=st.integers(1, 99),
        clusters=st.integers(1, 99),
        method=st.just("coins"),
    ),
    p_corrected=st.one_of(st.none(), st.floats(0, 1)),
    verdict=st.sampled_from(["better", "worse", "undecided"]),
)


@st.composite
def comparisons(draw: st.DrawFn, against: bool) -> Comparison:
    rows = []
    for length in draw(st.lists(st.integers(1, 2**21), unique=True, min_size=1, max_size=4)):
        names = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1))
        if against and NAMES[0] not in names:
            names = list(NAMES)
        errors = st.one_of(st.none(), st.floats(0, 1))
        row = Row(
            task=draw(st.sampled_from(["passkey", "pg19 (limit 3)"])),
            metric="token_accuracy",
            settings={"length": length, "position": "start"},
            scores={name: Metric(draw(number), draw(errors), draw(st.integers(1, 99))) for name in names},
            intervals={name: Interval(draw(number), draw(number), "coins") for name in names if draw(st.booleans())},
            differences={name: draw(difference) for name in names if name != NAMES[0]} if against else {},
            differs=draw(st.sampled_from([(), ("a and b differ in limit: 3, none",)])),
        )
        rows.append(row)
    columns = (Column(NAMES[0], None), Column(NAMES[1], 1024))
    return Comparison(columns, tuple(rows), ("a note",), NAMES[0] if against else None)


def figures(text: str) -> list[float]:
    """The numbers of a cell."""
    return [float(found) for found in re.findall(r"[-+]?\d+(?:\.\d+)?(?:e[-+]\d+)?", text.replace(",", " "))]


def readable(values: dict[str, float | None]) -> Any:
    """Numbers as CSV rounds them: to six digits, whole numbers not at all."""
    return {
        key: value if value is None or isinstance(value, int) else pytest.approx(value, rel=5e-6, abs=0)
        for key, value in values.items()
    }


def shown(value: float) -> float:
    """A number as tables for readers round it."""
    return float(f"{value:.4g}") if abs(value) >= 1e5 else round(float(f"{value:.3f}"), 3)


@given(st.booleans().flatmap(comparisons))
@settings(max_examples=60, deadline=None)
def test_formats_for_readers_hold_the_same_cells(comparison: Comparison) -> None:
    for i, grid in enumerate(grids(comparison)):
        cells = [[visible(text) for text in line] for line in (grid.header, *grid.lines)]
        assert from_markdown(to_markdown(comparison))[i] == cells
        assert from_latex(to_latex(comparison))[i] == cells
        assert Tables(to_html(comparison)).tables[i] == cells
        assert from_terminal(grid) == cells


@given(comparisons(against=False))
@settings(max_examples=60, deadline=None)
def test_numbers_side_by_side_are_the_same_in_every_format(comparison: Comparison) -> None:
    rows = json.loads(to_json(comparison))["rows"]
    lines = list(csv.DictReader(io.StringIO(to_csv(comparison))))
    table = from_markdown(to_markdown(comparison))[0][2:]
    for row, line, cells in zip(rows, lines, table, strict=True):
        for name, cell in zip(NAMES, cells[2:], strict=True):
            if name not in row["scores"]:
                assert (line[name], cell) == ("", "-")
                continue
            score = row["scores"][name]
            keys = {key: f"{name} {key}" if key != "value" else name for key in score}
            assert {key: float(line[keys[key]]) if line[keys[key]] else None for key in score} == readable(score)
            around = [score["low"], score["high"]] if score["low"] is not None else [score["stderr"]]
            told = [shown(score["value"]), *(shown(x) for x in around if x is not None), score["n"]]
            if score["low"] is None and score["value"] >= 1e5 and score["stderr"] is not None:
                told[1] = float(f"{score['stderr']:.2g}")
            assert figures(cell) == told


@given(comparisons(against=True))
@settings(max_examples=60, deadline=None)
def test_numbers_against_a_baseline_are_the_same_in_every_format(comparison: Comparison) -> None:
    rows = json.loads(to_json(comparison))["rows"]
    lines = iter(csv.DictReader(io.StringIO(to_csv(comparison))))
    table = iter(from_markdown(to_markdown(comparison))[0][1:])
    for row in rows:
        for name in NAMES:
            if name not in row["scores"]:
                continue
            line, cells = next(lines), next(table)
            assert (line["model"], cells[2]) == (name, visible(name))
            score = row["scores"][name]
            assert {key: float(line[key]) if line[key] else None for key in score} == readable(score)
            assert figures(cells[3])[0] == shown(row["scores"][name]["value"])
            if name == NAMES[0]:
                assert cells[5:] == [""] * 6
                continue
            found = row["differences"][name]
            names = {"value": "difference", "low": "difference low", "high": "difference high", "p_value": "p"}
            names |= {"p_corrected": "p corrected", "wins": "won", "losses": "lost", "ties": "tied", "n": "shared"}
            assert {key: float(line[column]) if line[column] else None for key, column in names.items()} == readable(
                {key: found[key] for key in names}
            )
            assert figures(cells[5]) == [float(format_difference(found[key])) for key in ("value", "low", "high")]
            assert cells[8] == f"{found['wins']}/{found['losses']}/{found['ties']}"
            assert (cells[9], cells[10]) == (str(found["n"]), found["verdict"])
            for cell, p in zip(cells[6:8], (found["p_value"], found["p_corrected"]), strict=True):
                if p is not None and p >= 0.001:
                    assert float(cell) == round(p, 3)
    assert next(lines, None) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.02, "+0.020"), (-0.02, "-0.020"), (0.0, "0.000"), (-0.0, "0.000"), (0.00042, "+4.2e-04"), (-2e6, "-2e+06")],
)
def test_differences_read_well(value: float, text: str) -> None:
    assert format_difference(value) == text


def sample(**texts: str) -> Comparison:
    """A comparison with one sample that changed sides."""
    told = {"reference": "right", "output": "said", "baseline_output": "said", **texts}
    change = Change("qasper", "f1", {}, "id", NAMES[1], 0.25, 0.5, **told)
    row = Row("qasper", "f1", {}, {name: Metric(0.5, None, 2) for name in NAMES})
    return Comparison((Column(NAMES[0], None), Column(NAMES[1], 9)), (row,), (), NAMES[0], (change,))


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_model_wrote_can_steer_nothing(name: str) -> None:
    comparison = sample(output="\x1b[31mred\r\n\x9b2J\u202eevil\x00", reference="<script>alert(1)</script>")
    text = FORMATS[name](comparison)
    assert comparison.changes
    if name == "json":
        assert json.loads(text)["changes"][0]["output"] == comparison.changes[0].output
    assert not [c for c in text if not c.isprintable() and c != "\n"]
    if name == "json":
        return
    assert r"\x1b[31mred\r\n\x9b2J\u202eevil\x00" in re.sub(r"\\textbackslash\{\}", r"\\", text.replace("\\\\", "\\"))
    assert "<script>" not in text or name == "csv"
    if name == "html":
        assert "script" not in Tables(text).tags


def test_terminal_shows_no_markup_of_a_model_and_cuts_what_is_long() -> None:
    assert from_terminal(grids(sample(output="\x1b[2J\a"))[1])[1][6] == r"\x1b[2J\x07"
    grid = grids(sample(output="[bold red]x[/]", reference="y" * 500))[1]
    line = from_terminal(grid)[1]
    assert line[6] == "[bold red]x[/]"
    assert line[5] == "y" * 59 + "…"


def test_forced_rows_are_marked_in_every_format() -> None:
    comparison = sample()
    rows = tuple(replace(row, differs=("a and b differ in limit: 3, none",)) for row in comparison.rows)
    comparison = replace(comparison, rows=rows, changes=None)
    for name, render in FORMATS.items():
        assert "differ in limit: 3, none" in render(comparison), name
        assert "NOT COMPARABLE" in render(comparison) or name == "csv"
        assert "(not comparable)" in render(comparison) or name in ("csv", "json")


def test_a_wide_table_can_be_parted_without_losing_a_figure() -> None:
    row = Row(
        "passkey",
        "accuracy",
        {"length": 1024},
        {name: Metric(0.5, 0.1, 4) for name in NAMES},
        differences={NAMES[1]: Difference(PairedDifference(0.25, 0.1, 0.4, 0.5, 2, 1, 1, 4, 4, "coins"), 0.5)},
    )
    grid = grids(Comparison((Column(NAMES[0], None), Column(NAMES[1], 9)), (row,), (), NAMES[0]))[0]
    assert grid.parted(lambda part: 9, 9) == [grid] == grid.parted(lambda part: 9, 8)
    left, right = grid.parted(lambda part: len(part.header), len(grid.header) - 1)
    assert (*left.header, *right.header[3:]) == grid.header
    assert [*left.cells[1], *right.cells[0][3:]] == list(grid.cells[1])
    assert len(right.cells) == 1, "the baseline has no difference to itself"
    assert left.lines[1][:2] == ("", ""), "the task is told once"


def by_hand(widths: list[int], room: int) -> list[list[int]]:
    """The best of all ways to part columns beside one that is 1 wide; all together where none fits."""
    ways: list[list[list[int]]] = [[]]
    for width in widths:
        ways = [[*way, [width]] for way in ways] + [[*way[:-1], [*way[-1], width]] for way in ways if way]
    widest = {max(1 + sum(part) for part in way): way for way in sorted(ways, key=len, reverse=True)}
    fewest = min((len(way) for wide, way in widest.items() if wide <= room), default=0)
    fitting = [way for way in ways if len(way) == fewest and max(1 + sum(part) for part in way) <= room]
    return min(fitting, key=lambda way: max(map(sum, way)), default=[widths])


@given(st.integers(1, 30), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_parts_are_as_few_as_fit_and_as_narrow(room: int, widths: list[int]) -> None:
    header = ("m", *(letter * width for letter, width in zip("abcdef", widths, strict=False)))
    grid = Grid("", header, (header,), words=1, splits=tuple(range(2, len(header))))
    parts = grid.parted(lambda part: sum(map(len, part.header)), room)
    assert [title for part in parts for title in part.header[1:]] == list(header[1:])
    found, best = [[len(title) for title in part.header[1:]] for part in parts], by_hand(widths, room)
    assert (len(found), max(map(sum, found))) == (len(best), max(map(sum, best)))


def published(comparison: Comparison) -> Comparison:
    return replace(comparison, reference=reference_for("paper", [("pg19", "accuracy"), ("qasper", "f1")]))


def rows_of(comparison: Comparison) -> Iterator[Row]:
    yield Row("pg19", "accuracy", {}, {name: Metric(0.25, None, 2) for name in NAMES})
    yield from comparison.rows


@pytest.mark.parametrize("baseline", [None, NAMES[0]])
def test_published_figures_stand_apart_with_their_table_and_a_note(baseline: str | None) -> None:
    comparison = published(replace(sample(), baseline=baseline, changes=None))
    comparison = replace(comparison, rows=tuple(rows_of(comparison)))
    grid = grids(comparison)[-1]
    assert grid.header == ("published", "model", "pg19 accuracy")
    assert ("Table 11", "FAM 1B", "0.470") in grid.cells
    assert ("Table 11", "BSWA-M7 1B", "0.4539") in grid.cells
    assert ("Table 1", "FAM 24B", "0.572") in grid.cells
    for name, render in FORMATS.items():
        text = render(comparison)
        assert "Table 11" in text or name == "json"
        assert ("another tokenizer" in text and "Flan-PaLM" in text) or name == "csv"
    found = json.loads(to_json(comparison))["reference"]["figures"]
    assert {(f["table"], f["model"], f["value"]) for f in found} >= {(11, "FAM 1B", 0.47), (1, "BSWA 8B", 0.524)}
    lines = list(csv.DictReader(io.StringIO(to_csv(comparison))))
    if baseline is None:
        assert lines[0]["FAM 1B (Table 11)"] == "0.47"
        assert lines[1]["FAM 1B (Table 11)"] == ""
    else:
        assert [line["value"] for line in lines if line["model"] == "FAM 1B (Table 11)"] == ["0.47"]


def test_the_paper_is_there_whole() -> None:
    reference, _ = load_reference("paper")
    tables = {figure.table: 0 for figure in reference.figures}
    for figure in reference.figures:
        tables[figure.table] += 1
    assert tables == {11: 6 * 9, 1: 6 * 4, 12: 28 * 6, 13: 5 * 2, 14: 5 * 2}
    figures = {(f.table, f.name, f.model): f.value for f in reference.figures}
    assert figures[12, "CB", "BSWA 24B"] == 1.0
    assert figures[13, "258k tokens", "FAM"] == 16.1
    # The means that the tables print themselves tell a digit that was copied wrongly.
    for column in ("BSWA 1B", "FAM 1B", "BSWA 8B", "FAM 8B", "BSWA 24B", "FAM 24B"):
        found = [value for (table, _, model), value in figures.items() if (table, model) == (12, column)]
        assert sum(found[1:22]) / 21 == pytest.approx(found[0], abs=0.0006)
        assert sum(found[23:]) / 5 == pytest.approx(found[22], abs=0.0006)


def test_what_the_paper_does_not_print_is_said() -> None:
    found = reference_for("paper", [("passkey", "accuracy")])
    assert found.figures == ()
    assert found.notes[0] == "no figures of passkey"
