"""One step on recordings: FAMs are updated by recorded blocks, and asked for what they were told.

What a FAM should do is known: with the keys and values of an answer's tokens in its slots, in every layer, a pretrained
model answers without any training. So the slots are taught to take those tokens where they are told, and to stay as
they are everywhere else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from famcli.models.attention import Geometry
from famcli.models.decoder import Decoder
from famcli.models.layer import Layer
from famcli.models.memories.base import Block
from famcli.models.memories.fam import Fam
from famcli.models.state import LayerState, StreamState
from famcli.training.reading import Asked, token_losses
from famcli.training.recorded.recipe import RecordedPhase, RecordedRecipe
from famcli.training.recorded.recordings import Recordings
from famcli.training.recorded.texts import BLOCKS, MENTIONS, Text
from famcli.training.sources import Question

WATCHED = 4
"""Updates of a step in which a FAM should stay as it is and is held to it."""

TEXT = 64
"""Most tokens of plain text that a row reads on."""

LEAST_CHANGE = 1e-6
"""A squared change below this share of the FAM's own square counts for little."""


@dataclass(frozen=True)
class Course:
    """The blocks that a step's FAMs are updated by.

    Attributes:
        texts: [R] numbers of the texts whose keys are told.
        blocks: [U][R] numbers of the recorded blocks.
        wanted: by the number of an update: [R, a, MENTIONS] places in the block of what each slot takes; -1: nothing.
        first: [R] numbers of the texts that the first block, and so the sinks, are of.
        told: updates after which the whole key is told.
        watched: updates in which the FAM should stay as it is and is held to it.
    """

    texts: Tensor
    blocks: list[Tensor]
    wanted: dict[int, Tensor]
    first: Tensor
    told: int
    watched: frozenset[int]


def draw_course(
    rng: np.random.Generator, recordings: Recordings, recipe: RecordedRecipe, phase: RecordedPhase, updates: int
) -> Course:
    """A key told after 0 to ``updates`` - 1 updates and kept for as many; half of the courses have only one of both."""
    apart = rng.random() < 0.15
    waits = not apart and updates > 1 and rng.random() < 0.5
    where = "cut" if apart else "second" if waits else "first"
    before = _draw_updates(rng, updates - 1) if waits else 0
    after = _draw_updates(rng, updates) - 1 if not waits or rng.random() < 0.5 else 0
    telling = 2 if where == "cut" else 1
    rows = recipe.step_rows(phase, before + telling + after)

    def pick(numbers: Tensor) -> Tensor:
        return numbers[torch.from_numpy(rng.integers(0, len(numbers), rows))]

    texts = pick(recordings.told(where))
    told_first, told_second, never = (recordings.told(name) for name in ("first", "second", "never"))
    fresh = [pick(torch.cat((told_second, never)) * BLOCKS)] if before else []
    fresh += [pick(never * BLOCKS + 1) for _ in range(before - 1)]
    told = [texts * BLOCKS + waits, *([texts * BLOCKS + 1] if where == "cut" else [])]
    held = [pick(told_first * BLOCKS + 1) for _ in range(after)]
    blocks = fresh + told + held
    wanted = _wanted([recordings.texts[int(i)] for i in texts], int(waits), telling, recordings.block_size, recipe)
    others = [u for u in range(len(blocks)) if not before <= u < before + telling]
    watched = rng.permutation(others)[:WATCHED].tolist()
    return Course(
        texts=texts,
        blocks=blocks,
        wanted={before + i: places for i, places in enumerate(wanted)},
        first=blocks[0] // BLOCKS,
        told=before + telling,
        watched=frozenset(int(u) for u in watched),
    )


def _draw_updates(rng: np.random.Generator, most: int) -> int:
    """From 1 to ``most``, its logarithm uniform."""
    return round(math.exp(rng.uniform(0, math.log(most)))) if most > 1 else 1


def _wanted(texts: list[Text], block: int, count: int, size: int, recipe: RecordedRecipe) -> list[Tensor]:
    """What slots take from ``count`` blocks from ``block`` on: [R, a, MENTIONS] each. A slot that has a token stays."""
    wanted = []
    held = torch.zeros(len(texts), recipe.answer_slots, dtype=torch.bool)
    for number in range(block, block + count):
        places = torch.full((len(texts), recipe.answer_slots, MENTIONS), -1)
        for row, text in enumerate(texts):
            for slot, mentions in enumerate(text.places):
                inside = [at - number * size for at in mentions if at // size == number]
                if inside and not held[row, slot]:
                    places[row, slot] = torch.tensor((inside * MENTIONS)[:MENTIONS])
        held |= places[:, :, 0] >= 0
        wanted.append(places)
    return wanted


@dataclass
class Means:
    """Sums of losses by name, for means."""

    sums: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, name: str, loss: Tensor) -> None:
        self.sums.setdefault(name, []).append(loss)

    def mean(self, name: str) -> Tensor | None:
        return torch.stack(self.sums[name]).mean() if name in self.sums else None


class RecordedStep:
    """The losses of one step while they come together; see ``losses`` for what each is.

    Args:
        model: of the recordings' block size.
        recordings: of blocks.
        recipe: with the weights.
        phase: the step's.
        course: the blocks.
    """

    def __init__(
        self, model: Decoder, recordings: Recordings, recipe: RecordedRecipe, phase: RecordedPhase, course: Course
    ) -> None:
        memory = model.config.memory
        assert isinstance(memory, Fam)
        self.model, self.recordings, self.recipe, self.phase, self.course = model, recordings, recipe, phase, course
        self.memory, self.slots = memory, slice(memory.fam_length - recipe.answer_slots, memory.fam_length)
        self.losses = Means()
        self.right = 0.0
        lengths = torch.tensor([len(recordings.texts[int(i)].answer) for i in course.texts])
        self.answered = torch.arange(recipe.answer_slots) < lengths[:, None]

    def run(self, asks: bool, rng: np.random.Generator) -> Tensor:
        """The step's loss."""
        course = self.course
        times = sorted({course.told, len(course.blocks)})
        begun = self.model.start(1)
        seen_at = int(rng.choice([0, len(course.blocks), max(0, course.told - 1)])) if self.phase.text else 0
        asked: list[list[LayerState]] = [[] for _ in times]
        seen: list[LayerState] = []
        for number, layer in enumerate(begun.layers):
            states = self._evolve(number, layer)
            for some, time in zip(asked, times, strict=True):
                self._match(number, states[time])
                some.append(states[time])
            seen.append(states[seen_at])
        if asks:
            self._ask(asked, rng)
        if self.phase.text:
            self._read_on(seen, seen_at, rng)
        weights = {"keys": self.recipe.keys_weight, "values": 1.0, "attention": self.phase.attention}
        weights |= {"rest": self.phase.rest, "drift": self.phase.drift, "answer": 1.0, "text": self.phase.text}
        parts = [w * mean for name, w in weights.items() if w and (mean := self.losses.mean(name)) is not None]
        return torch.stack(parts).sum()

    def _evolve(self, number: int, layer_state: LayerState) -> list[LayerState]:
        """The states of a layer after 0, 1, ... updates."""
        model, course, memory = self.model, self.course, self.memory
        layer, rows = model.layer(number), len(course.texts)
        at = [model.whole_block(number, blocks) for blocks in (0, 1)]
        state = {name: t.expand(rows, *t.shape[1:]) for name, t in layer_state.items() if not name.startswith("block_")}
        keys, values = self.recordings.sinks[number][course.first].chunk(2, dim=1)
        states = [state]
        for update, numbers in enumerate(course.blocks):
            place = at[min(update, 1)]
            block = Block(*self.recordings.blocks[number][numbers].chunk(2, dim=1))
            if update in course.wanted or update in course.watched:
                self._look(block, state, layer, place, course.wanted.get(update))
            new = state | memory.write(block, state, layer, place) | {"sink_keys": keys, "sink_values": values}
            if update in course.watched:
                change, size = (new["fam"] - state["fam"]).square(), state["fam"].detach().square()
                self.losses.add("drift", torch.log(change.mean((1, 2)) / size.mean((1, 2)) + LEAST_CHANGE).mean())
            state = new
            states.append(state)
        return states

    def _look(self, block: Block, state: LayerState, layer: Layer, at: Geometry, wanted: Tensor | None) -> None:
        """How far the slots' attention goes where it should: to ``wanted`` places, or to the sink."""
        queries, seen = self.memory.sight(block, state, layer, at)
        keys = torch.cat([k for k, _ in seen], dim=2)
        heads, slots = queries.shape[1], queries.shape[2]
        grouped = queries.unflatten(1, (keys.shape[1], -1)).flatten(2, 3)
        scale = layer.attention.scale or layer.attention.head_width**-0.5
        scores = (grouped @ keys.to(grouped).transpose(2, 3)).float() * scale
        logs = scores.view(len(keys), heads, slots, -1).log_softmax(dim=-1)
        first = keys.shape[2] - block.keys.shape[2]
        sink = 0 if at.blocks else first
        if wanted is None:
            self.losses.add("rest", -logs[..., sink].mean())
            return
        logs = logs[:, :, self.slots]
        takes = wanted[:, :, 0] >= 0
        index = (wanted.clamp(min=0) + first)[:, None].expand(-1, heads, -1, -1)
        looked = logs.gather(3, index).logsumexp(dim=-1).transpose(1, 2)
        if takes.any():
            self.losses.add("attention", -looked[takes].mean())
        if not takes.all():
            self.losses.add("rest", -logs[..., sink].transpose(1, 2)[~takes].mean())

    def _match(self, number: int, state: LayerState) -> None:
        """How near keys and values of the slots are to those of the answer's tokens."""
        wanted = self.recordings.targets[number][self.course.texts].float().chunk(2, dim=1)
        for i, (name, target) in enumerate(zip(("keys", "values"), wanted, strict=True)):
            miss = (state[f"fam_{name}"][:, :, self.slots].float() - target).square().mean((1, 3))
            self.losses.add(name, miss[self.answered].mean() / self.recordings.spreads[number, i])

    def _ask(self, asked: list[list[LayerState]], rng: np.random.Generator) -> None:
        """Asks for the keys anywhere in a block of which the beginning is recorded: half of them near its end."""
        model, size, times = self.model, self.recordings.block_size, len(asked)
        texts = [self.recordings.texts[int(i)] for i in self.course.texts] * times
        questions = [Question(0, 0, np.array(text.question), np.array(text.said)) for text in texts]
        batch = Asked.of("recall", list(range(len(texts))), questions, model.device)
        last = size - batch.tokens.shape[1]
        low = 0 if rng.random() < 0.5 else max(0, last - 64)
        read = int(rng.integers(low, last + 1))
        held = self.recordings.told("first") * BLOCKS + 1
        around = held[torch.from_numpy(rng.integers(0, len(held), len(texts)))]
        layers = []
        for number in range(model.config.layers):
            joined = {name: torch.cat([some[number][name] for some in asked]) for name in asked[0][number]}
            keys, values = self.recordings.blocks[number][around].chunk(2, dim=1)
            layers.append({**joined, "block_keys": keys, "block_values": values})
        losses, _, right = batch.score(model, batch.read(model, StreamState(layers, size + read)))
        self.losses.add("answer", losses.mean())
        self.right = sum(right) / len(right)

    def _read_on(self, held: list[LayerState], updates: int, rng: np.random.Generator) -> None:
        """Reads plain text on from anywhere in a recorded block, with the FAM after so many ``updates`` in sight."""
        model, recordings, size = self.model, self.recordings, self.recordings.block_size
        where = ("second", "never") if not updates else ("never",) if updates < self.course.told else ("first",)
        texts = recordings.told(*where)
        texts = texts[torch.from_numpy(rng.integers(0, len(texts), len(self.course.texts)))]
        later, count = int(updates > 0), min(TEXT, size // 2)
        read = int(rng.integers(0, size - count))
        start = later * size + read
        ids = torch.tensor([recordings.texts[int(i)].ids[start : start + count + 1] for i in texts])
        layers = []
        for number, layer in enumerate(held):
            keys, values = recordings.blocks[number][texts * BLOCKS + later].chunk(2, dim=1)
            layers.append({**layer, "block_keys": keys, "block_values": values})
        latents, _ = model.read(ids[:, :-1], StreamState(layers, start))
        losses, _ = token_losses(model, latents.flatten(0, 1), ids[:, 1:].flatten())
        self.losses.add("text", losses.mean())
