"""A process that forks runs for ``test_resume``: it has torch loaded, so that a run starts in milliseconds.

Reads a results directory a line from its input, forks a process that evaluates there, prints its id, waits for another
line, and prints how the process ended.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from famcli.tasks.passkey import PassKey
from small_runs import small_model

from famcli.evaluation.runner import evaluate

OPTIONS = {"lengths": "300,600", "position": "start,random", "trials": "12"}
BATCH_SIZE = 2


def run(results: Path) -> None:
    evaluate(small_model(), PassKey.from_options(OPTIONS), results=results, seed=5, batch_size=BATCH_SIZE)


def main() -> None:
    torch.set_num_threads(1)  # a forked process has none of its parent's threads
    for line in sys.stdin:
        process = os.fork()
        if not process:
            run(Path(line.strip()))
            os._exit(0)
        print(process, flush=True)
        sys.stdin.readline()
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
