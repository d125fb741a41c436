"""Is memory constant and time linear? PassKey at 64k and at 1M tokens, in one process, as differences and ratios.

    python benchmarks/constant_memory.py [MODEL]

Prints the peak memory of the long run above that of the short one, and the time of the long run over 16 times that of
the short one. The runs alternate, so that a machine that slows down or speeds up does so to both; the ratio is of the
shortest times.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from famcli.checkpoints.registry import load_model
from famcli.checkpoints.sources import LoadedModel
from famcli.evaluation.generation import answer_batch
from famcli.evaluation.prompts import prompt_tokens
from famcli.task import Generate, load_task

SHORT, LONG = 64 * 1024, 1024 * 1024


def seconds(model: LoadedModel, length: int) -> float:
    """Time to read one prompt of ``length`` tokens and to answer it."""
    (sample,) = load_task("passkey", {"lengths": str(length), "trials": "1"}).samples(model.tokenizer, 0, None)
    begun = time.perf_counter()
    request = sample.request()
    assert isinstance(request, Generate)
    prompt = prompt_tokens(request, model.tokenizer)
    (reply,) = answer_batch(model.decoder, model.tokenizer, [request], [prompt], None, lambda tokens: None)
    taken = time.perf_counter() - begun
    scores = sample.score(reply.answer)
    print(f"{length:>9,} tokens: {taken:7.2f} s, state {reply.state_bytes:,} bytes, accuracy {scores['accuracy']:.0f}")
    return taken


def peak() -> int:
    """Bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", nargs="?", default="fam-tiny")
    model = load_model(arguments.parse_args().model)
    seconds(model, SHORT)
    before = peak()
    short, long = zip(*((seconds(model, SHORT), seconds(model, LONG)) for _ in range(2)), strict=True)
    print(f"peak memory of {LONG:,} tokens above that of {SHORT:,}: {(peak() - before) / 2**20:.1f} MiB")
    print(f"time of {LONG:,} tokens over {LONG // SHORT} times that of {SHORT:,}: {min(long) / min(short) / 16:.3f}")


if __name__ == "__main__":
    main()
