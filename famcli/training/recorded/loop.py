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

from famcli.checkpoints.checkpoint import memory_weights
from famcli.errors import UserError
from famcli.models.config import ModelConfig
from famcli.models.decoder import Decoder
from famcli.training import checkpoint
from famcli.training.log import Table
from famcli.training.recorded.course import draw_course
from famcli.training.recorded.recipe import RecordedPhase, RecordedRecipe, Streams
from famcli.training.recorded.recordings import Recordings, record
from famcli.training.recorded.step import RecordedStep
from famcli.training.recorded.texts import BLOCKS, Texts

LOSSES = ("keys", "values", "attention", "rest", "answer", "text")
GATES = ("missed", "opened")
COLUMNS = ("step", "seconds", "keys_told", "learning_rate", "loss", *LOSSES, *GATES, "right", "gradient_norm")


class RecordedTrainer:
    """Trains the FAM's own weights of a model whose other weights stay as they are.

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
        self._recordings: dict[int, Recordings] = {}

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
        if not self.step:
            _begin(self.model, self.texts, self.recipe.lead_slots)
        self.log.keep_until(self.step)
        while self.step < self.recipe.steps:
            number, _ = self.recipe.phase_at(self.step)
            self._prepare(self.recipe.phases[number], tell)
            line = self._one_step(self.recipe.phases[number])
            if line["gradient_norm"] > self.recipe.skip_above:
                tell(f"step {self.step} changes nothing: its gradient has a norm of {line['gradient_norm']:.0f}")
            if self._due(self.recipe.log_every):
                self.log.append(line)
                report(line)
            if self._due(self.recipe.checkpoint_every):
                self.save()
        self.model.reconfigure(self.config)
        return self.model.eval()

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.recipe.steps

    def _one_step(self, phase: RecordedPhase) -> dict[str, Any]:
        begun, recipe = time.monotonic(), self.recipe
        rng = np.random.default_rng((recipe.seed, 1, self.step))
        recordings = self._recordings[int(rng.choice(phase.block_sizes))]
        self._reconfigure(recordings.block_size)
        course = draw_course(rng, recordings, recipe, phase)
        asks, rate = rng.random() < phase.answers, recipe.learning_rate(self.step)
        with self._precision():
            step = RecordedStep(self.model, recordings, recipe, phase, course, asks=asks)
            loss = step.run(rng)
        norm = self._descend(loss, rate)
        self.step += 1
        self.seconds += time.monotonic() - begun
        of = {**dict.fromkeys(LOSSES, step.losses), **dict.fromkeys(GATES, step.gates)}
        means = {name: mean.item() for name, some in of.items() if (mean := some.mean(name)) is not None}
        right = step.right if "answer" in means else None
        done = {"step": self.step, "seconds": round(self.seconds, 1), "keys_told": len(course.told)}
        return {**done, "learning_rate": rate, "loss": loss.item(), **means, "right": right, "gradient_norm": norm}

    def _descend(self, loss: Tensor, rate: float) -> float:
        """Takes the optimiser's step, unless its gradient is too large; gives the gradient's norm.

        Raises:
            UserError: the gradient is not finite.
        """
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), self.recipe.clip).item()
        if not math.isfinite(norm):
            raise UserError(f"the gradient is {norm} at step {self.step}", "lower the recipe's learning_rate")
        if norm <= self.recipe.skip_above:
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
        return norm

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.recipe.autocast == "bfloat16")

    def _reconfigure(self, block_size: int) -> None:
        memory = dataclasses.replace(self.memory, memory_segments=0)
        self.model.reconfigure(dataclasses.replace(self.config, block_size=block_size, memory=memory))

    def _prepare(self, phase: RecordedPhase, tell: Callable[[str], None]) -> None:
        """Makes the recordings of a phase, or takes those that a run before this one made."""
        for streams in self.recipe.recordings:
            if streams.block_size not in phase.block_sizes or streams.block_size in self._recordings:
                continue
            path = self.recordings_path(streams)
            if not path.exists():
                tell(f"recording {BLOCKS * streams.streams:,} blocks of {streams.block_size} tokens")
                self._record(streams, path)
            self._recordings[streams.block_size] = Recordings.load(path)

    def recordings_path(self, streams: Streams) -> Path:
        """Named after all that decides what is recorded: where a recipe has changed, it is recorded anew."""
        recipe = self.recipe
        words = (recipe.tellings, recipe.passkey, recipe.key_digits, recipe.recurring, recipe.fillers)
        what = (streams, recipe.seed, *words, recipe.lead_slots, recipe.answer_slots, recipe.autocast, self.base)
        digest = hashlib.sha256(repr(what).encode() + self.texts.corpus.tobytes()).hexdigest()[:12]
        return self.directory / "recordings" / f"{streams.block_size}-{digest}.safetensors"

    def _record(self, streams: Streams, path: Path) -> None:
        self._reconfigure(streams.block_size)
        with self._precision():
            stored = torch.bfloat16 if self.recipe.autocast == "bfloat16" else None
            record(self.model, self.texts, streams, self.recipe.seed, stored).save(path)

    def save(self) -> None:
        """Writes what is trained, the optimiser and the place in the recipe, whole."""
        tensors = {f"model.{name}": p for name, p in self.trained.items()}
        place = {"step": self.step, "seconds": self.seconds, "base": self.base}
        checkpoint.write(self.checkpoint, tensors, [self.optimizer], place)

    def resume(self) -> None:
        """Goes on from the checkpoint in the directory. Phases to come may have changed.

        Raises:
            UserError: the checkpoint is damaged, or of another model.
        """
        with checkpoint.explained(self.checkpoint):
            place, tensors = checkpoint.read(self.checkpoint, self.base)
            with torch.no_grad():
                for name, weight in self.trained.items():
                    weight.copy_(tensors[f"model.{name}"])
            checkpoint.restore([self.optimizer], tensors)
            self.step, self.seconds = int(place["step"]), float(place["seconds"])


def _only_memory(model: Decoder, in_bfloat16: bool) -> dict[str, Tensor]:
    """Freezes all but the memory's weights, and gives these; frozen matrices in the type they are multiplied in."""
    names = memory_weights(model.config)
    model.requires_grad_(False)
    for module in model.modules():
        if in_bfloat16 and isinstance(module, torch.nn.Linear):
            module.to(torch.bfloat16)
    trained: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if name in names}
    for p in trained.values():
        p.requires_grad_(True)
    return trained


@torch.no_grad()
def _begin(model: Decoder, texts: Texts, lead_slots: int) -> None:
    """An empty group begins as the end of PassKey's question, and as the mean of what keys are made of."""
    table, fam = model.embedding.weight, model.get_parameter("fam_embedding")
    digits = table[texts.digits]
    middle = digits.mean(dim=0)
    asked = texts.first_question[-lead_slots:] if lead_slots else []
    fam[:] = middle * (digits.square().mean() / middle.square().mean()).sqrt()
    fam[: len(asked)] = table[asked]
    noise = torch.randn(fam.shape, generator=torch.Generator().manual_seed(0)).to(fam)
    fam.add_(noise, alpha=0.02)
