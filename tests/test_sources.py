"""Files of rows: the same from every format, each with its place."""

from __future__ import annotations

import gzip
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from data_files import ROWS, json_lines, json_values, open_path, rows_of, write_all, write_csv, write_parquet
from famcli.tasks.sources import open_data
from hypothesis import given, settings
from hypothesis import strategies as st

from famcli.errors import UserError
from famcli.task import DataError

pytestmark = pytest.mark.usefixtures("offline")


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.dictionaries(st.text(max_size=5), json_values, max_size=4), min_size=1, max_size=4))
def test_json_lines_are_the_same_plain_gzipped_and_zipped(
    rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    opened = [open_path(path) for path in write_all(tmp_path_factory.mktemp("data"), rows)]
    for dataset in opened:
        assert rows_of(dataset) == rows
        assert rows_of(dataset) == rows, "rows can be read again"
        assert dataset.provenance.rows == len(rows)
        assert dataset.provenance.sha256 == opened[0].provenance.sha256


def test_rows_are_the_same_in_csv_and_parquet_and_say_where_they_stand(tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv", ROWS)
    write_parquet(tmp_path / "rows.parquet", ROWS)
    with zipfile.ZipFile(tmp_path / "rows.zip", "w") as archive:
        archive.write(tmp_path / "rows.parquet", "in/rows.parquet")
    for name, label in (("rows.csv", "rows.csv"), ("rows.parquet",) * 2, ("rows.zip", "rows.zip:in/rows.parquet")):
        dataset = open_path(tmp_path / name)
        assert rows_of(dataset) == ROWS
        assert [row.where for row in dataset.rows] == [f"{label}, row {n}" for n in (1, 2, 3)]
        assert dataset.provenance.rows == 3
    zipped, plain = (open_path(tmp_path / name).provenance for name in ("rows.zip", "rows.parquet"))
    assert zipped.sha256 == plain.sha256


@pytest.mark.parametrize("task", ["narrativeqa", "qasper", "quality", "pg19"])
def test_nested_rows_survive_parquet(task: str, tmp_path: Path) -> None:
    rows = rows_of(open_data(task, "sample"))
    write_parquet(tmp_path / "rows.parquet", rows)
    assert rows_of(open_path(tmp_path / "rows.parquet")) == rows


def test_directory_is_read_in_the_order_of_names_and_only_its_data(tmp_path: Path) -> None:
    names = ["a/9.jsonl", "a/b/1.jsonl", "b/2.jsonl", "c.jsonl", "d.jsonl", "e/0.jsonl"]
    for name in (names[i] for i in (3, 0, 5, 2, 4, 1)):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(json_lines([{"name": name}]))
    for name in ("README.md", ".hidden.jsonl", ".cache/x.jsonl", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no data")
    rows = list(open_path(tmp_path).rows)
    assert [row.file for row in rows] == [row.fields["name"] for row in rows] == names
    assert rows[2].where == "b/2.jsonl, line 1"


MANY = ["a.tsv", "b/c.txt", "d.json", "e.JSONL"]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("names", "texts", "told"),
    [
        (["notes.txt"], (), "1 file(s) in {} left out: notes.txt; famcli reads .jsonl"),
        (MANY[:3], (), "3 file(s) in {} left out: a.tsv, b/c.txt, d.json; famcli reads .jsonl"),
        (MANY, (), "4 file(s) in {} left out: a.tsv, b/c.txt, d.json, ...; famcli reads .jsonl"),
        (["README.md", "b/c.MD", "LICENSE", ".hidden.txt", ".cache/x.txt", "__MACOSX/x.txt"], (), None),
        (["A.thy", "ROOT", "root.tex"], ("*.thy", "ROOT"), None),
    ],
)
def test_files_of_unknown_kinds_are_left_out_with_a_warning(
    names: list[str],
    texts: tuple[str, ...],
    told: str | None,
    zipped: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    given_path = tmp_path / "given"
    for name in names:
        (given_path / name).parent.mkdir(exist_ok=True, parents=True)
        (given_path / name).write_text("no data")
    (given_path / "rows.jsonl").write_bytes(json_lines(ROWS))
    where = str(given_path)
    if zipped:
        given_path, where = Path(shutil.make_archive(where, "zip", given_path)), "given.zip"
    open_path(given_path, texts)
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == (told is not None)
    if told:
        assert warnings[0].startswith("warning: " + told.format(where)) and "\n" not in warnings[0]


def test_a_zip_in_a_zip_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "in").mkdir()
    write_all(tmp_path / "in", ROWS)
    shutil.make_archive(str(tmp_path / "outer"), "zip", tmp_path / "in")
    assert len(rows_of(open_path(tmp_path / "outer.zip"))) == 2 * len(ROWS), "a.jsonl and b.jsonl.gz"
    assert "1 file(s) in outer.zip left out: c.zip;" in caplog.text


def test_same_data_elsewhere_is_the_same_and_other_data_is_not(tmp_path: Path) -> None:
    for folder in ("here", "there", "changed"):
        (tmp_path / folder).mkdir()
        write_all(tmp_path / folder, ROWS)
    with open(tmp_path / "changed" / "a.jsonl", "ab") as stream:
        stream.write(b"{}\n")
    here, there, changed = (open_path(tmp_path / name).provenance for name in ("here", "there", "changed"))
    assert replace(here, name="there") == there
    assert (here.source, here.name, here.revision, here.rows) == ("path", "here", None, 9)
    assert changed.sha256 != here.sha256


def test_plain_texts_are_records_where_the_task_names_them(tmp_path: Path) -> None:
    (tmp_path / "Entry").mkdir()
    (tmp_path / "Entry" / "A.thy").write_bytes("theory A\r\n∀".encode())
    (tmp_path / "Entry" / "ROOT").write_text("session")
    (tmp_path / "Entry" / "notes.tex").write_text("no data")
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "Entry")
    for path in (tmp_path / "Entry", tmp_path / "packed.zip"):
        rows = rows_of(open_path(path, texts=("*.thy", "ROOT")))
        assert [row["text"] for row in rows] == ["theory A\r\n∀", "session"]
        assert [Path(row["path"]).name for row in rows] == ["A.thy", "ROOT"]


def test_records_are_read_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(json_lines(ROWS) + b"{broken\n")
    rows = open_path(tmp_path / "rows.jsonl").rows
    assert [next(rows).fields for _ in ROWS] == ROWS
    with pytest.raises(DataError, match=r"rows\.jsonl, line 4: invalid JSON"):
        next(rows)


def broken_zip_member(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("in.jsonl", json_lines(ROWS))
    path.write_bytes(path.read_bytes().replace(b'"id": "b"', b'"id": "x"'))


def encrypted_zip(path: Path) -> None:
    """A zip whose member has the flag of encryption, in both of its headers."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("in.jsonl", json_lines(ROWS))
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


def zip_without_data(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("README.md", "no data")


BROKEN: dict[str, tuple[str, bytes | Callable[[Path], None], str]] = {
    "no object": ("x.jsonl", b"\n[1, 2]\n", "x.jsonl, line 2: must be a JSON object, not [1, 2]"),
    "no UTF-8": ("x.jsonl", b'{}\n{"a": "\xff"}', "x.jsonl, line 2: invalid JSON"),
    "half a character": ("x.jsonl", rb'{"a": "\ud800"}', "x.jsonl, line 1: invalid JSON"),
    "deep": ("x.jsonl", b'{"a":' * 100_000, "x.jsonl, line 1: invalid JSON"),
    "empty": ("x.jsonl", b"\n \n", "x.jsonl is empty"),
    "empty CSV": ("x.csv", b"id,text\n", "x.csv is empty"),
    "no gzip": ("x.jsonl.gz", b"{}", "x.jsonl.gz cannot be read"),
    "cut gzip": ("x.jsonl.gz", gzip.compress(b"{}" * 99)[:20], "x.jsonl.gz cannot be read"),
    "short row": ("x.csv", b"id,text\na,b\nc\n", "x.csv, row 2: has 1 fields, not 2"),
    "open quote": ("x.csv", b'id,text\na,"b\n', "x.csv, line 3: invalid CSV"),
    "twice a column": ("x.csv", b"id,id\na,b\n", "x.csv: two columns"),
    "no parquet": ("x.parquet", b"PAR1 no PAR1", "x.parquet is not a parquet file"),
    "no zip": ("x.zip", b"PK no", "x.zip is not a zip"),
    "broken member": ("x.zip", broken_zip_member, "x.zip:in.jsonl cannot be read"),
    "encrypted": ("x.zip", encrypted_zip, "x.zip:in.jsonl is encrypted"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_read_names_its_place(case: str, tmp_path: Path) -> None:
    name, content, message = BROKEN[case]
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        content(tmp_path / name)
    for given_path in (tmp_path / name, tmp_path):
        with pytest.raises(DataError) as raised:
            list(open_path(given_path).rows)
        assert raised.value.message.startswith(message)


@pytest.mark.parametrize("name", ["nothing", "folder", "x.txt", "x.zip"])
def test_what_is_no_data_is_an_error_with_a_way_on(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "README.md").write_text("no data")
    (tmp_path / "x.txt").write_text("no data")
    zip_without_data(tmp_path / "x.zip")
    with pytest.raises(UserError) as raised:
        open_path(tmp_path / name)
    assert name in raised.value.message
    assert raised.value.hint


@pytest.mark.parametrize("data", ["a.jsonl,", ",", "a.jsonl,,b.jsonl"])
def test_an_empty_path_is_not_the_working_directory(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_all(tmp_path, ROWS)
    with pytest.raises(UserError, match="empty path"):
        open_data("stories", data)


@pytest.mark.parametrize("data", ["a.jsonl,a.jsonl", "a.jsonl,./a.jsonl", "a.jsonl,."])
def test_records_given_twice_are_not_counted_twice(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_all(tmp_path, ROWS)
    with pytest.raises(UserError, match="given twice"):
        open_data("stories", data)


def test_linked_folders_are_read_once_even_in_a_loop(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.jsonl").write_bytes(json_lines(ROWS))
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "given" / "again").symlink_to(tmp_path / "given")
    assert [row.file for row in open_path(tmp_path / "given").rows] == ["linked/a.jsonl"] * len(ROWS)


def test_a_folder_that_cannot_be_searched_is_not_taken_for_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions do not bind a superuser, so the system's answer is made up."""
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.jsonl").write_bytes(json_lines(ROWS))
    scandir = os.scandir

    def guarded(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(UserError, match="closed cannot be read: Permission denied"):
        open_path(tmp_path)


def test_a_path_behind_a_closed_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", closed)
    with pytest.raises(UserError, match=r"a\.jsonl.* cannot be read: Permission denied"):
        open_data("stories", str(tmp_path / "a.jsonl"))
