"""``famcli check`` as a user types it: exit codes, files, and what is refused before anything runs."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from test_checkpoint import save_small

from famcli.checkpoints.registry import bundled_directory
from famcli.cli.check import command
from famcli.cli.main import main
from famcli.evaluation import environment as environment_module
from famcli.evaluation import yardstick
from famcli.gate.baseline import read_baseline

BASE = ["check", "--task", "passkey", "-o", "lengths=400", "-o", "trials=2", "--baseline", "base.json"]
SMALL = [*BASE, "--model", "fam"]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model over bytes, ``fam``, in the current directory, and a baseline of it."""
    monkeypatch.chdir(tmp_path)
    save_small(Path("fam"), "fam", block_size=32)
    assert main([*SMALL, "--update"]) == 0


def zeroed(directory: Path) -> Path:
    """A copy of fam-tiny whose FAM is zero in every block."""
    shutil.copytree(bundled_directory("fam-tiny"), directory)
    weights = load_file(directory / "model.safetensors")
    weights["fam_embedding"] = torch.zeros_like(weights["fam_embedding"])
    save_file(weights, directory / "model.safetensors")
    config = json.loads((directory / "config.json").read_text())
    config["model"]["fam_scale"] = 1e-30  # of what every later block leaves, after its norm
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def test_zeroed_fam_fails_and_the_whole_model_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    common = ["check", "--task", "passkey", "-o", "lengths=1k,8k", "-o", "trials=5", "--baseline", "base.json"]
    assert main([*common, "--model", "fam-tiny", "--update"]) == 0
    assert main([*common, "--model", "fam-tiny"]) == 0
    assert main([*common, "--model", str(zeroed(tmp_path / "broken")), "--junit", "check.xml"]) == 1
    failed = {
        case.get("name") for case in ElementTree.parse("check.xml").iter("testcase") if case.find("failure") is not None
    }
    assert "accuracy, start 8k" in failed
    assert "accuracy, start 1k" not in failed, "within the block nothing has to be remembered"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("args", "difference"),
    [
        (["--seed", "1"], "seed: 1, 0"),
        (["--limit", "1"], "limit: 1, none"),
        (["-o", "key_digits=3"], "key_digits: 3, 5"),
        (["--max-context", "900"], "max context: 900, none"),
        (["--task", "pg19", "--data", "sample"], "no run of"),
    ],
)
def test_runs_that_are_not_comparable_are_refused_before_they_run(
    args: list[str], difference: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(Path().rglob("*"))
    typed = [*SMALL, *args] if args[0] != "--task" else ["check", *args, "--baseline", "base.json", "--model", "fam"]
    assert main(typed) == 2
    captured = capsys.readouterr()
    assert difference in captured.err
    assert "hint: " in captured.err and "--update" in captured.err
    assert sorted(Path().rglob("*")) == before


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("field", "difference"),
    [("version", "task version: 1, 9"), ("template_sha256", "prompt template"), ("samples", "other questions")],
)
def test_changes_of_the_task_are_named(field: str, difference: str, capsys: pytest.CaptureFixture[str]) -> None:
    values = json.loads(Path("base.json").read_text())
    if field == "samples":
        values["runs"][0]["samples"][0][2] = "00000000"
    else:
        values["runs"][0]["task"][field] = 9 if field == "version" else "9" * 64
    Path("base.json").write_text(json.dumps(values))
    assert main(SMALL) == 2
    assert difference in capsys.readouterr().err


@pytest.mark.usefixtures("small")
def test_damaged_baselines_say_what_to_type_and_others_files_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    whole = Path("base.json").read_text()
    for text, message in (
        (None, "no baseline"),
        (whole[: len(whole) // 2], "damaged"),
        (whole.replace('"value"', '"valeu"'), "lacks the field 'runs[0].scores[0].value'"),
        (whole.replace('"level": 0.05', '"level": 5'), "a tolerance must be"),
        (whole.replace('"level": 0.05', '"level": NaN'), "NaN is no number in JSON"),
        (
            whole.replace('"context": {', '"context": {}, "other": {'),
            "lacks the fields 'runs[0].context.",
        ),
        (whole.replace('"value": ', '"value": 1e999, "was": '), "it holds a number too large"),
        ('{"famcli_baseline": 1, "runs": []}', "no scores"),
        (whole.replace('"famcli_baseline": 1', '"famcli_baseline": 99'), "version 99"),
    ):
        Path("base.json").unlink()
        if text is not None:
            Path("base.json").write_text(text)
        assert main(SMALL) == 2
        captured = capsys.readouterr()
        assert message in captured.err and "--update" in captured.err
        assert main([*SMALL, "--update"]) == 0
        assert main(SMALL) == 0
    Path("base.json").write_text("my notes")
    assert main(SMALL) == main([*SMALL, "--update"]) == 2
    assert Path("base.json").read_text() == "my notes"


@pytest.mark.usefixtures("small")
def test_updating_again_changes_nothing_but_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads(Path("base.json").read_text())
    capsys.readouterr()
    assert main([*SMALL, "--update"]) == 0
    assert "as before" in capsys.readouterr().out
    after = json.loads(Path("base.json").read_text())
    for values in (before, after):
        del values["runs"][0]["finished"]
    assert before == after


@pytest.mark.usefixtures("small")
def test_finished_runs_are_taken_and_all_formats_agree(capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = {path.parent for path in Path("results").glob("*/run.json") if ".old-" not in str(path)}
    capsys.readouterr()
    reports = ["--junit", "out/check.xml", "--markdown", "out/check.md", "--json"]
    for _ in range(2):
        assert main(["check", "--run", str(run), "--baseline", "base.json", *reports]) == 0
    verdicts = json.loads(capsys.readouterr().out.splitlines()[-1])["verdicts"]
    cases = list(ElementTree.parse("out/check.xml").iter("testcase"))
    assert len(cases) == len(verdicts) == 2
    text = Path("out/check.md").read_text()
    assert text.count("### famcli check") == 2, "a job's steps add to one summary"
    assert text.count("| passed |") == 2 * len(verdicts)
    assert main(["check", "--run", run.name, "--baseline", "base.json"]) == 0
    assert "passed: all 2 scores of fam hold the baseline of fam" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "neither a model nor a finished run"),
        (["--model", "fam", "--run", "x"], "both --run and"),
        (["--model", "fam"], "no task given"),
        (["--model", "fam", "--task", "passkey", "--cost"], "--cost says"),
        (["--model", "fam", "--task", "passkey", "--update", "--json"], "--update shows"),
        (["--run", "nowhere", "--update", "--cost"], "cannot measure"),
        (["--run", "nowhere"], "no baseline"),
    ],
)
def test_bad_usage(
    args: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check", "--baseline", "base.json", *args]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("commit", "again"), [("c0ffee", False), ("c0ffee-dirty", True), (None, False)])
def test_finished_runs_count_only_where_the_same_code_made_them(
    commit: str | None, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree("results")
    monkeypatch.setattr(environment_module, "_git_commit", lambda: commit)
    for _ in range(2):
        assert main(SMALL) == 0
    assert len(list(Path("results").iterdir())) == 1 + again
    monkeypatch.setattr(environment_module, "_git_commit", lambda: "decade")
    assert main(SMALL) == 0
    assert len(list(Path("results").iterdir())) == 2 + again


@pytest.mark.usefixtures("small")
def test_cost_is_measured_where_it_is_gated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(yardstick, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(environment_module, "_git_commit", lambda: "facade")
    for _ in range(2):  # the second time the runs of this very code are there
        assert main([*SMALL, "--update", "--cost"]) == 0
    gates = read_baseline(Path("base.json")).cost
    assert gates and gates.memory and next(iter(gates.throughput.values())).factor == 2.0
    values = json.loads(Path("base.json").read_text())
    (gate,) = values["cost"]["throughput"].values()
    gate["ratio"] *= 1000
    Path("base.json").write_text(json.dumps(values))
    capsys.readouterr()
    assert main([*SMALL, "--fresh", "--json"]) == 1
    verdicts = json.loads(capsys.readouterr().out)["verdicts"]
    assert [v["metric"] for v in verdicts if v["status"] == "failed"] == ["tokens/s per GFLOP/s"]
    (run,) = {path.parent.name for path in Path("results").glob("*/run.json") if ".old-" not in str(path)}
    assert main(["check", "--run", run, "--baseline", "base.json"]) == 0
    assert "2 skipped" in capsys.readouterr().out


def test_documented_snippets_parse_and_give_options_that_exist() -> None:
    text = (Path(__file__).parent.parent / "docs" / "ci.md").read_text()
    snippets = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert all(yaml.safe_load(snippet) for snippet in snippets)
    commands = re.findall(r"famcli check (--.*)", text.replace("\n          --", " --"))
    assert len(snippets) == 2 and len(commands) >= 4
    for typed in commands:
        command.make_context("check", shlex.split(typed, comments=True))
