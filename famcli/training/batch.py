"""The rows of a training batch: streams that go on from step to step with the FAM they have."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from famcli.models.decoder import Decoder
from famcli.models.state import LayerState, StreamState
from famcli.models.tokenizer import Tokenizer
from famcli.training.recipe import Phase, Recipe
from famcli.training.streams import Ids, KeyInFiller, PasskeyStreams, PlainText, Question, Stream, draw_repeat


@dataclass
class Row:
    """Where one row stands: its stream is number ``index`` of the row, read up to ``offset``.

    ``drawn_at`` is the step that drew the stream: with the row's number it decides everything in it.
    """

    drawn_at: int
    offset: int = 0
    carried: bool = False


class Batch:
    """All rows, and the FAM each carries: one [rows, f, d] a layer (zeros for rows that carry none)."""

    def __init__(self, recipe: Recipe, tokenizer: Tokenizer, corpus: Ids | None) -> None:
        self.recipe, self.tokenizer, self.corpus = recipe, tokenizer, corpus
        self.passkeys = PasskeyStreams(tokenizer)
        self.rows: list[Row] = []
        self.streams: list[Stream] = []
        self.fam: list[Tensor] = []
        self.aged: dict[int, list[Tensor]] = {}

    def begin(self, step: int, phase: Phase, first: bool) -> None:
        """Draws new streams for the rows that carry nothing on, for all of them at the ``first`` step of a phase."""
        if first:
            self.rows = [Row(drawn_at=step) for _ in range(phase.mixture.rows)]
            self.streams = []
            config = self.recipe.model
            self.fam = [torch.zeros(len(self.rows), config.fam_slots, config.width) for _ in range(config.layers)]
        self.streams = self.streams or [self._draw(i, row.drawn_at, phase) for i, row in enumerate(self.rows)]
        for i, row in enumerate(self.rows):
            if not row.carried and row.drawn_at < step:
                self.rows[i] = Row(drawn_at=step)
                self.streams[i] = self._draw(i, step, phase)

    def tokens(self, count: int) -> Tensor:
        """The next ``count`` tokens of every row: [rows, count]."""
        read = [stream.tokens(row.offset, count) for stream, row in zip(self.streams, self.rows, strict=True)]
        return torch.from_numpy(np.stack(read))

    def start(self, model: Decoder) -> StreamState:
        """A state in which rows that carry a FAM have it, and the others the learned initial one."""
        state = model.start(len(self.rows))
        if model.config.fam_slots:
            carried = torch.tensor([row.carried for row in self.rows])
            pick = carried[:, None, None]
            layers = zip(self.fam, state.layers, strict=True)
            model.set_fam(state, [torch.where(pick, kept, layer.fam) for kept, layer in layers])
            state.fresh = ~carried
        return state

    def askable(self, ahead: int) -> list[int]:
        """Rows whose question can be answered once ``ahead`` more tokens are read."""
        rows = enumerate(zip(self.streams, self.rows, strict=True))
        return [i for i, (s, row) in rows if s.question and row.offset + ahead >= s.question.known_from]

    def first_askable(self) -> int:
        """Tokens still to be read until some row can be asked; a large number where none ever can."""
        rows = zip(self.streams, self.rows, strict=True)
        return min((s.question.known_from - row.offset for s, row in rows if s.question), default=sys.maxsize)

    def question(self, row: int) -> Question:
        """The question of a row that has one."""
        question = self.streams[row].question
        assert question is not None
        return question

    def age(self, rows: list[int], layers: list[LayerState], skipped: int) -> None:
        """Takes over an aged FAM, as if ``skipped`` more tokens had been read; ``layers`` has ``rows`` alone."""
        for row in rows:
            self.rows[row].offset += skipped
        self.aged |= {row: [layer.fam[i].detach() for layer in layers] for i, row in enumerate(rows)}

    def waiting(self, ahead: int) -> list[int]:
        """Rows whose key begins no sooner than ``ahead`` tokens from here."""
        rows = enumerate(zip(self.streams, self.rows, strict=True))
        return [i for i, (s, row) in rows if isinstance(s, KeyInFiller) and s.key_at >= row.offset + ahead]

    def end(self, step: int, phase: Phase, read: int, state: StreamState, lost: set[int]) -> None:
        """Moves every row on by ``read`` tokens and decides which carry their FAM into the next step.

        A row whose key is lost starts anew: nothing could be learned from asking it further.
        """
        keep = np.random.default_rng((self.recipe.seed, 1, step)).random(len(self.rows)) < phase.state_passing
        for i, row in enumerate(self.rows):
            row.offset += read
            row.carried = bool(keep[i]) and i not in lost
        self.fam = [layer.fam.detach() for layer in state.layers]
        for i, aged in self.aged.items():
            for fam, latents in zip(self.fam, aged, strict=True):
                fam[i] = latents
        self.aged = {}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs besides ``fam``."""
        return {"rows": [asdict(row) for row in self.rows]}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.rows = [Row(**row) for row in saved["rows"]]

    def _draw(self, row: int, step: int, phase: Phase) -> Stream:
        """The stream a row begins at a step."""
        rng = np.random.default_rng((self.recipe.seed, 0, row, step + 1))
        mixture = phase.mixture
        if mixture.keys <= row < mixture.keys + mixture.repeat:
            return draw_repeat(rng, self.tokenizer)
        text = None
        if row >= mixture.passkey:
            assert self.corpus is not None
            text = PlainText(self.corpus, int(rng.integers(0, len(self.corpus))))
        if row >= mixture.keys:
            assert text is not None
            return text
        return self.passkeys.draw(rng, phase.key_places, phase.block_size, self.recipe.longest_wait, text)
