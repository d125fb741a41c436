"""Run records as pandas frames."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_records import FAM, passkey_record
from made_runs import Answer, document_run, passkey_run

import famcli
from famcli.errors import UserError


def test_frames_hold_runs_scores_and_samples(tmp_path: Path) -> None:
    passkey_run(tmp_path, "fam-tiny", FAM)
    document_run(tmp_path, "bswa-tiny", [Answer("a", {"f1": 0.5, "rouge_l": 0.25}, document="book")], seed=3)
    frames = famcli.load_runs(tmp_path)
    runs = frames.runs.set_index("model")
    assert runs.loc["bswa-tiny", "seed"] == 3
    assert runs.loc["fam-tiny", "option.trials"] == 3
    assert runs.loc["fam-tiny", "cost.tokens_read"] == 1

    scores = frames.scores
    cells = scores[(scores.task == "passkey") & scores["cell.length"].notna()].set_index("cell.length")
    assert cells.value.to_dict() == pytest.approx({1024: 1, 65536: 2 / 3, 1048576: 1 / 3})
    assert (cells.low < cells.value).all()
    assert len(scores[scores.task == "passkey"]) == 4, "three cells and all of them"
    assert set(scores[scores.task == "quality"].metric) == {"f1", "rouge_l"}

    samples = frames.samples
    joined = samples.merge(frames.runs[["run_id", "seed"]], on="run_id")
    assert len(joined) == len(samples) == 10
    means = samples[samples.model == "fam-tiny"].groupby("cell.length")["score.accuracy"].mean()
    assert means.to_dict() == pytest.approx({1024: 1, 65536: 2 / 3, 1048576: 1 / 3})
    assert samples.set_index("id").loc["a", ["document", "score.f1", "weight.f1"]].tolist() == ["book", 0.5, 1.0]


def test_single_runs_and_the_directory_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = passkey_run(tmp_path / "results", "fam-tiny", FAM)
    monkeypatch.chdir(tmp_path)
    for frames in (famcli.load_runs(), famcli.load_runs(run.path, run.path), famcli.load_runs(run.path / "run.json")):
        assert set(frames.runs.run_id) == {run.run_id}


def test_a_run_without_samples_has_scores_without_intervals(tmp_path: Path) -> None:
    run = passkey_record("fam-tiny", FAM)
    run.path = tmp_path / "run"
    run.path.mkdir()
    run.save()
    frames = famcli.load_runs(tmp_path)
    assert len(frames.samples) == 0
    assert frames.scores.low.isna().all()


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no runs in"):
        famcli.load_runs(tmp_path)
