"""One fair experiment: the same small model with each memory, trained alike, asked alike.

    python benchmarks/zoo.py                        # every memory, three seeds: over an hour of one core
    python benchmarks/zoo.py --memories fam,armt --seeds 0
    python benchmarks/zoo.py --table                # the tables of what was run, from its records
    python benchmarks/zoo.py --page docs/memories.md        # puts them into the page, and pictures into docs/memories

All models of a seed begin with one base, which has learned to go on with random strings that repeat within a block:
what is found is to be the memory's doing, not that of learning to copy. Then each learns the task ``remember``, bytes,
a pair of a key and its value in each block of 16 tokens, and behind the text every key asked for. Nothing but the
memory passes from block to block, and all memories have about the same bytes a layer. Every model sees the same rows in
the same order: first texts of one pair, then of up to 2, 4 and 8. Gradient flows through all blocks of a row. Then
``famcli.evaluate`` asks ``remember`` and ``rewrite``, and the records stay in ``--output``.

Weights go to ``models/zoo``, out of git.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from famcli.tasks.remembering import LETTERS, QUESTION, BlockText, Remember
from torch import Tensor
from torch.nn import functional as F
from zoo_models import ASKED, BLOCK, MEMORIES, SHAPE, config_of
from zoo_pictures import draw_pictures
from zoo_records import read_scores
from zoo_tables import claims, distances, experiment, renewed

import famcli
from famcli.checkpoints.decoders import save_checkpoint
from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.evaluation.prompts import open_prompt, special_tokens_of
from famcli.files import write_text
from famcli.models.config import ModelConfig
from famcli.models.decoder import Decoder
from famcli.seams import FramedEncoder

BASE_STEPS, BASE_BLOCK, BASE_RATE = 300, 64, 2e-3
STAGES = (1, 2, 4, 8)
"""Most pairs of a row, each for a quarter of the steps; a row of a stage has as many or fewer."""
ROWS = 32
RATE, GATE_RATE, WARMUP, CLIP = 1e-3, 1e-2, 50, 1.0


class Rows:
    """Training rows: the texts of ``remember`` of another seed than is asked, and all their keys."""

    def __init__(self) -> None:
        self.tokenizer = ByteTokenizer()
        self.special = special_tokens_of(self.tokenizer, False)
        self.task = Remember.from_options({"pairs": "1", "block": str(BLOCK), "key_symbols": "1", "queries": "16"})
        self.texts = BlockText(self.task, FramedEncoder(self.tokenizer, self.special))

    def batch(self, seed: int, step: int, pairs: int) -> tuple[Tensor, Tensor]:
        """Texts [rows, pairs * BLOCK], and questions with their answers [rows * pairs, 6], text by text."""
        texts, questions = [], []
        for row in range(ROWS):
            draw = self.task.draw(1_000_000 + seed, pairs, step * ROWS + row, pairs)
            request = self.texts.samples(draw)[0].request()
            texts.append(open_prompt(request.prompt, self.tokenizer, self.special)[1])
            questions += [self.tokenizer.encode(QUESTION.format(key=k) + v + ",") for k, v in draw.pairs]
        return torch.stack([torch.from_numpy(text) for text in texts]), torch.tensor(questions)


def repeated(seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Random strings over and over, [rows, BASE_BLOCK], and what of them is known from before."""
    chance = torch.Generator().manual_seed(seed * 1_000_003 + step)
    letters = torch.tensor(list(LETTERS.encode()))
    rows, known = [], []
    for _ in range(ROWS):
        period = int(torch.randint(6, 25, (1,), generator=chance))
        text = letters[torch.randint(len(letters), (period,), generator=chance)]
        rows.append(text.repeat(BASE_BLOCK // period + 1)[:BASE_BLOCK])
        known.append(torch.arange(1, BASE_BLOCK) > period)
    return torch.stack(rows), torch.stack(known)


def base(seed: int) -> dict[str, Tensor]:
    """Weights that copy within a block; the memories' own are not among them."""
    model = Decoder(ModelConfig.from_mapping({**SHAPE, "attention": "bswa", "block_size": BASE_BLOCK}, "base"))
    model.initialise(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=BASE_RATE, betas=(0.9, 0.98))
    for step in range(BASE_STEPS):
        tokens, known = repeated(seed, step)
        latents, _ = model.read(tokens[:, :-1], model.start(ROWS))
        loss = F.cross_entropy(model.logits(latents[known]), tokens[:, 1:][known])
        descend(model, optimizer, loss, min(1.0, (step + 1) / WARMUP))
    print(f"base {seed}: {loss.item():.3f} nats a token of a string that was there before", flush=True)
    return model.state_dict()


def descend(model: Decoder, optimizer: torch.optim.Optimizer, loss: Tensor, scale: float) -> None:
    """One step, at ``scale`` times the rates."""
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    for group in optimizer.param_groups:
        group["lr"] = group.get("base", BASE_RATE) * scale
    optimizer.step()


def loss_of(model: Decoder, texts: Tensor, questions: Tensor) -> tuple[Tensor, float]:
    """Cross-entropy of the values and the commas behind them; the share of values that are right."""
    pairs = len(questions) // len(texts)
    _, state = model.read(texts, model.start(len(texts)))
    asked = state.index(torch.arange(len(texts)).repeat_interleave(pairs))
    latents, _ = model.read(questions[:, :-1], asked)
    logits = model.logits(latents[:, -2:])
    loss = F.cross_entropy(logits.flatten(0, 1), questions[:, -2:].flatten())
    return loss, float((logits[:, 0].argmax(-1) == questions[:, -2]).float().mean())


def groups_of(model: Decoder) -> list[dict[str, Any]]:
    """Gates have a rate of their own and no decay: at the model's rate they hardly move."""
    gates, others = [], []
    for name, weight in model.named_parameters():
        (gates if name.endswith("gate") else others).append(weight)
    found = [{"params": others, "base": RATE, "weight_decay": 0.01}]
    return [*found, {"params": gates, "base": GATE_RATE, "weight_decay": 0.0}] if gates else found


def train(name: str, seed: int, steps: int, copying: dict[str, Tensor], folder: Path) -> None:
    """Trains one model, and writes it with its curve."""
    model, rows = Decoder(config_of(name)), Rows()
    model.initialise(seed)
    model.load_state_dict(copying, strict=False)
    optimizer = torch.optim.AdamW(groups_of(model), lr=RATE, betas=(0.9, 0.98))
    chance, begun, curve = torch.Generator().manual_seed(seed), time.process_time(), []
    right = 0.0
    for step in range(steps):
        most = STAGES[step * len(STAGES) // steps]
        pairs = 1 + int(torch.randint(most, (1,), generator=chance))
        loss, found = loss_of(model, *rows.batch(seed, step, pairs))
        descend(model, optimizer, loss, min(1.0, (step + 1) / WARMUP) * (0.5 + 0.5 * math.cos(math.pi * step / steps)))
        right += found
        if (step + 1) % max(1, steps // 12) == 0:
            curve.append([step + 1, most, round(right / max(1, steps // 12), 3)])
            print(f"{name} {seed}: step {step + 1}, to {most} pairs: {curve[-1][2]:.3f} right", flush=True)
            right = 0.0
    trained = {
        "steps": steps,
        "rows": ROWS,
        "seed": seed,
        "seconds": round(time.process_time() - begun),
        "curve": curve,
    }
    save_checkpoint(model, rows.tokenizer, folder, {"trained": trained})


def ask(name: str, seed: int, folder: Path, output: Path) -> None:
    """Runs the tasks; the seed of the questions is 0 for all."""
    spec = f"{folder},name={name}-{seed}"
    for task, options in ASKED.items():
        (record,) = famcli.evaluate(spec, task, options=options, output=output)
        scores = ", ".join(f"{cell['pairs']} pairs {cell['exact_match']:.2f}" for cell in record.cells)
        print(f"{name} {seed}: {task}: {scores}", flush=True)


def show(output: Path, page: Path | None) -> None:
    """What the records in ``output`` say: as tables and pictures of ``page``, or printed, as tables alone."""
    found = read_scores(output)
    if not found:
        sys.exit(f"no finished runs in {output}; python benchmarks/zoo.py --output {output} makes them")
    tables = [experiment(found), distances(found), claims(found)]
    if page is None:
        return print(*tables, sep="\n\n")
    write_text(page, renewed(page.read_text(encoding="utf-8"), tables))
    print(page, *draw_pictures(found, page.with_suffix("")), sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memories", default=",".join(MEMORIES), help="of these, by commas")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--output", type=Path, default=Path("results/zoo"))
    parser.add_argument("--models", type=Path, default=Path("models/zoo"))
    parser.add_argument("--table", action="store_true", help="of what was run, as Markdown")
    parser.add_argument("--page", type=Path, help="a page with such tables: renews them, and its pictures beside it")
    args = parser.parse_args()
    if args.table or args.page:
        return show(args.output, args.page)
    for seed in map(int, args.seeds.split(",")):
        copying: dict[str, Tensor] = {}
        for name in args.memories.split(","):
            folder = args.models / f"{name}-{seed}"
            config = folder / "config.json"
            if not config.exists() or json.loads(config.read_text())["trained"]["steps"] != args.steps:
                copying = copying or base(seed)
                train(name, seed, args.steps, copying, folder)
            ask(name, seed, folder, args.output)


if __name__ == "__main__":
    assert len(LETTERS) >= max(ASKED["remember"]["pairs"])
    main()
