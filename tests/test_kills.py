"""``benchmarks/kills.py`` with few kills."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).parent.parent / "benchmarks" / "kills.py"


@pytest.mark.slow
def test_killed_and_interrupted_commands_end_as_unbroken_ones() -> None:
    counts = ["--eval", "6", "--train", "3", "--interrupts", "4"]
    done = subprocess.run([sys.executable, str(KILLS), *counts], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "eval: 6 kills" in done.stdout and "train: 3 kills" in done.stdout
    assert done.stdout.count("4 interrupts") == 4
