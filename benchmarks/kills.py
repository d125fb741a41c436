"""Runs are killed and interrupted, and repeated until they are done. Then they must equal an unbroken run, byte for
byte; only times may differ.

    python benchmarks/kills.py                      # 50 kills of eval, 20 of train, 20 interrupts of either

``famcli`` is called as a user calls it, on a small random model, and killed at moments drawn from all of its time,
imports and the writing of files among them.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

FAMCLI = [sys.executable, "-c", "import sys; from famcli.cli.main import main; sys.exit(main())"]
SHAPE = {"vocab_size": 257, "width": 32, "layers": 2, "heads": 2, "kv_heads": 2, "head_width": 16, "ffn_width": 64}
MODEL = {**SHAPE, "attention": "fam", "block_size": 32, "memory_segments": 1, "fam_length": 2}
RECIPE: dict[str, Any] = {
    "seed": 1,
    "model": MODEL,
    "phases": [{"steps": 60, "mixture": {"passkey": 2}, "blocks": 4, "learning_rate": 0.01}],
    "checkpoint_every": 3,
    "log_every": 2,
    "evaluate_every": 20,
}
STARTING = 0.05
"""Seconds in which Python itself starts: an interrupt may end it with a traceback of its own, before famcli begins."""
TIMES = ("seconds", "tokens_per_second", "seconds_to_first_answer", "first_answer_seconds", "peak_memory_bytes")


def command(*args: str | Path) -> list[str]:
    return [*FAMCLI, *map(str, args)]


def stop(args: list[str], after: float, by: signal.Signals) -> tuple[int, str]:
    """Sends a signal after so many seconds; gives the exit code, and what was said on standard error."""
    process = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(after)
    process.send_signal(by)
    _, said = process.communicate()
    return process.returncode, said


def finish(args: list[str]) -> float:
    """Lets a command run; gives its seconds."""
    begun = time.perf_counter()
    done = subprocess.run(args, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - begun


def results_of(output: Path) -> dict[str, Any]:
    """The records and samples of all runs, without times and the memory of processes; other files by name."""
    found: dict[str, Any] = {}
    for file in sorted(path for path in output.rglob("*") if path.is_file()):
        name = str(file.relative_to(output))
        if file.name == "run.json":
            record = json.loads(file.read_text())
            for field in ("started", "finished"):
                del record[field]
            for field in TIMES:
                record["cost"].pop(field, None)
            found[name] = record
        elif file.name == "samples.jsonl":
            entries = [json.loads(line) for line in file.read_text().splitlines()]
            found[name] = [{k: v for k, v in e.items() if k not in TIMES} for e in entries]
        else:
            found[name] = file.read_bytes()
    return found


def training_of(output: Path) -> dict[str, Any]:
    """The weights, and all that is told of the training, without times."""
    found: dict[str, Any] = {"weights": (output / "model.safetensors").read_bytes()}
    for name in ("log.csv", "evaluation.csv"):
        with open(output / name, newline="") as file:
            lines = list(csv.DictReader(file))
        found[name] = [{k: v for k, v in e.items() if k not in ("seconds", "tokens_per_second")} for e in lines]
    config = json.loads((output / "config.json").read_text())
    del config["trained"]["seconds"]
    return {**found, "config": config, "names": sorted(path.name for path in output.iterdir())}


class Work:
    """A command in a folder, and what an unbroken run of it leaves."""

    def __init__(self, name: str, args: Callable[[Path], list[str]], read: Callable[[Path], Any], folder: Path) -> None:
        self.name, self.args, self.read, self.folder = name, args, read, folder
        self.seconds = finish(args(folder / "whole"))
        self.expected = read(folder / "whole")

    def killed(self, kills: int, chance: random.Random) -> str:
        """Kills runs until there were ``kills``; each is gone on with until it is done."""
        done = rounds = 0
        while done < kills:
            output = self.folder / f"killed-{rounds}"
            rounds += 1
            for _ in range(chance.randint(1, 6)):
                code, _ = stop(self.args(output), chance.uniform(0, self.seconds), signal.SIGKILL)
                done += code == -signal.SIGKILL
                if done == kills:
                    break
            finish(self.args(output))
            assert self.read(output) == self.expected, f"{output} holds something else"
        return f"{self.name}: {done} kills in {rounds} runs, all as the unbroken one of {self.seconds:.1f} s"

    def interrupted(self, times: int, within: float, chance: random.Random) -> str:
        """Interrupts runs within so many seconds of their beginning; then lets them end."""
        output = self.folder / f"interrupted-{within:g}"
        codes: dict[int, int] = {}
        for _ in range(times):
            code, said = stop(self.args(output), chance.uniform(STARTING, within), signal.SIGINT)
            assert code in (0, 130), (code, said)
            assert not any(word in said for word in ("Traceback", "KeyboardInterrupt", "Exception")), said
            codes[code] = codes.get(code, 0) + 1
        finish(self.args(output))
        assert self.read(output) == self.expected, f"{output} holds something else"
        words = ", ".join(f"{count} with exit code {code}" for code, count in sorted(codes.items()))
        return f"{self.name}: {times} interrupts within {within:.1f} s ({words}), no traceback, nothing lost"


def works(folder: Path) -> list[Work]:
    """An evaluation with short samples, shared documents and a long text; a training."""
    recipe = folder / "small.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    model = folder / "model"

    def train(output: Path) -> list[str]:
        resume = ["--resume"] if (output / "checkpoint.safetensors").exists() else []
        return command("train", "--recipe", recipe, "--output", output, "--device", "cpu", "--threads", "1", *resume)

    def evaluate(output: Path) -> list[str]:
        tasks = [word for task in ("passkey", "quality", "pg19") for word in ("--task", task)]
        options = ["-o", "lengths=300,600", "-o", "trials=30", "--data", "sample", "--batch-size", "2"]
        return command("eval", *tasks, *options, "--model", model, "--output", output)

    training = Work("train", train, training_of, folder / "train")
    (folder / "train" / "whole").rename(model)
    return [Work("eval", evaluate, results_of, folder / "eval"), training]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eval", type=int, default=50, help="kills of eval")
    parser.add_argument("--train", type=int, default=20, help="kills of train")
    parser.add_argument("--interrupts", type=int, default=20, help="of either, in the first second and anywhere")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments")
    args = parser.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        for work, kills in zip(works(Path(folder)), (args.eval, args.train), strict=True):
            print(work.killed(kills, chance), flush=True)
            for within in (1.0, work.seconds):
                print(work.interrupted(args.interrupts, within, chance), flush=True)


if __name__ == "__main__":
    main()
