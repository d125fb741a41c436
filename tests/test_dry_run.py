"""``famcli eval --dry-run`` against the runs that the same command then makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hub_models import save_hub_model
from test_checkpoint import save_small

from famcli.checkpoints import decoders
from famcli.cli.main import main

TASKS = [word for name in ("passkey", "pg19", "quality") for word in ("--task", name)]
COMMAND = [*TASKS, "--data", "sample", "-o", "lengths=400,512", "-o", "trials=1", "--limit", "2", "--json"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_small(Path("fam"), "fam", block_size=32)
    save_small(Path("bswa"), "bswa", block_size=32)


def printed(capsys: pytest.CaptureFixture[str], *args: str) -> Any:
    assert main(["eval", *args]) == 0
    return json.loads(capsys.readouterr().out)


def files() -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in Path().rglob("*") if file.is_file()}


def test_a_dry_run_says_what_then_runs_and_loads_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    models = ["--model", "fam", "--model", "bswa,memory_segments=0"]
    before = files()
    with monkeypatch.context() as patch:
        patch.setattr(decoders, "load_decoder", None)
        planned = printed(capsys, *COMMAND, *models, "--dry-run")["runs"]
    assert files() == before
    records = [json.loads(Path(run["path"]).read_text()) for run in printed(capsys, *COMMAND, *models)["runs"]]
    assert len(planned) == 6
    assert {plan["status"] for plan in planned} == {"new"}
    for plan, record in zip(planned, records, strict=True):
        assert plan["run_id"] == record["run_id"]
        assert plan["samples"] == sum(cell["n"] for cell in record["cells"])
        assert (plan["tokens"], plan["computed"]) == (record["cost"]["tokens_read"], record["cost"]["tokens_computed"])
        assert plan["before"] is None, "nothing was measured yet"
    assert any(plan["computed"] < plan["tokens"] for plan in planned), "the windowed model skips"
    done = printed(capsys, *COMMAND, *models, "--dry-run")["runs"]
    assert {(plan["status"], plan["tokens"]) for plan in done} == {("finished", 0)}
    fresh = printed(capsys, *COMMAND, *models, "--dry-run", "--fresh")["runs"]
    assert [plan["tokens"] for plan in fresh] == [plan["tokens"] for plan in planned]


def test_a_run_that_is_asked_for_twice_is_done_once(capsys: pytest.CaptureFixture[str]) -> None:
    passkey = ["--task", "passkey", "-o", "lengths=400", "-o", "trials=1", "--model", "fam", "--dry-run"]
    totals = []
    for twice in ([], ["--task", "passkey"]):
        assert main(["eval", *passkey, *twice]) == 0
        totals.append(capsys.readouterr().out.splitlines()[-1])
    assert totals[0] == totals[1] and totals[0].startswith("in all: 1 of 1 runs to do, 390 ")


def test_a_run_that_was_broken_off_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--task", "passkey", "-o", "lengths=400,512", "-o", "trials=2", "--model", "fam", "--json"]
    (run,) = printed(capsys, *command)["runs"]
    record, journal = Path(run["path"]), Path(run["path"]).with_name("samples.jsonl")
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:3]) + lines[3][:50])
    record.write_text(json.dumps({**json.loads(record.read_text()), "status": "running"}))
    before = files()
    (plan,) = printed(capsys, *command, "--dry-run")["runs"]
    left = json.loads(lines[3])["prompt_tokens"]
    assert (plan["status"], plan["answered"], plan["samples"], plan["tokens"]) == ("interrupted", 3, 4, left)
    assert files() == before, "not even the line that was being written is touched"
    for kept, words in ((("samples.jsonl", lines[0]), "goes on with"), (None, "nothing of it was kept, begins again:")):
        journal.unlink()
        if kept:
            record.with_name(kept[0]).write_text(kept[1])
        assert main(["eval", *command[:-1], "--dry-run"]) == 0
        assert f"fam on passkey: {words} {run['run_id']}" in capsys.readouterr().out
    record.with_name("state.safetensors").write_bytes(b"a state")
    assert main(["eval", *command[:-1], "--dry-run"]) == 0
    assert "goes on with" in capsys.readouterr().out


def test_time_and_memory_are_those_that_were_measured(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--task", "passkey", "-o", "trials=1", "--model", "fam", "--json"]
    (run,) = printed(capsys, *command, "-o", "lengths=400")["runs"]
    file = Path(run["path"])
    record = json.loads(file.read_text())

    def estimate(model: str = "fam", **environment: str) -> Any:
        cost = {**record["cost"], "tokens_computed": 1000, "seconds": 50.0, "peak_memory_bytes": 7 << 30}
        changed = {**record, "cost": cost, "environment": {**record["environment"], **environment}}
        file.write_text(json.dumps(changed))
        longer = [*command[:-2], model, "-o", "lengths=512,600", "--dry-run"]
        (plan,) = printed(capsys, *longer, "--json")["runs"]
        assert main(["eval", *longer]) == 0
        return plan, capsys.readouterr().out

    plan, words = estimate()
    assert plan["before"]["seconds"] == pytest.approx([plan["computed"] / 20] * 2)
    assert (plan["before"]["runs"], plan["before"]["memory_bytes"]) == (1, 7 << 30)
    assert f"about {plan['computed'] / 20:.0f} s, at the speed of an earlier run" in words and "7.0 GiB" in words
    for other in (estimate("bswa"), estimate(platform="another machine")):
        assert other[0]["before"] is None
        assert "time      unknown" in other[1] and "memory    unknown" in other[1]


@pytest.mark.parametrize(("length", "judged_by"), [(512, 600), (600, 600), (700, 800), (900, 800)])
def test_memory_is_that_of_the_nearest_run_that_is_as_long(
    length: int, judged_by: int, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--task", "passkey", "-o", "trials=1", "--model", "fam"]
    for earlier in (400, 600, 800):
        (run,) = printed(capsys, *command, "-o", f"lengths={earlier}", "--json")["runs"]
        record = json.loads(Path(run["path"]).read_text())
        record["cost"] |= {"seconds": 5.0, "peak_memory_bytes": earlier << 20}
        Path(run["path"]).write_text(json.dumps(record))
    dry = [*command, "-o", f"lengths={length}", "--dry-run", "--fresh"]
    (plan,) = printed(capsys, *dry, "--json")["runs"]
    assert plan["before"]["runs"] == 3, "all of them tell the speed: their states are as large"
    assert plan["before"]["memory_bytes"] == judged_by << 20
    assert abs(plan["before"]["memory_tokens"] - judged_by) < 20
    assert main(["eval", *dry]) == 0
    assert ("which may take more" in capsys.readouterr().out) == (length > judged_by)


def test_full_attention_is_not_judged_by_shorter_texts(capsys: pytest.CaptureFixture[str]) -> None:
    save_hub_model(Path("llama"))
    command = ["--task", "passkey", "-o", "trials=1", "--model", "llama", "--json"]
    (run,) = printed(capsys, *command, "-o", "lengths=600")["runs"]
    record = json.loads(Path(run["path"]).read_text())
    record["cost"]["seconds"] = 5.0
    Path(run["path"]).write_text(json.dumps(record))
    for length, judged in (("500", True), ("700", False)):
        (plan,) = printed(capsys, *command, "-o", f"lengths={length}", "--dry-run")["runs"]
        assert (plan["before"] is not None) == judged


def test_what_is_cut_and_left_out_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    cut = ["--task", "quality", "--data", "sample", "--model", "fam", "--max-context", "900", "--truncate", "left"]
    (plan,) = printed(capsys, *cut, "--json", "--dry-run")["runs"]
    (run,) = printed(capsys, *cut, "--json")["runs"]
    assert plan["cut_tokens"] == run["cost"]["tokens_cut"] > 0
    ids = [
        printed(capsys, *cut[:-3], bound, *cut[-2:], "--json", "--dry-run")["runs"][0]["run_id"]
        for bound in ("1k", "1024", "900")
    ]
    assert ids[0] == ids[1] != ids[2] == run["run_id"]
    save_hub_model(Path("llama"), max_position_embeddings=600)
    Path("s.yaml").write_text("tasks: [{task: passkey, options: {lengths: 500}}, {task: passkey}]")
    found = printed(capsys, "--suite", "s.yaml", "--model", "llama", "--json", "--dry-run")
    assert [run["task"] for run in found["runs"]] == [one["task"] for one in found["left_out"]] == ["passkey"]
