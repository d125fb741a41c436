"""The journal under every kind of interruption, and the claim on a run's directory."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from famcli.claim import claim, is_claimed
from famcli.errors import UserError
from famcli.evaluation.journal import JOURNAL_NAME, Entry, Journal

ENTRY = Entry(
    id="1024/start/000",
    cell={"length": 1024, "position": "start"},
    details={"depth": 0.0},
    document="",
    prompt_sha256="0" * 64,
    prompt_tokens=1014,
    output=" 01234.\nThe ñandú 草\u2028\r\x00\ufffd",
    shared_tokens=0,
    option_tokens=0,
    cut_tokens=0,
    requests=1,
    answer={"token_ids": [32, 48]},
    reference="01234",
    scores={"accuracy": 1.0},
    weights={},
    seconds=0.25,
    state_bytes=4096,
    peak_memory_bytes=2**31,
)
ENTRIES = [replace(ENTRY, id=f"1024/start/{i:03}") for i in range(3)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / JOURNAL_NAME


@given(st.text(), st.floats(-1e100, 1e100), st.lists(st.integers(0, 2**31)))
def test_an_entry_survives_its_line(output: str, score: float, ids: list[int]) -> None:
    output = output.encode(errors="replace").decode()  # a decoder's text has no lone surrogates
    entry = replace(ENTRY, output=output, scores={"accuracy": score}, answer={"token_ids": ids})
    line = entry.to_line()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert Entry.from_line(line, "here") == entry


def test_entries_are_kept_in_order_of_completion(path: Path) -> None:
    journal = Journal(path)
    journal.append(ENTRIES[2:])
    journal.append(ENTRIES[:2])
    assert [*Journal(path).entries.values()] == [ENTRIES[2], ENTRIES[0], ENTRIES[1]] == [*journal.entries.values()]


def test_a_torn_last_line_is_dropped_wherever_it_was_torn(path: Path) -> None:
    whole = b"".join(entry.to_line() for entry in ENTRIES[:2])
    torn = ENTRIES[2].to_line()
    for length in range(len(torn)):
        path.write_bytes(whole + torn[:length])
        journal = Journal(path)
        assert [*journal.entries] == [entry.id for entry in ENTRIES[:2]]
        assert path.read_bytes() == whole
    journal.append([ENTRIES[2]])
    assert [*Journal(path).entries.values()] == ENTRIES


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (b"\x00" * 40, "is not valid JSON"),
        (b'{"id": "1024', "is not valid JSON"),
        (b"[]", "must be a mapping of fields"),
        (ENTRY.to_line().replace(b'"seconds"', b'"second"').strip(), "lacks the field 'seconds'"),
        (ENTRY.to_line().replace(b'"output": "', b'"output": 1, "x": "').strip(), "field 'output' must be text, not 1"),
        (replace(ENTRY, scores={}).to_line().strip(), "has no scores"),
        (replace(ENTRY, scores={"accuracy": None}).to_line().strip(), "'scores.accuracy' must be a number"),  # type: ignore[dict-item]
        (replace(ENTRY, weights={"accuracy": "1"}).to_line().strip(), "'weights.accuracy' must be a number"),  # type: ignore[dict-item]
        (ENTRIES[0].to_line().strip(), "sample 1024/start/000 is there twice"),
    ],
)
def test_a_damaged_line_is_named_and_nothing_is_changed(path: Path, damage: bytes, reason: str) -> None:
    content = ENTRIES[0].to_line() + damage + b"\n" + ENTRIES[1].to_line() + b"torn"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{JOURNAL_NAME}, line 2.* {reason}"):
        Journal(path)
    assert path.read_bytes().startswith(content[: -len(b"torn")])


def test_a_full_disk_is_explained(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=f"cannot write {path}: No space left") as error:
        Journal(path).append([ENTRY])
    assert "continues the run" in str(error.value.hint)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    directory = tmp_path / "results" / "run"
    with claim(directory, fresh=False):
        for fresh in (False, True):
            with (
                pytest.raises(UserError, match=f"another process is working on the run {directory}"),
                claim(directory, fresh),
            ):
                pytest.fail("two claims at once")
    with claim(directory, fresh=False):
        pass
    assert not directory.exists()  # nothing was written there


def test_a_killed_process_leaves_no_claim(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from famcli.claim import claim\n"
        "with claim(Path(sys.argv[1]), False): os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)])
    assert killed.returncode == -9
    assert [*tmp_path.iterdir()]  # the file of the lock stays, the lock itself does not
    with claim(tmp_path, fresh=False):
        pass


def test_starting_fresh_keeps_everything_old(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    for content in ("first", "second", "third"):
        with claim(directory, fresh=True):
            assert [path.name for path in directory.iterdir()] == ["lock"]
            (directory / JOURNAL_NAME).write_text(content)
    kept = {path.parent.name: path.read_text() for path in tmp_path.rglob(JOURNAL_NAME)}
    assert kept == {"run.old-1": "first", "run.old-2": "second", "run": "third"}
    assert not [*tmp_path.rglob("lock")]


def test_results_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    with (
        pytest.raises(UserError, match=f"cannot write results to {tmp_path}/results/run"),
        claim(tmp_path / "results" / "run", fresh=False),
    ):
        pytest.fail("claimed a file")


def test_appending_reaches_the_disk_before_it_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    Journal(path).append(ENTRIES)
    assert synced == [sum(len(entry.to_line()) for entry in ENTRIES)]


def test_a_claim_is_seen_from_outside_and_looking_hinders_nobody(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    assert not is_claimed(directory)
    with claim(directory, fresh=False):
        assert is_claimed(directory)
    assert not is_claimed(directory)
    directory.mkdir()
    (directory / "lock").touch()
    assert not is_claimed(directory), "what a killed process left"
    looking = os.open(directory / "lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    ends = threading.Timer(0.05, os.close, [looking])
    ends.start()
    with claim(directory, fresh=False):
        assert is_claimed(directory)
    ends.join()


def shorten(path: Path, lines: int, torn: int = 0) -> None:
    kept = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(kept[:lines]) + (kept[lines][:torn] if torn else b""))


MEDDLING: dict[str, Callable[[Path], object]] = {
    "emptied": lambda path: shorten(path, 0),
    "a line short": lambda path: shorten(path, 1),
    "torn": lambda path: shorten(path, 1, torn=9),
    "longer": lambda path: path.write_bytes(path.read_bytes() + ENTRIES[2].to_line()),
    "deleted": lambda path: path.unlink(),
    "as long": lambda path: path.write_bytes(path.read_bytes().replace(b"1", b"2")),
}


@pytest.mark.parametrize("how", MEDDLING)
def test_a_file_that_somebody_changed_is_no_whole_journal(path: Path, how: str) -> None:
    journal = Journal(path)
    journal.append(ENTRIES[:2])
    journal.check()
    MEDDLING[how](path)
    before = path.read_bytes() if path.exists() else b""
    with pytest.raises(UserError, match=str(path)) as error:
        journal.check()
    assert "asks again what is missing" in str(error.value.hint)
    if how != "as long":
        with pytest.raises(UserError, match="was changed by somebody else"):
            journal.append(ENTRIES[2:])
        assert (path.read_bytes() if path.exists() else b"") == before, "nothing is written behind what is torn"
