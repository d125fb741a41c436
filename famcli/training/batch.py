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

    Args:
        recipe: with its model.
        material: what sources are drawn from.
        device: of the tokens and the memory.
    """

    def __init__(self, recipe: Recipe, material: Material, device: torch.device | str = "cpu") -> None:
        self.recipe, self.material, self.device = recipe, material, torch.device(device)
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

    def tokens(self, count: int) -> Tensor:
        """The next ``count`` tokens of every row: [rows, count]."""
        read = [source.tokens(row.offset, count) for source, row in zip(self.sources, self.rows, strict=True)]
        return torch.from_numpy(np.stack(read)).to(self.device)

    def start(self, model: Decoder) -> StreamState:
        """A state in which rows that carry a memory have it, and the others its learned beginning."""
        state = model.start(len(self.rows))
        if self.memory:
            model.carry(state, self.memory, torch.tensor([row.carried for row in self.rows], device=self.device))
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
        """Takes over an aged memory, as if ``skipped`` more tokens had been read; it has ``rows`` alone."""
        for row in rows:
            self.rows[row].offset += skipped
        self.aged |= {row: [tensor[i].detach() for tensor in memory] for i, row in enumerate(rows)}

    def waiting(self) -> list[int]:
        """Rows that begin a source whose key does not stand at once."""
        rows = enumerate(zip(self.sources, self.rows, strict=True))
        new = [(i, s) for i, (s, row) in rows if not row.offset and not row.carried]
        return [i for i, s in new if isinstance(s, KeyInFiller) and s.key_at > len(s.head)]

    def before_keys(self, rows: list[int], rng: np.random.Generator, count: int) -> Tensor:
        """What may have been read before the sources of ``rows``, see ``PasskeySources.before_key``: [rows, count]."""
        sources = [source for row in rows if isinstance(source := self.sources[row], KeyInFiller)]
        read = [self.material.passkeys.before_key(source, rng, count) for source in sources]
        return torch.from_numpy(np.stack(read)).to(self.device)

    def end(self, step: int, phase: Phase, read: int, memory: list[Tensor], lost: set[int]) -> None:
        """Moves every row on by ``read`` tokens and decides which ``memory`` goes on into the next step.

        A row whose key is lost begins a new source: nothing could be learned from asking it further.
        """
        keep = np.random.default_rng((self.recipe.seed, 1, step)).random(len(self.rows)) < phase.state_passing
        self.memory = [tensor.detach() for tensor in memory]
        for i, aged in self.aged.items():
            for tensor, of_row in zip(self.memory, aged, strict=True):
                tensor[i] = of_row
        self.aged = {}
        if phase.state_passing_from == "first":
            keep[:], lost = keep[0], set()
            self.memory = [t[:1].expand_as(t).clone() for t in self.memory]
        for i, row in enumerate(self.rows):
            row.offset += read
            row.carried = bool(keep[i]) and i not in lost

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs besides ``memory``."""
        return {"rows": [asdict(row) for row in self.rows]}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.rows = [Row(**row) for row in saved["rows"]]

    def _known_from(self) -> list[tuple[int, int]]:
        """Rows that can be asked anywhere, and the tokens of their source to read before."""
        return [(i, s.known_from) for i, s in enumerate(self.sources) if s.known_from is not None]

    def _draw(self, row: int, step: int, phase: Phase) -> Source:
        """The source a row begins at a step."""
        rng = np.random.default_rng((self.recipe.seed, 0, row, step + 1))
        return self.material.draw(phase.mixture.kind(row, rng), rng, phase, self.recipe)
