"""A real process is killed at random moments; what is left is continued and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from resume_worker import run
from small_runs import journal_without_times, without_times

from famcli.errors import UserError
from famcli.evaluation.record import load_record

KILLS = 24
WORKER = Path(__file__).with_name("resume_worker.py")


class Runs:
    """Evaluations in processes of their own, see ``resume_worker``."""

    def __init__(self) -> None:
        self.server = subprocess.Popen(
            [sys.executable, str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def start(self, results: Path) -> int:
        self._say(str(results))
        return int(self._hear())

    def wait(self) -> int:
        """The exit status of the process started last, negative for a signal."""
        self._say("")
        return int(self._hear())

    def close(self) -> None:
        assert self.server.stdin
        self.server.stdin.close()
        self.server.wait()

    def _say(self, line: str) -> None:
        assert self.server.stdin
        self.server.stdin.write(line + "\n")

    def _hear(self) -> str:
        assert self.server.stdout
        return self.server.stdout.readline()


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    made = Runs()
    yield made
    made.close()


def journal(results: Path) -> Path | None:
    return next(results.glob("*/samples.jsonl"), None)


def content(results: Path) -> bytes:
    file = journal(results)
    return file.read_bytes() if file else b""


def finished(results: Path) -> bool:
    return any(json.loads(file.read_text())["status"] == "finished" for file in results.glob("*/run.json"))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.0005)


def kill_at_random(runs: Runs, results: Path, chance: random.Random) -> int:
    """Lets a run come a random number of bytes further, and a random moment more; then kills it."""
    target = len(content(results)) + chance.choice((-1, 0, 1, 700, 2500))
    process = runs.start(results)
    wait_until(lambda: len(content(results)) > target or finished(results))
    time.sleep(chance.uniform(0, 0.03))
    os.kill(process, signal.SIGKILL)
    return runs.wait()


def test_a_run_killed_again_and_again_ends_like_an_undisturbed_one(runs: Runs, tmp_path: Path) -> None:
    runs.start(tmp_path / "whole")
    assert runs.wait() == 0
    (whole,) = (tmp_path / "whole").iterdir()
    expected = without_times(load_record(whole)), journal_without_times(whole / "samples.jsonl")
    chance = random.Random(0)
    kills, rounds = 0, 0
    while kills < KILLS:
        results = tmp_path / str(rounds)
        rounds += 1
        while not finished(results):
            before = content(results)
            kills += kill_at_random(runs, results, chance) == -signal.SIGKILL
            assert content(results).startswith(before[: before.rfind(b"\n") + 1]), "an answered sample was lost"
            if kills >= KILLS and not finished(results):
                runs.start(results)
                assert runs.wait() == 0
        (record,) = results.iterdir()
        assert (without_times(load_record(record)), journal_without_times(record / "samples.jsonl")) == expected
        lines = (record / "samples.jsonl").read_text().splitlines()
        assert len({json.loads(line)["id"] for line in lines}) == len(lines) == 48
    assert rounds <= KILLS, "runs end before they can be killed: this test kills nothing"


def test_a_second_process_on_a_run_is_turned_away(runs: Runs, tmp_path: Path) -> None:
    """Stopped, not killed, the first process still holds its run."""
    process = runs.start(tmp_path)
    wait_until(lambda: bool(content(tmp_path)))
    os.kill(process, signal.SIGSTOP)
    try:
        with pytest.raises(UserError, match="another process is working on the run"):
            run(tmp_path)
    finally:
        os.kill(process, signal.SIGCONT)
    assert runs.wait() == 0
    assert finished(tmp_path)
