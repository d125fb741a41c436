"""Makes the two models of transformers that docs/models.md sets beside famcli's own.

    python benchmarks/any_model.py smollm2 models/smollm2             # full-135m's weights as a Hugging Face directory
    python benchmarks/any_model.py mamba2 models/mamba2 --minutes 10  # a Mamba-2 over bytes, trained on pass keys here

The Mamba-2 has a million parameters and is trained by itself, on one processor core: first on a key and the question
right behind it, then with more and more filler between them, from the words of the task ``passkey``. Keys are drawn
from another seed than is asked. Minutes are those of the processor.

Needs ``transformers`` and, for the first, ``gguf``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import tokenizers
import torch
from famcli.tasks.passkey import PassKey
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, Mamba2Config, Mamba2ForCausalLM

from famcli.checkpoints.hub_tokenizer import HubTokenizer
from famcli.checkpoints.registry import find_model, list_presets
from famcli.files import write_text

PRESET = "full-135m"
SPECIAL = ("<s>", "</s>")
SHAPE: dict[str, Any] = {
    **{"vocab_size": 256 + len(SPECIAL), "hidden_size": 192, "num_hidden_layers": 4, "expand": 2, "head_dim": 48},
    **{"num_heads": 8, "state_size": 64, "n_groups": 1, "chunk_size": 32, "initializer_range": 0.05},
    **{"tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1},
}
STAGES = ((0.0, 0, 48), (0.35, 60, 32), (0.5, 200, 16), (0.7, 500, 8), (0.85, 1200, 4))
"""From which share of the time on: the most bytes of filler, and rows of a step."""
WHOLE = 200
"""Bytes of filler from which on a text has the description before it."""
RATE, LEAST, WARMUP, CLIP = 3e-3, 1e-4, 20, 1.0
KEY_WEIGHT = 20.0
"""Of a digit of the key, where it is known from before, against a byte of anything else."""


def save_smollm2(folder: Path) -> None:
    """The weights of the preset, and its tokenizer as famcli reads it."""
    package = next(preset.package for preset in list_presets() if preset.name == PRESET)
    tokenizer = find_model(PRESET).tokenizer
    assert package and package.path and isinstance(tokenizer, HubTokenizer)
    file = package.path
    read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    fields = {name: value for name, value in read.config.to_dict().items() if name != "quantization_config"}
    model = AutoModelForCausalLM.from_config(type(read.config).from_dict(fields))  # one that was quantized is not saved
    model.load_state_dict(read.state_dict())
    finish(model, tokenizer, folder)


def finish(model: Any, tokenizer: HubTokenizer, folder: Path) -> None:
    """Writes a directory as the hub has them."""
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_text(folder / "config.json", json.dumps({**config, **tokenizer.save(folder)}, indent=2) + "\n")


def byte_tokenizer() -> HubTokenizer:
    """A token a byte, and two that begin and end a text."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *alphabet))}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    return HubTokenizer(tokenizer.to_str(), {"bos_token_id": 0, "eos_token_id": 1})


class Rows:
    """Texts of PassKey, whole or without their description, and where in them the key is known from before."""

    def __init__(self, tokenizer: HubTokenizer) -> None:
        self.tokenizer, self.words, self.chance = tokenizer, PassKey.training_words, np.random.default_rng(1_000_000)
        self.filler = (self.words["filler"] + " ") * 40

    def batch(self, filler: int, rows: int) -> tuple[Tensor, Tensor]:
        """Tokens [rows, t], and the weight of each but the first [rows, t - 1]; ``filler`` bytes are in each text."""
        made = [self._row(filler) for _ in range(rows)]
        tokens, weights = torch.tensor([ids for ids, _ in made]), torch.tensor([known for _, known in made])
        return tokens, weights[:, 1:]

    def _row(self, filler: int) -> tuple[list[int], list[float]]:
        key = "".join(map(str, self.chance.integers(10, size=5)))
        before = int(self.chance.integers(filler + 1))
        told, again, end = self.words["key_line"].split("{key}")
        description = self.words["description"] + "\n" if filler >= WHOLE else ""
        question = f"{end}\n{self.filler[: filler - before]}\n{self.words['question']} "
        parts = [(f"{description}{self.filler[:before]}\n{told}{key}{again}", 1.0), (key, KEY_WEIGHT), (question, 1.0)]
        parts += [(key, KEY_WEIGHT), (".", 1.0)]
        ids = self.tokenizer.encode("".join(text for text, _ in parts))
        return ids, [weight for text, weight in parts for _ in text]


def train_mamba2(folder: Path, minutes: float) -> None:
    """Trains for so many minutes of the processor, and writes the model with its curve."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    model, rows = Mamba2ForCausalLM(Mamba2Config(**SHAPE)), Rows(tokenizer)
    parameters = sum(weight.numel() for weight in model.parameters())
    print(f"Mamba-2 of {parameters:,} parameters, {minutes:g} minutes", flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    begun, step, told, right = time.process_time(), 0, 0.0, list[float]()
    while (share := (time.process_time() - begun) / (60 * minutes)) < 1:
        _, most, count = max(stage for stage in STAGES if stage[0] <= share)
        tokens, weights = rows.batch(int(rows.chance.integers(most + 1)), count)
        logits = model(tokens[:, :-1]).logits
        losses = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        loss = (losses * weights.flatten()).sum() / weights.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        for group in optimizer.param_groups:
            falling = LEAST + (RATE - LEAST) * (0.5 + 0.5 * math.cos(math.pi * share))
            group["lr"] = falling * min(1.0, (step + 1) / WARMUP)
        optimizer.step()
        step += 1
        right.append(float((logits[:, -6:-1].argmax(-1) == tokens[:, -6:-1]).all(1).float().mean()))
        if share - told > 1 / 40:
            told = share
            print(
                f"{share:4.0%}, step {step}, to {most} bytes: loss {loss:.3f}, keys {np.mean(right[-20:]):.2f}",
                flush=True,
            )
    finish(model, tokenizer, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the models of transformers for the table of docs/models.md.")
    parser.add_argument("model", choices=("smollm2", "mamba2"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the processor, for training")
    given = parser.parse_args()
    if given.model == "smollm2":
        save_smollm2(given.folder)
    else:
        train_mamba2(given.folder, given.minutes)


if __name__ == "__main__":
    main()
