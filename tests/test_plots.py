"""The PassKey picture."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from made_records import BSWA, FAM, passkey_record

from famcli.compare.side_by_side import Comparison, compare
from famcli.errors import UserError
from famcli.reports.plots.chart import as_svg
from famcli.reports.plots.palette import DARK, LIGHT
from famcli.reports.plots.recall import plot_recall, recall_charts
from famcli.reports.plots.svg import PAGE, Axis, Line, Point, Room, line_panel


@pytest.fixture
def comparison() -> Comparison:
    return compare([passkey_record("bswa-tiny", BSWA), passkey_record("fam-tiny", FAM)])


def test_svg_names_models_positions_and_lengths(comparison: Comparison, tmp_path: Path) -> None:
    file = tmp_path / "picture.svg"
    plot_recall(comparison, file)
    texts = " ".join(ElementTree.parse(file).getroot().itertext())
    for text in ("fam-tiny", "unbounded", "bswa-tiny", "1,024 tokens", "1k", "64k", "1M", "start", "random"):
        assert text in texts
    assert "Uprights through the points are 95 % intervals." in texts, "also in a file of its own"
    assert "± in their labels is one standard error" in texts, "of runs whose samples are not there"


def test_same_runs_draw_the_same_bytes(comparison: Comparison, tmp_path: Path) -> None:
    first, second = tmp_path / "picture.svg", tmp_path / "again" / "picture.svg"
    plot_recall(comparison, first)
    plot_recall(comparison, second)
    assert first.read_bytes() == second.read_bytes()


def test_what_cannot_be_drawn_says_why(comparison: Comparison, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot draw to .*picture\.png") as caught:
        plot_recall(comparison, tmp_path / "picture.png")
    assert "picture.png" in (caught.value.hint or "")
    with pytest.raises(UserError, match="no runs to draw: none has scores by length"):
        plot_recall(compare([]), tmp_path / "picture.svg")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/picture\.svg"):
        plot_recall(comparison, tmp_path / "file" / "picture.svg")
    (tmp_path / "file").unlink()
    assert list(tmp_path.iterdir()) == []


def test_a_file_may_be_dark_for_who_wants_that(comparison: Comparison) -> None:
    charts = recall_charts(comparison)
    light, both = as_svg(charts), as_svg(charts, dark=True)
    assert DARK["paper"] not in light and "var(" not in both
    first, dark = both[: both.index("</style>")].split("@media (prefers-color-scheme: dark) {")
    assert f".paper {{ fill: {DARK['paper']}; }}" in dark
    for name in ("ink", "faint", "series-0", "series-1"):
        assert LIGHT[name] in first and DARK[name] not in first
        assert DARK[name] in dark and LIGHT[name] not in dark


def test_a_line_behind_others_is_grey_and_has_no_marks() -> None:
    axis = Axis(0.0, 1.0, [(0.0, "0"), (1.0, "1")], "share")
    points = [Point(0.0, 0.0, 0.0, 0.5, "first"), Point(1.0, 1.0, label="second")]
    own, behind = (
        line_panel("panel", "", axis, axis, [Line(0, "model", points, behind=behind)]).body for behind in (False, True)
    )
    assert own.count("<circle") == 2 and "stroke-0" in own and "second" in own
    assert "<circle" not in behind and "stroke-0" not in behind and 'class="curve behind"' in behind


@pytest.mark.parametrize("room", [PAGE, Room(160, 118, 24, 8, 28, 24, 4, 3)])
def test_lines_go_from_corner_to_corner_of_their_room(room: Room) -> None:
    axis = Axis(0.0, 2.0, [(0.0, "0")], "")
    panel = line_panel("panel", "", axis, axis, [Line(0, "model", [Point(0.0, 0.0), Point(2.0, 2.0)])], room=room)
    corners = f"{room.left:.2f},{room.height - room.bottom:.2f} {room.width - room.right:.2f},{room.top:.2f}"
    assert f'points="{corners}"' in panel.body
    assert (panel.width, panel.height) == (room.width, room.height)
    assert 'class="name"' not in panel.body, "an axis without a name has none"
