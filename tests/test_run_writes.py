"""Where a run writes: in its own directory alone, whole lines and whole files, on a full disk as well."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from asked_samples import Asks
from famcli.tasks.passkey import PassKey
from small_runs import journal_without_times, small_model, without_times

from famcli.claim import claim
from famcli.cli.main import main
from famcli.errors import UserError
from famcli.evaluation import stream
from famcli.evaluation.runner import evaluate
from famcli.task import Read, Sample


def passkey() -> PassKey:
    return PassKey.from_options({"lengths": "400,512", "trials": "3"})


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The disk is full where a file has so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def document() -> Asks:
    text = "once upon a time " * 20
    return Asks([Sample("x", {}, "", lambda: Read(text), lambda answer: {"length": len(answer.hits)}, document="x")])


@pytest.mark.parametrize("name", ["run.json", "samples.jsonl", "state.safetensors", "lock", "."])
@pytest.mark.parametrize("there", [True, False])
def test_links_in_a_run_lead_no_write_elsewhere(
    tmp_path: Path, name: str, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results may be somebody else's. A run that is not finished, with a link in the place of a file."""
    monkeypatch.setattr(stream, "KEEP_EVERY", 4)
    run = evaluate(small_model(), document(), results=tmp_path / "made").path.name
    results, outside = tmp_path / "results", tmp_path / "outside"
    results.mkdir()
    outside.mkdir()
    if there:
        for file in ("run.json", "samples.jsonl", "state.safetensors", "lock"):
            (outside / file).write_text("" if file != "run.json" else (tmp_path / "made" / run / file).read_text())
        rewrite_status(outside / "run.json")
    if name == ".":
        (results / run).symlink_to(outside, target_is_directory=True)
    else:
        (results / run).mkdir()
        (results / run / name).symlink_to(outside / name)
    before = {path.name: path.read_bytes() for path in outside.iterdir()}
    for fresh in (False, True) if name == "." else (False,):
        if name == "state.safetensors" and there:  # it is of no use, and makes room for another
            evaluate(small_model(), document(), results=results)
            continue
        with pytest.raises(UserError, match=f"{results / run}.*( is missing|outside of|: )"):
            evaluate(small_model(), document(), results=results, fresh=fresh)
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == before


def rewrite_status(file: Path) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), "status": "running", "finished": None}))


@pytest.mark.parametrize("name", ["samples.jsonl", "lock", "run.json"])
@pytest.mark.parametrize("kind", ["pipe", "directory"])
def test_what_stands_in_the_place_of_a_file_of_a_run_is_named(tmp_path: Path, name: str, kind: str) -> None:
    whole = evaluate(small_model(), passkey(), results=tmp_path / "whole")
    directory = tmp_path / "results" / whole.path.name
    directory.mkdir(parents=True)
    os.mkfifo(directory / name) if kind == "pipe" else (directory / name).mkdir()
    with pytest.raises(UserError, match=f"(cannot (read|write)|cannot write results to) .*{directory}"):
        evaluate(small_model(), passkey(), results=tmp_path / "results")
    if name != "lock" or kind == "directory":
        again = (
            evaluate(small_model(), passkey(), results=tmp_path / "results", fresh=True) if name != "lock" else whole
        )
        assert without_times(again) == without_times(whole)


@pytest.mark.parametrize("size", [300, 1_000, 2_000, 3_000])
def test_a_disk_that_is_full_in_a_line_leaves_whole_lines(tmp_path: Path, size: int) -> None:
    whole = evaluate(small_model(), passkey(), results=tmp_path / "whole", batch_size=2)
    directory = tmp_path / "results" / whole.path.name
    with (
        files_of_at_most(size),
        pytest.raises(UserError, match=f"cannot write {directory}/.*: File too large") as error,
    ):
        evaluate(small_model(), passkey(), results=tmp_path / "results", batch_size=2)
    assert "it continues the run" in str(error.value.hint)
    journal = directory / "samples.jsonl"
    content = journal.read_bytes() if journal.exists() else b""
    assert not content or content.endswith(b"\n")
    assert not [path for path in directory.glob("*") if path.suffix == ".tmp" or path.name == "lock"]
    again = evaluate(small_model(), passkey(), results=tmp_path / "results", batch_size=2)
    assert without_times(again) == without_times(whole)
    assert journal_without_times(journal) == journal_without_times(whole.path / "samples.jsonl")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


SHAPE = {"vocab_size": 257, "width": 16, "layers": 1, "heads": 2, "kv_heads": 1, "head_width": 8, "ffn_width": 16}
RECIPE: dict[str, Any] = {
    "seed": 1,
    "model": {**SHAPE, "attention": "fam", "block_size": 16, "fam_length": 2},
    "checkpoint_every": 2,
    "log_every": 3,  # a checkpoint in the middle of what a line of the log is about
}


def train(output: str, *args: str, steps: int = 6) -> int:
    phase = {"steps": steps, "mixture": {"passkey": 2}, "blocks": 2, "learning_rate": 0.05}
    Path("how.yaml").write_text(json.dumps({**RECIPE, "phases": [phase]}))  # which is YAML as well
    return main(["train", "--recipe", "how.yaml", "--device", "cpu", "--output", output, *args])


def weights_of(directory: str) -> bytes:
    return Path(directory, "model.safetensors").read_bytes()


def log_of(directory: str) -> list[str]:
    """Without the times."""
    lines = [line.split(",") for line in Path(directory, "log.csv").read_text().splitlines()]
    timed = [lines[0].index(name) for name in ("seconds", "tokens_per_second")]
    return [",".join(cell for i, cell in enumerate(line) if i not in timed) for line in lines]


@pytest.mark.usefixtures("folder")
def test_a_disk_that_is_full_in_a_checkpoint_keeps_the_one_before(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("whole") == 0
    size = Path("whole/checkpoint.safetensors").stat().st_size
    with files_of_at_most(size // 2):
        assert train("full") == 2
    said = capsys.readouterr().err
    assert "error: cannot write full/checkpoint.safetensors: " in said and "File too large" in said
    assert "repeat the command with --resume" in said
    assert not Path("full").exists()  # nothing was written
    assert train("full", steps=2) == 0
    kept = Path("full/checkpoint.safetensors").read_bytes()
    with files_of_at_most(size // 2):
        assert train("full", "--resume") == 2
    assert Path("full/checkpoint.safetensors").read_bytes() == kept
    assert train("full", "--resume") == 0
    assert weights_of("full") == weights_of("whole")
    assert log_of("full")[-1] == log_of("whole")[-1]


@pytest.mark.usefixtures("folder")
def test_the_log_of_a_killed_training_is_that_of_a_whole_one() -> None:
    """Killed while it wrote a line, and again after a checkpoint between two lines."""
    assert train("whole") == 0
    assert train("killed", steps=4) == 0
    log = Path("killed/log.csv")
    assert [line.split(",")[0] for line in log_of("killed")] == ["step", "3", "4"]
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:2]) + b"4,1.0,8")
    # The line of step 4, where the shorter recipe ended, was none of the whole one.
    assert train("killed", "--resume") == 0
    assert (
        [line.split(",")[0] for line in log_of("killed")]
        == ["step", "3", "6"]
        == [line.split(",")[0] for line in log_of("whole")]
    )
    assert weights_of("killed") == weights_of("whole")


@pytest.mark.usefixtures("folder")
def test_a_damaged_log_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("out") == 0
    for content in (b"step\nx\n", b"\xff\n", b"stop\n1\n"):
        Path("out/log.csv").write_bytes(content)
        assert train("out", "--resume") == 2
        assert "error: out/log.csv is damaged" in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_one_training_at_a_time_in_a_directory(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("out") == 0
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    with claim(Path("out")):
        for more in ([], ["--resume"]):
            assert train("out", *more) == 2
            said = capsys.readouterr().err
            assert f"another process is working on the run out: process {os.getpid()} on " in said
            assert "wait for it to end, then repeat the command" in said
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before


def test_what_killed_writers_left_goes_when_the_run_goes_on(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from famcli.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as file:\n"
        "    file.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    directory = tmp_path / "run"
    for name in ("run.json", "state.safetensors"):
        assert subprocess.run([sys.executable, "-c", code, str(directory / name)]).returncode == -signal.SIGKILL
    kept = directory / ".notes.tmp"
    kept.write_text("mine")
    assert len([*directory.iterdir()]) == 3
    with claim(directory):
        assert sorted(path.name for path in directory.iterdir()) == [".notes.tmp", "lock"]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("damage", ["half", "pipe", "directory", "place"])
def test_a_damaged_checkpoint_is_named(damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("out") == 0
    file = Path("out/checkpoint.safetensors")
    content = file.read_bytes()
    file.unlink()
    if damage == "pipe":
        os.mkfifo(file)
    elif damage == "directory":
        file.mkdir()
    else:
        file.write_bytes(
            content[: len(content) // 2] if damage == "half" else content.replace(b'{\\"step\\"', b'[\\"step\\"')
        )
    assert train("out", "--resume") == 2
    assert "error: out/checkpoint.safetensors is no checkpoint of this recipe" in capsys.readouterr().err


def test_a_report_goes_through_a_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As every output; see ``test_files``."""
    evaluate(small_model(), passkey(), results=tmp_path / "results")
    (tmp_path / "page.html").touch()
    (tmp_path / "link.html").symlink_to("page.html")
    for verb, option in (("report", "--to"), ("compare", "--plot")):
        file = tmp_path / ("link.html" if verb == "report" else "link.svg")
        if verb == "compare":
            (tmp_path / "link.svg").symlink_to("plot.svg")
        assert main([verb, option, str(file), "--output", str(tmp_path / "results")]) == 0
        assert file.is_symlink() and file.resolve().stat().st_size > 1_000
    capsys.readouterr()
