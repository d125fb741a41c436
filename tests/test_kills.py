"""``benchmarks/kills.py`` and ``benchmarks/served.py`` with few kills."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from famcli.checkpoints.registry import find_model

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.slow
def test_killed_and_interrupted_commands_end_as_unbroken_ones() -> None:
    counts = ["--eval", "6", "--train", "3", "--interrupts", "4"]
    done = subprocess.run([sys.executable, str(BENCHMARKS / "kills.py"), *counts], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "eval: 6 kills" in done.stdout and "train: 3 kills" in done.stdout
    assert done.stdout.count("4 interrupts") == 4


@pytest.mark.slow
def test_behind_an_endpoint_no_sample_is_lost_and_none_asked_twice_for_nothing() -> None:
    pytest.importorskip("openai")
    from openai_server import serving

    with serving(find_model("fam-tiny,block_size=64").load(torch.device("cpu"), torch.float32)) as server:
        asked = ["--url", server.url, "--model", "tiny", "--kills", "3", "--faults", "1", "--timeout", "20"]
        command = [sys.executable, str(BENCHMARKS / "served.py"), *asked]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    whole, killed, faulty = done.stdout.splitlines()
    assert whole.startswith("20 samples, 20 questions")
    assert killed.startswith("famcli killed 3 times: 0 samples lost, 0 asked twice for nothing")
    assert faulty == "1 x 500, 1 x 429, 1 x stall, 1 x cut: 0 samples lost, 0 asked twice for nothing"
