"""One optimiser step's loss: dense questions along rows that are read block by block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from famcli.models.decoder import Decoder
from famcli.models.state import StreamState
from famcli.training.batch import Batch
from famcli.training.losses import Loss, Losses, Tally
from famcli.training.reading import Asked, Cut, read_block, token_losses
from famcli.training.recipe import Phase, Recipe
from famcli.training.rehearsal import CARRY_AGED, Noise, add_noise, draw_updates, rehearse, strides
from famcli.training.sources import Asking, Question, Reading
from famcli.training.team import Team

LOST = 1.0
"""Nats a token of an answer above which a rehearsed key is lost and teaches nothing."""

WAITING, WAITING_ONCE = 0.75, 0.15
"""Shares of rows with a new source whose FAM is no fresh one, and whose FAM has read a single block."""

DRIFTS = 16
"""Updates of an ageing memory of which the drift is taken."""

LEAST_CHANGE, LEAST_TURN = 1e-8, 1e-3
"""Below these a change counts for nothing."""


@dataclass
class Outcome:
    """What a step found.

    Attributes:
        losses: its means.
        state: after the last block, of the rows of this process.
        lost: rows whose key is lost.
        tokens: read, those of questions and answers included.
    """

    losses: Losses
    state: StreamState
    lost: set[int]
    tokens: int

    def of_all(self, team: Team, rows: int) -> Outcome:
        """What the processes found together, of that many rows; of the losses, each keeps the sums of its own."""
        counts = self.losses.counts
        said = [*counts.values(), self.tokens, *(row in self.lost for row in range(rows))]
        found = [int(number) for number in team.sums(said)]
        losses = self.losses.among(dict(zip(counts, found, strict=False)))
        tokens, *lost = found[len(counts) :]
        return Outcome(losses, self.state, {row for row in range(rows) if lost[row]}, tokens)


def read_and_ask(model: Decoder, batch: Batch, recipe: Recipe, phase: Phase, step: int, tally: Tally) -> Outcome:
    """Reads the next blocks of every row; at random places in each block, asks the rows that know something by then.

    A question is asked in a side branch: neither question nor answer enters the row, and one sequence teaches recall
    at every distance.
    """
    return _Step(model, batch, recipe, phase, step, tally).run()


class _Step:
    """The losses of one step while they come together."""

    def __init__(self, model: Decoder, batch: Batch, recipe: Recipe, phase: Phase, step: int, tally: Tally) -> None:
        self.model, self.batch, self.recipe, self.phase, self.tally = model, batch, recipe, phase, tally
        self.team = batch.team
        self.rng = np.random.default_rng((recipe.seed, 2, step))
        self.generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        self.tokens = batch.tokens(phase.block_size * phase.blocks + 1)
        self.carries = bool(model.config.memory.carried)
        self.losses = Losses(recipe, phase)
        self.lost: set[int] = set()
        self.read = 0

    def run(self) -> Outcome:
        phase, carries, noise = self.phase, self.carries, self._noise(range(len(self.batch.rows)))
        state = self.batch.start(self.model)
        if carries and phase.waiting:
            self._wait(state)
        memory = self._held(state)
        for block in range(phase.blocks):
            state = self._read_block(block, state)
            if carries:
                self._keep(block, memory, state)
                memory = self._held(state)
                if phase.fam_noise:
                    add_noise(self.model, state, phase.fam_noise, noise)
        if carries and phase.rehearsal:
            self._rehearse(state)
        if not carries:
            self.lost = set(self.batch.keys(phase.block_size * phase.blocks))  # no key outlasts a step
        return Outcome(self.losses, state, self.lost, self.read)

    def _noise(self, rows: Sequence[int]) -> Noise:
        """What is added to states of those of ``rows`` that are here."""
        own = set(self.team.own(rows))
        return Noise(self.generator, len(rows), [place for place, row in enumerate(rows) if row in own])

    def _read_block(self, block: int, state: StreamState) -> StreamState:
        start, stop = block * self.phase.block_size, (block + 1) * self.phase.block_size
        cuts = self._cuts(block)
        keep = not self.recipe.gradient_checkpointing
        latents, state, answers = read_block(self.model, self.tokens[:, start:stop], state, cuts, keep)
        self._predict(latents, self.tokens[:, start + 1 : stop + 1])
        asked = [(start + place, a) for place, some in cuts for a in some]
        for (ahead, a), predicting in zip(asked, answers, strict=True):
            lost = self._answer(a, predicting, a.kind, ahead)
            if a.kind == "recall":
                self.lost = lost
        return state

    def _cuts(self, block: int) -> list[Cut]:
        """Where in a block questions are asked: at random places, and where documents end."""
        size = self.phase.block_size
        first = max(0, self.batch.first_askable() - block * size)
        places = sorted(int(p) for p in self.rng.integers(first, size, self._places())) if first < size else []
        if self.phase.rehearsal and block + 1 == self.phase.blocks and not any(places):
            places = [size // 2]  # a block read in several parts leaves its keys and values in the state
        cuts = [
            (place, self._asked(self.batch.askable(block * size + place), block * size + place)) for place in places
        ]
        for place, rows in self.batch.ending(block * size, (block + 1) * size).items():
            cuts.append((place - block * size, self._asked(rows, place)))
        return sorted(cuts, key=lambda cut: cut[0])

    def _places(self) -> int:
        """Places of a block at which questions are asked: the more, the fewer blocks of the step know of a key."""
        field = self.model.config.receptive_field
        if field is None:
            return self.phase.questions
        return self.phase.questions * math.ceil(self.phase.block_size * self.phase.blocks / field)

    def _asked(self, rows: list[int], ahead: int) -> list[Asked]:
        """What those of ``rows`` that are here are asked once ``ahead`` more tokens are read; it is drawn for all.

        Kinds that weigh nothing are left out, and keys that no weights could know: they teach nothing but a guess.
        """
        by_kind: dict[Asking, list[tuple[int, Question]]] = {}
        for row in rows:
            kind = self.batch.sources[row].asking
            if kind and self.losses.weights[kind]:
                questions = self.batch.ask(row, ahead, self.phase.questions, self.rng)
                some = [(row, q) for q in questions if kind != "recall" or self._within_reach(row, q, ahead)]
                by_kind.setdefault(kind, []).extend(some if self.team.own([row]) else [])
        return [
            Asked.of(kind, self.team.places(row for row, _ in some), [q for _, q in some], self.batch.device)
            for kind, some in by_kind.items()
            if some
        ]

    def _predict(self, latents: Tensor, following: Tensor) -> None:
        """The losses of the next tokens: latents [b, t, d], following [b, t]."""
        self.read += following.numel()
        kinds: tuple[Reading, ...] = get_args(Reading)
        rows = {kind: self.team.places(self.batch.reading(kind)) for kind in kinds if self.losses.weights[kind]}
        wanted = [row for some in rows.values() for row in some]
        if not wanted:
            return
        losses, _ = token_losses(self.model, latents[wanted].flatten(0, 1), following[wanted].flatten())
        by_row = losses.view(len(wanted), -1)
        for kind, some in rows.items():
            self.losses.add(kind, by_row[: len(some)])
            by_row = by_row[len(some) :]

    def _keep(self, block: int, memory: list[Tensor], state: StreamState) -> None:
        """What the block changed in the FAM of rows whose key was read before it."""
        holding = self.batch.keys(block * self.phase.block_size) if self.phase.retention else []
        holding = self.team.places(holding)
        if not holding:
            return
        for after, before in zip(self.model.carried(state), memory, strict=True):
            scale = _or_one(before[holding].square().mean(dim=-1, keepdim=True))
            self.losses.add("retention", (after[holding] - before[holding]).square() / scale)

    def _rehearse(self, state: StreamState) -> None:
        """Asks the rows whose key was read before the last block twice more, each time after many updates."""
        size, read = self.phase.block_size, self.phase.block_size * self.phase.blocks
        rows = self.batch.keys(read - size)
        if not rows:
            return
        rows = sorted(self.rng.permutation(rows)[: self.phase.rehearsed_rows].tolist())
        here = torch.tensor(self.team.places(rows), dtype=torch.long)  # there may be none
        aged, lost, noise = state.index(here), set[int](), self._noise(rows)
        updates = draw_updates(self.rng, self.phase.rehearsal, self.phase.rehearsal_from)
        for some, after in ((updates // 2, updates // 2), (updates - updates // 2, updates)):
            rehearse(self.model, aged, some, self.phase.fam_noise, noise)
            for asked in self._asked(rows, read):
                predicting = asked.read(self.model, aged.fork())
                lost = self._answer(asked, predicting, "rehearsal", read + after * size)
        if self.phase.drift:
            updates += self._drift(aged, noise)
            with torch.no_grad():
                for asked in self._asked(rows, read):
                    lost = self._answer(asked, asked.read(self.model, aged.fork()), None, read + updates * size)
        if self.rng.random() < CARRY_AGED:
            self.batch.age(rows, self.model.carried(aged), updates * size)
            self.lost = (self.lost - set(rows)) | lost

    def _drift(self, aged: StreamState, noise: Noise) -> int:
        """Ages memories on, and takes what single updates change in them; gives the number of updates."""
        updates = draw_updates(self.rng, self.phase.drift_updates)
        ahead = strides(self.model, updates)
        chosen = set(self.rng.permutation(len(ahead))[:DRIFTS].tolist())
        for i, stride in enumerate(ahead):
            before = self._held(aged)
            self.model.carry(aged, before)
            if i in chosen:
                once = aged.fork()
                self.model.update_again(once)
                for new, old in zip(self.model.carried(once), before, strict=True):
                    size = _or_one(old.square().flatten(1).mean(dim=1))
                    change = (new - old).square().flatten(1).mean(dim=1) / size
                    self.losses.add("drift", torch.log(change + LEAST_CHANGE))
            with torch.no_grad():
                self.model.update_again(aged, stride)
                if self.phase.fam_noise:
                    add_noise(self.model, aged, self.phase.fam_noise * stride**0.5, noise)
        return updates

    def _wait(self, state: StreamState) -> None:
        """Ages the FAM of some rows that begin a source, as if their key came late; ``state`` is changed in place."""
        draws = self.rng.random(len(self.batch.rows))
        rows = [row for row in self.batch.waiting() if draws[row] < WAITING]
        once, long = [r for r in rows if draws[r] < WAITING_ONCE], [r for r in rows if draws[r] >= WAITING_ONCE]
        for some in (once, long[::2], long[1::2]):
            if some:
                self._take_over(state, some, self._aged(some, wait=some is not once))

    def _aged(self, rows: list[int], wait: bool) -> list[Tensor]:
        """The FAM of rows here with a new source after a block of filler and, with ``wait``, many updates more."""
        size = self.phase.block_size
        tokens = self.batch.before_keys(rows, self.rng, size)
        updates = draw_updates(self.rng, self.phase.waiting) if wait else 0
        if not len(tokens):
            return []
        with torch.no_grad():
            state = self.model.prefill(tokens[:, : size // 2], self.model.start(len(tokens)))
            state = self.model.prefill(tokens[:, size // 2 :], state)
        first = self.model.carried(state)
        if wait:
            rehearse(self.model, state, updates)
            for new, old in zip(self.model.carried(state), first, strict=True):
                turned = 1 - F.cosine_similarity(new, old, dim=-1).reshape(len(new), -1).mean(dim=1)
                self.losses.add("waiting", torch.log(turned + LEAST_TURN))
        return self.model.carried(state)

    def _take_over(self, state: StreamState, rows: list[int], memory: list[Tensor]) -> None:
        """Puts ``memory`` in place of that of those of ``rows`` that are here."""
        if not memory:
            return
        place = torch.tensor(self.team.places(rows), device=self.batch.device)
        merged = [old.index_copy(0, place, new) for old, new in zip(self.model.carried(state), memory, strict=True)]
        chosen = torch.zeros(state.batch, dtype=torch.bool, device=place.device).index_fill(0, place, True)
        self.model.carry(state, merged, chosen)

    def _held(self, state: StreamState) -> list[Tensor]:
        """What the memory carries, cut from the graph."""
        return [tensor.detach() for tensor in self.model.carried(state)]

    def _within_reach(self, row: int, question: Question, ahead: int) -> bool:
        """Whether ``row``, asked once ``ahead`` more tokens are read, sees all it is asked for to its answer's end."""
        if self.carries:
            return True
        size, field, begun = self.phase.block_size, self.model.config.receptive_field, self.batch.rows[row].offset
        last = begun + ahead + len(question.text) + len(question.answer) - 2  # question and answer fill blocks as well
        end = (last // size + 1) * size
        return question.told_from >= max(begun, begun if field is None else end - field)  # nothing outlasts a step

    def _answer(self, asked: Asked, predicting: Tensor, into: Loss | None, ahead: int) -> set[int]:
        """Takes the losses of answers from their latents [n, a, d]; gives the rows that have lost what was asked.

        Args:
            asked: the questions.
            predicting: the latents.
            into: the mean that takes them, if any.
            ahead: tokens read since the step began, those that an aged FAM stands for included.
        """
        losses, means, right = asked.score(self.model, predicting)
        if into == "rehearsal":  # the gradient through hundreds of updates of a memory that holds nothing is noise
            losses = losses[asked.of_rows([mean < LOST for mean in means])]
        if into:
            self.losses.add(into, losses)
        self.read += asked.tokens.numel() + len(asked.rows)
        if asked.kind != "recall":
            return set()
        size, rows = self.phase.block_size, [self.batch.dealt[place] for place in asked.rows]
        for row, question, ok in zip(rows, asked.questions, right, strict=True):
            self.tally.add((self.batch.rows[row].offset + ahead) // size - question.known_from // size, ok)
        return {row for row, loss in zip(rows, means, strict=True) if loss > self.recipe.forget_above}


def _or_one(sizes: Tensor) -> Tensor:
    """Sizes to compare a change with; that of a memory which holds nothing yet is 1."""
    return torch.where(sizes > 0, sizes, 1)
