"""The PassKey picture."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from made_records import BSWA, FAM, passkey_record

from famcli.compare.side_by_side import Comparison, compare
from famcli.errors import UserError
from famcli.reports.plots import plot_passkey


@pytest.fixture
def comparison() -> Comparison:
    return compare([passkey_record("bswa-tiny", BSWA), passkey_record("fam-tiny", FAM)])


def test_svg_names_models_positions_and_lengths(comparison: Comparison, tmp_path: Path) -> None:
    file = tmp_path / "picture.svg"
    plot_passkey(comparison, file)
    texts = " ".join(ElementTree.parse(file).getroot().itertext())
    for text in ("fam-tiny", "unbounded", "bswa-tiny", "1,024 tokens", "1k", "64k", "1M", "start", "random"):
        assert text in texts


@pytest.mark.parametrize("name", ["picture.svg", "picture.png"])
def test_same_runs_draw_the_same_bytes(comparison: Comparison, tmp_path: Path, name: str) -> None:
    first, second = tmp_path / name, tmp_path / "again" / name
    plot_passkey(comparison, first)
    plot_passkey(comparison, second)
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(b"<?xml" if name.endswith("svg") else b"\x89PNG")


def test_what_cannot_be_drawn_says_why(comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"cannot draw to .*picture\.pdf"):
        plot_passkey(comparison, tmp_path / "picture.pdf")
    with pytest.raises(UserError, match="no PassKey runs"):
        plot_passkey(compare([]), tmp_path / "picture.svg")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/picture\.svg"):
        plot_passkey(comparison, tmp_path / "file" / "picture.svg")
    (tmp_path / "file").unlink()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match="needs matplotlib") as caught:
        plot_passkey(comparison, tmp_path / "picture.svg")
    assert "famcli[plots]" in (caught.value.hint or "")
    assert list(tmp_path.iterdir()) == []
