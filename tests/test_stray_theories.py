"""Theories of an archive that no ROOT reaches: left out where they do not parse, and never where they are meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from famcli.tasks.isabelle import Isabelle

from famcli.task import DataError


def isabelle(data: Path) -> Isabelle:
    return Isabelle.from_options({"data": str(data)})


def archive(folder: Path) -> Path:
    """Three entries of two theories each, all listed by their ROOT."""
    for name in ("Alpha", "Beta", "Gamma"):
        (folder / "thys" / name).mkdir(parents=True)
        (folder / "thys" / name / "ROOT").write_text(f"session {name} = HOL + theories B\n")
        (folder / "thys" / name / "A.thy").write_text("theory A imports Main begin end\n")
        (folder / "thys" / name / "B.thy").write_text("theory B imports A begin end\n")
    return folder


STRAYS: dict[str, bytes] = {
    "Alpha/Draft.thy": b"lemma (",
    "Beta/old/A.thy": b"theory Other imports Main begin end",
    "Gamma/Bytes.thy": b"\xfftheory",
    "Notes.thy": "theory".encode("utf-16"),
}


@pytest.mark.parametrize("below", ["", "thys"])
def test_stray_theories_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture, below: str) -> None:
    plain = isabelle(archive(tmp_path / "plain") / below)
    folder = archive(tmp_path / "strays")
    for name, content in STRAYS.items():
        (folder / "thys" / name).parent.mkdir(exist_ok=True)
        (folder / "thys" / name).write_bytes(content)
    task = isabelle(folder / below)
    assert task.entries == plain.entries and len(plain.entries) == 3
    assert "warning: 4 theories that no ROOT reaches are left out, for they do not parse: " in caplog.text
    for name in STRAYS:
        assert name in caplog.text
    assert task.data().facts()["rows"] == plain.data().facts()["rows"]


def test_a_theory_that_is_reached_is_never_left_out(tmp_path: Path) -> None:
    """Nor is one without any ROOT. All that do not fit are told at once."""
    folder = archive(tmp_path)
    (folder / "thys" / "Alpha" / "B.thy").write_text("theory X imports A begin end")  # listed
    (folder / "thys" / "Beta" / "A.thy").write_text("lemma")  # imported by what is listed
    (folder / "thys" / "Gamma" / "Draft.thy").write_text("lemma")  # neither
    with pytest.raises(DataError, match=r"thys/Alpha/B\.thy holds the theory 'X', not 'B'") as error:
        _ = isabelle(folder).entries
    assert ["Beta/A.thy, line 1" in other.message for other in error.value.others] == [True]
    for root in folder.rglob("ROOT"):
        root.unlink()
    with pytest.raises(DataError) as error:
        _ = isabelle(folder).entries
    assert len(error.value.others) == 2


def test_a_single_entry_with_theories_at_its_top_stays_one(tmp_path: Path) -> None:
    (tmp_path / "One" / "sub").mkdir(parents=True)
    (tmp_path / "One" / "A.thy").write_text("theory A imports Main begin end")
    (tmp_path / "One" / "sub" / "ROOT").write_text("session Sub = HOL + theories B")
    (tmp_path / "One" / "sub" / "B.thy").write_text('theory B imports "../A" begin end')
    (entry,) = isabelle(tmp_path / "One").entries
    assert (entry.id, entry.theories) == ("One", 2)
