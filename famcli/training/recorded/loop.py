"""The loop over steps on recordings; a killed run goes on to the same weights."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from famcli.checkpoints.checkpoint import memory_weights
from famcli.errors import UserError
from famcli.models.config import ModelConfig
from famcli.models.decoder import Decoder
from famcli.models.memories.token_score import TokenScore
from famcli.training import checkpoint
from famcli.training.log import Table
from famcli.training.recorded.recipe import RecordedRecipe, Streams
from famcli.training.recorded.recordings import Recordings, record
from famcli.training.recorded.texts import BLOCKS, Texts

COLUMNS = ("step", "seconds", "learning_rate", "loss", "missed", "false", "gradient_norm")


class RecordedTrainer:
    """Trains the gate of a FAM: a logistic regression on the keys of all layers.

    Args:
        recipe: what to do.
        model: where to begin.
        texts: draws what is recorded.
        directory: gets the recordings, the checkpoint and the log.
        base: identifies the weights to begin with.
    """

    def __init__(self, recipe: RecordedRecipe, model: Decoder, texts: Texts, directory: Path, base: str) -> None:
        self.memory = recipe.check(model.config)
        self.recipe, self.model, self.texts, self.directory, self.base = recipe, model, texts, directory, base
        self.config: ModelConfig = model.config
        self.trained = _only_memory(model, recipe.autocast == "bfloat16")
        self.optimizer = torch.optim.AdamW(self.trained.values(), betas=(0.9, 0.97), weight_decay=0.0)
        self.checkpoint, self.log = directory / "checkpoint.safetensors", Table(directory / "log.csv", COLUMNS)
        self.step, self.seconds = 0, 0.0
        self._recordings: list[tuple[Streams, Recordings, Tensor]] = []

    @property
    def device(self) -> torch.device:
        return self.model.device

    def run(self, report: Callable[[dict[str, Any]], None], tell: Callable[[str], None] = lambda what: None) -> Decoder:
        """Trains to the end of the recipe.

        Args:
            report: gets each line of the log.
            tell: gets a line where something else takes its time.

        Raises:
            UserError: a gradient is not finite; the last checkpoint is kept.
        """
        self._prepare(tell)
        self.log.keep_until(self.step)
        while self.step < self.recipe.steps:
            line = self._one_step()
            if self._due(self.recipe.log_every):
                self.log.append(line)
                report(line)
            if self._due(self.recipe.checkpoint_every):
                self.save()
        self.model.reconfigure(self.config)
        return self.model.eval()

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.recipe.steps

    def _one_step(self) -> dict[str, Any]:
        begun, rate = time.monotonic(), self.recipe.rate_at(self.step)
        rng = np.random.default_rng((self.recipe.seed, 1, self.step))
        losses, missed, false = [], [], []
        for streams, recordings, worth in self._recordings:
            rows = torch.from_numpy(rng.integers(0, len(worth), streams.rows))
            scores = self._scores(recordings, rows)
            told = worth[rows].to(scores.device)
            losses.append(loss_of(scores, told, self.recipe.keep_from))
            missed.append((scores <= 0)[told])
            false.append((scores > 0)[~told])
        loss = torch.stack(losses).mean()
        norm = self._descend(loss, rate)
        self.step += 1
        self.seconds += time.monotonic() - begun
        shares = {"missed": torch.cat(missed).float().mean().item(), "false": torch.cat(false).float().mean().item()}
        done = {"step": self.step, "seconds": round(self.seconds, 1), "learning_rate": rate, "loss": loss.item()}
        return {**done, **shares, "gradient_norm": norm}

    def _scores(self, recordings: Recordings, rows: Tensor) -> Tensor:
        """[R, B] of all layers together, of the recorded blocks ``rows`` [R]."""
        states = []
        for number in range(self.config.layers):
            gate = self.model.layer(number).memory
            assert isinstance(gate, TokenScore)
            states.append({"fam_scores": gate(recordings.keys[number][rows].to(self.device))})
        return self.memory.score(states)

    def _descend(self, loss: Tensor, rate: float) -> float:
        """Takes the optimiser's step; gives the gradient's norm.

        Raises:
            UserError: the gradient is not finite.
        """
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.trained.values() if p.grad is not None]).item()
        if not math.isfinite(norm):
            raise UserError(f"the gradient is {norm} at step {self.step}", "lower the recipe's learning_rate")
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return norm

    def _prepare(self, tell: Callable[[str], None]) -> None:
        """Makes the recordings, or takes those that a run before this one made."""
        for streams in self.recipe.recordings:
            path = self.recordings_path(streams)
            if not path.exists():
                tell(f"recording {BLOCKS * streams.streams:,} blocks of {streams.block_size} tokens")
                self._record(streams, path)
            recordings = Recordings.load(path)
            self._recordings.append((streams, recordings, recordings.worth()))

    def recordings_path(self, streams: Streams) -> Path:
        """Named after all that decides what is recorded: where a recipe has changed, it is recorded anew."""
        recipe, config = self.recipe, self._config(streams)
        streams = dataclasses.replace(streams, rows=1)
        words = (recipe.tellings, recipe.passkey, recipe.key_digits, recipe.recurring, recipe.fillers)
        what = (streams, recipe.seed, *words, recipe.autocast, config, self.base)
        digest = hashlib.sha256(repr(what).encode() + self.texts.corpus.tobytes()).hexdigest()[:12]
        return self.directory / "recordings" / f"{streams.block_size}-{digest}.safetensors"

    def _config(self, streams: Streams) -> ModelConfig:
        """What blocks are read with."""
        slots = min(self.memory.fam_length, streams.block_size)
        memory = dataclasses.replace(self.memory, memory_segments=0, fam_length=slots)
        return dataclasses.replace(self.config, block_size=streams.block_size, memory=memory)

    def _record(self, streams: Streams, path: Path) -> None:
        """Reads with a gate that keeps nothing of itself, however far this run has come."""
        half = self.recipe.autocast == "bfloat16"
        self.model.reconfigure(self._config(streams))
        own = [p.detach().clone() for p in self.trained.values()]
        with torch.no_grad():
            for p in self.trained.values():
                p.zero_()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
                found = record(self.model, self.texts, streams, self.recipe.seed, torch.bfloat16 if half else None)
            for p, weight in zip(self.trained.values(), own, strict=True):
                p.copy_(weight)
        found.save(path)

    def save(self) -> None:
        """Writes what is trained, the optimiser and the place in the recipe, whole."""
        tensors: dict[str, Tensor] = {f"model.{name}": p for name, p in self.trained.items()}
        place = {"step": self.step, "seconds": self.seconds, "base": self.base, "recipe": repr(self.recipe)}
        checkpoint.write(self.checkpoint, tensors | checkpoint.state_of([self.optimizer]), place)

    def resume(self) -> None:
        """Goes on from the checkpoint in the directory.

        Raises:
            UserError: the checkpoint is damaged, or of another model or recipe.
        """
        with checkpoint.explained(self.checkpoint):
            place, tensors = checkpoint.read(self.checkpoint, self.base)
            if place["recipe"] != repr(self.recipe):
                raise UserError(
                    f"{self.checkpoint} was written by another recipe", "leave --resume out to begin, in a new --output"
                )
            with torch.no_grad():
                for name, weight in self.trained.items():
                    weight.copy_(tensors[f"model.{name}"])
            checkpoint.restore([self.optimizer], tensors)
            self.step, self.seconds = int(place["step"]), float(place["seconds"])


def loss_of(scores: Tensor, told: Tensor, keep_from: float) -> Tensor:
    """Cross-entropy a token that is ``told`` [R, B]: those that are not are many, and few of them cost anything.

    A score [R, B] of 0 stands for a probability of ``keep_from``.
    """
    logits = scores + math.log(keep_from / (1 - keep_from))
    losses = F.binary_cross_entropy_with_logits(logits, told.to(logits), reduction="sum")
    return losses / told.sum().clamp(min=1)


def _only_memory(model: Decoder, in_bfloat16: bool) -> dict[str, Tensor]:
    """Freezes all but the memory's weights, and gives these; frozen matrices in the type they are multiplied in."""
    names = memory_weights(model.config)
    model.requires_grad_(False)
    trained: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if name in names}
    for name, module in model.named_modules():
        if in_bfloat16 and isinstance(module, torch.nn.Linear) and f"{name}.weight" not in names:
            module.to(torch.bfloat16)
    for p in trained.values():
        p.requires_grad_(True)
    return trained
