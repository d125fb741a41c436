"""How much sooner is a few-shot task answered when its examples are read once? Against lm-evaluation-harness's ``hf``.

    python benchmarks/few_shot.py CHECKPOINT --data ARC.jsonl.gz [--task arc_challenge] [--few-shot 25] [--rows 50]

The same prompts, made by the harness, on the same checkpoint, a Hugging Face directory, in one process: by
``famcli.evaluate``; by famcli's model in the harness's own evaluator (``python -m famcli.lm_eval``); by the harness's
model ``hf`` in it. They take turns, ``--repeats`` times, and the medians count, in seconds of the processor, which a
busy machine does not lengthen. The first rows of the data are the examples of every prompt, as with
``-o fewshot_sampler=first_n``, and those behind them are asked. Loading the weights and building the tasks count for
nobody; prompts, answers, scores, and famcli's files do.

Needs the package ``lm_eval``. Exits with 1 where two log-likelihoods differ by more than 1e-4 in float32.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch
from lm_eval.evaluator import evaluate as evaluate_theirs
from lm_eval.models.huggingface import HFLM

from famcli.checkpoints.registry import load_model
from famcli.checkpoints.sources import LoadedModel
from famcli.evaluation.runner import evaluate
from famcli.files import write_text
from famcli.harness.loading import Rows, examples_apart, find_file, make, take_first
from famcli.harness.rows import read_rows
from famcli.lm_eval.model import FamcliLM
from famcli.task import load_task

MOST_DIFFERENCE = 1e-4
Likelihoods = dict[str, list[float]]
"""Of each option of each row."""
Turn = Callable[[], tuple[float, Likelihoods, int | None]]
"""Seconds of the processor, likelihoods, and tokens read where they are counted."""


def by_famcli(model: LoadedModel, name: str, options: dict[str, str], batch: int) -> tuple[float, Likelihoods, int]:
    """A whole run of ``famcli eval``."""
    task = load_task(f"lm_eval:{name}", options)
    task.metrics  # noqa: B018  # it builds the task
    with tempfile.TemporaryDirectory() as results:
        begun = time.process_time()
        record = evaluate(model, task, results=Path(results), batch_size=batch)
        took = time.process_time() - begun
        lines = (record.path / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    found = {entry["id"]: entry["answer"]["log_likelihoods"] for entry in entries}
    return took, found, record.cost["tokens_read"]


def by_harness(lm: Any, name: str, rows: Rows, examples: Rows) -> tuple[float, Likelihoods, int | None]:
    """The harness's evaluator with one of its models."""
    file = find_file(name, name)
    task = make(file, rows, {str(examples_apart(make(file, rows))): examples})
    task.set_config(key="num_fewshot", value=len(examples))
    take_first(task, name)
    before = lm.reader.tokens_read if isinstance(lm, FamcliLM) else 0
    begun = time.process_time()
    found = evaluate_theirs(lm=lm, task_dict={"tasks": {name: task}, "groups": {}}, bootstrap_iters=0)
    took = time.process_time() - begun
    samples = found["samples"][name]
    likelihoods = {str(sample["doc_id"]): [one for one, _ in sample["filtered_resps"]] for sample in samples}
    return took, likelihoods, lm.reader.tokens_read - before if isinstance(lm, FamcliLM) else None


def contestants(given: argparse.Namespace, rows: Rows, examples: Rows, folder: Path) -> dict[str, Turn]:
    """Who takes turns, famcli first."""
    options = {"num_fewshot": str(len(examples)), "fewshot_sampler": "first_n"}
    for name, some in (("data", rows), ("fewshot_data", examples)):
        options[name] = str(folder / f"{name}.jsonl")
        write_text(Path(options[name]), "".join(json.dumps(row) + "\n" for row in some))
    spec, dtype = str(given.checkpoint), given.dtype
    ours = FamcliLM(model=spec, device="cpu", dtype=dtype, batch_size=16)
    asked = partial(by_harness, name=given.task, rows=rows, examples=examples)
    found: dict[str, Turn] = {
        "famcli eval": partial(by_famcli, load_model(spec, "cpu", dtype), given.task, options, 16),
        "famcli in lm_eval": partial(asked, ours),
    }
    for size in map(int, given.batch_sizes.split(",")):
        theirs = HFLM(pretrained=spec, device="cpu", dtype=dtype, batch_size=size)
        found[f"lm_eval's hf, batch size {size}"] = partial(asked, theirs)
    return found


def difference(one: Likelihoods, other: Likelihoods) -> float:
    """The largest between two log-likelihoods of the same option."""
    if one.keys() != other.keys():
        raise SystemExit("not the same rows were answered")
    return max(abs(a - b) for row in one for a, b in zip(one[row], other[row], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description="Times a few-shot task against lm-evaluation-harness's own model.")
    parser.add_argument("checkpoint", type=Path, help="a Hugging Face directory that famcli and transformers read")
    parser.add_argument("--data", type=Path, required=True, help="rows of the task as the hub has them")
    parser.add_argument("--task", default="arc_challenge", help="a task of options to weigh, by the harness's name")
    parser.add_argument("--few-shot", type=int, default=25, help="examples in every prompt: the first rows")
    parser.add_argument("--rows", type=int, default=50, help="rows that are asked, from those behind the examples on")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-sizes", default="1", help="of hf, by commas; each takes turns")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--output", type=Path, help="JSON file for what is printed")
    given = parser.parse_args()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    known = read_rows(given.data)
    examples, rows = known[: given.few_shot], known[given.few_shot : given.few_shot + given.rows]
    seconds: dict[str, list[float]] = {}
    likelihoods: dict[str, Likelihoods] = {}
    tokens: dict[str, int | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        turns = contestants(given, rows, examples, Path(folder))
        for _ in range(given.repeats):
            for name, turn in turns.items():
                took, likelihoods[name], tokens[name] = turn()
                seconds.setdefault(name, []).append(took)
                print(f"{name:28} {took:8.2f} s", flush=True)
    requests = sum(map(len, likelihoods["famcli eval"].values()))
    print(f"{given.task}, {given.few_shot} examples, {len(rows)} rows, {requests} requests, {given.dtype}, medians:")
    medians = {name: statistics.median(took) for name, took in seconds.items()}
    told, most = [], 0.0
    for name, median in medians.items():
        apart = difference(likelihoods["famcli eval"], likelihoods[name])
        most = max(most, apart)
        read = f"{tokens[name]:,} tokens read" if tokens[name] else ""
        ratio = median / medians["famcli eval"]
        print(f"{name:28} {median:8.2f} s, {ratio:6.1f} x, likelihoods apart by at most {apart:.1e}  {read}")
        told.append({"name": name, "seconds": seconds[name], "tokens_read": tokens[name], "difference": apart})
    if given.output:
        about = {"task": given.task, "few_shot": given.few_shot, "rows": len(rows), "requests": requests}
        about |= {"dtype": given.dtype, "threads": torch.get_num_threads(), "contestants": told}
        write_text(given.output, json.dumps(about, indent=1) + "\n")
    if given.dtype == "float32" and most > MOST_DIFFERENCE:
        sys.exit(1)


if __name__ == "__main__":
    main()
