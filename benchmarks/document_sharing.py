"""How much sooner are all questions on a document answered when it is read once? Against lm-evaluation-harness.

    python benchmarks/document_sharing.py [--model MODEL] [--data FILE] [--articles N] [--questions N] [--output FILE]

The same questions of QuALITY on the same weights in one process, first by famcli, then by the harness, whose model
reads every request by itself from its first token on (``tests/lm_eval_partner.py``). famcli's time is that of
``evaluate``: reading the records, tokenising, the answers, the scores and the files of the run. The harness's time is
that of its evaluator: building the requests, the answers and the scores, from records in memory. Loading the weights
and building the tasks count for neither. FILE holds articles as the data set's authors released them.

Needs the package ``lm_eval``. Exits with 1 where the scores of a question differ.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TQDM_DISABLE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from lm_eval_partner import DecoderLM, quality_task, run

from famcli.checkpoints.registry import load_model
from famcli.checkpoints.sources import LoadedModel
from famcli.evaluation.record import RunRecord
from famcli.evaluation.runner import evaluate
from famcli.files import write_text
from famcli.task import load_task

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared" / "data" / "quality" / "quality_original_schema.jsonl.gz"
SAMPLE = ROOT / "tasks" / "samples" / "quality.jsonl"
SCORES = {"accuracy": "acc", "accuracy_norm": "acc_norm"}

Article = dict[str, Any]


def first_articles(data: Path, articles: int, questions: int | None) -> list[Article]:
    """The records of the first so many articles, each with at most so many questions."""
    content = gzip.decompress(data.read_bytes()) if data.suffix == ".gz" else data.read_bytes()
    records = [json.loads(line) for line in content.splitlines()]
    kept = list(dict.fromkeys(record["article_id"] for record in records))[:articles]
    return [
        {**record, "questions": record["questions"][:questions]} for record in records if record["article_id"] in kept
    ]


def by_famcli(model: LoadedModel, articles: list[Article], directory: Path) -> tuple[float, RunRecord]:
    """Seconds, and the run."""
    data = directory / "articles.jsonl"
    data.write_text("".join(json.dumps(article) + "\n" for article in articles), encoding="utf-8")
    task = load_task("quality", {"data": str(data)})
    begun = time.perf_counter()
    record = evaluate(model, task, results=directory / "results")
    return time.perf_counter() - begun, record


def by_harness(model: LoadedModel, articles: list[Article]) -> tuple[float, int, dict[str, dict[str, Any]]]:
    """Seconds, tokens read, and the samples by id."""
    lm, task = DecoderLM(model.decoder), quality_task(articles)
    begun = time.perf_counter()
    _, samples = run(lm, task)
    return time.perf_counter() - begun, lm.tokens_read, samples


def compare(record: RunRecord, samples: dict[str, dict[str, Any]]) -> tuple[float, dict[str, int]]:
    """The largest difference between two log-likelihoods, and on how many questions each score differs."""
    entries = [json.loads(line) for line in (record.path / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    if {entry["id"] for entry in entries} != samples.keys():
        raise SystemExit("famcli and the harness answered different questions")
    largest = max(
        abs(ours - theirs)
        for entry in entries
        for ours, (theirs, _) in zip(
            entry["answer"]["log_likelihoods"], samples[entry["id"]]["filtered_resps"], strict=True
        )
    )
    differ = {
        name: sum(entry["scores"][name] != samples[entry["id"]][theirs] for entry in entries)
        for name, theirs in SCORES.items()
    }
    return largest, differ


def main() -> None:
    parser = argparse.ArgumentParser(description="Times famcli against lm-evaluation-harness on QuALITY.")
    parser.add_argument("--model", default="fam-tiny", help="as for famcli eval; over bytes")
    parser.add_argument("--data", type=Path, default=REAL if REAL.exists() else SAMPLE, help="articles as released")
    parser.add_argument("--articles", type=int, default=2, help="the first so many articles of the data")
    parser.add_argument("--questions", type=int, help="at most so many questions a record")
    parser.add_argument("--output", type=Path, help="JSON file for what is printed")
    given = parser.parse_args()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    articles, model = first_articles(given.data, given.articles, given.questions), load_model(given.model)
    with tempfile.TemporaryDirectory() as directory:
        ours, record = by_famcli(model, articles, Path(directory))
        read = record.cost["tokens_read"]
        print(f"famcli:  {ours:8.2f} s, {read:>11,} tokens read", flush=True)
        theirs, tokens, samples = by_harness(model, articles)
        print(f"harness: {theirs:8.2f} s, {tokens:>11,} tokens read")
        largest, differ = compare(record, samples)
    print(f"ratio of times {theirs / ours:.1f}, of tokens {tokens / read:.1f}; {len(samples)} questions, {given.model}")
    print(f"largest difference between two log-likelihoods: {largest:.1e}")
    if given.output:
        found = {"model": given.model, "questions": len(samples), "differ": differ, "largest_difference": largest}
        told = {"seconds": {"famcli": ours, "lm_eval": theirs}, "tokens_read": {"famcli": read, "lm_eval": tokens}}
        write_text(given.output, json.dumps({**found, **told}, indent=1) + "\n")
    for name, questions in differ.items():
        agree = f"differs on {questions} questions" if questions else "agrees"
        print(f"{name}: {record.metrics[name].value:.4f}, {agree}")
    if any(differ.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
