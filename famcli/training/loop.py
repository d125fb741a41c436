"""The training loop: steps, log and checkpoints, so that a killed run goes on to the same weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from famcli.errors import UserError
from famcli.models.attention import SkippedPositions
from famcli.models.decoder import Decoder
from famcli.training import checkpoint
from famcli.training.batch import Batch
from famcli.training.evaluate import Recall, evaluate_recall
from famcli.training.log import AGE_COLUMNS, Log
from famcli.training.lora import add_lora
from famcli.training.losses import Tally
from famcli.training.material import Material
from famcli.training.optimizers import make_optimizers
from famcli.training.recipe import Recipe
from famcli.training.step import Outcome, read_and_ask
from famcli.training.team import ALONE, Team

MOST_SKIPS = 3
"""Places of a block at which positions are skipped."""


def from_scratch(recipe: Recipe) -> Decoder:
    """The recipe's model with random weights; ``UserError`` where they are to be rounded."""
    recipe.config.refuse_rounded("trained")
    model = Decoder(recipe.config)
    model.initialise(recipe.seed)
    return model


def draw_skipped(rng: np.random.Generator, block_size: int, span: int) -> SkippedPositions:
    """Positions of ``block_size`` tokens within ``span``.

    Half of the time all that is skipped is skipped at one place: the longest distances are the hardest to learn. Else
    it is spread over one to ``MOST_SKIPS`` places and the end.
    """
    most = span - block_size
    at_once = rng.random() < 0.5
    skips, least = (1, most) if at_once else (int(rng.integers(1, MOST_SKIPS + 1)), 0)
    places = np.sort(rng.integers(0, block_size, skips))
    skipped = np.sort(rng.integers(least, most + 1, skips))
    tokens = np.arange(block_size)
    before = np.searchsorted(places, tokens, side="right")
    return SkippedPositions(torch.from_numpy(tokens + np.concatenate(([0], skipped))[before]), span)


class Trainer:
    """Trains a decoder by a recipe, in this process or as one of a team.

    Args:
        recipe: what to do; its model is that of ``model``, see ``Recipe.with_model``.
        model: where to begin, on the device to train on; it is given adapters where the recipe wants LoRA.
        material: what sources are drawn from.
        directory: where the checkpoint (``checkpoint.safetensors``) and the log are kept.
        base: identifies the weights to begin with, where they are not random.
        team: the processes that train together. Each has the same arguments, and a model of its own; the first alone
            writes to ``directory``.
        split: the optimisers' state is shared out among them, see ``make_optimizers``.

    Attributes:
        written_by: how many processes the checkpoint was written by from which training goes on.

    Raises:
        UserError: a phase has fewer rows than there are processes.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: Decoder,
        material: Material,
        directory: Path,
        base: str = "",
        team: Team = ALONE,
        *,
        split: bool = False,
    ) -> None:
        self.recipe, self.model, self.material, self.base, self.team = recipe, model, material, base, team
        self.split = split
        _check_rows(recipe, team)
        self.written_by = team.size
        self.device = model.embedding.weight.device
        if recipe.lora:
            add_lora(model, recipe.lora, recipe.seed, torch.bfloat16 if recipe.autocast == "bfloat16" else None)
        else:
            model.requires_grad_(True)
        self.optimizers = make_optimizers(model, recipe.optimizer, split)
        self.batch = Batch(recipe, material, self.device, team)
        self.checkpoint, self.log = directory / "checkpoint.safetensors", Log(directory)
        self.step = 0
        self.tokens = 0
        self.seconds = 0.0
        self._tally, self._logged = Tally(), (0, 0.0)  # since the last line of the log

    def run(
        self,
        report: Callable[[dict[str, Any]], None],
        report_recall: Callable[[int, list[Recall]], None] = lambda step, found: None,
    ) -> Decoder:
        """Trains to the end of the recipe, to a model of the recipe's config.

        Args:
            report: gets each line of the log, in the first process of a team.
            report_recall: gets each evaluation and the step it was made after, there as well.

        Raises:
            UserError: the loss or its gradient is not finite, or a file cannot be written; the last checkpoint is kept.
                Or the processes of the team have not begun with the same.
        """
        if self.team.size > 1:
            self.team.agree(self._begun_with())
        if self.team.first:
            self.log.keep_until(self.step)
        while self.step < self.recipe.steps:
            line = self._one_step(self._tally)
            if self._due(self.recipe.log_every):
                line |= self._since_last_line()
                if self.team.first:
                    self.log.write(line)
                    report(line)
            if self.recipe.evaluate_every and self._due(self.recipe.evaluate_every):
                with self._precision():
                    found = evaluate_recall(self.model, self.recipe, self.material, self.team)
                if self.team.first:
                    self.log.write_recall(self.step, found)
                    report_recall(self.step, found)
            if self._due(self.recipe.checkpoint_every):
                self.save()
        self.model.reconfigure(self.recipe.config)
        return self.model.eval()

    def _since_last_line(self) -> dict[str, Any]:
        """What a line of the log says of the steps since the one before it."""
        (tokens, seconds), tally = self._logged, self._tally.of_all(self.team)
        speed = (self.tokens - tokens) / max(self.seconds - seconds, 1e-9)
        self._tally, self._logged = Tally(), (self.tokens, self.seconds)
        so_far = {"step": self.step, "seconds": round(self.seconds, 1), "tokens": self.tokens}
        return {**so_far, "tokens_per_second": round(speed), **dict(zip(AGE_COLUMNS, tally.rates(), strict=True))}

    def _begun_with(self) -> dict[str, str]:
        """What must be the same in all processes of a team, told shortly."""
        weights = sum(p.detach().double().sum().item() for p in self.model.parameters() if p.requires_grad)
        begun = {"recipe": repr(self.recipe), "texts": self.material.digest(), "--split-optimizer": repr(self.split)}
        return {**begun, "checkpoint": f"{self.step} {self.tokens}", "weights": repr(weights)}

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.recipe.steps

    def _one_step(self, tally: Tally) -> dict[str, Any]:
        begun = time.monotonic()
        phase, done = self.recipe.phase_at(self.step)
        self.model.reconfigure(self.recipe.model_at(self.step))
        self.model.train()
        self.batch.begin(self.step, phase, first=done == 0)
        rate = self.recipe.learning_rate(self.step)
        with self._chance():
            with self._precision():
                found = read_and_ask(self.model, self.batch, self.recipe, phase, self.step, tally)
            outcome = found.of_all(self.team, len(self.batch.rows))
            total, norm = self._descend(outcome, rate)
        self.batch.end(
            self.step, phase, phase.block_size * phase.blocks, self.model.carried(outcome.state), outcome.lost
        )
        self.step += 1
        self.tokens += outcome.tokens
        self.seconds += time.monotonic() - begun
        means = {f"{kind}_loss": mean for kind, mean in outcome.losses.means(self.team).items()}
        return {"learning_rate": rate, "loss": total, **means, "gradient_norm": norm}

    def _descend(self, outcome: Outcome, rate: float) -> tuple[float | None, float | None]:
        """Takes the optimisers' step; gives the loss and the norm of its gradient, ``None`` where there was none.

        Every process adds what its own rows lose to the means over all rows, and so has its part of their gradient.
        """
        if not outcome.losses.teaches:
            return None, None
        part = outcome.losses.total()
        [loss] = self.team.sums([0.0 if part is None else part.item()])
        self._check("loss", loss)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        if part is not None:
            part.backward()
        self.team.sum_gradients([p for p in self.model.parameters() if p.requires_grad])
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optimizer.clip).item()
        self._check("gradient", norm)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            with self.team.together() if self.split else nullcontext():
                optimizer.step()
        return loss, norm

    def _check(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            kept = (
                f"the last good weights are {self.checkpoint}" if self.has_checkpoint else "no checkpoint is there yet"
            )
            raise UserError(
                f"the {what} is {value} at step {self.step}; {kept}", "lower the recipe's learning_rate or clip"
            )

    @contextmanager
    def _chance(self) -> Iterator[None]:
        """What chance decides inside a step follows from seed and step: dropout, and what positions tokens have.

        Dropout alone is drawn for the rows of a process, and so depends on how many there are.
        """
        seed, step = self.recipe.seed, self.step
        if self.recipe.position_offset:
            rng = np.random.default_rng((seed, 3, step))
            self.model.position_offset = int(rng.integers(self.recipe.position_offset))
        phase, _ = self.recipe.phase_at(step)
        if phase.block_positions:
            rng = np.random.default_rng((seed, 5, step))
            self.model.skipped = draw_skipped(rng, phase.block_size, phase.block_positions)
        dropout = bool(self.recipe.lora and self.recipe.lora.dropout)
        try:
            with torch.random.fork_rng(enabled=dropout):
                if dropout:
                    torch.manual_seed(seed * 1_000_003 + step + (self.team.rank << 40))
                yield
        finally:
            self.model.position_offset, self.model.skipped = 0, None

    def _precision(self) -> torch.autocast:
        # Autocast's cache of weights would differ between reading a block and reading it again.
        bfloat16 = self.recipe.autocast == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16, cache_enabled=False)

    def save(self) -> None:
        """Writes what is trained, the optimisers, the carried memory and the place in the recipe, whole.

        The first process of a team writes; the others tell it the memories of their rows, and what is split. All of
        the optimisers' state is there for that moment, in the place of the gradient.

        Raises:
            UserError: it cannot be written.
        """
        memory, tally = self.batch.whole_memory(), self._tally.of_all(self.team)
        state = checkpoint.state_of(self.optimizers)
        if self.split:
            for optimizer in self.optimizers:
                optimizer.zero_grad()
            state = self.team.at_first(state)
        if not self.team.first:
            return
        tensors: dict[str, Tensor] = {
            f"model.{name}": p for name, p in self.model.named_parameters() if p.requires_grad
        }
        tensors |= {f"memory.{i}": t for i, t in enumerate(memory)} | state
        place: dict[str, Any] = {"step": self.step, "tokens": self.tokens, "seconds": self.seconds, "base": self.base}
        place |= {"tally": asdict(tally), "logged": self._logged, **self.batch.state_dict()}
        if self.team.size > 1:
            place["processes"] = self.team.size
        checkpoint.write(self.checkpoint, tensors, place)

    @property
    def has_checkpoint(self) -> bool:
        return self.checkpoint.exists()

    def resume(self) -> None:
        """Goes on from the checkpoint in ``directory``. The recipe's phases to come may have changed.

        Raises:
            UserError: the checkpoint is damaged, or of a model of another shape or other base weights.
        """
        with checkpoint.explained(self.checkpoint):
            self._restore()

    def _restore(self) -> None:
        place, tensors = checkpoint.read(self.checkpoint, self.base)
        weights = {k.removeprefix("model."): t for k, t in tensors.items() if k.startswith("model.")}
        trained = {name for name, p in self.model.named_parameters() if p.requires_grad}
        if weights.keys() != trained:
            raise ValueError(f"it holds other weights, for instance {min(weights.keys() ^ trained)}")
        self.model.load_state_dict(weights, strict=False)
        carried = len(self.recipe.config.memory.carried) * self.recipe.config.layers
        self.batch.restore(place, [tensors[f"memory.{i}"] for i in range(carried)])
        checkpoint.restore(self.optimizers, tensors)
        self.step, self.tokens, self.seconds = place["step"], place["tokens"], place["seconds"]
        if self.team.first:
            self._tally = Tally(**place.get("tally", {}))  # older checkpoints begin it anew
        self.written_by = place.get("processes", 1)
        self._logged = tuple(place.get("logged", (self.tokens, self.seconds)))
        if self.step < self.recipe.steps:
            phase, done = self.recipe.phase_at(self.step)
            if done and len(self.batch.rows) != phase.mixture.size:
                raise ValueError(
                    f"it stopped after step {self.step} with {len(self.batch.rows)} rows in the batch, "
                    f"where the recipe has {phase.mixture.size}"
                )


def _check_rows(recipe: Recipe, team: Team) -> None:
    for i, phase in enumerate(recipe.phases):
        if phase.mixture.size < team.size:
            raise UserError(
                f"phases[{i}] has too few rows for {team.size} processes: {phase.mixture.size}",
                "each wants one at least: more rows in its mixture, or fewer processes",
            )
