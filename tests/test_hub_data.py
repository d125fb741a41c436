"""Data from the hub: nothing fetched unless asked for, and never a script."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest
from data_files import HUB, ROWS, rows_of, write_parquet
from famcli.tasks import hub as hub_module
from famcli.tasks.hub import fetch, find_stored
from famcli.tasks.sources import open_data

from famcli.errors import UserError

COMMIT = "0123456789abcdef0123456789abcdef01234567"

pytestmark = pytest.mark.usefixtures("offline")


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


def test_without_data_the_three_choices_are_named() -> None:
    with pytest.raises(UserError) as raised:
        open_data("stories", None, HUB)
    assert raised.value.hint
    assert all(choice in raised.value.hint for choice in ("--data sample", "--data hub", "--data PATH", HUB.repo))


def test_hub_is_fetched_when_asked_for_and_read_from_here_afterwards(repository: FakeHub) -> None:
    first = open_data("stories", "hub", HUB)
    assert rows_of(first) == ROWS
    assert first.provenance.source == "hub"
    assert (first.provenance.name, first.provenance.revision, first.provenance.rows) == (HUB.repo, COMMIT, 3)
    assert repository.revisions == [HUB.revision]
    shutil.rmtree(repository.directory)
    for data in ("hub", None):
        assert open_data("stories", data, HUB) == first
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
    assert rows_of(open_data("stories", "hub", HUB)) == ROWS


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
        "from famcli.tasks.hub import HubDataset\n"
        "from famcli.tasks.sources import open_data\n"
        f"data = open_data('stories', 'hub', {HUB!r})\n"
        "print(data.provenance.revision, [dict(row.fields) for row in data.rows])"
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
    with pytest.raises(UserError, match=r"manifest\.json (is not valid JSON|must hold|does not list y)") as raised:
        open_data("stories", None, HUB)
    assert "fetch again" in str(raised.value.hint)


def test_hub_out_of_reach_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="cannot fetch owner/stories") as raised:
        open_data("stories", "hub", HUB)
    assert "--data sample" in str(raised.value.hint)
