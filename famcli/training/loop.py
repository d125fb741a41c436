"""The training loop: steps, log and checkpoints, so that a killed run goes on to the same weights."""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from famcli.errors import UserError
from famcli.files import replacing, save_tensors
from famcli.models.decoder import Decoder
from famcli.models.tokenizer import Tokenizer
from famcli.training.batch import Batch
from famcli.training.optimizers import make_optimizers
from famcli.training.recipe import Recipe
from famcli.training.step import AGE_BUCKETS, Tally, read_and_ask
from famcli.training.streams import Ids

LOG_EVERY = 10
LOSSES = ["recall_loss", "rehearsal_loss", "text_loss", "filler_loss", "retention_loss"]
COLUMNS = ["step", "seconds", "tokens", "learning_rate", *LOSSES, "gradient_norm"]
AGE_COLUMNS = [f"recall_at_{low}_updates" for low in AGE_BUCKETS]


class Trainer:
    """Trains a decoder from random weights by a recipe.

    Args:
        recipe: what to do.
        tokenizer: of the model.
        corpus: [n] ids of plain text, where the mixture wants some.
        directory: where the checkpoint (``checkpoint.safetensors``) and the log (``log.csv``) are kept.
    """

    def __init__(self, recipe: Recipe, tokenizer: Tokenizer, corpus: Ids | None, directory: Path) -> None:
        self.recipe, self.directory = recipe, directory
        self.model = Decoder(recipe.model)
        self.model.initialise(recipe.seed)
        self.optimizers = make_optimizers(self.model, recipe.optimizer)
        self.batch = Batch(recipe, tokenizer, corpus)
        self.step = 0
        self.tokens = 0
        self.seconds = 0.0

    def run(self, report: Callable[[dict[str, Any]], None]) -> Decoder:
        """Trains to the end of the recipe, to a model of the recipe's config; ``report`` gets each line of the log.

        Raises:
            UserError: the loss is not finite; the last checkpoint is kept.
        """
        tally, since = Tally(), time.monotonic()
        while self.step < self.recipe.steps:
            line = self._one_step(tally)
            if self.step % LOG_EVERY == 0 or self.step == self.recipe.steps:
                now = time.monotonic()
                self.seconds, since = self.seconds + now - since, now
                line |= {"step": self.step, "seconds": round(self.seconds, 1), "tokens": self.tokens}
                line |= dict(zip(AGE_COLUMNS, tally.rates(), strict=True))
                self._log(line)
                report(line)
                tally = Tally()
            if self.step % self.recipe.checkpoint_every == 0 or self.step == self.recipe.steps:
                self.save()
        self.model.reconfigure(self.recipe.model)
        return self.model

    def _one_step(self, tally: Tally) -> dict[str, Any]:
        phase, done = self.recipe.phase_at(self.step)
        self.model.reconfigure(self.recipe.model_at(self.step))
        self.batch.begin(self.step, phase, first=done == 0)
        losses, state = read_and_ask(self.model, self.batch, self.recipe, phase, self.step, tally)
        if not math.isfinite(losses.total.item()):
            raise UserError(
                f"the loss is {losses.total.item()} at step {self.step}; the last good weights are {self._checkpoint}",
                "lower the recipe's learning_rate or clip",
            )
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        losses.total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optimizer.clip)
        rate = self.recipe.learning_rate(self.step)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            optimizer.step()
        self.batch.end(self.step, phase, phase.block_size * phase.blocks, state, losses.lost)
        self.step += 1
        self.tokens += losses.tokens
        return {
            "learning_rate": rate,
            "recall_loss": losses.recall,
            "rehearsal_loss": losses.rehearsal,
            "text_loss": losses.text,
            "filler_loss": losses.filler,
            "retention_loss": losses.changed,
            "gradient_norm": float(norm),
        }

    @property
    def _checkpoint(self) -> Path:
        return self.directory / "checkpoint.safetensors"

    def save(self) -> None:
        """Writes weights, optimiser, carried FAM and place in the recipe, whole or not at all."""
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        tensors |= {f"fam.{i}": t for i, t in enumerate(self.batch.fam)}
        for i, optimizer in enumerate(self.optimizers):
            for j, slots in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{i}.{j}.{name}": t for name, t in slots.items() if isinstance(t, Tensor)}
        place = {"step": self.step, "tokens": self.tokens, "seconds": self.seconds, **self.batch.state_dict()}
        contiguous = {name: t.detach().contiguous() for name, t in tensors.items()}
        save_tensors(contiguous, self._checkpoint, {"place": json.dumps(place)})

    @property
    def has_checkpoint(self) -> bool:
        return self._checkpoint.exists()

    def resume(self) -> None:
        """Goes on from the checkpoint in ``directory``. The recipe's phases to come may have changed.

        Raises:
            UserError: the checkpoint is damaged, or of a model of another shape.
        """
        try:
            self._restore()
        except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{self._checkpoint} is no checkpoint of this recipe: {reason}", "begin anew in another --output"
            ) from error
        self._cut_log()

    def _restore(self) -> None:
        with safe_open(self._checkpoint, framework="pt") as file:
            place = json.loads(file.metadata()["place"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        self.model.load_state_dict({k.removeprefix("model."): t for k, t in tensors.items() if k.startswith("model.")})
        self.batch.fam = [tensors[f"fam.{i}"] for i in range(self.recipe.model.layers)]
        self.batch.load_state_dict(place)
        for i, optimizer in enumerate(self.optimizers):
            saved = optimizer.state_dict()
            for name, tensor in tensors.items():
                if name.startswith(f"optimizer.{i}."):
                    _, _, j, slot = name.split(".")
                    saved["state"].setdefault(int(j), {})[slot] = tensor
            optimizer.load_state_dict(saved)
        self.step, self.tokens, self.seconds = place["step"], place["tokens"], place["seconds"]

    def _log(self, line: dict[str, Any]) -> None:
        path = self.directory / "log.csv"
        new = not path.exists()
        with open(path, "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS + AGE_COLUMNS)
            if new:
                writer.writeheader()
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in line.items()})

    def _cut_log(self) -> None:
        """Drops the lines of steps that will be taken again."""
        path = self.directory / "log.csv"
        if not path.exists():
            return
        with open(path, newline="", encoding="utf-8") as file:
            lines = [line for line in csv.DictReader(file) if int(line["step"]) <= self.step]
        with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS + AGE_COLUMNS)
            writer.writeheader()
            writer.writerows(lines)
