"""One step on recordings: FAMs look at recorded blocks, and are asked for what they were told.

What a FAM should do is known: with the keys and values of a key's tokens, and of those before it, in its slots, in
every layer, a pretrained model answers without any training. So the slots are taught to take those tokens where they
are told, and to look at the sink everywhere else. Which blocks write is given while training; the gate follows from
where they look.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from famcli.models.attention import rotate
from famcli.models.decoder import Decoder
from famcli.models.memories.base import Block
from famcli.models.memories.gated_fam import GatedFam
from famcli.models.state import LayerState, StreamState
from famcli.training.reading import Asked, token_losses
from famcli.training.recorded.course import IGNORED, REST, Course, Update
from famcli.training.recorded.recipe import RecordedPhase, RecordedRecipe
from famcli.training.recorded.recordings import Recordings
from famcli.training.recorded.texts import BLOCKS
from famcli.training.sources import Question

TEXT = 64
"""Most tokens of plain text that a row reads on."""


@dataclass
class Means:
    """Sums of losses by name, for means."""

    sums: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, name: str, loss: Tensor) -> None:
        self.sums.setdefault(name, []).append(loss)

    def mean(self, name: str) -> Tensor | None:
        return torch.stack(self.sums[name]).mean() if name in self.sums else None


class RecordedStep:
    """The losses of one step while they come together.

    ``gates`` has how often the gate would keep from a slot what it is told (``missed``), and open where nothing is told
    (``opened``).

    Args:
        model: of the recordings' block size.
        recordings: of blocks.
        recipe: with the weights.
        phase: the step's.
        course: the blocks.
        asks: for a key; otherwise text is read on, where the phase wants that.
    """

    def __init__(
        self,
        model: Decoder,
        recordings: Recordings,
        recipe: RecordedRecipe,
        phase: RecordedPhase,
        course: Course,
        *,
        asks: bool = True,
    ) -> None:
        memory = model.config.memory
        assert isinstance(memory, GatedFam)
        self.model, self.recordings, self.recipe, self.phase, self.course = model, recordings, recipe, phase, course
        self.memory, self.rows = memory, course.told.shape[1]
        self.groups, self.group = memory.fam_length // memory.fam_group, memory.fam_group
        self.asks, self.writes_all = asks, bool(phase.text) and not asks
        self.holds = self._groups_held()
        self.losses, self.gates = Means(), Means()
        self.found: dict[int, list[Tensor]] = {}
        self.right = 0.0

    def run(self, rng: np.random.Generator) -> Tensor:
        """The step's loss."""
        layers = [self._evolve(number, begun) for number, begun in enumerate(self.model.start(1).layers)]
        self._watch_gates()
        if self.asks:
            self._ask(layers, rng)
        elif self.writes_all:
            self._read_on(layers, rng)
        weights = {"keys": self.recipe.keys_weight, "values": 1.0, "attention": self.phase.attention}
        weights |= {"rest": self.phase.rest, "answer": 1.0, "text": self.phase.text}
        parts = [w * mean for name, w in weights.items() if w and (mean := self.losses.mean(name)) is not None]
        return torch.stack(parts).sum()

    def _groups_held(self) -> Tensor:
        """[R, groups] which text each group tells of when all blocks were seen; -1: of none."""
        held = torch.full((self.rows, self.groups), -1)
        for update in self.course.updates:
            newest = torch.where(update.takes.any(dim=1), update.texts, -1)
            opens = self._taken(update).any(dim=1)
            held = torch.where(opens[:, None], torch.cat((held[:, 1:], newest[:, None]), dim=1), held)
        return held

    def _taken(self, update: Update) -> Tensor:
        """[R, a] what slots are filled: before text is read on, those of a block that tells nothing as well."""
        return torch.ones_like(update.takes) if self.writes_all and update.tells is None else update.takes

    def _evolve(self, number: int, begun: LayerState) -> LayerState:
        """The state of a layer when it has seen all blocks."""
        model, memory, layer = self.model, self.memory, self.model.layer(number)
        at = [model.whole_block(number, blocks) for blocks in (0, 1)]
        state = {name: t.expand(self.rows, *t.shape[1:]) for name, t in begun.items() if not name.startswith("block_")}
        for update in self.course.updates:
            place = at[int(update.later)]
            keys, values = self.recordings.sinks[number][update.texts].chunk(2, dim=1)
            state |= {"sink_keys": keys, "sink_values": values}
            block = Block(*self.recordings.blocks[number][update.blocks].chunk(2, dim=1))
            latents, logs = memory.find(block, state, layer, place)
            first = logs.shape[3] - block.keys.shape[2]
            self._look(logs, update, memory.sink_places(place), first)
            takes = self._taken(update)
            if takes.any():
                pushed = memory.push(state, latents, takes, takes.any(dim=1))
                state |= memory.restore(state, pushed, layer, place)
        self._match(number, state)
        return state

    def _look(self, logs: Tensor, update: Update, sinks: slice, first: int) -> None:
        """How far the attention [b, h, a, n] of the slots goes where it should: to ``wanted``, or to the sink."""
        takes, wanted = update.takes, update.wanted
        rests = ~takes & (wanted[:, :, 0] != IGNORED)
        index = (wanted.clamp(min=0) + first)[:, None].expand(-1, logs.shape[1], -1, -1)
        to_sinks = logs[..., sinks].logsumexp(dim=-1).transpose(1, 2)
        self.found.setdefault(id(update), []).append(1 - to_sinks.detach().exp().mean(dim=2))
        if takes.any():
            looked = logs.gather(3, index).logsumexp(dim=-1).transpose(1, 2)
            self.losses.add("attention", -looked[takes].mean())
        if rests.any():
            self.losses.add("rest", -to_sinks[rests].mean())

    def _watch_gates(self) -> None:
        """How often the gate would have been wrong."""
        for update in self.course.updates:
            takes, opens = self.memory.gate(torch.stack([*self.memory.voters(self.found[id(update)])]))
            told, silent = update.takes, (update.wanted[:, :, 0] == REST).all(dim=1)
            if told.any():
                self.gates.add("missed", 1 - (takes & opens[:, None])[told].float().mean())
            if silent.any():
                self.gates.add("opened", opens[silent].float().mean())

    def _match(self, number: int, state: LayerState) -> None:
        """How near keys and values of the slots are to those of the tokens they hold."""
        for place in range(self.groups):
            texts = self.holds[:, place]
            if not (texts >= 0).any():
                continue
            inside = slice(place * self.group, (place + 1) * self.group)
            held = state["fam_filled"][:, inside] & (texts >= 0)[:, None]
            keys, values = self.recordings.targets[number][texts.clamp(min=0)].float().chunk(2, dim=1)
            at, back = self.model.place(number), (place + 1 - self.groups) * self.group
            turned = rotate(keys, at.rotary.of(torch.tensor([back]), at.like.float()))
            for i, (name, target) in enumerate((("keys", turned), ("values", values))):
                miss = (state[f"fam_{name}"][:, :, inside].float() - target).square().mean((1, 3))
                self.losses.add(name, miss[held].mean() / self.recordings.spreads[number, i])

    def _ask(self, layers: list[LayerState], rng: np.random.Generator) -> None:
        """Asks for one of the keys, anywhere in a block of which the beginning is recorded; mostly near its end."""
        model, size, told = self.model, self.recordings.block_size, self.course.told
        chosen = torch.from_numpy(rng.integers(0, len(told), self.rows))
        texts = [self.recordings.texts[int(i)] for i in told.gather(0, chosen[None])[0]]
        questions = [Question(0, 0, np.array(text.question), np.array(text.said)) for text in texts]
        batch = Asked.of("recall", list(range(self.rows)), questions, model.device)
        last = size - batch.tokens.shape[1]
        low = 0 if rng.random() < 0.5 else max(0, last - 64)
        read = int(rng.integers(low, last + 1))
        state = self._in_block(layers, self._drawn(self.recordings.told("first"), rng), size + read)
        losses, _, right = batch.score(model, batch.read(model, state))
        self.losses.add("answer", losses.mean())
        self.right = sum(right) / len(right)

    def _read_on(self, layers: list[LayerState], rng: np.random.Generator) -> None:
        """Reads plain text on from anywhere in a recorded block, with the FAM in sight, whatever was written there."""
        model, recordings, size = self.model, self.recordings, self.recordings.block_size
        count = min(TEXT, size // 2)
        start = size + int(rng.integers(0, size - count))
        texts = self._drawn(recordings.told("first", "never"), rng)
        ids = torch.tensor([recordings.texts[int(i)].ids[start : start + count + 1] for i in texts])
        latents, _ = model.read(ids[:, :-1], self._in_block(layers, texts, start))
        losses, _ = token_losses(model, latents.flatten(0, 1), ids[:, 1:].flatten())
        self.losses.add("text", losses.mean())

    def _drawn(self, numbers: Tensor, rng: np.random.Generator) -> Tensor:
        return numbers[torch.from_numpy(rng.integers(0, len(numbers), self.rows))]

    def _in_block(self, layers: list[LayerState], texts: Tensor, read: int) -> StreamState:
        """The FAMs in the second block of ``texts`` that is read up to ``read`` tokens after the stream's beginning."""
        inside = []
        for number, layer in enumerate(layers):
            keys, values = self.recordings.blocks[number][texts * BLOCKS + 1].chunk(2, dim=1)
            sink_keys, sink_values = self.recordings.sinks[number][texts].chunk(2, dim=1)
            own = {"block_keys": keys, "block_values": values, "sink_keys": sink_keys, "sink_values": sink_values}
            inside.append({**layer, **own})
        return StreamState(inside, read)
