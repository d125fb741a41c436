"""``famcli eval --log``: trackers are told of finished runs by their own clients, and can spoil nothing."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from test_checkpoint import save_small

from famcli.cli.main import main
from famcli.evaluation.record import RunRecord
from famcli.reports import trackers

EVAL = ["eval", "--task", "passkey", "-o", "lengths=400", "-o", "trials=6", "--model", "bswa", "--json"]


@pytest.fixture(autouse=True)
def _in_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_small(Path("bswa"), "bswa", block_size=32)


def evaluate(capsys: pytest.CaptureFixture[str], *more: str) -> tuple[dict[str, Any], str]:
    """The one run of a command that must succeed, and what it says on standard error."""
    capsys.readouterr()
    assert main([*EVAL, *more]) == 0
    captured = capsys.readouterr()
    (run,) = json.loads(captured.out)["runs"]
    return run, captured.err


def told_of(run: dict[str, Any]) -> dict[str, float]:
    """Some of the numbers that a tracker must have, from the record alone."""
    record = json.loads(Path(run["path"]).read_text())
    accuracy = record["metrics"]["accuracy"]
    return {
        "accuracy": accuracy["value"],
        "accuracy_n": accuracy["n"],
        "cost/tokens_read": record["cost"]["tokens_read"],
        "cost/peak_memory_bytes": record["cost"]["peak_memory_bytes"],
    }


class Told:
    """A tracker that keeps what it is told."""

    def __init__(self, output: Path) -> None:
        self.runs: list[RunRecord] = []

    def log(self, record: RunRecord) -> None:
        self.runs.append(record)


class Broken(Told):
    def log(self, record: RunRecord) -> None:
        raise RuntimeError("no network\x1b[31m")


def test_a_tracker_is_told_figures_intervals_cost_and_id(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(Path())
    monkeypatch.setitem(trackers.TRACKERS, "wandb", lambda output: told)
    run, _ = evaluate(capsys, "--log", "wandb", "--log", "wandb")
    assert [record.run_id for record in told.runs] == [run["run_id"]], "once, however often it is named"
    found = trackers.figures(told.runs[0])
    assert told_of(run).items() <= found.items()
    assert found["accuracy_low"] <= found["accuracy"] <= found["accuracy_high"]
    assert 0 < found["accuracy_high"] - found["accuracy_low"] < 1, "Wilson's interval of six samples"
    assert trackers.settings(told.runs[0])["option.lengths"] == str(told.runs[0].task["options"]["lengths"])


def test_a_tracker_that_fails_costs_a_warning_and_nothing_else(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(Path())
    monkeypatch.setitem(trackers.TRACKERS, "wandb", Broken)
    monkeypatch.setitem(trackers.TRACKERS, "mlflow", lambda output: told)
    run, said = evaluate(capsys, "--log", "wandb", "--log", "mlflow")
    assert f"warning: {run['run_id']} is finished, but wandb was not told of it" in said
    assert "no network" in said
    assert "\x1b" not in said
    assert json.loads(Path(run["path"]).read_text())["status"] == "finished"
    assert len(told.runs) == 1, "the others are told all the same"
    assert evaluate(capsys)[0] == run, "the run is what it is without a tracker"


@pytest.mark.parametrize("name", ["wandb", "mlflow", "tensorboard"])
def test_a_client_that_is_not_installed_is_refused_before_anything_runs(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    assert main([*EVAL, "--log", name]) == 2
    assert f"pip install 'famcli[{name}]'" in capsys.readouterr().err
    assert not Path("results").exists()


def test_a_client_that_fails_at_once_is_refused_before_anything_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(output: Path) -> Told:
        raise AttributeError("another version")

    monkeypatch.setitem(trackers.TRACKERS, "mlflow", broken)
    assert main([*EVAL, "--log", "mlflow"]) == 2
    assert "does not work here: AttributeError('another version')" in capsys.readouterr().err
    assert not Path("results").exists()


def test_tensorboard_has_the_figures_in_its_own_files(capsys: pytest.CaptureFixture[str]) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run, said = evaluate(capsys, "--log", "tensorboard")
    assert "was not told" not in said
    found = accumulator.EventAccumulator(f"results/tensorboard/{run['run_id']}")
    found.Reload()
    for name, value in told_of(run).items():
        assert [event.value for event in found.Scalars(name)] == [pytest.approx(value)]
    assert main(["list", "runs"]) == 0
    assert "warning" not in capsys.readouterr().err, "the folder is no run"


def test_mlflow_has_one_run_however_often_it_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("mlflow")
    store = tmp_path / "store"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run, said = evaluate(capsys, "--log", "mlflow")
    assert "was not told" not in said
    evaluate(capsys, "--log", "mlflow")
    (tag,) = store.glob("*/*/tags/famcli.run_id")
    assert tag.read_text() == run["run_id"]
    for name, value in told_of(run).items():
        last = (tag.parent.parent / "metrics" / name).read_text().splitlines()[-1]
        assert float(last.split()[1]) == pytest.approx(value)
    assert (tag.parent.parent / "params" / "task").read_text() == "passkey"


def test_wandb_keeps_a_run_for_later_where_there_is_no_network(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run, said = evaluate(capsys, "--log", "wandb")
    assert "was not told" not in said
    (kept,) = Path("wandb").glob(f"offline-run-*/run-{run['run_id']}.wandb")
    until = time.monotonic() + 30
    while b"accuracy_low" not in kept.read_bytes() and time.monotonic() < until:
        time.sleep(0.1)  # a process of its own writes the file
    assert b"accuracy_low" in kept.read_bytes()


def test_wandb_without_an_account_is_refused_before_anything_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its client would ask for one at the end of the first run, and wait."""
    pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert main([*EVAL, "--log", "wandb"]) == 2
    assert "wandb login" in capsys.readouterr().err
    assert not Path("results").exists()
