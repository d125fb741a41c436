"""How long a command takes that computes nothing: help, a listing, and a finished run shown again.

    python benchmarks/startup.py [--repeats 5] [--output startup.json]

Each call is a process of its own, in turns, timed by the clock: medians, with the least and the most. Beside them, the
help of lm-evaluation-harness, where it is installed, and the import of PyTorch. The finished run is of PassKey on the
bundled model. It is made before the clock starts, in a temporary directory.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

from famcli.files import write_text

FAMCLI = [sys.executable, "-c", "import sys; from famcli.cli.main import main; sys.exit(main())"]
RUN = ["eval", "--task", "passkey", "--model", "fam-tiny", "-o", "lengths=1k", "-o", "trials=2"]


def commands(results: str) -> dict[str, list[str]]:
    """What is timed, by its name."""
    found = {
        "famcli --help": [*FAMCLI, "--help"],
        "famcli list models": [*FAMCLI, "list", "models"],
        "famcli list tasks": [*FAMCLI, "list", "tasks"],
        "a finished run": [*FAMCLI, *RUN, "--output", results],
        "famcli compare": [*FAMCLI, "compare", "--output", results],
        "import torch": [sys.executable, "-c", "import torch"],
    }
    if importlib.util.find_spec("lm_eval"):
        found["lm_eval --help"] = [sys.executable, "-m", "lm_eval", "--help"]
    return found


def seconds(command: list[str]) -> float:
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"})
    if done.returncode:
        sys.exit(done.stderr)
    return time.perf_counter() - begun


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--output", type=Path, help="JSON file for all times")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as results:
        timed = commands(results)
        seconds([*FAMCLI, *RUN, "--output", results])
        taken: dict[str, list[float]] = {name: [] for name in timed}
        for _ in range(options.repeats):
            for name, command in timed.items():
                taken[name].append(seconds(command))
    print(f"{'command':22}{'seconds':>8}  of {options.repeats}")
    for name, times in taken.items():
        print(f"{name:22}{median(times):8.2f}  [{min(times):.2f}, {max(times):.2f}]")
    if options.output:
        machine = {"processor": platform.processor() or platform.machine(), "python": platform.python_version()}
        versions = {name: version(name) for name in ("famcli", "torch")}
        write_text(options.output, json.dumps({"machine": {**machine, **versions}, "seconds": taken}, indent=1) + "\n")


if __name__ == "__main__":
    main()
