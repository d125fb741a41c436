"""What the FAMs of a step see: which recorded blocks, what they tell, and what is to be taken from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from famcli.errors import UserError
from famcli.training.recorded.recipe import RecordedPhase, RecordedRecipe
from famcli.training.recorded.recordings import Recordings
from famcli.training.recorded.texts import BLOCKS, MENTIONS, Text

REST, IGNORED = -1, -2
"""Places that slots have which are to take nothing, and which may do as they like: what they would take is held."""


@dataclass(frozen=True)
class Update:
    """One block that the FAMs of a step look at.

    Attributes:
        texts: [R] numbers of the texts it is of.
        later: it is the second block of its text.
        wanted: [R, a, MENTIONS] places in the block of what each slot takes, or ``REST`` or ``IGNORED``.
        tells: of which of the step's keys; ``None``: of none.
    """

    texts: Tensor
    later: bool
    wanted: Tensor
    tells: int | None = None

    @property
    def blocks(self) -> Tensor:
        """[R] numbers of the recorded blocks."""
        return self.texts * BLOCKS + int(self.later)

    @property
    def takes(self) -> Tensor:
        """[R, a] slots that take something."""
        return self.wanted[:, :, 0] >= 0


@dataclass(frozen=True)
class Course:
    """The blocks of a step, one after another.

    Attributes:
        told: [keys, R] numbers of the texts whose keys are told, the newest last.
        updates: the blocks.
    """

    told: Tensor
    updates: list[Update]


def draw_course(
    rng: np.random.Generator, recordings: Recordings, recipe: RecordedRecipe, phase: RecordedPhase
) -> Course:
    """One to ``phase.keys`` keys, told in a stream's first block or later, and other blocks around them."""
    count, rows = int(rng.integers(1, phase.keys + 1)), phase.rows
    where = ["first" if rng.random() < 0.4 else _later(rng), *(_later(rng) for _ in range(count - 1))]
    told = _draw_told(rng, recordings, where, rows)
    updates = [
        update for key, name in enumerate(where) for update in _telling(recordings, recipe, told[key], name, key)
    ]
    nothing = torch.full((rows, recipe.lead_slots + recipe.answer_slots, MENTIONS), REST)
    fillers = {"later": recordings.told("never"), "held": recordings.told("first")}
    early = torch.cat((recordings.told("never"), recordings.told("second")))
    for _ in range(phase.others):
        place = int(rng.integers(0, len(updates) + 1))
        if not place and not updates[0].later:
            place = len(updates)
        if not place and rng.random() < 0.5:
            updates.insert(0, Update(_pick(rng, early, rows), False, nothing))
        else:
            kind = "held" if place and rng.random() < 0.5 else "later"
            updates.insert(place, Update(_pick(rng, fillers[kind], rows), True, nothing))
    return Course(told, updates)


def _later(rng: np.random.Generator) -> str:
    return "cut" if rng.random() < 0.2 else "second"


def _pick(rng: np.random.Generator, numbers: Tensor, rows: int) -> Tensor:
    return numbers[torch.from_numpy(rng.integers(0, len(numbers), rows))]


def _draw_told(rng: np.random.Generator, recordings: Recordings, where: list[str], rows: int) -> Tensor:
    """[keys, R] texts whose questions differ, half of them told alike, of other persons, where there are such.

    Raises:
        UserError: there are not so many questions.
    """
    told = torch.empty(len(where), rows, dtype=torch.int64)
    texts = recordings.texts
    of = {name: recordings.told(name).tolist() for name in set(where)}
    for row in range(rows):
        chosen: list[int] = []
        alike = rng.random() < 0.5
        for name in where:
            others = [i for i in of[name] if texts[i].question not in [texts[j].question for j in chosen]]
            same = [i for i in others if chosen and texts[i].telling == texts[chosen[0]].telling]
            choice = same if alike and same else others
            if not choice:
                raise UserError(
                    f"{len(where)} keys of a stream would be asked for in the same words",
                    "more tellings, with {name} in their questions, more streams, or fewer keys",
                )
            chosen.append(choice[int(rng.integers(len(choice)))])
        told[:, row] = torch.tensor(chosen)
    return told


def _telling(recordings: Recordings, recipe: RecordedRecipe, numbers: Tensor, where: str, key: int) -> list[Update]:
    """The block that tells a key, or both where its line is cut."""
    texts, size = [recordings.texts[int(i)] for i in numbers], recordings.block_size
    slots = recipe.lead_slots + recipe.answer_slots
    blocks = {"first": [0], "second": [1], "cut": [0, 1]}[where]
    held = torch.zeros(len(texts), slots, dtype=torch.bool)
    updates = []
    for block in blocks:
        wanted = _wanted(texts, block, size, slots)
        wanted[held] = IGNORED
        held |= wanted[:, :, 0] >= 0
        updates.append(Update(numbers, bool(block), wanted, key))
    return updates


def _wanted(texts: list[Text], block: int, size: int, slots: int) -> Tensor:
    places = torch.full((len(texts), slots, MENTIONS), REST)
    for row, text in enumerate(texts):
        for slot, mentions in enumerate(text.places):
            inside = [at - block * size for at in mentions if at // size == block]
            if inside:
                places[row, slot] = torch.tensor((inside * MENTIONS)[:MENTIONS])
    return places
