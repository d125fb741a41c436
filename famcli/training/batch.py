"""The rows of a training batch: each reads a source, and goes on from step to step with the memory it has."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from famcli.models.decoder import Decoder
from famcli.models.state import StreamState
from famcli.training.material import Material
from famcli.training.recipe import Phase, Recipe
from famcli.training.sources import KeyInFiller, Question, Source
from famcli.training.team import ALONE, Team


@dataclass
class Row:
    """Where one row stands.

    Attributes:
        drawn_at: the step that drew its source: with the row's number it decides everything in it.
        offset: tokens of the source read so far.
        carried: its memory goes on from the step before.
    """

    drawn_at: int
    offset: int = 0
    carried: bool = False


class Batch:
    """All rows, and the memory each carries, as ``Decoder.carried`` gives it; empty before the first step of a phase.

    Every process of a team knows where all rows stand. Tokens, states and memories are of its own rows alone.

    Args:
        recipe: with its model.
        material: what sources are drawn from.
        device: of the tokens and the memory.
        team: the processes among which the rows are dealt.
    """

    def __init__(
        self, recipe: Recipe, material: Material, device: torch.device | str = "cpu", team: Team = ALONE
    ) -> None:
        self.recipe, self.material, self.device, self.team = recipe, material, torch.device(device), team
        self.rows: list[Row] = []
        self.sources: list[Source] = []
        self.memory: list[Tensor] = []
        self.aged: dict[int, list[Tensor]] = {}

    def begin(self, step: int, phase: Phase, first: bool) -> None:
        """Draws new sources for the rows that do not go on, for all of them at the ``first`` step of a phase."""
        if first:
            self.rows = [Row(drawn_at=step) for _ in range(phase.mixture.size)]
            self.sources = []
            self.memory = []
        self.sources = self.sources or [self._draw(i, row.drawn_at, phase) for i, row in enumerate(self.rows)]
        for i, row in enumerate(self.rows):
            goes_on = row.carried and phase.state_passing_from == "own"
            if not goes_on and row.drawn_at < step:
                self.rows[i] = Row(drawn_at=step, carried=row.carried)
                self.sources[i] = self._draw(i, step, phase)

    @property
    def dealt(self) -> list[int]:
        """The rows of this process."""
        return self.team.deal(len(self.rows))

    def tokens(self, count: int) -> Tensor:
        """The next ``count`` tokens of every row of this process: [rows, count]."""
        read = [self.sources[i].tokens(self.rows[i].offset, count) for i in self.dealt]
        return torch.from_numpy(np.stack(read)).to(self.device)

    def start(self, model: Decoder) -> StreamState:
        """A state in which rows that carry a memory have it, and the others its learned beginning."""
        state = model.start(len(self.dealt))
        if self.memory:
            carried = [self.rows[i].carried for i in self.dealt]
            model.carry(state, self.memory, torch.tensor(carried, device=self.device))
        return state

    def reading(self, kind: str) -> list[int]:
        """Rows whose tokens count into the mean loss ``kind``."""
        return [i for i, source in enumerate(self.sources) if source.reading == kind]

    def askable(self, ahead: int) -> list[int]:
        """Rows that can be asked anywhere once ``ahead`` more tokens are read."""
        return [i for i, known_from in self._known_from() if self.rows[i].offset + ahead >= known_from]

    def keys(self, ahead: int) -> list[int]:
        """Those of ``askable`` that have a key."""
        return [i for i in self.askable(ahead) if isinstance(self.sources[i], KeyInFiller)]

    def first_askable(self) -> int:
        """Tokens still to be read until some row can be asked; a large number where none ever can."""
        return min((known_from - self.rows[i].offset for i, known_from in self._known_from()), default=sys.maxsize)

    def ending(self, start: int, stop: int) -> dict[int, list[int]]:
        """Places from ``start`` to before ``stop`` tokens ahead that have questions of their own, and their rows."""
        places: dict[int, list[int]] = {}
        for i, (source, row) in enumerate(zip(self.sources, self.rows, strict=True)):
            for place in source.ends(row.offset + start, row.offset + stop):
                places.setdefault(place - row.offset, []).append(i)
        return places

    def ask(self, row: int, ahead: int, most: int, rng: np.random.Generator) -> list[Question]:
        """What a row can be asked once ``ahead`` more tokens are read, see ``Source.ask``."""
        return self.sources[row].ask(self.rows[row].offset + ahead, most, rng)

    def age(self, rows: list[int], memory: list[Tensor], skipped: int) -> None:
        """Takes over an aged memory, as if ``skipped`` more tokens had been read; it has those of ``rows`` alone that
        belong to this process."""
        for row in rows:
            self.rows[row].offset += skipped
        self.aged |= {row: [tensor[i].detach() for tensor in memory] for i, row in enumerate(self.team.own(rows))}

    def waiting(self) -> list[int]:
        """Rows that begin a source whose key does not stand at once."""
        rows = enumerate(zip(self.sources, self.rows, strict=True))
        new = [(i, s) for i, (s, row) in rows if not row.offset and not row.carried]
        return [i for i, s in new if isinstance(s, KeyInFiller) and s.key_at > len(s.head)]

    def before_keys(self, rows: list[int], rng: np.random.Generator, count: int) -> Tensor:
        """What may have been read before the sources of ``rows``, see ``PasskeySources.before_key``: [rows, count].

        It is drawn for all of them, and given for those of this process.
        """
        sources = [(row, source) for row in rows if isinstance(source := self.sources[row], KeyInFiller)]
        read = {row: self.material.passkeys.before_key(source, rng, count) for row, source in sources}
        own = [read[row] for row in self.team.own(read)]
        return torch.from_numpy(np.stack(own) if own else np.empty((0, count), np.int64)).to(self.device)

    def end(self, step: int, phase: Phase, read: int, memory: list[Tensor], lost: set[int]) -> None:
        """Moves every row on by ``read`` tokens and decides which ``memory`` goes on into the next step.

        A row whose key is lost begins a new source: nothing could be learned from asking it further.
        """
        keep = np.random.default_rng((self.recipe.seed, 1, step)).random(len(self.rows)) < phase.state_passing
        self.memory = [tensor.detach() for tensor in memory]
        for i, aged in self.aged.items():
            for tensor, of_row in zip(self.memory, aged, strict=True):
                tensor[i // self.team.size] = of_row
        self.aged = {}
        if phase.state_passing_from == "first":
            keep[:], lost = keep[0], set()
            self.memory = [self.team.tensors(t[:1])[0].expand_as(t).clone() for t in self.memory]
        for i, row in enumerate(self.rows):
            row.offset += read
            row.carried = bool(keep[i]) and i not in lost

    def whole_memory(self) -> list[Tensor]:
        """The memory of all rows, from all processes."""
        whole = []
        for parts in map(self.team.tensors, self.memory):
            tensor = parts[0].new_empty(len(self.rows), *parts[0].shape[1:])
            for rank, part in enumerate(parts):
                tensor[rank :: self.team.size] = part
            whole.append(tensor)
        return whole

    def restore(self, saved: dict[str, Any], memory: list[Tensor]) -> None:
        """Goes on from ``state_dict`` and ``whole_memory``, however many processes they came from."""
        self.rows = [Row(**row) for row in saved["rows"]]
        self.memory = [t[self.team.rank :: self.team.size].contiguous().to(self.device) for t in memory]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs besides ``memory``."""
        return {"rows": [asdict(row) for row in self.rows]}

    def _known_from(self) -> list[tuple[int, int]]:
        """Rows that can be asked anywhere, and the tokens of their source to read before."""
        return [(i, s.known_from) for i, s in enumerate(self.sources) if s.known_from is not None]

    def _draw(self, row: int, step: int, phase: Phase) -> Source:
        """The source a row begins at a step."""
        rng = np.random.default_rng((self.recipe.seed, 0, row, step + 1))
        return self.material.draw(phase.mixture.kind(row, rng), rng, phase, self.recipe)
