"""How well keys are recalled while training goes on, in sources that are not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from famcli.models.decoder import Decoder
from famcli.training.material import Material
from famcli.training.reading import Asked
from famcli.training.recipe import KeyPlaces, Recipe
from famcli.training.team import ALONE, Team

_AT_ONCE = KeyPlaces(at_once=1.0, soon=0.0, later=0.0)


@dataclass(frozen=True)
class Recall:
    """What keys told at the beginning of a text are worth after ``updates`` updates of the FAM.

    Attributes:
        updates: blocks finished since.
        accuracy: share of keys whose every token is the likeliest.
        loss: mean of the answers, in nats a token.
    """

    updates: int
    accuracy: float
    loss: float


@torch.no_grad()
def evaluate_recall(model: Decoder, recipe: Recipe, material: Material, team: Team = ALONE) -> list[Recall]:
    """Asks for the same keys in the middle of each block of ``recipe.evaluate_blocks``, counted from 0.

    The keys are dealt among the processes of a team.
    """
    model.eval()
    device, size = model.embedding.weight.device, model.config.block_size
    sources = []
    for i in team.deal(recipe.evaluate_streams):
        rng = np.random.default_rng((recipe.seed, 4, i))
        sources.append(material.passkeys.draw(rng, _AT_ONCE, size, recipe.longest_wait, None))
    state, read, found = model.start(len(sources)), 0, []
    for updates in sorted(recipe.evaluate_blocks):
        stop = updates * size + size // 2
        losses, right = torch.empty(0, device=device), list[bool]()
        if sources:
            tokens = np.stack([source.tokens(read, stop - read) for source in sources])
            state = model.prefill(torch.from_numpy(tokens).to(device), state)
            asked = Asked.of("recall", list(range(len(sources))), [source.question for source in sources], device)
            losses, _, right = asked.score(model, asked.read(model, state.fork()))
        read, hits = stop, list(chain.from_iterable(team.gathered(right)))
        found.append(Recall(updates, sum(hits) / len(hits), torch.cat(team.tensors(losses)).mean().item()))
    model.train()
    return found
