"""What is written takes the place of files alone, through links; devices, pipes and directories stay what they are."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from famcli.errors import UserError
from famcli.files import append, move, save_tensors, temporary_files, write_text

Write = Callable[[Path], Any]


def moved(path: Path) -> None:
    source = path.parent / "source"
    source.write_text("new")
    move(source, path)


WAYS: dict[str, tuple[Write, Callable[[Path], Any]]] = {
    "text": (lambda path: write_text(path, "new"), lambda path: path.read_text() == "new"),
    "tensors": (
        lambda path: save_tensors({"a": torch.ones(3)}, path),
        lambda path: torch.equal(load_file(path)["a"], torch.ones(3)),
    ),
    "moved": (moved, lambda path: path.read_text() == "new"),
}
"""How files are replaced, and whether one was."""
EVERY = pytest.mark.parametrize("way", WAYS)
APPENDED = {**WAYS, "appended": (lambda path: append(path, b"new"), lambda path: path.read_text().endswith("new"))}
ALL = pytest.mark.parametrize("way", APPENDED)


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Any:
    yield
    assert not [path for path in tmp_path.rglob(".*") if path.name.endswith(".tmp")]


@ALL
@pytest.mark.parametrize("target", ["there", "new"])
@pytest.mark.parametrize("links", [1, 3])
def test_links_are_written_through(tmp_path: Path, way: str, target: str, links: int) -> None:
    write, written = APPENDED[way]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    file = elsewhere / "file"
    if target == "there":
        file.write_text("old")
    path: Path = file
    for i in range(links):  # relative to where the link is, and whole
        link = tmp_path / f"link{i}"
        link.symlink_to(os.path.relpath(path, tmp_path) if i % 2 else path)
        path = link
    write(path)
    assert path.is_symlink() and not file.is_symlink() and written(file)
    assert [*elsewhere.iterdir()] == [file]


@ALL
def test_a_linked_folder_is_written_into(tmp_path: Path, way: str) -> None:
    write, written = APPENDED[way]
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder", target_is_directory=True)
    write(tmp_path / "link" / ".." / "link" / "file")
    assert (tmp_path / "link").is_symlink() and written(tmp_path / "folder" / "file")


@ALL
@pytest.mark.parametrize("kind", ["directory", "link to a directory", "link", "folder", "circle", "file above"])
def test_what_cannot_be_written_to_is_refused_by_name(tmp_path: Path, way: str, kind: str) -> None:
    path = tmp_path / "name"
    reason = {"directory": "Is a directory", "link to a directory": "Is a directory", "link": "no such folder"}.get(
        kind
    )
    if kind == "directory":
        path.mkdir()
    elif kind == "link to a directory":
        (tmp_path / "there").mkdir()
        path.symlink_to("there", target_is_directory=True)
    elif kind == "link":
        path.symlink_to(tmp_path / "missing" / "file")
    elif kind == "folder":
        path.symlink_to(tmp_path / "missing", target_is_directory=True)
        path, reason = path / "file", "is a link to nothing"
    elif kind == "circle":
        path.symlink_to("name")
        reason = "circle"
    else:
        path.write_text("a file")
        path, reason = path / "file", "is no directory"
    if way == "moved" and kind in ("folder", "file above"):
        pytest.skip("its source stands beside it")
    with pytest.raises(UserError, match=f"^cannot write {path}: .*{reason}"):
        APPENDED[way][0](path)
    assert not (tmp_path / "missing").exists()


@ALL
def test_pipes_are_written_to(tmp_path: Path, way: str) -> None:
    pipe, copy = tmp_path / "pipe", tmp_path / "copy"
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: copy.write_bytes(pipe.read_bytes()))
    reader.start()
    APPENDED[way][0](pipe)
    reader.join()
    assert stat.S_ISFIFO(pipe.stat().st_mode) and APPENDED[way][1](copy)


@ALL
def test_devices_are_written_to(tmp_path: Path, way: str) -> None:
    """A terminal, made here: never a device of the machine."""
    ours, theirs = os.openpty()
    link = tmp_path / "device"
    link.symlink_to(os.ttyname(theirs))
    before = os.stat(link)
    APPENDED[way][0](link)
    assert os.read(ours, 10_000).startswith(b"new") or way == "tensors"
    assert stat.S_ISCHR(os.stat(link).st_mode) and os.stat(link).st_ino == before.st_ino and link.is_symlink()
    os.close(ours)
    os.close(theirs)


@ALL
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux alone has it")
@pytest.mark.parametrize("place", ["/proc/self/fd", "/dev/fd"])
def test_descriptors_go_on_where_they_stand(tmp_path: Path, way: str, place: str) -> None:
    """As standard output does that a shell has led into a file."""
    file, copy = tmp_path / "file", tmp_path / "copy"
    with open(file, "wb") as stream:
        stream.write(b"before")
        stream.flush()
        if way == "moved":
            (tmp_path / "source").write_text("new")
            move(tmp_path / "source", Path(place, str(stream.fileno())))
        else:
            APPENDED[way][0](Path(place, str(stream.fileno())))
        stream.write(b"after")
    content = file.read_bytes()
    assert content.startswith(b"before") and content.endswith(b"after")
    copy.write_bytes(content[len(b"before") : -len(b"after")])
    assert APPENDED[way][1](copy)


@EVERY
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755, 0o666])
def test_the_mode_of_what_is_replaced_stays(tmp_path: Path, way: str, mode: int) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(mode)
    WAYS[way][0](path)
    assert stat.S_IMODE(path.stat().st_mode) == mode and WAYS[way][1](path)


@EVERY
@pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives files away")
def test_the_owner_of_what_is_replaced_stays(tmp_path: Path, way: str) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    os.chown(path, 12345, 54321)
    WAYS[way][0](path)
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)


@ALL
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_new_files_have_the_mode_that_the_user_lets_them_have(tmp_path: Path, way: str, mask: int) -> None:
    old = os.umask(mask)
    try:
        APPENDED[way][0](tmp_path / "folder" / "file") if way != "moved" else moved(tmp_path / "file")
    finally:
        os.umask(old)
    (path,) = (p for p in tmp_path.rglob("file") if p.is_file())
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


@EVERY
def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=f"cannot write {path}: No space left"):
        WAYS[way][0](path)
    assert path.read_text() == "old"


def test_names_as_long_as_names_may_be(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250)
    write_text(path, "new")
    assert path.read_text() == "new" and temporary_files(path) == []


@pytest.mark.parametrize("kind", ["file", "folder", "chain"])
def test_links_do_not_lead_out_of_a_directory(tmp_path: Path, kind: str) -> None:
    results, outside = tmp_path / "results", tmp_path / "outside"
    (results / "run").mkdir(parents=True)
    outside.mkdir()
    (outside / "file").write_text("mine")
    if kind == "folder":
        (results / "run").rmdir()
        (results / "run").symlink_to(outside, target_is_directory=True)
    elif kind == "chain":
        (results / "in").symlink_to(outside / "file")
        (results / "run" / "file").symlink_to("../in")
    else:
        (results / "run" / "file").symlink_to("../../outside/file")
    for write in (
        lambda: write_text(results / "run" / "file", "new", within=results),
        lambda: append(results / "run" / "file", b"new", within=results),
    ):
        with pytest.raises(UserError, match=f"cannot write {results}/run/file: it leads to {outside}/file, outside of"):
            write()
    assert (outside / "file").read_text() == "mine"
    (results / "run" / "inner").symlink_to("../inner")  # within it may lead anywhere
    if kind != "folder":
        write_text(results / "run" / "inner", "new", within=results)
        assert (results / "inner").read_text() == "new"
