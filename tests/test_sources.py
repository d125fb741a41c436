"""Records: the same from every format, each with its place; nothing fetched unless asked for, and never a script."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import socket
import subprocess
import sys
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
from famcli.tasks import hub as hub_module
from famcli.tasks.hub import fetch, find_stored
from famcli.tasks.sources import SAMPLES, Dataset, HubDataset, Record, RecordError, open_records
from hypothesis import given, settings
from hypothesis import strategies as st

from famcli.errors import UserError

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
LANGUAGES = {
    "arabic": "ARABIC",
    "bengali": "BENGALI",
    "english": "LATIN",
    "indonesian": "LATIN",
    "japanese": "HIRAGANA",
    "korean": "HANGUL",
    "russian": "CYRILLIC",
    "swahili": "LATIN",
    "telugu": "TELUGU",
    "thai": "THAI",
    "turkish": "LATIN",
}
REAL = {
    "narrativeqa": "narrativeqa/narrativeqa_full_text.jsonl.gz",
    "pg19": "pg19/pg19_test_subset.jsonl.gz",
    "qasper": "qasper/qasper_hf_schema.jsonl.gz",
    "quality": "quality/quality_original_schema.jsonl.gz",
}
ROWS = [{"id": "a", "text": 'one, "two"\r\nthree'}, {"id": "b", "text": "vier – 五\u2028six"}, {"id": "c", "text": "7"}]
HUB = HubDataset("owner/stories", "refs/convert/parquet", ("data/{split}-*.parquet",), "CC BY 4.0", "Author 2020")
COMMIT = "0123456789abcdef0123456789abcdef01234567"

pytestmark = pytest.mark.usefixtures("offline")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No connection can be made, and no data has been fetched."""

    def refuse(*args: object) -> None:
        raise AssertionError(f"a connection: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("FAMCLI_DATA", str(tmp_path / "store"))


class FakeHub:
    """A repository in a directory, in place of the hub; it counts what is downloaded."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.downloads: list[str] = []
        self.commit = COMMIT
        self.fails_at: str | None = None
        self.revisions: list[str] = []

    def list_repository(self, repo: str, revision: str) -> tuple[str, list[str]]:
        self.revisions.append(revision)
        names = [file.relative_to(self.directory).as_posix() for file in self.directory.rglob("*") if file.is_file()]
        return self.commit, names

    def download(self, repo: str, commit: str, name: str, folder: Path) -> Path:
        if name == self.fails_at:
            raise UserError("the connection is lost")
        self.downloads.append(name)
        return Path(shutil.copy(self.directory / name, folder))


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(tmp_path / "repository")
    write_parquet(fake.directory / "data" / "validation-00000-of-00002.parquet", ROWS[:2])
    write_parquet(fake.directory / "data" / "validation-00001-of-00002.parquet", ROWS[2:])
    write_parquet(fake.directory / "data" / "test-00000-of-00001.parquet", ROWS)
    (fake.directory / "stories.py").write_text("raise SystemExit('a loading script was run')")
    (fake.directory / "data" / "validation-load.py").write_text("raise SystemExit('a loading script was run')")
    monkeypatch.setattr(hub_module, "_list_repository", fake.list_repository)
    monkeypatch.setattr(hub_module, "_download", fake.download)
    return fake


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def json_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def write_all(folder: Path, rows: list[dict[str, Any]]) -> list[Path]:
    """The rows as JSONL, JSONL.gz, and in a zip."""
    content = json_lines(rows)
    (folder / "a.jsonl").write_bytes(content)
    with gzip.open(folder / "b.jsonl.gz", "wb") as stream:
        stream.write(content)
    with zipfile.ZipFile(folder / "c.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README.md", "no data")
        archive.writestr("__MACOSX/inner.jsonl", "no data")
        archive.writestr("folder/inner.jsonl", content)
    return [folder / "a.jsonl", folder / "b.jsonl.gz", folder / "c.zip"]


def open_path(path: Path, texts: tuple[str, ...] = ()) -> Dataset:
    return open_records("stories", str(path), HUB, texts)


def rows_of(dataset: Dataset) -> list[Any]:
    return [record.fields for record in dataset.records]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.dictionaries(st.text(max_size=5), json_values, max_size=4), min_size=1, max_size=4))
def test_json_lines_are_the_same_plain_gzipped_and_zipped(
    rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    opened = [open_path(path) for path in write_all(tmp_path_factory.mktemp("data"), rows)]
    for dataset in opened:
        assert rows_of(dataset) == rows
        assert rows_of(dataset) == rows, "records can be read again"
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
        assert [record.where for record in dataset.records] == [f"{label}, row {n}" for n in (1, 2, 3)]
        assert dataset.provenance.rows == 3
    zipped, plain = (open_path(tmp_path / name).provenance for name in ("rows.zip", "rows.parquet"))
    assert zipped.sha256 == plain.sha256


@pytest.mark.parametrize("task", ["narrativeqa", "qasper", "quality", "pg19"])
def test_nested_rows_survive_parquet(task: str, tmp_path: Path) -> None:
    rows = rows_of(open_records(task, "sample"))
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
    records = list(open_path(tmp_path).records)
    assert [record.file for record in records] == [record.fields["name"] for record in records] == names
    assert records[2].where == "b/2.jsonl, line 1"


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
    records = open_path(tmp_path / "rows.jsonl").records
    assert [next(records).fields for _ in ROWS] == ROWS
    with pytest.raises(RecordError, match=r"rows\.jsonl, line 4: invalid JSON"):
        next(records)


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
        with pytest.raises(RecordError) as raised:
            list(open_path(given_path).records)
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
        open_records("stories", data)


@pytest.mark.parametrize("data", ["a.jsonl,a.jsonl", "a.jsonl,./a.jsonl", "a.jsonl,."])
def test_records_given_twice_are_not_counted_twice(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_all(tmp_path, ROWS)
    with pytest.raises(UserError, match="given twice"):
        open_records("stories", data)


def test_linked_folders_are_read_once_even_in_a_loop(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.jsonl").write_bytes(json_lines(ROWS))
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "given" / "again").symlink_to(tmp_path / "given")
    assert [row.file for row in open_path(tmp_path / "given").records] == ["linked/a.jsonl"] * len(ROWS)


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
    with pytest.raises(UserError, match=r"a\.jsonl cannot be read: Permission denied"):
        open_records("stories", str(tmp_path / "a.jsonl"))


def record(**fields: Any) -> Record:
    return Record(fields, "x.jsonl, line 3", "x.jsonl")


def test_fields_are_reached_by_dotted_names() -> None:
    row = record(document={"text": " a ", "summary": {"title": "t"}}, n=3, digits="-4", yes=False, tags=["a", ""])
    assert row.text("document.text") == " a "
    assert row.record("document").record("summary").text("title") == "t"
    assert (row.integer("n"), row.integer("digits"), row.flag("yes")) == (3, -4, False)
    assert row.texts("tags", blank=True) == row.items("tags") == ["a", ""]
    assert row.has("document.summary") and not row.has("document.url") and not row.has("n.of")
    assert row.optional("document.summary.title") == "t" and row.optional("nothing") is None


def test_lists_of_objects_and_objects_of_lists_are_the_same() -> None:
    as_list = record(qas=[{"q": "a", "n": [1]}, {"q": "b", "n": [2]}])
    as_lists = record(qas={"q": ["a", "b"], "n": [[1], [2]]})
    assert [row.fields for row in as_list.records("qas")] == [row.fields for row in as_lists.records("qas")]
    assert record(qas={}).records("qas") == record(qas=[]).records("qas") == []


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda r: r.text("title"), "field 'title' is missing"),
        (lambda r: r.text("null"), "field 'null' is missing"),
        (lambda r: r.text("blank"), "field 'blank' is empty"),
        (lambda r: r.text("n"), "field 'n' must be text, not a whole number"),
        (lambda r: r.integer("yes"), "field 'yes' must be a whole number, not true or false"),
        (lambda r: r.integer("half"), "field 'half' must be a whole number, not a number"),
        (lambda r: r.flag("n"), "field 'n' must be true or false, not a whole number"),
        (lambda r: r.items("blank"), "field 'blank' must be a list, not text"),
        (lambda r: r.texts("list"), "field 'list[1]' must be text, not null"),
        (lambda r: r.records("list"), "field 'list[0]' must be an object, not text"),
        (lambda r: r.records("uneven"), "field 'uneven' holds lists of different lengths: a 1, b 0"),
        (lambda r: r.records("nested")[1].text("q"), "field 'nested[1].q' is missing"),
        (lambda r: r.records("nested")[0].record("in").integer("x"), "field 'nested[0].in.x' is missing"),
        (lambda r: r.fail("list", "must hold 4 texts"), "field 'list' must hold 4 texts"),
    ],
)
def test_field_that_does_not_fit_is_named_with_its_place(read: Callable[[Record], object], message: str) -> None:
    row = record(
        null=None,
        blank=" ",
        n=1,
        yes=True,
        half=0.5,
        list=["a", None],
        uneven={"a": [1], "b": []},
        nested=[{"q": "a", "in": {}}, {}],
    )
    with pytest.raises(RecordError) as raised:
        read(row)
    assert raised.value.message == f"x.jsonl, line 3: {message}"


def test_without_data_the_three_choices_are_named() -> None:
    with pytest.raises(UserError) as raised:
        open_records("stories", None, HUB)
    assert raised.value.hint
    assert all(choice in raised.value.hint for choice in ("--data sample", "--data hub", "--data PATH", HUB.repo))


def test_hub_is_fetched_when_asked_for_and_read_from_here_afterwards(repository: FakeHub) -> None:
    first = open_records("stories", "hub", HUB)
    assert rows_of(first) == ROWS
    assert first.provenance.source == "hub"
    assert (first.provenance.name, first.provenance.revision, first.provenance.rows) == (HUB.repo, COMMIT, 3)
    assert repository.revisions == [HUB.revision]
    shutil.rmtree(repository.directory)
    for data in ("hub", None):
        assert open_records("stories", data, HUB) == first
    assert len(repository.revisions) == 1


def test_loading_script_is_never_downloaded(repository: FakeHub) -> None:
    fetch(replace(HUB, files=("*.parquet",)))
    assert len(repository.downloads) == 3
    assert not list(HUB.directory.rglob("*.py"))
    for pattern in ("stories.py", "*", "data/*"):
        with pytest.raises(ValueError, match="not a pattern of data files"):
            replace(HUB, files=(pattern,))


def test_manifest_says_what_was_fetched(repository: FakeHub) -> None:
    stored = fetch(HUB)
    manifest = json.loads((HUB.directory / "manifest.json").read_text())
    assert (manifest["repo"], manifest["revision"], manifest["commit"]) == (HUB.repo, HUB.revision, COMMIT)
    assert [file["rows"] for file in manifest["files"].values()] == [2, 1]
    for name, facts in manifest["files"].items():
        assert hub_module._sha256(repository.directory / name) == facts["sha256"]
        assert (HUB.directory / name).stat().st_size == facts["bytes"]
    assert stored == find_stored(HUB)


def test_second_split_is_fetched_at_the_commit_of_the_first(repository: FakeHub) -> None:
    fetch(HUB)
    repository.commit = "f" * 40
    assert find_stored(replace(HUB, split="test")) is None
    repository.commit = COMMIT
    assert fetch(replace(HUB, split="test")).rows == 3
    assert repository.revisions == [HUB.revision, COMMIT]
    assert fetch(HUB).rows == 3
    assert len(repository.downloads) == 3


def test_broken_fetch_leaves_nothing_half_and_can_be_repeated(repository: FakeHub) -> None:
    repository.fails_at = "data/validation-00001-of-00002.parquet"
    with pytest.raises(UserError, match="connection is lost"):
        fetch(HUB)
    assert find_stored(HUB) is None
    assert not [path for path in HUB.directory.rglob(".*") if path.exists()]
    repository.fails_at = None
    assert rows_of(open_records("stories", "hub", HUB)) == ROWS


def test_stored_file_that_was_changed_is_fetched_again(repository: FakeHub) -> None:
    file = HUB.directory / "data" / "validation-00001-of-00002.parquet"
    fetch(HUB)
    content = file.read_bytes()
    file.write_bytes(bytes(len(content)))
    fetch(HUB)
    assert file.read_bytes() == content
    file.unlink()
    assert find_stored(HUB) is None


class HubServer(BaseHTTPRequestHandler):
    """The two answers of the hub that a fetch needs, for a repository with one parquet file and a script."""

    content = b""
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/api/datasets/owner/stories/revision/refs%2Fconvert%2Fparquet"):
            files = [{"rfilename": name} for name in ("stories.py", "data/validation-0.parquet")]
            body = json.dumps({"id": "owner/stories", "sha": COMMIT, "siblings": files}).encode()
        elif self.path == f"/datasets/owner/stories/resolve/{COMMIT}/data/validation-0.parquet":
            body = self.content
        else:
            return self.send_error(404)
        self.send_response(200)
        for name, value in {"ETag": '"e"', "X-Repo-Commit": COMMIT, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None: ...


def test_fetch_asks_the_hub_for_its_list_and_its_data_alone(tmp_path: Path) -> None:
    write_parquet(tmp_path / "rows.parquet", ROWS)
    HubServer.content = (tmp_path / "rows.parquet").read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), HubServer)
    Thread(target=server.serve_forever, daemon=True).start()
    environment = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_DISABLE_XET": "1"}
    code = (
        "from famcli.tasks.sources import HubDataset, open_records\n"
        f"data = open_records('stories', 'hub', {HUB!r})\n"
        "print(data.provenance.revision, [dict(record.fields) for record in data.records])"
    )
    try:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    finally:
        server.shutdown()
        server.server_close()
    assert done.stdout == f"{COMMIT} {ROWS}\n"
    asked = {path.rpartition("/")[2].partition("?")[0] for path in HubServer.asked if "/owner/stories/" in path}
    assert asked == {"refs%2Fconvert%2Fparquet", "validation-0.parquet"}


def test_data_that_is_no_longer_there_names_what_is(repository: FakeHub) -> None:
    with pytest.raises(UserError, match=r"has no file data/train-\*\.parquet") as raised:
        fetch(replace(HUB, split="train"))
    assert "data/test-00000-of-00001.parquet" in str(raised.value.hint)
    assert "stories.py" not in str(raised.value.hint)


@pytest.mark.parametrize("content", ["{", "[]", '{"commit": "a", "patterns": {"x": ["y"]}, "files": {}}'])
def test_broken_manifest_is_told(content: str) -> None:
    HUB.directory.mkdir(parents=True)
    (HUB.directory / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json cannot be read"):
        open_records("stories", None, HUB)


def test_hub_out_of_reach_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="cannot fetch owner/stories") as raised:
        open_records("stories", "hub", HUB)
    assert "--data sample" in str(raised.value.hint)


@pytest.mark.parametrize("task", ["narrativeqa", "pg19", "qasper", "quality", "xlsum", "isabelle"])
def test_sample_opens_is_small_and_ours(task: str) -> None:
    dataset = open_records(task, "sample", texts=("*.thy", "ROOT"))
    assert dataset.provenance.source == "sample"
    assert dataset.provenance.rows == len(rows_of(dataset)) >= 2
    content = "".join(json.dumps(row) for row in rows_of(dataset))
    assert content.count("http") == content.count("https://example.org")


def test_samples_together_are_small() -> None:
    assert sum(file.stat().st_size for file in SAMPLES.rglob("*") if file.is_file()) < 120_000


def schema(value: Any) -> Any:
    """Names of all fields, with nested objects; of the objects of a list those that all have."""
    if isinstance(value, dict):
        return {name: schema(inner) for name, inner in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [{name: schema(inner) for name, inner in value[0].items()}]
    return None


@pytest.mark.skipif(not SHARED.exists(), reason="needs real records")
@pytest.mark.parametrize("task", REAL)
def test_samples_have_the_fields_of_real_records(task: str) -> None:
    real = schema(rows_of(open_path(SHARED / REAL[task]))[0])
    for row in rows_of(open_records(task, "sample")):
        ours = schema(row)
        if task == "quality":  # the real ones at hand lack the untimed answers
            ours["questions"][0].pop("validation")
            ours["questions"][0].pop("speed_validation")
            real["questions"][0].pop("speed_validation", None)
        assert ours == real


@pytest.mark.skipif(not SHARED.exists(), reason="needs real records")
def test_real_files_are_read_in_full() -> None:
    def lines(path: Path) -> Iterator[bytes]:
        with gzip.open(path) as stream:
            yield from stream

    for path in (SHARED / REAL["pg19"], SHARED / REAL["qasper"], SHARED / "isabelle" / "isabelle_afp.jsonl.gz"):
        assert rows_of(open_path(path)) == [json.loads(line) for line in lines(path)]


def test_xlsum_sample_has_the_languages_of_the_paper_in_their_scripts() -> None:
    found: dict[str, list[Record]] = {}
    for row in open_records("xlsum", "sample").records:
        found.setdefault(Path(row.file).stem, []).append(row)
    assert set(found) == set(LANGUAGES)
    for language, rows in found.items():
        for row in rows:
            assert set(row.fields) == {"id", "url", "title", "summary", "text"}
            for name in ("title", "summary", "text"):
                letters = [unicodedata.name(sign).split()[0] for sign in row.text(name) if sign.isalpha()]
                expected = {LANGUAGES[language]} | ({"KATAKANA", "CJK"} if language == "japanese" else set())
                assert sum(letter in expected for letter in letters) > 0.9 * len(letters)


def test_quality_sample_fits_its_own_rules() -> None:
    for row in open_records("quality", "sample").records:
        for question in row.records("questions"):
            assert len(set(question.texts("options"))) == 4
            assert 1 <= question.integer("gold_label") <= 4
            assert question.integer("difficult") in (0, 1)


def test_qasper_sample_has_all_kinds_of_answers_and_its_evidence_stands_in_the_paper() -> None:
    kinds = set()
    for row in open_records("qasper", "sample").records:
        paragraphs = [text for section in row.items("full_text.paragraphs") for text in section]
        for question in row.records("qas"):
            for answer in question.record("answers").records("answer"):
                kinds |= {
                    name for name in ("unanswerable", "extractive_spans", "free_form_answer") if answer.fields[name]
                }
                kinds |= {"yes_no"} if answer.has("yes_no") else set()
                assert set(answer.texts("evidence")) <= set(paragraphs)
                assert all(any(span in text for text in paragraphs) for span in answer.texts("extractive_spans"))
    assert kinds == {"unanswerable", "extractive_spans", "free_form_answer", "yes_no"}
