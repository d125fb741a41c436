"""``famcli eval --shard`` and ``famcli merge``: parts of a run on machines that cannot talk to each other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from famcli.cli.main import main

NARRATIVEQA = ["eval", "--task", "narrativeqa", "--data", "sample", "--model", "bswa-tiny"]


def run(*args: str) -> int:
    return main([*args])


def told(directory: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A run's record and samples without times, memory and where it ran."""
    record = json.loads((directory / "run.json").read_text())
    for name in ("started", "finished", "environment"):
        del record[name]
    lines = [json.loads(line) for line in (directory / "samples.jsonl").read_text().splitlines()]
    for part in (record["cost"], *lines):
        for name in (
            "seconds",
            "tokens_per_second",
            "seconds_to_first_answer",
            "first_answer_seconds",
            "peak_memory_bytes",
        ):
            part.pop(name, None)
    return record, sorted(lines, key=lambda line: line["id"])


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run in ``whole``, its two shards in ``parts``."""
    folder = tmp_path_factory.mktemp("shards")
    assert run(*NARRATIVEQA, "--output", str(folder / "whole")) == 0
    for shard in ("1/2", "2/2"):
        assert run(*NARRATIVEQA, "--output", str(folder / "parts"), "--shard", shard) == 0
    return folder


def test_merged_shards_are_the_whole_run(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = only(runs / "whole", "narrativeqa-*")
    shards = sorted((runs / "parts").glob("*-*of2"))
    assert [shard.name for shard in shards] == [f"{whole.name}-1of2", f"{whole.name}-2of2"]
    assert run("merge", *map(str, reversed(shards)), "--output", str(tmp_path)) == 0
    assert told(tmp_path / whole.name) == told(whole)
    assert f"{len(told(whole)[1])} samples of 2 shards" in capsys.readouterr().out


def test_shards_share_no_document_and_leave_none_out(runs: Path) -> None:
    parts = [told(shard)[1] for shard in sorted((runs / "parts").glob("*-*of2"))]
    documents = [{line["document"] for line in part} for part in parts]
    assert not documents[0] & documents[1] and all(documents)
    assert sorted(line["id"] for part in parts for line in part) == [
        line["id"] for line in told(only(runs / "whole", "narrativeqa-*"))[1]
    ]


def test_the_whole_run_lies_beside_its_shards(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(runs / "parts", tmp_path / "parts")
    shards = sorted((tmp_path / "parts").glob("*of2"))
    assert run("merge", *map(str, shards)) == 0
    assert (tmp_path / "parts" / shards[0].name.rpartition("-")[0] / "run.json").exists()
    shards[0].rename(tmp_path / shards[0].name)
    assert run("merge", str(tmp_path / shards[0].name), str(shards[1])) == 2
    assert "--output" in capsys.readouterr().err


def test_a_merged_run_is_finished_for_the_command_without_shards(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("merge", *map(str, (runs / "parts").glob("*of2")), "--output", str(tmp_path)) == 0
    assert run(*NARRATIVEQA, "--output", str(tmp_path)) == 0
    assert "shown again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["1of2"], "these are missing: 2"),
        (["1of2", "2of2", "2of2"], "is given twice: 2"),
    ],
)
def test_what_is_no_set_of_shards_is_refused(
    names: list[str], says: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(only(runs / "parts", f"*-{name}")) for name in names]
    assert run("merge", *given, "--output", str(tmp_path)) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_whole_runs_and_runs_that_are_there_are_refused(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = only(runs / "whole", "narrativeqa-*")
    assert run("merge", str(whole), "--output", str(tmp_path)) == 2
    assert "is a whole run, not a shard" in capsys.readouterr().err
    before = (whole / "run.json").read_bytes()
    assert run("merge", *map(str, (runs / "parts").glob("*of2")), "--output", str(runs / "whole")) == 2
    assert "is there already" in capsys.readouterr().err
    assert (whole / "run.json").read_bytes() == before


def test_a_sample_of_another_shard_is_refused(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = [only(runs / "parts", f"*-{i}of2") for i in (1, 2)]
    copies = [tmp_path / shard.name for shard in shards]
    for shard, copy, journal in zip(shards, copies, reversed(shards), strict=True):
        copy.mkdir()
        (copy / "run.json").write_bytes((shard / "run.json").read_bytes())
        (copy / "samples.jsonl").write_bytes((journal / "samples.jsonl").read_bytes())
    assert run("merge", *map(str, copies), "--output", str(tmp_path / "out")) == 2
    assert "is not one of this shard" in capsys.readouterr().err


def test_a_shard_that_lost_a_sample_is_refused(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copies = []
    for i in (1, 2):
        shard = only(runs / "parts", f"*-{i}of2")
        copies.append(tmp_path / shard.name)
        copies[-1].mkdir()
        (copies[-1] / "run.json").write_bytes((shard / "run.json").read_bytes())
        lines = (shard / "samples.jsonl").read_bytes().splitlines(keepends=True)
        (copies[-1] / "samples.jsonl").write_bytes(b"".join(lines[i - 1 :]))
    assert run("merge", *map(str, copies), "--output", str(tmp_path / "out")) == 2
    assert f"{copies[1]} has" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/2/3"])
def test_what_is_no_shard_is_refused(shard: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*NARRATIVEQA, "--output", str(tmp_path), "--shard", shard) == 2
    assert "shard" in capsys.readouterr().err


def test_more_shards_than_documents_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*NARRATIVEQA, "--output", str(tmp_path), "--shard", "90/90") == 2
    assert "shard 90 of 90 is empty" in capsys.readouterr().err
