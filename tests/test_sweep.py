"""``famcli sweep``: its runs are those of ``famcli eval``, and what cannot be stands beside what can."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from test_checkpoint import save_small

from famcli.cli.main import main
from famcli.errors import UserError
from famcli.evaluation import runner

TASK = ["--task", "passkey", "-o", "lengths=400,512", "-o", "trials=1"]
SWEEP = ["sweep", *TASK, "--model", "fam"]


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model over bytes, ``fam``, with a FAM of 8, in the current directory."""
    monkeypatch.chdir(tmp_path)
    save_small(Path("fam"), "fam", block_size=32, fam_length=8)


def combinations(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> list[dict[str, Any]]:
    """What a sweep prints as JSON."""
    capsys.readouterr()
    assert main([*SWEEP, *args, "--json"]) == code
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["combinations"]
    return found


def files() -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in Path("results").rglob("*") if file.is_file()}


def test_sweep_is_the_cross_product_of_runs_that_eval_would_make(capsys: pytest.CaptureFixture[str]) -> None:
    swept = combinations(capsys, "-v", "memory_segments=0,2", "-v", "block_size=16,32")
    assert [tuple(one["values"].items()) for one in swept] == [
        (("memory_segments", m), ("block_size", b)) for m in ("0", "2") for b in ("16", "32")
    ]
    assert len({one["runs"][0]["run_id"] for one in swept}) == 4
    for one in swept:
        spec = ",".join(["fam", *(f"{name}={value}" for name, value in one["values"].items())])
        assert main(["eval", *TASK, "--model", spec, "--json", "--output", "other"]) == 0
        (run,) = json.loads(capsys.readouterr().out)["runs"]
        assert {name: one["runs"][0][name] for name in ("run_id", "metrics", "cells")} == {
            name: run[name] for name in ("run_id", "metrics", "cells")
        }


def test_the_same_sweep_goes_on_and_a_larger_one_uses_its_runs(capsys: pytest.CaptureFixture[str]) -> None:
    first = combinations(capsys, "-v", "memory_segments=0,1")
    written = files()
    assert combinations(capsys, "-v", "memory_segments=0,1") == first
    assert files() == written
    assert combinations(capsys, "-v", "memory_segments=0,1,2")[:2] == first
    assert files().items() >= written.items()


def test_combinations_that_cannot_be_stand_beside_those_that_can(capsys: pytest.CaptureFixture[str]) -> None:
    swept = combinations(capsys, "-v", "memory_segments=0,1", "-v", "fam_length=4,8", code=1)
    assert [(one["values"]["fam_length"], len(one["runs"]), one["error"] is None) for one in swept] == [
        ("4", 0, False),
        ("8", 1, True),
    ] * 2
    assert main([*SWEEP, "-v", "memory_segments=0,1", "-v", "fam_length=4,8"]) == 1
    captured = capsys.readouterr()
    assert "fam_length' is 4" in captured.err
    assert "fam,memory_segments=1,fam_length=4" in captured.err
    rows = [line.split() for line in captured.out.splitlines() if "unbounded" in line]
    assert [row[:2] for row in rows] == [["0", "8"], ["1", "8"]]


def test_a_run_that_fails_does_not_stop_the_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = runner.evaluate

    def fail_once(model: Any, *args: Any, **kwargs: Any) -> Any:
        if model.decoder.config.memory.memory_segments == 1:
            raise UserError("the disk is full")
        return evaluate(model, *args, **kwargs)

    monkeypatch.setattr(runner, "evaluate", fail_once)
    swept = combinations(capsys, "-v", "memory_segments=0,1,2", code=1)
    assert [one["error"] for one in swept] == [None, "the disk is full", None]
    assert [len(one["runs"]) for one in swept] == [1, 0, 1]


def test_table_has_a_row_a_combination_and_a_column_a_score(capsys: pytest.CaptureFixture[str]) -> None:
    swept = combinations(capsys, "-v", "attention=fam,bswa", "-v", "memory_segments=1,2")
    assert main([*SWEEP, "-v", "attention=fam,bswa", "-v", "memory_segments=1,2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    header, rows = " ".join(lines[:-4]), lines[-4:]
    assert all(word in header for word in ("attention", "segments", "400", "512", "accuracy"))
    for one, row in zip(swept, rows, strict=True):
        assert row.split()[:2] == list(one["values"].values())
        assert re.findall(r"(\d\.\d{3}) \[too few\]", row) == [
            f"{cell['accuracy']:.3f}" for cell in one["runs"][0]["cells"]
        ]
    assert "unbounded" in rows[0] and "tokens" in rows[2]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "no field to vary"),
        (["-v", "memory_segments"], "is not FIELD=VALUE"),
        (["-v", "memory_segments=0,,1"], "is not FIELD=VALUE"),
        (["-v", "memory_segment=0,1"], "unknown model field 'memory_segment'"),
        (["-v", "memory_segments=0,1,0"], "given twice"),
        (["-v", "memory_segments=0", "-v", "memory_segments=1"], "given twice"),
        (["-v", "memory_segments=0,x"], "must be a whole number"),
        (["-v", "fam_length=4,16"], "'fam_length' is 4"),
        (["-v", "memory_segments=0,1", "-o", "lenghts=1k"], "'lenghts'"),
        (["-v", "memory_segments=0,1", "--model", "fm"], "unknown model 'fm'"),
    ],
)
def test_what_cannot_run_at_all_is_said_before_anything_runs(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sweep", *TASK, *args] if "--model" in args else [*SWEEP, *args]
    assert main(command) == 2
    captured = capsys.readouterr()
    assert message in captured.err and not captured.out
    assert not Path("results").exists()


def test_a_model_or_a_task_must_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--task", "passkey", "-v", "memory_segments=0,1"]) == 2
    assert "no model given" in capsys.readouterr().err
    assert main(["sweep", "--model", "fam", "-v", "memory_segments=0,1"]) == 2
    assert "no task given" in capsys.readouterr().err
