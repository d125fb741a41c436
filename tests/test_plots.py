"""The PassKey picture."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from made_records import BSWA, FAM, passkey_record

from famcli.compare.side_by_side import Comparison, compare
from famcli.errors import UserError
from famcli.reports.plots.recall import plot_recall


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
