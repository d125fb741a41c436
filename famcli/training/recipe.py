"""A recipe: everything that decides what a training run does."""

from __future__ import annotations

import dataclasses
from dataclasses import astuple, dataclass
from typing import Literal, get_args

import numpy as np

from famcli.errors import UserError
from famcli.models.config import ModelConfig

Kind = Literal["passkey", "passkey_in_text", "repeat", "text", "repeat_segment", "qa", "fact"]
"""The sources a batch may have, see ``Mixture``."""

Target = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""Matrices that LoRA can adapt."""

_MOST = {
    "rows": 1 << 16,
    "blocks": 1 << 20,
    "questions": 1 << 16,
    "rehearsal": 1 << 24,
    "rehearsed_rows": 1 << 16,
    "waiting": 1 << 24,
    "drift_updates": 1 << 24,
    "rank": 1 << 16,
    "longest_wait": 1 << 24,
    "segment_length": 1 << 24,
    "evaluate_streams": 1 << 16,
    "steps": 1 << 40,
}
"""Counts beyond which a field is mistyped: something is made for each of what it counts."""
MOST_TOKENS = 1 << 28
"""Of a step, all rows and blocks together."""


def _check_counts(part: object) -> None:
    for name, most in _MOST.items():
        if (value := getattr(part, name, 0)) > most:
            raise UserError(f"{name} must be at most {most:,}, not {value:,}")


@dataclass(frozen=True)
class Mixture:
    """Sources of each kind in a batch: so many rows of each or, with ``rows``, weights to draw them by.

    Attributes:
        passkey: a key in the classic filler.
        passkey_in_text: a key in plain text.
        repeat: a random string over and over, whose every token after the first round is a recall within the block:
            it teaches copying far sooner than the few digits of a key do.
        text: plain text alone.
        repeat_segment: plain text, of which a random segment is to be repeated after the words "[repeat random
            segment]:" (section 3.1).
        qa: documents one after another, each with its questions at its end.
        fact: a key, a name, a place or another fact told in one of many ways, half of them in plain text, the others in
            random sentences over and over.
        rows: rows of the batch; each draws the kind of a new source by the weights above. 0: those are numbers of rows.
    """

    passkey: float = 0
    passkey_in_text: float = 0
    repeat: float = 0
    text: float = 0
    repeat_segment: float = 0
    qa: float = 0
    fact: float = 0
    rows: int = 0

    def __post_init__(self) -> None:
        _check_counts(self)
        if (most := max(self.amounts)) > _MOST["rows"]:
            raise UserError(f"rows and weights must be at most {_MOST['rows']:,}, not {most:,.0f}")
        if not sum(self.amounts):
            raise UserError("the mixture is empty", f"give one of {', '.join(get_args(Kind))} a number")
        for kind, amount in zip(get_args(Kind), self.amounts, strict=True):
            if not self.rows and amount != int(amount):
                raise UserError(f"{kind} must be a whole number of rows, not {amount}", "weights go with rows: N")

    @property
    def amounts(self) -> list[float]:
        """Rows or weights in the order of ``Kind``."""
        return [getattr(self, kind) for kind in get_args(Kind)]

    @property
    def size(self) -> int:
        """Rows of the batch."""
        return self.rows or int(sum(self.amounts))

    def has(self, *kinds: Kind) -> bool:
        """Some row may be of one of ``kinds``."""
        return any(getattr(self, kind) for kind in kinds)

    def kind(self, row: int, rng: np.random.Generator) -> Kind:
        """The kind of a source that ``row`` begins; ``rng`` is drawn from only with weights."""
        kinds: tuple[Kind, ...] = get_args(Kind)
        if self.rows:
            weights = np.array(self.amounts)
            return kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
        return kinds[int(np.searchsorted(np.cumsum(self.amounts), row, side="right"))]


@dataclass(frozen=True)
class KeyPlaces:
    """Shares of the keys by where they stand in their source.

    Attributes:
        at_once: at the beginning, or right after the description.
        early: from the beginning to a quarter into the second block; with ``Phase.waiting``, in a FAM of any age.
        soon: from the middle of the first block to the end of the third: the FAM holds something already.
        later: anywhere within the recipe's ``longest_wait``.
        across: begun in the first block, ended in the second; after a description it comes that much later. With fewer
            than three blocks a step no question comes after the second half has entered the FAM.
        between: like ``across``, but only where the first block ends after the key is told and before it is told again,
            so that each of the two blocks tells it once; of a line that tells it once, after that.
    """

    at_once: float = 0.5
    early: float = 0.0
    soon: float = 0.25
    later: float = 0.25
    across: float = 0.0
    between: float = 0.0

    def __post_init__(self) -> None:
        if not sum(astuple(self)):
            raise UserError("keys stand nowhere", "give at_once, early, soon, later, across or between a share")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of steps of one geometry. All rows begin new sources with it.

    Attributes:
        steps: optimiser steps.
        mixture: the batch.
        block_size: ``B`` of the model during the phase; what the FAM learns is counted in updates, not tokens, so early
            phases use small blocks. 0 is the model's own.
        block_positions: positions that a block spans; what it lacks in tokens is skipped at random places, so that a
            short block has the distances of a long one (PoSE, arXiv 2309.10400). 0: none are skipped.
        rope_factor: of the model during the phase: RoPE may be stretched once blocks get longer; 1 is not stretched, 0
            is the model's own.
        blocks: blocks read in a step, through all of which the gradient flows.
        learning_rate: at the phase's first step; ``final_learning_rate`` at its last, linear between; the same where it
            is left out.
        final_learning_rate: see ``learning_rate``.
        state_passing: probability that a FAM goes on into the next step, detached (random state passing, appendix
            B.2.3). Sinks are not handed on: those of a step are its own first tokens.
        state_passing_from: ``own``: each row goes on with the FAM it has. ``first``, as in the paper: all sources
            are new at every step, and all begin with the FAM that the first row ended with.
        fam_noise: deviation of Gaussian noise on the FAM after every block, relative to its root mean square.
        retention: weight of the retention loss, the mean square of what an update changes in the FAM of a row whose
            key was read before the block, against the FAM before its noise: filler should leave a memory as it is.
        questions: random places in each block at which the rows are asked for what they read, of a step longer than
            the receptive field as many times more; of a document, most questions that are asked at its end.
        key_places: where keys stand.
        few_digits: share of the keys that are made of two or three digits: copying is hardest where a digit recurs and
            others follow it.
        told_once: share of the key lines that tell the key once, not twice. Else a FAM learns to take in pairs alone,
            and a line whose two halves fall into two blocks is lost.
        fam_scale: of a FAM at the phase's first step, ``final_fam_scale`` at its last, geometric between; 0 is the
            model's own. The more a FAM keeps of itself, the longer it remembers, and the harder writing is to learn.
        final_fam_scale: see ``fam_scale``.
        rehearsal: most updates that age a FAM at the end of a step, see ``famcli.training.rehearsal``; 0 is none.
        rehearsal_from: fewest of them.
        rehearsal_weight: of the mean loss of the answers after it.
        rehearsed_rows: most rows that are rehearsed in a step.
        waiting: most updates that age the FAM of three in four new sources before their first block is read: keys must
            be taken in after any length of filler.
        waiting_weight: of the mean logarithm of how far that has turned the FAM: with no key to hold, it should stay.
        drift: weight of the mean logarithm of what a single update changes in a FAM that holds a key, along up to
            ``drift_updates`` updates after the rehearsal, with no gradient from one to the next.
        drift_updates: see ``drift``.
    """

    steps: int
    mixture: Mixture
    block_size: int = 0
    block_positions: int = 0
    rope_factor: float = 0.0
    blocks: int
    learning_rate: float
    final_learning_rate: float | None = None
    state_passing: float = 0.8
    state_passing_from: Literal["own", "first"] = "own"
    fam_noise: float = 0.0
    retention: float = 0.0
    questions: int = 1
    key_places: KeyPlaces = KeyPlaces()
    few_digits: float = 0.0
    told_once: float = 0.0
    fam_scale: float = 0.0
    final_fam_scale: float = 0.0
    rehearsal: int = 0
    rehearsal_from: int = 1
    rehearsal_weight: float = 0.5
    rehearsed_rows: int = 16
    waiting: int = 0
    waiting_weight: float = 0.0
    drift: float = 0.0
    drift_updates: int = 256

    def __post_init__(self) -> None:
        _check_counts(self)
        if self.blocks < 1:
            raise UserError("blocks must be at least 1, not 0")
        if self.rehearsal and not 1 <= self.rehearsal_from <= self.rehearsal:
            raise UserError(f"rehearsal_from must be from 1 to rehearsal ({self.rehearsal}), not {self.rehearsal_from}")
        if self.rehearsal and self.blocks == 1 and not self.state_passing:
            raise UserError(
                "rehearsal asks for keys that were read before the step's last block: here there are none",
                "more blocks, or a state_passing above 0",
            )
        if self.rehearsal and not self.rehearsed_rows:
            raise UserError("rehearsed_rows must be at least 1, not 0")
        if self.drift and not self.drift_updates:
            raise UserError("drift_updates must be at least 1, not 0")
        for name in ("state_passing", "few_digits", "told_once"):
            if getattr(self, name) > 1:
                raise UserError(f"{name} must be from 0 to 1, not {getattr(self, name)}")


@dataclass(frozen=True)
class Optimizer:
    """AdamW, Adafactor, or Muon for the layers' matrices with AdamW for the rest.

    Attributes:
        warmup: steps over which the rate rises linearly from 0.
        clip: largest norm of the gradient.
        muon_factor: with Muon, how many times the learning rate its matrices take.
        fam_factor: how many times the learning rate a memory's embeddings, gates and biases take.
    """

    name: Literal["adamw", "muon", "adafactor"] = "adamw"
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    muon_factor: float = 10.0
    fam_factor: float = 1.0


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters in place of training the base weights (arXiv 2106.09685); the FAM's embeddings train besides.

    Attributes:
        rank: of each adapter.
        alpha: adapters are scaled by alpha / rank.
        dropout: share of an adapter's inputs set to zero while training.
        targets: the matrices of every layer that have one.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: tuple[Target, ...] = get_args(Target)

    def __post_init__(self) -> None:
        _check_counts(self)
        if self.rank < 1:
            raise UserError("rank must be at least 1, not 0")
        if self.dropout >= 1:
            raise UserError(f"dropout must be at least 0 and below 1, not {self.dropout}")


@dataclass(frozen=True)
class Recipe:
    """See the classes of its parts.

    Attributes:
        model: the network, to be trained from random weights; ``block_size`` is what the finished model is given. Left
            out where the recipe trains a model that is there already.
        lora: adapters; left out, all weights are trained.
        recall_loss_weight: weight of the mean loss of keys.
        answer_loss_weight: of the answers to questions about documents.
        segment_loss_weight: of repeated segments; the paper's value.
        text_loss_weight: of the next tokens of repeated strings and plain text.
        filler_loss_weight: of the next tokens of sources with a key and of documents.
        forget_above: a row whose last answer lost more nats a token than this has lost its key: it begins a new source.
        longest_wait: most blocks of filler before a key.
        segment_length: tokens of a segment to repeat.
        position_offset: positions are counted from a number below this, drawn for each step (appendix B.2.2). Attention
            sees differences of positions alone, so it changes nothing but rounding.
        gradient_checkpointing: keep nothing of a block but its state, and read it again for the gradient: memory for
            one block, whatever their number, for a third more time.
        autocast: compute in this type where torch.autocast holds it safe.
        checkpoint_every: steps between checkpoints.
        log_every: steps between lines of the log.
        evaluate_every: steps between evaluations on sources that are not trained on; 0 is never.
        evaluate_blocks: FAM updates after which a key told in the first block is asked for there.
        evaluate_streams: keys.
    """

    seed: int
    phases: tuple[Phase, ...]
    model: ModelConfig | None = None
    lora: Lora | None = None
    optimizer: Optimizer = Optimizer()
    recall_loss_weight: float = 1.0
    answer_loss_weight: float = 1.0
    segment_loss_weight: float = 0.1
    text_loss_weight: float = 0.3
    filler_loss_weight: float = 0.1
    forget_above: float = 0.5
    longest_wait: int = 32
    segment_length: int = 256
    position_offset: int = 0
    gradient_checkpointing: bool = False
    autocast: Literal["none", "bfloat16"] = "none"
    checkpoint_every: int = 100
    log_every: int = 10
    evaluate_every: int = 0
    evaluate_blocks: tuple[int, ...] = (0, 1, 2, 4)
    evaluate_streams: int = 8

    def __post_init__(self) -> None:
        _check_counts(self)
        if (most := max(self.evaluate_blocks)) > _MOST["blocks"]:
            raise UserError(f"evaluate_blocks must be at most {_MOST['blocks']:,}, not {most:,}")
        for name in ("checkpoint_every", "log_every", "evaluate_streams", "segment_length"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not 0")

    def with_model(self, config: ModelConfig) -> Recipe:
        """The recipe for a model of ``config``: what is left to the model is filled in.

        Raises:
            UserError: a phase does not fit the model, or its memory learns nothing from texts.
        """
        if config.memory.chooses:
            raise UserError(
                f"attention {config.memory.name} chooses what it keeps, and a text's loss teaches it nothing",
                "train it on recordings, as configs/recipes/fam-135m.yaml does",
            )
        phases = tuple(dataclasses.replace(p, block_size=p.block_size or config.block_size) for p in self.phases)
        recipe = dataclasses.replace(self, model=config, phases=phases)
        step = 0
        for i, phase in enumerate(phases):
            if 0 < phase.block_positions < phase.block_size:
                raise UserError(
                    f"phases[{i}]: block_positions must be at least the block_size of {phase.block_size}, "
                    f"not {phase.block_positions}"
                )
            if phase.rope_factor not in (0, 1) and config.rope_scaling == "none":
                raise UserError(
                    f"phases[{i}]: rope_factor is {phase.rope_factor:g}, and the model's rope_scaling is none",
                    "give the model rope_scaling: llama3 or linear",
                )
            tokens = phase.mixture.size * phase.blocks * max(phase.block_size, phase.block_positions)
            if tokens > MOST_TOKENS:
                raise UserError(
                    f"phases[{i}]: a step would read {tokens:,} tokens, all rows and blocks together",
                    f"at most {MOST_TOKENS:,}: fewer rows or blocks, or a smaller block_size",
                )
            if phase.steps:
                try:
                    recipe.model_at(step)
                except UserError as error:
                    raise UserError(f"phases[{i}] does not fit the model: {error.message}", error.hint) from None
            step += phase.steps
        return recipe

    @property
    def config(self) -> ModelConfig:
        """The model's config, once it is known."""
        assert self.model is not None, "a recipe without a model must be given one, see with_model"
        return self.model

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    def has(self, *kinds: Kind) -> bool:
        """Some phase has sources of one of ``kinds``."""
        return any(phase.mixture.has(*kinds) for phase in self.phases)

    def phase_at(self, step: int) -> tuple[Phase, float]:
        """The phase of a step, counted from 0, and how far into it the step is, 0 to 1."""
        for phase in self.phases:
            if step < phase.steps:
                return phase, step / max(1, phase.steps - 1)
            step -= phase.steps
        raise IndexError("step past the end of the recipe")

    def model_at(self, step: int) -> ModelConfig:
        """The model's config at a step: the phase's block size, stretch of RoPE and scale of the FAM."""
        phase, done = self.phase_at(step)
        fields = {"block_size": phase.block_size, "rope_factor": phase.rope_factor or self.config.rope_factor}
        if phase.fam_scale and phase.final_fam_scale and hasattr(self.config.memory, "fam_scale"):
            fields["fam_scale"] = phase.fam_scale * (phase.final_fam_scale / phase.fam_scale) ** done
        return self.config.override(fields, "the model")

    def learning_rate(self, step: int) -> float:
        """The rate at a step: linear within a phase, with the warm-up on top."""
        phase, done = self.phase_at(step)
        final = phase.learning_rate if phase.final_learning_rate is None else phase.final_learning_rate
        rate = phase.learning_rate + done * (final - phase.learning_rate)
        return rate * min(1.0, (step + 1) / max(1, self.optimizer.warmup))
