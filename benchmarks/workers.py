"""What workers cost and gain: against one process, and while workers and drivers are killed.

python benchmarks/workers.py                    # two and four workers against one process with two threads
python benchmarks/workers.py --kills 30 10      # 30 kills of workers, 10 of the driver
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from ray_processes import workers_of

FAMCLI = [sys.executable, "-c", "import sys; from famcli.cli.main import main; sys.exit(main(sys.argv[1:]))"]
TIMES = ("seconds", "tokens_per_second", "seconds_to_first_answer", "first_answer_seconds", "peak_memory_bytes")
DOCUMENTS = 40


PUBLISHED = {
    "PG-19, 50 books": (50, 94_704, 82_677, 491_500),
    "Isabelle, 16 theories": (16, 60_874, 65_008, 280_500),
    "NarrativeQA, 115 stories": (115, 85_449, 84_376, 505_949),
    "XLSum, 37,747 articles": (37_747, 1_888, 1_304, 13_571),
}
"""Documents of a task, and mean, deviation and maximum of their tokens (arXiv 2404.09173, Table 10; NarrativeQA's 5,878
rows there are questions about 115 stories)."""


def write_documents(folder: Path, documents: int, seed: int) -> Path:
    """Plain texts of 1 to 10 thousand bytes, for pg19."""
    chance = random.Random(seed)
    words = ["grass", "sky", "sun", "river", "house", "green", "blue", "yellow", "runs", "stands", "here", "there"]
    texts = folder / "texts"
    texts.mkdir()
    for number in range(documents):
        size, text = chance.randrange(1_000, 10_000), ""
        while len(text) < size:
            text += " ".join(chance.choice(words) for _ in range(9)).capitalize() + ". "
        (texts / f"{number:03}.txt").write_text(text)
    return texts


def command(output: Path, texts: Path, *more: str) -> list[str]:
    tasks = ["--task", "pg19", "--data", f"pg19={texts}", "--task", "narrativeqa", "--data", "narrativeqa=sample"]
    return [*FAMCLI, "eval", *tasks, "--model", "bswa-tiny", "--output", str(output), *more]


def finish(args: list[str], threads: int) -> float:
    """Seconds by the clock from the start of the command to its end."""
    begun = time.perf_counter()
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(args, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - begun


def told(output: Path) -> dict[str, Any]:
    """All records and samples without times, memory and where they ran, by run."""
    found: dict[str, Any] = {}
    for file in sorted(output.glob("*/run.json")):
        record = json.loads(file.read_text())
        for name in ("started", "finished", "environment"):
            del record[name]
        lines = [json.loads(line) for line in (file.parent / "samples.jsonl").read_text().splitlines()]
        for part in (record["cost"], *lines):
            for name in TIMES:
                part.pop(name, None)
        found[file.parent.name] = [record, {line["id"]: line for line in lines}]
    return found


def worker_seconds(output: Path) -> tuple[float, float]:
    """Of all runs: by the clock from the first worker hired to the last answer, and of all workers together."""
    records = [json.loads(file.read_text()) for file in output.glob("*/run.json")]
    clock = sum(r["environment"].get("workers", {}).get("wall_seconds", 0.0) for r in records)
    return clock, sum(r["cost"]["seconds"] for r in records)


def compare(folder: Path, texts: Path, repeats: int) -> None:
    """One process with two threads, and crews of one thread a worker, in turns."""
    kinds: dict[str, list[str]] = {
        "one process, 2 threads": [],
        "2 workers": ["--workers", "2"],
        "4 workers": ["--workers", "4"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    inside: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    reference: dict[str, Any] | None = None
    for turn in range(repeats):
        for name, more in kinds.items():
            output = folder / f"{turn}-{name.replace(' ', '')}"
            crew = [*more, "--threads-per-worker", "1"] if more else []
            seconds[name].append(finish(command(output, texts, *crew), 2))
            inside[name].append(worker_seconds(output))
            reference = reference or told(output)
            assert told(output) == reference, f"{name}: another record"
    one = statistics.median(seconds["one process, 2 threads"])
    for name, times in seconds.items():
        middle = statistics.median(times)
        clock, own = (statistics.median(pair[i] for pair in inside[name]) for i in (0, 1))
        print(
            f"{name:>24}: {middle:6.1f} s from start to end ({min(times):.1f} to {max(times):.1f}), "
            f"{one / middle:.2f} x; {clock:.1f} s with workers at hand, {own:.1f} s of their time"
        )
    print("records are the same, apart from times and memory")


def kill(folder: Path, texts: Path, workers: int, drivers: int, chance: random.Random) -> None:
    """Kills until there were so many; the command is repeated until it ends, and begins anew where kills are left."""
    whole = finish(command(folder / "whole", texts), 1)
    plain = finish(command(folder / "crew", texts, "--workers", "2"), 1)
    expected, rounds, spent = told(folder / "whole"), 0, 0.0
    left, drivers_left = workers, drivers
    while left or drivers_left:
        output, rounds = folder / f"killed-{rounds}", rounds + 1
        while True:
            begun = time.perf_counter()
            process = subprocess.Popen(
                command(output, texts, "--workers", "2"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            kill_driver = drivers_left > 0 and chance.random() < 0.5
            until = begun + chance.uniform(3, plain)
            while process.poll() is None:
                time.sleep(chance.uniform(0.2, 3))
                if kill_driver and time.perf_counter() > until:
                    process.kill()
                    drivers_left -= 1
                elif left and (found := workers_of(process.pid)):
                    os.kill(chance.choice(found), signal.SIGKILL)
                    left -= 1
            said = process.communicate()[1]
            spent += time.perf_counter() - begun
            if process.returncode == 0:
                break
            assert process.returncode == -signal.SIGKILL or "cost 3 workers" in said or "lost while" in said, said
        found = told(output)
        lost = sum(len(expected[name][1]) - len(found[name][1]) for name in expected)
        assert lost == 0 and found == expected, f"{output}: {lost} samples lost, or other answers"
    each = (spent - rounds * plain) / (workers + drivers)
    print(
        f"{workers} kills of workers and {drivers} of the driver over {rounds} runs of {len(expected)} tasks: "
        f"0 samples lost, 0 answers different; unbroken {plain:.1f} s ({whole:.1f} s without workers), "
        f"{each:.1f} s more a kill"
    )


def lengths(documents: int, mean: float, deviation: float, longest: int) -> list[int]:
    """Tokens of documents of which these are known: quantiles of the log-normal distribution, and the longest."""
    spread = math.log(1 + (deviation / mean) ** 2)
    normal = statistics.NormalDist(math.log(mean) - spread / 2, spread**0.5)
    found = [round(math.exp(normal.inv_cdf((i + 0.5) / documents))) for i in range(documents)]
    return [*(min(length, longest) for length in found[:-1]), longest]


def busy(documents: Sequence[int], workers: int) -> int:
    """Tokens that the last worker to end has read: each takes the longest document that is left."""
    ends = [0] * workers
    for length in sorted(documents, reverse=True):
        heapq.heapreplace(ends, ends[0] + length)
    return max(ends)


def simulate() -> None:
    """How many times faster than one worker, where reading is all that takes time."""
    print("documents                    workers:       8      64     512   the longest is this share of all")
    everything: list[int] = []
    for name, known in PUBLISHED.items():
        documents = lengths(*known)
        everything += documents
        _print_simulated(name, documents)
    _print_simulated("all four in one", everything)


def _print_simulated(name: str, documents: Sequence[int]) -> None:
    total = sum(documents)
    gains = "".join(f"{total / busy(documents, workers):8.1f}" for workers in (8, 64, 512))
    print(f"{name:<36}{gains}   {max(documents) / total:.2%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    parser.add_argument("--kills", type=int, nargs=2, metavar=("WORKERS", "DRIVERS"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--simulate", action="store_true")
    args = parser.parse_args()
    if args.simulate:
        return simulate()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = write_documents(folder, args.documents, args.seed)
        if args.kills:
            kill(folder, texts, *args.kills, random.Random(args.seed))
        else:
            compare(folder, texts, args.repeats)


if __name__ == "__main__":
    main()
