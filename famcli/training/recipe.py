"""A recipe: everything that decides what a training run does, read from YAML and checked before anything starts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from famcli.errors import UserError, unknown_name
from famcli.models.config import ModelConfig


@dataclass(frozen=True)
class Mixture:
    """Streams of each kind in a batch.

    Attributes:
        passkey: a key in the classic filler.
        passkey_in_text: a key in plain text.
        repeat: a random string over and over, whose every token after the first round is a recall within the block:
            it teaches copying far sooner than the few digits of a key do.
        text: plain text alone.
    """

    passkey: int = 0
    passkey_in_text: int = 0
    repeat: int = 0
    text: int = 0

    @property
    def rows(self) -> int:
        return self.keys + self.repeat + self.text

    @property
    def keys(self) -> int:
        """Rows with a key; they come first in the batch."""
        return self.passkey + self.passkey_in_text


@dataclass(frozen=True)
class KeyPlaces:
    """Shares of the keys by where they stand in their stream.

    Attributes:
        at_once: at the beginning, or right after the description.
        soon: from the middle of the first block to the end of the third: the FAM holds something already.
        later: anywhere within the recipe's ``longest_wait``.
    """

    at_once: float = 0.5
    soon: float = 0.25
    later: float = 0.25


@dataclass(frozen=True)
class Phase:
    """A stretch of steps of one geometry. All streams start anew with it.

    Attributes:
        steps: optimiser steps.
        mixture: the batch.
        block_size: ``B`` of the model during the phase; what the FAM learns is counted in updates, not tokens, so early
            phases use small blocks.
        blocks: blocks read in a step, through all of which the gradient flows.
        learning_rate: at the phase's first step; ``final_learning_rate`` at its last, linear between.
        state_passing: probability that a stream goes on into the next step with the FAM it has, detached (random
            state passing, appendix B.2.3, with one state a stream in place of one for the whole minibatch).
        fam_noise: deviation of Gaussian noise on the FAM after every block, relative to its root mean square.
        retention: weight of the retention loss, the mean square of what an update changes in the FAM of a stream whose
            key was read before the block, against the FAM before its noise: filler should leave a memory as it is.
        questions: random places in each block at which the streams are asked for what they read.
        key_places: where keys stand.
        fam_scale: of the model at the phase's first step, ``final_fam_scale`` at its last, geometric between; 0 is the
            model's own. The more a FAM keeps of itself, the longer it remembers, and the harder writing is to learn.
        final_fam_scale: see ``fam_scale``.
        rehearsal: most updates that age a FAM at the end of a step, see ``famcli.training.rehearsal``; 0 is none.
        rehearsal_weight: of the mean loss of the answers after it.
        waiting: most updates that age the FAM of a stream whose key is still to come, with no gradient: keys must be
            taken in after any length of filler.
    """

    steps: int
    mixture: Mixture
    block_size: int
    blocks: int
    learning_rate: float
    final_learning_rate: float
    state_passing: float = 0.8
    fam_noise: float = 0.0
    retention: float = 0.0
    questions: int = 1
    key_places: KeyPlaces = KeyPlaces()
    fam_scale: float = 0.0
    final_fam_scale: float = 0.0
    rehearsal: int = 0
    rehearsal_weight: float = 0.5
    waiting: int = 0


@dataclass(frozen=True)
class Optimizer:
    """AdamW, or Muon for the layers' matrices with AdamW for the rest.

    Attributes:
        warmup: steps over which the rate rises linearly from 0.
        clip: largest norm of the gradient.
        muon_factor: with Muon, how many times the learning rate its matrices take.
    """

    name: Literal["adamw", "muon"] = "adamw"
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    muon_factor: float = 10.0


@dataclass(frozen=True)
class Recipe:
    """See the classes of its parts.

    Attributes:
        model: the network; ``block_size`` is what the finished model is given, each phase sets its own.
        recall_loss_weight: weight of the mean loss of answers.
        text_loss_weight: of the next tokens of repeated strings and plain text.
        filler_loss_weight: of the next tokens of streams with a key.
        forget_above: a stream whose last answer lost more nats a token than this has lost its key, and is replaced.
        longest_wait: most blocks of filler before a key.
        checkpoint_every: steps between checkpoints.
    """

    seed: int
    model: ModelConfig
    phases: tuple[Phase, ...]
    optimizer: Optimizer = Optimizer()
    recall_loss_weight: float = 1.0
    text_loss_weight: float = 0.3
    filler_loss_weight: float = 0.1
    forget_above: float = 0.5
    longest_wait: int = 32
    checkpoint_every: int = 100

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    @property
    def needs_text(self) -> bool:
        return any(phase.mixture.passkey_in_text + phase.mixture.text for phase in self.phases)

    def phase_at(self, step: int) -> tuple[Phase, float]:
        """The phase of a step, counted from 0, and how far into it the step is, 0 to 1."""
        for phase in self.phases:
            if step < phase.steps:
                return phase, step / max(1, phase.steps - 1)
            step -= phase.steps
        raise IndexError("step past the end of the recipe")

    def model_at(self, step: int) -> ModelConfig:
        """The model's config at a step: the phase's block size and scale of the FAM."""
        phase, done = self.phase_at(step)
        scale = self.model.fam_scale
        if phase.fam_scale and phase.final_fam_scale:
            scale = phase.fam_scale * (phase.final_fam_scale / phase.fam_scale) ** done
        return dataclasses.replace(self.model, block_size=phase.block_size, fam_scale=scale)

    def learning_rate(self, step: int) -> float:
        """The rate at a step: linear within a phase, with the warm-up on top."""
        phase, done = self.phase_at(step)
        rate = phase.learning_rate + done * (phase.final_learning_rate - phase.learning_rate)
        return rate * min(1.0, (step + 1) / max(1, self.optimizer.warmup))


def load_recipe(path: Path) -> Recipe:
    """Reads a recipe.

    Raises:
        UserError: the file is missing or not YAML, or a field is unknown, missing or not of its type.
    """
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no recipe at {path}", "see configs/recipes/") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {error}") from error
    return _build(Recipe, fields, str(path))


Part = TypeVar("Part")


def _build(kind: type[Part], fields: Any, where: str) -> Part:
    """An instance of the dataclass ``kind`` from a mapping, checked field by field."""
    if not isinstance(fields, Mapping):
        raise UserError(f"{where} must be a mapping of fields, not {type(fields).__name__}")
    hints = get_type_hints(kind)
    values = {}
    for name, value in fields.items():
        if name not in hints:
            raise unknown_name(f"field in {where}:", str(name), hints)
        values[name] = _value(hints[name], value, f"{where}: {name}")
    missing = [
        f.name
        for f in dataclasses.fields(kind)  # type: ignore[arg-type]
        if f.name not in values and f.default is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"{where} lacks the field{'s' * (len(missing) > 1)} {', '.join(missing)}")
    return kind(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    if hint is ModelConfig:
        return ModelConfig.from_mapping(value, where)
    if get_origin(hint) is tuple:
        if not isinstance(value, list) or not value:
            raise UserError(f"{where} must be a list with at least one entry")
        return tuple(_value(get_args(hint)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where)  # type: ignore[arg-type]
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise UserError(f"{where} must be one of {', '.join(get_args(hint))}, not '{value}'")
        return value
    if hint is float and isinstance(value, str) and re.fullmatch(r"[0-9.]+e[+-]?[0-9]+", value):
        value = float(value)  # what YAML 1.1 takes for text: 1e-5
    if isinstance(value, bool) or not isinstance(value, (int, float) if hint is float else int):
        raise UserError(f"{where} must be a {'number' if hint is float else 'whole number'}, not '{value}'")
    if value < 0:
        raise UserError(f"{where} must not be negative, not {value}")
    return hint(value)
