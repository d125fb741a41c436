"""``--workers``: a run that several processes answer has the record of one that a single process answered."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ray_processes import workers_of
from test_shards import NARRATIVEQA, only, told

from famcli.cli.main import main
from famcli.evaluation.plan import Group, Planned
from famcli.evaluation.workers.job import Unit, units
from famcli.task import Sample

FAMCLI = [sys.executable, "-c", "import sys; from famcli.cli.main import main; sys.exit(main(sys.argv[1:]))"]

KILLER = """
import os, signal
from famcli.task import Generate, MetricSpec, Prompt, Sample, Task
from beside import words

class Killer(Task):
    name = "killer"
    version = 1
    summary = "kills whoever asks its second sample"
    template = "number"
    metrics = (MetricSpec("accuracy"),)

    def samples(self, tokenizer, seed, limit):
        def request(i):
            if i == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return Generate(Prompt((words(i),)), 4)
        return [
            Sample(str(i), {}, "x", request=lambda i=i: request(i), score=lambda a: {"accuracy": 1.0}, prompt_tokens=10)
            for i in range(3)
        ]
"""


def planned(id: str, tokens: int, document: str | None = None, shared: int = 0) -> Planned:
    def never(*args: Any) -> Any:
        raise AssertionError

    return Planned(Sample(id, {}, "", request=never, score=never, document=document), tokens, shared_tokens=shared)


def test_documents_stay_together_and_the_longest_goes_first() -> None:
    alone = Group(0, [[planned("a", 5), planned("b", 5)], [planned("c", 90)]])
    book = Group(40, [[planned("d", 50, "book", 40)], [planned("e", 60, "book", 40)]])
    found = units([alone, book])
    assert [unit.what for unit in found] == ["sample c", "document book", "sample a and 1 more"]
    assert [unit.group.tokens for unit in found] == [90, 70, 10]
    assert len({unit.name for unit in found}) == 3


def test_what_is_left_of_a_unit_keeps_its_name_and_its_batches() -> None:
    unit = Unit.of(Group(40, [[planned("d", 50, "book", 40), planned("x", 50, "book", 40)], [planned("e", 60)]]))
    rest = unit.rest({"d"})
    assert rest and rest.name == unit.name and rest.group.begun and not unit.group.begun
    assert [[p.sample.id for p in batch] for batch in rest.group.batches] == [["x"], ["e"]]
    untouched = unit.rest(set())
    assert untouched and not untouched.group.begun
    assert unit.rest({"d", "x", "e"}) is None


@pytest.mark.parametrize(
    "options",
    [["--ray", "auto"], ["--threads-per-worker", "2"], ["--gpus-per-worker", "0.5"], ["--mixed-devices"]],
)
def test_options_of_workers_need_workers(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*NARRATIVEQA, "--output", str(tmp_path), *options]) == 2
    assert f"{options[0]} is given without --workers" in capsys.readouterr().err


def test_workers_keep_no_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*NARRATIVEQA, "--output", str(tmp_path), "--workers", "2", "--keep-prompts"]) == 2
    assert "workers keep no prompts" in capsys.readouterr().err


def test_without_ray_the_error_says_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*NARRATIVEQA, "--output", str(tmp_path), "--workers", "2"]) == 2
    assert "pip install 'famcli[ray]'" in capsys.readouterr().err


def famcli(*args: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*FAMCLI, *map(str, args)], capture_output=True, text=True, cwd=cwd)


def run_and_kill(args: Sequence[str | Path], kills: int) -> tuple[int, str, int]:
    """Runs a command, kills a worker every two seconds; its exit code, what it said, and how many were killed."""
    process = subprocess.Popen([*FAMCLI, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    killed = 0

    def kill() -> None:
        nonlocal killed
        while killed < kills and process.poll() is None:
            time.sleep(2)
            for worker in workers_of(process.pid)[:1]:
                os.kill(worker, signal.SIGKILL)
                killed += 1

    thread = threading.Thread(target=kill)
    thread.start()
    said, _ = process.communicate()
    thread.join()
    return process.returncode, said, killed


@pytest.mark.slow
def test_two_workers_leave_the_record_of_one_process(tmp_path: Path) -> None:
    passkey = ["eval", "--task", "passkey", "--model", "bswa-tiny", "-o", "lengths=1k,4k", "-o", "trials=20"]
    for name, command in (("narrativeqa", NARRATIVEQA), ("passkey", passkey)):
        alone, both = tmp_path / f"{name}-alone", tmp_path / f"{name}-both"
        assert famcli(*command, "--output", alone).returncode == 0
        done = famcli(*command, "--output", both, "--workers", "2")
        assert done.returncode == 0, done.stderr
        assert "2 workers" in done.stderr
        assert told(only(both, "*")) == told(only(alone, "*"))
        assert sorted(path.name for path in only(both, "*").iterdir()) == ["run.json", "samples.jsonl"]
        assert json.loads((only(both, "*") / "run.json").read_text())["environment"]["workers"]["lost"] == 0


@pytest.mark.slow
def test_workers_and_drivers_that_are_killed_lose_nothing(tmp_path: Path) -> None:
    command = ["eval", "--task", "passkey", "--model", "bswa-tiny", "-o", "lengths=16k", "-o", "trials=24"]
    command += ["--batch-size", "2"]
    assert famcli(*command, "--output", tmp_path / "alone").returncode == 0
    crew = [*command, "--output", tmp_path / "crew", "--workers", "2"]
    driver = subprocess.Popen([*FAMCLI, *map(str, crew)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = None
    while driver.poll() is None and not (journal and journal.stat().st_size):
        time.sleep(0.2)
        journal = next((tmp_path / "crew").glob("*/samples.jsonl"), None)
    driver.kill()
    assert driver.wait() == -signal.SIGKILL
    code, said, killed = run_and_kill(crew, kills=2)
    assert code == 0 and killed, said
    assert "a worker was lost" in said
    assert told(only(tmp_path / "crew", "*")) == told(only(tmp_path / "alone", "*"))


@pytest.mark.slow
def test_samples_that_kill_their_workers_are_named_and_given_up(tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "killer.py").write_text(KILLER)
    (folder / "beside.py").write_text("def words(i):\n    return f'number {i}: '\n")
    command = [
        "eval",
        "--task",
        "./tasks/killer.py:Killer",
        "--model",
        "bswa-tiny",
        "--batch-size",
        "1",
        "--workers",
        "2",
    ]
    stopped = famcli(*command, "--output", "out", cwd=tmp_path)
    assert stopped.returncode == 2
    assert "sample 1 cost 3 workers and is given up" in stopped.stderr
    skipped = famcli(*command, "--output", "out", "--on-error", "skip", cwd=tmp_path)
    assert skipped.returncode == 0, skipped.stderr
    (run,) = (tmp_path / "out").glob("killer-*/run.json")
    record = json.loads(run.read_text())
    assert [one["id"] for one in record["skipped"]] == ["1"] and record["cells"][0]["n"] == 2
    assert record["environment"]["workers"]["lost"] == 3
